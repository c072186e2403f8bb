//! Random histories: whatever happens in whatever order, nothing that must hold is ever broken, and in the
//! end every task of every job that was not cancelled is final, once.

use std::time::Duration;

use proptest::prelude::*;

use super::grid::{Grid, Says, counted, job, large, no_result, peer, resumed};
use crate::{
    coordinator::{AttemptView, TaskState},
    ids::{AttemptId, JobId, TaskId},
    job::JobState,
    limits,
    quantities::Bytes,
};

/// Workers of a history: few, so that they meet at the same tasks.
pub(super) const WORKERS: u8 = 5;

/// The last of those that come in the end: enough to outweigh whatever the first ones said.
const MANY: u8 = 115;

/// What may happen. A thing that can't happen now does nothing.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Submit {
        tasks: u64,
        quorum: u32,
        submitter: u8,
        priority: i64,
        /// Whether it is meant for the first workers only: as many as the quorum and one more.
        targeted: bool,
        /// Whether it is accepted by what is known of workers.
        by_record: bool,
    },
    Pause {
        job: u64,
    },
    Resume {
        job: u64,
    },
    Prioritize {
        job: u64,
        priority: i64,
    },
    Weigh {
        submitter: u8,
        weight: u64,
    },
    Cancel {
        job: u64,
    },
    Connect {
        worker: u8,
        slots: u32,
    },
    Disconnect {
        worker: u8,
    },
    Die {
        worker: u8,
    },
    Leave {
        worker: u8,
    },
    /// One of its attempts gets lost, and nobody notices before the next session.
    Lose {
        worker: u8,
        held: usize,
    },
    Offer {
        worker: u8,
        slots: u32,
        memory_mib: u64,
    },
    /// A report on one of the attempts that the worker holds.
    Report {
        worker: u8,
        held: usize,
        answer: u8,
    },
    /// An answer to what it was asked for: those whose bits are set.
    GiveBack {
        worker: u8,
        which: u8,
    },
    /// A report on anything at all.
    Invent {
        worker: u8,
        job: u64,
        index: u64,
        number: u32,
    },
    /// The end of one of the fetches under way, and which of its sources failed; of those, who could not be reached.
    Fetched {
        fetch: usize,
        bad: u8,
        away: u8,
    },
    Pass {
        millis: u64,
    },
    DiskStalls,
    DiskRecovers,
    CoordinatorRestarts,
}

pub(super) fn events() -> impl Strategy<Value = Vec<Event>> {
    let worker = 1..=WORKERS;
    let event = prop_oneof![
        2 => (1u64..12, 1u32..4, 201u8..203, -2i64..3, prop::bool::weighted(0.2), prop::bool::weighted(0.4)).prop_map(
            |(tasks, quorum, submitter, priority, targeted, by_record)| Event::Submit {
                tasks, quorum, submitter, priority, targeted, by_record,
            }
        ),
        1 => (1u64..6).prop_map(|job| Event::Pause { job }),
        1 => (1u64..6).prop_map(|job| Event::Resume { job }),
        1 => (1u64..6, -2i64..3).prop_map(|(job, priority)| Event::Prioritize { job, priority }),
        1 => (201u8..204, 1u64..9).prop_map(|(submitter, weight)| Event::Weigh { submitter, weight }),
        1 => (1u64..6).prop_map(|job| Event::Cancel { job }),
        8 => (worker.clone(), 0u32..4).prop_map(|(worker, slots)| Event::Connect { worker, slots }),
        3 => worker.clone().prop_map(|worker| Event::Disconnect { worker }),
        2 => worker.clone().prop_map(|worker| Event::Die { worker }),
        1 => worker.clone().prop_map(|worker| Event::Leave { worker }),
        2 => (worker.clone(), 0usize..8).prop_map(|(worker, held)| Event::Lose { worker, held }),
        1 => (worker.clone(), 0u32..4, 0u64..2000)
            .prop_map(|(worker, slots, memory_mib)| Event::Offer { worker, slots, memory_mib }),
        30 => (worker.clone(), 0usize..8, 0u8..20)
            .prop_map(|(worker, held, answer)| Event::Report { worker, held, answer }),
        4 => (worker.clone(), any::<u8>()).prop_map(|(worker, which)| Event::GiveBack { worker, which }),
        3 => (worker, 0u64..5, 0u64..14, 0u32..6)
            .prop_map(|(worker, job, index, number)| Event::Invent { worker, job, index, number }),
        6 => (0usize..3, 0u8..16, 0u8..16).prop_map(|(fetch, bad, away)| Event::Fetched { fetch, bad, away }),
        4 => prop_oneof![Just(1), Just(200), Just(10_000), Just(4_300_000)]
            .prop_map(|millis| Event::Pass { millis }),
        2 => Just(Event::DiskStalls),
        4 => Just(Event::DiskRecovers),
        2 => Just(Event::CoordinatorRestarts),
    ];
    prop::collection::vec(event, 1..120)
}

/// Mostly the right answer; sometimes a wrong one, a failure to answer, or one too large to send.
fn says(answer: u8) -> Says {
    match answer {
        0..=6 => "right".into(),
        7..=9 => large("right"),
        10 | 11 => "wrong".into(),
        12 => large("wrong"),
        13 => "other".into(),
        14 => resumed("right", 1_100),
        15 => resumed(large("right"), 900),
        16 => counted("right", 1_001),
        _ => no_result(),
    }
}

/// Whether it is a report whose output stays with its worker.
pub(super) fn keeps_output(event: &Event) -> bool {
    let attempt = AttemptId { task: TaskId { job: JobId::new(1), index: 0 }, number: 1 };
    matches!(event, Event::Report { answer, .. } if says(*answer).report(attempt, Duration::ZERO).is_remote())
}

pub(super) fn apply(grid: &mut Grid, event: &Event) {
    let connected =
        |grid: &Grid, worker: &u8| grid.machines.get(worker).is_some_and(|machine| machine.session.is_some());
    match event {
        Event::Submit { tasks, quorum, submitter, priority, targeted, by_record } => {
            let mut new = job(*tasks).quorum(*quorum).by(*submitter).priority(*priority);
            // Loose enough that one word suffices after one check.
            if *by_record {
                new = new.error_rate(300_000, 300_000);
            }
            if *targeted {
                let peers = u8::try_from(*quorum).expect("small") + 1;
                new = new.on(&(1..=peers).collect::<Vec<u8>>());
            }
            grid.submit(new);
        }
        Event::Pause { job } => drop(grid.pause(JobId::new(*job))),
        Event::Resume { job } => drop(grid.resume(JobId::new(*job))),
        Event::Prioritize { job, priority } => drop(grid.prioritize(JobId::new(*job), *priority)),
        Event::Weigh { submitter, weight } => grid.weigh(*submitter, *weight),
        Event::Cancel { job } => drop(grid.cancel(JobId::new(*job))),
        Event::Connect { worker, slots } => {
            grid.worker(*worker).connects(*slots);
        }
        Event::Disconnect { worker } if connected(grid, worker) => {
            grid.worker(*worker).disconnects();
        }
        Event::Die { worker } if connected(grid, worker) => {
            grid.worker(*worker).dies();
        }
        Event::Leave { worker } if connected(grid, worker) => {
            grid.worker(*worker).leaves();
        }
        Event::Lose { worker, held } => {
            if let Some(machine) = grid.machines.get_mut(worker)
                && let Some(attempt) = machine.holds.iter().nth(*held).copied()
            {
                machine.holds.remove(&attempt);
            }
        }
        Event::Offer { worker, slots, memory_mib } if connected(grid, worker) => {
            grid.worker(*worker).offers(*slots, Bytes::mib(*memory_mib));
        }
        Event::Report { worker, held, answer } if connected(grid, worker) => {
            let attempt = grid.machines[worker].holds.iter().nth(*held).copied();
            if let Some(attempt) = attempt {
                grid.worker(*worker).reports_attempt(attempt, says(*answer), Duration::from_millis(1));
            }
        }
        Event::GiveBack { worker, which } if connected(grid, worker) => {
            let asked = grid.worker(*worker).is_asked_for();
            let given: Vec<AttemptId> = (0..)
                .zip(asked)
                .filter(|(place, attempt)| {
                    which & 1 << (place % 8) != 0 && grid.machines[worker].holds.contains(attempt)
                })
                .map(|(_, attempt)| attempt)
                .collect();
            grid.worker(*worker).gives_back(&given);
        }
        Event::Invent { worker, job, index, number } if connected(grid, worker) => {
            let task = TaskId { job: JobId::new(*job), index: *index };
            let attempt = AttemptId { task, number: *number };
            grid.worker(*worker).reports_attempt(attempt, "invented", Duration::MAX);
        }
        Event::Fetched { fetch, bad, away } => end_fetch(grid, *fetch, *bad, *away),
        Event::Pass { millis } => grid.passes(Duration::from_millis(*millis)),
        Event::DiskStalls => grid.disk_stalls(),
        Event::DiskRecovers => grid.disk_recovers(),
        Event::CoordinatorRestarts => grid.coordinator_restarts(),
        _ => {}
    }
}

/// Ends a fetch: the sources whose bit is set in `bad` failed, and with `away` because they could not be reached.
fn end_fetch(grid: &mut Grid, fetch: usize, bad: u8, away: u8) {
    let Some(fetch) = grid.fetches.get(fetch).cloned() else { return };
    let is_in = |number: &u32, set: u8| set & 1 << (number % 4) != 0;
    let numbers = fetch.sources.iter().map(|source| source.number);
    let (delivers, mut failed): (Vec<u32>, Vec<u32>) = numbers.partition(|number| !is_in(number, bad));
    failed.retain(|number| !is_in(number, away));
    grid.job = fetch.task.job;
    if delivers.is_empty() {
        grid.output_is_lost(fetch.task.index, &failed);
    } else {
        let right = fetch.agreed.outcome == super::grid::outcome("right");
        grid.output_arrives(fetch.task.index, if right { "right" } else { "wrong" }, &failed);
    }
}

/// Everything works from here on: the workers come back, and when none of them can do any more, new ones come.
fn finish(grid: &mut Grid) {
    grid.disk_recovers();
    let jobs: Vec<JobId> = grid.store.jobs.keys().copied().collect();
    for job in jobs {
        drop(grid.resume(job));
    }
    for worker in 1..=WORKERS {
        if grid.worker(worker).is_connected() {
            grid.worker(worker).dies();
        }
        // What it kept is gone, too.
        grid.machines.get_mut(&worker).expect("a worker").lose_everything();
        grid.worker(worker).connects(2);
    }
    work_off(grid, 1..=WORKERS);
    for task in open_tasks(grid) {
        let view = grid.coordinator.explain(task).expect("a job").expect("a task of it");
        for worker in 1..=WORKERS {
            let voted =
                |attempt: &AttemptView| attempt.peer == Some(peer(worker)) && attempt.state == "reported";
            assert!(view.attempts.iter().any(voted), "{task} waits, and not for {worker}: {view:#?}");
        }
    }
    for worker in 100..=MANY {
        grid.worker(worker).connects(4);
    }
    work_off(grid, 100..=MANY);
    assert_eq!(open_tasks(grid), [], "with enough workers every job ends");
}

/// Tasks of running jobs that are not final.
fn open_tasks(grid: &Grid) -> Vec<TaskId> {
    let running = grid.store.jobs.iter().filter(|(_, (row, _))| row.state == JobState::Running);
    let tasks = running.flat_map(|(job, (row, _))| {
        (0..row.submission.spec.inputs.count()).map(|index| TaskId { job: *job, index })
    });
    tasks.filter(|task| !grid.store.finals.contains_key(task)).collect()
}

/// These workers report everything that they are given, until they are given nothing more.
fn work_off(grid: &mut Grid, workers: std::ops::RangeInclusive<u8>) {
    let mut idle = 0;
    while idle < 5 {
        idle += 1;
        for worker in workers.clone() {
            for attempt in grid.machines[&worker].holds.clone() {
                if grid.machines[&worker].holds.contains(&attempt) {
                    idle = 0;
                    grid.worker(worker).reports_attempt(attempt, "right", Duration::from_millis(1));
                }
            }
        }
        while !grid.fetches.is_empty() {
            idle = 0;
            end_fetch(grid, 0, 0, 0);
        }
        // Long enough, in the end, for workers that left to lose their leases.
        grid.passes(limits::RECONNECT_GRACE / 4);
    }
}

/// The store checked each commit, the coordinator each event; this is what is left for the end.
fn check_end(grid: &Grid) {
    for (id, (row, shard)) in &grid.store.jobs {
        let tasks = row.submission.spec.inputs.count();
        let finals = (0..tasks).filter(|index| {
            let task = TaskId { job: *id, index: *index };
            let is_final = grid.store.finals.contains_key(&task);
            let told = grid.coordinator.explain(task).expect("known").expect("a task of it").state;
            match row.state {
                JobState::Finished => assert_eq!(told, TaskState::Final),
                JobState::Cancelled => assert_eq!(told, TaskState::Cancelled),
                JobState::Running => panic!("job {id} still runs"),
            }
            is_final
        });
        let finals = finals.count() as u64;
        assert_eq!(shard.done + shard.failed, finals);
        assert!(row.state == JobState::Cancelled || finals == tasks, "job {id}: {finals} of {tasks} final");
    }
    assert!(grid.store.leases.is_empty(), "nothing is leased: {:?}", grid.store.leases);
    assert!(grid.store.pending.is_empty(), "nothing is pending: {:?}", grid.store.pending);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4 * ProptestConfig::default().cases, ..ProptestConfig::default() })]

    #[test]
    fn every_history_ends_well(events in events()) {
        let mut grid = Grid::default();
        for event in &events {
            apply(&mut grid, event);
        }
        finish(&mut grid);
        check_end(&grid);
    }

    #[test]
    fn a_restart_loses_nothing_that_was_durable(events in events()) {
        let mut grid = Grid::default();
        for event in &events {
            apply(&mut grid, event);
            let before = format!("{:?}", (&grid.store.finals, &grid.store.credit, &grid.store.pending));
            grid.coordinator_restarts();
            let after = format!("{:?}", (&grid.store.finals, &grid.store.credit, &grid.store.pending));
            prop_assert_eq!(before, after, "restoring settles nothing by itself");
        }
        finish(&mut grid);
        check_end(&grid);
    }
}
