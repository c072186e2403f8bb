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
//! * Credit is granted only in the batch that makes its task final, and taken back only in one that makes it open.
//! * A job ends only when none of its results rests on one worker's word.
//! * Everything that a message acknowledges is in the batch that precedes it.
//!
//! [`Coordinator::check_invariants`] checks what can be checked from within; tests and the simulator call
//! it after each event.

mod admission;
mod again;
mod attempts;
mod clock;
mod dispatch;
mod effects;
mod explain;
mod fit;
mod hungry;
mod invariants;
mod job;
mod lifecycle;
mod open;
mod outputs;
mod placing;
mod quota;
mod rebalance;
mod receipts;
mod reports;
mod restore;
mod shares;
mod steer;
mod stragglers;
mod tables;
mod task;
#[cfg(test)]
mod tests;
mod traffic;
mod trust;
mod unchecked;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

pub use effects::*;
pub use explain::{AttemptView, JobProgress, JobView, TaskState, TaskView, WorkerView};
pub use fit::{PassedOver, PassedOverGroup};
pub use receipts::{Examined, JobRefusal};
pub use reports::{Report, ReportOutcome, ReportOutput};
pub use restore::{JobSnapshot, Snapshot};
pub use tables::{Tables, attempts_of, tasks_of};
pub use traffic::Fetched;

use self::{hungry::Hungry, job::Job, quota::Quota, shares::Shares, task::AttemptState, trust::Trust};
use crate::{
    ids::{AttemptId, JobId, LeaseId, PeerId, PeerNo, SessionId, TaskId},
    job::JobState,
    limits,
    placement::{Admission, Admit, Apart},
    quantities::{Bytes, Timestamp},
    trust::AuditKey,
};

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long a worker that lost its connection keeps its leases.
    pub reconnect_grace: Duration,
    /// Work that a worker is kept supplied with.
    pub prefill: Duration,
    /// How long an agreed output is waited for while nobody who has it can be reached.
    pub output_wait: Duration,
    /// What decides which tasks are checked. No worker may know it, and a restart must not change it.
    pub audit_key: AuditKey,
    /// Who may work.
    pub admit: Admit,
    /// What attempts of one task must not share.
    pub apart: Apart,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            reconnect_grace: limits::RECONNECT_GRACE,
            prefill: limits::PREFILL,
            output_wait: limits::OUTPUT_WAIT_MAX,
            audit_key: AuditKey::new([0; 32]),
            admit: Admit::default(),
            apart: Apart::default(),
        }
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
    /// The job has ended. Not worth a retry.
    #[error("job {0} is {1}: nothing of it can be changed any more")]
    JobEnded(JobId, JobState),
    /// The coordinator's owner does not want this worker. Not worth a retry.
    #[error("this worker is {}: the coordinator's owner does not want its work", .0.name())]
    NotAdmitted(Admission),
    /// The coordinator takes invited workers only. Worth a retry with an invite.
    #[error(
        "this coordinator takes invited workers only: ask its owner for a ticket (talka coordinator ticket --invite)"
    )]
    NotInvited,
    /// The coordinator takes approved workers only. Worth a retry when this one is.
    #[error("this coordinator takes approved workers only: ask its owner for: talka peer approve {0}")]
    NotApproved(PeerId),
    /// Too many invites are open. Try again when some are used up or over.
    #[error("{0} invites are open, which is the limit; wait until some are used up")]
    TooManyInvites(usize),
}

#[derive(Debug, Default)]
struct Worker {
    session: Option<SessionId>,
    capacity: Capacity,
    leases: BTreeSet<LeaseId>,
    /// Attempts whose lease items are open.
    in_flight: usize,
    /// The same by job.
    jobs: BTreeMap<JobId, usize>,
    /// Those among them whose time is over.
    overdue: usize,
    /// Parts of slots that the others hold.
    held: u64,
    /// Attempts that it may hold beside those.
    quota: Quota,
    /// Attempts that it was asked to give back if it has not begun them, and has not answered.
    recalled: BTreeSet<AttemptId>,
    /// Attempts among those that it did not give back: there is no use in asking again.
    begun: BTreeSet<AttemptId>,
    /// Jobs that this session was told about.
    told: BTreeSet<JobId>,
    /// Those that it does not run, and since when.
    refused: BTreeMap<JobId, (JobRefusal, Timestamp)>,
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
    /// When it was handed out, or taken up again after a restart.
    opened: Timestamp,
    /// The part of a slot that each of its attempts holds.
    part: u32,
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
    /// Each submitter has request numbers of its own.
    requests: HashMap<(PeerId, [u8; 16]), JobId>,
    shares: Shares,
    leases: BTreeMap<LeaseId, Lease>,
    deadlines: BTreeSet<(Timestamp, LeaseId)>,
    away: BTreeSet<(Timestamp, PeerNo)>,
    next_lease: LeaseId,
    hungry: Hungry,
    /// Workers with a slot that has nothing to do, since work was looked for elsewhere.
    idle: BTreeSet<PeerNo>,
    /// Workers that have lost work, or may hold more, since they were last served.
    woken: BTreeSet<PeerNo>,
    /// The attempt whose report is being taken: it is in no batch yet.
    judged: Option<AttemptId>,
    /// Jobs with work that has arrived since the hungry workers were last served.
    arrived: BTreeSet<JobId>,
    trust: Trust,
    /// Tasks whose votes are to be judged anew, because one of them was taken back.
    reconsidered: Vec<TaskId>,
    /// Agreed outputs that nobody delivered so far.
    uncollected: BTreeMap<TaskId, outputs::Uncollected>,
}

impl Coordinator {
    /// A coordinator that owns nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            trust: Trust::new(config.audit_key, config.apart),
            config,
            numbers: HashMap::new(),
            names: Vec::new(),
            workers: BTreeMap::new(),
            sessions: HashMap::new(),
            jobs: BTreeMap::new(),
            requests: HashMap::new(),
            shares: Shares::default(),
            leases: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            away: BTreeSet::new(),
            next_lease: LeaseId::new(1),
            hungry: Hungry::default(),
            idle: BTreeSet::new(),
            woken: BTreeSet::new(),
            judged: None,
            arrived: BTreeSet::new(),
            reconsidered: Vec::new(),
            uncollected: BTreeMap::new(),
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
        self.shares.set_now(now);
        let no = self.number(peer, fx);
        let worker = self.worker_mut(no);
        if let Some(old) = worker.session.replace(session) {
            self.sessions.remove(&old);
            fx.messages.push((old, ToWorker::Replaced));
        }
        self.away.retain(|(_, away)| *away != no);
        self.sessions.insert(session, no);
        let worker = self.workers.entry(no).or_default();
        worker.capacity = capacity;
        worker.told.clear();
        worker.refused.clear();
        worker.recalled.clear();
        worker.begun.clear();
        worker.last_seen = now;
        self.note_presence(no);
        let unknown = self.reconcile(now, no, holding, fx);
        self.on_keeper_back(now, no, |attempt| holding.contains(&attempt), fx);
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
        self.hungry.remove(no);
        if let Some(worker) = self.workers.get_mut(&no).filter(|worker| worker.session == Some(session)) {
            worker.session = None;
            worker.recalled.clear();
            worker.last_seen = now;
            self.away.insert((now + self.config.reconnect_grace, no));
        }
        self.note_presence(no);
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
        self.note_presence(no);
        self.hungry.remove(no);
        self.shares.set_now(now);
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
        self.note_presence(no);
        self.shares.set_now(now);
        self.pump(now, no, fx);
    }

    /// A worker, with what is remembered of it if it was forgotten.
    fn worker_mut(&mut self, no: PeerNo) -> &mut Worker {
        let quota = self.trust.quota(no);
        self.workers.entry(no).or_insert_with(|| Worker { quota, ..Worker::default() })
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
            let (peer, ordinal, given_up) = (attempt.peer, attempt.ordinal, state.is_given_up());
            attempt.state = state;
            if given_up {
                task.note_given_up(peer, ordinal);
            }
        }
        job.held_bytes = job.held_bytes - before + task.held_bytes();
    }

    /// Takes an open attempt out of its lease. The attempt's own state is the caller's business.
    fn close_item(&mut self, id: AttemptId, fx: &mut Effects) {
        let Some(job) = self.jobs.get_mut(&id.task.job) else { return };
        let Some(task) = job.open.get(&id.task.index) else { return };
        let Some(attempt) = task.attempts.iter().find(|attempt| attempt.number == id.number) else { return };
        let (peer, lease_id) = (attempt.peer, attempt.lease);
        let overdue = matches!(attempt.state, AttemptState::Expired);
        job.open_attempts -= 1;
        job.duplicates -= u64::from(task.duplicate == Some(id.number));
        let Some(lease) = self.leases.get_mut(&lease_id) else { return };
        lease.open -= 1;
        let empty = lease.open == 0;
        let held = if overdue { 0 } else { u64::from(lease.part) };
        self.shares.let_go(job.submission.submitter, held);
        if empty {
            job.leases.remove(&lease_id);
            self.deadlines.remove(&(lease.row.deadline, lease_id));
            self.leases.remove(&lease_id);
            fx.batch.close_lease(lease_id);
        }
        if let Some(worker) = self.workers.get_mut(&peer) {
            worker.in_flight -= 1;
            worker.overdue -= usize::from(overdue);
            worker.held -= held;
            if let Some(of_this) = worker.jobs.get_mut(&id.task.job) {
                *of_this -= 1;
                if *of_this == 0 {
                    worker.jobs.remove(&id.task.job);
                }
            }
            if empty {
                worker.leases.remove(&lease_id);
            }
        }
    }
}
