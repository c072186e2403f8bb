//! Whether a store is sound, asked from outside, also while a coordinator writes to it.

use std::{collections::BTreeMap, path::Path};

use rusqlite::{Connection, types::ValueRef};
use talka_core::{
    ids::{JobId, PeerNo},
    quantities::Credit,
};

use super::{
    FILE, ledger_read,
    read::{self, credit, entry},
    receipts, schema,
    write::join,
};
use crate::store::{Audit, StoreError, audit::LedgerSum};

/// Problems of one kind that are named; the rest of a badly damaged store would say nothing more.
const NAMED_MAX: usize = 20;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Schema of the store.
    pub schema: u32,
    /// How often the store was opened for writing.
    pub epoch: u64,
    /// Number of the last batch.
    pub last_seq: u64,
    /// Jobs, ended ones included.
    pub jobs: u64,
    /// Credit, recomputed.
    pub audit: Audit,
    /// One sentence for each thing that is wrong, credit included. Empty in a sound store.
    pub problems: Vec<String>,
}

/// A rule between tables: a query that finds rows that break it, and what is wrong with such a row.
struct Rule {
    sql: &'static str,
    wrong: &'static str,
}

/// The first column names the row. `J << 32` is the first key of a job, `J << 32 | 0xffffffff` its last.
const RULES: &[Rule] = &[
    Rule {
        sql: "SELECT shard_id FROM shard WHERE NOT (0 <= low AND low <= cursor AND cursor <= n)",
        wrong: "the positions of job % contradict each other",
    },
    Rule {
        sql: "SELECT job_id FROM shard WHERE job_id > 0 AND done + failed <> (SELECT count(*) FROM task_final \
              WHERE task_id BETWEEN job_id << 32 AND job_id << 32 | 0xffffffff)",
        wrong: "job % counts other than its final tasks",
    },
    Rule {
        sql: "SELECT job_id FROM shard JOIN job USING(job_id) WHERE ended IS NULL AND low <> (SELECT count(*) \
              FROM task_final WHERE task_id BETWEEN job_id << 32 AND (job_id << 32 | low) - 1)",
        wrong: "a task of job % is open below the first position that may be",
    },
    Rule {
        sql: "SELECT job_id FROM shard WHERE job_id > 0 AND EXISTS(SELECT 1 FROM task_final \
              WHERE task_id BETWEEN job_id << 32 | cursor AND job_id << 32 | 0xffffffff)",
        wrong: "a task of job % is final that was never handed out",
    },
    Rule {
        sql: "SELECT coalesce(block, counted) FROM final_block FULL JOIN \
              (SELECT task_id >> 10 AS counted, count(*) AS number FROM task_final GROUP BY 1) \
              ON block = counted WHERE finals IS NOT number",
        wrong: "block % counts other than its final tasks",
    },
    Rule {
        sql: "SELECT lease_id FROM lease WHERE shard_id NOT IN (SELECT job_id FROM job WHERE ended IS NULL) \
              OR peer NOT IN (SELECT peer FROM peer)",
        wrong: "lease % is of a job that has ended, or of an unknown peer",
    },
    Rule {
        sql: "SELECT task_id >> 32 FROM pending WHERE task_id >> 32 NOT IN \
              (SELECT job_id FROM job WHERE ended IS NULL) OR peer NOT IN (SELECT peer FROM peer)",
        wrong: "a report on a task of job % is of a job that has ended, or of an unknown peer",
    },
    Rule {
        sql: "SELECT task_id >> 32 FROM pending JOIN task_final USING(task_id) \
              WHERE task_id NOT IN (SELECT task_id FROM provisional)",
        wrong: "a task of job % has open reports and is final",
    },
    Rule {
        sql: "SELECT task_id >> 32 FROM provisional WHERE task_id NOT IN (SELECT task_id FROM task_final)",
        wrong: "a task of job % rests on one worker's word and is not final",
    },
    Rule {
        sql: "SELECT job_id FROM shard WHERE job_id > 0 AND provisional <> (SELECT count(*) FROM provisional \
              WHERE task_id BETWEEN job_id << 32 AND job_id << 32 | 0xffffffff)",
        wrong: "job % counts other than its provisional tasks",
    },
    Rule {
        sql: "SELECT task_id >> 32 FROM output WHERE task_id NOT IN (SELECT task_id FROM task_final)",
        wrong: "an output of job % is of no final task",
    },
];

/// Checks the store in `dir`: its pages, what its tables say of each other, and every sum.
pub fn check(dir: &Path) -> Result<Check, StoreError> {
    let path = dir.join(FILE);
    let conn = read::existing(&path)?;
    schema::must_be_newest(&conn)?;
    check_connection(&conn)
}

/// The same through a connection; the schema is the newest.
pub(super) fn check_connection(conn: &Connection) -> Result<Check, StoreError> {
    // One transaction, so that everything is of the same moment.
    let transaction = conn.unchecked_transaction()?;
    let mut problems = integrity(&transaction)?;
    let sql = "SELECT epoch, last_seq, (SELECT count(*) FROM job) FROM shard WHERE shard_id = 0";
    let (epoch, last_seq, jobs) =
        transaction.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    if problems.is_empty() {
        for rule in RULES {
            problems.extend(broken(&transaction, rule)?);
        }
    }
    problems.extend(ledger_read::problems(&transaction)?);
    problems.extend(receipts::problems(&transaction)?);
    let (audit, of_jobs) = sums(&transaction)?;
    problems.extend(of_jobs);
    problems.extend(audit.differences.iter().take(NAMED_MAX).map(|difference| {
        format!(
            "peer {} is shown with {} credits, but was granted {}",
            difference.peer.get(),
            difference.shown.credit,
            difference.ledger.credit
        )
    }));
    Ok(Check { schema: schema::found(conn)?, epoch, last_seq, jobs, audit, problems })
}

fn integrity(conn: &Connection) -> Result<Vec<String>, StoreError> {
    let mut statement = conn.prepare(&format!("PRAGMA integrity_check({NAMED_MAX})"))?;
    let lines = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    Ok(if lines == ["ok"] { vec![] } else { lines })
}

fn broken(conn: &Connection, rule: &Rule) -> Result<Vec<String>, StoreError> {
    let mut statement = conn.prepare(rule.sql)?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()?
        && found.len() < NAMED_MAX
    {
        let name = match row.get_ref(0)? {
            ValueRef::Integer(number) => number.to_string(),
            _ => "?".into(),
        };
        found.push(rule.wrong.replace('%', &name));
    }
    Ok(found)
}

/// Reads the ledger once: credit by peer, and what is wrong with the credit of jobs.
fn sums(conn: &Connection) -> Result<(Audit, Vec<String>), StoreError> {
    let (mut ledger, mut jobs) = (LedgerSum::default(), BTreeMap::<JobId, Credit>::new());
    let mut statement = conn.prepare("SELECT task_id, digest, entry FROM task_final")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (task, entry) = entry(row)?;
        ledger.add(&entry.grants);
        let sum = jobs.entry(task.job).or_insert(Credit::ZERO);
        *sum = entry.grants.iter().fold(*sum, |sum, grant| sum + grant.credit);
    }
    let mut statement = conn.prepare("SELECT peer, credit, nanos, validated, invalid FROM credit")?;
    let rows = statement.query_map([], |row| Ok((PeerNo::new(row.get(0)?), credit(row)?)))?;
    let audit = ledger.compare(&rows.collect::<Result<_, _>>()?);

    let mut statement = conn.prepare("SELECT job_id, credit, nanos FROM shard WHERE job_id > 0")?;
    let mut rows = statement.query([])?;
    let mut problems = Vec::new();
    while let Some(row) = rows.next()? {
        let (job, shown) = (JobId::new(row.get(0)?), join(row.get(1)?, row.get(2)?));
        let granted = jobs.remove(&job).unwrap_or(Credit::ZERO);
        if granted != shown {
            problems.push(format!("job {job} is shown with {shown} credits, but {granted} were granted"));
        }
    }
    problems.extend(jobs.keys().map(|job| format!("tasks of job {job} are final, but there is no such job")));
    problems.truncate(NAMED_MAX);
    Ok((audit, problems))
}
