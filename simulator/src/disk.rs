//! What survives a crash, in maps. What must hold of it is in [`invariants`](crate::invariants).

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use talka_core::{
    coordinator::{
        Batch, CreditDelta, FinalRow, InviteRow, JobRow, JobSnapshot, LeaseRow, PeerRow, PendingRow,
        RecordRow, ShardRow, Snapshot,
    },
    ids::{AttemptId, JobId, LeaseId, PeerId, PeerNo, TaskId},
    job::JobState,
    placement::InviteId,
    precedence::Weight,
    quantities::Timestamp,
};

use crate::{
    invariants::{Invariant, ensure},
    report::Report,
    truth::Answer,
};

#[derive(Debug, Default)]
pub(crate) struct Disk {
    peers: BTreeMap<PeerNo, PeerId>,
    jobs: BTreeMap<JobId, (JobRow, ShardRow)>,
    leases: BTreeMap<LeaseId, LeaseRow>,
    pending: BTreeMap<AttemptId, PendingRow>,
    finals: BTreeMap<TaskId, FinalRow>,
    credit: BTreeMap<PeerNo, CreditDelta>,
    provisional: BTreeMap<TaskId, (AttemptId, PendingRow)>,
    records: BTreeMap<PeerNo, RecordRow>,
    invites: BTreeMap<InviteId, InviteRow>,
    weights: BTreeMap<PeerNo, Weight>,
    numbers: BTreeMap<PeerId, PeerNo>,
    /// Open leases of each peer, and how many attempts they have.
    leases_of: BTreeMap<PeerNo, BTreeSet<LeaseId>>,
    held: BTreeMap<PeerNo, usize>,
}

pub(crate) fn attempts_of(first: TaskId, last: TaskId) -> RangeInclusive<AttemptId> {
    AttemptId { task: first, number: 0 }..=AttemptId { task: last, number: u32::MAX }
}

fn tasks_of(job: JobId, from: u64) -> RangeInclusive<TaskId> {
    TaskId { job, index: from }..=TaskId { job, index: u64::MAX }
}

/// The attempts of a lease.
pub(crate) fn items(lease: &LeaseRow) -> impl Iterator<Item = AttemptId> {
    let job = lease.job;
    lease
        .items
        .iter()
        .map(move |item| AttemptId { task: TaskId { job, index: item.index }, number: item.number })
}

/// What a store would refuse, too.
fn sound(holds: bool, what: impl FnOnce() -> String) {
    ensure(Invariant::Sound, holds, what);
}

impl Disk {
    pub(crate) fn commit(&mut self, batch: &Batch) {
        for PeerRow { no, id } in &batch.peers {
            sound(self.peers.insert(*no, *id).is_none(), || format!("peer number {no} is given twice"));
            self.numbers.insert(*id, *no);
        }
        for row in &batch.jobs {
            let before = self.jobs.insert(row.job, (row.clone(), ShardRow::default()));
            sound(before.is_none(), || format!("job {} is taken on twice", row.job));
        }
        for (job, row) in &batch.shards {
            let shard = &mut self.entry(*job).1;
            let forward = row.cursor >= shard.cursor && row.attempts >= shard.attempts;
            sound(forward, || format!("job {job} goes back from {shard:?} to {row:?}"));
            *shard = *row;
        }
        for (job, standing) in &batch.standings {
            self.entry(*job).0.standing = *standing;
        }
        for (peer, weight) in &batch.weights {
            sound(self.peers.contains_key(peer), || format!("a weight of peer {peer}, which nobody knows"));
            self.weights.insert(*peer, *weight);
        }
        for task in &batch.cleared {
            self.pending.extract_if(attempts_of(*task, *task), |_, _| true).for_each(drop);
        }
        for task in &batch.revoked {
            self.finals.remove(task);
            self.provisional.remove(task);
        }
        // An attempt may be leased and reported in one batch, and so may be closed what others opened.
        for lease in batch.leases_opened.values() {
            let before = self.leases.insert(lease.lease, LeaseRow::clone(lease));
            sound(before.is_none(), || format!("lease {} is opened twice", lease.lease));
            self.leases_of.entry(lease.peer).or_default().insert(lease.lease);
            *self.held.entry(lease.peer).or_default() += lease.items.len();
        }
        for row in &batch.finals {
            self.finish(row);
        }
        for id in &batch.leases_closed {
            self.close(*id);
        }
        for (id, row) in &batch.pending {
            self.pending.insert(*id, row.clone());
        }
        for (id, row) in &batch.provisional {
            self.provisional.insert(id.task, (*id, row.clone()));
        }
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
        for (job, (state, ended)) in &batch.ended {
            self.end(*job, *state, *ended);
        }
    }

    fn entry(&mut self, job: JobId) -> &mut (JobRow, ShardRow) {
        self.jobs.get_mut(&job).unwrap_or_else(|| panic!("a change of job {job}, which was never taken on"))
    }

    fn close(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.remove(&id) else {
            return sound(false, || format!("lease {id} is closed and was not open"));
        };
        if let Some(leases) = self.leases_of.get_mut(&lease.peer) {
            leases.remove(&id);
        }
        if let Some(held) = self.held.get_mut(&lease.peer) {
            *held -= lease.items.len();
        }
    }

    fn finish(&mut self, row: &FinalRow) {
        let task = row.task;
        if row.had_pending {
            self.pending.extract_if(attempts_of(task, task), |_, _| true).for_each(drop);
        }
        let left = self.pending_of(task).next();
        sound(left.is_none(), || format!("task {task} is final and {left:?} still pending"));
        self.finals.insert(task, row.clone());
    }

    fn end(&mut self, id: JobId, state: JobState, ended: Timestamp) {
        let (row, _) = self.entry(id);
        (row.state, row.ended) = (state, Some(ended));
        let leases: Vec<LeaseId> =
            self.leases.iter().filter(|(_, lease)| lease.job == id).map(|(lease, _)| *lease).collect();
        for lease in leases {
            self.close(lease);
        }
        let all = tasks_of(id, 0);
        self.pending.extract_if(attempts_of(*all.start(), *all.end()), |_, _| true).for_each(drop);
    }

    // What the observer asks.

    pub(crate) fn job(&self, job: JobId) -> Option<(&JobRow, ShardRow)> {
        self.jobs.get(&job).map(|(row, shard)| (row, *shard))
    }

    pub(crate) fn knows(&self, job: JobId) -> bool {
        self.jobs.contains_key(&job)
    }

    pub(crate) fn is_final(&self, task: TaskId) -> bool {
        self.finals.contains_key(&task)
    }

    /// Whether its result rests on one worker's word.
    pub(crate) fn is_provisional(&self, task: TaskId) -> bool {
        self.provisional.contains_key(&task)
    }

    pub(crate) fn final_row(&self, task: TaskId) -> Option<&FinalRow> {
        self.finals.get(&task)
    }

    /// Who a number stands for, or will when the batch is durable.
    pub(crate) fn peer(&self, no: PeerNo, batch: &Batch) -> Option<PeerId> {
        let new = || batch.peers.iter().find(|row| row.no == no).map(|row| row.id);
        self.peers.get(&no).copied().or_else(new)
    }

    /// Reports on record of a task that is not final.
    pub(crate) fn pending_of(&self, task: TaskId) -> impl Iterator<Item = (&AttemptId, &PendingRow)> {
        self.pending.range(attempts_of(task, task))
    }

    /// Attempts of a peer's open leases.
    pub(crate) fn leased_to(&self, peer: PeerId) -> impl Iterator<Item = AttemptId> {
        let leases = self.numbers.get(&peer).and_then(|no| self.leases_of.get(no));
        leases.into_iter().flatten().filter_map(|lease| self.leases.get(lease)).flat_map(items)
    }

    /// How many those are.
    pub(crate) fn held(&self, peer: PeerNo) -> usize {
        self.held.get(&peer).copied().unwrap_or(0)
    }

    pub(crate) fn credit(&self) -> &BTreeMap<PeerNo, CreditDelta> {
        &self.credit
    }

    pub(crate) fn leases(&self) -> usize {
        self.leases.len()
    }

    pub(crate) fn reports(&self) -> usize {
        self.pending.len()
    }

    /// Whether a report of this attempt is on record, or not needed any more.
    pub(crate) fn has(&self, attempt: AttemptId) -> bool {
        let ended = self.jobs.get(&attempt.task.job).is_none_or(|(row, _)| row.state != JobState::Running);
        ended || self.pending.contains_key(&attempt) || self.finals.contains_key(&attempt.task)
    }

    pub(crate) fn all_ended(&self) -> bool {
        self.jobs.values().all(|(row, _)| row.state != JobState::Running)
    }

    /// Tasks of running jobs that are not final.
    pub(crate) fn open_tasks(&self) -> impl Iterator<Item = TaskId> {
        let running = self.jobs.iter().filter(|(_, (row, _))| row.state == JobState::Running);
        let tasks = running.flat_map(|(job, (row, _))| {
            (0..row.submission.spec.inputs.count()).map(|index| TaskId { job: *job, index })
        });
        tasks.filter(|task| !self.finals.contains_key(task))
    }

    fn open_in(&self, (row, shard): &(JobRow, ShardRow)) -> Vec<u64> {
        let job = row.job;
        let touched = if row.ended.is_none() { shard.low..shard.cursor } else { 0..0 };
        touched.filter(|index| !self.finals.contains_key(&TaskId { job, index: *index })).collect()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let job = |(id, entry): (&JobId, &(JobRow, ShardRow))| {
            let all = tasks_of(*id, 0);
            let pending = self.pending.range(attempts_of(*all.start(), *all.end()));
            JobSnapshot {
                row: entry.0.clone(),
                shard: entry.1,
                leases: self.leases.values().filter(|lease| lease.job == *id).cloned().collect(),
                pending: pending.map(|(attempt, row)| (*attempt, row.clone())).collect(),
                open: self.open_in(entry),
                provisional: self
                    .provisional
                    .values()
                    .filter(|(attempt, _)| attempt.task.job == *id && entry.0.ended.is_none())
                    .cloned()
                    .collect(),
            }
        };
        let peers = self.peers.iter().map(|(no, id)| PeerRow { no: *no, id: *id });
        let (weights, records) = (self.weights.clone(), self.records.clone());
        Snapshot {
            peers: peers.collect(),
            weights,
            records,
            invites: self.invites.clone(),
            jobs: self.jobs.iter().map(job).collect(),
        }
    }

    /// What came of it all.
    pub(crate) fn sum_up(&self, report: &mut Report) {
        for (id, (row, shard)) in &self.jobs {
            let finals: Vec<&FinalRow> = self.finals.range(tasks_of(*id, 0)).map(|(_, row)| row).collect();
            let done = finals.iter().filter(|row| row.verdict.is_done()).count() as u64;
            let all = finals.len() as u64;
            let counted = (shard.done, shard.done + shard.failed);
            sound(counted == (done, all), || format!("job {id} counts {counted:?} of {done} and {all}"));
            report.jobs += 1;
            report.tasks_done += done;
            report.tasks_failed += all - done;
            report.tasks_cancelled += row.submission.spec.inputs.count() - all;
            report.attempts_reported += shard.attempts;
            let fails =
                |row: &&&FinalRow| !row.verdict.is_done() && Answer::right(row.task).is_meant_to_fail();
            report.tasks_meant_to_fail += finals.iter().filter(fails).count() as u64;
        }
    }

    /// All that became final, for the trace.
    pub(crate) fn summary(&self) -> String {
        format!("{:?} {:?}", self.finals, self.credit)
    }
}
