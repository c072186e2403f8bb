//! Many grids, each with its own mishaps.

use std::time::Duration;

use crate::{Report, Scenario, run, seeds::check};

/// Seeds of one run of the tests.
const SEEDS: u64 = 200;

/// `TALKA_SEED=17` runs one seed, `TALKA_SEED=1000-2000` as many as asked for.
fn seeds() -> std::ops::RangeInclusive<u64> {
    let Ok(text) = std::env::var("TALKA_SEED") else { return 1..=SEEDS };
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    let number = |text: &str| text.parse().expect("TALKA_SEED is a number, or two with a dash between");
    number(first)..=number(last)
}

/// A grid in which nothing that must hold breaks.
fn holds(seed: u64, scenario: &Scenario) -> Report {
    run(seed, scenario).unwrap_or_else(|violation| panic!("seed {seed}: {violation}\n{scenario:#?}"))
}

/// The same with a rough one, which anybody can replay.
fn rough(seed: u64) -> Report {
    check(seed).unwrap_or_else(|failure| panic!("{failure}"))
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
        let report = holds(seed, &Scenario { quorum: quorum..=quorum, task_time, ..Scenario::calm() });
        let begun = report.attempts_leased - report.attempts_given_back;
        assert_eq!(begun, u64::from(quorum) * (report.tasks_done + report.tasks_failed));
        assert_eq!(report.attempts_reported, begun);
        assert_eq!(report.tasks_failed, report.tasks_meant_to_fail);
        assert!(report.sessions <= 8, "a session lasts");
    }
}

#[test]
fn liars_below_a_quorum_change_nothing() {
    for collusion in [false, true] {
        let mut liars = Scenario { liars: 1, quorum: 2..=2, collusion, ..Scenario::calm() };
        for seed in 1..=20 {
            assert_eq!(holds(seed, &liars).wrong_accepted, 0);
        }
        liars.liars = 6;
        let accepted = (1..=20).any(|seed| holds(seed, &liars).wrong_accepted > 0);
        assert_eq!(accepted, collusion, "voting alone is no help against a ring");
    }
}

#[test]
fn a_blob_leaves_the_coordinator_about_once() {
    let many = Scenario { honest: 64, jobs: 1, tasks: 1000..=1000, ..Scenario::calm() };
    let report = holds(1, &many);
    // A bundle and a dataset for each of 64 workers.
    assert_eq!(report.blobs_from_coordinator + report.blobs_from_peers, 128);
    assert!(report.blobs_from_coordinator <= 16, "{report}");
}

#[test]
fn workers_that_never_answer_only_delay() {
    let droppers = Scenario { droppers: 2, ..Scenario::calm() };
    for seed in 1..=20 {
        let report = holds(seed, &droppers);
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

#[test]
fn a_crowd_of_thousands_loses_nothing_and_comes_to_an_end() {
    let report = holds(1, &Scenario::crowd(1));
    let crowded = report.sessions > 2000 && report.worker_crashes > 500 && report.coordinator_crashes > 1;
    assert!(crowded, "this tests little: {report}");
}
