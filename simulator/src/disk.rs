//! What survives a crash, in maps. What must hold of it is in [`invariants`](crate::invariants).

use std::collections::{BTreeMap, BTreeSet};

use talka_core::{
    coordinator::{Batch, CreditDelta, FinalRow, JobRow, LeaseRow, PendingRow, ShardRow, Snapshot, Tables},
    ids::{AttemptId, JobId, LeaseId, PeerId, PeerNo, TaskId},
    job::JobState,
};

use crate::{
    invariants::{Invariant, ensure},
    report::Report,
    truth::Answer,
};

/// The tables, and who holds what.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    tables: Tables,
    held: Held,
}

/// Open leases of each peer, and how many attempts they have.
#[derive(Debug, Default)]
struct Held {
    leases: BTreeMap<PeerNo, BTreeSet<LeaseId>>,
    attempts: BTreeMap<PeerNo, usize>,
}

impl Held {
    fn add(&mut self, lease: &LeaseRow) {
        self.leases.entry(lease.peer).or_default().insert(lease.lease);
        *self.attempts.entry(lease.peer).or_default() += lease.items.len();
    }

    fn remove(&mut self, lease: &LeaseRow) {
        self.leases.entry(lease.peer).or_default().remove(&lease.lease);
        *self.attempts.entry(lease.peer).or_default() -= lease.items.len();
    }
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
        let wrong = self.tables.contradiction(batch).or_else(|| self.tables.misuse(batch));
        sound(wrong.is_none(), || wrong.clone().unwrap_or_default());
        let closed = batch.leases_closed.iter().filter_map(|id| self.tables.leases.get(id));
        closed.for_each(|lease| self.held.remove(lease));
        self.tables.apply(batch);
        if batch.ended.is_empty() {
            batch.leases_opened.values().for_each(|lease| self.held.add(lease));
        } else {
            self.held = Held::default();
            self.tables.leases.values().for_each(|lease| self.held.add(lease));
        }
    }

    // What the observer asks.

    pub(crate) fn job(&self, job: JobId) -> Option<(&JobRow, ShardRow)> {
        self.tables.jobs.get(&job).map(|(row, shard)| (row, *shard))
    }

    pub(crate) fn knows(&self, job: JobId) -> bool {
        self.tables.jobs.contains_key(&job)
    }

    pub(crate) fn is_final(&self, task: TaskId) -> bool {
        self.tables.finals.contains_key(&task)
    }

    /// Whether its result rests on one worker's word.
    pub(crate) fn is_provisional(&self, task: TaskId) -> bool {
        self.tables.provisional.contains_key(&task)
    }

    pub(crate) fn final_row(&self, task: TaskId) -> Option<&FinalRow> {
        self.tables.finals.get(&task)
    }

    /// Who a number stands for, or will when the batch is durable.
    pub(crate) fn peer(&self, no: PeerNo, batch: &Batch) -> Option<PeerId> {
        let new = || batch.peers.iter().find(|row| row.no == no).map(|row| row.id);
        self.tables.peers.get(&no).copied().or_else(new)
    }

    /// Reports on record of a task that is not final.
    pub(crate) fn pending_of(&self, task: TaskId) -> impl Iterator<Item = (&AttemptId, &PendingRow)> {
        self.tables.pending_of(task)
    }

    /// Attempts of a peer's open leases.
    pub(crate) fn leased_to(&self, peer: PeerId) -> impl Iterator<Item = AttemptId> {
        let leases = self.tables.numbers.get(&peer).and_then(|no| self.held.leases.get(no));
        leases.into_iter().flatten().filter_map(|lease| self.tables.leases.get(lease)).flat_map(items)
    }

    /// How many those are.
    pub(crate) fn held(&self, peer: PeerNo) -> usize {
        self.held.attempts.get(&peer).copied().unwrap_or(0)
    }

    pub(crate) fn credit(&self) -> &BTreeMap<PeerNo, CreditDelta> {
        &self.tables.credit
    }

    pub(crate) fn leases(&self) -> usize {
        self.tables.leases.len()
    }

    pub(crate) fn reports(&self) -> usize {
        self.tables.pending.len()
    }

    /// Whether a report of this attempt is on record, or not needed any more.
    pub(crate) fn has(&self, attempt: AttemptId) -> bool {
        self.tables.has(attempt)
    }

    pub(crate) fn all_ended(&self) -> bool {
        self.tables.jobs.values().all(|(row, _)| row.state != JobState::Running)
    }

    /// Tasks of running jobs that are not final.
    pub(crate) fn open_tasks(&self) -> impl Iterator<Item = TaskId> {
        let running = self.tables.jobs.iter().filter(|(_, (row, _))| row.state == JobState::Running);
        let tasks = running.flat_map(|(job, (row, _))| {
            (0..row.submission.spec.inputs.count()).map(|index| TaskId { job: *job, index })
        });
        tasks.filter(|task| !self.tables.finals.contains_key(task))
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.tables.snapshot()
    }

    /// What came of it all.
    pub(crate) fn sum_up(&self, report: &mut Report) {
        for (id, (row, shard)) in &self.tables.jobs {
            let finals: Vec<&FinalRow> = self.tables.finals_from(*id, 0).collect();
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
        format!("{:?} {:?}", self.tables.finals, self.tables.credit)
    }
}
