//! What rests on one worker's word, what is remembered of workers, and invites.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use talka_core::{
    coordinator::{Batch, InviteRow, JobSnapshot, PendingRow, RecordRow},
    ids::{AttemptId, JobId, PeerNo},
    placement::{Admission, InviteId, OwnerKey, Site},
    quantities::Timestamp,
    trust::Record,
};

use super::{
    error::InRow,
    key::{task_key, task_keys, task_of},
    load::blob,
};
use crate::store::{StoreError, packed};

/// Writes these rows of a batch; its final tasks are written.
pub(super) fn write(conn: &Connection, batch: &Batch) -> Result<(), StoreError> {
    if !batch.provisional.is_empty() {
        let mut insert = conn.prepare_cached("INSERT INTO provisional VALUES(?1, ?2, ?3, ?4)")?;
        let mut report = Vec::new();
        for (attempt, row) in &batch.provisional {
            report.clear();
            packed::put_report(&mut report, &row.report);
            insert.execute(params![task_key(attempt.task)?, attempt.number, row.peer.get(), report])?;
        }
    }
    for task in &batch.confirmed {
        let sql = "DELETE FROM provisional WHERE task_id = ?1";
        conn.prepare_cached(sql)?.execute([task_key(*task)?])?;
    }
    for (peer, row) in &batch.records {
        let RecordRow { record: Record { checks, caught }, quota, admission, site, owner } = *row;
        let sql = "INSERT OR REPLACE INTO record VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        conn.prepare_cached(sql)?.execute(params![
            peer.get(),
            checks,
            caught,
            quota,
            admission as u8,
            site.map(|site| site.to_code().cast_signed()),
            owner.map(|owner| owner.to_code().cast_signed())
        ])?;
    }
    for (invite, row) in &batch.invites {
        if row.uses == 0 {
            conn.prepare_cached("DELETE FROM invite WHERE hash = ?1")?.execute([invite.0])?;
        } else {
            let values = params![invite.0, row.uses, row.expires.millis()];
            conn.prepare_cached("INSERT OR REPLACE INTO invite VALUES(?1, ?2, ?3)")?.execute(values)?;
        }
    }
    Ok(())
}

/// Reads what is remembered of workers.
pub(super) fn records(conn: &Connection) -> Result<BTreeMap<PeerNo, RecordRow>, StoreError> {
    let mut statement =
        conn.prepare("SELECT peer, checks, caught, quota, admission, site, owner FROM record")?;
    let mut rows = statement.query([])?;
    let mut records = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let peer = PeerNo::new(row.get(0)?);
        let record = Record { checks: row.get(1)?, caught: row.get(2)? };
        let damaged = || StoreError::damaged(format!("the record of peer {}", peer.get()));
        let admission = Admission::from_code(row.get(4)?).ok_or_else(damaged)?;
        let site = row.get::<_, Option<i64>>(5)?.map(i64::cast_unsigned);
        let site = site.map(|code| Site::from_code(code).ok_or_else(damaged)).transpose()?;
        let owner = row.get::<_, Option<i64>>(6)?.map(i64::cast_unsigned).map(OwnerKey::from_code);
        records.insert(peer, RecordRow { record, quota: row.get(3)?, admission, site, owner });
    }
    Ok(records)
}

/// Reads the invites that may still be used.
pub(super) fn invites(conn: &Connection) -> Result<BTreeMap<InviteId, InviteRow>, StoreError> {
    let mut statement = conn.prepare("SELECT hash, uses, expires FROM invite")?;
    let rows = statement.query_map([], |row| {
        let expires = Timestamp::from_millis(row.get(2)?);
        Ok((InviteId(row.get(0)?), InviteRow { uses: row.get(1)?, expires }))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Reads the votes that final tasks of jobs that have not ended rest on.
pub(super) fn add_provisional(
    conn: &Connection,
    jobs: &mut BTreeMap<JobId, JobSnapshot>,
) -> Result<(), StoreError> {
    let mut statement =
        conn.prepare("SELECT task_id, number, peer, report FROM provisional ORDER BY task_id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let attempt = AttemptId { task: task_of(row.get(0)?), number: row.get(1)? };
        let Some(job) = jobs.get_mut(&attempt.task.job).filter(|job| job.row.ended.is_none()) else {
            continue;
        };
        let report = packed::report(blob(row, 3)?).in_row(|| format!("the vote {attempt}"))?;
        job.provisional.push((attempt, PendingRow { peer: PeerNo::new(row.get(2)?), report }));
    }
    Ok(())
}

/// See [`Reader::provisional`](crate::store::Reader::provisional).
pub(super) fn provisional(conn: &Connection, job: JobId, from: u64, to: u64) -> Result<Vec<u64>, StoreError> {
    let keys = task_keys(job, from);
    let Some(end) = to.checked_sub(1).map(|last| task_keys(job, last)) else { return Ok(vec![]) };
    let sql = "SELECT task_id FROM provisional WHERE task_id BETWEEN ?1 AND ?2 ORDER BY task_id";
    let mut statement = conn.prepare_cached(sql)?;
    let last = if end.is_empty() { *keys.end() } else { *end.start() };
    let rows = statement.query_map([*keys.start(), last], |row| Ok(task_of(row.get(0)?).index))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
