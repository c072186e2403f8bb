//! What a store holds, in maps: it takes batches and gives back a snapshot. This says in the plainest code what
//! every engine of the store does; the model engine, the disk of the simulator and the tests of the coordinator are
//! made of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use super::{
    effects::{
        Batch, CreditDelta, FinalRow, InviteRow, JobRow, LeaseRow, PeerRow, PendingRow, RecordRow, ShardRow,
    },
    restore::{JobSnapshot, Snapshot},
};
use crate::{
    ids::{AttemptId, JobId, LeaseId, PeerId, PeerNo, TaskId},
    job::JobState,
    placement::InviteId,
    precedence::Weight,
};

/// The rows of all batches so far.
#[derive(Debug, Default, Clone)]
pub struct Tables {
    /// Every peer that was ever numbered.
    pub peers: BTreeMap<PeerNo, PeerId>,
    /// The inverse.
    pub numbers: BTreeMap<PeerId, PeerNo>,
    /// Every job, and how far it is.
    pub jobs: BTreeMap<JobId, (JobRow, ShardRow)>,
    /// Open leases.
    pub leases: BTreeMap<LeaseId, LeaseRow>,
    /// Reports on tasks that are not final.
    pub pending: BTreeMap<AttemptId, PendingRow>,
    /// Final tasks. Their [`FinalRow::had_pending`] is `false`: the rows that it is about are gone.
    pub finals: BTreeMap<TaskId, FinalRow>,
    /// The votes that some of them rest on alone.
    pub provisional: BTreeMap<TaskId, (AttemptId, PendingRow)>,
    /// The sum of all changes.
    pub credit: BTreeMap<PeerNo, CreditDelta>,
    /// Weights other than the default.
    pub weights: BTreeMap<PeerNo, Weight>,
    /// What is remembered of workers.
    pub records: BTreeMap<PeerNo, RecordRow>,
    /// Invites that may still be used.
    pub invites: BTreeMap<InviteId, InviteRow>,
}

/// The keys of all attempts of the tasks from `first` to `last`.
pub fn attempts_of(first: TaskId, last: TaskId) -> RangeInclusive<AttemptId> {
    AttemptId { task: first, number: 0 }..=AttemptId { task: last, number: u32::MAX }
}

/// The keys of the tasks of `job` from position `from`.
pub fn tasks_of(job: JobId, from: u64) -> RangeInclusive<TaskId> {
    TaskId { job, index: from }..=TaskId { job, index: u64::MAX }
}

impl Tables {
    /// Why no engine takes `batch`: it contradicts what is there. Nothing has changed then.
    pub fn contradiction(&self, batch: &Batch) -> Option<String> {
        let (mut numbers, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for PeerRow { no, id } in &batch.peers {
            let known = self.peers.contains_key(no) || self.numbers.contains_key(id);
            if known || !numbers.insert(no) || !ids.insert(id) {
                return Some(format!("peer {id} twice"));
            }
        }
        let mut jobs = BTreeSet::new();
        for JobRow { job, .. } in &batch.jobs {
            if self.jobs.contains_key(job) || !jobs.insert(*job) {
                return Some(format!("job {job} twice"));
            }
        }
        let exists = |job: &JobId| self.jobs.contains_key(job) || jobs.contains(job);
        let mut changed = batch.shards.keys().chain(batch.standings.keys()).chain(batch.ended.keys());
        if let Some(job) = changed.find(|job| !exists(job)) {
            return Some(format!("progress of job {job}, which does not exist"));
        }
        let mut tasks = BTreeSet::new();
        for FinalRow { task, .. } in &batch.finals {
            let known = self.finals.contains_key(task) && !batch.revoked.contains(task);
            if known || !tasks.insert(*task) {
                return Some(format!("task {task} becomes final twice"));
            }
        }
        None
    }

    /// What no coordinator asks of a store, though engines need not notice: the first thing of that kind in `batch`.
    pub fn misuse(&self, batch: &Batch) -> Option<String> {
        for (job, row) in &batch.shards {
            let known = self.jobs.get(job).map(|(_, shard)| *shard).unwrap_or_default();
            if row.cursor < known.cursor || row.attempts < known.attempts || row.numbers < known.numbers {
                return Some(format!("job {job} goes back from {known:?} to {row:?}"));
            }
        }
        let is_new = |no: &PeerNo| batch.peers.iter().any(|row| row.no == *no);
        if let Some(no) = batch.weights.keys().find(|no| !self.peers.contains_key(no) && !is_new(no)) {
            return Some(format!("a weight of peer {no}, which nobody knows"));
        }
        if let Some(lease) = batch.leases_opened.keys().find(|lease| self.leases.contains_key(lease)) {
            return Some(format!("lease {lease} is opened twice"));
        }
        if let Some(lease) = batch.leases_closed.iter().find(|lease| !self.leases.contains_key(lease)) {
            return Some(format!("lease {lease} is closed and was not open"));
        }
        for row in batch.finals.iter().filter(|row| !row.had_pending && !batch.cleared.contains(&row.task)) {
            if let Some((left, _)) = self.pending_of(row.task).next() {
                return Some(format!("task {} is final and {left} still pending", row.task));
            }
        }
        let become_final: BTreeSet<TaskId> = batch.finals.iter().map(|row| row.task).collect();
        let is_final = |task: &TaskId| self.finals.contains_key(task) && !batch.revoked.contains(task);
        let mut provisional = batch.provisional.keys().map(|attempt| attempt.task);
        if let Some(task) = provisional.find(|task| !is_final(task) && !become_final.contains(task)) {
            return Some(format!("task {task} is provisional and not final"));
        }
        if let Some(task) = batch.confirmed.iter().find(|task| !self.provisional.contains_key(task)) {
            return Some(format!("task {task} is confirmed and was not provisional"));
        }
        let running = |job: &JobId| self.jobs.get(job).is_none_or(|(row, _)| row.state == JobState::Running);
        batch.ended.keys().find(|job| !running(job)).map(|job| format!("job {job} ends twice"))
    }

    /// Takes a batch that contradicts nothing.
    pub fn apply(&mut self, batch: &Batch) {
        for PeerRow { no, id } in &batch.peers {
            self.peers.insert(*no, *id);
            self.numbers.insert(*id, *no);
        }
        self.weights.extend(&batch.weights);
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
        }
        // Last, so that it also clears away what this batch opened.
        for (job, (state, ended)) in &batch.ended {
            if let Some((row, _)) = self.jobs.get_mut(job) {
                (row.state, row.ended) = (*state, Some(*ended));
            }
            self.leases.retain(|_, lease| lease.job != *job);
            let all = tasks_of(*job, 0);
            self.forget_pending(*all.start(), *all.end());
        }
    }

    fn forget_pending(&mut self, first: TaskId, last: TaskId) {
        self.pending.extract_if(attempts_of(first, last), |_, _| true).for_each(drop);
    }

    /// Reports on record of a task that is not final, or is being checked.
    pub fn pending_of(&self, task: TaskId) -> impl Iterator<Item = (&AttemptId, &PendingRow)> {
        self.pending.range(attempts_of(task, task))
    }

    /// Final tasks of `job` from position `from`, ascending.
    pub fn finals_from(&self, job: JobId, from: u64) -> impl Iterator<Item = &FinalRow> {
        self.finals.range(tasks_of(job, from)).map(|(_, row)| row)
    }

    /// Whether a report of this attempt is here, or not needed any more.
    pub fn has(&self, attempt: AttemptId) -> bool {
        let ended = self.jobs.get(&attempt.task.job).is_none_or(|(row, _)| row.state != JobState::Running);
        ended || self.pending.contains_key(&attempt) || self.finals.contains_key(&attempt.task)
    }

    /// Everything that a coordinator has to know again.
    pub fn snapshot(&self) -> Snapshot {
        let job = |(id, (row, shard)): (&JobId, &(JobRow, ShardRow))| {
            let running = row.ended.is_none();
            let provisional = self.provisional.range(tasks_of(*id, 0)).filter(|_| running);
            let snapshot = JobSnapshot {
                row: row.clone(),
                shard: *shard,
                leases: vec![],
                pending: vec![],
                open: if running { self.open(*id, shard) } else { vec![] },
                provisional: provisional.map(|(_, vote)| vote.clone()).collect(),
            };
            (*id, snapshot)
        };
        let mut jobs: BTreeMap<JobId, JobSnapshot> = self.jobs.iter().map(job).collect();
        for lease in self.leases.values() {
            jobs.entry(lease.job).and_modify(|job| job.leases.push(lease.clone()));
        }
        for (attempt, row) in &self.pending {
            jobs.entry(attempt.task.job).and_modify(|job| job.pending.push((*attempt, row.clone())));
        }
        Snapshot {
            peers: self.peers.iter().map(|(no, id)| PeerRow { no: *no, id: *id }).collect(),
            weights: self.weights.clone(),
            records: self.records.clone(),
            invites: self.invites.clone(),
            jobs: jobs.into_values().collect(),
        }
    }

    /// The touched tasks that are not final, ascending.
    fn open(&self, job: JobId, shard: &ShardRow) -> Vec<u64> {
        let mut finals = self.finals_from(job, shard.low).map(|row| row.task.index).peekable();
        (shard.low..shard.cursor).filter(|index| finals.next_if_eq(index).is_none()).collect()
    }
}
