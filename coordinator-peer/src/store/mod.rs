//! What a coordinator remembers: the only place that makes anything durable, and the only one with SQL.
//!
//! The coordinator decides in memory ([`talka_core::coordinator`]) and hands every consequence over as a
//! [`Batch`] of rows. A store is a durable log of such batches with materialised tables: the tables serve
//! a restart ([`Store::load`]) and people who ask about results and credit ([`Reader`]), never a decision.
//! So an engine is small, and all engines are interchangeable:
//!
//! | module | subject |
//! |---|---|
//! | [`sqlite`] | the default engine: one file in the data directory |
//! | [`memory`] | the model that the others are tested against; nothing of it outlives the process |
//! | `packed` | the compact form of the rows that there are many of |
//!
//! # What every engine promises
//!
//! * [`Store::commit`] is atomic, and durable when it returns: through a kill and a power cut.
//! * It is *fenced*: opening a store claims it with the next epoch, after which no store that was opened
//!   before can commit.
//! * It is *idempotent*: a batch has a number, and a number that was committed before is not applied again.
//!   So whoever does not know whether a commit came through reopens the store and commits again.
//! * After a failed commit the memory of the coordinator may be ahead of the disk. The store is then
//!   *poisoned*: it takes no other batch until it is opened again.
//!
//! ```
//! use talka_coordinator_peer::store::{Store, memory::MemoryDisk};
//! use talka_core::coordinator::Batch;
//!
//! let disk = MemoryDisk::default();
//! let mut store = disk.open();
//! let seq = store.last_seq().next();
//! store.commit(seq, &Batch::default())?;
//! assert_eq!(disk.open().last_seq(), seq);
//! # Ok::<(), talka_coordinator_peer::store::StoreError>(())
//! ```

mod audit;
mod error;
pub mod memory;
mod packed;
pub mod sqlite;
#[cfg(test)]
mod tests;

use std::{fmt, path::Path, sync::Arc};

use talka_core::{
    coordinator::{Batch, CreditDelta, FinalRow, SignedReceipts, Snapshot},
    ids::{JobId, PeerId, PeerNo, TaskId},
    ledger::{Average, Frontier, Names, TreeHash},
    quantities::Credit,
};

pub use self::{
    audit::{Audit, Difference},
    error::StoreError,
};

/// The number of a batch: they are committed as 1, 2, 3 and so on over the whole life of a store.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u64);

impl Seq {
    /// Wraps the raw number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The raw number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number of the batch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Whether the batch with this number is still to be applied, in a store whose last one is `last`.
    fn is_new_after(self, last: Self) -> Result<bool, StoreError> {
        if self > last.next() {
            return Err(StoreError::Gap { seq: self, last });
        }
        Ok(self > last)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The writing side. It has one owner, a thread of its own, because a commit waits for the disk.
pub trait Store: Send {
    /// The number of the last batch that was committed; zero in a new store.
    fn last_seq(&self) -> Seq;

    /// Everything that a coordinator has to know again after a restart.
    fn load(&mut self) -> Result<Snapshot, StoreError>;

    /// Makes one batch durable. `seq` is the one after [`Store::last_seq`]; with an earlier one nothing
    /// happens, because that batch is durable already.
    fn commit(&mut self, seq: Seq, batch: &Batch) -> Result<(), StoreError>;

    /// The reading side. It stays usable next to commits and outlives this store.
    fn reader(&self) -> Arc<dyn Reader>;
}

/// The reading side: any number of threads may ask at the same time, and each question sees the state
/// after some batch. An answer may take a disk access or wait for its turn: not for a thread that drives
/// futures.
pub trait Reader: Send + Sync {
    /// One page of the final tasks of a job, by position, from position `from` on.
    ///
    /// A page holds at least one row if there is one, at most `limit`, and ends early when its outputs
    /// weigh [`RESULTS_PAGE_BYTES_MAX`](talka_core::limits::RESULTS_PAGE_BYTES_MAX). So the next page starts
    /// after the last row, and only an empty one is the end. Without `with_output` every
    /// [`FinalRow::output`] is `Nothing`; [`FinalRow::had_pending`] is always `false`.
    fn results(
        &self,
        job: JobId,
        from: u64,
        limit: u32,
        with_output: bool,
    ) -> Result<Vec<FinalRow>, StoreError>;

    /// How one task ended, with its output; `None` if it is not final.
    fn result(&self, task: TaskId) -> Result<Option<FinalRow>, StoreError>;

    /// Positions of those final tasks of a job, from `from` up to but not including `to`, that rest on one worker's
    /// word: a few hundred for each worker at most.
    fn provisional(&self, job: JobId, from: u64, to: u64) -> Result<Vec<u64>, StoreError>;

    /// The credit of every peer that has voted, by peer number.
    fn credit(&self) -> Result<Vec<(PeerId, CreditDelta)>, StoreError>;

    /// Recomputes all credit from the ledger. Reads every final task in one transaction, during which the
    /// write-ahead log can't shrink: a question for a quiet hour, or for a backup.
    fn audit(&self) -> Result<Audit, StoreError>;

    /// The ledger's log as it is now.
    fn ledger(&self) -> Result<Frontier, StoreError>;

    /// Encoded entries of the ledger from place `from` on: at least one if there is one, at most `limit` or
    /// [`PAGE_ROWS_MAX`](talka_core::limits::PAGE_ROWS_MAX).
    fn ledger_entries(&self, from: u64, limit: u32) -> Result<Vec<Vec<u8>>, StoreError>;

    /// Roots of `count` full tiles from tile `from` on, fewer at the end.
    fn ledger_tiles(&self, from: u64, count: u64) -> Result<Vec<TreeHash>, StoreError>;

    /// The place of the entry of a task; `None` if it is not final, or was revoked.
    fn ledger_place(&self, task: TaskId) -> Result<Option<u64>, StoreError>;

    /// What workers signed about attempts at a task, as far as it is still kept: each with all receipts of the same
    /// message, which the signature is over.
    fn receipts(&self, task: TaskId) -> Result<Vec<SignedReceipts>, StoreError>;

    /// Where every peer that has voted stands, by number.
    fn standings(&self) -> Result<Vec<PeerStanding>, StoreError>;

    /// Credit by peer and day (those of [`day_of`](talka_core::ledger::day_of)), from day `from` on.
    fn credit_days(&self, from: u64) -> Result<Vec<(PeerNo, u64, Credit)>, StoreError>;

    /// Copies the store, while it is in use, to the file `to`, which must not exist yet, and checks the
    /// copy. Commits go on meanwhile.
    fn backup(&self, to: &Path) -> Result<Backup, StoreError>;
}

/// Where a peer stands.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerStanding {
    /// Its number.
    pub no: PeerNo,
    /// Who.
    pub id: PeerId,
    /// What it is called.
    pub names: Names,
    /// All that it earned.
    pub total: CreditDelta,
    /// Recent average credit.
    pub average: Average,
    /// The last day with any credit, and that.
    pub day: (u64, Credit),
}

/// A backup that was made and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Size of the copy.
    pub bytes: u64,
    /// What its ledger says.
    pub audit: Audit,
}
