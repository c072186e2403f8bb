//! The whole grid, and the loop that moves it.

use std::{
    any::Any,
    fmt::{self, Write},
    hash::{DefaultHasher, Hasher},
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use talka_core::{ids::PeerId, limits};

use crate::{
    agenda::{Agenda, Event, Life, VolunteerNo},
    disk::Disk,
    hub::Hub,
    invariants::{Broken, Invariant, Observer, Step, Violation, ensure},
    network::Link,
    partitions::Partition,
    report::Report,
    scenario::Scenario,
    submitters::Submitter,
    volunteers::Volunteer,
};

/// Wall-clock deadline of every attempt: short, so that leases of workers that never answer end soon.
pub(crate) const TASK_DEADLINE: Duration = Duration::from_mins(1);

/// Virtual time without progress after which there will never be any: ten times the longest lease.
const PATIENCE: Duration =
    Duration::from_secs(10 * (limits::LEASE_SLACK.as_secs() + TASK_DEADLINE.as_secs()));

/// Virtual time for which nothing at all may move while there is work, every worker is there and none sits on
/// what it was given: the longest attempt, the time until a dead connection is noticed, and some for everybody to
/// come back.
const STALL: Duration = Duration::from_secs(2 * TASK_DEADLINE.as_secs() + 60);

/// See the [module](self).
pub(crate) struct World<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) agenda: Agenda,
    pub(crate) disk: Disk,
    /// The coordinator, while it runs.
    pub(crate) hub: Option<Hub>,
    pub(crate) observer: Observer,
    /// Lives of the coordinator so far.
    pub(crate) lives: Life,
    pub(crate) partition: Option<Partition>,
    pub(crate) links: Vec<Link>,
    pub(crate) volunteers: Vec<Volunteer>,
    pub(crate) submitters: Vec<Submitter>,
    pub(crate) report: Report,
    /// When a task became final last, or something went wrong, or was to begin.
    pub(crate) progress: Duration,
    /// When anything moved last: an attempt, a blob, a commit.
    pub(crate) moved: Duration,
    pub(crate) rng: StdRng,
    trace: DefaultHasher,
    line: String,
    log: &'a mut dyn FnMut(Duration, &str),
}

impl<'a> World<'a> {
    pub(crate) fn new(seed: u64, scenario: &'a Scenario, log: &'a mut dyn FnMut(Duration, &str)) -> Self {
        let mut world = Self {
            scenario,
            agenda: Agenda::default(),
            disk: Disk::default(),
            hub: None,
            observer: Observer::default(),
            lives: 0,
            partition: None,
            links: vec![],
            volunteers: vec![],
            submitters: vec![],
            report: Report { seed, ..Report::default() },
            progress: scenario.faults.until.max(scenario.submitted_within),
            moved: Duration::ZERO,
            rng: StdRng::seed_from_u64(seed),
            trace: DefaultHasher::new(),
            line: String::new(),
            log,
        };
        world.agenda.at(scenario.faults.until, Event::Calm);
        world.agenda.at(Duration::ZERO, Event::HubStarts);
        world.mishap(scenario.faults.partition_every, Event::PartitionStarts);
        world.recruit();
        world.plan_submissions();
        world
    }

    /// Runs until every job has ended, or something that must hold does not.
    pub(crate) fn run(mut self) -> Result<Report, Violation> {
        match catch_unwind(AssertUnwindSafe(|| self.go_on())) {
            Ok(()) => Ok(self.report),
            Err(payload) => {
                let Broken { invariant, what } = broken(payload);
                Err(Violation { invariant, at: self.agenda.now(), what })
            }
        }
    }

    fn go_on(&mut self) {
        while !self.is_over() {
            self.check_alive();
            let event = self.agenda.pop();
            self.report.events += 1;
            match event {
                Some(event) => self.happen(event),
                None => ensure(Invariant::Alive, false, || "nothing happens any more".into()),
            }
        }
        self.observe(Step::End);
        self.disk.sum_up(&mut self.report);
        self.report.wrong_accepted = self.observer.wrong;
        self.report.elapsed = self.agenda.now();
        let summary = self.disk.summary();
        self.note(format_args!("{summary}"));
        self.report.trace = self.trace.finish();
    }

    /// When nothing goes wrong any more, every job ends; and where nobody sits on what it was given, something
    /// moves until then.
    fn check_alive(&self) {
        let now = self.agenda.now();
        ensure(Invariant::Alive, now < self.progress + PATIENCE, || {
            format!("jobs never end:\n{}", self.what_is_open())
        });
        let all_work = self.scenario.droppers == 0 && self.scenario.vandals == 0;
        // A clock that was set back makes grants and grace periods longer.
        let stall = STALL + 2 * self.scenario.faults.clock_error;
        let since = self.moved.max(self.scenario.faults.until).max(self.scenario.submitted_within);
        ensure(Invariant::Alive, !all_work || now < since + stall, || {
            format!("nothing has moved for {stall:?}:\n{}", self.what_is_open())
        });
    }

    /// The observer looks at a step before the disk takes it over.
    pub(crate) fn observe(&mut self, step: Step<'_>) {
        self.observer.see(&self.disk, step);
    }

    /// The worker with this key.
    pub(crate) fn volunteer_of(&self, peer: PeerId) -> Option<VolunteerNo> {
        let number = peer.as_bytes().first_chunk().map(|bytes| u64::from_be_bytes(*bytes))?;
        usize::try_from(number).ok().filter(|number| *number < self.volunteers.len())
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Calm => {
                self.note(format_args!("calm"));
                self.deserters_leave();
            }
            Event::HubTicks(life) => self.hub_ticks(life),
            Event::HubCommitted(life) => self.hub_committed(life),
            Event::HubCrashes(life) => self.hub_crashes(life),
            Event::HubStarts => self.hub_starts(),
            Event::HubFetched(life, fetch) => self.hub_fetched(life, &fetch),
            Event::Upward(link, message) => self.hub_hears(link, message),
            Event::Downward(link, message) => self.volunteer_hears(link, message),
            Event::LinkBreaks(link) => {
                if !self.is_calm() {
                    self.break_link(link);
                }
            }
            Event::LinkStarves(link) => self.link_starves(link),
            Event::PartitionStarts => self.partition_starts(),
            Event::PartitionEnds => self.partition_ends(),
            Event::ClockJumps(life) => self.clock_jumps(life),
            Event::LinkEnds(link) => self.break_link(link),
            Event::HubNotices(link) => self.hub_notices(link),
            Event::VolunteerNotices(link) => self.volunteer_notices(link),
            Event::VolunteerStarts(volunteer) => self.volunteer_starts(volunteer),
            Event::VolunteerEnds(volunteer, life) => self.volunteer_ends(volunteer, life),
            Event::VolunteerPauses(volunteer, life) => self.volunteer_pauses(volunteer, life),
            Event::VolunteerConnects(volunteer, life) => self.volunteer_connects(volunteer, life),
            Event::VolunteerActs(volunteer, life) => self.volunteer_acts(volunteer, life),
            Event::SlotFinishes { volunteer, slot, run } => self.slot_finishes(volunteer, slot, run),
            Event::SlotStops { volunteer, slot, run } => self.slot_stops(volunteer, slot, run),
            Event::Wants { volunteer, life, job, fetch, failures } => {
                self.wants(volunteer, life, (job, fetch), failures);
            }
            Event::Transferred { volunteer, life, job, fetch, failures, blob, from } => {
                self.transferred(volunteer, life, (job, fetch), failures, blob, from);
            }
            Event::Submits(submitter) => self.submits(submitter),
            Event::Submitted(submitter, job) => self.submitted(submitter, job),
            Event::Cancels(submitter) => self.cancels(submitter),
            Event::Cancelled(submitter) => self.submitters[submitter].cancel_answered(),
        }
    }

    /// Every submitter has its answers, and every job has ended.
    fn is_over(&self) -> bool {
        self.submitters.iter().all(Submitter::is_content) && self.disk.all_ended()
    }

    fn what_is_open(&self) -> String {
        let Some(hub) = &self.hub else { return "the coordinator is down".into() };
        let tasks = self
            .disk
            .open_tasks()
            .take(10)
            .map(|task| format!("{task}: {:?}", hub.coordinator.explain(task)));
        let workers = self.volunteers.iter().take(10).map(|volunteer| format!("{volunteer}"));
        tasks.chain(workers).collect::<Vec<_>>().join("\n")
    }

    /// Writes down what happens: for the trace, and for whoever listens.
    pub(crate) fn note(&mut self, what: fmt::Arguments<'_>) {
        self.line.clear();
        self.line.write_fmt(what).expect("writing to a string never fails");
        let now = self.agenda.now();
        self.trace.write_u128(now.as_nanos());
        self.trace.write(self.line.as_bytes());
        (self.log)(now, &self.line);
    }

    // Chance.

    /// Whether nothing goes wrong any more.
    pub(crate) fn is_calm(&self) -> bool {
        self.agenda.now() >= self.scenario.faults.until
    }

    /// Whether something that goes wrong that often does so now.
    pub(crate) fn goes_wrong(&mut self, probability: f64) -> bool {
        !self.is_calm() && self.rng.random_bool(probability)
    }

    pub(crate) fn happens(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    pub(crate) fn between(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        self.rng.random_range(range.clone())
    }

    pub(crate) fn pick<T: rand::distr::uniform::SampleUniform + PartialOrd>(
        &mut self,
        range: RangeInclusive<T>,
    ) -> T {
        self.rng.random_range(range)
    }

    /// Puts down something that happens once in `mean`, while things go wrong.
    pub(crate) fn mishap(&mut self, mean: Option<Duration>, event: Event) {
        let Some(mean) = mean.filter(|_| !self.is_calm()) else { return };
        let exponential = -(1.0 - self.rng.random::<f64>()).ln();
        self.agenda.after(mean.mul_f64(exponential.min(100.0)), event);
    }
}

/// What a panic says.
fn broken(payload: Box<dyn Any + Send>) -> Broken {
    let payload = match payload.downcast::<Broken>() {
        Ok(broken) => return *broken,
        Err(payload) => payload,
    };
    let text = payload.downcast_ref::<String>().cloned();
    let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Broken { invariant: Invariant::Sound, what: text.unwrap_or_else(|| "a panic without words".into()) }
}
