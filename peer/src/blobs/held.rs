//! Which pieces of a blob somebody has, from reports of the bytes that came to them.

use iroh_blobs::protocol::{ChunkRanges, ChunkRangesExt};
use talka_core::{
    job::BlobRef,
    limits,
    swarm::{PieceNo, PieceSet, Pieces},
};

/// Chunks of BLAKE3 in a piece.
const PIECE_CHUNKS: u64 = limits::SWARM_PIECE_BYTES >> 10;

/// Ranges of one blob that are kept apart at most: whoever reports more of them, with gaps, is no honest peer.
const RANGES_MAX: usize = 64 << 10;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Held {
    pieces: Pieces,
    complete: PieceSet,
    /// What was reported of pieces that are not complete.
    ranges: ChunkRanges,
}

impl Held {
    /// Nothing of a blob.
    pub(crate) fn nothing_of(blob: BlobRef) -> Self {
        let pieces = Pieces::of(blob.size);
        Self { pieces, complete: PieceSet::none(pieces.count()), ranges: ChunkRanges::empty() }
    }

    /// These ranges have come, too. Returns the pieces that are complete now and were not before.
    pub(crate) fn add(&mut self, news: &ChunkRanges) -> Vec<PieceNo> {
        if self.ranges.boundaries().len() > RANGES_MAX {
            self.ranges = ChunkRanges::empty();
        }
        self.ranges |= news.clone();
        let mut touched = PieceSet::none(self.pieces.count());
        for bounds in news.boundaries().chunks(2) {
            let first = piece(bounds.first().map_or(0, |chunk| chunk.0));
            // An open end reaches to the end of the blob.
            let end = bounds.get(1).map_or(u32::MAX, |chunk| piece(chunk.0.saturating_add(PIECE_CHUNKS - 1)));
            touched.insert_range(first..end);
        }
        let mut complete = Vec::new();
        for piece in touched.iter() {
            let wanted = ChunkRanges::bytes(self.pieces.range(piece));
            if !self.complete.contains(piece) && wanted.is_subset(&self.ranges) {
                self.complete.insert(piece);
                complete.push(piece);
            }
        }
        complete
    }
}

fn piece(chunk: u64) -> u32 {
    u32::try_from(chunk / PIECE_CHUNKS).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use talka_core::{ids::BlobHash, quantities::Bytes};

    use super::*;

    fn numbers(pieces: &[PieceNo]) -> Vec<u32> {
        pieces.iter().map(|piece| piece.get()).collect()
    }

    #[test]
    fn a_piece_counts_when_all_of_it_has_come_and_only_once() {
        let size = Bytes::new(3 * limits::SWARM_PIECE_BYTES + 5000);
        let mut held = Held::nothing_of(BlobRef { hash: BlobHash::new([1; 32]), size });
        let mib = limits::SWARM_PIECE_BYTES;
        assert_eq!(numbers(&held.add(&ChunkRanges::bytes(0..mib / 2))), [0_u32; 0]);
        assert_eq!(numbers(&held.add(&ChunkRanges::bytes(mib / 2..2 * mib - 16384))), [0]);
        assert_eq!(numbers(&held.add(&ChunkRanges::bytes(0..mib))), [0_u32; 0], "it is known");
        assert_eq!(numbers(&held.add(&ChunkRanges::bytes(2 * mib - 16384..3 * mib))), [1, 2]);
        assert_eq!(numbers(&held.add(&ChunkRanges::bytes(3 * mib..3 * mib + 5000))), [3]);
    }

    #[test]
    fn a_report_of_everything_is_everything() {
        let blob = BlobRef { hash: BlobHash::new([1; 32]), size: Bytes::mib(2) };
        assert_eq!(numbers(&Held::nothing_of(blob).add(&ChunkRanges::all())), [0, 1]);
        let far = ChunkRanges::bytes(1 << 40..1 << 41);
        assert_eq!(
            numbers(&Held::nothing_of(blob).add(&far)),
            [0_u32; 0],
            "beyond the blob there is nothing"
        );
    }
}
