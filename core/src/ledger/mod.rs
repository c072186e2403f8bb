//! The ledger: what was credited to whom and why, as an append-only log that anybody can check.
//!
//! Every final task is one entry; so is a peer's number, the name that it gives itself, and a task whose credit
//! was revoked. The entries are the leaves of a Merkle tree of the shape of RFC 6962, whose root and size the
//! coordinator signs as a [`Head`]. Who holds a head can be shown, with some twenty hashes, that an entry is in
//! the log ([`inclusion`]) and that a later head only added to it ([`consistency`]). Who holds all entries can
//! recompute everybody's credit ([`Replay`]).
//!
//! | module | subject |
//! |---|---|
//! | `tree` | hashes, and the log's state in O(log n) |
//! | `proof` | proofs and their verification |
//! | `entry` | the one encoding that an entry has |
//! | `head` | what a coordinator signs |
//! | `replay` | recomputing every total |
//! | `average` | recent average credit |
//!
//! ```
//! use talka_core::ledger::{Frontier, leaf_hash};
//!
//! let mut log = Frontier::default();
//! log.append(leaf_hash(b"first"));
//! let one = log.root();
//! log.append(leaf_hash(b"second"));
//! assert_eq!((log.size(), log.root() == one), (2, false));
//! ```

mod average;
mod entry;
mod head;
mod proof;
mod replay;
#[cfg(test)]
mod tests;
mod tree;

pub use self::{
    average::{Average, HALF_LIFE_SECS, day_of},
    entry::{EntryError, LedgerEntry, LedgerGrant, Names, NamesError, TaskEntry},
    head::Head,
    proof::{
        BadProof, Subtrees, consistency, inclusion, inclusion_root, verify_consistency, verify_inclusion,
    },
    replay::{Misfit, PeerTotals, Replay},
    tree::{Frontier, TreeHash, leaf_hash, node_hash},
};
