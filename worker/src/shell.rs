//! The task that owns the worker's state: events in, effects out.

mod owner;

pub(crate) use self::owner::Owner;

use std::{collections::HashMap, sync::Arc, time::Duration};

use talka_core::{
    coordinator::{Capacity, Fetched, Report, ReportOutcome},
    ids::{AttemptId, JobId, SlotNo},
    job::JobSpec,
    quantities::{Bytes, Timestamp},
    swarm::Waiting,
    worker::{Assignment, Effects, Fetch, Start, Worker},
};
use talka_proto::{
    convert::attempts,
    wire::{self, worker_message::Message},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    capacity::{self, Machine},
    checkpoints::{Checkpoints, Holder},
    control::Asked,
    fetch::{Fetcher, Unready},
    outputs::{Found, Outputs},
    receipts::Signer,
    sandbox::Control,
    slots::{Batch, Finished, ReadyJob},
};

/// What happens to a worker.
#[derive(Debug)]
pub(crate) enum Event {
    /// A session is about to open: what does the worker offer and hold?
    Opening(oneshot::Sender<(Capacity, Vec<AttemptId>)>),
    /// The session is up.
    Welcome { unknown: Vec<AttemptId>, outbound: mpsc::Sender<wire::WorkerMessage> },
    /// The session ended.
    Disconnected,
    /// What a job is.
    Job(JobId, Arc<JobSpec>),
    /// A job that is not trusted: nothing of it is run.
    Refused(JobId),
    /// Attempts to run.
    Lease(JobId, Vec<Assignment>),
    /// Reports that need not be repeated.
    Settled { attempts: Vec<AttemptId>, released: Vec<AttemptId> },
    /// Attempts that are not wanted any more.
    Cancelled(Vec<AttemptId>),
    /// Attempts that somebody else could begin at once.
    Recalled(Vec<AttemptId>),
    /// A job that has ended.
    Ended(JobId),
    /// A job's blobs are in place, or can't be had.
    Fetched(Fetch, Result<ReadyJob, Unready>),
    /// What came of a job's blobs so far.
    Counted(JobId, Fetched),
    /// The disk does not take what has to be kept.
    DiskFailed(String),
    /// A slot finished an attempt.
    Finished(Finished),
    /// A slot was stopped.
    Stopped(SlotNo),
}

/// Events that wait for the shell, before whoever brings one waits.
pub(crate) const EVENT_QUEUE: usize = 1024;

/// Events that are applied before effects are acted on: results at hand become one message.
const EVENTS_PER_ROUND: usize = 256;

/// See the [module](self).
pub(crate) struct Shell {
    worker: Worker,
    machine: Machine,
    capacity: Capacity,
    told: Option<Capacity>,
    outbound: Option<mpsc::Sender<wire::WorkerMessage>>,
    slots: Vec<SlotHandle>,
    ready: HashMap<JobId, ReadyJob>,
    fetcher: Fetcher,
    outputs: Arc<Outputs>,
    checkpoints: Arc<Checkpoints>,
    signer: Signer,
    events: mpsc::Receiver<Event>,
    owner: Owner,
    /// What the owner asks.
    asked: mpsc::Receiver<Asked>,
    /// What is wrong with the disk: nothing more can be done on it.
    disk_problem: Option<String>,
    /// Jobs for whose data there was no room.
    waiting: Waiting,
    started: Instant,
}

/// What a worker has on its disk.
pub(crate) struct Kept {
    pub(crate) outputs: Arc<Outputs>,
    /// Outputs that were kept before this start.
    pub(crate) found: Vec<Found>,
    /// What outputs may take of it.
    pub(crate) outputs_max: Bytes,
    pub(crate) checkpoints: Arc<Checkpoints>,
    /// Attempts with which it can go on.
    pub(crate) held: Vec<Holder>,
    /// Its key.
    pub(crate) signer: Signer,
}

/// A slot, from the shell's side.
pub(crate) struct SlotHandle {
    pub(crate) batches: mpsc::Sender<Batch>,
    pub(crate) stop: CancellationToken,
    pub(crate) control: Control,
}

impl Shell {
    pub(crate) fn new(
        mut machine: Machine,
        slots: Vec<SlotHandle>,
        fetcher: Fetcher,
        kept: Kept,
        events: mpsc::Receiver<Event>,
        owner: Owner,
        asked: mpsc::Receiver<Asked>,
    ) -> Self {
        let capacity = machine.look(Capacity::default());
        let Kept { outputs, found, outputs_max, checkpoints, held, signer } = kept;
        let mut shell = Self {
            worker: Worker::new(machine.slots()),
            machine,
            capacity,
            told: None,
            outbound: None,
            slots,
            ready: HashMap::new(),
            fetcher,
            outputs,
            checkpoints,
            signer,
            events,
            owner,
            asked,
            disk_problem: None,
            waiting: Waiting::default(),
            started: Instant::now(),
        };
        shell.worker.bound_outputs(outputs_max.get());
        shell.pause_from_the_start();
        for holder in held {
            shell.worker.on_restored(&holder.spec, holder.assignment);
        }
        for found in found {
            shell.worker.on_kept(&found.spec, found.report);
        }
        shell
    }

    /// Runs until `shutdown`; then what runs may finish for a short while, what is finished is reported,
    /// and the rest is given back, but for what has a checkpoint: the next start goes on with that.
    /// Returns what is wrong with the disk, if that is why it ends.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Option<String> {
        /// How often the machine is looked at.
        const LOOK_INTERVAL: Duration = Duration::from_secs(1);
        /// Time for running attempts to end after a stop was asked for.
        const DRAIN_MAX: Duration = Duration::from_secs(5);
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let drain_over = CancellationToken::new();
        let mut draining = false;
        let mut events = Vec::with_capacity(EVENTS_PER_ROUND);
        loop {
            let mut fx = Effects::default();
            tokio::select! {
                count = self.events.recv_many(&mut events, EVENTS_PER_ROUND) => {
                    if count == 0 {
                        return None;
                    }
                    for event in events.drain(..) {
                        self.apply(event, &mut fx);
                    }
                    self.worker.flush(&mut fx);
                }
                Some(asked) = self.asked.recv() => self.obey(asked, &mut fx),
                _ = looks.tick() => {
                    self.look();
                    self.look_at_pause(&mut fx);
                    self.look_for_room();
                    self.worker.on_kept_too_long(&self.outputs.too_old(), &mut fx);
                }
                () = shutdown.cancelled(), if !draining => {
                    draining = true;
                    self.worker.drain();
                    let over = drain_over.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(DRAIN_MAX).await;
                        over.cancel();
                    });
                }
                () = drain_over.cancelled() => break,
            }
            self.act(fx);
            self.tell_capacity();
            if self.disk_problem.is_some() || self.has_finished() || (draining && self.is_drained()) {
                break;
            }
        }
        if let Some(outbound) = &self.outbound {
            let kept = self.worker.unfinished().filter(|attempt| self.checkpoints.has_attempt(*attempt));
            let keeping = attempts(&kept.collect::<Vec<_>>());
            let leaving = wire::WorkerMessage { message: Some(Message::Leaving(wire::Leaving { keeping })) };
            // If it does not get through, the coordinator finds out by itself.
            drop(outbound.try_send(leaving));
        }
        // Where the process goes on, nothing of this life does.
        for slot in &self.slots {
            slot.stop.cancel();
        }
        self.disk_problem
    }

    fn apply(&mut self, event: Event, fx: &mut Effects) {
        match event {
            Event::Opening(reply) => drop(reply.send((self.offer(), self.worker.holding()))),
            Event::Welcome { unknown, outbound } => {
                self.outbound = Some(outbound);
                self.told = None;
                self.waiting.forget_all();
                self.owner.note_session();
                self.worker.on_welcome(&unknown, fx);
            }
            Event::Disconnected => {
                if self.outbound.take().is_some() {
                    self.owner.note_session();
                }
                self.worker.on_disconnected();
            }
            Event::Job(job, spec) => {
                self.waiting.forget(job);
                self.worker.on_job(job, spec, fx);
            }
            Event::Refused(job) => self.refuse(job, false, fx),
            Event::Lease(job, items) => self.worker.on_lease(job, items, fx),
            Event::Settled { attempts, released } => self.worker.on_settled(&attempts, &released, fx),
            Event::Cancelled(attempts) => self.worker.on_cancelled(&attempts, fx),
            Event::Recalled(attempts) => self.worker.on_recalled(&attempts, fx),
            Event::Ended(job) => {
                self.waiting.forget(job);
                self.worker.on_ended(job, fx);
            }
            Event::Counted(job, fetched) => self.send(Message::JobFetched(wire::JobFetched {
                job: job.get(),
                from_coordinator_bytes: fetched.from_coordinator.get(),
                from_peers_bytes: fetched.from_peers.get(),
            })),
            Event::Fetched(fetched, Ok(ready)) => {
                self.ready.insert(fetched.job, ready);
                self.worker.on_fetched(fetched, fx);
            }
            Event::Fetched(fetch, Err(Unready::NoResult(reason))) => {
                self.worker.on_fetch_failed(fetch.job, &ReportOutcome::NoResult(reason), fx);
            }
            Event::Fetched(fetch, Err(Unready::NoRoom(wanted))) => {
                self.waiting.refused(self.now(), fetch.job, wanted);
                self.refuse(fetch.job, true, fx);
            }
            // What is held goes to others, and what was finished is on the disk already.
            Event::Fetched(_, Err(Unready::DiskFailed(problem))) | Event::DiskFailed(problem) => {
                self.disk_problem.get_or_insert(problem);
            }
            Event::Finished(finished) => {
                self.note_speed(&finished);
                self.owner.note_finished(&finished);
                self.worker.on_finished(finished.slot, finished.report, fx);
            }
            Event::Stopped(slot) => self.worker.on_stopped(slot, fx),
        }
    }

    fn act(&mut self, fx: Effects) {
        for fetch in fx.fetch {
            if let Some(spec) = self.worker.spec(fetch.job) {
                self.fetcher.fetch(fetch, spec.clone());
            }
        }
        for start in fx.start {
            self.start(start);
        }
        for slot in fx.stop {
            if let Some(slot) = self.slots.get(slot.get() as usize) {
                slot.stop.cancel();
            }
        }
        for reports in fx.reports {
            self.send_reports(&reports);
        }
        for given in fx.give_back {
            self.send(Message::GivenBack(wire::GivenBack { attempts: attempts(&given) }));
        }
        for attempt in fx.release {
            self.outputs.release(attempt);
        }
        self.checkpoints.forget(&fx.spent);
        for job in fx.forget {
            self.ready.remove(&job);
            self.fetcher.forget(job);
            self.checkpoints.forget_job(job);
        }
    }

    /// Nothing of this job is run here.
    fn refuse(&mut self, job: JobId, no_room: bool, fx: &mut Effects) {
        self.worker.on_ended(job, fx);
        self.send(Message::Refused(wire::Refused { jobs: vec![job.get()], no_room }));
    }

    /// Says for which of the jobs that it had no room for there is some now.
    fn look_for_room(&mut self) {
        if self.outbound.is_none() || !self.worker.takes_work() {
            return;
        }
        let now = self.now();
        let jobs = self.fetcher.fitting(&mut self.waiting, now);
        if !jobs.is_empty() {
            self.send(Message::HasRoom(wire::HasRoom { jobs: jobs.into_iter().map(JobId::get).collect() }));
        }
    }

    /// Time since this worker was started.
    fn now(&self) -> Timestamp {
        Timestamp::default() + self.started.elapsed()
    }

    fn start(&mut self, start: Start) {
        let Some(job) = self.ready.get(&start.job).cloned() else { return };
        let Some(slot) = self.slots.get_mut(start.slot.get() as usize) else { return };
        slot.stop = CancellationToken::new();
        let stop = slot.stop.clone();
        let batch = Batch { job, assignments: start.batch, stop };
        // A slot is started only when it is idle, so there is room; if it died, the lease runs out.
        if slot.batches.try_send(batch).is_err() {
            tracing::error!(slot = start.slot.get(), "a slot does not take work");
        }
    }

    fn send_reports(&mut self, reports: &[Report]) {
        // A job is known for as long as anything of it is held.
        let bundle = |job| Some(self.worker.spec(job)?.bundle.hash);
        let signature = self.signer.sign(reports, bundle).into();
        let reports = reports.iter().map(Into::into).collect();
        let message = Message::Reports(wire::Reports { reports, signature });
        self.send(message);
    }

    fn send(&mut self, message: Message) {
        let Some(outbound) = &self.outbound else { return };
        if outbound.try_send(wire::WorkerMessage { message: Some(message) }).is_err() {
            // The session is stuck or gone: it opens anew, and what was not settled is said again.
            self.outbound = None;
            self.owner.note_session();
            self.worker.on_disconnected();
        }
    }

    /// Measured speed of one slot: a moving mean over what ran.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive rate"
    )]
    fn note_speed(&mut self, finished: &Finished) {
        /// Shorter attempts say more about their start than about the machine.
        const MEANINGFUL_MICROS: u64 = 10_000;
        /// Weight of the newest sample.
        const WEIGHT: f64 = 0.2;
        let micros = finished.report.wall_micros;
        if micros < MEANINGFUL_MICROS || finished.fuel.get() == 0 {
            return;
        }
        let sample = finished.fuel.get() as f64 / (micros as f64 / 1e6);
        let known = self.capacity.fuel_per_sec as f64;
        let mean = if known == 0.0 { sample } else { known + (sample - known) * WEIGHT };
        self.capacity.fuel_per_sec = mean as u64;
    }

    /// Looks at the machine and tells the coordinator what changed enough.
    fn tell_capacity(&mut self) {
        fn count(count: usize) -> u32 {
            u32::try_from(count).unwrap_or(u32::MAX)
        }
        if self.outbound.is_none() {
            return;
        }
        let load = self.worker.load();
        let (from_coordinator, from_peers) = self.fetcher.fetched();
        self.capacity = Capacity {
            queued: count(load.queued),
            fetching: count(load.fetching),
            running: count(load.running),
            fetched_from_coordinator: Bytes::new(from_coordinator),
            fetched_from_peers: Bytes::new(from_peers),
            ..self.capacity
        };
        let rounded = Capacity { fuel_per_sec: rounded(self.capacity.fuel_per_sec), ..self.offer() };
        if capacity::differs(&self.told.unwrap_or_default(), &rounded) {
            self.told = Some(rounded);
            self.send(Message::Capacity(rounded.into()));
        }
    }

    /// What the coordinator is to know of this machine: no slots while no work is welcome.
    fn offer(&self) -> Capacity {
        let slots = if self.worker.takes_work() { self.capacity.slots } else { 0 };
        Capacity { slots, ..self.capacity }
    }

    fn look(&mut self) {
        self.capacity = self.machine.look(self.capacity);
    }
}

/// Two significant digits: a speed that wavers is not news.
fn rounded(speed: u64) -> u64 {
    let scale = 10u64.pow(speed.checked_ilog10().unwrap_or(0).saturating_sub(1));
    speed / scale * scale
}
