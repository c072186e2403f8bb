//! Time goes by: volunteers ask, get tasks, and answer.

use std::{cmp::Reverse, collections::BinaryHeap};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use talka_core::{
    limits,
    quantities::{Credit, Fuel},
    trust::{Draw, Policy},
};

use super::{
    GroupOutcome, Outcome, PolicyName, Setup,
    queue::{Queue, TaskNo},
    strategy::{Answer, RIGHT},
    verdicts::Tasks,
    volunteers::{Secs, Volunteer, VolunteerNo, recruit},
};

/// Idle volunteers that a task is offered to before it waits for those who ask next.
const OFFERS_MAX: usize = 64;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Somebody asks for work, unless it was told to do something else since.
    Asks(VolunteerNo, u64),
    /// Somebody answers.
    Answers(VolunteerNo, u64, TaskNo, Answer),
    /// An attempt is not heard of in time.
    Lost(VolunteerNo, u64, TaskNo),
}

/// Where in time, in microseconds.
type Micros = u64;

/// A scenario under one policy.
pub(super) struct Grid<'a> {
    pub(super) setup: &'a Setup,
    pub(super) policy: Policy,
    name: PolicyName,
    seed: u64,
    pub(super) rng: StdRng,
    now: Secs,
    events: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    /// Events so far: those of one moment happen in their order.
    count: u64,
    pub(super) volunteers: Vec<Volunteer>,
    idle: Vec<VolunteerNo>,
    pub(super) tasks: Tasks,
    /// The first task that nobody was handed yet.
    untouched: TaskNo,
    pub(super) again: Queue,
    /// Volunteers that are established and not gone for good.
    pub(super) established: usize,
    attempts: u64,
    network_bytes: u64,
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some years fit")]
fn micros(at: Secs) -> Micros {
    (at * 1e6) as Micros
}

impl<'a> Grid<'a> {
    pub(super) fn new(setup: &'a Setup, name: PolicyName, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let volunteers = recruit(setup, &mut rng);
        // A scenario names no policy that is out of range.
        let policy = setup.policy(name).unwrap_or(Policy::Adaptive { trusted_after: u32::MAX });
        let mut this = Self {
            setup,
            policy,
            name,
            seed,
            rng,
            now: 0.0,
            events: BinaryHeap::new(),
            count: 0,
            idle: vec![],
            tasks: Tasks::new(setup.tasks),
            untouched: 0,
            again: Queue::default(),
            established: volunteers.iter().filter(|volunteer| volunteer.record.is_established()).count(),
            attempts: 0,
            network_bytes: 0,
            volunteers,
        };
        for number in 0..this.volunteers.len() {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            // Not all in one moment.
            let at = this.rng.random_range(0.0..=60.0);
            this.asks_at(number, at);
        }
        this
    }

    pub(super) fn run(mut self) -> Outcome {
        while !self.tasks.all_certain() {
            let Some(Reverse((at, _, event))) = self.events.pop() else {
                if self.somebody_has_to() {
                    continue;
                }
                // Nobody is left who may have what is left.
                break;
            };
            #[expect(clippy::cast_precision_loss, reason = "some years fit")]
            let now = at as f64 / 1e6;
            self.now = now;
            match event {
                Event::Asks(volunteer, run) => {
                    if self.volunteers[volunteer as usize].run == run {
                        self.asks(volunteer);
                    }
                }
                Event::Answers(volunteer, run, task, answer) => self.answers(volunteer, run, task, answer),
                Event::Lost(volunteer, run, task) => {
                    if self.tasks.lose(task, volunteer, run) {
                        self.consider(task);
                    }
                }
            }
            self.feed();
            if self.untouched == self.setup.tasks && self.tasks.open() == 0 {
                self.look_at_what_is_left();
                self.feed();
            }
        }
        self.outcome()
    }

    fn outcome(self) -> Outcome {
        let mut groups: Vec<GroupOutcome> = self
            .setup
            .groups
            .iter()
            .map(|group| GroupOutcome {
                strategy: group.strategy,
                volunteers: group.count,
                attempts: 0,
                wrong_accepted: 0,
                credit: Credit::ZERO,
            })
            .collect();
        let mut credit_total = Credit::ZERO;
        for volunteer in &self.volunteers {
            let group = &mut groups[usize::from(volunteer.group)];
            group.attempts += u64::from(volunteer.attempts);
            group.credit += volunteer.credit;
            credit_total += volunteer.credit;
        }
        let mut wrong_accepted = 0;
        for (answer, group) in self.tasks.accepted() {
            if answer != RIGHT {
                wrong_accepted += 1;
                groups[usize::from(group)].wrong_accepted += 1;
            }
        }
        Outcome {
            policy: self.name,
            seed: self.seed,
            tasks: self.tasks.accepted().count() as u64,
            wrong_accepted,
            attempts: self.attempts,
            makespan_secs: self.now,
            credit_total,
            network_bytes: self.network_bytes,
            groups,
        }
    }

    fn put(&mut self, at: Secs, event: Event) {
        self.count += 1;
        self.events.push(Reverse((micros(at.max(self.now)), self.count, event)));
    }

    fn asks_at(&mut self, volunteer: VolunteerNo, at: Secs) {
        let run = self.volunteers[volunteer as usize].run;
        self.put(at, Event::Asks(volunteer, run));
    }

    /// Tells a volunteer that its attempt is not wanted any more.
    pub(super) fn stop(&mut self, volunteer: VolunteerNo, run: u64) {
        let known = &mut self.volunteers[volunteer as usize];
        if known.run == run && !known.gone {
            known.run += 1;
            known.attempts -= 1;
            self.asks_at(volunteer, self.now);
        }
    }

    fn asks(&mut self, number: VolunteerNo) {
        let volunteer = &mut self.volunteers[number as usize];
        if volunteer.gone {
            return;
        }
        if let Some(back) = volunteer.comes_back(self.now, self.setup, &mut self.rng) {
            return self.asks_at(number, back);
        }
        match self.task_for(number) {
            Some(task) => self.hand(task, number),
            None => self.idle.push(number),
        }
    }

    /// Something for a volunteer: what others have begun before what nobody has.
    fn task_for(&mut self, number: VolunteerNo) -> Option<TaskNo> {
        let may = |task| self.tasks.may_have(task, number, &self.volunteers, false);
        let begun = self.again.take(may);
        if begun.is_none() && self.untouched < self.setup.tasks {
            let task = self.untouched;
            self.untouched += 1;
            self.tasks.begin(task);
            if self.all_begun() {
                // Nobody need wait for those who are at it any more.
                for begun in self.tasks.all_open() {
                    self.consider(begun);
                }
            }
            return Some(task);
        }
        begun
    }

    /// Whether nothing is left that nobody was handed.
    pub(super) fn all_begun(&self) -> bool {
        self.untouched == self.setup.tasks
    }

    /// How long a task takes at speed 1, and what it pays: drawn from its number alone, the same for each policy.
    pub(super) fn work(&self, task: TaskNo) -> f64 {
        let even = f64::from(mixed(self.seed ^ 0x776f_726b, task)) / 2_f64.powi(32);
        self.setup.task_secs * (1.0 + self.setup.task_spread * (2.0 * even - 1.0))
    }

    /// A second of work at speed 1 is a billion operators.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "centuries fit")]
    pub(super) fn credit(&self, task: TaskNo) -> Credit {
        Fuel::new((self.work(task) * 1e9) as u64).credit()
    }

    pub(super) fn draw(&self, task: TaskNo) -> Draw {
        Draw::new(mixed(self.seed ^ 0x6472_6177, task))
    }

    pub(super) fn hand(&mut self, task: TaskNo, number: VolunteerNo) {
        let work = self.work(task);
        let volunteer = &mut self.volunteers[number as usize];
        if !std::mem::replace(&mut volunteer.has_shared, true) {
            self.network_bytes += self.setup.shared_bytes;
        }
        volunteer.run += 1;
        let run = volunteer.run;
        let earlier = self.tasks.said_in_group(task, volunteer.group, &self.volunteers);
        let volunteer = &mut self.volunteers[number as usize];
        let was_there = !volunteer.gone;
        let ending = volunteer.begin(number, self.now, work, earlier, self.setup, &mut self.rng);
        self.established -= usize::from(was_there && volunteer.gone && volunteer.record.is_established());
        self.attempts += 1;
        self.network_bytes += self.setup.input_bytes;
        self.tasks.hand(task, number, run);
        let on_time = ending.answered.is_some_and(|(at, _)| at <= ending.lost);
        if let Some((at, answer)) = ending.answered {
            self.put(at, Event::Answers(number, run, task, answer));
        } else if let Some(free) = ending.free {
            self.asks_at(number, free);
        }
        if !on_time {
            self.put(ending.lost, Event::Lost(number, run, task));
        }
        self.consider(task);
    }

    fn answers(&mut self, number: VolunteerNo, run: u64, task: TaskNo, answer: Answer) {
        if self.volunteers[number as usize].run != run {
            return;
        }
        if self.setup.output_bytes <= limits::INLINE_OUTPUT_BYTES_MAX {
            self.network_bytes += self.setup.output_bytes;
        }
        if self.tasks.answer(task, number, run, answer) {
            self.consider(task);
        }
        self.asks(number);
    }

    /// A large output is fetched once.
    pub(super) fn fetch_output(&mut self) {
        if self.setup.output_bytes > limits::INLINE_OUTPUT_BYTES_MAX {
            self.network_bytes += self.setup.output_bytes;
        }
    }

    /// Offers what waits to those who are idle, in no order.
    fn feed(&mut self) {
        let mut refused = vec![];
        while refused.len() < OFFERS_MAX && !self.idle.is_empty() && self.has_work() {
            let place = self.rng.random_range(0..self.idle.len());
            let number = self.idle.swap_remove(place);
            let before = self.idle.len();
            self.asks(number);
            if self.idle.len() > before {
                refused.extend(self.idle.pop());
            }
        }
        self.idle.extend(refused);
    }

    fn has_work(&self) -> bool {
        self.untouched < self.setup.tasks || !self.again.is_empty()
    }

    /// Nothing would happen any more, and something waits: whoever may have it gets it. Returns whether there is anybody.
    fn somebody_has_to(&mut self) -> bool {
        let Some(task) = self.again.pop() else { return false };
        let may = |number: &VolunteerNo| {
            let volunteer = &self.volunteers[*number as usize];
            !volunteer.gone && self.tasks.may_have(task, *number, &self.volunteers, true)
        };
        let place = self.idle.iter().position(may);
        if let Some(place) = place {
            let number = self.idle.swap_remove(place);
            self.hand(task, number);
        } else {
            self.tasks.give_up(task);
        }
        true
    }
}

/// 32 bits out of a seed and a number (`SplitMix64`: Steele, Lea and Flood, 2014).
fn mixed(seed: u64, number: u32) -> u32 {
    let mut mixed = seed.wrapping_add(u64::from(number).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(u32::MAX)
}
