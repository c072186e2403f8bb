//! Coordinators on the local network: announced by those that want to be found, found by workers without a ticket.
//!
//! Multicast DNS (RFC 6762) on the private addresses of this machine and on no other: where an interface has only a public
//! address nothing is sent and nothing is answered. Whoever is on the network can announce what it likes, so what is
//! found is an offer: the key that the owner agrees to is what counts, and the connection shows that it answers.
//!
//! | module | subject |
//! |---|---|
//! | `dns` | the messages |
//! | `sockets` | on which addresses, and how |

mod dns;
mod sockets;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::{Duration, Instant},
};

use talka_core::{ids::PeerId, limits};
use tokio::{net::UdpSocket, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

pub use self::sockets::is_local;
use self::{dns::For, sockets::GROUP};
use crate::{
    address::PeerAddr,
    bucket::TokenBucket,
    endpoint::{BindError, EndpointConfig, PeerEndpoint},
    identity::Identity,
};

/// How often the addresses of this machine are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// When questions are sent, after the start: packets get lost, and a few are as good as many.
const ASK_AT: [Duration; 3] = [Duration::ZERO, Duration::from_millis(300), Duration::from_secs(1)];

/// Nothing can be looked for.
#[derive(Debug, thiserror::Error)]
pub enum LanError {
    /// There is no local network.
    #[error("this machine has no private address, so there is no local network to look for coordinators in")]
    NoNetwork,
    /// The machine's addresses can't be found out.
    #[error("cannot find out this machine's addresses")]
    Bind(#[from] BindError),
    /// A question can't be sent.
    #[error("cannot ask the local network for coordinators")]
    Ask(#[source] io::Error),
}

/// Announces a coordinator on the local network until it is dropped.
#[derive(Debug)]
pub struct Announcement {
    interfaces: BTreeSet<Ipv4Addr>,
    _task: AbortOnDropHandle<()>,
}

impl Announcement {
    /// Answers whoever looks for coordinators: the one at `endpoint` is here.
    pub fn start(endpoint: PeerEndpoint) -> Self {
        let interfaces = sockets::interfaces(&endpoint);
        Self { interfaces, _task: AbortOnDropHandle::new(tokio::spawn(announce(endpoint))) }
    }

    /// The addresses of this machine on whose networks it was announced at the start; none if all are public.
    pub fn interfaces(&self) -> &BTreeSet<Ipv4Addr> {
        &self.interfaces
    }
}

/// Keeps one task for each private address, as they come and go.
async fn announce(endpoint: PeerEndpoint) {
    let mut tasks: HashMap<Ipv4Addr, AbortOnDropHandle<()>> = HashMap::new();
    loop {
        let interfaces = sockets::interfaces(&endpoint);
        tasks.retain(|interface, task| interfaces.contains(interface) && !task.is_finished());
        let port = endpoint.bound().first().map_or(0, SocketAddr::port);
        for interface in interfaces {
            if tasks.contains_key(&interface) {
                continue;
            }
            match sockets::answering(interface) {
                Ok(socket) => {
                    let at = SocketAddrV4::new(interface, port);
                    let task = tokio::spawn(answer(socket, endpoint.peer_id(), at));
                    tasks.insert(interface, AbortOnDropHandle::new(task));
                }
                Err(error) => tracing::warn!(%interface, %error, "cannot be found on this local network"),
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Answers on one network until its socket fails.
async fn answer(socket: UdpSocket, me: PeerId, at: SocketAddrV4) {
    let mut bucket = TokenBucket::new(limits::LAN_ANSWERS_PER_SECOND, limits::LAN_ANSWERS_PER_SECOND);
    let mut buffer = [0; limits::LAN_MESSAGE_BYTES_MAX];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok((length, SocketAddr::V4(from))) => (length, from),
            Ok(_) => continue,
            Err(error) => {
                tracing::debug!(%error, "no longer found on this local network");
                return;
            }
        };
        let Some(id) = dns::asked(&buffer[..length]).filter(|_| is_local(*from.ip())) else { continue };
        if bucket.take(Instant::now(), 1).is_err() {
            continue;
        }
        // Who asks from another port than that of the service is no such service and hears only what is sent to it.
        let (whom, to) =
            if from.port() == GROUP.port() { (For::Everybody, GROUP) } else { (For::Asker(id), from) };
        if let Err(error) = socket.send_to(&dns::answer(me, at, whom), to).await {
            tracing::debug!(%error, "an answer was not sent");
        }
    }
}

/// Looks for coordinators on the local networks of a peer that would listen at `listen`: for at most
/// [`limits::LAN_SEARCH_MAX`], or until `wanted` is found. At most [`limits::LAN_COORDINATORS_MAX`] are told, by key.
pub async fn find(listen: Option<SocketAddr>, wanted: Option<PeerId>) -> Result<Vec<PeerAddr>, LanError> {
    let default = EndpointConfig::new(Identity::ephemeral());
    let listen = SocketAddr::new(listen.unwrap_or(default.listen).ip(), 0);
    let probe = PeerEndpoint::bind(EndpointConfig { listen, ..default }).await?;
    let interfaces = sockets::interfaces(&probe);
    probe.close().await;
    if interfaces.is_empty() {
        return Err(LanError::NoNetwork);
    }
    let mut asking = JoinSet::new();
    let (found, mut heard) = tokio::sync::mpsc::channel(limits::LAN_COORDINATORS_MAX);
    for interface in interfaces {
        let socket = sockets::asking(interface).map_err(LanError::Ask)?;
        asking.spawn(ask(socket, found.clone()));
    }
    drop(found);
    let mut coordinators = BTreeMap::<PeerId, BTreeSet<SocketAddr>>::new();
    let listening = async {
        while let Some((peer, addresses)) = heard.recv().await {
            if coordinators.len() < limits::LAN_COORDINATORS_MAX || coordinators.contains_key(&peer) {
                let known = coordinators.entry(peer).or_default();
                known.extend(addresses);
                while known.len() > limits::TICKET_ADDRESSES_MAX {
                    known.pop_last();
                }
            }
            if wanted.is_some_and(|wanted| wanted == peer) {
                break;
            }
        }
    };
    // The end of the time is how a search usually ends.
    drop(tokio::time::timeout(limits::LAN_SEARCH_MAX, listening).await);
    Ok(coordinators.into_iter().map(|(peer, addresses)| PeerAddr::new(peer, addresses)).collect())
}

/// What was heard of one coordinator.
type Heard = (PeerId, Vec<SocketAddr>);

/// Asks on one network, and passes on what comes back.
async fn ask(socket: UdpSocket, found: tokio::sync::mpsc::Sender<Heard>) {
    // Answers to somebody else's question are none to this one.
    let id: u16 = rand::random();
    let sending = async {
        let started = tokio::time::Instant::now();
        for after in ASK_AT {
            tokio::time::sleep_until(started + after).await;
            if let Err(error) = socket.send_to(&dns::question(id), GROUP).await {
                tracing::debug!(%error, "a question was not sent");
            }
        }
        std::future::pending::<()>().await;
    };
    let receiving = async {
        let mut buffer = [0; limits::LAN_MESSAGE_BYTES_MAX];
        loop {
            match socket.recv_from(&mut buffer).await {
                Ok((length, _)) => {
                    for (peer, addresses) in dns::coordinators(&buffer[..length], id) {
                        let local = |address: &SocketAddr| match address {
                            SocketAddr::V4(v4) => is_local(*v4.ip()),
                            SocketAddr::V6(_) => false,
                        };
                        let addresses: Vec<SocketAddr> = addresses.into_iter().filter(local).collect();
                        if !addresses.is_empty() && found.send((peer, addresses)).await.is_err() {
                            return;
                        }
                    }
                }
                // What the network says of a packet that was not received: others may be.
                Err(error) => tracing::debug!(%error, "no answer can be received"),
            }
        }
    };
    tokio::select! {
        () = sending => {}
        () = receiving => {}
    }
}
