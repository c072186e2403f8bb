//! What a provider says that it has, as far as it is worth listening.

use iroh_blobs::protocol::ChunkRanges;
use talka_core::{
    job::BlobRef,
    limits,
    swarm::{PieceNo, PieceSet, Pieces},
};

use crate::blobs::Held;

/// Reports of one provider about one blob. Whoever makes more of them than there are groups to report is flooding, and is
/// not listened to any more.
#[derive(Debug)]
pub(super) struct Reports {
    held: Held,
    count: u32,
    /// What was reported in whole pieces.
    pieces: PieceSet,
    left: u64,
}

impl Reports {
    pub(super) fn of(blob: BlobRef) -> Self {
        /// The unit in which a peer can come to have something.
        const GROUP_BYTES: u64 = 16 << 10;
        let groups = blob.size.get().div_ceil(GROUP_BYTES);
        let left = limits::FOLLOW_REPORTS_MIN + groups.saturating_mul(limits::FOLLOW_REPORTS_PER_GROUP);
        let count = Pieces::of(blob.size).count();
        Self { held: Held::nothing_of(blob), count, pieces: PieceSet::none(count), left }
    }

    /// It has these ranges, too. Returns the pieces that are complete by it; none at all ends it.
    pub(super) fn ranges(&mut self, ranges: &ChunkRanges) -> Option<Vec<PieceNo>> {
        self.left = self.left.checked_sub(1)?;
        Some(self.held.add(ranges))
    }

    /// It has these runs of pieces, too: first and first that is not of it, by turns.
    pub(super) fn runs(&mut self, bounds: &[u32]) -> Option<Vec<PieceNo>> {
        self.left = self.left.checked_sub(1)?;
        let mut told = PieceSet::none(self.count);
        // Runs that overlap would cost more to read than to send.
        if bounds.windows(2).all(|pair| pair[0] < pair[1]) {
            for run in bounds.chunks_exact(2) {
                told.insert_range(run[0]..run[1]);
            }
        }
        let new: Vec<PieceNo> = self.pieces.missing_of(&told).collect();
        self.pieces.union_with(&told);
        Some(new)
    }
}

#[cfg(test)]
mod tests {
    use talka_core::{ids::BlobHash, quantities::Bytes};

    use super::*;

    fn numbers(pieces: Option<Vec<PieceNo>>) -> Vec<u32> {
        pieces.expect("it is listened to").iter().map(|piece| piece.get()).collect()
    }

    #[test]
    fn runs_count_once_and_what_lies_beyond_the_blob_is_nothing() {
        let blob = BlobRef { hash: BlobHash::new([1; 32]), size: Bytes::mib(4) };
        let mut reports = Reports::of(blob);
        assert_eq!(numbers(reports.runs(&[1, 3])), [1, 2]);
        assert_eq!(numbers(reports.runs(&[0, 2, 3, u32::MAX])), [0, 3]);
        for nonsense in [&[][..], &[7], &[3, 1], &[u32::MAX, 0], &[9, 12], &[0; 4096], &[0, 4, 2, 4]] {
            assert_eq!(numbers(reports.runs(nonsense)), Vec::<u32>::new(), "{nonsense:?}");
        }
    }

    #[test]
    fn whoever_reports_without_end_is_not_listened_to() {
        let blob = BlobRef { hash: BlobHash::new([1; 32]), size: Bytes::mib(4) };
        for by_runs in [true, false] {
            let mut reports = Reports::of(blob);
            let mut report =
                || if by_runs { reports.runs(&[]) } else { reports.ranges(&ChunkRanges::empty()) };
            let heard = (0..100_000).take_while(|_| report().is_some()).count();
            assert_eq!(heard, 1000 + 2 * 256, "all groups may come one by one");
        }
    }
}
