//! The task that owns the coordinator's state.
//!
//! ```text
//!   services ──Event──▶ reactor ──Batch──▶ writer thread ──fsync──▶ disk
//!      ▲                   │  ▲                 │
//!      └──── answers ◀─────┘  └───── done ◀─────┘
//! ```
//!
//! Events are applied one after the other to [`Coordinator`] and [`Tracker`]; neither knows that anything
//! else exists. Their effects gather in a *round*: a batch to persist, and everything that may leave only
//! when that batch is durable: messages to workers, answers to callers (questions included, so that nobody
//! is told of what a power cut could undo), outputs to fetch. One round is at the writer while the next one
//! gathers. A failed commit ends the process: memory is ahead of the disk then, and only a restart is sure.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use talka_core::{
    coordinator::{
        Capacity, Coordinator, Effects, Examined, FetchOutput, Fetched, InviteRow, JobProgress, JobRefusal,
        Refusal, ToWorker,
    },
    ids::{AttemptId, BlobHash, JobId, PeerId, SessionId, TaskId},
    job::{BlobRef, JobState, Submission},
    ledger::Names,
    limits,
    placement::{Admission, InviteId, Origin},
    precedence::Priority,
    quantities::Timestamp,
    swarm::Tracker,
    validation::Agreed,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    inputs::{InputIndices, JobInputs},
    receipts::Signed,
    store::StoreError,
    writer::{Room, Writer},
};

/// What happens to a coordinator.
pub(crate) enum Event {
    /// A worker opened a session.
    Opened(Box<Opened>, oneshot::Sender<Result<SessionId, Refusal>>),
    /// The owner says what becomes of a peer.
    Admit(PeerId, Admission, oneshot::Sender<()>),
    /// The owner makes an invite.
    Invite(InviteId, InviteRow, oneshot::Sender<Result<(), Refusal>>),
    /// A session ended.
    Closed(SessionId),
    /// A worker's capacity changed.
    Capacity(SessionId, Capacity),
    /// A worker takes nothing more and gives back all that it does not keep.
    Leaving(SessionId, Vec<AttemptId>),
    /// A worker gives back what it was asked for and has not begun.
    GivenBack(SessionId, Vec<AttemptId>),
    /// A worker reports. The room that this takes is free again when all of it is durable.
    Reports(SessionId, Vec<Examined>, Option<Signed>, OwnedSemaphorePermit),
    /// A worker says what it is called.
    Named(SessionId, Names),
    /// A worker does not run these jobs.
    Refused(SessionId, Vec<JobId>, JobRefusal),
    /// A worker has room now for the data of these jobs, which it refused.
    HasRoom(SessionId, Vec<JobId>),
    /// What a worker says that it fetched of a job.
    JobFetched(SessionId, JobId, Fetched),
    /// A job with all its blobs in place.
    Submit {
        submission: Box<Submission>,
        /// Where its inputs lie, if they are packed.
        inputs: Option<JobInputs>,
        reply: oneshot::Sender<Result<JobProgress, Refusal>>,
    },
    /// A job is not wanted any more.
    Cancel(JobId, oneshot::Sender<Result<(), Refusal>>),
    /// Somebody changes where a job stands while it runs.
    Steer(JobId, Steering, oneshot::Sender<Result<(), Refusal>>),
    /// An agreed output was fetched.
    OutputFetched { task: TaskId, agreed: Agreed, blob: BlobRef, bad: Vec<u32> },
    /// An agreed output can't be had.
    OutputLost { task: TaskId, bad: Vec<u32> },
    /// A worker wants to know who exchanges pieces of a blob, and may take part itself. `None` if no job needs it.
    Members { asker: PeerId, hash: BlobHash, takes_part: bool, reply: oneshot::Sender<Option<Vec<PeerId>>> },
    /// A question. It must be quick: everybody waits for it.
    Ask(Box<dyn FnOnce(&Coordinator) -> Answered + Send>),
}

/// A worker that opens a session.
pub(crate) struct Opened {
    pub(crate) peer: PeerId,
    pub(crate) origin: Origin,
    pub(crate) capacity: Capacity,
    pub(crate) holding: Vec<AttemptId>,
    pub(crate) outbound: mpsc::Sender<ToWorker>,
}

/// The answer to a question, ready to be sent once the round is durable.
pub(crate) type Answered = Box<dyn FnOnce() + Send>;

/// What people change of a job while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Steering {
    Pause,
    Resume,
    Priority(Priority),
}

/// A job has changed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    pub(crate) job: JobId,
    /// Whether it will never change again.
    pub(crate) ended: bool,
}

/// The reactor has stopped: the coordinator is shutting down.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the coordinator is shutting down")]
pub(crate) struct Stopped;

/// How everybody else talks to the reactor.
#[derive(Clone)]
pub(crate) struct Handle {
    events: mpsc::Sender<Event>,
    changes: broadcast::Sender<Change>,
    /// Room for reports that are not durable yet, in KiB.
    reports: Arc<Semaphore>,
}

impl Handle {
    /// Hands in reports that came as so many bytes, waiting while too many others are not durable yet.
    pub(crate) async fn report(
        &self,
        session: SessionId,
        reports: Vec<Examined>,
        signed: Option<Signed>,
        bytes: usize,
    ) -> Result<(), Stopped> {
        let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).saturating_add(1);
        let room = self.reports.clone().acquire_many_owned(kib).await.map_err(|_| Stopped)?;
        self.send(Event::Reports(session, reports, signed, room)).await
    }

    /// Sends an event, waiting while the reactor is busy.
    pub(crate) async fn send(&self, event: Event) -> Result<(), Stopped> {
        self.events.send(event).await.map_err(|_| Stopped)
    }

    /// Sends the event that `make` builds around a reply channel, and awaits the reply.
    pub(crate) async fn call<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Event) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.send(make(reply)).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// Asks the coordinator something. The answer arrives when all that it tells of is durable.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Coordinator) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        self.call(|reply| {
            Event::Ask(Box::new(move |coordinator| {
                let answer = question(coordinator);
                Box::new(move || drop(reply.send(answer)))
            }))
        })
        .await
    }

    /// Jobs that change from now on, after the change is durable. A slow listener misses some.
    pub(crate) fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }
}

/// What gathers until it is durable.
#[derive(Default)]
struct Round {
    fx: Effects,
    answers: Vec<Answered>,
    /// Room of the reports in it.
    rooms: Vec<OwnedSemaphorePermit>,
}

impl Round {
    fn is_empty(&self) -> bool {
        self.fx.is_empty() && self.fx.changed.is_empty() && self.answers.is_empty()
    }
}

/// The state and its surroundings.
pub(crate) struct Reactor {
    coordinator: Coordinator,
    tracker: Tracker,
    writer: Writer,
    events: mpsc::Receiver<Event>,
    changes: broadcast::Sender<Change>,
    inputs: InputIndices,
    fetches: mpsc::Sender<FetchOutput>,
    /// Outputs for which the fetcher has no room yet: at most one per open task.
    unfetched: VecDeque<FetchOutput>,
    sessions: HashMap<SessionId, (PeerId, mpsc::Sender<ToWorker>)>,
    next_session: SessionId,
    gathering: Round,
    committing: Option<Round>,
    /// For the final tasks of the next round.
    room: Room,
    /// Running jobs whose blobs are tracked.
    tracked: BTreeSet<JobId>,
}

/// Events that are applied before the round is handed on: bounds the time to the next message.
const EVENTS_PER_ROUND: usize = 256;

impl Reactor {
    /// A reactor around a restored coordinator, and the handle to it. `restored` holds what restoring
    /// already led to.
    pub(crate) fn new(
        coordinator: Coordinator,
        restored: Effects,
        writer: Writer,
        inputs: InputIndices,
        fetches: mpsc::Sender<FetchOutput>,
    ) -> (Self, Handle) {
        let (sender, events) = mpsc::channel(limits::REACTOR_QUEUE_MAX);
        let (changes, _) = broadcast::channel(limits::REACTOR_QUEUE_MAX);
        let reports = Arc::new(Semaphore::new(limits::REPORTS_IN_WORK_KIB_MAX));
        let handle = Handle { events: sender, changes: changes.clone(), reports };
        let mut this = Self {
            tracker: Tracker::default(),
            coordinator,
            writer,
            events,
            changes,
            inputs,
            fetches,
            unfetched: VecDeque::new(),
            sessions: HashMap::new(),
            next_session: SessionId::new(1),
            gathering: Round { fx: restored, ..Round::default() },
            committing: None,
            room: Room::default(),
            tracked: BTreeSet::new(),
        };
        for job in this.coordinator.jobs(None, usize::MAX) {
            this.track(job.job);
        }
        (this, handle)
    }

    /// Runs until `shutdown`, then commits what was gathered and ends.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), StoreError> {
        /// How often deadlines are looked at: well below [`limits::RECONNECT_GRACE`].
        const TICK: Duration = Duration::from_millis(200);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut events = Vec::with_capacity(EVENTS_PER_ROUND);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                done = self.writer.done(), if self.committing.is_some() => {
                    self.room = done?;
                    self.release_committed();
                }
                count = self.events.recv_many(&mut events, EVENTS_PER_ROUND) => {
                    if count == 0 {
                        break;
                    }
                    let now = clock::now();
                    for event in events.drain(..) {
                        self.apply(now, event);
                    }
                }
                _ = ticks.tick() => {
                    self.coordinator.on_tick(clock::now(), &mut self.gathering.fx);
                    self.fetch_more();
                }
            }
            self.hand_on()?;
        }
        while self.committing.is_some() || !self.gathering.is_empty() {
            self.hand_on()?;
            if self.committing.is_some() {
                self.room = self.writer.done().await?;
                self.release_committed();
            }
        }
        Ok(())
    }

    fn apply(&mut self, now: Timestamp, event: Event) {
        let fx = &mut self.gathering.fx;
        match event {
            Event::Opened(opened, reply) => {
                let Opened { peer, origin, capacity, holding, outbound } = *opened;
                let session = self.next_session;
                self.next_session = session.next();
                let admitted = self.coordinator.on_origin(now, peer, origin, fx);
                let opened = admitted.and_then(|()| {
                    self.coordinator.on_session_opened(now, session, peer, capacity, &holding, fx)
                });
                let answer = opened.map(|()| session);
                if answer.is_ok() {
                    self.sessions.insert(session, (peer, outbound));
                }
                if let Err(Ok(session)) = reply.send(answer) {
                    self.close(now, session);
                }
            }
            Event::Closed(session) => self.close(now, session),
            Event::Admit(peer, admission, reply) => {
                self.coordinator.on_admission(now, peer, admission, fx);
                let answer = move || {
                    // Whoever asked may be gone.
                    let _ = reply.send(());
                };
                self.gathering.answers.push(Box::new(answer));
            }
            Event::Invite(invite, row, reply) => {
                let answer = self.coordinator.on_invite(now, invite, row, fx);
                self.gathering.answers.push(Box::new(move || drop(reply.send(answer))));
            }
            Event::Capacity(session, capacity) => {
                self.coordinator.on_capacity(now, session, capacity, fx);
            }
            Event::Leaving(session, keeping) => {
                self.coordinator.on_leaving(now, session, &keeping, fx);
            }
            Event::GivenBack(session, attempts) => {
                self.coordinator.on_given_back(now, session, &attempts, fx);
            }
            Event::Named(session, names) => self.coordinator.on_names(now, session, names, fx),
            Event::JobFetched(session, job, fetched) => self.coordinator.on_fetched(session, job, fetched),
            Event::Refused(session, jobs, why) => self.coordinator.on_refused(now, session, &jobs, why, fx),
            Event::HasRoom(session, jobs) => self.coordinator.on_room(now, session, &jobs, fx),
            Event::Reports(session, reports, signed, room) => {
                if let Some(Signed { signature, receipts }) = signed {
                    self.coordinator.on_receipts(session, signature, receipts, fx);
                }
                self.coordinator.on_reports(now, session, reports, fx);
                self.gathering.rooms.push(room);
            }
            Event::Submit { submission, inputs, reply } => {
                let answer = self.coordinator.on_submit(now, *submission, fx);
                if let Ok(job) = answer {
                    self.track(job);
                    // Leases of this job leave after this round, when the index is in its place.
                    if let Some(inputs) = inputs {
                        self.inputs.insert(job, inputs);
                    }
                }
                let answer = answer.and_then(|job| self.coordinator.job(job));
                self.gathering.answers.push(Box::new(move || drop(reply.send(answer))));
            }
            Event::Cancel(job, reply) => {
                let answer = self.coordinator.on_cancel(now, job, fx);
                self.gathering.answers.push(Box::new(move || drop(reply.send(answer))));
            }
            Event::Steer(job, steering, reply) => {
                let answer = match steering {
                    Steering::Pause => self.coordinator.on_pause(now, job, fx),
                    Steering::Resume => self.coordinator.on_resume(now, job, fx),
                    Steering::Priority(priority) => self.coordinator.on_priority(now, job, priority, fx),
                };
                self.gathering.answers.push(Box::new(move || drop(reply.send(answer))));
            }
            Event::OutputFetched { task, agreed, blob, bad } => {
                self.coordinator.on_output_fetched(now, task, agreed, blob, &bad, fx);
            }
            Event::OutputLost { task, bad } => self.coordinator.on_output_lost(now, task, &bad, fx),
            Event::Members { asker, hash, takes_part, reply } => {
                // Keys are free: only who had a session is named to others.
                let takes_part = takes_part && self.coordinator.knows(asker);
                let mut draw = |below: u32| rand::random_range(0..below);
                drop(reply.send(self.tracker.members(now, asker, hash, takes_part, &mut draw)));
            }
            Event::Ask(question) => self.gathering.answers.push(question(&self.coordinator)),
        }
    }

    fn close(&mut self, now: Timestamp, session: SessionId) {
        self.coordinator.on_session_closed(now, session);
        if let Some((peer, _)) = self.sessions.remove(&session) {
            let elsewhere = self.sessions.values().any(|(other, _)| *other == peer);
            if !elsewhere {
                self.tracker.peer_left(peer);
            }
        }
    }

    /// Passes the gathered round to the writer, or on at once if there is nothing to persist.
    fn hand_on(&mut self) -> Result<(), StoreError> {
        if self.committing.is_some() || self.gathering.is_empty() {
            return Ok(());
        }
        let mut round = std::mem::take(&mut self.gathering);
        let batch = std::mem::take(&mut round.fx.batch);
        if batch.is_empty() {
            self.gathering.fx.batch.finals = batch.finals;
            self.release(round);
        } else {
            self.gathering.fx.batch.finals = std::mem::take(&mut self.room);
            self.writer.commit(batch)?;
            self.committing = Some(round);
        }
        Ok(())
    }

    fn release_committed(&mut self) {
        if let Some(round) = self.committing.take() {
            self.release(round);
        }
    }

    /// Lets out what waited for durability.
    fn release(&mut self, round: Round) {
        for (session, message) in round.fx.messages {
            let Some((_, outbound)) = self.sessions.get(&session) else { continue };
            let replaced = message == ToWorker::Replaced;
            // A worker that does not read its messages loses its session, not the coordinator its memory.
            if replaced || outbound.try_send(message).is_err() {
                self.close(clock::now(), session);
            }
        }
        for answer in round.answers {
            answer();
        }
        for job in round.fx.changed {
            let ended = self.untrack_if_ended(job);
            // An error means that nobody listens.
            drop(self.changes.send(Change { job, ended }));
        }
        self.unfetched.extend(round.fx.fetches);
        self.fetch_more();
    }

    fn fetch_more(&mut self) {
        while !self.unfetched.is_empty() {
            let Ok(permit) = self.fetches.try_reserve() else { return };
            if let Some(fetch) = self.unfetched.pop_front() {
                permit.send(fetch);
            }
        }
    }

    fn track(&mut self, id: JobId) {
        let Ok(job) = self.coordinator.job(id) else { return };
        if job.state == JobState::Running && self.tracked.insert(id) {
            for blob in job.submission.spec.blobs() {
                self.tracker.track(blob.hash);
            }
        }
    }

    fn untrack_if_ended(&mut self, id: JobId) -> bool {
        let Ok(job) = self.coordinator.job(id) else { return false };
        let ended = job.state != JobState::Running;
        if ended && self.tracked.remove(&id) {
            for blob in job.submission.spec.blobs() {
                self.tracker.untrack(blob.hash);
            }
        }
        ended
    }
}
