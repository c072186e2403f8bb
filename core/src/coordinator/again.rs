//! Tasks that need another attempt, grouped by the peers that must not get it.
//!
//! A worker takes from the group that waits longest among those that do not exclude it. It is found by going
//! through the groups by age, past those that exclude the worker, which are few: at quorum 2 there is about one
//! group for each peer, and one of them excludes this one.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU64,
    sync::Arc,
};

use super::{
    PassedOver,
    placing::{Candidate, Standing},
};
use crate::{
    ids::PeerNo,
    placement::{OwnerKey, Site},
};

/// Who must not get a task.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Exclusion {
    /// Sorted.
    pub(super) peers: Vec<PeerNo>,
    /// Nobody from there, whoever it is.
    pub(super) sites: Vec<Site>,
    /// Nobody of these owners whose own standing is not better than this.
    pub(super) owners: Vec<(OwnerKey, Standing)>,
    /// Newcomers.
    pub(super) newcomers: bool,
    /// Whether peers that only failed to give a result are left out already, so that nothing more can be
    /// relaxed when nobody else is there.
    pub(super) relaxed: bool,
}

impl Exclusion {
    pub(super) fn new(mut peers: Vec<PeerNo>, relaxed: bool) -> Self {
        peers.sort_unstable();
        peers.dedup();
        Self { peers, relaxed, ..Self::default() }
    }

    pub(super) fn excludes(&self, candidate: &Candidate) -> bool {
        self.reason(candidate).is_some()
    }

    /// Why it is excluded.
    pub(super) fn reason(&self, candidate: &Candidate) -> Option<PassedOver> {
        let Candidate { no, site, owner, standing } = candidate;
        let is_bound = |(other, least): &(OwnerKey, Standing)| *owner == Some(*other) && standing <= least;
        if self.peers.binary_search(no).is_ok() {
            Some(PassedOver::HadAttempt)
        } else if site.is_some_and(|site| self.sites.contains(&site)) {
            Some(PassedOver::SameNetwork)
        } else if self.owners.iter().any(is_bound) {
            Some(PassedOver::SameOwner)
        } else {
            (self.newcomers && *standing == Standing::Newcomer).then_some(PassedOver::Newcomer)
        }
    }
}

/// Which entry of a queue is meant: later ones have higher tickets. An option of it takes no more room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(NonZeroU64);

impl Default for Ticket {
    fn default() -> Self {
        Self(NonZeroU64::MIN)
    }
}

/// A place in the queue. It is void when the task was queued again since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) index: u64,
    pub(super) ticket: Ticket,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Again {
    groups: BTreeMap<Arc<Exclusion>, VecDeque<Entry>>,
    /// The groups by the tickets of their first entries; those that exclude newcomers apart, so that these need
    /// not look at them.
    by_age: [BTreeMap<Ticket, Arc<Exclusion>>; 2],
    /// Entries of all groups, void ones included.
    entries: usize,
    next_ticket: Ticket,
}

impl Again {
    /// Queues a task and returns the ticket that makes its entry valid.
    pub(super) fn push(&mut self, exclusion: Exclusion, index: u64) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket = Ticket(ticket.0.saturating_add(1));
        let entry = Entry { index, ticket };
        // No group is empty, and mostly there is one.
        if let Some(queue) = self.groups.get_mut(&exclusion) {
            queue.push_back(entry);
        } else {
            let exclusion = Arc::new(exclusion);
            self.groups.insert(Arc::clone(&exclusion), VecDeque::from([entry]));
            self.by_age[usize::from(exclusion.newcomers)].insert(ticket, exclusion);
        }
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
        let is_for_all = |(_, group): &(Ticket, Arc<Exclusion>)| !group.newcomers;
        let (all, established) = self.groups.iter().filter_map(first).partition(is_for_all);
        self.by_age = [all, established];
        self.entries = self.groups.values().map(VecDeque::len).sum();
    }

    /// Groups that may not exclude `peer`, oldest first within each order.
    fn open_to(&self, peer: &Candidate) -> &[BTreeMap<Ticket, Arc<Exclusion>>] {
        if peer.standing == Standing::Newcomer { &self.by_age[..1] } else { &self.by_age }
    }

    /// Takes the oldest entry that does not exclude `peer` and that `is_valid` confirms.
    pub(super) fn pop(&mut self, peer: &Candidate, mut is_valid: impl FnMut(Entry) -> bool) -> Option<u64> {
        loop {
            let first = |groups: &BTreeMap<Ticket, Arc<Exclusion>>| {
                groups.iter().find(|(_, group)| !group.excludes(peer)).map(|(ticket, _)| *ticket)
            };
            let ticket = self.open_to(peer).iter().filter_map(first).min()?;
            let group = self.by_age.iter_mut().find_map(|groups| groups.remove(&ticket))?;
            let queue = self.groups.get_mut(&group)?;
            let entry = queue.pop_front()?;
            self.entries -= 1;
            if let Some(next) = queue.front() {
                self.by_age[usize::from(group.newcomers)].insert(next.ticket, group);
            } else {
                self.groups.remove(&group);
            }
            if is_valid(entry) {
                return Some(entry.index);
            }
        }
    }

    /// Whether `peer` would find an entry, valid or not.
    pub(super) fn has_entry_for(&self, peer: &Candidate) -> bool {
        self.open_to(peer).iter().flat_map(BTreeMap::values).any(|group| !group.excludes(peer))
    }

    /// Whether there are groups that can be relaxed.
    pub(super) fn may_relax(&self) -> bool {
        self.groups.keys().any(|exclusion| !exclusion.relaxed)
    }

    /// Takes out the groups that can be relaxed and that exclude each peer of `able`. Where nobody is able, those that wait
    /// for somebody who is no newcomer.
    pub(super) fn take_blocked(&mut self, able: &[Candidate]) -> Vec<Entry> {
        let blocked = |exclusion: &Exclusion| {
            let by_all = able.iter().all(|peer| exclusion.excludes(peer));
            !exclusion.relaxed && by_all && (exclusion.newcomers || !able.is_empty())
        };
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
        let expected: BTreeMap<Ticket, _> =
            self.groups.iter().map(|(group, queue)| (first(queue), group.clone())).collect();
        let by_age: BTreeMap<Ticket, _> =
            self.by_age.iter().flatten().map(|(ticket, group)| (*ticket, group.clone())).collect();
        assert_eq!(by_age, expected, "groups by the age of their first entries");
        let [all, established] = &self.by_age;
        let apart =
            all.values().all(|group| !group.newcomers) && established.values().all(|group| group.newcomers);
        assert!(apart, "groups by whether newcomers may have them");
        assert_eq!(self.entries, self.groups.values().map(VecDeque::len).sum::<usize>(), "queued entries");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(no: u32) -> Candidate {
        Candidate { no: PeerNo::new(no), site: None, owner: None, standing: Standing::Established }
    }

    fn peers(numbers: &[u32]) -> Exclusion {
        Exclusion::new(numbers.iter().copied().map(PeerNo::new).collect(), false)
    }

    #[test]
    fn the_oldest_task_that_the_peer_may_have_comes_first() {
        let mut again = Again::default();
        again.push(peers(&[1]), 10);
        again.push(peers(&[2]), 11);
        again.push(peers(&[1]), 12);
        let mut pop = |peer| again.pop(&candidate(peer), |_| true);
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
        assert_eq!(again.pop(&candidate(1), |entry| entry.ticket == new), None);
        assert_eq!(again.pop(&candidate(2), |entry| entry.ticket == new), Some(5));
    }

    #[test]
    fn sweeping_leaves_what_is_valid() {
        let mut again = Again::default();
        let tickets: Vec<Ticket> =
            (0..10).map(|index| again.push(peers(&[index % 3]), index.into())).collect();
        again.sweep(|entry| entry.ticket == tickets[4]);
        assert_eq!(again.len(), 1);
        assert_eq!(again.pop(&candidate(9), |_| true), Some(4));
        assert_eq!(again.len(), 0);
    }

    #[test]
    fn only_groups_that_exclude_everybody_are_blocked() {
        let mut again = Again::default();
        again.push(peers(&[1, 2]), 5);
        again.push(peers(&[1]), 6);
        let able = [candidate(1), candidate(2)];
        assert!(again.may_relax());
        let blocked = again.take_blocked(&able);
        assert_eq!(blocked.iter().map(|entry| entry.index).collect::<Vec<_>>(), [5]);
        assert_eq!(again.len(), 1);
        assert!(again.has_entry_for(&candidate(2)));
        assert!(!again.has_entry_for(&candidate(1)));
    }
}
