//! Who else has the blobs of a job: the coordinator tells.

use std::net::SocketAddr;

use futures_util::{FutureExt, future::BoxFuture};
use talka_core::{ids::PeerId, job::BlobRef, limits};
use talka_peer::{
    Cause,
    address::PeerAddr,
    endpoint::{PeerEndpoint, Privacy},
    rpc::Client,
    swarm::Members,
    transfer::Provider,
};
use talka_proto::{
    convert::{id_bytes, peer_id},
    wire::{self, peers_client::PeersClient},
};

/// What a worker tells of itself, and whom of the others it deals with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Presence {
    /// Where others can dial it.
    addresses: Vec<SocketAddr>,
    /// Whether others can reach it through the coordinator's relay.
    by_relay: bool,
    /// Whom it fetches from.
    others: Others,
}

/// Which other volunteers a worker fetches from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Others {
    #[default]
    Any,
    /// Those that the relay reaches.
    ByRelay,
    Nobody,
}

impl Presence {
    /// Of the worker at `endpoint`, which serves others or not.
    pub(crate) fn of(endpoint: &PeerEndpoint, coordinator: &PeerAddr, serves: bool) -> Self {
        let PeerAddr { direct, relay, .. } = endpoint.address();
        let relay = relay.is_some() && relay == coordinator.relay;
        let others = match endpoint.privacy() {
            Privacy::Open => Others::Any,
            Privacy::RelayOnly if relay => Others::ByRelay,
            Privacy::RelayOnly | Privacy::Only(_) => Others::Nobody,
        };
        let is_named = serves && others != Others::Nobody;
        // A private one shows no address, whatever its endpoint says.
        let direct = if is_named && others == Others::Any { direct } else { Vec::new() };
        Self { addresses: direct, by_relay: is_named && relay, others }
    }

    /// Where others can dial it; nowhere if it is private or serves nobody.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Whether others can reach it through the coordinator's relay.
    pub(crate) fn by_relay(&self) -> bool {
        self.by_relay
    }

    /// The ways to a peer that was named, if this worker may take one.
    fn provider(&self, peer: PeerId, named: &wire::Provider, coordinator: &PeerAddr) -> Option<Provider> {
        let addresses = named.addresses.iter().take(limits::TICKET_ADDRESSES_MAX);
        let direct: Vec<SocketAddr> = match self.others {
            Others::Any => addresses.filter_map(|text| text.parse().ok()).collect(),
            Others::ByRelay | Others::Nobody => Vec::new(),
        };
        let relay = coordinator.relay.clone().filter(|_| named.by_relay && self.others != Others::Nobody);
        let address = PeerAddr { peer, direct, relay };
        address.is_dialable().then(|| address.into())
    }
}

/// See the [module](self). Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tracker {
    client: Client,
    coordinator: Provider,
    presence: Presence,
}

impl Tracker {
    pub(crate) fn new(client: Client, presence: Presence) -> Self {
        let coordinator = Provider::from(client.address().clone());
        Self { client, coordinator, presence }
    }

    async fn ask(&self, blob: BlobRef) -> Result<Vec<Provider>, Cause> {
        let request = wire::ProvidersRequest {
            hash: id_bytes(blob.hash.as_bytes()),
            addresses: self.presence.addresses.iter().map(ToString::to_string).collect(),
            by_relay: self.presence.by_relay,
            ..wire::ProvidersRequest::default()
        };
        let mut peers = PeersClient::new(self.client.channel());
        let reply = peers.providers(request).await?.into_inner();
        let providers = reply.providers.iter().take(limits::PROVIDERS_MAX).filter_map(|named| {
            self.presence.provider(peer_id(&named.peer).ok()?, named, self.client.address())
        });
        Ok(providers.collect())
    }
}

impl Members for Tracker {
    fn source(&self) -> Option<Provider> {
        Some(self.coordinator.clone())
    }

    fn others(&self, blob: BlobRef) -> BoxFuture<'_, Result<Vec<Provider>, Cause>> {
        self.ask(blob).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId::new([2; 32]);

    #[test]
    fn a_private_worker_takes_no_direct_way_to_others() {
        let coordinator = PeerAddr {
            relay: Some("https://relay.example".parse().expect("a URL")),
            ..PeerAddr::new(PeerId::new([1; 32]), [([127, 0, 0, 1], 7).into()])
        };
        let ways = |others, addresses: &[&str], by_relay| {
            let addresses = addresses.iter().map(ToString::to_string).collect();
            let named = wire::Provider { peer: Vec::new().into(), addresses, by_relay };
            let provider = Presence { others, ..Presence::default() }.provider(PEER, &named, &coordinator);
            provider.map(|it| (it.address().direct.len(), it.address().relay.is_some()))
        };
        let both = ["127.0.0.1:8", "[::1]:8"];
        for (others, addresses, by_relay, expected) in [
            (Others::Any, &both[..], true, Some((2, true))),
            (Others::Any, &both[..], false, Some((2, false))),
            (Others::Any, &[], false, None),
            (Others::Any, &["nonsense"], false, None),
            (Others::ByRelay, &both[..], true, Some((0, true))),
            (Others::ByRelay, &both[..], false, None),
            (Others::Nobody, &both[..], true, None),
        ] {
            assert_eq!(ways(others, addresses, by_relay), expected, "{others:?} {addresses:?} {by_relay}");
        }
    }
}
