//! The tracker of a coordinator's jobs: who takes part in the exchange of which blob.
//!
//! Only blobs of unfinished jobs are tracked, so nobody can make a coordinator remember what it has no use for. What a
//! claim costs, and how many there may be, is the [`Roster`]'s business. The coordinator itself is in no answer: it is
//! the source, and whoever asks knows it.

use std::collections::HashMap;

use super::{Draw, Roster};
use crate::{
    ids::{BlobHash, PeerId},
    quantities::Timestamp,
};

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Tracker {
    /// How many unfinished jobs need each blob.
    jobs: HashMap<BlobHash, usize>,
    roster: Roster,
}

impl Tracker {
    /// A job needs this blob.
    pub fn track(&mut self, hash: BlobHash) {
        *self.jobs.entry(hash).or_default() += 1;
    }

    /// A job needs this blob no longer.
    pub fn untrack(&mut self, hash: BlobHash) {
        let Some(jobs) = self.jobs.get_mut(&hash) else { return };
        *jobs -= 1;
        if *jobs == 0 {
            self.jobs.remove(&hash);
            self.roster.forget(hash);
        }
    }

    /// Whether an unfinished job needs this blob.
    pub fn knows(&self, hash: BlobHash) -> bool {
        self.jobs.contains_key(&hash)
    }

    /// Some of the peers that exchange pieces of a blob; `None` if no job needs it. With `takes_part`, the one that asks
    /// is one of them from now on.
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

    /// A peer's session ended: it takes part in nothing any more.
    pub fn peer_left(&mut self, peer: PeerId) {
        self.roster.peer_left(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: BlobHash = BlobHash::new([9; 32]);

    fn peer(number: u8) -> PeerId {
        PeerId::new([number; 32])
    }

    fn ask(tracker: &mut Tracker, asker: u8, takes_part: bool) -> Option<Vec<PeerId>> {
        tracker.members(Timestamp::from_millis(0), peer(asker), HASH, takes_part, &mut |_| 0)
    }

    #[test]
    fn who_takes_part_is_named_until_it_leaves_or_the_job_ends() {
        let mut tracker = Tracker::default();
        tracker.track(HASH);
        assert_eq!(ask(&mut tracker, 1, true), Some(vec![]));
        assert_eq!(ask(&mut tracker, 2, false), Some(vec![peer(1)]));
        assert_eq!(ask(&mut tracker, 3, true), Some(vec![peer(1)]), "who only looked is not named");
        tracker.peer_left(peer(1));
        assert_eq!(ask(&mut tracker, 2, false), Some(vec![peer(3)]));
        tracker.untrack(HASH);
        assert_eq!(ask(&mut tracker, 2, false), None);
    }

    #[test]
    fn a_blob_is_known_as_long_as_any_job_needs_it() {
        let mut tracker = Tracker::default();
        assert_eq!(ask(&mut tracker, 1, true), None, "what no job needs is not tracked");
        tracker.untrack(HASH);
        tracker.track(HASH);
        tracker.track(HASH);
        ask(&mut tracker, 1, true);
        tracker.untrack(HASH);
        assert_eq!(ask(&mut tracker, 2, false), Some(vec![peer(1)]), "another job needs it");
        tracker.untrack(HASH);
        assert!(!tracker.knows(HASH));
        tracker.track(HASH);
        assert_eq!(ask(&mut tracker, 2, false), Some(vec![]), "nobody is remembered");
    }
}
