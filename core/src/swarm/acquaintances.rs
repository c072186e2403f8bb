//! Whom a peer knows of the exchange of its blobs, so that a swarm goes on without its coordinator.
//!
//! There are two kinds: *senders* sent this peer bytes that were verified, so they are named first; *askers* wanted to
//! know who takes part and said where they can be dialed. Asking is cheap, and so are keys, so askers fill what senders
//! leave, at random. Addresses are hints: whoever dials one finds out by the key who answers there.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
};

use super::{Draw, Roster};
use crate::{
    ids::{BlobHash, PeerId},
    limits,
    quantities::Timestamp,
};

/// Of those that are named, so many are senders even if there are askers: a newcomer has to be heard of, too.
const SENDERS_NAMED: usize = limits::PROVIDERS_MAX / 2;

/// A peer, and where it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquaintance {
    /// Who.
    pub peer: PeerId,
    /// Where it says, or others say, that it can be dialed.
    pub addresses: Vec<SocketAddr>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Acquaintances {
    senders: Roster,
    askers: Roster,
    addresses: HashMap<PeerId, Vec<SocketAddr>>,
}

impl Acquaintances {
    /// A peer asked who takes part in the exchange of a blob, and can be dialed there. Returns whether it is one of
    /// those who are named from now on.
    pub fn on_asked(
        &mut self,
        now: Timestamp,
        hash: BlobHash,
        peer: PeerId,
        addresses: Vec<SocketAddr>,
    ) -> bool {
        self.learn(peer, addresses) && self.askers.meet(now, hash, peer)
    }

    /// A peer sent bytes of a blob, from there.
    pub fn on_received(
        &mut self,
        now: Timestamp,
        hash: BlobHash,
        peer: PeerId,
        addresses: &[SocketAddr],
    ) -> bool {
        // What a peer said of itself is not replaced by what others said.
        let known = self.addresses.contains_key(&peer);
        (known || self.learn(peer, addresses.to_vec())) && self.senders.meet(now, hash, peer)
    }

    /// Some of those who take part, `asker` aside, at most [`limits::PROVIDERS_MAX`].
    pub fn named(&self, now: Timestamp, hash: BlobHash, asker: PeerId, draw: Draw<'_>) -> Vec<Acquaintance> {
        let senders = self.senders.members(now, hash, asker, draw);
        let askers = self.askers.members(now, hash, asker, draw);
        let (first, last) = senders.split_at(senders.len().min(SENDERS_NAMED));
        let mut seen = BTreeSet::new();
        let chosen = first.iter().chain(&askers).chain(last).filter(|peer| seen.insert(**peer));
        let named = chosen.filter_map(|peer| {
            let addresses = self.addresses.get(peer)?.clone();
            Some(Acquaintance { peer: *peer, addresses })
        });
        named.take(limits::PROVIDERS_MAX).collect()
    }

    /// A blob is not here any more.
    pub fn forget(&mut self, hash: BlobHash) {
        self.senders.forget(hash);
        self.askers.forget(hash);
    }

    /// Remembers where a peer is, if there is room; those who take part in nothing make room.
    fn learn(&mut self, peer: PeerId, mut addresses: Vec<SocketAddr>) -> bool {
        addresses.retain(is_worth_a_dial);
        addresses.truncate(limits::TICKET_ADDRESSES_MAX);
        if addresses.is_empty() {
            return false;
        }
        if self.addresses.len() >= limits::ACQUAINTANCES_MAX && !self.addresses.contains_key(&peer) {
            let (senders, askers) = (&self.senders, &self.askers);
            self.addresses.retain(|peer, _| senders.is_seated(*peer) || askers.is_seated(*peer));
            if self.addresses.len() >= limits::ACQUAINTANCES_MAX {
                return false;
            }
        }
        self.addresses.insert(peer, addresses);
        true
    }
}

/// Whether an address that somebody named may be one of a peer.
pub fn is_worth_a_dial(address: &SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let is_broadcast = matches!(ip, core::net::IpAddr::V4(v4) if v4.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: BlobHash = BlobHash::new([9; 32]);
    const NOW: Timestamp = Timestamp::from_millis(1000);

    fn peer(number: usize) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        PeerId::new(bytes)
    }

    fn at(text: &str) -> Vec<SocketAddr> {
        vec![text.parse().expect("an address")]
    }

    fn names(acquaintances: &Acquaintances, asker: usize) -> Vec<PeerId> {
        acquaintances.named(NOW, HASH, peer(asker), &mut |_| 0).into_iter().map(|named| named.peer).collect()
    }

    #[test]
    fn who_sent_something_is_named_first_and_whoever_asks_is_named_to_others() {
        let mut known = Acquaintances::default();
        assert!(known.on_asked(NOW, HASH, peer(1), at("192.0.2.1:1")));
        assert!(known.on_received(NOW, HASH, peer(2), &at("192.0.2.2:1")));
        assert_eq!(names(&known, 3), [peer(2), peer(1)]);
        assert_eq!(names(&known, 1), [peer(2)]);
        known.on_received(NOW, HASH, peer(1), &at("198.51.100.1:1"));
        let named = known.named(NOW, HASH, peer(3), &mut |_| 0);
        let of_first = named.iter().find(|named| named.peer == peer(1)).expect("named");
        assert_eq!(of_first.addresses, at("192.0.2.1:1"), "what it said itself counts more");
        known.forget(HASH);
        assert!(names(&known, 3).is_empty());
    }

    #[test]
    fn a_flood_of_askers_leaves_room_for_those_who_sent_something() {
        let mut known = Acquaintances::default();
        for number in 0..100_000 {
            known.on_asked(NOW, HASH, peer(number), at("192.0.2.1:1"));
        }
        assert!(known.addresses.len() <= limits::ACQUAINTANCES_MAX);
        for number in 0..3 {
            assert!(known.on_received(NOW, HASH, peer(number), &at("192.0.2.1:1")));
        }
        let named = names(&known, 200_000);
        assert_eq!(named.len(), limits::PROVIDERS_MAX);
        assert!((0..3).all(|number| named.contains(&peer(number))));
        let later = NOW + limits::SWARM_MEMBER_SILENCE_MAX;
        assert!(known.on_asked(later, HASH, peer(300_000), at("192.0.2.1:1")), "the silent make room");
    }

    #[test]
    fn addresses_that_are_none_make_nobody_a_member() {
        let mut known = Acquaintances::default();
        for text in ["0.0.0.0:1", "192.0.2.1:0", "224.0.0.1:9", "255.255.255.255:9", "[ff02::1]:9", "[::]:9"]
        {
            assert!(!known.on_asked(NOW, HASH, peer(1), at(text)), "{text}");
        }
        assert!(!known.on_asked(NOW, HASH, peer(1), vec![]));
        assert!(names(&known, 2).is_empty());
    }
}
