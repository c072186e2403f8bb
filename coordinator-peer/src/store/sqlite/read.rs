//! Questions about results and credit, next to the connection that writes.
//!
//! A few connections, each for one question at a time. Their transactions are short, because the
//! write-ahead log can't start over while one of them still reads the old end of it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, PoisonError},
};

use rusqlite::{Connection, OpenFlags, Row, params};
use talka_core::{
    coordinator::{CreditDelta, FinalOutput, FinalRow, SignedReceipts},
    ids::{JobId, PeerId, PeerNo, TaskId},
    ledger::{Frontier, TreeHash},
    limits,
    quantities::Credit,
};

use super::{
    backup,
    error::InRow,
    key::{task_key, task_keys, task_of},
    ledger, ledger_read,
    load::blob,
    receipts, trust,
    write::join,
};
use crate::store::{
    Audit, Backup, PeerStanding, Reader, StoreError,
    audit::LedgerSum,
    packed::{self, Entry, OutputForm},
};

/// The pool.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    returned: Condvar,
}

impl Readers {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let idle: Result<Vec<_>, _> = (0..limits::STORE_READERS).map(|_| connect(path)).collect();
        Ok(Self { path: path.into(), idle: Mutex::new(idle?), returned: Condvar::new() })
    }

    /// Lends a connection for one question.
    fn with<T>(&self, ask: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut idle, _) = self
            .returned
            .wait_timeout_while(idle, limits::STORE_BUSY_MAX, |idle| idle.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let conn = idle.pop().ok_or(StoreError::Busy)?;
        drop(idle);
        let answer = ask(&conn);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
        self.returned.notify_one();
        answer
    }
}

/// A connection that can't write, whatever it is asked.
pub(super) fn connect(path: &Path) -> Result<Connection, StoreError> {
    let conn = super::connect(path, OpenFlags::empty())?;
    conn.pragma_update(None, "query_only", true)?;
    Ok(conn)
}

/// The same to a database that may not be there: a question must not make one.
pub(super) fn existing(path: &Path) -> Result<Connection, StoreError> {
    if path.is_file() { connect(path) } else { Err(StoreError::Missing { file: path.into() }) }
}

impl Reader for Readers {
    fn results(
        &self,
        job: JobId,
        from: u64,
        limit: u32,
        with_output: bool,
    ) -> Result<Vec<FinalRow>, StoreError> {
        let data = if with_output {
            "data FROM task_final LEFT JOIN output USING(task_id)"
        } else {
            "NULL FROM task_final"
        };
        let sql = format!(
            "SELECT task_id, digest, entry, {data} WHERE task_id BETWEEN ?1 AND ?2 ORDER BY task_id LIMIT ?3"
        );
        let keys = task_keys(job, from);
        self.with(|conn| {
            let mut statement = conn.prepare_cached(&sql)?;
            let limit = limit.min(limits::PAGE_ROWS_MAX);
            let mut rows = statement.query(params![keys.start(), keys.end(), limit])?;
            let mut page = Vec::new();
            let mut bytes = 0;
            while bytes < limits::RESULTS_PAGE_BYTES_MAX
                && let Some(row) = rows.next()?
            {
                let row = final_row(row, with_output)?;
                if let FinalOutput::Inline(output) = &row.output {
                    bytes += output.len();
                }
                page.push(row);
            }
            Ok(page)
        })
    }

    fn result(&self, task: TaskId) -> Result<Option<FinalRow>, StoreError> {
        let sql = "SELECT task_id, digest, entry, data FROM task_final LEFT JOIN output USING(task_id) \
                   WHERE task_id = ?1";
        let Ok(key) = task_key(task) else { return Ok(None) };
        self.with(|conn| {
            let mut statement = conn.prepare_cached(sql)?;
            let mut rows = statement.query([key])?;
            rows.next()?.map(|row| final_row(row, true)).transpose()
        })
    }

    fn provisional(&self, job: JobId, from: u64, to: u64) -> Result<Vec<u64>, StoreError> {
        self.with(|conn| trust::provisional(conn, job, from, to))
    }

    fn credit(&self) -> Result<Vec<(PeerId, CreditDelta)>, StoreError> {
        let sql =
            "SELECT id, credit, nanos, validated, invalid FROM credit JOIN peer USING(peer) ORDER BY peer";
        self.with(|conn| {
            let mut statement = conn.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| Ok((PeerId::new(row.get(0)?), credit(row)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    fn audit(&self) -> Result<Audit, StoreError> {
        self.with(audit)
    }

    fn ledger(&self) -> Result<Frontier, StoreError> {
        self.with(|conn| Ok(ledger::frontier(conn)?.unwrap_or_default()))
    }

    fn ledger_entries(&self, from: u64, limit: u32) -> Result<Vec<Vec<u8>>, StoreError> {
        self.with(|conn| ledger_read::entries(conn, from, limit))
    }

    fn ledger_tiles(&self, from: u64, count: u64) -> Result<Vec<TreeHash>, StoreError> {
        self.with(|conn| ledger_read::tiles(conn, from, count))
    }

    fn ledger_place(&self, task: TaskId) -> Result<Option<u64>, StoreError> {
        self.with(|conn| ledger_read::place(conn, task))
    }

    fn receipts(&self, task: TaskId) -> Result<Vec<SignedReceipts>, StoreError> {
        self.with(|conn| receipts::of_task(conn, task))
    }

    fn standings(&self) -> Result<Vec<PeerStanding>, StoreError> {
        self.with(ledger_read::standings)
    }

    fn credit_days(&self, from: u64) -> Result<Vec<(PeerNo, u64, Credit)>, StoreError> {
        self.with(|conn| ledger_read::days(conn, from))
    }

    fn backup(&self, to: &Path) -> Result<Backup, StoreError> {
        backup::make(&self.path, to)
    }
}

/// See [`Reader::audit`].
pub(super) fn audit(conn: &Connection) -> Result<Audit, StoreError> {
    // One transaction, so that the ledger and the credit are of the same moment.
    let transaction = conn.unchecked_transaction()?;
    let mut sum = LedgerSum::default();
    let mut statement = transaction.prepare_cached("SELECT task_id, digest, entry FROM task_final")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        sum.add(&entry(row)?.1.grants);
    }
    let sql = "SELECT peer, credit, nanos, validated, invalid FROM credit";
    let mut statement = transaction.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| Ok((PeerNo::new(row.get(0)?), credit(row)?)))?;
    let shown: BTreeMap<_, _> = rows.collect::<Result<_, _>>()?;
    Ok(sum.compare(&shown))
}

/// From the second column on: credit, nanos, validated, invalid.
pub(super) fn credit(row: &Row<'_>) -> rusqlite::Result<CreditDelta> {
    let credit = join(row.get(1)?, row.get(2)?);
    Ok(CreditDelta { credit, validated: row.get(3)?, invalid: row.get(4)? })
}

/// From the columns `task_id`, `digest`, `entry`.
pub(super) fn entry(row: &Row<'_>) -> Result<(TaskId, Entry), StoreError> {
    let task = task_of(row.get(0)?);
    let digest: Option<[u8; 32]> = row.get(1)?;
    let entry = packed::entry(digest, blob(row, 2)?);
    Ok((task, entry.in_row(|| format!("the ledger entry of task {task}"))?))
}

/// From the columns of an entry and `data`.
fn final_row(row: &Row<'_>, with_output: bool) -> Result<FinalRow, StoreError> {
    let (task, Entry { verdict, outcome, attempts, grants, output: form }) = entry(row)?;
    let damaged = || format!("the output of task {task}");
    let output = match form {
        _ if !with_output => FinalOutput::Nothing,
        OutputForm::Nothing => FinalOutput::Nothing,
        OutputForm::Empty => FinalOutput::Inline(Arc::default()),
        OutputForm::Inline => FinalOutput::Inline(Arc::new(packed::output(blob(row, 3)?).in_row(damaged)?)),
        OutputForm::Blob => FinalOutput::Blob(packed::blob(blob(row, 3)?).in_row(damaged)?),
    };
    Ok(FinalRow { task, verdict, outcome, attempts, grants, output, had_pending: false })
}
