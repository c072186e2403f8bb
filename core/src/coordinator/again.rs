//! Tasks that need another attempt, grouped by the peers that must not get it.
//!
//! A worker takes from the group that waits longest among those that do not exclude it. It is found by going
//! through the groups by age, past those that exclude the worker, which are few: at quorum 2 there is about one
//! group for each peer, and one of them excludes this one.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::ids::PeerNo;

/// Who must not get a task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Exclusion {
    /// Sorted.
    pub(super) peers: Vec<PeerNo>,
    /// Whether peers that only failed to give a result are left out already, so that nothing more can be
    /// relaxed when nobody else is there.
    pub(super) relaxed: bool,
}

impl Exclusion {
    pub(super) fn new(mut peers: Vec<PeerNo>, relaxed: bool) -> Self {
        peers.sort_unstable();
        peers.dedup();
        Self { peers, relaxed }
    }

    pub(super) fn excludes(&self, peer: PeerNo) -> bool {
        self.peers.binary_search(&peer).is_ok()
    }
}

/// A place in the queue. It is void when the task was queued again since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) index: u64,
    pub(super) ticket: u64,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Again {
    groups: BTreeMap<Arc<Exclusion>, VecDeque<Entry>>,
    /// The groups by the tickets of their first entries.
    by_age: BTreeMap<u64, Arc<Exclusion>>,
    /// Entries of all groups, void ones included.
    entries: usize,
    next_ticket: u64,
}

impl Again {
    /// Queues a task and returns the ticket that makes its entry valid.
    pub(super) fn push(&mut self, exclusion: Exclusion, index: u64) -> u64 {
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let exclusion = Arc::new(exclusion);
        let queue = self.groups.entry(Arc::clone(&exclusion)).or_default();
        if queue.is_empty() {
            self.by_age.insert(ticket, exclusion);
        }
        queue.push_back(Entry { index, ticket });
        self.entries += 1;
        ticket
    }

    /// Entries, void ones included.
    pub(super) fn len(&self) -> usize {
        self.entries
    }

    /// Drops the entries that `is_valid` does not confirm.
    pub(super) fn sweep(&mut self, mut is_valid: impl FnMut(Entry) -> bool) {
        self.groups.retain(|_, queue| {
            queue.retain(|entry| is_valid(*entry));
            !queue.is_empty()
        });
        self.recount();
    }

    fn recount(&mut self) {
        let first = |(group, queue): (&Arc<Exclusion>, &VecDeque<Entry>)| {
            Some((queue.front()?.ticket, group.clone()))
        };
        self.by_age = self.groups.iter().filter_map(first).collect();
        self.entries = self.groups.values().map(VecDeque::len).sum();
    }

    /// Takes the oldest entry that does not exclude `peer` and that `is_valid` confirms.
    pub(super) fn pop(&mut self, peer: PeerNo, mut is_valid: impl FnMut(Entry) -> bool) -> Option<u64> {
        loop {
            let ticket =
                self.by_age.iter().find(|(_, group)| !group.excludes(peer)).map(|(ticket, _)| *ticket)?;
            let group = self.by_age.remove(&ticket)?;
            let queue = self.groups.get_mut(&group)?;
            let entry = queue.pop_front()?;
            self.entries -= 1;
            if let Some(next) = queue.front() {
                self.by_age.insert(next.ticket, group);
            } else {
                self.groups.remove(&group);
            }
            if is_valid(entry) {
                return Some(entry.index);
            }
        }
    }

    /// Whether `peer` would find an entry, valid or not.
    pub(super) fn has_entry_for(&self, peer: PeerNo) -> bool {
        self.by_age.values().any(|group| !group.excludes(peer))
    }

    /// Whether there are groups that can be relaxed.
    pub(super) fn may_relax(&self) -> bool {
        self.groups.keys().any(|exclusion| !exclusion.relaxed)
    }

    /// Takes out the groups that can be relaxed and that exclude each peer of `able`.
    pub(super) fn take_blocked(&mut self, able: &[PeerNo]) -> Vec<Entry> {
        let blocked =
            |exclusion: &Exclusion| !exclusion.relaxed && able.iter().all(|peer| exclusion.excludes(*peer));
        let groups = self.groups.extract_if(.., |exclusion, _| blocked(exclusion));
        let taken: Vec<Entry> = groups.flat_map(|(_, queue)| queue).collect();
        if !taken.is_empty() {
            self.recount();
        }
        taken
    }

    /// # Panics
    ///
    /// When the two orders of the groups differ.
    pub(super) fn check_invariants(&self) {
        let first = |queue: &VecDeque<Entry>| queue.front().expect("no group is empty").ticket;
        let expected: BTreeMap<u64, _> =
            self.groups.iter().map(|(group, queue)| (first(queue), group.clone())).collect();
        assert_eq!(self.by_age, expected, "groups by the age of their first entries");
        assert_eq!(self.entries, self.groups.values().map(VecDeque::len).sum::<usize>(), "queued entries");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(numbers: &[u32]) -> Exclusion {
        Exclusion::new(numbers.iter().copied().map(PeerNo::new).collect(), false)
    }

    #[test]
    fn the_oldest_task_that_the_peer_may_have_comes_first() {
        let mut again = Again::default();
        again.push(peers(&[1]), 10);
        again.push(peers(&[2]), 11);
        again.push(peers(&[1]), 12);
        let mut pop = |peer| again.pop(PeerNo::new(peer), |_| true);
        assert_eq!(pop(1), Some(11));
        assert_eq!(pop(1), None);
        assert_eq!(pop(3), Some(10));
        assert_eq!(pop(2), Some(12));
        assert_eq!(pop(2), None);
    }

    #[test]
    fn void_entries_are_skipped() {
        let mut again = Again::default();
        let old = again.push(peers(&[]), 5);
        let new = again.push(peers(&[1]), 5);
        assert_ne!(old, new);
        assert_eq!(again.pop(PeerNo::new(1), |entry| entry.ticket == new), None);
        assert_eq!(again.pop(PeerNo::new(2), |entry| entry.ticket == new), Some(5));
    }

    #[test]
    fn sweeping_leaves_what_is_valid() {
        let mut again = Again::default();
        let tickets: Vec<u64> = (0..10).map(|index| again.push(peers(&[index % 3]), index.into())).collect();
        again.sweep(|entry| entry.ticket == tickets[4]);
        assert_eq!(again.len(), 1);
        assert_eq!(again.pop(PeerNo::new(9), |_| true), Some(4));
        assert_eq!(again.len(), 0);
    }

    #[test]
    fn only_groups_that_exclude_everybody_are_blocked() {
        let mut again = Again::default();
        again.push(peers(&[1, 2]), 5);
        again.push(peers(&[1]), 6);
        let able = [PeerNo::new(1), PeerNo::new(2)];
        assert!(again.may_relax());
        let blocked = again.take_blocked(&able);
        assert_eq!(blocked.iter().map(|entry| entry.index).collect::<Vec<_>>(), [5]);
        assert_eq!(again.len(), 1);
        assert!(again.has_entry_for(PeerNo::new(2)));
        assert!(!again.has_entry_for(PeerNo::new(1)));
    }
}
