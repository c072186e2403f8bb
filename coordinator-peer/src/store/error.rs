//! How a store fails, and what its owner may do about it.

use std::{error::Error, io, path::PathBuf};

use super::Seq;

type Cause = Box<dyn Error + Send + Sync>;

/// A store did not do what it was asked. After a failed commit it has to be opened again, whatever the
/// reason; [`StoreError::is_retryable`] tells whether there is hope.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data directory can't be made or locked. Fatal until the operator has mended it.
    #[error("can't use {} as a data directory", dir.display())]
    Directory {
        /// Which.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process has the data directory. Fatal: two coordinators would answer for the same jobs.
    #[error("another coordinator is running on this data directory ({})", dir.display())]
    Locked {
        /// Which.
        dir: PathBuf,
    },
    /// A later version wrote the store. Fatal: this one would misread it.
    #[error(
        "the store {} has schema {found}, and this version of talka knows {known} at most: use the version that wrote \
         it, or a newer one; nothing was changed", file.display()
    )]
    NewerSchema {
        /// Where it is.
        file: PathBuf,
        /// What the file says.
        found: u32,
        /// What this program can read.
        known: u32,
    },
    /// The store has tables that no published version wrote. Fatal: their digests mean something else now.
    #[error(
        "the store has schema {found}, which is older than the first that was published ({first}); start with an empty one"
    )]
    OlderSchema {
        /// What the file says.
        found: u32,
        /// The oldest that this program can read.
        first: u32,
    },
    /// An older version wrote the store, and only a coordinator migrates it.
    #[error(
        "the store {} has schema {found}, not {known}: start the coordinator once, which migrates it", file.display()
    )]
    NotMigrated {
        /// Where it is.
        file: PathBuf,
        /// What the file says.
        found: u32,
        /// What it is to be.
        known: u32,
    },
    /// There is no store. Name the data directory of a coordinator.
    #[error("there is no coordinator here: {} is missing", file.display())]
    Missing {
        /// What was looked for.
        file: PathBuf,
    },
    /// The store could not be brought to a newer schema; it is as it was. Fatal.
    #[error("migration of the store to schema {to} failed")]
    Migrate {
        /// The step that failed.
        to: u32,
        /// Why.
        source: Cause,
    },
    /// A `SQLite` with a known corruption bug is linked. Fatal: build with a newer one.
    #[error("this program is linked to SQLite {found}, which may corrupt the store; {needed} is needed")]
    OldSqlite {
        /// Linked version.
        found: &'static str,
        /// Oldest good version.
        needed: &'static str,
    },
    /// The file system does not allow what durability needs. Fatal: use a local disk.
    #[error("the store needs {setting} = {wanted} but got {found}; is the data directory on a local disk?")]
    Setting {
        /// A pragma.
        setting: &'static str,
        /// What durability needs.
        wanted: &'static str,
        /// What there is.
        found: String,
    },
    /// The file holds what no version ever wrote. Fatal: restore a backup.
    #[error("the store is damaged ({what}): see talka coordinator check, and restore it from a backup")]
    Damaged {
        /// The row or file.
        what: String,
        /// What the engine says.
        source: Option<Cause>,
    },
    /// The disk is full. Retry after making room.
    #[error(
        "the disk of the store is full: make room and start again; nothing that was acknowledged is lost"
    )]
    Full {
        /// What the engine says.
        source: Cause,
    },
    /// Somebody else uses the store, or every reader is taken. Retry later.
    #[error("the store is busy")]
    Busy,
    /// The file or its directory can't be written. Retry when that is mended.
    #[error(
        "the store can't be opened for writing: make its file, directory and disk writable and start again"
    )]
    ReadOnly {
        /// What the engine says.
        source: Cause,
    },
    /// The disk failed. Fatal: after a failed sync nobody knows what it holds. The next start will tell.
    #[error(
        "the disk of the store failed: check the disk, then start again; nothing that was acknowledged is lost"
    )]
    Io {
        /// What the engine says.
        source: Cause,
    },
    /// The batch contradicts the store: a task becomes final twice, or a row does not fit. Fatal: a bug.
    #[error("the store refuses a batch: {what}")]
    Refused {
        /// The row.
        what: String,
    },
    /// The store was opened elsewhere since. Fatal: the other owner decides now.
    #[error("another coordinator took over this store")]
    Fenced,
    /// A batch between was never committed. Fatal: a bug.
    #[error("batch {seq} does not follow batch {last}, which is the last one in the store")]
    Gap {
        /// What was offered.
        seq: Seq,
        /// What there is.
        last: Seq,
    },
    /// An earlier commit failed. Open the store again.
    #[error("the store took no more batches after a failed commit; it has to be opened again")]
    Poisoned,
    /// A backup could not be written. Retry with another target.
    #[error("can't write the backup {}", to.display())]
    WriteBackup {
        /// The target.
        to: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// This engine can't do that. Not worth a retry.
    #[error("this store has no {what}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
    },
    /// The engine failed in a way that has no name here. Fatal.
    #[error("the store failed")]
    Engine {
        /// What the engine says.
        source: Cause,
    },
}

impl StoreError {
    /// Whether opening the store again and committing the same batch under the same number may succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Busy | Self::Poisoned | Self::WriteBackup { .. })
    }

    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into(), source: None }
    }

    pub(super) fn refused(what: impl Into<String>) -> Self {
        Self::Refused { what: what.into() }
    }
}
