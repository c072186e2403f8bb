//! Where peers can be reached, as they say, for others who want to fetch from them.
//!
//! A lie costs others a failed dial: the key decides who answers. No URL of a peer is passed on: a relay is named only as
//! the coordinator's own. What a peer says replaces what it said before, so one that becomes private is forgotten with its
//! first word.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use talka_core::{ids::PeerId, limits, swarm::acquaintances::is_worth_a_dial};
use talka_peer::transfer::Provider;
use talka_proto::{convert::id_bytes, wire};

/// Ways to one peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    direct: Vec<String>,
    by_relay: bool,
}

impl Place {
    /// What a peer says of itself; addresses that are none are left out.
    pub(crate) fn new(addresses: &[String], by_relay: bool) -> Self {
        /// Addresses that are worth trying.
        const ADDRESSES_MAX: usize = 16;
        let valid = addresses.iter().filter(|text| text.parse::<SocketAddr>().is_ok());
        Self { direct: valid.take(ADDRESSES_MAX).cloned().collect(), by_relay }
    }

    /// Whether there is a way.
    pub(crate) fn is_reachable(&self) -> bool {
        self.by_relay || !self.direct.is_empty()
    }
}

/// See the [module](self). Clones share what is known.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Whether the coordinator has a relay.
    has_relay: bool,
    known: Arc<Mutex<HashMap<PeerId, Place>>>,
}

impl Places {
    pub(crate) fn new(has_relay: bool) -> Self {
        Self { has_relay, known: Arc::default() }
    }

    /// Remembers what a peer says of itself, instead of what it said before. Returns whether others can reach it.
    pub(crate) fn learn(&self, peer: PeerId, mut place: Place) -> bool {
        // Without a relay of the coordinator's there is no way through it.
        place.by_relay &= self.has_relay;
        let reachable = place.is_reachable();
        let mut known = self.known();
        if !reachable {
            known.remove(&peer);
        } else if known.len() < limits::WORKERS_MAX || known.contains_key(&peer) {
            known.insert(peer, place);
        }
        reachable
    }

    /// What others are told of a peer, if there is a way to it.
    pub(crate) fn provider(&self, peer: PeerId) -> Option<wire::Provider> {
        let Place { direct: addresses, by_relay } = self.known().get(&peer).cloned()?;
        Some(wire::Provider { peer: id_bytes(peer.as_bytes()), addresses, by_relay })
    }

    /// How the coordinator itself fetches from a peer: on a connection that the peer made, or by a dial where it says that
    /// it can be reached.
    pub(crate) fn way_to(&self, peer: PeerId) -> Provider {
        let place = self.known().get(&peer).cloned().unwrap_or_default();
        let direct = place.direct.iter().filter_map(|text| text.parse().ok()).filter(is_worth_a_dial);
        Provider::dial(peer, direct.collect())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<PeerId, Place>> {
        // Changed by whole statements, so it holds even after a panic elsewhere.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId::new([2; 32]);

    fn said(places: &Places) -> Option<(Vec<String>, bool)> {
        places.provider(PEER).map(|provider| (provider.addresses, provider.by_relay))
    }

    #[test]
    fn what_a_peer_says_replaces_what_it_said_before() {
        let places = Places::new(true);
        assert_eq!(said(&places), None);
        let (here, nonsense) = ("127.0.0.1:9".to_owned(), "example.org".to_owned());
        assert!(!places.way_to(PEER).address().is_dialable(), "it has to offer what it has");
        let anywhere = "0.0.0.0:9".to_owned();
        assert!(places.learn(PEER, Place::new(&[here.clone(), nonsense, anywhere.clone()], false)));
        assert_eq!(places.way_to(PEER).address().direct, [here.parse().expect("an address")]);
        assert_eq!(said(&places), Some((vec![here, anywhere], false)));
        assert!(places.learn(PEER, Place::new(&[], true)));
        assert_eq!(said(&places), Some((vec![], true)), "it is private now");
        assert!(places.way_to(PEER).address().direct.is_empty());
        assert!(!places.learn(PEER, Place::default()));
        assert_eq!(said(&places), None);
    }

    #[test]
    fn no_relay_but_the_coordinators_is_named() {
        let places = Places::new(false);
        assert!(!places.learn(PEER, Place::new(&[], true)));
        assert_eq!(said(&places), None);
    }

    #[test]
    fn addresses_of_one_peer_are_bounded() {
        let addresses: Vec<String> = (1..1000).map(|port| format!("127.0.0.1:{port}")).collect();
        assert_eq!(Place::new(&addresses, false).direct.len(), 16);
    }
}
