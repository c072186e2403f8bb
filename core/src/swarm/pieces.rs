//! Pieces of a blob, and sets of them.

use std::{fmt, ops::Range};

use crate::{limits, quantities::Bytes};

/// One piece of a blob: the n-th [`limits::SWARM_PIECE_BYTES`] of it. The last one may be shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceNo(u32);

impl PieceNo {
    /// The piece with this number, from 0.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }

    const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PieceNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "piece {}", self.0)
    }
}

/// How a blob is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pieces {
    size: u64,
}

impl Pieces {
    /// The pieces of a blob of this size; what is longer than [`limits::BLOB_BYTES_MAX`] is taken as that long.
    pub fn of(size: Bytes) -> Self {
        Self { size: size.get().min(limits::BLOB_BYTES_MAX) }
    }

    /// How many there are.
    pub fn count(self) -> u32 {
        u32::try_from(self.size.div_ceil(limits::SWARM_PIECE_BYTES)).unwrap_or(u32::MAX)
    }

    /// The bytes of a piece; empty for one that the blob does not have.
    pub fn range(self, piece: PieceNo) -> Range<u64> {
        let start = u64::from(piece.0) * limits::SWARM_PIECE_BYTES;
        start.min(self.size)..(start + limits::SWARM_PIECE_BYTES).min(self.size)
    }

    /// The pieces that hold a part of these bytes.
    pub fn covering(self, bytes: &Range<u64>) -> Range<u32> {
        let (start, end) = (bytes.start.min(self.size), bytes.end.min(self.size));
        if start >= end {
            return 0..0;
        }
        let number = |piece: u64| u32::try_from(piece).unwrap_or(u32::MAX);
        number(start / limits::SWARM_PIECE_BYTES)..number(end.div_ceil(limits::SWARM_PIECE_BYTES))
    }

    /// The pieces that lie wholly in these bytes.
    pub fn within(self, bytes: &Range<u64>) -> Range<u32> {
        let number = |piece: u64| u32::try_from(piece).unwrap_or(u32::MAX);
        let first = bytes.start.div_ceil(limits::SWARM_PIECE_BYTES);
        let end = if bytes.end >= self.size {
            self.size.div_ceil(limits::SWARM_PIECE_BYTES)
        } else {
            bytes.end / limits::SWARM_PIECE_BYTES
        };
        number(first)..number(end.max(first))
    }
}

/// Some of the pieces of one blob. Never larger than what the blob's size asks for, whatever a peer claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceSet {
    words: Vec<u64>,
    count: u32,
    len: u32,
}

impl PieceSet {
    /// None of so many pieces.
    pub fn none(count: u32) -> Self {
        Self { words: vec![0; count.div_ceil(64) as usize], count, len: 0 }
    }

    /// All of so many pieces.
    pub fn all(count: u32) -> Self {
        let mut set = Self::none(count);
        set.insert_range(0..count);
        set
    }

    /// Adds a piece; returns whether it is new. One that the blob does not have is ignored.
    pub fn insert(&mut self, piece: PieceNo) -> bool {
        if piece.0 >= self.count || self.contains(piece) {
            return false;
        }
        self.words[piece.index() / 64] |= 1 << (piece.0 % 64);
        self.len += 1;
        true
    }

    /// Adds pieces that follow each other.
    pub fn insert_range(&mut self, pieces: Range<u32>) {
        for piece in pieces.start..pieces.end.min(self.count) {
            self.insert(PieceNo(piece));
        }
    }

    /// Takes a piece out; returns whether it was there.
    pub fn remove(&mut self, piece: PieceNo) -> bool {
        let there = self.contains(piece);
        if there {
            self.words[piece.index() / 64] &= !(1 << (piece.0 % 64));
            self.len -= 1;
        }
        there
    }

    /// Whether it holds a piece.
    pub fn contains(&self, piece: PieceNo) -> bool {
        self.words.get(piece.index() / 64).is_some_and(|word| word >> (piece.0 % 64) & 1 == 1)
    }

    /// How many pieces it holds.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it holds every piece of the blob.
    pub fn is_all(&self) -> bool {
        self.len == self.count
    }

    /// The pieces, in their order.
    pub fn iter(&self) -> impl Iterator<Item = PieceNo> + '_ {
        (0u32..).zip(&self.words).flat_map(|(at, word)| bits(*word).map(move |bit| PieceNo(at * 64 + bit)))
    }

    /// The pieces of both sets that this one does not hold yet.
    pub fn missing_of<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = PieceNo> + 'a {
        let words = self.words.iter().zip(&other.words);
        (0u32..)
            .zip(words)
            .flat_map(|(at, (mine, theirs))| bits(theirs & !mine).map(move |bit| PieceNo(at * 64 + bit)))
    }

    /// Adds all of another set of pieces of the same blob.
    pub fn union_with(&mut self, other: &Self) {
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine |= theirs;
        }
        self.len = self.words.iter().map(|word| word.count_ones()).sum();
    }
}

/// Positions of the bits that are set.
fn bits(word: u64) -> impl Iterator<Item = u32> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let bit = (rest != 0).then(|| rest.trailing_zeros())?;
        rest &= rest - 1;
        Some(bit)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PIECE: u64 = limits::SWARM_PIECE_BYTES;

    #[test]
    fn pieces_cover_a_blob_without_gap_or_overlap() {
        for size in [0, 1, PIECE - 1, PIECE, PIECE + 1, 7 * PIECE + 5, limits::BLOB_BYTES_MAX] {
            let pieces = Pieces::of(Bytes::new(size));
            let mut at = 0;
            for piece in 0..pieces.count() {
                let range = pieces.range(PieceNo::new(piece));
                assert_eq!(range.start, at, "of {size}");
                assert!(range.end > at && range.end - at <= PIECE, "of {size}");
                at = range.end;
            }
            assert_eq!(at, size);
            assert!(pieces.range(PieceNo::new(pieces.count())).is_empty());
        }
        assert_eq!(
            Pieces::of(Bytes::new(u64::MAX)).count(),
            Pieces::of(Bytes::new(limits::BLOB_BYTES_MAX)).count()
        );
    }

    #[test]
    fn ranges_of_bytes_become_ranges_of_pieces() {
        let pieces = Pieces::of(Bytes::new(3 * PIECE + 10));
        let rows = [
            (0..0, 0..0, 0),
            (0..1, 0..1, 0),
            (0..PIECE, 0..1, 1),
            (1..PIECE + 1, 0..2, 0),
            (PIECE..3 * PIECE, 1..3, 2),
            (3 * PIECE..3 * PIECE + 10, 3..4, 1),
            (2 * PIECE..u64::MAX, 2..4, 2),
            (9 * PIECE..10 * PIECE, 0..0, 0),
        ];
        for (bytes, covering, within) in rows {
            assert_eq!(pieces.covering(&bytes), covering, "{bytes:?}");
            assert_eq!(pieces.within(&bytes).len(), within, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn a_set_is_what_was_put_in_and_not_taken_out(
            count in 1u32..300,
            steps in prop::collection::vec((any::<bool>(), 0u32..310), 0..200),
        ) {
            let mut set = PieceSet::none(count);
            let mut model = std::collections::BTreeSet::new();
            for (insert, piece) in steps {
                let number = PieceNo::new(piece);
                if insert {
                    prop_assert_eq!(set.insert(number), piece < count && model.insert(piece));
                } else {
                    prop_assert_eq!(set.remove(number), model.remove(&piece));
                }
            }
            prop_assert_eq!(set.iter().map(PieceNo::get).collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.len() as usize, model.len());
            let all = PieceSet::all(count);
            prop_assert_eq!(set.missing_of(&all).count(), (count - set.len()) as usize);
            let mut both = set.clone();
            both.union_with(&all);
            prop_assert!(both.is_all());
        }
    }
}
