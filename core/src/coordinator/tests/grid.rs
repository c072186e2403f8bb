//! A grid without sockets, disks or clocks, driven like a script. After each event the coordinator's
//! invariants are checked, its batch is committed, and only then its messages reach the workers.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use super::store::Store;
use crate::{
    coordinator::{
        Capacity, Config, Coordinator, CreditDelta, Effects, FetchOutput, FinalOutput, FinalRow, Refusal,
        Report, ReportOutcome, ReportOutput, TaskVerdict, TaskView, ToWorker,
    },
    digest::outcome_digest,
    ids::{AttemptId, BlobHash, InputDigest, JobId, OutcomeDigest, PeerId, PeerNo, SessionId, TaskId},
    job::{BlobRef, ErrorRate, JobSpec, JobState, RawJobSpec, Submission, tests::raw},
    limits,
    outcome::{Exit, NoResult, Output},
    precedence::{Priority, Weight},
    quantities::{Bytes, Credit, Fuel, Ppm, Timestamp},
    validation::Agreed,
};

/// What each attempt of these tests burns.
pub(super) const FUEL: Fuel = Fuel::new(1_000);

/// Workers, by their numbers in the scripts.
pub(super) const A: u8 = 1;
pub(super) const B: u8 = 2;
pub(super) const C: u8 = 3;
pub(super) const D: u8 = 4;

pub(super) fn peer(worker: u8) -> PeerId {
    PeerId::new([worker; 32])
}

fn input() -> InputDigest {
    InputDigest::new([7; 32])
}

pub(super) fn blob(answer: &str) -> BlobRef {
    let hash = BlobHash::new(*outcome(answer).as_bytes());
    BlobRef { hash, size: Bytes::mib(1) }
}

fn output(answer: &str, stderr: &str) -> Output {
    Output { stdout: answer.into(), stderr: stderr.into(), ..Output::default() }
}

/// What an attempt digests to that ended well with this answer, but for its fuel.
pub(super) fn outcome(answer: &str) -> OutcomeDigest {
    outcome_digest(BlobHash::new([1; 32]), input(), Exit::Ok, &output(answer, ""))
}

/// What uninterrupted attempts agree on that say so.
pub(super) fn said(answer: &str) -> Agreed {
    Agreed { outcome: outcome(answer), fuel: Some(FUEL) }
}

/// What a worker says of an attempt.
#[derive(Debug, Clone)]
pub(super) enum Says {
    Answer(String),
    Fails(Exit, &'static str),
    Keeps(String),
    NoResult(NoResult),
    /// The same with another count.
    Counts(Box<Says>, u64),
    /// The same after an interruption, with what it counted then.
    Resumed(Box<Says>, u64),
}

impl From<&str> for Says {
    fn from(answer: &str) -> Self {
        Self::Answer(answer.into())
    }
}

/// A result that is too large for a report.
pub(super) fn large(answer: &str) -> Says {
    Says::Keeps(answer.into())
}

/// A result that counted so much.
pub(super) fn counted(says: impl Into<Says>, fuel: u64) -> Says {
    Says::Counts(Box::new(says.into()), fuel)
}

/// A result of an attempt that was interrupted.
pub(super) fn resumed(says: impl Into<Says>, fuel: u64) -> Says {
    Says::Resumed(Box::new(says.into()), fuel)
}

pub(super) fn no_result() -> Says {
    Says::NoResult(NoResult::HostMemory)
}

impl Says {
    pub(super) fn report(self, attempt: AttemptId, wall: Duration) -> Report {
        let execution = |exit, output| {
            let (input, resumed) = (input(), false);
            ReportOutcome::Execution { input, exit, fuel: FUEL, resumed, output }
        };
        let inline = |output| ReportOutput::Inline(Arc::new(output));
        let outcome = match self {
            Self::Answer(answer) => execution(Exit::Ok, inline(output(&answer, "log"))),
            Self::Fails(exit, stderr) => execution(exit, inline(output("", stderr))),
            Self::Keeps(answer) => {
                let (blob, digest) = (blob(&answer), outcome(&answer));
                execution(Exit::Ok, ReportOutput::Remote { blob, digest })
            }
            Self::NoResult(reason) => ReportOutcome::NoResult(reason),
            Self::Counts(says, count) => {
                let mut report = says.report(attempt, wall);
                if let ReportOutcome::Execution { fuel, .. } = &mut report.outcome {
                    *fuel = Fuel::new(count);
                }
                return report;
            }
            Self::Resumed(says, count) => {
                let mut report = Self::Counts(says, count).report(attempt, wall);
                if let ReportOutcome::Execution { resumed, .. } = &mut report.outcome {
                    *resumed = true;
                }
                return report;
            }
        };
        Report { attempt, outcome, wall_micros: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX) }
    }
}

/// A job to submit.
#[derive(Debug, Clone)]
pub(super) struct NewJob {
    raw: RawJobSpec,
    submitter: u8,
    request: Option<u8>,
}

pub(super) fn job(tasks: u64) -> NewJob {
    NewJob { raw: raw(tasks, 1), submitter: 200, request: None }
}

impl NewJob {
    pub(super) fn quorum(mut self, quorum: u32) -> Self {
        self.raw.quorum = quorum;
        self
    }

    /// Accepted by what is known of workers: so many errors and liars in a million.
    pub(super) fn error_rate(mut self, error: u32, liars: u32) -> Self {
        let (error, liars) = (Ppm::new(error), Ppm::new(liars));
        self.raw.error_rate = Some(ErrorRate { error, liars });
        self
    }

    pub(super) fn memory(mut self, memory: Bytes) -> Self {
        self.raw.limits.memory = memory;
        self
    }

    pub(super) fn output(mut self, output: Bytes) -> Self {
        self.raw.limits.output = output;
        self
    }

    pub(super) fn priority(mut self, priority: i64) -> Self {
        self.raw.priority = priority;
        self
    }

    /// Meant for these workers only.
    pub(super) fn on(mut self, workers: &[u8]) -> Self {
        self.raw.on = workers.iter().map(|worker| peer(*worker)).collect();
        self
    }

    pub(super) fn by(mut self, submitter: u8) -> Self {
        self.submitter = submitter;
        self
    }

    pub(super) fn request(mut self, request: u8) -> Self {
        self.request = Some(request);
        self
    }
}

/// The worker's end of the wire: what it was given and has not finished.
#[derive(Debug, Default)]
pub(super) struct Machine {
    pub(super) session: Option<SessionId>,
    pub(super) holds: BTreeSet<AttemptId>,
    /// Attempts whose large outputs it keeps, as far as a script let it connect again.
    keeps: BTreeSet<AttemptId>,
    pub(super) told: BTreeSet<JobId>,
    pub(super) inbox: Vec<ToWorker>,
}

impl Machine {
    pub(super) fn lose_everything(&mut self) {
        self.holds.clear();
        self.keeps.clear();
    }
}

pub(super) struct Grid {
    pub(super) coordinator: Coordinator,
    pub(super) now: Timestamp,
    pub(super) store: Store,
    pub(super) fetches: Vec<FetchOutput>,
    pub(super) machines: BTreeMap<u8, Machine>,
    /// The job that a script speaks of: the one submitted last.
    pub(super) job: JobId,
    round: Effects,
    disk_stalls: bool,
    /// Workers that may not come any more.
    pub(super) expelled: BTreeSet<u8>,
    sessions: BTreeMap<SessionId, u8>,
    next_session: SessionId,
    requests: u8,
    /// Reports that were sent, for the check that none is settled before it is on record, and whether the
    /// worker held the attempt by then.
    reported: BTreeMap<(AttemptId, u8), bool>,
}

impl Default for Grid {
    fn default() -> Self {
        Self {
            coordinator: Coordinator::new(Config::default()),
            now: Timestamp::from_millis(1_800_000_000_000),
            store: Store::default(),
            fetches: vec![],
            machines: BTreeMap::new(),
            job: JobId::new(0),
            round: Effects::default(),
            disk_stalls: false,
            expelled: BTreeSet::new(),
            sessions: BTreeMap::new(),
            next_session: SessionId::new(1),
            requests: 0,
            reported: BTreeMap::new(),
        }
    }
}

impl Grid {
    /// A grid with so many workers of one slot each.
    pub(super) fn with_workers(workers: RangeInclusive<u8>) -> Self {
        let mut grid = Self::default();
        for worker in workers {
            grid.worker(worker).connects(1);
        }
        grid
    }

    /// One event.
    pub(super) fn event<T>(
        &mut self,
        apply: impl FnOnce(&mut Coordinator, Timestamp, &mut Effects) -> T,
    ) -> T {
        let answer = apply(&mut self.coordinator, self.now, &mut self.round);
        self.coordinator.check_invariants();
        if !self.disk_stalls {
            self.commit();
        }
        answer
    }

    fn commit(&mut self) {
        let Effects { batch, messages, fetches, changed } = std::mem::take(&mut self.round);
        for job in batch.shards.keys() {
            assert!(changed.contains(job), "who watches job {job} hears of its progress");
        }
        self.store.commit(&batch);
        self.fetches.extend(fetches);
        for (session, message) in messages {
            self.deliver(session, message);
        }
    }

    fn deliver(&mut self, session: SessionId, message: ToWorker) {
        let Some(worker) = self.sessions.get(&session).copied() else { return };
        let machine = self.machines.get_mut(&worker).expect("a session is a worker's");
        if machine.session != Some(session) {
            // A worker that opened another session does not listen to the one before.
            machine.inbox.extend((message == ToWorker::Replaced).then_some(message));
            return;
        }
        match &message {
            ToWorker::Welcome { unknown } => {
                machine.holds.retain(|attempt| !unknown.contains(attempt));
                machine.keeps.retain(|attempt| !unknown.contains(attempt));
            }
            ToWorker::Job { job, .. } => {
                machine.told.insert(*job);
            }
            ToWorker::Lease(lease) => {
                assert!(machine.told.contains(&lease.job), "a job is introduced before its first lease");
                assert!(lease.items.len() <= limits::LEASE_ITEMS_MAX);
                for item in &lease.items {
                    let task = TaskId { job: lease.job, index: item.index };
                    let new = machine.holds.insert(AttemptId { task, number: item.number });
                    assert!(new, "an attempt is leased once");
                }
            }
            ToWorker::Settled { attempts, released } => {
                for attempt in attempts {
                    let reported = self.reported.get(&(*attempt, worker));
                    let held = *reported.expect("only what was reported is settled");
                    let view = self.coordinator.explain(attempt.task).ok().flatten();
                    let counts = view.is_some_and(|view| {
                        let attempts = view.attempts.iter();
                        attempts.clone().any(|known| {
                            known.number == attempt.number
                                && known.peer == Some(peer(worker))
                                && known.state != "gone"
                        })
                    });
                    assert!(
                        !held || !counts || self.store.has(*attempt),
                        "{attempt} is settled and not on record"
                    );
                    machine.holds.remove(attempt);
                }
                for attempt in released {
                    machine.holds.remove(attempt);
                    machine.keeps.remove(attempt);
                }
            }
            ToWorker::Cancelled { attempts } => {
                machine.holds.retain(|attempt| !attempts.contains(attempt));
            }
            ToWorker::Ended { job } => {
                assert!(machine.told.remove(job), "only jobs that the worker knows end for it");
                machine.holds.retain(|attempt| attempt.task.job != *job);
            }
            ToWorker::Recall { attempts } => {
                assert!(!attempts.is_empty(), "nobody is asked for nothing");
                assert!(attempts.len() <= limits::LEASE_ITEMS_MAX);
            }
            ToWorker::Replaced if self.expelled.contains(&worker) => machine.session = None,
            ToWorker::Replaced => panic!("only a session before the newest one is replaced"),
        }
        machine.inbox.push(message);
    }

    pub(super) fn worker(&mut self, name: u8) -> Worker<'_> {
        self.machines.entry(name).or_default();
        Worker { grid: self, name }
    }

    pub(super) fn submit(&mut self, new: NewJob) -> JobId {
        self.try_submit(new).expect("taken on")
    }

    pub(super) fn try_submit(&mut self, new: NewJob) -> Result<JobId, Refusal> {
        self.requests += 1;
        let spec: JobSpec = new.raw.validate().expect("a valid job");
        let request = [new.request.unwrap_or(self.requests); 16];
        let submission = Submission { request, submitter: peer(new.submitter), spec, signature: None };
        let job = self.event(|coordinator, now, fx| coordinator.on_submit(now, submission, fx))?;
        self.job = job;
        Ok(job)
    }

    pub(super) fn cancel(&mut self, job: JobId) -> Result<(), Refusal> {
        self.event(|coordinator, now, fx| coordinator.on_cancel(now, job, fx))
    }

    pub(super) fn pause(&mut self, job: JobId) -> Result<(), Refusal> {
        self.event(|coordinator, now, fx| coordinator.on_pause(now, job, fx))
    }

    pub(super) fn resume(&mut self, job: JobId) -> Result<(), Refusal> {
        self.event(|coordinator, now, fx| coordinator.on_resume(now, job, fx))
    }

    pub(super) fn prioritize(&mut self, job: JobId, priority: i64) -> Result<(), Refusal> {
        let priority = Priority::new(priority).expect("a priority");
        self.event(|coordinator, now, fx| coordinator.on_priority(now, job, priority, fx))
    }

    pub(super) fn weigh(&mut self, submitter: u8, weight: u64) {
        let weight = Weight::new(weight).expect("a weight");
        self.event(|coordinator, now, fx| coordinator.set_weight(now, peer(submitter), weight, fx));
    }

    /// Time passes, and the coordinator notices.
    pub(super) fn passes(&mut self, span: Duration) {
        self.now = self.now + span;
        self.event(Coordinator::on_tick);
    }

    /// The disk takes its time from here on: nothing is durable and no message leaves.
    pub(super) fn disk_stalls(&mut self) {
        self.disk_stalls = true;
    }

    /// The disk has caught up.
    pub(super) fn disk_recovers(&mut self) {
        self.disk_stalls = false;
        self.commit();
    }

    /// The coordinator is killed and comes back with what is on disk. All sessions break.
    pub(super) fn coordinator_restarts(&mut self) {
        self.round = Effects::default();
        self.fetches.clear();
        self.disk_stalls = false;
        self.sessions.clear();
        for machine in self.machines.values_mut() {
            machine.session = None;
        }
        let snapshot = self.store.snapshot();
        let config = Config::default();
        self.coordinator = Coordinator::restore(config, self.now, snapshot, &mut self.round);
        self.coordinator.check_invariants();
        self.commit();
    }

    /// The output of a task that was agreed on arrives; `bad` attempts did not deliver it.
    pub(super) fn output_arrives(&mut self, index: u64, answer: &str, bad: &[u32]) {
        let task = self.task(index);
        let waiting = self.fetches.iter().find(|fetch| fetch.task == task).map(|fetch| fetch.agreed);
        self.fetches.retain(|fetch| fetch.task != task);
        let agreed = waiting.filter(|agreed| agreed.outcome == outcome(answer)).unwrap_or(said(answer));
        let blob = blob(answer);
        self.event(|coordinator, now, fx| coordinator.on_output_fetched(now, task, agreed, blob, bad, fx));
    }

    /// None of the `bad` attempts delivered the output of a task.
    pub(super) fn output_is_lost(&mut self, index: u64, bad: &[u32]) {
        let task = self.task(index);
        self.fetches.retain(|fetch| fetch.task != task);
        self.event(|coordinator, now, fx| coordinator.on_output_lost(now, task, bad, fx));
    }

    pub(super) fn task(&self, index: u64) -> TaskId {
        TaskId { job: self.job, index }
    }

    pub(super) fn attempt(&self, index: u64, number: u32) -> AttemptId {
        AttemptId { task: self.task(index), number }
    }

    pub(super) fn explain(&self, index: u64) -> TaskView {
        self.coordinator.explain(self.task(index)).expect("a job").expect("a task of it")
    }

    pub(super) fn state(&self) -> JobState {
        self.coordinator.job(self.job).expect("a job").state
    }

    pub(super) fn result(&self, index: u64) -> &FinalRow {
        self.store.finals.get(&self.task(index)).unwrap_or_else(|| panic!("task {index} is not final"))
    }

    fn no(&self, worker: u8) -> PeerNo {
        *self.store.peers.iter().find(|(_, id)| **id == peer(worker)).expect("a known peer").0
    }

    pub(super) fn credit(&self, worker: u8) -> CreditDelta {
        self.store.credit.get(&self.no(worker)).copied().unwrap_or_default()
    }

    /// The task is done with this answer, and these workers, nobody else, got its fuel.
    pub(super) fn expect_done(&self, index: u64, answer: &str, agreed: &[u8]) {
        let row = self.result(index);
        let digest = said(answer).digest();
        assert_eq!(row.verdict, TaskVerdict::Agreed { digest, exit: Exit::Ok, fuel: FUEL }, "task {index}");
        match &row.output {
            FinalOutput::Inline(output) => assert_eq!(output.stdout, answer.as_bytes(), "task {index}"),
            FinalOutput::Blob(got) => assert_eq!(*got, blob(answer), "task {index}"),
            FinalOutput::Nothing => panic!("task {index} has no output"),
        }
        self.expect_grants(index, agreed);
    }

    /// These workers, nobody else, got the task's fuel.
    pub(super) fn expect_grants(&self, index: u64, agreed: &[u8]) {
        let credited = |credit: Credit| credit != Credit::ZERO;
        let row = self.result(index);
        let got: BTreeSet<PeerNo> =
            row.grants.iter().filter(|grant| credited(grant.credit)).map(|grant| grant.peer).collect();
        assert_eq!(got, agreed.iter().map(|worker| self.no(*worker)).collect(), "task {index}: credit");
        for grant in &row.grants {
            let expected = if grant.agreed { FUEL.credit() } else { Credit::ZERO };
            assert_eq!(grant.credit, expected, "task {index}: credit is the fuel of those who agreed");
        }
    }

    pub(super) fn expect_open(&self, index: u64) {
        assert!(!self.store.finals.contains_key(&self.task(index)), "task {index} is final");
    }

    pub(super) fn expect_failed(&self, index: u64, reason: &str) {
        let row = self.result(index);
        assert!(!row.verdict.is_done(), "task {index} is done");
        assert_eq!(row.verdict.reason(), reason, "task {index}");
    }
}

/// A worker in a script.
pub(super) struct Worker<'a> {
    grid: &'a mut Grid,
    name: u8,
}

impl Worker<'_> {
    fn machine(&mut self) -> &mut Machine {
        self.grid.machines.get_mut(&self.name).expect("there since it was named")
    }

    pub(super) fn connects(self, slots: u32) -> Self {
        self.connects_with(slots, Bytes::mib(16 << 10))
    }

    /// Opens a session with that much memory in all. A session that is open already is left behind.
    pub(super) fn connects_with(self, slots: u32, memory: Bytes) -> Self {
        let capacity = Capacity { slots, memory, ..Capacity::default() };
        self.try_connects(capacity).expect("welcome")
    }

    pub(super) fn try_connects(mut self, capacity: Capacity) -> Result<Self, Refusal> {
        let session = self.grid.next_session;
        self.grid.next_session = session.next();
        let (name, id) = (self.name, peer(self.name));
        let machine = self.machine();
        machine.session = Some(session);
        machine.told.clear();
        let holding: Vec<_> = machine.holds.union(&machine.keeps).copied().collect();
        self.grid.sessions.insert(session, name);
        self.grid.event(|coordinator, now, fx| {
            coordinator.on_session_opened(now, session, id, capacity, &holding, fx)
        })?;
        Ok(self)
    }

    pub(super) fn offers(mut self, slots: u32, memory: Bytes) -> Self {
        let session = self.session();
        let capacity = Capacity { slots, memory, ..Capacity::default() };
        self.grid.event(|coordinator, now, fx| coordinator.on_capacity(now, session, capacity, fx));
        self
    }

    /// Its connection ends; it goes on working.
    pub(super) fn disconnects(mut self) -> Self {
        let session = self.machine().session.take().expect("a session");
        self.grid.sessions.remove(&session);
        self.grid.event(|coordinator, now, _| coordinator.on_session_closed(now, session));
        self
    }

    /// It is killed: everything that it held is gone.
    pub(super) fn dies(mut self) -> Self {
        self.machine().holds.clear();
        self.machine().keeps.clear();
        self.disconnects()
    }

    /// It says goodbye.
    pub(super) fn leaves(mut self) -> Self {
        let session = self.session();
        self.grid.event(|coordinator, now, fx| coordinator.on_leaving(now, session, &[], fx));
        self.dies()
    }

    /// Its owner wants a pause: it keeps what it runs and gives back the rest.
    pub(super) fn pauses(mut self, running: &[u64]) -> Self {
        let keeping: Vec<AttemptId> = running.iter().map(|index| self.attempt(*index)).collect();
        self.machine().holds.retain(|attempt| keeping.contains(attempt));
        let session = self.session();
        self.grid.event(|coordinator, now, fx| coordinator.on_leaving(now, session, &keeping, fx));
        self
    }

    pub(super) fn is_connected(&mut self) -> bool {
        self.machine().session.is_some()
    }

    pub(super) fn session(&mut self) -> SessionId {
        self.machine().session.expect("a session")
    }

    /// Positions of the tasks of the current job that it holds.
    pub(super) fn holds(&mut self) -> Vec<u64> {
        let job = self.grid.job;
        let held = self.machine().holds.iter().filter(|attempt| attempt.task.job == job);
        held.map(|attempt| attempt.task.index).collect()
    }

    /// The attempt at a task of the current job that it holds.
    pub(super) fn attempt(&mut self, index: u64) -> AttemptId {
        let (task, name) = (self.grid.task(index), self.name);
        let held = self.machine().holds.iter().rfind(|attempt| attempt.task == task).copied();
        held.unwrap_or_else(|| panic!("worker {name} does not hold task {index}"))
    }

    pub(super) fn reports(mut self, index: u64, says: impl Into<Says>) -> Self {
        let attempt = self.attempt(index);
        self.reports_attempt(attempt, says, Duration::from_millis(1))
    }

    pub(super) fn reports_attempt(self, attempt: AttemptId, says: impl Into<Says>, wall: Duration) -> Self {
        let report = says.into().report(attempt, wall);
        self.sends(vec![report])
    }

    pub(super) fn sends(mut self, reports: Vec<Report>) -> Self {
        let session = self.session();
        for report in &reports {
            let held = self.machine().holds.contains(&report.attempt);
            *self.grid.reported.entry((report.attempt, self.name)).or_default() |= held;
            if report.is_remote() {
                self.machine().keeps.insert(report.attempt);
            }
        }
        self.grid.event(|coordinator, now, fx| coordinator.on_reports(now, session, reports, fx));
        self
    }

    /// Finishes everything of the current job that it holds now, in one message.
    pub(super) fn finishes_all(mut self, wall: Duration) -> Self {
        let held: Vec<u64> = self.holds();
        let reports = held
            .iter()
            .map(|index| Says::from(index.to_string().as_str()).report(self.attempt(*index), wall));
        let reports = reports.collect();
        self.sends(reports)
    }

    /// Finishes everything of the current job that it holds, at that time each, until it gets nothing more.
    pub(super) fn works_off(mut self, wall: Duration) -> Self {
        while let Some(index) = self.holds().first().copied() {
            let attempt = self.attempt(index);
            self = self.reports_attempt(attempt, index.to_string().as_str(), wall);
        }
        self
    }

    /// What it is asked to give back, and has not been asked for before by this script.
    pub(super) fn is_asked_for(&mut self) -> Vec<AttemptId> {
        let recalls =
            self.machine().inbox.extract_if(.., |message| matches!(message, ToWorker::Recall { .. }));
        let attempts = recalls.flat_map(|message| match message {
            ToWorker::Recall { attempts } => attempts,
            _ => vec![],
        });
        attempts.collect()
    }

    /// Says that it has not begun these, and forgets them.
    pub(super) fn gives_back(mut self, attempts: &[AttemptId]) -> Self {
        let session = self.session();
        self.machine().holds.retain(|attempt| !attempts.contains(attempt));
        self.grid.event(|coordinator, now, fx| coordinator.on_given_back(now, session, attempts, fx));
        self
    }

    /// What it was told since the last call.
    pub(super) fn hears(&mut self) -> Vec<ToWorker> {
        std::mem::take(&mut self.machine().inbox)
    }

    /// Whether it was told that a result is settled.
    pub(super) fn is_settled(&mut self, attempt: AttemptId) -> bool {
        self.machine().inbox.iter().any(
            |message| matches!(message, ToWorker::Settled { attempts, .. } if attempts.contains(&attempt)),
        )
    }
}
