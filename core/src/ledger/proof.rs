//! Proofs that an entry is in a log, and that one log is the beginning of another (RFC 6962, sections 2.1.1 and
//! 2.1.2).

use super::{TreeHash, node_hash};

/// Where the hashes of perfect subtrees come from.
pub trait Subtrees {
    /// Why one can't be had.
    type Error;

    /// The root of the 2^`level` leaves that begin at leaf `index` × 2^`level`. All of them exist.
    fn subtree(&mut self, level: u32, index: u64) -> Result<TreeHash, Self::Error>;
}

/// What was shown is not what it was said to be. Never worth a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proof does not lead to the root")]
pub struct BadProof;

/// The largest power of two below `n`, for `n` above 1.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

fn range_root<S: Subtrees>(tree: &mut S, start: u64, size: u64) -> Result<TreeHash, S::Error> {
    if size.is_power_of_two() {
        let level = size.ilog2();
        return tree.subtree(level, start >> level);
    }
    let left = split(size);
    Ok(node_hash(range_root(tree, start, left)?, range_root(tree, start + left, size - left)?))
}

/// The hashes that lead from leaf `index` to the root of a log of `size` leaves, the leaf's neighbour first.
/// Nothing for a leaf beyond the end.
pub fn inclusion<S: Subtrees>(tree: &mut S, index: u64, size: u64) -> Result<Vec<TreeHash>, S::Error> {
    let mut path = Vec::new();
    if index < size {
        let (mut start, mut size) = (0, size);
        while size > 1 {
            let left = split(size);
            if index - start < left {
                path.push(range_root(tree, start + left, size - left)?);
                size = left;
            } else {
                path.push(range_root(tree, start, left)?);
                (start, size) = (start + left, size - left);
            }
        }
        path.reverse();
    }
    Ok(path)
}

/// The root that a log of `size` leaves has if `path` shows that `leaf` is at `index`.
pub fn inclusion_root(
    leaf: TreeHash,
    index: u64,
    size: u64,
    path: &[TreeHash],
) -> Result<TreeHash, BadProof> {
    fn fold(leaf: TreeHash, index: u64, size: u64, path: &[TreeHash]) -> Result<TreeHash, BadProof> {
        if size == 1 {
            return if path.is_empty() { Ok(leaf) } else { Err(BadProof) };
        }
        let (sibling, path) = path.split_last().ok_or(BadProof)?;
        let left = split(size);
        Ok(if index < left {
            node_hash(fold(leaf, index, left, path)?, *sibling)
        } else {
            node_hash(*sibling, fold(leaf, index - left, size - left, path)?)
        })
    }
    if index < size { fold(leaf, index, size, path) } else { Err(BadProof) }
}

/// Checks that the log of `size` leaves with this root has `leaf` at `index`.
pub fn verify_inclusion(
    leaf: TreeHash,
    index: u64,
    size: u64,
    path: &[TreeHash],
    root: TreeHash,
) -> Result<(), BadProof> {
    if inclusion_root(leaf, index, size, path)? == root { Ok(()) } else { Err(BadProof) }
}

/// The hashes that show that a log of `size` leaves begins with that of its first `old` ones.
pub fn consistency<S: Subtrees>(tree: &mut S, old: u64, size: u64) -> Result<Vec<TreeHash>, S::Error> {
    let mut path = Vec::new();
    if old == 0 || old > size {
        return Ok(path);
    }
    let (mut start, mut old, mut size, mut whole) = (0, old, size, true);
    while old < size {
        let left = split(size);
        if old <= left {
            path.push(range_root(tree, start + left, size - left)?);
            size = left;
        } else {
            path.push(range_root(tree, start, left)?);
            (start, old, size, whole) = (start + left, old - left, size - left, false);
        }
    }
    if !whole {
        path.push(range_root(tree, start, size)?);
    }
    path.reverse();
    Ok(path)
}

/// Checks that the log of `size` leaves with root `new_root` begins with the one of `old` leaves with `old_root`.
pub fn verify_consistency(
    (old, old_root): (u64, TreeHash),
    (size, new_root): (u64, TreeHash),
    path: &[TreeHash],
) -> Result<(), BadProof> {
    /// The roots of the old and of the new part of a subtree.
    fn fold(
        old: u64,
        size: u64,
        whole: Option<TreeHash>,
        path: &[TreeHash],
    ) -> Result<(TreeHash, TreeHash), BadProof> {
        if old == size {
            return match (whole, path) {
                (Some(root), []) => Ok((root, root)),
                (None, [root]) => Ok((*root, *root)),
                _ => Err(BadProof),
            };
        }
        let (sibling, path) = path.split_last().ok_or(BadProof)?;
        let left = split(size);
        Ok(if old <= left {
            let (before, after) = fold(old, left, whole, path)?;
            (before, node_hash(after, *sibling))
        } else {
            let (before, after) = fold(old - left, size - left, None, path)?;
            (node_hash(*sibling, before), node_hash(*sibling, after))
        })
    }
    let roots = match old {
        0 if path.is_empty() => return Ok(()),
        old if old == 0 || old > size => return Err(BadProof),
        _ => fold(old, size, Some(old_root), path)?,
    };
    if roots == (old_root, new_root) { Ok(()) } else { Err(BadProof) }
}
