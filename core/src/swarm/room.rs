//! What blobs may take of a volunteer's disk, and what goes when there is no room.
//!
//! Whoever needs blobs *pins* them before their first byte comes: their whole weight is accounted for from then on, so
//! the quota holds however far a fetch gets. What nobody pins any more stays as a cache, for the next job of the same
//! program and for peers that ask, until its room is needed: then whatever was used longest ago goes first. What is pinned
//! never goes.

use std::collections::{BTreeMap, HashMap};

use crate::{ids::BlobHash, job::BlobRef, quantities::Bytes};

/// Bytes of data that one node of the verification tree stands for.
const GROUP_BYTES: u64 = 16 << 10;
/// Bytes of one node: two hashes.
const NODE_BYTES: u64 = 64;

/// There is no room for what somebody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// It would not fit into an empty disk. Never worth a retry.
    #[error("it takes {needs} of the disk, and the quota is {quota}")]
    Ever {
        /// What it takes.
        needs: Bytes,
        /// What there may be in all.
        quota: Bytes,
    },
    /// What others need leaves too little. Worth a retry when a job has ended.
    #[error("it takes {needs} of the disk, and other jobs leave {left} of the quota of {quota}")]
    Now {
        /// What it takes beyond what is here.
        needs: Bytes,
        /// What is not pinned.
        left: Bytes,
        /// What there may be in all.
        quota: Bytes,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    weight: u64,
    /// How many need it.
    pins: u32,
    /// Grows with each use of any blob.
    used: u64,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Room {
    quota: u64,
    /// Weight of all.
    used: u64,
    /// Weight of what is pinned.
    pinned: u64,
    blobs: HashMap<BlobHash, Entry>,
    /// What nobody pins, by its last use.
    idle: BTreeMap<u64, BlobHash>,
    uses: u64,
}

/// What a blob takes: its bytes, and the hashes that verify them.
fn weight(size: Bytes) -> u64 {
    size.get().saturating_add(size.get().div_ceil(GROUP_BYTES).saturating_mul(NODE_BYTES))
}

impl Room {
    /// An empty disk of which so much may be used.
    pub fn new(quota: Bytes) -> Self {
        Self { quota: quota.get(), used: 0, pinned: 0, blobs: HashMap::new(), idle: BTreeMap::new(), uses: 0 }
    }

    /// A blob was here before this was: in the order of their last use. Returns what has to go, because the quota was
    /// lowered since.
    pub fn restore(&mut self, blob: BlobRef) -> Vec<BlobHash> {
        if !self.blobs.contains_key(&blob.hash) {
            self.uses += 1;
            let entry = Entry { weight: weight(blob.size), pins: 0, used: self.uses };
            self.used = self.used.saturating_add(entry.weight);
            self.blobs.insert(blob.hash, entry);
            self.idle.insert(entry.used, blob.hash);
        }
        self.evict_to(self.quota)
    }

    /// Whether there is room for all of these.
    pub fn fits(&self, blobs: &[BlobRef]) -> bool {
        self.new_weight(blobs).is_ok()
    }

    /// What these add to what is here.
    fn new_weight(&self, blobs: &[BlobRef]) -> Result<u64, NoRoom> {
        let mut all = BTreeMap::new();
        for blob in blobs {
            let known = self.blobs.get(&blob.hash).map(|entry| entry.weight);
            all.insert(blob.hash, known.unwrap_or_else(|| weight(blob.size)));
        }
        let sum = |weights: &mut dyn Iterator<Item = u64>| weights.fold(0_u64, u64::saturating_add);
        let needs = sum(&mut all.values().copied());
        if needs > self.quota {
            return Err(NoRoom::Ever { needs: Bytes::new(needs), quota: Bytes::new(self.quota) });
        }
        let is_pinned = |hash: &BlobHash| self.blobs.get(hash).is_some_and(|entry| entry.pins > 0);
        let unpinned = sum(&mut all.iter().filter(|(hash, _)| !is_pinned(hash)).map(|(_, weight)| *weight));
        if self.pinned.saturating_add(unpinned) > self.quota {
            return Err(NoRoom::Now {
                needs: Bytes::new(unpinned),
                left: Bytes::new(self.quota.saturating_sub(self.pinned)),
                quota: Bytes::new(self.quota),
            });
        }
        let new = all.iter().filter(|(hash, _)| !self.blobs.contains_key(hash));
        Ok(sum(&mut new.map(|(_, weight)| *weight)))
    }

    /// Somebody needs these, all of them or none. Returns what has to go before their first byte comes.
    pub fn pin(&mut self, blobs: &[BlobRef]) -> Result<Vec<BlobHash>, NoRoom> {
        let new = self.new_weight(blobs)?;
        for blob in blobs {
            self.uses += 1;
            let fresh = Entry { weight: weight(blob.size), pins: 0, used: self.uses };
            let entry = self.blobs.entry(blob.hash).or_insert(fresh);
            if entry.pins == 0 {
                self.idle.remove(&entry.used);
                self.pinned += entry.weight;
            }
            entry.pins += 1;
            entry.used = self.uses;
        }
        let evicted = self.evict_to(self.quota - new);
        self.used += new;
        Ok(evicted)
    }

    /// One of those who needed a blob needs it no longer. Returns whether that was the last one: it is cache now.
    pub fn unpin(&mut self, hash: BlobHash) -> bool {
        let Some(entry) = self.blobs.get_mut(&hash).filter(|entry| entry.pins > 0) else { return false };
        entry.pins -= 1;
        if entry.pins > 0 {
            return false;
        }
        self.uses += 1;
        entry.used = self.uses;
        self.pinned -= entry.weight;
        self.idle.insert(entry.used, hash);
        true
    }

    /// A blob that nobody pins is not here any more. Returns whether there was one.
    pub fn forget(&mut self, hash: BlobHash) -> bool {
        let Some(entry) = self.blobs.get(&hash).copied().filter(|entry| entry.pins == 0) else {
            return false;
        };
        self.blobs.remove(&hash);
        self.idle.remove(&entry.used);
        self.used -= entry.weight;
        true
    }

    /// Weight of everything.
    pub fn used(&self) -> Bytes {
        Bytes::new(self.used)
    }

    /// Weight of what is needed now.
    pub fn pinned(&self) -> Bytes {
        Bytes::new(self.pinned)
    }

    /// What there may be in all.
    pub fn quota(&self) -> Bytes {
        Bytes::new(self.quota)
    }

    fn evict_to(&mut self, max: u64) -> Vec<BlobHash> {
        let mut evicted = Vec::new();
        while self.used > max
            && let Some((_, hash)) = self.idle.pop_first()
        {
            let weight = self.blobs.remove(&hash).map_or(0, |entry| entry.weight);
            self.used -= weight;
            evicted.push(hash);
        }
        evicted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Nodes of the tree are left out: these are below one group.
    fn blob(number: u8, size: u64) -> BlobRef {
        BlobRef { hash: BlobHash::new([number; 32]), size: Bytes::new(size) }
    }

    fn hashes(numbers: &[u8]) -> Vec<BlobHash> {
        numbers.iter().map(|number| BlobHash::new([*number; 32])).collect()
    }

    fn of(quota: u64) -> Room {
        Room::new(Bytes::new(quota))
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_only_as_much_as_is_needed() {
        let each = 1000 + NODE_BYTES;
        let mut room = of(3 * each);
        for number in 1..=3 {
            assert_eq!(room.pin(&[blob(number, 1000)]), Ok(vec![]));
        }
        for number in [2, 1, 3] {
            assert!(room.unpin(blob(number, 0).hash));
        }
        assert_eq!((room.used().get(), room.pinned().get()), (3 * each, 0));
        assert_eq!(room.pin(&[blob(2, 1000)]), Ok(vec![]), "it is here");
        assert_eq!(room.pin(&[blob(4, 500)]), Ok(hashes(&[1])));
        assert_eq!(room.pin(&[blob(5, 400)]), Ok(vec![]), "there is some left");
        assert_eq!(room.pin(&[blob(6, 1000)]), Ok(hashes(&[3])));
    }

    #[test]
    fn what_is_needed_stays_and_whoever_comes_too_late_is_told_why() {
        let mut room = of(2000 + 2 * NODE_BYTES);
        room.pin(&[blob(1, 1000)]).expect("room");
        room.pin(&[blob(1, 1000)]).expect("it is here");
        let late = room.pin(&[blob(2, 900), blob(3, 200)]).expect_err("too much");
        assert_eq!(
            late.to_string(),
            "it takes 1.1 KiB of the disk, and other jobs leave 1.0 KiB of the quota of 2.0 KiB"
        );
        assert_eq!(room.used().get(), 1064, "all or nothing");
        assert!(!room.unpin(blob(1, 0).hash), "another one needs it");
        assert!(!room.forget(blob(1, 0).hash));
        assert!(room.unpin(blob(1, 0).hash));
        assert_eq!(room.pin(&[blob(2, 900), blob(3, 200)]), Ok(hashes(&[1])));
        let never = room.pin(&[blob(4, 3000)]).expect_err("too large");
        assert_eq!(never, NoRoom::Ever { needs: Bytes::new(3064), quota: Bytes::new(2128) });
        assert!(!room.unpin(blob(9, 0).hash), "an unknown one");
    }

    #[test]
    fn a_lower_quota_is_kept_from_the_start() {
        let mut room = of(2000);
        assert_eq!(room.restore(blob(1, 900)), []);
        assert_eq!(room.restore(blob(2, 900)), []);
        assert_eq!(room.restore(blob(2, 900)), []);
        assert_eq!(room.restore(blob(3, 900)), hashes(&[1]));
        assert_eq!(room.restore(blob(4, 9000)), hashes(&[2, 3, 4]));
        assert_eq!(room.used().get(), 0);
    }

    #[test]
    fn a_size_without_end_is_no_room() {
        assert!(matches!(of(1000).pin(&[blob(1, u64::MAX), blob(2, u64::MAX)]), Err(NoRoom::Ever { .. })));
        assert_eq!(of(1000).restore(blob(1, u64::MAX)), hashes(&[1]));
    }

    proptest! {
        /// Against a list of what is here: the quota holds, what is pinned stays, and what goes was used before
        /// everything unpinned that stays.
        #[test]
        fn the_quota_holds_whatever_happens(
            quota in 1_000_u64..5_000,
            events in prop::collection::vec((0_u8..4, 1_u8..12, 1_u8..12), 0..200),
        ) {
            let mut room = of(quota);
            // Number, size, pins; oldest use first.
            let mut model: Vec<(u8, u32)> = Vec::new();
            let size = |number: u8| u64::from(number) * 97;
            let touch = |model: &mut Vec<(u8, u32)>, number: u8, change: i64| {
                let at = model.iter().position(|known| known.0 == number);
                let (number, pins) = at.map_or((number, 0), |at| model.remove(at));
                model.push((number, u32::try_from(i64::from(pins) + change).expect("no pin is undone twice")));
            };
            for (what, first, second) in events {
                match what {
                    0 | 1 => {
                        let wanted: Vec<u8> = if first == second { vec![first] } else { vec![first, second] };
                        let blobs: Vec<BlobRef> = wanted.iter().map(|number| blob(*number, size(*number))).collect();
                        let before = model.clone();
                        if let Ok(gone) = room.pin(&blobs) {
                            for number in &wanted {
                                touch(&mut model, *number, 1);
                            }
                            for hash in gone {
                                let idle = model.iter().position(|(_, pins)| *pins == 0).expect("somebody can go");
                                prop_assert_eq!(hash, blob(model[idle].0, 0).hash, "the one used longest ago");
                                model.remove(idle);
                            }
                        } else {
                            let held = |number: &u8| before.iter().any(|known| known.0 == *number && known.1 > 0);
                            let pinned: u64 = before.iter().filter(|known| known.1 > 0).map(|known| weight(Bytes::new(size(known.0)))).sum();
                            let more: u64 = wanted.iter().filter(|number| !held(number)).map(|number| weight(Bytes::new(size(*number)))).sum();
                            prop_assert!(pinned + more > quota, "there was room");
                        }
                    }
                    2 => {
                        let pinned = model.iter().any(|known| known.0 == first && known.1 > 0);
                        let last = model.iter().any(|known| known.0 == first && known.1 == 1);
                        prop_assert_eq!(room.unpin(blob(first, 0).hash), last);
                        if last {
                            touch(&mut model, first, -1);
                        } else if pinned {
                            let known = model.iter_mut().find(|known| known.0 == first).expect("there");
                            known.1 -= 1;
                        }
                    }
                    _ => {
                        let idle = model.iter().position(|known| known.0 == first && known.1 == 0);
                        prop_assert_eq!(room.forget(blob(first, 0).hash), idle.is_some());
                        idle.map(|at| model.remove(at));
                    }
                }
                let used: u64 = model.iter().map(|known| weight(Bytes::new(size(known.0)))).sum();
                prop_assert_eq!(room.used().get(), used);
                prop_assert!(used <= quota, "the quota");
            }
        }
    }
}
