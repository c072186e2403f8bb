//! Which tasks are checked although nobody has to: drawn per task, so that no worker can tell.

use crate::{ids::TaskId, quantities::Ppm};

/// A number drawn evenly from all that 32 bits can say. One is drawn per task, and never shown to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Draw(u32);

impl Draw {
    /// A number that was drawn.
    pub const fn new(drawn: u32) -> Self {
        Self(drawn)
    }

    /// Whether it is among the lowest of all draws, as many as `rate` says.
    pub fn hits(self, rate: f64) -> bool {
        f64::from(self.0) < rate * 2_f64.powi(32)
    }

    /// The same for a share.
    pub fn hits_ppm(self, rate: Ppm) -> bool {
        self.hits(rate.as_fraction())
    }

    /// One of so many places; 0 when there is none.
    pub fn pick(self, of: usize) -> usize {
        self.0 as usize % of.max(1)
    }
}

/// A secret from which draws are made, so that a task's draw is the same after a restart and takes no room.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AuditKey([u8; 32]);

impl AuditKey {
    /// A key that no worker knows.
    pub const fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// The draw of a task: BLAKE3, keyed, of its id.
    pub fn draw(&self, task: TaskId) -> Draw {
        let [a, b, c, d, ..] = self.hash(*b"draw", task);
        Draw(u32::from_le_bytes([a, b, c, d]))
    }

    /// What attempt `ordinal` of a task is called instead of 1, 2, 3: a permutation of all numbers but 0, for each
    /// task another one, so that the name doesn't tell whether there were others. Four rounds of a Feistel network
    /// (Luby and Rackoff, 1988).
    pub fn attempt_number(&self, task: TaskId, ordinal: u32) -> u32 {
        let keys = self.round_keys(task);
        keep_zero(ordinal, |number| keys.iter().fold(number, |number, key| round(*key, number)))
    }

    /// The inverse of [`AuditKey::attempt_number`].
    pub fn attempt_ordinal(&self, task: TaskId, number: u32) -> u32 {
        let keys = self.round_keys(task);
        keep_zero(number, |number| {
            let swapped = number.rotate_left(16);
            keys.iter().rev().fold(swapped, |number, key| round(*key, number)).rotate_left(16)
        })
    }

    fn round_keys(&self, task: TaskId) -> [u64; 4] {
        let hash = self.hash(*b"name", task);
        let mut keys = [0; 4];
        for (key, bytes) in keys.iter_mut().zip(hash.as_chunks::<8>().0) {
            *key = u64::from_le_bytes(*bytes);
        }
        keys
    }

    fn hash(&self, purpose: [u8; 4], task: TaskId) -> [u8; 32] {
        let mut message = [0; 20];
        message[..4].copy_from_slice(&purpose);
        message[4..12].copy_from_slice(&task.job.get().to_le_bytes());
        message[12..].copy_from_slice(&task.index.to_le_bytes());
        *blake3::keyed_hash(&self.0, &message).as_bytes()
    }
}

/// Makes a permutation one that leaves 0 alone: whatever it maps to 0 takes what 0 is mapped to.
fn keep_zero(number: u32, permute: impl Fn(u32) -> u32) -> u32 {
    if number == 0 {
        return 0;
    }
    match permute(number) {
        0 => permute(0),
        other => other,
    }
}

/// (left, right) → (right, left ⊕ F(right)), where F is a mixing function of 64 bits (Steele, Lea and Flood, 2014) that
/// begins at a secret.
fn round(key: u64, number: u32) -> u32 {
    let (left, right) = (number >> 16, number & 0xffff);
    let mut mixed = key.wrapping_add(u64::from(right).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let [a, b, ..] = (mixed ^ (mixed >> 31)).to_le_bytes();
    right << 16 | (left ^ u32::from(u16::from_le_bytes([a, b])))
}

impl std::fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuditKey")
    }
}
