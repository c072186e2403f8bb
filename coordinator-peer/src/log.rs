//! The ledger's tree, as its proofs read it from a store.

use std::convert::Infallible;

use talka_core::{
    ledger::{Subtrees, TreeHash, leaf_hash, node_hash},
    limits,
};

use crate::store::{Reader, StoreError};

/// The tree over the entries of a store. Full tiles are read as their roots, 32 bytes for each 1,024 entries, once;
/// of one tile, or of the unfinished end, the entries.
pub(crate) struct Log<'a> {
    reader: &'a dyn Reader,
    tiles: Option<Vec<TreeHash>>,
    /// The leaves of the tile that was read last.
    leaves: (u64, Vec<TreeHash>),
}

impl<'a> Log<'a> {
    pub(crate) fn new(reader: &'a dyn Reader) -> Self {
        Self { reader, tiles: None, leaves: (u64::MAX, vec![]) }
    }

    fn tiles(&mut self) -> Result<&[TreeHash], StoreError> {
        if self.tiles.is_none() {
            self.tiles = Some(self.reader.ledger_tiles(0, u64::from(u32::MAX))?);
        }
        Ok(self.tiles.as_deref().unwrap_or_default())
    }

    fn leaves(&mut self, tile: u64) -> Result<&[TreeHash], StoreError> {
        if self.leaves.0 != tile {
            let (first, end) = (tile << limits::LEDGER_TILE_BITS, (tile + 1) << limits::LEDGER_TILE_BITS);
            let mut leaves = Vec::new();
            loop {
                let place = first + leaves.len() as u64;
                let rest = u32::try_from(end - place).unwrap_or(u32::MAX);
                let page = if rest == 0 { vec![] } else { self.reader.ledger_entries(place, rest)? };
                if page.is_empty() {
                    break;
                }
                leaves.extend(page.iter().map(|entry| leaf_hash(entry)));
            }
            self.leaves = (tile, leaves);
        }
        Ok(&self.leaves.1)
    }
}

impl Subtrees for Log<'_> {
    type Error = StoreError;

    fn subtree(&mut self, level: u32, index: u64) -> Result<TreeHash, StoreError> {
        let (hashes, first, count) = if let Some(above) = level.checked_sub(limits::LEDGER_TILE_BITS) {
            (self.tiles()?, index << above, 1u64 << above)
        } else {
            let tile = (index << level) >> limits::LEDGER_TILE_BITS;
            let within = (index << level) - (tile << limits::LEDGER_TILE_BITS);
            (self.leaves(tile)?, within, 1u64 << level)
        };
        let range = usize::try_from(first).ok().zip(usize::try_from(first + count).ok());
        let hashes = range.and_then(|(first, end)| hashes.get(first..end));
        hashes.and_then(perfect_root).ok_or_else(|| StoreError::damaged("the end of the ledger"))
    }
}

/// A tree in memory.
pub(crate) struct Leaves(pub(crate) Vec<TreeHash>);

impl Subtrees for Leaves {
    type Error = Infallible;

    fn subtree(&mut self, level: u32, index: u64) -> Result<TreeHash, Infallible> {
        let first = usize::try_from(index << level).unwrap_or(usize::MAX);
        let hashes = self.0.get(first..first + (1 << level)).and_then(perfect_root);
        // A subtree that is asked for is there.
        Ok(hashes.unwrap_or_else(|| leaf_hash(b"")))
    }
}

/// The root over a power of two of hashes.
fn perfect_root(hashes: &[TreeHash]) -> Option<TreeHash> {
    match hashes {
        [] => None,
        [hash] => Some(*hash),
        hashes => {
            let (left, right) = hashes.split_at(hashes.len() / 2);
            Some(node_hash(perfect_root(left)?, perfect_root(right)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use talka_core::{
        coordinator::{Batch, PeerRow},
        ids::{PeerId, PeerNo},
        ledger::{Frontier, consistency, inclusion, verify_consistency, verify_inclusion},
    };

    use super::*;
    use crate::store::{Store, sqlite::SqliteStore};

    #[test]
    fn proofs_from_a_store_with_tiles_hold() {
        const SIZE: u32 = 3 * 1024 + 77;
        let dir = tempfile::tempdir().expect("a directory");
        let mut store = SqliteStore::open(dir.path(), PeerId::new([1; 32])).expect("a store");
        let peer = |no: u32| PeerRow {
            no: PeerNo::new(no),
            id: PeerId::new(*blake3::hash(&no.to_le_bytes()).as_bytes()),
        };
        for first in (0..SIZE).step_by(500) {
            let peers = (first..SIZE.min(first + 500)).map(peer).collect();
            let batch = Batch { peers, ..Batch::default() };
            store.commit(store.last_seq().next(), &batch).expect("a commit");
        }
        let reader = store.reader();
        let log = reader.ledger().expect("readable");
        assert_eq!(log.size(), u64::from(SIZE));
        for place in [0, 1, 1023, 1024, 2047, 2500, 3071, 3072, 3100, u64::from(SIZE) - 1] {
            let path = inclusion(&mut Log::new(&*reader), place, log.size()).expect("readable");
            let entry = reader.ledger_entries(place, 1).expect("readable").remove(0);
            assert_eq!(verify_inclusion(leaf_hash(&entry), place, log.size(), &path, log.root()), Ok(()));
        }
        let mut old = Frontier::default();
        for entry in reader.ledger_entries(0, 1000).expect("readable").into_iter().take(900) {
            old.append(leaf_hash(&entry));
        }
        let path = consistency(&mut Log::new(&*reader), old.size(), log.size()).expect("readable");
        let (before, after) = ((old.size(), old.root()), (log.size(), log.root()));
        assert_eq!(verify_consistency(before, after, &path), Ok(()));
    }
}
