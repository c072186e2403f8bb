//! Who takes part in the exchange of each blob, as far as one peer knows.
//!
//! Every peer keeps one: a coordinator for the blobs of its jobs, a worker for what it has or fetches, so that a swarm
//! goes on while its coordinator is away. Whoever asks who else takes part is entered itself: a claim costs the
//! claimant a question, again and again, and a seat among few.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::Draw;
use crate::{
    ids::{BlobHash, PeerId},
    limits,
    quantities::Timestamp,
};

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Roster {
    blobs: HashMap<BlobHash, BTreeMap<PeerId, Timestamp>>,
    /// Blobs in which each peer is entered.
    seats: HashMap<PeerId, usize>,
}

/// Time without a word after which a member is forgotten.
const SILENCE_MAX: Duration = limits::SWARM_MEMBER_SILENCE_MAX;

impl Roster {
    /// A peer takes part, or still does. Returns whether it is entered: not when it has its share of seats, or when
    /// all seats of the blob are taken by members that were heard of lately.
    pub fn meet(&mut self, now: Timestamp, hash: BlobHash, peer: PeerId) -> bool {
        if let Some(seen) = self.blobs.get_mut(&hash).and_then(|members| members.get_mut(&peer)) {
            *seen = now;
            return true;
        }
        let seats = self.seats.get(&peer).copied().unwrap_or_default();
        if seats >= limits::EXCHANGED_BLOBS_PER_PEER_MAX {
            return false;
        }
        if self.blobs.len() >= limits::SWARM_BLOBS_MAX && !self.blobs.contains_key(&hash) {
            self.forget_silent(now);
            if self.blobs.len() >= limits::SWARM_BLOBS_MAX {
                return false;
            }
        }
        if self.blobs.get(&hash).is_some_and(|members| members.len() >= limits::SWARM_MEMBERS_MAX) {
            self.forget_silent_of(now, hash);
        }
        let members = self.blobs.entry(hash).or_default();
        if members.len() >= limits::SWARM_MEMBERS_MAX {
            return false;
        }
        members.insert(peer, now);
        *self.seats.entry(peer).or_default() += 1;
        true
    }

    /// Some of those who take part, `asker` aside, at most [`limits::PROVIDERS_MAX`], at random.
    pub fn members(&self, now: Timestamp, hash: BlobHash, asker: PeerId, draw: Draw<'_>) -> Vec<PeerId> {
        let Some(members) = self.blobs.get(&hash) else { return Vec::new() };
        let mut chosen = Vec::new();
        let heard = members.iter().filter(|(peer, seen)| **peer != asker && now.since(**seen) < SILENCE_MAX);
        // Reservoir sampling (Vitter 1985, algorithm R).
        for (number, (peer, _)) in (0u32..).zip(heard) {
            if chosen.len() < limits::PROVIDERS_MAX {
                chosen.push(*peer);
            } else if let Some(seat) = chosen.get_mut(draw(number + 1) as usize) {
                *seat = *peer;
            }
        }
        chosen
    }

    /// A peer takes no part in the exchange of a blob any more.
    pub fn leave(&mut self, hash: BlobHash, peer: PeerId) {
        let Some(members) = self.blobs.get_mut(&hash) else { return };
        if members.remove(&peer).is_some() {
            unseat(&mut self.seats, peer);
        }
        if members.is_empty() {
            self.blobs.remove(&hash);
        }
    }

    /// A peer is gone.
    pub fn peer_left(&mut self, peer: PeerId) {
        if self.seats.remove(&peer).is_some() {
            self.blobs.retain(|_, members| {
                members.remove(&peer);
                !members.is_empty()
            });
        }
    }

    /// Nobody needs a blob any more.
    pub fn forget(&mut self, hash: BlobHash) {
        for peer in self.blobs.remove(&hash).unwrap_or_default().into_keys() {
            unseat(&mut self.seats, peer);
        }
    }

    /// Whether a peer takes part in anything.
    pub fn is_seated(&self, peer: PeerId) -> bool {
        self.seats.contains_key(&peer)
    }

    /// Seats that are taken, over all blobs.
    pub fn len(&self) -> usize {
        self.blobs.values().map(BTreeMap::len).sum()
    }

    /// Whether nobody takes part in anything.
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    fn forget_silent(&mut self, now: Timestamp) {
        let hashes: Vec<BlobHash> = self.blobs.keys().copied().collect();
        for hash in hashes {
            self.forget_silent_of(now, hash);
        }
    }

    fn forget_silent_of(&mut self, now: Timestamp, hash: BlobHash) {
        let Some(members) = self.blobs.get_mut(&hash) else { return };
        let seats = &mut self.seats;
        members.retain(|peer, seen| {
            let heard = now.since(*seen) < SILENCE_MAX;
            if !heard {
                unseat(seats, *peer);
            }
            heard
        });
        if members.is_empty() {
            self.blobs.remove(&hash);
        }
    }
}

fn unseat(seats: &mut HashMap<PeerId, usize>, peer: PeerId) {
    if let Some(count) = seats.get_mut(&peer) {
        *count -= 1;
        if *count == 0 {
            seats.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: usize) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        PeerId::new(bytes)
    }

    fn hash(number: usize) -> BlobHash {
        BlobHash::new(*peer(number).as_bytes())
    }

    const START: Timestamp = Timestamp::from_millis(1000);

    #[test]
    fn who_asks_is_told_of_others_and_not_of_itself() {
        let mut roster = Roster::default();
        for number in 0..3 {
            assert!(roster.meet(START, hash(1), peer(number)));
        }
        assert_eq!(roster.members(START, hash(1), peer(1), &mut |_| 0), [peer(0), peer(2)]);
        assert!(roster.members(START, hash(2), peer(1), &mut |_| 0).is_empty());
        roster.peer_left(peer(0));
        roster.leave(hash(1), peer(2));
        assert_eq!(roster.len(), 1);
        assert!(
            roster.members(START + SILENCE_MAX, hash(1), peer(9), &mut |_| 0).is_empty(),
            "it was silent"
        );
        roster.forget(hash(1));
        assert!(roster.is_empty() && roster.seats.is_empty());
    }

    #[test]
    fn a_flood_of_claims_is_bounded_and_the_silent_make_room() {
        let mut roster = Roster::default();
        let entered = (0..100_000).filter(|number| roster.meet(START, hash(1), peer(*number))).count();
        assert_eq!(entered, limits::SWARM_MEMBERS_MAX);
        assert!(!roster.meet(START, hash(1), peer(200_000)));
        assert!(
            roster.meet(START + SILENCE_MAX, hash(1), peer(200_000)),
            "those who flooded said nothing since"
        );
        assert_eq!(roster.len(), 1);

        let greedy = peer(300_000);
        let seats =
            (2..100_000).filter(|number| roster.meet(START + SILENCE_MAX, hash(*number), greedy)).count();
        assert_eq!(seats, limits::EXCHANGED_BLOBS_PER_PEER_MAX);
        assert_eq!(roster.members(START + SILENCE_MAX, hash(2), peer(1), &mut |_| 0), [greedy]);
    }

    #[test]
    fn a_sample_is_bounded_and_everybody_has_a_chance() {
        let mut roster = Roster::default();
        for number in 0..100 {
            roster.meet(START, hash(1), peer(number));
        }
        let mut state = 7u32;
        let mut draw = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        let mut named = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let members = roster.members(START, hash(1), peer(0), &mut draw);
            assert_eq!(members.len(), limits::PROVIDERS_MAX);
            named.extend(members);
        }
        assert_eq!(named.len(), 99);
    }
}
