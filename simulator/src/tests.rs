//! Many grids, each with its own mishaps.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use crate::{Report, Scenario, run, run_logged};

/// Seeds of one run of the tests.
const SEEDS: u64 = 200;

/// `TALKA_SEED=17` runs one seed, `TALKA_SEED=1000-2000` as many as asked for.
fn seeds() -> std::ops::RangeInclusive<u64> {
    let Ok(text) = std::env::var("TALKA_SEED") else { return 1..=SEEDS };
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    let number = |text: &str| text.parse().expect("TALKA_SEED is a number, or two with a dash between");
    number(first)..=number(last)
}

/// Runs a rough grid; if something breaks, says with which seed.
fn rough(seed: u64) -> Report {
    let scenario = Scenario::rough(seed);
    let report = catch_unwind(AssertUnwindSafe(|| run(seed, &scenario)));
    report.unwrap_or_else(|_| {
        let mut last = std::collections::VecDeque::new();
        let logged = AssertUnwindSafe(|| {
            run_logged(seed, &scenario, &mut |at, line| {
                last.push_back(format!("{:>12.3} {line}", at.as_secs_f64()));
                if last.len() > 60 {
                    last.pop_front();
                }
            })
        });
        drop(catch_unwind(logged));
        let last = Vec::from(last).join("\n");
        panic!(
            "seed {seed} fails; its last events were\n{last}\n{scenario:#?}\n\
             replay it with: TALKA_SEED={seed} cargo test --release -p talka-simulator rough"
        )
    })
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let mut traces = std::collections::BTreeSet::new();
    for seed in 1..=20 {
        let first = rough(seed);
        assert_eq!(first, rough(seed));
        traces.insert(first.trace);
    }
    assert_eq!(traces.len(), 20, "another seed gives another run");
}

#[test]
fn where_nothing_goes_wrong_nothing_is_done_twice() {
    for seed in 1..=20 {
        let quorum = 2;
        // So short that nothing ever takes long, however much a worker was given too early.
        let task_time = Duration::from_millis(1)..=Duration::from_millis(50);
        let report = run(seed, &Scenario { quorum: quorum..=quorum, task_time, ..Scenario::calm() });
        assert_eq!(report.attempts_leased, u64::from(quorum) * (report.tasks_done + report.tasks_failed));
        assert_eq!(report.attempts_reported, report.attempts_leased);
        assert_eq!(report.tasks_failed, report.tasks_meant_to_fail);
        assert!(report.sessions <= 8, "a session lasts");
    }
}

#[test]
fn liars_below_a_quorum_change_nothing() {
    for collusion in [false, true] {
        let mut liars = Scenario { liars: 1, quorum: 2..=2, collusion, ..Scenario::calm() };
        for seed in 1..=20 {
            assert_eq!(run(seed, &liars).wrong_accepted, 0);
        }
        liars.liars = 6;
        let accepted = (1..=20).any(|seed| run(seed, &liars).wrong_accepted > 0);
        assert_eq!(accepted, collusion, "voting alone is no help against a ring");
    }
}

#[test]
fn a_blob_leaves_the_coordinator_about_once() {
    let many = Scenario { honest: 64, jobs: 1, tasks: 1000..=1000, ..Scenario::calm() };
    let report = run(1, &many);
    // A bundle and a dataset for each of 64 workers.
    assert_eq!(report.blobs_from_coordinator + report.blobs_from_peers, 128);
    assert!(report.blobs_from_coordinator <= 16, "{report}");
}

#[test]
fn workers_that_never_answer_only_delay() {
    let droppers = Scenario { droppers: 2, ..Scenario::calm() };
    for seed in 1..=20 {
        let report = run(seed, &droppers);
        assert_eq!(report.tasks_failed, report.tasks_meant_to_fail, "a lost attempt is no failure");
    }
}

#[test]
fn rough_grids_lose_nothing_and_come_to_an_end() {
    let mut sum = Report::default();
    for seed in seeds() {
        let report = rough(seed);
        sum.events += report.events;
        sum.tasks_done += report.tasks_done;
        sum.coordinator_crashes += report.coordinator_crashes;
        sum.worker_crashes += report.worker_crashes;
        sum.sessions += report.sessions;
    }
    if seeds().count() as u64 >= SEEDS {
        let rough_enough = sum.coordinator_crashes > 100 && sum.worker_crashes > 500;
        assert!(rough_enough && sum.tasks_done > 10_000, "these seeds test little: {sum}");
    }
}
