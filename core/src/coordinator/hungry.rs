//! Connected workers for which there was not enough work when they were last served, by the memory of a slot: so
//! that a task that needs much is never offered to all the small ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use crate::{ids::PeerNo, quantities::Bytes};

/// A worker's place.
pub(super) type Place = (Bytes, PeerNo);

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Hungry {
    by_memory: BTreeSet<Place>,
    /// The memory under which each of them is listed.
    memory: BTreeMap<PeerNo, Bytes>,
}

impl Hungry {
    pub(super) fn insert(&mut self, peer: PeerNo, memory_per_slot: Bytes) {
        self.remove(peer);
        self.memory.insert(peer, memory_per_slot);
        self.by_memory.insert((memory_per_slot, peer));
    }

    pub(super) fn remove(&mut self, peer: PeerNo) -> bool {
        let Some(memory) = self.memory.remove(&peer) else { return false };
        self.by_memory.remove(&(memory, peer))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_memory.is_empty()
    }

    pub(super) fn contains(&self, peer: PeerNo) -> bool {
        self.memory.contains_key(&peer)
    }

    /// The next one with so much memory at least, behind `after`.
    pub(super) fn next(&self, memory: Bytes, after: Option<Place>) -> Option<Place> {
        let from = after.map_or(Bound::Included((memory, PeerNo::new(0))), Bound::Excluded);
        self.by_memory.range((from, Bound::Unbounded)).next().copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = PeerNo> {
        self.memory.keys().copied()
    }

    /// Those with so much memory at least.
    pub(super) fn with(&self, memory: Bytes) -> impl Iterator<Item = PeerNo> {
        self.by_memory.range((memory, PeerNo::new(0))..).map(|(_, peer)| *peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_workers_with_enough_memory_are_found() {
        let mut hungry = Hungry::default();
        for (peer, mib) in [(1, 100), (2, 400), (3, 200), (1, 300)] {
            hungry.insert(PeerNo::new(peer), Bytes::mib(mib));
        }
        let with = |hungry: &Hungry, mib| hungry.with(Bytes::mib(mib)).map(PeerNo::get).collect::<Vec<_>>();
        assert_eq!(with(&hungry, 0), [3, 1, 2], "the smallest that will do comes first");
        assert_eq!(with(&hungry, 300), [1, 2]);
        let first = hungry.next(Bytes::mib(250), None);
        assert_eq!(first, Some((Bytes::mib(300), PeerNo::new(1))));
        assert_eq!(hungry.next(Bytes::mib(250), first), Some((Bytes::mib(400), PeerNo::new(2))));
        assert!(hungry.remove(PeerNo::new(2)) && !hungry.remove(PeerNo::new(2)));
        assert_eq!(hungry.next(Bytes::mib(250), first), None);
        assert!(hungry.contains(PeerNo::new(1)) && !hungry.is_empty());
    }
}
