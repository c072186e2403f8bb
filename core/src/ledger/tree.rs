//! The tree's hashes, and what has to be remembered of it to go on appending.
//!
//! The shape is that of RFC 6962, section 2.1: the left subtree of *n* leaves holds the largest power of two
//! below *n*. Leaves and inner nodes are hashed with BLAKE3 under two different keys, which does what the
//! prefixes 0x00 and 0x01 do there (no leaf is ever taken for a node) and keeps a node at one block.

use std::fmt;

use crate::limits;

/// Key of leaves. Another encoding of entries gets another one.
const LEAF_KEY: &[u8; 32] = b"talka ledger leaf, encoding 1   ";
/// Key of inner nodes.
const NODE_KEY: &[u8; 32] = b"talka ledger node, BLAKE3       ";

/// The hash of a subtree: of a leaf, a node or a whole log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreeHash([u8; 32]);

impl TreeHash {
    /// Wraps the raw bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TreeHash({})", data_encoding::HEXLOWER.encode(&self.0[..5]))
    }
}

/// The hash of an entry.
pub fn leaf_hash(entry: &[u8]) -> TreeHash {
    TreeHash(*blake3::keyed_hash(LEAF_KEY, entry).as_bytes())
}

/// The hash of two subtrees.
pub fn node_hash(left: TreeHash, right: TreeHash) -> TreeHash {
    let mut both = [0; 64];
    both[..32].copy_from_slice(&left.0);
    both[32..].copy_from_slice(&right.0);
    TreeHash(*blake3::keyed_hash(NODE_KEY, &both).as_bytes())
}

/// A log, by the roots of its largest perfect subtrees: one for each bit of its size.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// The leftmost, and so the largest, first.
    peaks: Vec<TreeHash>,
}

impl Frontier {
    /// The state of a log of `size` leaves with these roots of perfect subtrees, the largest first; `None` when
    /// there are not as many as such a log has.
    pub fn from_parts(size: u64, peaks: Vec<TreeHash>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }

    /// Leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the perfect subtrees, the largest first.
    pub fn peaks(&self) -> &[TreeHash] {
        &self.peaks
    }

    /// Appends a leaf. Returns the root of the subtree of 2^[`limits::LEDGER_TILE_BITS`] leaves if this one
    /// completed it.
    pub fn append(&mut self, leaf: TreeHash) -> Option<TreeHash> {
        let (mut hash, mut tile) = (leaf, None);
        for level in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                hash = node_hash(left, hash);
            }
            if level + 1 == limits::LEDGER_TILE_BITS {
                tile = Some(hash);
            }
        }
        self.peaks.push(hash);
        self.size += 1;
        tile
    }

    /// The root of the whole log. That of an empty one is the hash of no bytes.
    pub fn root(&self) -> TreeHash {
        let root = self.peaks.iter().rev().copied().reduce(|right, left| node_hash(left, right));
        root.unwrap_or_else(|| TreeHash(*blake3::keyed_hash(NODE_KEY, b"").as_bytes()))
    }
}
