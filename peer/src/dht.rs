//! Finding a coordinator by its key alone, through the Mainline DHT of BitTorrent.
//!
//! A coordinator keeps a note there, signed with its key (BEP 44): where it can be reached, and others by which one gets
//! there. Nodes of the DHT are strangers, on both sides: they can withhold the note or serve an older one of the same
//! coordinator, not change it. Notes are for everybody who knows the key, and nodes see who asks.
//!
//! It is for the first contact alone. Who works together tells each other everything else.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::StreamExt;
use mainline::{Dht, MutableItem, async_dht::AsyncDht};
use serde::{Deserialize, Serialize};
use talka_core::{ids::PeerId, limits};
use tokio_util::task::AbortOnDropHandle;

/// A DHT of its own on this machine, for tests.
pub use mainline::Testnet;

use crate::{
    address::PeerAddr,
    connections::Network,
    endpoint::{PeerEndpoint, Relay},
    identity::Identity,
};

/// Tells the notes of this program from all others of a key.
const SALT: &[u8] = b"talka/1";
/// Nodes forget a note after two hours.
const REPEAT_INTERVAL: Duration = Duration::from_mins(30);
/// Before another try after a failure.
const RETRY_PAUSE: Duration = Duration::from_mins(1);

/// The DHT is of no help.
#[derive(Debug, thiserror::Error)]
pub enum DhtError {
    /// No socket can be had.
    #[error("cannot take part in the DHT")]
    Join(#[source] std::io::Error),
    /// None of the nodes to begin with has an address.
    #[error("{0:?} is no node of the DHT: write HOST:PORT")]
    Node(String),
    /// There is no note, or it does not arrive.
    #[error(
        "the DHT knows no coordinator {0}: it must be started with --dht, and reachable from the Internet"
    )]
    Unknown(PeerId),
}

/// Where to begin: nodes that are known to be there, as HOST:PORT; the public ones if there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nodes(pub Vec<String>);

impl Nodes {
    fn join(&self, from: IpAddr) -> Result<AsyncDht, DhtError> {
        let mut builder = Dht::builder();
        if !self.0.is_empty() {
            let known = |node: &&String| node.to_socket_addrs().is_ok_and(|mut found| found.next().is_some());
            if let Some(wrong) = self.0.iter().find(|node| !known(node)) {
                return Err(DhtError::Node(wrong.chars().take(80).collect()));
            }
            builder.bootstrap(&self.0);
        }
        let IpAddr::V4(from) = from else { return Ok(builder.build().map_err(DhtError::Join)?.as_async()) };
        Ok(builder.bind_address(from).build().map_err(DhtError::Join)?.as_async())
    }
}

/// Keeps a coordinator's note in the DHT until it is dropped.
#[derive(Debug)]
pub struct Publication {
    _task: AbortOnDropHandle<()>,
}

impl Publication {
    /// Publishes where the peer at `endpoint` is, as far as others on the Internet can get there.
    pub fn start(endpoint: PeerEndpoint, identity: Identity, nodes: &Nodes) -> Result<Self, DhtError> {
        let from = endpoint.bound().first().map_or(Ipv4Addr::UNSPECIFIED.into(), SocketAddr::ip);
        let dht = nodes.join(from)?;
        Ok(Self { _task: AbortOnDropHandle::new(tokio::spawn(publish(dht, endpoint, identity))) })
    }
}

async fn publish(dht: AsyncDht, endpoint: PeerEndpoint, identity: Identity) {
    loop {
        let me = public(endpoint.address());
        let pause = if me.is_dialable() {
            match dht.put_mutable(signed(&identity, &encode(&[me])), None).await {
                Ok(_) => {
                    tracing::info!("the DHT knows where this coordinator is");
                    REPEAT_INTERVAL
                }
                Err(error) => {
                    tracing::warn!(%error, "the DHT does not take this coordinator's note");
                    RETRY_PAUSE
                }
            }
        } else {
            tracing::warn!(
                "the DHT is not told where this coordinator is: it has no public address and no relay"
            );
            REPEAT_INTERVAL
        };
        tokio::time::sleep(pause).await;
    }
}

/// Without addresses that mean something else elsewhere, unless there are no others because the peer keeps to one machine.
fn public(mut address: PeerAddr) -> PeerAddr {
    let on_loopback = address.direct.iter().all(|address| address.ip().is_loopback());
    if !on_loopback {
        address.direct.retain(|address| Network::of(address.ip()).is_some());
    }
    address
}

/// The note of `identity`, newer than all that it signed before.
fn signed(identity: &Identity, value: &[u8]) -> MutableItem {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let number = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    // What BEP 44 has signed: the bencoded pairs of salt, number and value.
    let (salt, pair) = (format!("4:salt{}:", SALT.len()), format!("3:seqi{number}e1:v{}:", value.len()));
    let statement = [salt.as_bytes(), SALT, pair.as_bytes(), value];
    let signature = identity.sign(&statement.concat());
    let key = *identity.peer_id().as_bytes();
    MutableItem::new_signed_unchecked(key, *signature.as_bytes(), value, number, Some(SALT))
}

/// Looks up where a coordinator is, for at most [`limits::DHT_SEARCH_MAX`]. `from` is the address to ask from.
pub async fn find(coordinator: PeerId, nodes: &Nodes, from: IpAddr) -> Result<PeerAddr, DhtError> {
    let dht = nodes.join(from)?;
    let mut found = dht.get_mutable(coordinator.as_bytes(), Some(SALT), None);
    let mut newest: Option<MutableItem> = None;
    let looking = async {
        while let Some(note) = found.next().await {
            if newest.as_ref().is_none_or(|known| known.seq() < note.seq()) {
                newest = Some(note);
            }
        }
    };
    // Whoever is silent makes a search last; what was found until then is signed as well.
    drop(tokio::time::timeout(limits::DHT_SEARCH_MAX, looking).await);
    let entries = newest.map(|note| decode(note.value())).unwrap_or_default();
    let it = entries.into_iter().find(|entry| entry.peer == coordinator && entry.is_dialable());
    it.ok_or(DhtError::Unknown(coordinator))
}

/// One peer in a note. Changing it means another [`SALT`].
#[derive(Serialize, Deserialize)]
struct Entry {
    peer: [u8; 32],
    direct: Vec<SocketAddr>,
    relay: Option<String>,
}

/// As many as there is room for.
fn encode(peers: &[PeerAddr]) -> Vec<u8> {
    let entry = |address: &PeerAddr| Entry {
        peer: *address.peer.as_bytes(),
        direct: address.direct.iter().take(limits::DHT_ADDRESSES_MAX).copied().collect(),
        relay: address.relay.as_ref().map(ToString::to_string),
    };
    let mut entries: Vec<Entry> = peers.iter().take(limits::DHT_ENTRIES_MAX).map(entry).collect();
    loop {
        // Encoding to memory can't fail.
        let encoded = postcard::to_stdvec(&entries).unwrap_or_default();
        if encoded.len() <= limits::DHT_NOTE_BYTES_MAX {
            return encoded;
        }
        entries.pop();
    }
}

fn decode(note: &[u8]) -> Vec<PeerAddr> {
    if note.len() > limits::DHT_NOTE_BYTES_MAX {
        return Vec::new();
    }
    let entries: Vec<Entry> = postcard::from_bytes(note).unwrap_or_default();
    let address = |entry: Entry| PeerAddr {
        peer: PeerId::new(entry.peer),
        direct: entry.direct.into_iter().take(limits::DHT_ADDRESSES_MAX).collect(),
        relay: entry.relay.and_then(|url| url.parse::<Relay>().ok()?.url().cloned()),
    };
    entries.into_iter().take(limits::DHT_ENTRIES_MAX).map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8, addresses: u16) -> PeerAddr {
        let direct = (0..addresses).map(|port| ([198, 51, 100, number], 1000 + port).into());
        let relay = Some("https://relay.example/".parse().expect("a URL"));
        PeerAddr { relay, ..PeerAddr::new(PeerId::new([number; 32]), direct) }
    }

    #[test]
    fn a_note_holds_what_fits() {
        assert_eq!(decode(&encode(&[peer(1, 2)])), [peer(1, 2)]);
        let many: Vec<PeerAddr> = (0..100).map(|number| peer(number, 1)).collect();
        let encoded = encode(&many);
        assert!(encoded.len() <= limits::DHT_NOTE_BYTES_MAX);
        let kept = decode(&encoded);
        assert!(kept.len() > 5 && kept.len() <= limits::DHT_ENTRIES_MAX, "{}", kept.len());
        assert_eq!(kept, many[..kept.len()]);
        assert_eq!(decode(&encode(&[peer(1, 60)]))[0].direct.len(), limits::DHT_ADDRESSES_MAX);
    }

    #[test]
    fn a_broken_note_names_nobody() {
        let whole = encode(&[peer(1, 2)]);
        for end in 0..whole.len() {
            decode(&whole[..end]);
        }
        assert_eq!(decode(&[0xff; 1000]), []);
        assert_eq!(decode(&vec![0; 5000]), []);
    }

    #[test]
    fn private_addresses_are_not_published() {
        let at = |texts: &[&str]| {
            let direct = texts.iter().map(|text| text.parse().expect("an address"));
            public(PeerAddr::new(PeerId::new([1; 32]), direct)).direct.len()
        };
        assert_eq!(at(&["192.168.1.2:1", "198.51.100.1:1", "127.0.0.1:1", "[fd00::1]:1"]), 1);
        assert_eq!(at(&["192.168.1.2:1", "127.0.0.1:1"]), 0);
        assert_eq!(at(&["127.0.0.1:1"]), 1, "a grid on one machine");
    }
}
