//! Coming back: from what a store holds to a coordinator that goes on where it was.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Config, Coordinator,
    effects::{Effects, InviteRow, JobRow, LeaseRow, PeerRow, PendingRow, RecordRow, ShardRow},
    task::{Attempt, AttemptState, Task},
    unchecked::Word,
};
use crate::{
    ids::{AttemptId, LeaseId, PeerNo, TaskId},
    job::JobState,
    mutants::{Mutant, is_active},
    placement::InviteId,
    precedence::Weight,
    quantities::Timestamp,
};

/// Everything that a coordinator has to know again after a restart.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Every peer that was ever numbered.
    pub peers: Vec<PeerRow>,
    /// Weights of submitters that have another one than the default.
    pub weights: BTreeMap<PeerNo, Weight>,
    /// What is remembered of workers.
    pub records: BTreeMap<PeerNo, RecordRow>,
    /// Invites that may still be used.
    pub invites: BTreeMap<InviteId, InviteRow>,
    /// Every job, ended ones included.
    pub jobs: Vec<JobSnapshot>,
}

/// One job, and what is open in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSnapshot {
    /// What it is.
    pub row: JobRow,
    /// How far it is.
    pub shard: ShardRow,
    /// Leases with open attempts.
    pub leases: Vec<LeaseRow>,
    /// Reports on tasks that are not final.
    pub pending: Vec<(AttemptId, PendingRow)>,
    /// Positions of the touched tasks that are not final, ascending: however far apart they are, there are at most
    /// [`OPEN_TASKS_MAX`](crate::limits::OPEN_TASKS_MAX) of them. None of a job that has ended.
    pub open: Vec<u64>,
    /// Votes that final tasks rest on alone.
    pub provisional: Vec<(AttemptId, PendingRow)>,
}

impl Coordinator {
    /// A coordinator that goes on where `snapshot` was taken. Workers are away until they open a session;
    /// they keep their leases for the usual grace.
    pub fn restore(config: Config, now: Timestamp, snapshot: Snapshot, fx: &mut Effects) -> Self {
        let mut this = Self::new(config);
        this.shares.set_now(now);
        for row in snapshot.peers {
            this.names.push(row.id);
            this.numbers.insert(row.id, row.no);
        }
        for (peer, weight) in snapshot.weights {
            if let Some(peer) = this.peer_id(peer) {
                this.shares.set_weight(peer, weight);
            }
        }
        for (peer, row) in snapshot.records {
            this.trust.restore(peer, row);
        }
        for (invite, row) in snapshot.invites {
            this.trust.set_invite(invite, row);
        }
        for job in snapshot.jobs {
            this.restore_job(now, job, fx);
        }
        this.reconsider(now, fx);
        let away: Vec<PeerNo> = this.workers.keys().copied().collect();
        for peer in away {
            this.away.insert((now + this.config.reconnect_grace, peer));
        }
        this
    }

    fn restore_job(&mut self, now: Timestamp, snapshot: JobSnapshot, fx: &mut Effects) {
        let id = snapshot.row.job;
        let running = snapshot.row.state == JobState::Running;
        self.insert_job(snapshot.row, snapshot.shard);
        if !running {
            return;
        }
        let Some(job) = self.jobs.get_mut(&id) else { return };
        // Every touched task that is not final is open, whether or not an attempt of it is known.
        let last_number = if is_active(Mutant::ReusesNumbers) { 0 } else { job.shard.numbers };
        let untried = |index| (index, Task { last_number, ..Task::default() });
        job.open = snapshot.open.into_iter().map(untried).collect();
        let policy = job.policy();
        let pending = snapshot.pending.iter().map(|(attempt, _)| attempt.task.index);
        let leased = snapshot.leases.iter().flat_map(|lease| lease.items.iter().map(|item| item.index));
        // Of millions of open tasks mostly none is checked.
        let is_needed = !snapshot.provisional.is_empty();
        let touched: BTreeSet<u64> = pending.chain(leased).filter(|_| is_needed).collect();
        for (attempt, row) in snapshot.provisional {
            let index = attempt.task.index;
            let ordinal = self.trust.ordinal(policy, attempt.task, attempt.number, last_number);
            let Some((peer, word)) = Word::restored(attempt.number, ordinal, &row) else { continue };
            // It was being checked.
            if touched.contains(&index) {
                job.open.insert(index, word.as_task(peer, last_number));
                job.rechecked += 1;
            }
            job.unchecked.entry(peer).or_default().insert(index, word);
            self.trust.note_unchecked(peer, id);
        }
        for (attempt, row) in snapshot.pending {
            if let Some(task) = job.open.get_mut(&attempt.task.index) {
                let (number, state) = (attempt.number, row.report.into());
                let ordinal = self.trust.ordinal(policy, attempt.task, number, last_number);
                task.last_number = task.last_number.max(ordinal);
                let (peer, lease) = (row.peer, LeaseId::new(0));
                task.attempts.push(Attempt { number, ordinal, peer, lease, state });
            }
        }
        job.held_bytes = job.open.values().map(Task::held_bytes).sum();
        for lease in &snapshot.leases {
            for item in &lease.items {
                let Some(task) = job.open.get_mut(&item.index) else { continue };
                if task.attempt_mut(item.number).is_none() {
                    let (number, state) = (item.number, AttemptState::Leased);
                    let of = TaskId { job: id, index: item.index };
                    let ordinal = self.trust.ordinal(policy, of, number, last_number);
                    task.last_number = task.last_number.max(ordinal);
                    let (peer, lease) = (lease.peer, lease.lease);
                    task.attempts.push(Attempt { number, ordinal, peer, lease, state });
                }
            }
        }
        // A lease that has open attempts keeps those that were given up, and their peer may have another
        // attempt since.
        let mut open_items = BTreeMap::<LeaseId, usize>::new();
        for task in job.open.values_mut() {
            task.drop_superseded();
            for attempt in task.attempts.iter().filter(|attempt| attempt.state.is_open()) {
                *open_items.entry(attempt.lease).or_default() += 1;
            }
        }
        job.open_attempts = open_items.values().map(|open| *open as u64).sum();
        let open: Vec<u64> = job.open.keys().collect();
        for lease in snapshot.leases {
            match open_items.get(&lease.lease) {
                None => drop(fx.batch.leases_closed.insert(lease.lease)),
                Some(open) => self.resume_lease(now, lease, *open),
            }
        }
        for index in open {
            self.evaluate(now, TaskId { job: id, index }, fx);
        }
        self.check_the_rest(id, fx);
        self.note_work(id);
    }
}
