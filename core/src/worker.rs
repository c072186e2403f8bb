//! What a worker runs next, and what it still owes its coordinator.
//!
//! [`Worker`] holds the attempts of one coordinator from lease to settlement: queued, in a slot, reported,
//! and (with a large output) kept until nobody needs it. Attempts of a job start when the job's blobs are
//! there. Short attempts are handed to a slot in batches, so that a pipe carries many of them at a time.
//! A report is repeated on each new session until it is settled, so a lost connection loses nothing.

mod job;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::{Range, RangeInclusive},
    sync::Arc,
};

use self::job::{Blobs, Job, Queued};
use crate::{
    coordinator::{Report, ReportOutcome, ReportOutput},
    ids::{AttemptId, JobId, SlotNo, TaskId},
    job::JobSpec,
    limits,
    mutants::{Mutant, is_active},
    outcome::NoResult,
};

/// An attempt and the bytes of the packed inputs that it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Its input within the packed inputs; empty for an array.
    pub input: Range<u64>,
    /// The input itself, if it came along.
    pub inline: Option<Arc<[u8]>>,
}

impl Assignment {
    fn inline_bytes(&self) -> u64 {
        self.inline.as_ref().map_or(0, |bytes| bytes.len() as u64)
    }
}

/// What a job needs before its attempts can start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fetch {
    /// Which job.
    pub job: JobId,
    /// Whether its packed inputs are needed, because not all of them came along.
    pub inputs: bool,
}

/// What the shell has to do.
#[derive(Debug, Default)]
pub struct Effects {
    /// Jobs whose blobs are needed.
    pub fetch: Vec<Fetch>,
    /// Slots to start.
    pub start: Vec<Start>,
    /// Slots whose running attempt is not wanted any more: stop it. The rest of its batch comes again.
    pub stop: Vec<SlotNo>,
    /// Messages of reports.
    pub reports: Vec<Vec<Report>>,
    /// Answers to the question what was not begun: attempts that are held no longer.
    pub give_back: Vec<Vec<AttemptId>>,
    /// Attempts whose kept outputs may go.
    pub release: Vec<AttemptId>,
    /// Attempts with which nobody will go on: their checkpoints may go.
    pub spent: Vec<AttemptId>,
    /// Jobs that have ended for this worker: their blobs are no longer pinned. To be done last: what starts may be of one
    /// of them, and is stopped.
    pub forget: Vec<JobId>,
}

/// A batch for a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Which slot.
    pub slot: SlotNo,
    /// All attempts are of this job.
    pub job: JobId,
    /// In the order in which they run.
    pub batch: Vec<Assignment>,
}

/// How many attempts are where.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Ready to run, waiting for a slot.
    pub queued: usize,
    /// Waiting for their job's blobs.
    pub fetching: usize,
    /// In a slot.
    pub running: usize,
    /// Finished, not settled.
    pub unsettled: usize,
}

#[derive(Debug, Default)]
struct Slot {
    job: Option<JobId>,
    /// Unfinished attempts of the batch; the first one runs.
    batch: VecDeque<Assignment>,
}

#[derive(Debug)]
enum Phase {
    Queued,
    Running,
    /// Running, but the result will be thrown away.
    Unwanted,
    Reported(Report),
    /// Settled; its output, of so many bytes, has to be kept.
    Kept(u64),
}

/// See the [module](self).
#[derive(Debug)]
pub struct Worker {
    jobs: BTreeMap<JobId, Job>,
    slots: Vec<Slot>,
    attempts: BTreeMap<AttemptId, Phase>,
    /// Reports that were not sent on this session.
    outbox: VecDeque<AttemptId>,
    connected: bool,
    /// Messages of reports that are not answered.
    unanswered: usize,
    unsettled: usize,
    /// Bytes of large outputs that are held until nobody needs them.
    kept_bytes: u64,
    /// From which on nothing new is started.
    kept_bytes_max: u64,
    /// Leases that came.
    arrivals: u64,
    /// Whether no new attempts are started, for good.
    draining: bool,
    /// The same, until the owner says otherwise.
    paused: bool,
}

/// What a slot is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// The attempt that runs.
    pub attempt: AttemptId,
    /// Attempts of its batch that wait behind it.
    pub behind: usize,
}

impl Worker {
    /// A worker with so many slots.
    pub fn new(slots: u32) -> Self {
        Self {
            jobs: BTreeMap::new(),
            slots: (0..slots).map(|_| Slot::default()).collect(),
            attempts: BTreeMap::new(),
            outbox: VecDeque::new(),
            connected: false,
            unanswered: 0,
            unsettled: 0,
            kept_bytes: 0,
            kept_bytes_max: limits::OUTPUTS_KEPT_BYTES_MAX,
            arrivals: 0,
            draining: false,
            paused: false,
        }
    }

    /// Large outputs may take so many bytes; the bound of all workers holds as well.
    pub fn bound_outputs(&mut self, bytes_max: u64) {
        self.kept_bytes_max = bytes_max.min(limits::OUTPUTS_KEPT_BYTES_MAX);
    }

    /// What the worker holds, to be said when a session opens.
    pub fn holding(&self) -> Vec<AttemptId> {
        let wanted = self.attempts.iter().filter(|(_, phase)| !matches!(phase, Phase::Unwanted));
        wanted.map(|(attempt, _)| *attempt).collect()
    }

    /// An attempt that this worker held before it was started again, and with which it can go on. To be called
    /// before the first session opens: it is held like any other, and starts when the coordinator still wants it.
    pub fn on_restored(&mut self, spec: &Arc<JobSpec>, assignment: Assignment) {
        let (attempt, id) = (assignment.attempt, assignment.attempt.task.job);
        if self.attempts.contains_key(&attempt) || self.attempts.len() >= limits::WORKER_HELD_MAX {
            return;
        }
        self.introduce(id, spec.clone());
        if let Some(job) = self.jobs.get_mut(&id) {
            self.attempts.insert(attempt, Phase::Queued);
            job.queue.push_back(Queued { arrival: 0, assignment });
        }
    }

    /// An attempt that this worker finished before it was started again, and whose large output it still has. To be
    /// called before the first session opens: it is reported as if it had never been.
    pub fn on_kept(&mut self, spec: &Arc<JobSpec>, report: Report) {
        let attempt = report.attempt;
        if self.attempts.contains_key(&attempt) || self.attempts.len() >= limits::WORKER_HELD_MAX {
            return;
        }
        self.introduce(attempt.task.job, spec.clone());
        self.finish(report);
    }

    /// Attempts whose outputs were kept for as long as anybody may ask of a volunteer.
    pub fn on_kept_too_long(&mut self, attempts: &[AttemptId], fx: &mut Effects) {
        for id in attempts {
            if matches!(self.attempts.get(id), Some(Phase::Kept(_) | Phase::Reported(_))) {
                self.on_cancelled(&[*id], fx);
            }
        }
    }

    /// Attempts that run or wait to: what there is to go on with after a restart.
    pub fn unfinished(&self) -> impl Iterator<Item = AttemptId> {
        let unfinished =
            self.attempts.iter().filter(|(_, phase)| matches!(phase, Phase::Queued | Phase::Running));
        unfinished.map(|(attempt, _)| *attempt)
    }

    /// A session is up. `unknown` attempts need not be held any longer; every report is sent again.
    pub fn on_welcome(&mut self, unknown: &[AttemptId], fx: &mut Effects) {
        self.connected = true;
        self.unanswered = 0;
        self.on_cancelled(unknown, fx);
        let idle: Vec<JobId> = self.jobs.keys().copied().filter(|id| !self.holds(*id)).collect();
        for id in idle {
            // Every job is introduced again on a new session, before its first lease.
            self.on_ended(id, fx);
        }
        for (id, job) in &mut self.jobs {
            fx.fetch.extend(job.request_blobs(*id));
        }
        let reported = |(id, phase): (&AttemptId, &Phase)| matches!(phase, Phase::Reported(_)).then_some(*id);
        if !is_active(Mutant::ReportsOnce) {
            self.outbox = self.attempts.iter().filter_map(reported).collect();
        }
        self.flush(fx);
    }

    /// The session ended. Work goes on.
    pub fn on_disconnected(&mut self) {
        self.connected = false;
    }

    /// What a job is. It may come again on a later session, and in the same breath as the word that it had ended: then
    /// there is nothing to forget.
    pub fn on_job(&mut self, id: JobId, spec: Arc<JobSpec>, fx: &mut Effects) {
        fx.forget.retain(|forgotten| *forgotten != id || is_active(Mutant::ForgetsAnew));
        self.introduce(id, spec);
    }

    fn introduce(&mut self, id: JobId, spec: Arc<JobSpec>) {
        self.jobs.entry(id).or_insert_with(|| Job::new(spec));
    }

    /// The spec of a job that this worker was told about.
    pub fn spec(&self, id: JobId) -> Option<&Arc<JobSpec>> {
        self.jobs.get(&id).map(|job| &job.spec)
    }

    /// New attempts. Those that are held already, those of unknown jobs and those beyond the bound are
    /// ignored: the coordinator gives them to others when their lease ends. So is all that crosses the word that
    /// this worker takes nothing more: the coordinator knows that it is not kept.
    pub fn on_lease(&mut self, id: JobId, items: Vec<Assignment>, fx: &mut Effects) {
        if self.draining || self.paused {
            return;
        }
        let queued = self.jobs.values().flat_map(|job| &job.queue);
        let mut inline_bytes: u64 = queued.map(|queued| queued.assignment.inline_bytes()).sum();
        let Some(job) = self.jobs.get_mut(&id) else { return };
        self.arrivals += 1;
        for mut assignment in items {
            inline_bytes += assignment.inline_bytes();
            if inline_bytes > limits::INLINE_INPUTS_HELD_BYTES_MAX {
                inline_bytes -= assignment.inline_bytes();
                assignment.inline = None;
            }
            let room = self.attempts.len() < limits::WORKER_HELD_MAX + limits::WORKER_IN_FLIGHT_MAX;
            if room && assignment.attempt.task.job == id && !self.attempts.contains_key(&assignment.attempt) {
                self.attempts.insert(assignment.attempt, Phase::Queued);
                job.queue.push_back(Queued { arrival: self.arrivals, assignment });
            }
        }
        fx.fetch.extend(job.request_blobs(id));
        self.start_slots(fx);
    }

    /// The blobs of a job are in place, those of its packed inputs only if they were asked for.
    pub fn on_fetched(&mut self, fetched: Fetch, fx: &mut Effects) {
        if let Some(job) = self.jobs.get_mut(&fetched.job) {
            job.note_fetched(fetched);
        }
        self.start_slots(fx);
    }

    /// The blobs of a job can't be had, or its bundle can't be run here: every attempt of it that waits
    /// ends with `outcome`. The next lease tries again.
    pub fn on_fetch_failed(&mut self, id: JobId, outcome: &ReportOutcome, fx: &mut Effects) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.blobs = Blobs::Unrequested;
        for queued in std::mem::take(&mut job.queue) {
            let attempt = queued.assignment.attempt;
            self.finish(Report { attempt, outcome: outcome.clone(), wall_micros: 0 });
        }
        self.flush(fx);
    }

    /// The first unfinished attempt of a slot's batch ended. Call [`Worker::flush`] when no more
    /// results are at hand. A result of a batch that was stopped in the same moment is ignored: its attempts
    /// are queued again.
    pub fn on_finished(&mut self, slot: SlotNo, report: Report, fx: &mut Effects) {
        let Some(state) = self.slots.get_mut(slot.get() as usize) else { return };
        if state.batch.front().is_none_or(|assignment| assignment.attempt != report.attempt) {
            if !self.attempts.contains_key(&report.attempt) {
                fx.release.push(report.attempt);
            }
            return;
        }
        state.batch.pop_front();
        let job = state.job;
        if state.batch.is_empty() {
            state.job = None;
        }
        if let Some(job) = job.and_then(|job| self.jobs.get_mut(&job)) {
            job.note_time(report.wall_micros);
        }
        match self.attempts.get(&report.attempt) {
            Some(Phase::Running) => self.finish(report),
            Some(Phase::Unwanted) | None => {
                self.attempts.remove(&report.attempt);
                fx.release.push(report.attempt);
                fx.spent.push(report.attempt);
            }
            Some(Phase::Queued | Phase::Reported(_) | Phase::Kept(_)) => {}
        }
        self.start_slots(fx);
    }

    /// A slot was stopped, as asked for. What was left of its batch is queued again.
    pub fn on_stopped(&mut self, slot: SlotNo, fx: &mut Effects) {
        let Some(state) = self.slots.get_mut(slot.get() as usize) else { return };
        state.job = None;
        for assignment in std::mem::take(&mut state.batch).into_iter().rev() {
            if let Some(phase @ Phase::Running) = self.attempts.get_mut(&assignment.attempt) {
                *phase = Phase::Queued;
                if let Some(job) = self.jobs.get_mut(&assignment.attempt.task.job) {
                    job.queue.push_front(Queued { arrival: 0, assignment });
                }
            } else {
                self.attempts.remove(&assignment.attempt);
                fx.spent.push(assignment.attempt);
            }
        }
        self.start_slots(fx);
    }

    /// Reports that need not be repeated, and outputs that need not be kept.
    pub fn on_settled(&mut self, settled: &[AttemptId], released: &[AttemptId], fx: &mut Effects) {
        if !settled.is_empty() {
            self.unanswered = self.unanswered.saturating_sub(1);
        }
        for id in settled {
            let Some(phase) = self.attempts.get_mut(id) else { continue };
            if let Phase::Reported(report) = &*phase {
                let remote = report.is_remote().then(|| report.remote_bytes());
                if !report.may_go_on() {
                    fx.spent.push(*id);
                }
                self.unsettled -= 1;
                if let Some(bytes) = remote {
                    *phase = Phase::Kept(bytes);
                } else {
                    self.attempts.remove(id);
                }
            }
        }
        for id in released {
            // A task may become final by the very report that is settled by the next message.
            if let Some(phase @ (Phase::Kept(_) | Phase::Reported(_))) = self.attempts.get(id) {
                self.kept_bytes -= phase.kept_bytes();
                self.unsettled -= usize::from(matches!(phase, Phase::Reported(_)));
                self.attempts.remove(id);
                fx.release.push(*id);
            }
        }
        self.start_slots(fx);
        self.flush(fx);
    }

    /// Attempts that are not wanted any more, whatever their phase.
    pub fn on_cancelled(&mut self, attempts: &[AttemptId], fx: &mut Effects) {
        let unwanted: BTreeSet<AttemptId> = attempts.iter().copied().collect();
        let jobs: BTreeSet<JobId> = unwanted.iter().map(|attempt| attempt.task.job).collect();
        for job in jobs {
            if let Some(job) = self.jobs.get_mut(&job) {
                job.queue.retain(|queued| !unwanted.contains(&queued.assignment.attempt));
            }
        }
        for id in &unwanted {
            match self.attempts.get_mut(id) {
                Some(phase @ Phase::Running) => *phase = Phase::Unwanted,
                Some(Phase::Reported(report)) => {
                    self.unsettled -= 1;
                    self.kept_bytes -= report.remote_bytes();
                    self.attempts.remove(id);
                    fx.release.push(*id);
                    fx.spent.push(*id);
                }
                Some(Phase::Kept(bytes)) => {
                    self.kept_bytes -= *bytes;
                    self.attempts.remove(id);
                    fx.release.push(*id);
                }
                Some(Phase::Queued) => {
                    self.attempts.remove(id);
                    fx.spent.push(*id);
                }
                Some(Phase::Unwanted) | None => {}
            }
        }
        for (number, slot) in (0..).zip(&self.slots) {
            let first = slot.batch.front();
            if first.is_some_and(|assignment| unwanted.contains(&assignment.attempt)) {
                fx.stop.push(SlotNo::new(number));
            }
        }
        self.start_slots(fx);
    }

    /// Somebody else could begin these at once. Those that are not begun are given back, and held no longer; what was
    /// begun before, and stopped or interrupted, is better off here. There is always an answer.
    pub fn on_recalled(&mut self, attempts: &[AttemptId], fx: &mut Effects) {
        let wanted: BTreeSet<AttemptId> = attempts.iter().copied().collect();
        let mut given = Vec::new();
        for job in wanted.iter().map(|attempt| attempt.task.job).collect::<BTreeSet<_>>() {
            let Some(job) = self.jobs.get_mut(&job) else { continue };
            job.queue.retain(|queued| {
                let attempt = queued.assignment.attempt;
                let goes = queued.is_fresh() && wanted.contains(&attempt);
                given.extend(goes.then_some(attempt));
                !goes
            });
        }
        for attempt in &given {
            self.attempts.remove(attempt);
        }
        fx.give_back.push(given);
    }

    /// A job has ended: nothing of it is wanted any more.
    pub fn on_ended(&mut self, id: JobId, fx: &mut Effects) {
        let held: Vec<AttemptId> = self.attempts.range(attempts_of(id)).map(|(id, _)| *id).collect();
        self.on_cancelled(&held, fx);
        if self.jobs.remove(&id).is_some() {
            fx.forget.push(id);
        }
    }

    /// Starts nothing new from here on. What waits is given back, by saying what is [held](Self::holding) still.
    pub fn drain(&mut self) {
        self.draining = true;
        self.drop_queues();
    }

    /// Starts nothing new until [`Worker::resume`]; what runs is the slots' business. What waits is given back, as
    /// by [`Worker::drain`]: others need not wait for this owner.
    pub fn pause(&mut self) {
        self.paused = true;
        self.drop_queues();
    }

    /// Takes work again.
    pub fn resume(&mut self, fx: &mut Effects) {
        self.paused = false;
        self.start_slots(fx);
    }

    /// Whether new work is welcome.
    pub fn takes_work(&self) -> bool {
        !self.draining && !self.paused
    }

    fn drop_queues(&mut self) {
        for job in self.jobs.values_mut() {
            for queued in std::mem::take(&mut job.queue) {
                self.attempts.remove(&queued.assignment.attempt);
            }
        }
    }

    /// Whether nothing runs and nothing is owed, or nothing can be said because there is no session.
    pub fn is_drained(&self) -> bool {
        let idle = self.slots.iter().all(|slot| slot.batch.is_empty());
        idle && (self.unsettled == 0 || !self.connected)
    }

    /// Whether it keeps outputs that the coordinator may yet fetch.
    pub fn keeps_outputs(&self) -> bool {
        self.attempts.values().any(|phase| matches!(phase, Phase::Kept(_)))
    }

    /// What each slot is at; `None` when it is idle.
    pub fn slots(&self) -> impl Iterator<Item = Option<Running>> {
        self.slots.iter().map(|slot| {
            let attempt = slot.batch.front()?.attempt;
            Some(Running { attempt, behind: slot.batch.len() - 1 })
        })
    }

    /// Attempts of all phases.
    pub fn held(&self) -> usize {
        self.attempts.len()
    }

    /// How many attempts are where.
    pub fn load(&self) -> Load {
        let mut load = Load { unsettled: self.unsettled, ..Load::default() };
        for job in self.jobs.values() {
            let waiting = if job.is_ready() { &mut load.queued } else { &mut load.fetching };
            *waiting += job.queue.len();
        }
        load.running = self.slots.iter().filter(|slot| !slot.batch.is_empty()).count();
        load
    }

    /// Sends what there is to report, unless enough messages are on their way: then it waits for an
    /// answer and becomes one larger message.
    pub fn flush(&mut self, fx: &mut Effects) {
        /// Messages of reports on their way: one being committed, one waiting, and slack for the path.
        const UNANSWERED_MAX: usize = 4;
        while self.connected && self.unanswered < UNANSWERED_MAX && !self.outbox.is_empty() {
            let (mut message, mut bytes) = (Vec::new(), 0);
            while let Some(id) = self.outbox.pop_front() {
                let Some(Phase::Reported(report)) = self.attempts.get(&id) else { continue };
                let size = report.inline_bytes();
                if message.len() >= limits::REPORTS_MAX
                    || (bytes + size > limits::REPORTS_BYTES_MAX && !message.is_empty())
                {
                    self.outbox.push_front(id);
                    break;
                }
                bytes += size;
                message.push(report.clone());
            }
            if !message.is_empty() {
                self.unanswered += 1;
                fx.reports.push(message);
            }
        }
    }

    /// Whether there is anything of this job that somebody wants.
    fn holds(&self, id: JobId) -> bool {
        self.attempts.range(attempts_of(id)).any(|(_, phase)| !matches!(phase, Phase::Unwanted))
    }

    fn finish(&mut self, report: Report) {
        let id = report.attempt;
        self.kept_bytes += report.remote_bytes();
        self.attempts.insert(id, Phase::Reported(report));
        self.outbox.push_back(id);
        self.unsettled += 1;
    }

    fn start_slots(&mut self, fx: &mut Effects) {
        let has_room = self.unsettled < limits::WORKER_HELD_MAX && self.kept_bytes < self.kept_bytes_max;
        while self.takes_work() && has_room {
            let Some(number) = self.slots.iter().position(|slot| slot.batch.is_empty()) else { return };
            let slots = self.slots.len();
            // The oldest attempt decides which job is next: in which proportion jobs run is for the
            // coordinator to say, which hands them out in that proportion.
            let ready = self.jobs.iter_mut().filter(|(_, job)| job.is_ready());
            let oldest = ready.filter_map(|entry| Some((entry.1.queue.front()?.arrival, entry)));
            let Some((_, (id, job))) = oldest.min_by_key(|(arrival, (id, _))| (*arrival, **id)) else {
                return;
            };
            let count = job.batch_size(slots);
            let batch: Vec<Assignment> = job.queue.drain(..count).map(|queued| queued.assignment).collect();
            for assignment in &batch {
                self.attempts.insert(assignment.attempt, Phase::Running);
            }
            let slot = SlotNo::new(u32::try_from(number).unwrap_or(u32::MAX));
            self.slots[number] = Slot { job: Some(*id), batch: batch.iter().cloned().collect() };
            fx.start.push(Start { slot, job: *id, batch });
        }
    }
}

fn attempts_of(job: JobId) -> RangeInclusive<AttemptId> {
    let first = AttemptId { task: TaskId { job, index: 0 }, number: 0 };
    let last = AttemptId { task: TaskId { job, index: u64::MAX }, number: u32::MAX };
    first..=last
}

impl Phase {
    fn kept_bytes(&self) -> u64 {
        match self {
            Self::Reported(report) => report.remote_bytes(),
            Self::Kept(bytes) => *bytes,
            Self::Queued | Self::Running | Self::Unwanted => 0,
        }
    }
}

impl Report {
    /// Bytes of an output that stays with the worker.
    fn remote_bytes(&self) -> u64 {
        match &self.outcome {
            ReportOutcome::Execution { output: ReportOutput::Remote { blob, .. }, .. } => blob.size.get(),
            _ => 0,
        }
    }

    /// Whether another attempt of this worker at the same task had better go on where this one was.
    fn may_go_on(&self) -> bool {
        let ReportOutcome::NoResult(reason) = &self.outcome else { return false };
        // A deadline is the end of what was done by then; so is what the program does again.
        !matches!(reason, NoResult::Deadline | NoResult::NativeStack)
    }

    fn inline_bytes(&self) -> usize {
        match &self.outcome {
            ReportOutcome::Execution { output: ReportOutput::Inline(output), .. } => {
                usize::try_from(output.len()).unwrap_or(usize::MAX)
            }
            _ => 0,
        }
    }
}
