//! The tracker of a coordinator's jobs: who takes part in the exchange of a blob, and who may fetch one whole.
//!
//! A peer that fetches in pieces asks for [members](Tracker::members). One that fetches a blob whole asks for
//! [providers](Tracker::providers): each source serves one such fetch of a blob at a time, and
//! whoever has it becomes a source, so the number of sources doubles with each round and the coordinator
//! itself uploads a blob about once, however many workers want it. Who finds every source busy is told
//! when to ask again; that costs a message, not an upload.
//!
//! A grant ends when its holder announces the blob, says that the fetch failed, or runs out of time, so a
//! peer that stalls delays others once. Claims cost the claimant: they are counted per peer, and only blobs
//! of unfinished jobs are tracked at all.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use super::{Draw, Roster};
use crate::{
    ids::{BlobHash, PeerId},
    limits,
    quantities::{Bytes, Timestamp},
};

/// Where to fetch a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// From this peer, now.
    From(PeerId),
    /// Every source is busy: ask again after that.
    Later(Duration),
    /// The tracker does not know the blob. Not worth a retry.
    Unknown,
}

#[derive(Debug, Default)]
struct Entry {
    /// How many jobs need it.
    jobs: usize,
    size: Bytes,
    /// Peers that announced it, the coordinator itself aside.
    holders: BTreeSet<PeerId>,
    /// Who fetches from whom, and until when.
    grants: BTreeMap<PeerId, Grant>,
    /// Sources that failed somebody, by who it was.
    failed: BTreeSet<(PeerId, PeerId)>,
}

#[derive(Debug, Clone, Copy)]
struct Grant {
    source: PeerId,
    until: Timestamp,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Tracker {
    /// The coordinator, which has every blob of its jobs.
    me: PeerId,
    blobs: HashMap<BlobHash, Entry>,
    /// Blobs that each peer holds, so that one peer can't claim without end.
    claims: HashMap<PeerId, BTreeSet<BlobHash>>,
    /// Who exchanges pieces.
    roster: Roster,
}

impl Tracker {
    /// A tracker of no blobs yet.
    pub fn new(me: PeerId) -> Self {
        Self { me, blobs: HashMap::new(), claims: HashMap::new(), roster: Roster::default() }
    }

    /// A job needs this blob.
    pub fn track(&mut self, hash: BlobHash, size: Bytes) {
        let entry = self.blobs.entry(hash).or_default();
        entry.jobs += 1;
        entry.size = size;
    }

    /// A job needs this blob no longer.
    pub fn untrack(&mut self, hash: BlobHash) {
        let Some(entry) = self.blobs.get_mut(&hash) else { return };
        entry.jobs -= 1;
        if entry.jobs == 0 {
            self.blobs.remove(&hash);
            self.roster.forget(hash);
            for claims in self.claims.values_mut() {
                claims.remove(&hash);
            }
        }
    }

    /// Whether an unfinished job needs this blob.
    pub fn knows(&self, hash: BlobHash) -> bool {
        self.blobs.contains_key(&hash)
    }

    /// Peers that exchange pieces of a blob; `None` if no job needs it. The coordinator itself is none of them: it is
    /// the source, and whoever asks knows it. With `takes_part`, the one that asks is one of them from now on.
    pub fn members(
        &mut self,
        now: Timestamp,
        asker: PeerId,
        hash: BlobHash,
        takes_part: bool,
        draw: Draw<'_>,
    ) -> Option<Vec<PeerId>> {
        if !self.knows(hash) {
            return None;
        }
        if takes_part {
            self.roster.meet(now, hash, asker);
        }
        Some(self.roster.members(now, hash, asker, draw))
    }

    /// Grants `asker` a source. The least used kind comes first: another peer before the coordinator.
    pub fn providers(&mut self, now: Timestamp, asker: PeerId, hash: BlobHash) -> Answer {
        /// Time between two questions of a peer that found every source busy.
        const RETRY: Duration = Duration::from_millis(10);
        /// Time of a grant whatever the size: a connection has to be made first.
        const GRANT_MIN: Duration = Duration::from_secs(5);
        /// Slowest rate for which a source is kept busy; whoever is slower shares it.
        const GRANT_RATE: u64 = 1 << 20;
        let me = self.me;
        let Some(entry) = self.blobs.get_mut(&hash) else { return Answer::Unknown };
        entry.grants.retain(|_, grant| grant.until > now);
        if let Some(grant) = entry.grants.get(&asker) {
            return Answer::From(grant.source);
        }
        let usable: Vec<PeerId> = entry
            .holders
            .iter()
            .copied()
            .chain([me])
            .filter(|source| *source != asker && !entry.failed.contains(&(asker, *source)))
            .collect();
        let busy: BTreeSet<PeerId> = entry.grants.values().map(|grant| grant.source).collect();
        let source = match usable.iter().find(|source| !busy.contains(source)) {
            Some(free) => *free,
            // Whoever every source failed gets the coordinator, which has the blob for certain.
            None if usable.is_empty() => me,
            None => return Answer::Later(RETRY),
        };
        let until = now + GRANT_MIN + Duration::from_secs(entry.size.get() / GRANT_RATE);
        entry.grants.insert(asker, Grant { source, until });
        Answer::From(source)
    }

    /// A peer has the whole blob. Returns whether the claim was taken.
    pub fn announce(&mut self, peer: PeerId, hash: BlobHash) -> bool {
        let Some(entry) = self.blobs.get_mut(&hash) else { return false };
        entry.grants.remove(&peer);
        let claims = self.claims.entry(peer).or_default();
        if claims.len() >= limits::ANNOUNCED_BLOBS_PER_PEER_MAX {
            return false;
        }
        claims.insert(hash);
        entry.holders.insert(peer)
    }

    /// A peer has the blob no longer.
    pub fn retract(&mut self, peer: PeerId, hash: BlobHash) {
        self.roster.leave(hash, peer);
        if let Some(entry) = self.blobs.get_mut(&hash) {
            entry.holders.remove(&peer);
        }
        if let Some(claims) = self.claims.get_mut(&peer) {
            claims.remove(&hash);
        }
    }

    /// The fetch that was granted to `peer` failed.
    pub fn failed(&mut self, peer: PeerId, hash: BlobHash) {
        /// Failures remembered per blob; beyond that the oldest sources are tried again.
        const FAILURES_MAX: usize = 1024;
        let Some(entry) = self.blobs.get_mut(&hash) else { return };
        if let Some(grant) = entry.grants.remove(&peer) {
            if entry.failed.len() >= FAILURES_MAX {
                entry.failed.clear();
            }
            entry.failed.insert((peer, grant.source));
        }
    }

    /// A peer's session ended: it is no source any more.
    pub fn peer_left(&mut self, peer: PeerId) {
        self.roster.peer_left(peer);
        for hash in self.claims.remove(&peer).unwrap_or_default() {
            if let Some(entry) = self.blobs.get_mut(&hash) {
                entry.holders.remove(&peer);
            }
        }
        for entry in self.blobs.values_mut() {
            entry.grants.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: BlobHash = BlobHash::new([9; 32]);

    fn peer(number: u8) -> PeerId {
        PeerId::new([number; 32])
    }

    fn tracker() -> Tracker {
        let mut tracker = Tracker::new(peer(0));
        tracker.track(HASH, Bytes::mib(1));
        tracker
    }

    #[test]
    fn sources_double_and_the_coordinator_serves_once() {
        let mut tracker = tracker();
        let now = Timestamp::from_millis(0);
        let mut waiting: Vec<PeerId> = (1..=15).map(peer).collect();
        let (mut rounds, mut from_coordinator) = (0, 0);
        while !waiting.is_empty() {
            rounds += 1;
            let (mut served, mut left) = (vec![], vec![]);
            for asker in waiting {
                match tracker.providers(now, asker, HASH) {
                    Answer::From(source) => {
                        from_coordinator += usize::from(source == peer(0));
                        served.push(asker);
                    }
                    _ => left.push(asker),
                }
            }
            for peer in served {
                assert!(tracker.announce(peer, HASH));
            }
            waiting = left;
        }
        assert_eq!(rounds, 4, "1 + 2 + 4 + 8 peers");
        assert!(from_coordinator <= 4, "{from_coordinator}");
    }

    #[test]
    fn a_stalled_fetch_frees_its_source_in_the_end() {
        let mut tracker = tracker();
        let start = Timestamp::from_millis(0);
        assert_eq!(tracker.providers(start, peer(1), HASH), Answer::From(peer(0)));
        assert!(matches!(tracker.providers(start, peer(2), HASH), Answer::Later(_)));
        let later = start + Duration::from_mins(1);
        assert_eq!(tracker.providers(later, peer(2), HASH), Answer::From(peer(0)));
    }

    #[test]
    fn who_is_failed_by_a_source_gets_another() {
        let mut tracker = tracker();
        let now = Timestamp::from_millis(0);
        assert!(tracker.announce(peer(1), HASH));
        assert_eq!(tracker.providers(now, peer(2), HASH), Answer::From(peer(1)));
        tracker.failed(peer(2), HASH);
        assert_eq!(tracker.providers(now, peer(2), HASH), Answer::From(peer(0)));
        tracker.failed(peer(2), HASH);
        assert_eq!(tracker.providers(now, peer(2), HASH), Answer::From(peer(0)), "the last resort");
    }

    #[test]
    fn claims_on_unknown_blobs_are_not_kept() {
        let mut tracker = tracker();
        assert!(!tracker.announce(peer(1), BlobHash::new([1; 32])));
        assert_eq!(
            tracker.providers(Timestamp::from_millis(0), peer(1), BlobHash::new([1; 32])),
            Answer::Unknown
        );
        tracker.announce(peer(1), HASH);
        tracker.peer_left(peer(1));
        assert_eq!(tracker.providers(Timestamp::from_millis(0), peer(2), HASH), Answer::From(peer(0)));
        tracker.untrack(HASH);
        assert!(!tracker.knows(HASH));
    }

    #[test]
    fn who_takes_part_is_named_until_it_leaves_or_the_job_ends() {
        let mut tracker = tracker();
        let now = Timestamp::from_millis(0);
        let ask = |tracker: &mut Tracker, asker, takes_part| {
            tracker.members(now, peer(asker), HASH, takes_part, &mut |_| 0)
        };
        assert_eq!(ask(&mut tracker, 1, true), Some(vec![]));
        assert_eq!(ask(&mut tracker, 2, false), Some(vec![peer(1)]));
        assert_eq!(ask(&mut tracker, 3, true), Some(vec![peer(1)]), "who only looked is not named");
        tracker.peer_left(peer(1));
        assert_eq!(ask(&mut tracker, 2, false), Some(vec![peer(3)]));
        tracker.untrack(HASH);
        assert_eq!(ask(&mut tracker, 2, false), None);
    }
}
