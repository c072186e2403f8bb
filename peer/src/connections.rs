//! How many connections are open, in all, per key and per network.
//!
//! Keys are free, so a cap per key alone would bound nothing; addresses are not. One account covers every
//! protocol of a peer.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use iroh::endpoint::{Connection, VarInt};
use talka_core::{ids::PeerId, limits};

use crate::identity::peer_id;

/// A connection is one too many. Worth a retry after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooManyConnections {
    /// The whole server is full.
    #[error("too many connections in all (limit {}): try again later", limits::CONNECTIONS_MAX)]
    InAll,
    /// The peer has its share.
    #[error("too many connections of one peer (limit {}): close some", limits::CONNECTIONS_PER_KEY_MAX)]
    OfPeer,
    /// The network has its share.
    #[error(
        "too many connections from one network (limit {}): close some",
        limits::CONNECTIONS_PER_ADDRESS_MAX
    )]
    OfNetwork,
}

/// Counts connections and refuses those above the limits. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct ConnectionLimits(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    peers: HashMap<PeerId, usize>,
    networks: HashMap<Network, usize>,
}

impl ConnectionLimits {
    /// Counts one more connection, until the permit is dropped.
    pub(crate) fn admit(
        &self,
        peer: Option<PeerId>,
        address: Option<IpAddr>,
    ) -> Result<Permit, TooManyConnections> {
        let network = address.and_then(Network::of);
        let mut counts = self.counts();
        if counts.all >= limits::CONNECTIONS_MAX {
            return Err(TooManyConnections::InAll);
        }
        let is_at = |count: Option<&usize>, max: usize| count.is_some_and(|count| *count >= max);
        if peer.is_some_and(|peer| is_at(counts.peers.get(&peer), limits::CONNECTIONS_PER_KEY_MAX)) {
            return Err(TooManyConnections::OfPeer);
        }
        if network.is_some_and(|net| is_at(counts.networks.get(&net), limits::CONNECTIONS_PER_ADDRESS_MAX)) {
            return Err(TooManyConnections::OfNetwork);
        }
        counts.all += 1;
        if let Some(peer) = peer {
            *counts.peers.entry(peer).or_default() += 1;
        }
        if let Some(network) = network {
            *counts.networks.entry(network).or_default() += 1;
        }
        Ok(Permit { limits: self.clone(), peer, network })
    }

    /// Like [`admit`](Self::admit) for a QUIC connection, which is closed with the reason when it is refused.
    pub(crate) fn admit_or_close(&self, connection: &Connection) -> Result<Permit, TooManyConnections> {
        let admitted = self.admit(Some(peer_id(connection.remote_id())), remote_ip(connection));
        if let Err(reason) = &admitted {
            connection.close(REFUSED, reason.to_string().as_bytes());
        }
        admitted
    }

    /// Whether a connection from there would be refused, whoever makes it.
    pub(crate) fn is_full_for(&self, address: Option<IpAddr>) -> bool {
        let counts = self.counts();
        let network = address.and_then(Network::of).and_then(|network| counts.networks.get(&network));
        counts.all >= limits::CONNECTIONS_MAX
            || network.is_some_and(|count| *count >= limits::CONNECTIONS_PER_ADDRESS_MAX)
    }

    /// Whether more than half of the limit is used.
    pub(crate) fn is_busy(&self) -> bool {
        self.counts().all > limits::CONNECTIONS_MAX / 2
    }

    /// Open connections.
    pub fn open(&self) -> usize {
        self.counts().all
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Counts are changed by whole statements, so they hold even after a panic elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Code of a connection that was closed because there are too many.
const REFUSED: VarInt = VarInt::from_u32(2);

/// The address of the path that a connection uses now; none when a relay carries it.
pub(crate) fn remote_ip(connection: &Connection) -> Option<IpAddr> {
    connection.paths().iter().find_map(|path| match path.remote_addr() {
        iroh::TransportAddr::Ip(address) => Some(address.ip()),
        _ => None,
    })
}

/// One counted connection.
#[derive(Debug)]
pub(crate) struct Permit {
    limits: ConnectionLimits,
    peer: Option<PeerId>,
    network: Option<Network>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.limits.counts();
        counts.all = counts.all.saturating_sub(1);
        if let Some(peer) = self.peer {
            give_back(&mut counts.peers, peer);
        }
        if let Some(network) = self.network {
            give_back(&mut counts.networks, network);
        }
    }
}

fn give_back<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K) {
    if let std::collections::hash_map::Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() = count.get().saturating_sub(1);
        if *count.get() == 0 {
            count.remove();
        }
    }
}

/// A public /24 or /48: what one person can easily have many addresses of.
///
/// Loopback, link-local and private addresses are none: there the machines are the owner's own, and a
/// laboratory behind one prefix is not an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Network {
    V4([u8; 3]),
    V6([u8; 6]),
}

impl Network {
    pub(crate) fn of(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            IpAddr::V4(v4) if v4.is_loopback() || v4.is_private() || v4.is_link_local() => None,
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                Some(Self::V4([a, b, c]))
            }
            IpAddr::V6(v6) if v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() => None,
            IpAddr::V6(v6) => v6.octets().first_chunk().copied().map(Self::V6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn neighbours_share_a_network_and_own_machines_have_none() {
        let same =
            |a: &str, b: &str| Network::of(ip(a)) == Network::of(ip(b)) && Network::of(ip(a)).is_some();
        assert!(same("198.51.100.1", "198.51.100.254"));
        assert!(same("198.51.100.1", "::ffff:198.51.100.9"));
        assert!(!same("198.51.100.1", "198.51.101.1"));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:ffff::1"));
        assert!(!same("2001:db8:1::1", "2001:db8:2::1"));
        for own in ["127.0.0.9", "::1", "10.1.2.3", "192.168.1.1", "169.254.1.1", "fe80::1", "fd00::1"] {
            assert_eq!(Network::of(ip(own)), None, "{own}");
        }
    }

    #[test]
    fn each_limit_holds_and_closing_makes_room() {
        let connections = ConnectionLimits::default();
        let peer = |n: usize| Some(PeerId::new([u8::try_from(n % 251).expect("small"); 32]));
        let address = ip("198.51.100.7");

        let mut permits = Vec::new();
        for _ in 0..limits::CONNECTIONS_PER_KEY_MAX {
            permits.push(connections.admit(peer(1), None).expect("its share"));
        }
        assert_eq!(connections.admit(peer(1), None).expect_err("above"), TooManyConnections::OfPeer);
        for n in 0..limits::CONNECTIONS_PER_ADDRESS_MAX {
            permits.push(connections.admit(peer(n + 2), Some(address)).expect("its share"));
        }
        assert!(connections.is_full_for(Some(address)));
        assert_eq!(
            connections.admit(peer(200), Some(address)).expect_err("above"),
            TooManyConnections::OfNetwork
        );
        permits.push(connections.admit(peer(200), Some(ip("127.0.0.1"))).expect("loopback has no limit"));

        permits.clear();
        assert_eq!(connections.open(), 0);
        let counts = connections.counts();
        assert!(counts.peers.is_empty() && counts.networks.is_empty(), "nothing is remembered of who left");
    }

    #[test]
    fn the_total_is_bounded() {
        let connections = ConnectionLimits::default();
        let permits: Vec<_> =
            (0..limits::CONNECTIONS_MAX).map(|_| connections.admit(None, None).expect("room")).collect();
        assert!(connections.is_busy() && connections.is_full_for(None));
        assert_eq!(connections.admit(None, None).expect_err("full"), TooManyConnections::InAll);
        drop(permits);
        assert!(!connections.is_busy());
    }
}
