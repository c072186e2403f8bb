//! Coming back: from what a store holds to a coordinator that goes on where it was.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Config, Coordinator, Lease,
    effects::{Effects, InviteRow, JobRow, LeaseItem, LeaseRow, PeerRow, PendingRow, RecordRow, ShardRow},
    job::Job,
    open::OpenTasks,
    shares::SLOT,
    task::{Attempt, AttemptState, Task},
    trust::Trust,
    unchecked::Word,
};
use crate::{
    ids::{AttemptId, JobId, LeaseId, PeerNo, TaskId},
    job::JobState,
    mutants::{Mutant, is_active},
    placement::InviteId,
    precedence::Weight,
    quantities::Timestamp,
    trust::Policy,
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
        let of_all = snapshot.jobs.iter().map(|job| job.leases.len()).sum();
        let (mut undecided, mut leases) = (Vec::new(), Vec::with_capacity(of_all));
        for job in snapshot.jobs {
            let id = job.row.job;
            if let Some(tasks) = this.restore_job(now, job, &mut leases, fx) {
                undecided.push((id, tasks));
            }
        }
        this.restore_leases(leases);
        for (id, tasks) in undecided {
            for index in tasks {
                this.evaluate(now, TaskId { job: id, index }, fx);
            }
            this.check_the_rest(id, fx);
            this.note_work(id);
        }
        this.reconsider(now, fx);
        let away: Vec<PeerNo> = this.workers.keys().copied().collect();
        for peer in away {
            this.away.insert((now + this.config.reconnect_grace, peer));
        }
        this
    }

    /// A job as it was. Adds its leases to those that are to be taken up again, and returns the tasks about which
    /// something may be to be decided; `None` if it has ended.
    fn restore_job(
        &mut self,
        now: Timestamp,
        snapshot: JobSnapshot,
        leases: &mut Vec<Lease>,
        fx: &mut Effects,
    ) -> Option<Vec<u64>> {
        let JobSnapshot { row, shard, leases: rows, pending, open, provisional } = snapshot;
        let id = row.job;
        let running = row.state == JobState::Running;
        self.insert_job(row, shard);
        if !running {
            return None;
        }
        let job = self.jobs.get_mut(&id)?;
        // Every touched task that is not final is open, whether or not an attempt of it is known.
        let last_number = if is_active(Mutant::ReusesNumbers) { 0 } else { job.shard.numbers };
        job.open = OpenTasks::of(&open, |_| Task { last_number, ..Task::default() });
        drop(open);
        let (policy, mut words) = (job.policy(), BTreeMap::new());
        for (attempt, row) in provisional {
            let ordinal = self.trust.ordinal(policy, attempt.task, attempt.number, last_number);
            let Some((peer, word)) = Word::restored(attempt.number, ordinal, &row) else { continue };
            words.insert(attempt.task.index, peer);
            job.unchecked.entry(peer).or_default().insert(attempt.task.index, word);
            self.trust.note_unchecked(peer, id);
        }
        let mut tasks = Tasks { job, trust: &self.trust, policy, last_number, words };
        let is_unanswered = pending.is_empty();
        for (attempt, row) in pending {
            tasks.add(attempt, row.peer, LeaseId::new(0), row.report.into());
        }
        let open_items = tasks.add_leased(&rows);
        if !is_unanswered {
            job.held_bytes = job.open.values().map(Task::held_bytes).sum();
        }
        job.open_attempts = open_items.iter().map(|open| *open as u64).sum();
        for (row, open) in rows.into_iter().zip(open_items) {
            self.next_lease = self.next_lease.max(row.lease.next());
            if open == 0 {
                fx.batch.leases_closed.insert(row.lease);
            } else {
                leases.push(Lease { row: Arc::new(row), open, expired: false, opened: now, part: SLOT / 2 });
            }
        }
        if !job.open.is_empty() {
            fx.changed.insert(id);
        }
        let job: &Job = job;
        let undecided = job.open.iter().filter(|(_, task)| !Trust::is_under_way(job, task));
        Some(undecided.map(|(index, _)| index).collect())
    }

    /// Takes up the open leases of all jobs again.
    fn restore_leases(&mut self, leases: Vec<Lease>) {
        let mut by_job = BTreeMap::<JobId, (Vec<LeaseId>, u64)>::new();
        for lease in &leases {
            let LeaseRow { lease: id, job, peer, .. } = *lease.row;
            let held = u64::from(lease.part) * lease.open as u64;
            let worker = self.worker_mut(peer);
            worker.in_flight += lease.open;
            *worker.jobs.entry(job).or_default() += lease.open;
            worker.held += held;
            worker.leases.insert(id);
            let (of_job, held_of_job) = by_job.entry(job).or_default();
            of_job.push(id);
            *held_of_job += held;
        }
        for (id, (leases, held)) in by_job {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.leases = leases.into_iter().collect();
                self.shares.hold(job.submission.submitter, held);
            }
        }
        // There may be millions of them, and what is in order already is made a tree at once.
        self.deadlines = leases.iter().map(|lease| (lease.row.deadline, lease.row.lease)).collect();
        self.leases = leases.into_iter().map(|lease| (lease.row.lease, lease)).collect();
    }
}

/// The open tasks of a job, to which their attempts come back.
struct Tasks<'a> {
    job: &'a mut Job,
    trust: &'a Trust,
    policy: Policy,
    /// No attempt has a higher ordinal.
    last_number: u32,
    /// Whose word a final task rests on.
    words: BTreeMap<u64, PeerNo>,
}

impl Tasks<'_> {
    /// Adds an attempt to its task, unless that is final, or has it. Returns how many it had.
    fn add(&mut self, id: AttemptId, peer: PeerNo, lease: LeaseId, state: AttemptState) -> Option<usize> {
        let AttemptId { task: TaskId { index, .. }, number } = id;
        if !self.words.is_empty() {
            self.open_to_check(index);
        }
        let task = self.job.open.get_mut(&index)?;
        let had = task.attempts.len();
        if task.attempt_mut(number).is_some() {
            return None;
        }
        let ordinal = self.trust.ordinal(self.policy, id.task, number, self.last_number);
        task.last_number = task.last_number.max(ordinal);
        task.attempts.push(Attempt { number, ordinal, peer, lease, state });
        Some(had)
    }

    /// A result that rests on one word was being checked if somebody was at its task.
    fn open_to_check(&mut self, index: u64) {
        let Some(peer) = self.words.remove(&index) else { return };
        let word = self.job.unchecked.get(&peer).and_then(|words| words.get(&index));
        if let Some(word) = word {
            self.job.open.insert(index, word.as_task(peer, self.last_number));
            self.job.rechecked += 1;
        }
    }

    /// Adds the attempts of leases that nobody has answered. Returns how many of each lease are open.
    fn add_leased(&mut self, leases: &[LeaseRow]) -> Vec<usize> {
        let mut open_items = Vec::with_capacity(leases.len());
        let mut shared = Vec::new();
        for row in leases {
            let mut open = 0_usize;
            for LeaseItem { index, number } in row.items.iter().copied() {
                let id = AttemptId { task: TaskId { job: row.job, index }, number };
                if let Some(had) = self.add(id, row.peer, row.lease, AttemptState::Leased) {
                    open += 1;
                    shared.extend((had > 0).then_some(index));
                }
            }
            open_items.push(open);
        }
        // A lease that has open attempts keeps those that were given up, and their peer may have another
        // attempt since.
        let mut given_up = BTreeMap::<LeaseId, usize>::new();
        for index in shared {
            let superseded = self.job.open.get_mut(&index).map(Task::drop_superseded);
            for lease in superseded.into_iter().flatten() {
                *given_up.entry(lease).or_default() += 1;
            }
        }
        if !given_up.is_empty() {
            for (row, open) in leases.iter().zip(&mut open_items) {
                *open -= given_up.get(&row.lease).copied().unwrap_or(0);
            }
        }
        open_items
    }
}
