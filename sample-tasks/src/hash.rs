//! A hasher without a random seed.
//!
//! The standard one is seeded anew in each process. Results would be the same, since they are
//! sorted, but not the number of instructions executed, which Talka counts and compares.
//! A submitter who feeds these programs colliding keys slows down nobody's task but its own.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A hash map that behaves the same in each run.
pub type FixedHashMap<K, V> = HashMap<K, V, BuildHasherDefault<FixedHasher>>;

/// FNV-1a over bytes, with the final mixing of `SplitMix64` so that all bits depend on all bytes.
#[derive(Debug, Clone)]
pub struct FixedHasher(u64);

impl Default for FixedHasher {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for FixedHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 ^= value;
    }

    fn write_usize(&mut self, value: usize) {
        // The length of a slice is hashed as 64 bits on every target.
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
