//! The shells of the workers: a session that is kept up, slots that take their time, and people behind them who
//! mean well or not.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use talka_core::{
    coordinator::{Capacity, Report, ReportOutcome, ReportOutput, ToWorker},
    ids::{AttemptId, BlobHash, JobId, OutcomeDigest, PeerId, SlotNo, TaskId},
    job::JobSpec,
    outcome::NoResult,
    quantities::Bytes,
    worker::{Assignment, Effects, Start, Worker},
};

use crate::{
    agenda::{Event, Life, VolunteerNo},
    invariants::Step,
    network::{FromWorker, LinkNo},
    truth::Answer,
    world::{TASK_DEADLINE, World},
};

/// Time until a session that ended, or did not come up, is tried again.
const RECONNECT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5);

/// Time until a slot that is to stop has stopped.
const STOP: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_millis(10);

/// Time until a worker acts on what has happened to it: what happens meanwhile is acted on at once.
const ROUND: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_millis(5);

/// Attempts that a vandal remembers.
const MEMORY: usize = 64;

/// How many times slower slow workers and unlucky attempts are.
const SLOWNESS: u32 = 20;

/// What a volunteer is up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    Honest,
    /// Honest until it ends, for good.
    Deserter,
    Liar,
    Dropper,
    Vandal,
}

impl Behaviour {
    fn is_honest(self) -> bool {
        matches!(self, Self::Honest | Self::Deserter)
    }
}

/// A large output on a worker's disk, with what reports it again after a restart.
#[derive(Debug)]
pub(crate) struct KeptOutput {
    pub(crate) digest: OutcomeDigest,
    spec: Arc<JobSpec>,
    report: Report,
}

/// A volunteer and its worker.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is true or not whatever the others are")]
pub(crate) struct Volunteer {
    pub(crate) id: PeerId,
    pub(crate) life: Life,
    pub(crate) core: Worker,
    /// On its disk: these survive its crashes.
    pub(crate) blobs: BTreeSet<BlobHash>,
    /// Large outputs that it keeps.
    pub(crate) outputs: BTreeMap<AttemptId, KeptOutput>,
    behaviour: Behaviour,
    up: bool,
    paused: bool,
    slow: bool,
    slots: Vec<Slot>,
    link: Option<LinkNo>,
    /// Batches so far.
    runs: u64,
    /// What a dropper claims to hold.
    hoard: BTreeSet<AttemptId>,
    /// What a vandal was given, in whatever life.
    memory: VecDeque<AttemptId>,
    /// Attempts that it has checkpoints of.
    checkpoints: Vec<(Arc<JobSpec>, AttemptId)>,
    /// What its core wants done.
    gathered: Effects,
    /// Whether it is about to do it.
    acting: bool,
    /// Jobs whose blobs it holds ready.
    pub(crate) ready: BTreeSet<JobId>,
    /// Jobs that are being made ready, or are: by the number of the fetch.
    pub(crate) fetching: BTreeMap<JobId, u64>,
    /// Fetches so far.
    pub(crate) fetches: u64,
}

#[derive(Debug, Default)]
struct Slot {
    run: u64,
    batch: VecDeque<Assignment>,
    /// How long its first attempt takes.
    time: Duration,
}

impl Volunteer {
    pub(crate) fn is_up(&self) -> bool {
        self.up
    }

    pub(crate) fn link(&self) -> Option<LinkNo> {
        self.link
    }

    /// Whether it reports what it was never given.
    pub(crate) fn invents(&self) -> bool {
        self.behaviour == Behaviour::Vandal
    }

    fn capacity(&self) -> Capacity {
        let slots = if self.paused { 0 } else { u32::try_from(self.slots.len()).unwrap_or(u32::MAX) };
        Capacity { slots, memory: Bytes::mib(1 << 20), ..Capacity::default() }
    }
}

impl fmt::Display for Volunteer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { behaviour, up, paused, link, .. } = self;
        let (load, held) = (self.core.load(), self.core.held());
        let busy = self.slots.iter().filter(|slot| !slot.batch.is_empty()).count();
        write!(
            f,
            "{behaviour:?} worker, up: {up}, paused: {paused}, link: {link:?}, holds {held}, {load:?}, "
        )?;
        write!(f, "{busy} slots busy")
    }
}

impl World<'_> {
    /// Everybody that the scenario asks for.
    pub(crate) fn recruit(&mut self) {
        let scenario = self.scenario;
        let kinds = [
            (scenario.honest, Behaviour::Honest),
            (scenario.deserters, Behaviour::Deserter),
            (scenario.liars, Behaviour::Liar),
            (scenario.droppers, Behaviour::Dropper),
            (scenario.vandals, Behaviour::Vandal),
        ];
        let all = kinds.into_iter().flat_map(|(count, behaviour)| (0..count).map(move |_| behaviour));
        for (number, behaviour) in all.enumerate() {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            let id = PeerId::new(id);
            if behaviour.is_honest() {
                self.observer.trust(id);
            }
            let slots = self.pick(scenario.slots.clone());
            let slow = self.happens(scenario.slow);
            self.volunteers.push(Volunteer {
                id,
                life: 0,
                core: Worker::new(slots),
                blobs: BTreeSet::new(),
                outputs: BTreeMap::new(),
                behaviour,
                up: false,
                paused: false,
                slow,
                slots: (0..slots).map(|_| Slot::default()).collect(),
                link: None,
                runs: 0,
                hoard: BTreeSet::new(),
                memory: VecDeque::new(),
                checkpoints: vec![],
                gathered: Effects::default(),
                acting: false,
                ready: BTreeSet::new(),
                fetching: BTreeMap::new(),
                fetches: 0,
            });
            let downtime = self.between(&RECONNECT);
            self.agenda.after(downtime, Event::VolunteerStarts(number));
        }
    }

    pub(crate) fn volunteer_starts(&mut self, number: VolunteerNo) {
        self.note(format_args!("worker {number} starts"));
        let calm = self.is_calm();
        let volunteer = &mut self.volunteers[number];
        if calm && volunteer.behaviour == Behaviour::Deserter {
            return;
        }
        volunteer.up = true;
        volunteer.paused = false;
        volunteer.life += 1;
        let life = volunteer.life;
        for (spec, attempt) in std::mem::take(&mut volunteer.checkpoints) {
            volunteer.core.on_restored(&spec, Assignment { attempt, input: 0..0, inline: None });
        }
        for kept in volunteer.outputs.values() {
            volunteer.core.on_kept(&kept.spec, kept.report.clone());
        }
        let faults = &self.scenario.faults;
        self.mishap(faults.worker_life, Event::VolunteerEnds(number, life));
        self.mishap(faults.pause_every, Event::VolunteerPauses(number, life));
        self.volunteer_connects(number, life);
    }

    /// Its process is killed, or asked to leave: it says goodbye then. Either way its memory is gone.
    pub(crate) fn volunteer_ends(&mut self, number: VolunteerNo, life: Life) {
        let volunteer = &self.volunteers[number];
        let deserts = volunteer.behaviour == Behaviour::Deserter;
        if volunteer.life != life || (self.is_calm() && !deserts) {
            return;
        }
        self.report.worker_crashes += 1;
        let leaves = self.happens(0.3);
        let checkpoints = self.checkpoints(number);
        // Now and then, without another draw.
        let disk_is_lost = life.is_multiple_of(3);
        self.note(format_args!("worker {number} ends, politely: {leaves}, with its disk: {disk_is_lost}"));
        let link = self.volunteers[number].link.take();
        if let Some(link) = link {
            if leaves {
                let keeping = checkpoints.iter().map(|(_, attempt)| *attempt).collect();
                self.send_up(link, FromWorker::Leaving(keeping));
                let latency = self.scenario.faults.latency.clone();
                self.agenda.after(*latency.end(), Event::LinkEnds(link));
            } else {
                self.break_link(link);
            }
        }
        let volunteer = &mut self.volunteers[number];
        volunteer.up = false;
        // Nothing of this life means anything from here on.
        volunteer.life += 1;
        let slots = u32::try_from(volunteer.slots.len()).unwrap_or(u32::MAX);
        volunteer.core = Worker::new(slots);
        if disk_is_lost {
            volunteer.outputs.clear();
        }
        volunteer.hoard.clear();
        volunteer.checkpoints = checkpoints;
        volunteer.gathered = Effects::default();
        volunteer.acting = false;
        volunteer.ready.clear();
        volunteer.fetching.clear();
        volunteer.slots.iter_mut().for_each(|slot| *slot = Slot::default());
        if !deserts {
            let downtime = self.scenario.faults.downtime.clone();
            let downtime = self.between(&downtime);
            self.agenda.after(downtime, Event::VolunteerStarts(number));
        }
    }

    /// The last ones that will leave do so.
    pub(crate) fn deserters_leave(&mut self) {
        for number in 0..self.volunteers.len() {
            let Volunteer { behaviour, life, .. } = self.volunteers[number];
            if behaviour == Behaviour::Deserter && self.volunteers[number].up {
                self.volunteer_ends(number, life);
            }
        }
    }

    /// What it could go on with after it was started again.
    fn checkpoints(&mut self, number: VolunteerNo) -> Vec<(Arc<JobSpec>, AttemptId)> {
        let core = &self.volunteers[number].core;
        let unfinished =
            core.unfinished().filter_map(|attempt| Some((core.spec(attempt.task.job)?, attempt)));
        let unfinished: Vec<_> = unfinished.map(|(spec, attempt)| (spec.clone(), attempt)).collect();
        let share = self.scenario.faults.interruption;
        unfinished.into_iter().filter(|_| self.goes_wrong(share)).collect()
    }

    /// Its owner needs the machine, or needs it no longer.
    pub(crate) fn volunteer_pauses(&mut self, number: VolunteerNo, life: Life) {
        let calm = self.is_calm();
        let volunteer = &mut self.volunteers[number];
        if volunteer.life != life || (calm && !volunteer.paused) {
            return;
        }
        volunteer.paused = !volunteer.paused;
        let (paused, capacity) = (volunteer.paused, volunteer.capacity());
        self.note(format_args!("worker {number} is paused: {paused}"));
        self.tell(number, FromWorker::Capacity(capacity));
        let toggle = Event::VolunteerPauses(number, life);
        if paused {
            // Everybody is back when it is calm.
            self.agenda.at(self.scenario.faults.until, Event::VolunteerPauses(number, life));
        }
        self.mishap(self.scenario.faults.pause_every, toggle);
    }

    pub(crate) fn volunteer_connects(&mut self, number: VolunteerNo, life: Life) {
        let volunteer = &self.volunteers[number];
        if volunteer.life != life || volunteer.link.is_some() {
            return;
        }
        let cut = self.cut(number).is_some();
        let Some(hub) = self.hub.as_ref().filter(|_| !cut).map(|hub| hub.life) else {
            let pause = self.between(&RECONNECT);
            return self.agenda.after(pause, Event::VolunteerConnects(number, life));
        };
        let mut holding = volunteer.core.holding();
        holding.extend(&volunteer.hoard);
        let capacity = volunteer.capacity();
        if volunteer.invents() {
            let attempt = self.invented(number);
            holding.push(attempt);
        }
        let link = self.link(number, hub);
        self.volunteers[number].link = Some(link);
        self.send_up(link, FromWorker::Hello { capacity, holding });
    }

    pub(crate) fn volunteer_notices(&mut self, link: LinkNo) {
        let number = self.links[link].volunteer;
        let volunteer = &mut self.volunteers[number];
        if volunteer.link != Some(link) {
            return;
        }
        volunteer.link = None;
        volunteer.core.on_disconnected();
        let life = volunteer.life;
        let pause = self.between(&RECONNECT);
        self.agenda.after(pause, Event::VolunteerConnects(number, life));
    }

    pub(crate) fn volunteer_hears(&mut self, link: LinkNo, message: ToWorker) {
        let state = &mut self.links[link];
        state.downward -= 1;
        let number = state.volunteer;
        if state.broken || self.volunteers[number].link != Some(link) {
            return;
        }
        if matches!(message, ToWorker::Welcome { .. }) {
            // It may have changed since the hello.
            let capacity = self.volunteers[number].capacity();
            self.tell(number, FromWorker::Capacity(capacity));
        }
        match self.volunteers[number].behaviour {
            Behaviour::Dropper => return self.volunteers[number].drop_work(&message),
            Behaviour::Vandal => self.volunteers[number].remember(&message),
            Behaviour::Honest | Behaviour::Deserter | Behaviour::Liar => {}
        }
        self.volunteer_event(number, |core, fx| match message {
            ToWorker::Welcome { unknown } => core.on_welcome(&unknown, fx),
            ToWorker::Job { job, spec, .. } => core.on_job(job, spec, fx),
            ToWorker::Lease(lease) => {
                let assignment = |item: &talka_core::coordinator::LeaseItem| {
                    let task = TaskId { job: lease.job, index: item.index };
                    Assignment { attempt: AttemptId { task, number: item.number }, input: 0..0, inline: None }
                };
                core.on_lease(lease.job, lease.items.iter().map(assignment).collect(), fx);
            }
            ToWorker::Settled { attempts, released } => core.on_settled(&attempts, &released, fx),
            ToWorker::Cancelled { attempts } => core.on_cancelled(&attempts, fx),
            ToWorker::Recall { attempts } => core.on_recalled(&attempts, fx),
            ToWorker::Ended { job } => core.on_ended(job, fx),
            ToWorker::Replaced => panic!("the coordinator ends a session that was replaced by itself"),
        });
    }

    /// One event of a worker.
    pub(crate) fn volunteer_event(
        &mut self,
        number: VolunteerNo,
        event: impl FnOnce(&mut Worker, &mut Effects),
    ) {
        let volunteer = &mut self.volunteers[number];
        event(&mut volunteer.core, &mut volunteer.gathered);
        let (held, life) = (volunteer.core.held(), volunteer.life);
        let acts = !std::mem::replace(&mut volunteer.acting, true);
        self.observe(Step::Load(held));
        if acts {
            let delay = self.between(&ROUND);
            self.agenda.after(delay, Event::VolunteerActs(number, life));
        }
    }

    /// It acts on what its core wants, in the order in which the production shell does.
    pub(crate) fn volunteer_acts(&mut self, number: VolunteerNo, life: Life) {
        let volunteer = &mut self.volunteers[number];
        if volunteer.life != life {
            return;
        }
        volunteer.acting = false;
        let mut fx = std::mem::take(&mut volunteer.gathered);
        volunteer.core.flush(&mut fx);
        let jobs: Vec<_> = fx.fetch.iter().map(|fetch| fetch.job).collect();
        self.fetch(number, &jobs);
        for start in fx.start {
            self.start(number, start);
        }
        for slot in fx.stop {
            let run = self.volunteers[number].slot(slot).run;
            let delay = self.between(&STOP);
            self.agenda.after(delay, Event::SlotStops { volunteer: number, slot, run });
        }
        for given in fx.give_back {
            self.tell(number, FromWorker::GivenBack(given));
        }
        for reports in fx.reports {
            self.tell(number, FromWorker::Reports(reports));
        }
        for attempt in fx.release {
            self.volunteers[number].outputs.remove(&attempt);
        }
        for job in fx.forget {
            self.volunteers[number].ready.remove(&job);
            self.volunteers[number].fetching.remove(&job);
        }
    }

    fn tell(&mut self, number: VolunteerNo, message: FromWorker) {
        // Before the welcome only the hello may be said.
        let link = self.volunteers[number].link.filter(|link| self.links[*link].session.is_some());
        if let Some(link) = link {
            self.send_up(link, message);
        }
    }

    fn start(&mut self, number: VolunteerNo, start: Start) {
        let volunteer = &mut self.volunteers[number];
        volunteer.runs += 1;
        let run = volunteer.runs;
        for assignment in &start.batch {
            let twice = volunteer.slots.iter().any(|slot| slot.batch.contains(assignment));
            assert!(!twice, "worker {number} runs {} twice", assignment.attempt);
        }
        if !volunteer.ready.contains(&start.job) {
            // As in the production shell: there is nothing to start it with.
            return;
        }
        let slot = volunteer.slot(start.slot);
        assert!(slot.batch.is_empty(), "worker {number} starts slot {}, which is busy", start.slot);
        *slot = Slot { run, batch: start.batch.into(), time: Duration::ZERO };
        self.moved = self.agenda.now();
        self.schedule(number, start.slot, run);
    }

    /// Puts down when the first attempt of a slot's batch ends.
    fn schedule(&mut self, number: VolunteerNo, slot: SlotNo, run: u64) {
        let task_time = self.scenario.task_time.clone();
        let mut time = self.between(&task_time);
        let straggle = self.scenario.faults.straggle;
        if self.volunteers[number].slow || self.goes_wrong(straggle) {
            time *= SLOWNESS;
        }
        let time = time.min(TASK_DEADLINE);
        self.volunteers[number].slot(slot).time = time;
        self.agenda.after(time, Event::SlotFinishes { volunteer: number, slot, run });
    }

    pub(crate) fn slot_finishes(&mut self, number: VolunteerNo, slot: SlotNo, run: u64) {
        let volunteer = &mut self.volunteers[number];
        let state = volunteer.slot(slot);
        if state.run != run {
            return;
        }
        let Some(assignment) = state.batch.pop_front() else { return };
        let (goes_on, time) = (!state.batch.is_empty(), state.time);
        self.moved = self.agenda.now();
        let report = self.execute(number, assignment.attempt, time);
        if goes_on {
            self.schedule(number, slot, run);
        }
        self.volunteer_event(number, |core, fx| core.on_finished(slot, report, fx));
        if self.volunteers[number].invents() {
            let reports = vec![self.invention(number), self.invention(number)];
            self.tell(number, FromWorker::Reports(reports));
        }
    }

    pub(crate) fn slot_stops(&mut self, number: VolunteerNo, slot: SlotNo, run: u64) {
        let state = self.volunteers[number].slot(slot);
        if state.run == run && !state.batch.is_empty() {
            *state = Slot::default();
            self.volunteer_event(number, |core, fx| core.on_stopped(slot, fx));
        }
    }

    /// What a worker says of an attempt.
    fn execute(&mut self, number: VolunteerNo, attempt: AttemptId, time: Duration) -> Report {
        let task = attempt.task;
        let spec = self.volunteers[number].core.spec(task.job);
        let submitter = spec.and_then(|spec| {
            let submitters = self.submitters.iter();
            submitters.clone().find(|submitter| submitter.submission.spec.bundle == spec.bundle)
        });
        let no_result = self.scenario.faults.no_result;
        let Some((bundle, large)) =
            submitter.map(|submitter| (submitter.submission.spec.bundle.hash, submitter.large))
        else {
            // Its job has ended in the meantime.
            let outcome = ReportOutcome::NoResult(NoResult::Stopped);
            return Report { attempt, outcome, wall_micros: 0 };
        };
        if self.goes_wrong(no_result) {
            let outcome = ReportOutcome::NoResult(NoResult::HostMemory);
            return Report { attempt, outcome, wall_micros: 1000 };
        }
        let lies = !self.volunteers[number].behaviour.is_honest() && self.happens(0.7);
        let answer = if lies {
            Answer::wrong(task, (!self.scenario.collusion).then_some(number))
        } else {
            Answer::right(task)
        };
        // Interrupted ones say so; liars say whatever they like.
        let interrupted = self.scenario.faults.interruption;
        let answer = if self.goes_wrong(interrupted) || (lies && self.happens(0.5)) {
            answer.resumed(self.pick(0..=1000))
        } else {
            answer
        };
        let outcome = answer.outcome(attempt, bundle, large);
        let empty_promise = lies && self.happens(0.5);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let wall_micros = if lies { u64::MAX } else { micros };
        let report = Report { attempt, outcome, wall_micros };
        self.keep_output(number, &report, empty_promise);
        report
    }

    /// A large output is put on the disk, unless there is none.
    fn keep_output(&mut self, number: VolunteerNo, report: &Report, empty_promise: bool) {
        let volunteer = &mut self.volunteers[number];
        let ReportOutcome::Execution { output: ReportOutput::Remote { digest, .. }, .. } = &report.outcome
        else {
            return;
        };
        let Some(spec) = volunteer.core.spec(report.attempt.task.job).filter(|_| !empty_promise) else {
            return;
        };
        let kept = KeptOutput { digest: *digest, spec: spec.clone(), report: report.clone() };
        volunteer.outputs.insert(report.attempt, kept);
    }

    /// An attempt that comes to a vandal's mind.
    fn invented(&mut self, number: VolunteerNo) -> AttemptId {
        let memory = self.volunteers[number].memory.len();
        if memory > 0 && self.happens(0.5) {
            let place = self.pick(0..=memory - 1);
            return self.volunteers[number].memory[place];
        }
        let job = JobId::new(self.pick(0..=u64::from(self.scenario.jobs) + 1));
        let index = self.pick(0..=*self.scenario.tasks.end() + 1);
        AttemptId { task: TaskId { job, index }, number: self.pick(0..=4) }
    }

    fn invention(&mut self, number: VolunteerNo) -> Report {
        let attempt = self.invented(number);
        let large = self.happens(0.5);
        let outcome = Answer::wrong(attempt.task, None).outcome(attempt, BlobHash::new([9; 32]), large);
        Report { attempt, outcome, wall_micros: u64::MAX }
    }
}

impl Volunteer {
    fn slot(&mut self, slot: SlotNo) -> &mut Slot {
        &mut self.slots[slot.get() as usize]
    }

    /// Keeps in mind what it was given.
    fn remember(&mut self, message: &ToWorker) {
        if let ToWorker::Lease(lease) = message {
            self.memory.extend(crate::disk::items(lease));
            self.memory.drain(..self.memory.len().saturating_sub(MEMORY));
        }
    }

    /// Takes work, and that is that.
    fn drop_work(&mut self, message: &ToWorker) {
        if let ToWorker::Lease(lease) = message {
            self.hoard.extend(crate::disk::items(lease));
        }
    }
}
