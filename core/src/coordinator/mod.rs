//! The coordinator as a state machine.
//!
//! [`Coordinator`] holds every unfinished job in memory: a cursor for the untouched tasks of each, the
//! touched ones with their attempts, the open leases and a wheel of deadlines. One synchronous function
//! per event changes it and writes down the consequences as [`Effects`]; it does nothing itself.
//!
//! # Invariants
//!
//! * A task never has two open or voting attempts of one peer.
//! * A task that is final is in no map: its row in the store is the only truth.
//! * Credit is granted only in the batch that makes its task final.
//! * Everything that a message acknowledges is in the batch that precedes it.
//!
//! [`Coordinator::check_invariants`] checks what can be checked from within; tests and the simulator call
//! it after each event.

mod again;
mod dispatch;
mod effects;
mod explain;
mod invariants;
mod job;
mod reports;
mod restore;
mod task;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

pub use effects::*;
pub use explain::{AttemptView, JobProgress, TaskState, TaskView, WorkerView};
pub use reports::{Report, ReportOutcome, ReportOutput};
pub use restore::{JobSnapshot, Snapshot};

use self::{job::Job, task::AttemptState};
use crate::{
    ids::{AttemptId, JobId, LeaseId, PeerId, PeerNo, SessionId, TaskId},
    job::{JobState, Submission},
    limits,
    quantities::{Bytes, Timestamp},
};

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long a worker that lost its connection keeps its leases.
    pub reconnect_grace: Duration,
    /// Work that a worker is kept supplied with.
    pub prefill: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { reconnect_grace: limits::RECONNECT_GRACE, prefill: limits::PREFILL }
    }
}

/// What a worker offers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Attempts that it runs at the same time.
    pub slots: u32,
    /// Memory of all slots together.
    pub memory: Bytes,
    /// Processors of the machine.
    pub cpus: u32,
    /// How busy the machine is, other programs included, in per cent.
    pub load_percent: u32,
    /// Measured speed of one slot in fuel per second.
    pub fuel_per_sec: u64,
    /// Free memory of the machine.
    pub free_memory: Bytes,
    /// Blob bytes that it fetched from its coordinator.
    pub fetched_from_coordinator: Bytes,
    /// Blob bytes that it fetched from other peers.
    pub fetched_from_peers: Bytes,
    /// Attempts that wait for a slot.
    pub queued: u32,
    /// Attempts that wait for their bundle or input.
    pub fetching: u32,
    /// Attempts in execution.
    pub running: u32,
}

/// Why a request is refused. The text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such job. Not worth a retry.
    #[error("there is no job {0}; `talka job list` shows those there are")]
    UnknownJob(JobId),
    /// Too many jobs run. Try again when one has ended.
    #[error("{0} jobs are unfinished, which is the limit; wait for one to end or cancel one")]
    TooManyJobs(usize),
    /// Too many workers are connected. Try again later.
    #[error("{0} workers are connected, which is the limit; try again later")]
    TooManyWorkers(usize),
}

#[derive(Debug, Default)]
struct Worker {
    session: Option<SessionId>,
    capacity: Capacity,
    leases: BTreeSet<LeaseId>,
    /// Attempts whose lease items are open.
    in_flight: usize,
    /// Jobs that this session was told about.
    told: BTreeSet<JobId>,
    /// Moving mean of the time of one attempt, by job, in microseconds.
    mean_micros: BTreeMap<JobId, f64>,
    last_seen: Timestamp,
}

#[derive(Debug)]
struct Lease {
    row: Arc<LeaseRow>,
    /// Items that are open.
    open: usize,
    /// Whether its time is over.
    expired: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Coordinator {
    config: Config,
    numbers: HashMap<PeerId, PeerNo>,
    names: Vec<PeerId>,
    workers: BTreeMap<PeerNo, Worker>,
    sessions: HashMap<SessionId, PeerNo>,
    jobs: BTreeMap<JobId, Job>,
    requests: HashMap<[u8; 16], JobId>,
    /// Unfinished jobs by submitter, and the attempts that each submitter has in flight.
    submitters: BTreeMap<PeerId, Submitter>,
    leases: BTreeMap<LeaseId, Lease>,
    deadlines: BTreeSet<(Timestamp, LeaseId)>,
    away: BTreeSet<(Timestamp, PeerNo)>,
    next_lease: LeaseId,
    /// Connected workers for which there was not enough work when they were last served, or that have lost
    /// some since.
    hungry: BTreeSet<PeerNo>,
    /// Whether work has arrived that a hungry worker may take.
    work_arrived: bool,
}

#[derive(Debug, Default)]
struct Submitter {
    running: BTreeSet<JobId>,
    open_attempts: u64,
}

impl Coordinator {
    /// A coordinator that owns nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            numbers: HashMap::new(),
            names: Vec::new(),
            workers: BTreeMap::new(),
            sessions: HashMap::new(),
            jobs: BTreeMap::new(),
            requests: HashMap::new(),
            submitters: BTreeMap::new(),
            leases: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            away: BTreeSet::new(),
            next_lease: LeaseId::new(1),
            hungry: BTreeSet::new(),
            work_arrived: false,
        }
    }

    /// A worker opened a session and says which attempts it holds. Those that it should hold and does not
    /// are given to others at once.
    pub fn on_session_opened(
        &mut self,
        now: Timestamp,
        session: SessionId,
        peer: PeerId,
        capacity: Capacity,
        holding: &[AttemptId],
        fx: &mut Effects,
    ) -> Result<(), Refusal> {
        let connected = self.sessions.len();
        let known = self.numbers.get(&peer).and_then(|no| self.workers.get(no));
        if connected >= limits::WORKERS_MAX && known.is_none_or(|worker| worker.session.is_none()) {
            return Err(Refusal::TooManyWorkers(connected));
        }
        let no = self.number(peer, fx);
        let worker = self.workers.entry(no).or_default();
        if let Some(old) = worker.session.replace(session) {
            self.sessions.remove(&old);
            fx.messages.push((old, ToWorker::Replaced));
        }
        self.away.retain(|(_, away)| *away != no);
        self.sessions.insert(session, no);
        let worker = self.workers.entry(no).or_default();
        worker.capacity = capacity;
        worker.told.clear();
        worker.last_seen = now;
        let unknown = self.reconcile(now, no, holding, fx);
        fx.messages.push((session, ToWorker::Welcome { unknown }));
        self.pump(now, no, fx);
        self.feed(now, fx);
        Ok(())
    }

    /// Compares what a worker holds with what it should; returns what it may forget.
    fn reconcile(
        &mut self,
        now: Timestamp,
        no: PeerNo,
        holding: &[AttemptId],
        fx: &mut Effects,
    ) -> Vec<AttemptId> {
        let held: BTreeSet<AttemptId> = holding.iter().copied().collect();
        let leases: Vec<LeaseId> = self.workers[&no].leases.iter().copied().collect();
        for lease in leases {
            let Some(row) = self.leases.get(&lease).map(|lease| lease.row.clone()) else { continue };
            for item in &row.items {
                let attempt =
                    AttemptId { task: TaskId { job: row.job, index: item.index }, number: item.number };
                if !held.contains(&attempt) && self.is_open(attempt, no) {
                    self.set_state(attempt, AttemptState::Gone, fx);
                    self.evaluate(now, attempt.task, fx);
                }
            }
        }
        let known = |attempt: &AttemptId| {
            let task = self.jobs.get(&attempt.task.job).and_then(|job| job.open.get(&attempt.task.index));
            let attempts = task.into_iter().flat_map(|task| &task.attempts);
            attempts.clone().any(|known| {
                known.number == attempt.number
                    && known.peer == no
                    && !matches!(known.state, AttemptState::NoResult(_))
            })
        };
        held.into_iter().filter(|attempt| !known(attempt)).collect()
    }

    /// A worker's connection ended. Its leases stay for a while, in case it comes back.
    pub fn on_session_closed(&mut self, now: Timestamp, session: SessionId) {
        let Some(no) = self.sessions.remove(&session) else { return };
        self.hungry.remove(&no);
        if let Some(worker) = self.workers.get_mut(&no).filter(|worker| worker.session == Some(session)) {
            worker.session = None;
            worker.last_seen = now;
            self.away.insert((now + self.config.reconnect_grace, no));
        }
    }

    /// A worker takes nothing more, because it stops or its owner wants a pause: it gives back what it has not
    /// reported, except for what it still runs. It is asked again when it says that it has slots.
    pub fn on_leaving(
        &mut self,
        now: Timestamp,
        session: SessionId,
        keeping: &[AttemptId],
        fx: &mut Effects,
    ) {
        let Some(no) = self.sessions.get(&session).copied() else { return };
        if let Some(worker) = self.workers.get_mut(&no) {
            worker.capacity.slots = 0;
        }
        self.hungry.remove(&no);
        // What of it is not wanted any more the worker has been told, or is being told.
        self.reconcile(now, no, keeping, fx);
        self.feed(now, fx);
    }

    /// A worker's capacity changed.
    pub fn on_capacity(&mut self, now: Timestamp, session: SessionId, capacity: Capacity, fx: &mut Effects) {
        let Some(no) = self.sessions.get(&session).copied() else { return };
        if let Some(worker) = self.workers.get_mut(&no) {
            worker.capacity = capacity;
            worker.last_seen = now;
        }
        self.pump(now, no, fx);
    }

    /// A submitter's job, valid and with all its blobs in place. The same request gives the same job.
    pub fn on_submit(
        &mut self,
        now: Timestamp,
        submission: Submission,
        fx: &mut Effects,
    ) -> Result<JobId, Refusal> {
        if let Some(job) = self.requests.get(&submission.request) {
            return Ok(*job);
        }
        let running: usize = self.submitters.values().map(|submitter| submitter.running.len()).sum();
        if running >= limits::ACTIVE_JOBS_MAX {
            return Err(Refusal::TooManyJobs(running));
        }
        self.number(submission.submitter, fx);
        let id = self.jobs.keys().next_back().map_or(JobId::new(1), |last| last.next());
        let row = JobRow {
            job: id,
            submission: Arc::new(submission),
            submitted: now,
            state: JobState::Running,
            ended: None,
        };
        fx.batch.jobs.push(row.clone());
        fx.batch.shards.insert(id, ShardRow::default());
        fx.changed.insert(id);
        self.insert_job(row, ShardRow::default());
        self.work_arrived = true;
        self.feed(now, fx);
        Ok(id)
    }

    /// Ends a job. Tasks that are final stay so; the others never will be. Cancelling twice is no error.
    pub fn on_cancel(&mut self, now: Timestamp, id: JobId, fx: &mut Effects) -> Result<(), Refusal> {
        let job = self.jobs.get(&id).ok_or(Refusal::UnknownJob(id))?;
        if job.state != JobState::Running {
            return Ok(());
        }
        let open: Vec<u64> = job.open.keys().copied().collect();
        let mut unwanted = BTreeMap::<PeerNo, Vec<AttemptId>>::new();
        for index in open {
            self.drop_task(TaskId { job: id, index }, &mut unwanted, fx);
        }
        self.send_unwanted(unwanted, fx);
        self.end_job(now, id, JobState::Cancelled, fx);
        self.feed(now, fx);
        Ok(())
    }

    /// Time passes: leases expire, workers that stayed away lose theirs.
    pub fn on_tick(&mut self, now: Timestamp, fx: &mut Effects) {
        while let Some((due, lease)) = self.deadlines.first().copied().filter(|(due, _)| *due <= now) {
            self.deadlines.remove(&(due, lease));
            self.expire_lease(lease, fx);
        }
        while let Some((due, no)) = self.away.first().copied().filter(|(due, _)| *due <= now) {
            self.away.remove(&(due, no));
            let leases: Vec<_> = self.workers.get(&no).map_or(vec![], |w| w.leases.iter().copied().collect());
            for lease in leases {
                self.expire_lease(lease, fx);
            }
        }
        self.relax_blocked();
        self.workers.retain(|_, worker| {
            let gone = worker.session.is_none() && worker.leases.is_empty();
            !gone || now.since(worker.last_seen) < limits::WORKER_FORGOTTEN_AFTER
        });
        self.feed(now, fx);
    }

    fn expire_lease(&mut self, id: LeaseId, fx: &mut Effects) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        if std::mem::replace(&mut lease.expired, true) {
            return;
        }
        let row = lease.row.clone();
        let Some(job) = self.jobs.get_mut(&row.job) else { return };
        for item in &row.items {
            let attempt = job.open.get_mut(&item.index).and_then(|task| task.attempt_mut(item.number));
            if let Some(attempt) = attempt.filter(|attempt| matches!(attempt.state, AttemptState::Leased)) {
                attempt.state = AttemptState::Expired;
                self.work_arrived |= job.requeue(item.index, false);
            }
        }
        fx.changed.insert(row.job);
    }

    /// Lets peers that gave no result try again where nobody else is there. Who is paused, or sits on
    /// attempts whose time is over, is not there.
    fn relax_blocked(&mut self) {
        let expired = |lease: &LeaseId| self.leases.get(lease).is_some_and(|lease| lease.expired);
        let able = self.workers.iter().filter(|(_, worker)| {
            worker.session.is_some() && worker.capacity.slots > 0 && !worker.leases.iter().any(expired)
        });
        let able: Vec<(PeerNo, Bytes)> = able.map(|(no, worker)| (*no, worker.memory_per_slot())).collect();
        let jobs = self.jobs.values_mut().filter(|job| job.state == JobState::Running);
        for job in jobs.filter(|job| job.again.may_relax()) {
            let memory = job.submission.spec.limits.memory;
            let fitting = able.iter().filter(|(_, per_slot)| *per_slot >= memory);
            let able: Vec<PeerNo> = fitting.map(|(no, _)| *no).collect();
            if able.is_empty() {
                continue;
            }
            for entry in job.again.take_blocked(&able) {
                let valid = job.open.get_mut(&entry.index).filter(|task| task.queued == Some(entry.ticket));
                if let Some(task) = valid {
                    task.queued = None;
                    self.work_arrived |= job.requeue(entry.index, true);
                }
            }
        }
    }

    /// The short number of a peer; a new one is part of the batch.
    fn number(&mut self, id: PeerId, fx: &mut Effects) -> PeerNo {
        let next = PeerNo::new(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        *self.numbers.entry(id).or_insert_with(|| {
            self.names.push(id);
            fx.batch.peers.push(PeerRow { no: next, id });
            next
        })
    }

    /// Who a number stands for.
    pub fn peer_id(&self, no: PeerNo) -> Option<PeerId> {
        self.names.get(no.get() as usize).copied()
    }

    fn insert_job(&mut self, row: JobRow, shard: ShardRow) {
        let JobRow { job: id, submission, submitted, state, ended } = row;
        self.requests.insert(submission.request, id);
        if state == JobState::Running {
            self.submitters.entry(submission.submitter).or_default().running.insert(id);
        }
        let job = Job {
            id,
            submission,
            submitted,
            state,
            ended,
            shard,
            open: BTreeMap::new(),
            again: again::Again::default(),
            held_bytes: 0,
            open_attempts: 0,
        };
        self.jobs.insert(id, job);
    }

    fn end_job(&mut self, now: Timestamp, id: JobId, state: JobState, fx: &mut Effects) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.state = state;
        job.ended = Some(now);
        job.again = again::Again::default();
        fx.batch.shards.insert(id, job.shard());
        fx.batch.ended.insert(id, (state, now));
        fx.changed.insert(id);
        if let Some(submitter) = self.submitters.get_mut(&job.submission.submitter) {
            submitter.running.remove(&id);
            if submitter.running.is_empty() {
                let submitter = job.submission.submitter;
                self.submitters.remove(&submitter);
            }
        }
        for worker in self.workers.values_mut() {
            worker.mean_micros.remove(&id);
            if worker.told.remove(&id) {
                fx.send(worker.session, ToWorker::Ended { job: id });
            }
        }
    }

    /// Forgets a task that is final or cancelled, and notes who still works at it.
    fn drop_task(
        &mut self,
        task: TaskId,
        unwanted: &mut BTreeMap<PeerNo, Vec<AttemptId>>,
        fx: &mut Effects,
    ) -> Option<task::Task> {
        let open = self.jobs.get(&task.job)?.open.get(&task.index)?;
        let still: Vec<_> = open
            .attempts
            .iter()
            .filter(|attempt| attempt.state.is_open())
            .map(|attempt| (attempt.peer, AttemptId { task, number: attempt.number }))
            .collect();
        for (peer, attempt) in still {
            self.close_item(attempt, fx);
            unwanted.entry(peer).or_default().push(attempt);
        }
        let job = self.jobs.get_mut(&task.job)?;
        let gone = job.open.remove(&task.index)?;
        job.held_bytes -= gone.held_bytes();
        Some(gone)
    }

    /// Tells workers what is not wanted any more. It leaves them with room for other work, and no report
    /// of theirs will ask for it.
    fn send_unwanted(&mut self, unwanted: BTreeMap<PeerNo, Vec<AttemptId>>, fx: &mut Effects) {
        for (peer, attempts) in unwanted {
            let session = self.workers.get(&peer).and_then(|worker| worker.session);
            if session.is_some() {
                self.work_arrived |= self.hungry.insert(peer);
            }
            fx.send(session, ToWorker::Cancelled { attempts });
        }
    }

    fn is_open(&self, attempt: AttemptId, peer: PeerNo) -> bool {
        let task = self.jobs.get(&attempt.task.job).and_then(|job| job.open.get(&attempt.task.index));
        task.is_some_and(|task| {
            task.attempts
                .iter()
                .any(|known| known.number == attempt.number && known.peer == peer && known.state.is_open())
        })
    }

    /// Moves an attempt to a state; its lease item closes when the new state is not open.
    fn set_state(&mut self, id: AttemptId, state: AttemptState, fx: &mut Effects) {
        let closes = !state.is_open();
        if closes
            && self.jobs.get(&id.task.job).is_some_and(|job| {
                let task = job.open.get(&id.task.index);
                task.is_some_and(|task| {
                    task.attempts.iter().any(|attempt| attempt.number == id.number && attempt.state.is_open())
                })
            })
        {
            self.close_item(id, fx);
        }
        let Some(job) = self.jobs.get_mut(&id.task.job) else { return };
        let Some(task) = job.open.get_mut(&id.task.index) else { return };
        let before = task.held_bytes();
        if let Some(attempt) = task.attempt_mut(id.number) {
            let (peer, given_up) = (attempt.peer, state.is_given_up());
            attempt.state = state;
            if given_up {
                task.note_given_up(peer, id.number);
            }
        }
        job.held_bytes = job.held_bytes - before + task.held_bytes();
    }

    /// Takes an open attempt out of its lease. The attempt's own state is the caller's business.
    fn close_item(&mut self, id: AttemptId, fx: &mut Effects) {
        let Some(job) = self.jobs.get_mut(&id.task.job) else { return };
        let Some(attempt) = job.open.get_mut(&id.task.index).and_then(|task| task.attempt_mut(id.number))
        else {
            return;
        };
        let (peer, lease_id) = (attempt.peer, attempt.lease);
        job.open_attempts -= 1;
        if let Some(submitter) = self.submitters.get_mut(&job.submission.submitter) {
            submitter.open_attempts -= 1;
        }
        let Some(lease) = self.leases.get_mut(&lease_id) else { return };
        lease.open -= 1;
        let empty = lease.open == 0;
        if empty {
            self.deadlines.remove(&(lease.row.deadline, lease_id));
            self.leases.remove(&lease_id);
            fx.batch.close_lease(lease_id);
        }
        if let Some(worker) = self.workers.get_mut(&peer) {
            worker.in_flight -= 1;
            if empty {
                worker.leases.remove(&lease_id);
            }
        }
    }
}
