//! The whole grid, and the loop that moves it.

use std::{
    fmt::{self, Write},
    hash::{DefaultHasher, Hasher},
    ops::RangeInclusive,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use talka_core::limits;

use crate::{
    agenda::{Agenda, Event},
    disk::Disk,
    hub::{Books, Hub},
    network::Link,
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

/// See the [module](self).
pub(crate) struct World<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) agenda: Agenda,
    pub(crate) disk: Disk,
    /// The coordinator, while it runs.
    pub(crate) hub: Option<Hub>,
    pub(crate) books: Books,
    pub(crate) links: Vec<Link>,
    pub(crate) volunteers: Vec<Volunteer>,
    pub(crate) submitters: Vec<Submitter>,
    pub(crate) report: Report,
    /// When a task became final last, or something went wrong, or was to begin.
    pub(crate) progress: Duration,
    rng: StdRng,
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
            books: Books::default(),
            links: vec![],
            volunteers: vec![],
            submitters: vec![],
            report: Report { seed, ..Report::default() },
            progress: scenario.faults.until.max(scenario.submitted_within),
            rng: StdRng::seed_from_u64(seed),
            trace: DefaultHasher::new(),
            line: String::new(),
            log,
        };
        world.agenda.at(scenario.faults.until, Event::Calm);
        world.agenda.at(Duration::ZERO, Event::HubStarts);
        world.recruit();
        world.plan_submissions();
        world
    }

    /// Runs until every job has ended.
    pub(crate) fn run(mut self) -> Report {
        while !self.is_over() {
            assert!(self.agenda.now() < self.progress + PATIENCE, "jobs never end:\n{}", self.what_is_open());
            let Some(event) = self.agenda.pop() else { panic!("nothing happens any more") };
            self.report.events += 1;
            self.happen(event);
        }
        self.disk.check_end(&mut self.report);
        self.report.elapsed = self.agenda.now();
        let summary = self.disk.summary();
        self.note(format_args!("{summary}"));
        self.report.trace = self.trace.finish();
        self.report
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Calm => self.note(format_args!("calm")),
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
            Event::LinkEnds(link) => self.break_link(link),
            Event::HubNotices(link) => self.hub_notices(link),
            Event::VolunteerNotices(link) => self.volunteer_notices(link),
            Event::VolunteerStarts(volunteer) => self.volunteer_starts(volunteer),
            Event::VolunteerEnds(volunteer, life) => self.volunteer_ends(volunteer, life),
            Event::VolunteerPauses(volunteer, life) => self.volunteer_pauses(volunteer, life),
            Event::VolunteerConnects(volunteer, life) => self.volunteer_connects(volunteer, life),
            Event::SlotFinishes { volunteer, slot, run } => self.slot_finishes(volunteer, slot, run),
            Event::SlotStops { volunteer, slot, run } => self.slot_stops(volunteer, slot, run),
            Event::Wants { volunteer, life, job, failures } => self.wants(volunteer, life, job, failures),
            Event::Transferred { volunteer, life, job, failures, blob, from } => {
                self.transferred(volunteer, life, job, failures, blob, from);
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
        tasks.collect::<Vec<_>>().join("\n")
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
