//! The default engine: one `SQLite` file, written by one connection.
//!
//! Tasks are implicit (a job is a range and a cursor), a lease is one packed row, and each task leaves one
//! packed row for ever: its entry in the ledger. In the files of the data directory:
//!
//! | file | what |
//! |---|---|
//! | `coordinator.db` | the store, with `-wal` and `-shm` beside it while it is open |
//! | `coordinator.lock` | held by the process that writes |
//!
//! # Why acknowledged work survives
//!
//! The write-ahead log is synced at the end of each commit (`synchronous=FULL`); with `NORMAL`, `SQLite`
//! loses the last commits in a power cut. The settings are read back, because a file system may refuse
//! them. Before a store is read, an old log is moved into the database file: what [`Store::load`] returns
//! may be acted upon, so it must be on the disk too, even if the process that wrote it died between the
//! write and the sync.
//!
//! # Who writes
//!
//! A lock file keeps a second process out. Where locks don't work, the epoch does: opening claims all
//! shards with the next one, and a commit checks it. The lock is on a file of its own, because closing any
//! other handle on the database file would drop the locks that `SQLite` itself has on it.

mod backup;
mod check;
mod error;
mod key;
mod ledger;
mod ledger_read;
mod load;
mod lock;
mod read;
mod receipts;
mod schema;
#[cfg(test)]
pub(super) mod tests;
mod trust;
mod write;

use std::{path::Path, sync::Arc};

use rusqlite::{Connection, OpenFlags, TransactionBehavior, config::DbConfig, wal::CheckpointMode};
use talka_core::{
    coordinator::{Batch, Snapshot},
    ids::PeerId,
    limits,
};

pub use self::check::{Check, check};
pub(crate) use self::lock::Lock;
use self::{read::Readers, write::Claim};
use super::{Reader, Seq, Store, StoreError};

/// Name of the database in the data directory.
pub const FILE: &str = "coordinator.db";

/// Up to 3.51.2, two connections that write and checkpoint at the same time may corrupt the database.
const OLDEST: (i32, &str) = (3_051_003, "3.51.3");

/// When the write-ahead log is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// At the end of each commit.
    Full,
    /// Before it is moved into the database. Commits since then are lost in a power cut: for the test that shows it.
    #[cfg(test)]
    Normal,
}

impl Durability {
    /// The value of `synchronous`, as it is set and as it is read back.
    const fn setting(self) -> (&'static str, &'static str) {
        match self {
            Self::Full => ("full", "2"),
            #[cfg(test)]
            Self::Normal => ("normal", "1"),
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct SqliteStore {
    conn: Connection,
    readers: Arc<Readers>,
    claim: Claim,
    ledger: ledger::Ledger,
    last: Seq,
    poisoned: bool,
    /// Last, so that the database is closed when the next one may open it.
    _lock: Lock,
}

impl SqliteStore {
    /// Opens the store in `dir`, makes it if there is none, and claims it for the coordinator `owner`.
    pub fn open(dir: &Path, owner: PeerId) -> Result<Self, StoreError> {
        Self::open_with(dir, owner, Durability::Full)
    }

    fn open_with(dir: &Path, owner: PeerId, durability: Durability) -> Result<Self, StoreError> {
        let lock = Lock::take(dir)?;
        let path = dir.join(FILE);
        let mut conn = connect(&path, OpenFlags::SQLITE_OPEN_CREATE)?;
        set(&conn, durability)?;
        conn.wal_checkpoint_v2(None::<&str>, CheckpointMode::TRUNCATE)?;
        schema::migrate(&mut conn)?;
        let (claim, last) = Claim::take(&mut conn, owner)?;
        let ledger = ledger::Ledger::open(&mut conn)?;
        let readers = Arc::new(Readers::open(&path)?);
        Ok(Self { conn, readers, claim, ledger, last, poisoned: false, _lock: lock })
    }
}

impl Store for SqliteStore {
    fn last_seq(&self) -> Seq {
        self.last
    }

    fn load(&mut self) -> Result<Snapshot, StoreError> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        let transaction = self.conn.transaction()?;
        load::snapshot(&transaction)
    }

    fn commit(&mut self, seq: Seq, batch: &Batch) -> Result<(), StoreError> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        let result = self.try_commit(seq, batch);
        self.poisoned = result.is_err();
        result
    }

    fn reader(&self) -> Arc<dyn Reader> {
        self.readers.clone()
    }
}

impl SqliteStore {
    fn try_commit(&mut self, seq: Seq, batch: &Batch) -> Result<(), StoreError> {
        if seq.is_new_after(self.last)? {
            let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            write::apply(&transaction, &self.claim, &mut self.ledger, seq, batch)?;
            transaction.commit()?;
            self.last = seq;
        }
        Ok(())
    }
}

/// The reading side of the store in `dir`, for another process than the one that writes.
pub(crate) fn reader(dir: &Path) -> Result<Arc<dyn Reader>, StoreError> {
    let path = dir.join(FILE);
    schema::must_be_newest(&read::existing(&path)?)?;
    Ok(Arc::new(Readers::open(&path)?))
}

/// Opens a connection with what is common to all.
fn connect(path: &Path, create: OpenFlags) -> Result<Connection, StoreError> {
    must_be_new_enough(rusqlite::version_number(), rusqlite::version())?;
    // Without SQLITE_OPEN_URI: a path is a path, even if it begins with `file:`.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(limits::STORE_BUSY_MAX)?;
    conn.set_prepared_statement_cache_capacity(64);
    // Or a statement over a range is compiled anew for each range, in search of a better plan.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "cell_size_check", true)?;
    Ok(conn)
}

/// Refuses a `SQLite` that may corrupt what it is given.
fn must_be_new_enough(number: i32, found: &'static str) -> Result<(), StoreError> {
    let (oldest, needed) = OLDEST;
    if number < oldest { Err(StoreError::OldSqlite { found, needed }) } else { Ok(()) }
}

/// Settings of the connection that writes.
fn set(conn: &Connection, durability: Durability) -> Result<(), StoreError> {
    conn.pragma_update(None, "journal_mode", "wal")?;
    let found: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if found != "wal" {
        return Err(StoreError::Setting { setting: "journal_mode", wanted: "wal", found });
    }
    let (name, wanted) = durability.setting();
    conn.pragma_update(None, "synchronous", name)?;
    let found: i64 = conn.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    let found = found.to_string();
    if found != wanted {
        return Err(StoreError::Setting { setting: "synchronous", wanted, found });
    }
    // A negative size is in KiB.
    conn.pragma_update(None, "cache_size", -limits::STORE_CACHE_KIB)?;
    conn.pragma_update(None, "wal_autocheckpoint", limits::STORE_WAL_PAGES)?;
    conn.pragma_update(None, "journal_size_limit", limits::STORE_WAL_BYTES_KEPT)?;
    Ok(())
}
