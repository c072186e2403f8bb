//! What a grid consists of, and what goes wrong in it.

use std::{ops::RangeInclusive, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use talka_core::{job::ErrorRate, limits, quantities::Ppm};

/// A grid, its jobs and its faults. Where a range is given, each worker, job or message draws from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Workers that do what they are asked.
    pub honest: u32,
    /// Workers that do so until their process ends, and never come back.
    pub deserters: u32,
    /// Workers that report wrong results.
    pub liars: u32,
    /// Whether liars agree on what they say.
    pub collusion: bool,
    /// Workers that take work and never answer.
    pub droppers: u32,
    /// Workers that report wrong results and, besides, whatever comes to their mind: attempts that they were
    /// never given, jobs that don't exist, things twice.
    pub vandals: u32,
    /// Slots of a worker.
    pub slots: RangeInclusive<u32>,
    /// Share of workers that are twenty times slower than the others.
    pub slow: f64,
    /// Jobs in all.
    pub jobs: u32,
    /// Submitters among whom the jobs are dealt out.
    pub submitters: u32,
    /// Tasks of a job.
    pub tasks: RangeInclusive<u64>,
    /// Quorum of a job; at most the number of honest workers, so that every job can end.
    pub quorum: RangeInclusive<u32>,
    /// Every third job weighs answers by who gave them instead of counting them, where there are honest workers enough.
    pub error_rate: Option<ErrorRate>,
    /// Mean time of a task on a worker that is not slow.
    pub task_time: RangeInclusive<Duration>,
    /// Share of jobs whose outputs are too large for a report.
    pub large_outputs: f64,
    /// Share of jobs that are cancelled at some point.
    pub cancelled: f64,
    /// Time over which the jobs are submitted.
    pub submitted_within: Duration,
    /// How long a worker that lost its connection keeps its leases.
    pub reconnect_grace: Duration,
    /// How long an output is waited for whose workers are away.
    pub output_wait: Duration,
    /// The core checks itself after one event in so many; never if zero.
    pub inspect_every: u64,
    /// What goes wrong.
    pub faults: Faults,
}

/// Short, so that a grid meets the end of it, and goes on within the time in which something has to move.
const OUTPUT_WAIT: Duration = Duration::from_secs(30);

/// What goes wrong, until it no longer does. Means are of exponential distributions.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// After that, sessions hold, nobody crashes and nothing fails by chance. Liars go on lying.
    pub until: Duration,
    /// Time of a message on its way.
    pub latency: RangeInclusive<Duration>,
    /// Time that a commit takes.
    pub commit: RangeInclusive<Duration>,
    /// Mean time until a session breaks.
    pub session_life: Option<Duration>,
    /// Time until an end of a broken session notices.
    pub notice: RangeInclusive<Duration>,
    /// Mean time until a worker's process ends: it is killed, or sometimes asked to leave.
    pub worker_life: Option<Duration>,
    /// Mean time until a worker is paused, and until it is resumed.
    pub pause_every: Option<Duration>,
    /// Mean time until the coordinator is killed.
    pub coordinator_life: Option<Duration>,
    /// Time until a process that ended is started again.
    pub downtime: RangeInclusive<Duration>,
    /// Most by which the coordinator's clock is wrong after a restart, or after somebody set it, either way.
    pub clock_error: Duration,
    /// Mean time until the coordinator's clock is set while it runs.
    pub clock_jump_every: Option<Duration>,
    /// Probability that a packet is lost. On a session it is sent again; a request or its answer is not.
    pub loss: f64,
    /// Mean time until some workers are cut off.
    pub partition_every: Option<Duration>,
    /// How long they are.
    pub partition: RangeInclusive<Duration>,
    /// Probability that a message of reports arrives twice.
    pub duplicates: f64,
    /// Probability that an attempt gives no result.
    pub no_result: f64,
    /// Probability that an attempt is interrupted and goes on from a checkpoint.
    pub interruption: f64,
    /// Probability that an attempt takes twenty times as long.
    pub straggle: f64,
    /// Probability that the transfer of a blob fails.
    pub transfer_failure: f64,
}

impl Scenario {
    /// Honest workers on a quick network, and nothing goes wrong.
    pub fn calm() -> Self {
        Self {
            honest: 8,
            deserters: 0,
            liars: 0,
            collusion: false,
            droppers: 0,
            vandals: 0,
            slots: 1..=4,
            slow: 0.0,
            jobs: 4,
            submitters: 2,
            tasks: 1..=100,
            quorum: 1..=2,
            error_rate: None,
            task_time: millis(1, 500),
            large_outputs: 0.25,
            cancelled: 0.0,
            submitted_within: Duration::from_secs(5),
            reconnect_grace: limits::RECONNECT_GRACE,
            output_wait: OUTPUT_WAIT,
            inspect_every: 1,
            faults: Faults {
                until: Duration::ZERO,
                latency: millis(1, 20),
                commit: millis(1, 5),
                session_life: None,
                notice: millis(0, 30_000),
                worker_life: None,
                pause_every: None,
                coordinator_life: None,
                downtime: millis(10, 30_000),
                clock_error: Duration::ZERO,
                clock_jump_every: None,
                loss: 0.0,
                partition_every: None,
                partition: millis(1, 60_000),
                duplicates: 0.0,
                no_result: 0.0,
                interruption: 0.0,
                straggle: 0.0,
                transfer_failure: 0.0,
            },
        }
    }

    /// Two thousand workers and some more that mean no good, and everything that can happen does so at times.
    pub fn crowd(seed: u64) -> Self {
        let mean = |secs| Some(Duration::from_secs(secs));
        let calm = Self::calm();
        Self {
            honest: 2000,
            deserters: 50,
            liars: 60,
            collusion: seed.is_multiple_of(2),
            droppers: 20,
            vandals: 20,
            slow: 0.05,
            jobs: 4,
            tasks: 1000..=5000,
            quorum: 1..=3,
            task_time: millis(1000, 10_000),
            submitted_within: Duration::from_secs(30),
            inspect_every: 1000,
            faults: Faults {
                until: Duration::from_mins(1),
                latency: millis(5, 200),
                commit: millis(1, 50),
                session_life: mean(120),
                worker_life: mean(120),
                pause_every: mean(120),
                coordinator_life: mean(20),
                downtime: millis(10, 10_000),
                clock_error: Duration::from_mins(1),
                clock_jump_every: mean(30),
                loss: 0.02,
                partition_every: mean(20),
                partition: millis(1, 20_000),
                duplicates: 0.1,
                no_result: 0.02,
                interruption: 0.3,
                straggle: 0.02,
                transfer_failure: 0.02,
                ..calm.faults
            },
            ..calm
        }
    }

    /// A grid in which every rate is drawn for itself, from none to far more than anybody should have to bear:
    /// runs in which only a few things go wrong reach states that others never do ("swarm testing": Groce et
    /// al., 2012).
    pub fn rough(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x7461_6c6b_6173_696d);
        let until = Duration::from_secs(rng.random_range(20..=180));
        let mut mean = |low: u64, high: u64| {
            rng.random_bool(0.7).then(|| Duration::from_secs(rng.random_range(low..=high)))
        };
        let (session_life, worker_life) = (mean(5, 120), mean(10, 200));
        let (pause_every, coordinator_life) = (mean(10, 60), mean(5, 100));
        let mut rate = |max: f64| if rng.random_bool(0.5) { rng.random_range(0.0..=max) } else { 0.0 };
        let (slow, large_outputs, cancelled) = (rate(0.5), rate(1.0), rate(0.5));
        let (duplicates, no_result, interruption) = (rate(0.5), rate(0.2), rate(0.7));
        let (straggle, transfer_failure) = (rate(0.1), rate(0.3));
        let some = |rng: &mut StdRng, max: u32| {
            if rng.random_bool(0.5) { rng.random_range(0..=max) } else { 0 }
        };
        let deserters = some(&mut rng, 2);
        let clock_error = Duration::from_secs(u64::from(some(&mut rng, 600)));
        let task_millis = *[10, 200, 2000, 20_000].get(rng.random_range(0..4)).unwrap_or(&10);
        let latency_millis = *[5, 100, 5000].get(rng.random_range(0..3)).unwrap_or(&5);
        let loss = if rng.random_bool(0.5) { rng.random_range(0.0..=0.3) } else { 0.0 };
        let often = |rng: &mut StdRng, low: u64, high: u64| {
            rng.random_bool(0.5).then(|| Duration::from_secs(rng.random_range(low..=high)))
        };
        let (partition_every, clock_jump_every) = (often(&mut rng, 10, 60), often(&mut rng, 10, 60));
        let reconnect_grace =
            if rng.random_bool(0.5) { Duration::from_secs(2) } else { limits::RECONNECT_GRACE };
        // Drawn apart, so that what else a seed stands for stays the same.
        let mut apart = StdRng::seed_from_u64(seed ^ 0x6572_726f_7273);
        let errors = [1_000, 50_000, 100_000];
        let error = errors.get(apart.random_range(0..4_usize)).map(|error| Ppm::new(*error));
        let error_rate = error.map(|error| ErrorRate { error, liars: Ppm::new(50_000) });
        // Few grids have tasks enough to meet the bounds.
        let tasks_max = if rng.random_bool(0.1) { 4000 } else { 200 };
        Self {
            honest: rng.random_range(1..=6),
            deserters,
            liars: some(&mut rng, 3),
            collusion: rng.random(),
            droppers: some(&mut rng, 2),
            vandals: some(&mut rng, 1),
            slots: 1..=rng.random_range(1..=8),
            slow,
            jobs: rng.random_range(1..=8),
            submitters: rng.random_range(1..=3),
            tasks: 1..=rng.random_range(1..=tasks_max),
            quorum: 1..=rng.random_range(1..=3),
            error_rate,
            task_time: millis(1, task_millis),
            large_outputs,
            cancelled,
            submitted_within: until,
            reconnect_grace,
            output_wait: OUTPUT_WAIT,
            // It looks at everything that is open.
            inspect_every: if tasks_max > 200 { 100 } else { 1 },
            faults: Faults {
                until,
                latency: millis(1, latency_millis),
                commit: millis(1, rng.random_range(2..=300)),
                session_life,
                notice: millis(0, 30_000),
                worker_life,
                pause_every,
                coordinator_life,
                downtime: millis(10, 30_000),
                clock_error,
                clock_jump_every,
                loss,
                partition_every,
                partition: millis(1, 60_000),
                duplicates,
                no_result,
                interruption,
                straggle,
                transfer_failure,
            },
        }
    }
}

fn millis(low: u64, high: u64) -> RangeInclusive<Duration> {
    Duration::from_millis(low)..=Duration::from_millis(high)
}
