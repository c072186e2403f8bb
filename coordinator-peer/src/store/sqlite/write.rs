//! One batch as one transaction.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use talka_core::{
    coordinator::{Batch, FinalOutput, FinalRow, JobRow, LeaseRow, PendingRow, ShardRow, Standing},
    ids::{AttemptId, JobId, LeaseId, PeerId, PeerNo, TaskId},
    precedence::Weight,
    quantities::{Credit, Timestamp},
};

use super::{
    key::{block_of, task_key, task_keys},
    ledger::{self, Ledger, Revoked},
    receipts, trust,
};
use crate::store::{Seq, StoreError, packed};

/// What makes this store the one that may write.
#[derive(Debug)]
pub(super) struct Claim {
    owner: PeerId,
    epoch: u64,
}

impl Claim {
    /// Takes over all shards, and returns the number of the last batch.
    pub(super) fn take(conn: &mut Connection, owner: PeerId) -> Result<(Self, Seq), StoreError> {
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute("UPDATE shard SET owner = ?1, epoch = epoch + 1", [owner.as_bytes()])?;
        let sql = "SELECT epoch, last_seq FROM shard WHERE shard_id = 0";
        let (epoch, last) = transaction.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        transaction.commit()?;
        Ok((Self { owner, epoch }, Seq::new(last)))
    }
}

/// Writes all rows of a batch, or fails before the transaction is committed.
pub(super) fn apply(
    transaction: &Transaction<'_>,
    claim: &Claim,
    ledger: &mut Ledger,
    seq: Seq,
    batch: &Batch,
) -> Result<(), StoreError> {
    let writer = Writer { conn: transaction, claim, seq };
    writer.check_claim()?;
    for peer in &batch.peers {
        let sql = "INSERT INTO peer(peer, id) VALUES(?1, ?2)";
        transaction.prepare_cached(sql)?.execute(params![peer.no.get(), peer.id.as_bytes()])?;
    }
    writer.set_weights(&batch.weights)?;
    for job in &batch.jobs {
        writer.add_job(job)?;
    }
    for (job, standing) in &batch.standings {
        writer.set_standing(*job, *standing)?;
    }
    for (job, shard) in &batch.shards {
        writer.update_shard(*job, shard)?;
    }
    writer.open_leases(batch.leases_opened.values().map(AsRef::as_ref))?;
    writer.close_leases(&batch.leases_closed)?;
    writer.clear(&batch.cleared)?;
    let revoked = writer.revoke(&batch.revoked)?;
    writer.add_pending(&batch.pending)?;
    // Workers finish in any order; the tree is filled fastest from left to right.
    let mut finals: Vec<&FinalRow> = batch.finals.iter().collect();
    finals.sort_unstable_by_key(|row| row.task);
    writer.add_finals(&finals)?;
    trust::write(transaction, batch)?;
    writer.add_credit(ledger, batch)?;
    ledger.append(transaction, batch, revoked)?;
    ledger.add_receipts(transaction, &batch.receipts, &finals)?;
    // Last, so that it also clears away what this batch opened.
    for (job, (state, ended)) in &batch.ended {
        writer.end_job(*job, *state as u8, ended.millis())?;
    }
    Ok(())
}

struct Writer<'a> {
    conn: &'a Connection,
    claim: &'a Claim,
    seq: Seq,
}

impl Writer<'_> {
    fn check_claim(&self) -> Result<(), StoreError> {
        let sql = "UPDATE shard SET last_seq = ?1 WHERE shard_id = 0 AND epoch = ?2";
        match self.conn.prepare_cached(sql)?.execute(params![self.seq.get(), self.claim.epoch])? {
            1 => Ok(()),
            _ => Err(StoreError::Fenced),
        }
    }

    fn add_job(&self, row: &JobRow) -> Result<(), StoreError> {
        let (job, submission) = (row.job.get(), &row.submission);
        let spec = serde_json::to_string(&submission.spec)
            .map_err(|error| StoreError::refused(format!("job {job}: {error}")))?;
        let ended = row.ended.map(Timestamp::millis);
        self.conn
            .prepare_cached("INSERT INTO job VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?
            .execute(params![
                job,
                submission.request,
                submission.submitter.as_bytes(),
                spec,
                row.submitted.millis(),
                row.state as u8,
                ended,
                row.standing.paused,
                row.standing.priority.get(),
                submission.signature
            ])?;
        self.conn
            .prepare_cached(
                "INSERT INTO shard VALUES(?1, ?1, 0, ?2, 0, 0, 0, 0, 0, 0, 0, ?3, ?4, ?5, 0, 0, 0)",
            )?
            .execute(params![
                job,
                submission.spec.inputs.count(),
                self.claim.owner.as_bytes(),
                self.claim.epoch,
                self.seq.get()
            ])?;
        Ok(())
    }

    fn update_shard(&self, job: JobId, row: &ShardRow) -> Result<(), StoreError> {
        let (credit, nanos) = split(row.credit)?;
        let sql = "UPDATE shard SET cursor = ?3, low = ?4, done = ?5, failed = ?6, attempts = ?7, \
                   credit = ?8, nanos = ?9, last_seq = ?10, numbers = ?11, provisional = ?12, revoked = ?13 \
                   WHERE shard_id = ?1 AND epoch = ?2";
        let changed = self.conn.prepare_cached(sql)?.execute(params![
            job.get(),
            self.claim.epoch,
            row.cursor,
            row.low,
            row.done,
            row.failed,
            row.attempts,
            credit,
            nanos,
            self.seq.get(),
            row.numbers,
            row.provisional,
            row.revoked
        ])?;
        must_exist(changed, job)
    }

    fn set_standing(&self, job: JobId, standing: Standing) -> Result<(), StoreError> {
        let sql = "UPDATE job SET paused = ?2, priority = ?3 WHERE job_id = ?1";
        let values = params![job.get(), standing.paused, standing.priority.get()];
        must_exist(self.conn.prepare_cached(sql)?.execute(values)?, job)
    }

    /// The default weight has no row.
    fn set_weights(&self, weights: &BTreeMap<PeerNo, Weight>) -> Result<(), StoreError> {
        for (peer, weight) in weights {
            if *weight == Weight::default() {
                self.conn.prepare_cached("DELETE FROM weight WHERE peer = ?1")?.execute([peer.get()])?;
            } else {
                let sql = "INSERT OR REPLACE INTO weight VALUES(?1, ?2)";
                self.conn.prepare_cached(sql)?.execute([peer.get(), weight.get()])?;
            }
        }
        Ok(())
    }

    fn open_leases<'a>(&self, rows: impl Iterator<Item = &'a LeaseRow>) -> Result<(), StoreError> {
        let mut insert =
            self.conn.prepare_cached("INSERT OR REPLACE INTO lease VALUES(?1, ?2, ?3, ?4, ?5)")?;
        let mut items = Vec::new();
        for row in rows {
            items.clear();
            packed::put_items(&mut items, &row.items);
            let (lease, job, peer) = (row.lease.get(), row.job.get(), row.peer.get());
            insert.execute(params![lease, job, peer, row.deadline.millis(), items])?;
        }
        Ok(())
    }

    fn close_leases<'a>(&self, leases: impl IntoIterator<Item = &'a LeaseId>) -> Result<(), StoreError> {
        let mut delete = self.conn.prepare_cached("DELETE FROM lease WHERE lease_id = ?1")?;
        for lease in leases {
            delete.execute([lease.get()])?;
        }
        Ok(())
    }

    fn add_pending<'a>(
        &self,
        rows: impl IntoIterator<Item = (&'a AttemptId, &'a PendingRow)>,
    ) -> Result<(), StoreError> {
        let mut insert = self.conn.prepare_cached("INSERT OR REPLACE INTO pending VALUES(?1, ?2, ?3, ?4)")?;
        let mut report = Vec::new();
        for (attempt, row) in rows {
            report.clear();
            packed::put_report(&mut report, &row.report);
            insert.execute(params![task_key(attempt.task)?, attempt.number, row.peer.get(), report])?;
        }
        Ok(())
    }

    fn clear(&self, tasks: &BTreeSet<TaskId>) -> Result<(), StoreError> {
        let mut clear = self.conn.prepare_cached("DELETE FROM pending WHERE task_id = ?1")?;
        for task in tasks {
            clear.execute([task_key(*task)?])?;
        }
        Ok(())
    }

    /// Opens final tasks again; returns what the ledger says about that. Tasks that became final in the same batch are
    /// not there yet, or no more.
    fn revoke(&self, tasks: &BTreeSet<TaskId>) -> Result<Vec<Revoked>, StoreError> {
        let mut revoked = Vec::new();
        if tasks.is_empty() {
            return Ok(revoked);
        }
        receipts::write_out(self.conn, tasks)?;
        let mut revoke = self.conn.prepare_cached("DELETE FROM task_final WHERE task_id = ?1")?;
        let mut drop_output = self.conn.prepare_cached("DELETE FROM output WHERE task_id = ?1")?;
        let mut drop_word = self.conn.prepare_cached("DELETE FROM provisional WHERE task_id = ?1")?;
        let mut count =
            self.conn.prepare_cached("UPDATE final_block SET finals = finals - ?2 WHERE block = ?1")?;
        let mut drop_block =
            self.conn.prepare_cached("DELETE FROM final_block WHERE block = ?1 AND finals = 0")?;
        for task in tasks {
            let key = task_key(*task)?;
            revoked.extend(ledger::supersede(self.conn, *task)?);
            let removed = revoke.execute([key])?;
            drop_output.execute([key])?;
            drop_word.execute([key])?;
            count.execute(params![block_of(key), removed])?;
            drop_block.execute([block_of(key)])?;
        }
        Ok(revoked)
    }

    /// Rows in the order of their tasks.
    fn add_finals(&self, rows: &[&FinalRow]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut settle = self.conn.prepare_cached("DELETE FROM pending WHERE task_id = ?1")?;
        let mut insert = self.conn.prepare_cached("INSERT INTO task_final VALUES(?, ?, ?)")?;
        let mut insert_many = self.conn.prepare_cached(INSERT_FINALS)?;
        let mut entry = Vec::new();
        let (many, rest) = rows.as_chunks::<FINALS_AT_ONCE>();
        let many = many.iter().map(|rows| &rows[..]);
        for rows in many.chain(rest.iter().map(std::slice::from_ref)) {
            let insert = if rows.len() == 1 { &mut insert } else { &mut insert_many };
            for (row, column) in rows.iter().zip((1..).step_by(3)) {
                let key = task_key(row.task)?;
                if row.had_pending {
                    settle.execute([key])?;
                }
                entry.clear();
                let digest = packed::put_entry(&mut entry, row)?;
                insert.raw_bind_parameter(column, key)?;
                insert.raw_bind_parameter(column + 1, digest)?;
                insert.raw_bind_parameter(column + 2, &entry)?;
                self.add_output(key, &row.output)?;
            }
            insert.raw_execute()?;
        }
        let mut count = self.conn.prepare_cached(
            "INSERT INTO final_block VALUES(?1, ?2) \
             ON CONFLICT(block) DO UPDATE SET finals = finals + excluded.finals",
        )?;
        let block = |row: &FinalRow| task_key(row.task).map_or(0, block_of);
        for rows in rows.chunk_by(|one, next| block(one) == block(next)) {
            let Some(first) = rows.first() else { continue };
            count.execute([block(first), rows.len() as u64])?;
        }
        Ok(())
    }

    fn add_output(&self, key: u64, output: &FinalOutput) -> Result<(), StoreError> {
        let mut data = Vec::new();
        match output {
            FinalOutput::Inline(output) if !output.is_empty() => packed::put_output(&mut data, output),
            FinalOutput::Blob(blob) => packed::put_blob(&mut data, blob),
            FinalOutput::Inline(_) | FinalOutput::Nothing => return Ok(()),
        }
        self.conn.prepare_cached("INSERT INTO output VALUES(?1, ?2)")?.execute(params![key, data])?;
        Ok(())
    }

    fn add_credit(&self, ledger: &mut Ledger, batch: &Batch) -> Result<(), StoreError> {
        let mut add = self.conn.prepare_cached(
            "INSERT INTO credit AS old VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
             ON CONFLICT(peer) DO UPDATE SET \
             credit = old.credit + excluded.credit + (old.nanos + excluded.nanos) / 1000000000, \
             nanos = (old.nanos + excluded.nanos) % 1000000000, \
             validated = old.validated + excluded.validated, invalid = old.invalid + excluded.invalid, \
             average = excluded.average, averaged = excluded.averaged, \
             day = excluded.day, day_credit = excluded.day_credit, day_nanos = excluded.day_nanos",
        )?;
        for (peer, delta) in &batch.credit {
            let recent = ledger.grant(self.conn, batch.at, *peer, delta)?;
            let ((credit, nanos), (day_credit, day_nanos)) = (split(delta.credit)?, split(recent.of_day)?);
            add.execute(params![
                peer.get(),
                credit,
                nanos,
                delta.validated,
                delta.invalid,
                recent.average.per_day,
                recent.average.at_secs,
                recent.day,
                day_credit,
                day_nanos
            ])?;
        }
        Ok(())
    }

    /// What is open of the job goes, which bounds the work here: final tasks stay.
    fn end_job(&self, job: JobId, state: u8, ended_millis: u64) -> Result<(), StoreError> {
        let sql = "UPDATE job SET state = ?2, ended = ?3 WHERE job_id = ?1";
        let changed = self.conn.prepare_cached(sql)?.execute(params![job.get(), state, ended_millis])?;
        must_exist(changed, job)?;
        self.conn.prepare_cached("DELETE FROM lease WHERE shard_id = ?1")?.execute([job.get()])?;
        let keys = task_keys(job, 0);
        self.conn
            .prepare_cached("DELETE FROM pending WHERE task_id BETWEEN ?1 AND ?2")?
            .execute([keys.start(), keys.end()])?;
        Ok(())
    }
}

/// Final tasks of one statement: most of what a row costs by itself is to begin and to end it.
const FINALS_AT_ONCE: usize = 8;
const INSERT_FINALS: &str = "INSERT INTO task_final VALUES(?, ?, ?), (?, ?, ?), (?, ?, ?), (?, ?, ?), \
                             (?, ?, ?), (?, ?, ?), (?, ?, ?), (?, ?, ?)";

fn must_exist(changed: usize, job: JobId) -> Result<(), StoreError> {
    match changed {
        1 => Ok(()),
        _ => Err(StoreError::refused(format!("progress of job {job}, which does not exist"))),
    }
}

const NANOS: i128 = 1_000_000_000;

/// Credit as its two columns. The billionths are never negative, so that sums carry one way only.
pub(super) fn split(credit: Credit) -> Result<(i64, i64), StoreError> {
    let whole = i64::try_from(credit.nanos().div_euclid(NANOS));
    let nanos = i64::try_from(credit.nanos().rem_euclid(NANOS));
    match (whole, nanos) {
        (Ok(whole), Ok(nanos)) => Ok((whole, nanos)),
        _ => Err(StoreError::refused(format!("a credit of {credit}"))),
    }
}

/// The inverse of [`split`].
pub(super) fn join(whole: i64, nanos: i64) -> Credit {
    Credit::from_nanos(i128::from(whole) * NANOS + i128::from(nanos))
}
