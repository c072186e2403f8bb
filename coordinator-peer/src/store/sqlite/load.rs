//! The whole state, for a restart. One pass over each table of open things; of the ledger only the keys of
//! blocks in which something is open.

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::{Connection, Row, params};
use talka_core::{
    coordinator::{JobRow, JobSnapshot, LeaseRow, PeerRow, PendingRow, ShardRow, Snapshot, Standing},
    ids::{AttemptId, JobId, LeaseId, PeerId, PeerNo, TaskId},
    job::{JobSpec, JobState, Submission},
    precedence::{Priority, Weight},
    quantities::Timestamp,
};

use super::{
    error::InRow,
    key::{BLOCK_TASKS, block_of, task_key, task_of},
    trust,
    write::join,
};
use crate::store::{StoreError, packed};

type Jobs = BTreeMap<JobId, JobSnapshot>;

/// Reads everything that a coordinator has to know; `conn` is in a transaction.
pub(super) fn snapshot(conn: &Connection) -> Result<Snapshot, StoreError> {
    let mut jobs = jobs(conn)?;
    add_leases(conn, &mut jobs)?;
    add_pending(conn, &mut jobs)?;
    add_open(conn, &mut jobs)?;
    trust::add_provisional(conn, &mut jobs)?;
    Ok(Snapshot {
        peers: peers(conn)?,
        weights: weights(conn)?,
        records: trust::records(conn)?,
        invites: trust::invites(conn)?,
        jobs: jobs.into_values().collect(),
    })
}

fn peers(conn: &Connection) -> Result<Vec<PeerRow>, StoreError> {
    let mut statement = conn.prepare("SELECT peer, id FROM peer ORDER BY peer")?;
    let rows = statement
        .query_map([], |row| Ok(PeerRow { no: PeerNo::new(row.get(0)?), id: PeerId::new(row.get(1)?) }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn weights(conn: &Connection) -> Result<BTreeMap<PeerNo, Weight>, StoreError> {
    let mut statement = conn.prepare("SELECT peer, weight FROM weight")?;
    let mut rows = statement.query([])?;
    let mut weights = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let peer = PeerNo::new(row.get(0)?);
        let weight = Weight::new(row.get(1)?)
            .map_err(|_| StoreError::damaged(format!("the weight of peer {}", peer.get())))?;
        weights.insert(peer, weight);
    }
    Ok(weights)
}

fn jobs(conn: &Connection) -> Result<Jobs, StoreError> {
    let mut statement = conn.prepare(
        "SELECT job_id, request, submitter, spec, submitted, state, ended, \
         cursor, low, done, failed, attempts, credit, nanos, paused, priority, numbers, provisional, revoked, signature FROM job JOIN shard USING(job_id)",
    )?;
    let mut rows = statement.query([])?;
    let mut jobs = Jobs::new();
    while let Some(row) = rows.next()? {
        let (row, shard) = (job_row(row)?, shard_row(row)?);
        if shard.low > shard.cursor || shard.cursor > row.submission.spec.inputs.count() {
            return Err(StoreError::damaged(format!("the progress of job {}", row.job)));
        }
        let (leases, pending, open, provisional) = (vec![], vec![], vec![], vec![]);
        let snapshot = JobSnapshot { shard, leases, pending, open, provisional, row };
        jobs.insert(snapshot.row.job, snapshot);
    }
    Ok(jobs)
}

fn job_row(row: &Row<'_>) -> Result<JobRow, StoreError> {
    let job = JobId::new(row.get(0)?);
    let spec: JobSpec =
        serde_json::from_str(row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?).map_err(|error| {
            StoreError::Damaged { what: format!("the spec of job {job}"), source: Some(Box::new(error)) }
        })?;
    let state = JobState::from_code(row.get(5)?)
        .ok_or_else(|| StoreError::damaged(format!("the state of job {job}")))?;
    let priority =
        Priority::new(row.get(15)?).map_err(|_| StoreError::damaged(format!("the priority of job {job}")))?;
    let (request, submitter, signature) = (row.get(1)?, PeerId::new(row.get(2)?), row.get(19)?);
    let submission = Submission { request, submitter, spec, signature };
    Ok(JobRow {
        job,
        submission: Arc::new(submission),
        submitted: Timestamp::from_millis(row.get(4)?),
        state,
        ended: row.get::<_, Option<u64>>(6)?.map(Timestamp::from_millis),
        standing: Standing { paused: row.get(14)?, priority },
    })
}

fn shard_row(row: &Row<'_>) -> Result<ShardRow, StoreError> {
    Ok(ShardRow {
        cursor: row.get(7)?,
        low: row.get(8)?,
        done: row.get(9)?,
        failed: row.get(10)?,
        attempts: row.get(11)?,
        credit: join(row.get(12)?, row.get(13)?),
        numbers: row.get(16)?,
        provisional: row.get(17)?,
        revoked: row.get(18)?,
    })
}

fn of_job(jobs: &mut Jobs, job: JobId) -> Result<&mut JobSnapshot, StoreError> {
    jobs.get_mut(&job).ok_or_else(|| StoreError::damaged(format!("a row of job {job}, which does not exist")))
}

fn add_leases(conn: &Connection, jobs: &mut Jobs) -> Result<(), StoreError> {
    let sql = "SELECT lease_id, shard_id, peer, deadline, items FROM lease ORDER BY lease_id";
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let lease = LeaseId::new(row.get(0)?);
        let job = JobId::new(row.get(1)?);
        let items = packed::items(blob(row, 4)?).in_row(|| format!("the items of lease {lease}"))?;
        of_job(jobs, job)?.leases.push(LeaseRow {
            lease,
            job,
            peer: PeerNo::new(row.get(2)?),
            deadline: Timestamp::from_millis(row.get(3)?),
            items,
        });
    }
    Ok(())
}

fn add_pending(conn: &Connection, jobs: &mut Jobs) -> Result<(), StoreError> {
    let sql = "SELECT task_id, number, peer, report FROM pending ORDER BY task_id, number";
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let attempt = AttemptId { task: task_of(row.get(0)?), number: row.get(1)? };
        let report = packed::report(blob(row, 3)?).in_row(|| format!("the report of {attempt}"))?;
        let pending = PendingRow { peer: PeerNo::new(row.get(2)?), report };
        of_job(jobs, attempt.task.job)?.pending.push((attempt, pending));
    }
    Ok(())
}

/// The touched tasks that are not final, of jobs that have not ended: what full blocks leave over, less the finals
/// in the others.
fn add_open(conn: &Connection, jobs: &mut Jobs) -> Result<(), StoreError> {
    let mut full = conn.prepare(
        "SELECT block FROM final_block WHERE block BETWEEN ?1 AND ?2 AND finals = ?3 ORDER BY block",
    )?;
    let mut finals =
        conn.prepare("SELECT task_id FROM task_final WHERE task_id BETWEEN ?1 AND ?2 ORDER BY task_id")?;
    for job in jobs.values_mut().filter(|job| job.row.ended.is_none()) {
        let key = |index| task_key(TaskId { job: job.row.job, index });
        let (first, end) = (key(job.shard.low)?, key(job.shard.cursor)?);
        if first >= end {
            continue;
        }
        let last = end - 1;
        let blocks = block_of(first)..=block_of(last);
        let is_full = params![blocks.start(), blocks.end(), BLOCK_TASKS];
        let full: Vec<u64> = full.query_map(is_full, |row| row.get(0))?.collect::<Result<_, _>>()?;
        let mut full = full.into_iter().peekable();
        for block in blocks.filter(|block| full.next_if_eq(block).is_none()) {
            let of_block = block * BLOCK_TASKS;
            let keys = first.max(of_block)..=last.min(of_block + (BLOCK_TASKS - 1));
            let mut rows = finals.query(params![keys.start(), keys.end()])?;
            let mut next_final = rows.next()?.map(|row| row.get::<_, u64>(0)).transpose()?;
            for key in keys {
                if next_final == Some(key) {
                    next_final = rows.next()?.map(|row| row.get(0)).transpose()?;
                } else {
                    job.open.push(task_of(key).index);
                }
            }
        }
    }
    Ok(())
}

/// A packed column, borrowed from the row.
pub(super) fn blob<'a>(row: &'a Row<'_>, column: usize) -> Result<&'a [u8], StoreError> {
    Ok(row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from)?)
}
