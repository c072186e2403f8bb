//! The model engine: maps instead of tables. It says in the plainest code what a store does, and the other
//! engines are tested against it. The [`MemoryDisk`] stands for what survives a crash; the store on it does
//! not.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use talka_core::{
    coordinator::{
        Batch, CreditDelta, FinalOutput, FinalRow, InviteRow, JobRow, JobSnapshot, LeaseRow, PeerRow,
        PendingRow, RecordRow, ShardRow, SignedReceipts, Snapshot,
    },
    ids::{AttemptId, JobId, LeaseId, PeerId, PeerNo, TaskId},
    ledger::{Average, Frontier, LedgerEntry, Names, TaskEntry, TreeHash, day_of, leaf_hash},
    limits,
    placement::InviteId,
    precedence::Weight,
    quantities::Credit,
};

use super::{Audit, Backup, PeerStanding, Reader, Seq, Store, StoreError, audit::LedgerSum};

/// What survives. Clones are handles to the same disk.
#[derive(Debug, Default, Clone)]
pub struct MemoryDisk(Arc<Mutex<Rows>>);

#[derive(Debug, Default)]
struct Rows {
    epoch: u64,
    last: Seq,
    peers: BTreeMap<PeerNo, PeerId>,
    numbers: BTreeMap<PeerId, PeerNo>,
    jobs: BTreeMap<JobId, (JobRow, ShardRow)>,
    leases: BTreeMap<LeaseId, LeaseRow>,
    pending: BTreeMap<AttemptId, PendingRow>,
    finals: BTreeMap<TaskId, FinalRow>,
    credit: BTreeMap<PeerNo, CreditDelta>,
    weights: BTreeMap<PeerNo, Weight>,
    names: BTreeMap<PeerNo, Names>,
    /// The ledger: entries, and where those of tasks are.
    ledger: Vec<Vec<u8>>,
    places: BTreeMap<TaskId, u64>,
    recent: BTreeMap<PeerNo, (Average, u64)>,
    days: BTreeMap<(PeerNo, u64), Credit>,
    receipts: Vec<SignedReceipts>,
    provisional: BTreeMap<TaskId, (AttemptId, PendingRow)>,
    records: BTreeMap<PeerNo, RecordRow>,
    invites: BTreeMap<InviteId, InviteRow>,
}

/// A store on a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryStore {
    disk: MemoryDisk,
    epoch: u64,
    last: Seq,
    poisoned: bool,
}

impl MemoryDisk {
    /// Claims the disk. Stores that were opened before can't commit from here on.
    pub fn open(&self) -> MemoryStore {
        let mut rows = self.rows();
        rows.epoch += 1;
        MemoryStore { disk: self.clone(), epoch: rows.epoch, last: rows.last, poisoned: false }
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn last_seq(&self) -> Seq {
        self.last
    }

    fn load(&mut self) -> Result<Snapshot, StoreError> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        Ok(self.disk.rows().snapshot())
    }

    fn commit(&mut self, seq: Seq, batch: &Batch) -> Result<(), StoreError> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        let mut rows = self.disk.rows();
        let result = seq.is_new_after(self.last).and_then(|new| {
            if !new {
                return Ok(());
            }
            if rows.epoch != self.epoch {
                return Err(StoreError::Fenced);
            }
            rows.check(batch)?;
            rows.apply(batch);
            rows.last = seq;
            self.last = seq;
            Ok(())
        });
        self.poisoned = result.is_err();
        result
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(self.disk.clone())
    }
}

impl Rows {
    /// Whether the batch contradicts what is there. Comes before any change, so that a commit is atomic.
    fn check(&self, batch: &Batch) -> Result<(), StoreError> {
        let (mut numbers, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for PeerRow { no, id } in &batch.peers {
            let known = self.peers.contains_key(no) || self.numbers.contains_key(id);
            if known || !numbers.insert(no) || !ids.insert(id) {
                return Err(StoreError::refused(format!("peer {id} twice")));
            }
        }
        let mut jobs = BTreeSet::new();
        for JobRow { job, .. } in &batch.jobs {
            if self.jobs.contains_key(job) || !jobs.insert(*job) {
                return Err(StoreError::refused(format!("job {job} twice")));
            }
        }
        let exists = |job: &JobId| self.jobs.contains_key(job) || jobs.contains(job);
        let mut changed = batch.shards.keys().chain(batch.standings.keys()).chain(batch.ended.keys());
        if let Some(job) = changed.find(|job| !exists(job)) {
            return Err(StoreError::refused(format!("progress of job {job}, which does not exist")));
        }
        let mut tasks = BTreeSet::new();
        for FinalRow { task, .. } in &batch.finals {
            let known = self.finals.contains_key(task) && !batch.revoked.contains(task);
            if known || !tasks.insert(*task) {
                return Err(StoreError::refused(format!("task {task} becomes final twice")));
            }
        }
        Ok(())
    }

    fn apply(&mut self, batch: &Batch) {
        for PeerRow { no, id } in &batch.peers {
            self.peers.insert(*no, *id);
            self.numbers.insert(*id, *no);
        }
        for (peer, weight) in &batch.weights {
            self.weights.insert(*peer, *weight);
        }
        self.weights.retain(|_, weight| *weight != Weight::default());
        self.jobs.extend(batch.jobs.iter().map(|row| (row.job, (row.clone(), ShardRow::default()))));
        for (job, standing) in &batch.standings {
            if let Some((row, _)) = self.jobs.get_mut(job) {
                row.standing = *standing;
            }
        }
        for (job, shard) in &batch.shards {
            if let Some((_, known)) = self.jobs.get_mut(job) {
                *known = *shard;
            }
        }
        self.leases.extend(batch.leases_opened.iter().map(|(id, row)| (*id, LeaseRow::clone(row))));
        for lease in &batch.leases_closed {
            self.leases.remove(lease);
        }
        for task in &batch.cleared {
            self.forget_pending(*task, *task);
        }
        // Before the rows that it is about change.
        self.record(batch);
        for task in &batch.revoked {
            self.finals.remove(task);
            self.provisional.remove(task);
        }
        self.pending.extend(batch.pending.iter().map(|(id, row)| (*id, row.clone())));
        for row in &batch.finals {
            if row.had_pending {
                self.forget_pending(row.task, row.task);
            }
            self.finals.insert(row.task, FinalRow { had_pending: false, ..row.clone() });
        }
        let provisional = batch.provisional.iter();
        self.provisional.extend(provisional.map(|(id, row)| (id.task, (*id, row.clone()))));
        for task in &batch.confirmed {
            self.provisional.remove(task);
        }
        self.records.extend(&batch.records);
        self.invites.extend(&batch.invites);
        self.invites.retain(|_, row| row.uses > 0);
        for (peer, delta) in &batch.credit {
            let sum = self.credit.entry(*peer).or_default();
            sum.credit += delta.credit;
            sum.validated += delta.validated;
            sum.invalid += delta.invalid;
            if delta.credit != Credit::ZERO {
                let at_secs = batch.at.millis() / 1000;
                let (average, day) = self.recent.entry(*peer).or_default();
                average.add(at_secs, delta.credit.as_f64());
                *day = day_of(at_secs);
                *self.days.entry((*peer, *day)).or_default() += delta.credit;
            }
        }
        for (job, (state, ended)) in &batch.ended {
            if let Some((row, _)) = self.jobs.get_mut(job) {
                (row.state, row.ended) = (*state, Some(*ended));
            }
            self.leases.retain(|_, lease| lease.job != *job);
            self.forget_pending(TaskId { job: *job, index: 0 }, TaskId { job: *job, index: u64::MAX });
        }
    }

    fn record(&mut self, batch: &Batch) {
        let at_secs = batch.at.millis() / 1000;
        let mut add = |entry: LedgerEntry| {
            self.ledger.push(entry.to_bytes());
            self.ledger.len() as u64 - 1
        };
        for PeerRow { no, id } in &batch.peers {
            add(LedgerEntry::Peer { no: *no, id: *id });
        }
        for (peer, names) in &batch.names {
            if self.names.get(peer) == Some(names) {
                continue;
            }
            add(LedgerEntry::Named { at_secs, peer: *peer, names: names.clone() });
            self.names.insert(*peer, names.clone());
        }
        for task in &batch.revoked {
            if let (Some(row), Some(place)) = (self.finals.get(task), self.places.remove(task)) {
                let (task, grants) = (*task, row.grants.clone());
                add(LedgerEntry::Revoked { at_secs, entry: place, task, grants });
            }
        }
        for FinalRow { task, verdict, attempts, grants, .. } in &batch.finals {
            let (task, verdict, attempts, grants) = (*task, *verdict, *attempts, grants.clone());
            let place = add(LedgerEntry::Task(TaskEntry { at_secs, task, verdict, attempts, grants }));
            self.places.insert(task, place);
        }
        let signed = batch.receipts.iter().filter(|signed| !signed.receipts.is_empty());
        self.receipts.extend(signed.cloned());
    }

    fn log(&self) -> (Frontier, Vec<TreeHash>) {
        let mut log = Frontier::default();
        let tiles = self.ledger.iter().filter_map(|entry| log.append(leaf_hash(entry))).collect();
        (log, tiles)
    }

    fn forget_pending(&mut self, first: TaskId, last: TaskId) {
        let range = AttemptId { task: first, number: 0 }..=AttemptId { task: last, number: u32::MAX };
        self.pending.extract_if(range, |_, _| true).for_each(drop);
    }

    fn snapshot(&self) -> Snapshot {
        let job = |(row, shard): &(JobRow, ShardRow)| JobSnapshot {
            row: row.clone(),
            shard: *shard,
            leases: vec![],
            pending: vec![],
            open: self.open(row, shard),
            provisional: self.provisional_of(row),
        };
        let mut jobs: BTreeMap<JobId, JobSnapshot> =
            self.jobs.iter().map(|(id, entry)| (*id, job(entry))).collect();
        for lease in self.leases.values() {
            jobs.entry(lease.job).and_modify(|job| job.leases.push(lease.clone()));
        }
        for (attempt, row) in &self.pending {
            jobs.entry(attempt.task.job).and_modify(|job| job.pending.push((*attempt, row.clone())));
        }
        let peers = self.peers.iter().map(|(no, id)| PeerRow { no: *no, id: *id });
        let (weights, records, invites) = (self.weights.clone(), self.records.clone(), self.invites.clone());
        let jobs = jobs.into_values().collect();
        Snapshot { peers: peers.collect(), weights, records, invites, jobs }
    }

    fn provisional_of(&self, row: &JobRow) -> Vec<(AttemptId, PendingRow)> {
        let of_job = self.provisional.values().filter(|(attempt, _)| attempt.task.job == row.job);
        of_job.filter(|_| row.ended.is_none()).cloned().collect()
    }

    fn open(&self, row: &JobRow, shard: &ShardRow) -> Vec<u64> {
        let touched = if row.ended.is_none() { shard.low..shard.cursor } else { 0..0 };
        let mut finals = self.finals_from(row.job, shard.low).map(|row| row.task.index).peekable();
        touched.filter(|index| finals.next_if_eq(index).is_none()).collect()
    }

    fn finals_from(&self, job: JobId, index: u64) -> impl Iterator<Item = &FinalRow> {
        let range = TaskId { job, index }..=TaskId { job, index: u64::MAX };
        self.finals.range(range).map(|(_, row)| row)
    }
}

impl Reader for MemoryDisk {
    fn results(
        &self,
        job: JobId,
        from: u64,
        limit: u32,
        with_output: bool,
    ) -> Result<Vec<FinalRow>, StoreError> {
        let rows = self.rows();
        let mut bytes = 0;
        let mut page = Vec::new();
        for row in rows.finals_from(job, from).take(limit.min(limits::PAGE_ROWS_MAX) as usize) {
            let output = if with_output { row.output.clone() } else { FinalOutput::Nothing };
            if let FinalOutput::Inline(output) = &output {
                bytes += output.len();
            }
            page.push(FinalRow { output, ..row.clone() });
            if bytes >= limits::RESULTS_PAGE_BYTES_MAX {
                break;
            }
        }
        Ok(page)
    }

    fn result(&self, task: TaskId) -> Result<Option<FinalRow>, StoreError> {
        Ok(self.rows().finals.get(&task).cloned())
    }

    fn provisional(&self, job: JobId, from: u64, to: u64) -> Result<Vec<u64>, StoreError> {
        let range = TaskId { job, index: from }..TaskId { job, index: to.max(from) };
        Ok(self.rows().provisional.range(range).map(|(task, _)| task.index).collect())
    }

    fn credit(&self) -> Result<Vec<(PeerId, CreditDelta)>, StoreError> {
        let rows = self.rows();
        let known = rows.credit.iter().filter_map(|(no, credit)| Some((*rows.peers.get(no)?, *credit)));
        Ok(known.collect())
    }

    fn audit(&self) -> Result<Audit, StoreError> {
        let rows = self.rows();
        let mut sum = LedgerSum::default();
        for row in rows.finals.values() {
            sum.add(&row.grants);
        }
        Ok(sum.compare(&rows.credit))
    }

    fn ledger(&self) -> Result<Frontier, StoreError> {
        Ok(self.rows().log().0)
    }

    fn ledger_entries(&self, from: u64, limit: u32) -> Result<Vec<Vec<u8>>, StoreError> {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let limit = limit.min(limits::PAGE_ROWS_MAX) as usize;
        Ok(self.rows().ledger.iter().skip(from).take(limit).cloned().collect())
    }

    fn ledger_tiles(&self, from: u64, count: u64) -> Result<Vec<TreeHash>, StoreError> {
        let [from, count] = [from, count].map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        Ok(self.rows().log().1.into_iter().skip(from).take(count).collect())
    }

    fn ledger_place(&self, task: TaskId) -> Result<Option<u64>, StoreError> {
        Ok(self.rows().places.get(&task).copied())
    }

    fn receipts(&self, task: TaskId) -> Result<Vec<SignedReceipts>, StoreError> {
        let of_task =
            |signed: &&SignedReceipts| signed.receipts.iter().any(|receipt| receipt.attempt.task == task);
        Ok(self.rows().receipts.iter().filter(of_task).cloned().collect())
    }

    fn standings(&self) -> Result<Vec<PeerStanding>, StoreError> {
        let rows = self.rows();
        let known = rows.credit.iter().filter_map(|(no, total)| {
            let (average, day) = rows.recent.get(no).copied().unwrap_or_default();
            let of_day = rows.days.get(&(*no, day)).copied().unwrap_or_default();
            let names = rows.names.get(no).cloned().unwrap_or_default();
            let (no, id, total, day) = (*no, *rows.peers.get(no)?, *total, (day, of_day));
            Some(PeerStanding { no, id, names, total, average, day })
        });
        Ok(known.collect())
    }

    fn credit_days(&self, from: u64) -> Result<Vec<(PeerNo, u64, Credit)>, StoreError> {
        let rows = self.rows();
        let days = rows.days.iter().filter(|((_, day), credit)| *day >= from && **credit != Credit::ZERO);
        Ok(days.map(|((peer, day), credit)| (*peer, *day, *credit)).collect())
    }

    fn backup(&self, _to: &Path) -> Result<Backup, StoreError> {
        Err(StoreError::Unsupported { what: "backup" })
    }
}
