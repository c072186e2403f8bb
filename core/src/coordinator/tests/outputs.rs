//! Outputs that stay with the worker until a quorum agrees on them.

use std::{sync::Arc, time::Duration};

use super::grid::{A, B, C, Grid, Says, blob, job, large, peer, said};
use crate::{
    coordinator::{CreditDelta, ReportOutcome, ReportOutput, TaskState, ToWorker},
    job::JobState,
    limits,
    outcome::{Exit, Output},
};

/// Two workers agree on a large output of task 0.
fn agreed() -> Grid {
    let mut grid = Grid::with_workers(A..=B);
    grid.submit(job(1).quorum(2));
    grid.worker(A).reports(0, large("a"));
    assert_eq!(grid.fetches, [], "nothing is fetched before a quorum agrees");
    grid.worker(B).reports(0, large("a"));
    grid
}

#[test]
fn an_agreed_output_is_fetched_once_from_any_of_its_owners() {
    let mut grid = agreed();
    grid.expect_open(0);
    let [fetch] = grid.fetches.as_slice() else { panic!("one fetch: {:?}", grid.fetches) };
    assert_eq!((fetch.task, fetch.agreed, fetch.exit), (grid.task(0), said("a"), Exit::Ok));
    let sources: Vec<_> = fetch.sources.iter().map(|source| (source.number, source.peer)).collect();
    assert_eq!(sources, [(1, peer(A)), (2, peer(B))]);
    assert!(fetch.sources.iter().all(|source| source.blob == blob("a")));

    grid.output_arrives(0, "a", &[]);
    grid.expect_done(0, "a", &[A, B]);
    assert_eq!(grid.state(), JobState::Finished);
}

#[test]
fn a_kept_output_is_released_when_nobody_needs_it_any_more() {
    let mut grid = agreed();
    let attempt = grid.attempt(0, 1);
    let heard = grid.worker(A).hears();
    let settled = ToWorker::Settled { attempts: vec![attempt], released: vec![] };
    assert!(heard.contains(&settled), "it is on record, and has to be kept: {heard:?}");
    grid.output_arrives(0, "a", &[]);
    let heard = grid.worker(A).hears();
    let released = ToWorker::Settled { attempts: vec![], released: vec![attempt] };
    assert!(heard.contains(&released), "{heard:?}");
}

#[test]
fn who_did_not_deliver_what_it_reported_gets_nothing_for_it() {
    let mut grid = agreed();
    grid.output_arrives(0, "a", &[1]);
    grid.expect_done(0, "a", &[B]);
    assert_eq!(grid.credit(A), CreditDelta::default());
}

#[test]
fn an_output_that_nobody_delivers_is_computed_again() {
    let mut grid = agreed();
    grid.worker(C).connects(1);
    assert_eq!(grid.worker(C).holds(), [], "not while it may be fetched");
    grid.output_is_lost(0, &[1, 2]);
    assert_eq!(grid.worker(C).holds(), [0]);
    grid.worker(C).reports(0, large("a"));
    grid.expect_open(0);
    grid.worker(4).connects(1);
    grid.worker(4).reports(0, large("a"));
    assert_eq!(grid.fetches.len(), 1);
    grid.output_arrives(0, "a", &[]);
    grid.expect_done(0, "a", &[C, 4]);
    assert_eq!(grid.result(0).attempts, 4);
}

#[test]
fn liars_in_a_quorum_of_large_outputs_cost_it_their_votes() {
    let mut grid = agreed();
    grid.worker(C).connects(1);
    // A had something else; B is merely away, and its vote stands.
    grid.output_is_lost(0, &[1]);
    assert_eq!(grid.fetches, [], "one vote is no quorum");
    grid.worker(C).reports(0, large("a"));
    assert_eq!(grid.fetches[0].sources.len(), 2);
    grid.output_arrives(0, "a", &[]);
    grid.expect_done(0, "a", &[B, C]);
}

#[test]
fn a_quorum_that_never_delivers_fails_the_task_and_leaves_no_rows_behind() {
    let mut grid = Grid::with_workers(1..=4);
    let quorum = limits::NO_RESULTS_MAX;
    // The end of the job would take all rows with it.
    grid.submit(job(2).quorum(quorum));
    for worker in 1..=4 {
        grid.worker(worker).reports(0, large("a"));
    }
    // The store checks that no pending row outlives its task.
    grid.output_is_lost(0, &[1, 2, 3, 4]);
    grid.expect_failed(0, "no attempt gave a result: the bundle or its input could not be fetched");
}

#[test]
fn a_small_output_of_the_same_digest_needs_no_fetch() {
    let mut grid = Grid::with_workers(A..=B);
    grid.submit(job(1).quorum(2));
    grid.worker(A).reports(0, "a");
    let kept = grid.worker(B).attempt(0);
    grid.worker(B).hears();
    grid.worker(B).reports(0, large("a"));
    assert_eq!(grid.fetches, []);
    grid.expect_done(0, "a", &[A, B]);
    // Whatever the order of the messages: B hears that it need not keep its output.
    let released = |message: &ToWorker| matches!(message, ToWorker::Settled { released, .. } if released.contains(&kept));
    assert!(grid.worker(B).hears().iter().any(released));
}

#[test]
fn votes_that_come_during_the_fetch_are_paid_as_well() {
    let mut grid = Grid::with_workers(A..=C);
    grid.submit(job(1).quorum(2));
    grid.worker(A).reports(0, large("b"));
    grid.worker(B).reports(0, large("a"));
    grid.worker(4).connects(1);
    grid.worker(C).disconnects();
    grid.passes(limits::RECONNECT_GRACE);
    grid.worker(4).reports(0, large("a"));
    assert_eq!(grid.explain(0).state, TaskState::Validating);
    assert_eq!(grid.explain(0).waits_for, "its output to be fetched from the workers that agreed on it");
    grid.worker(C).connects(1);
    grid.worker(C).reports(0, large("a"));
    assert_eq!(grid.fetches.len(), 1, "it is not fetched twice");
    grid.output_arrives(0, "a", &[]);
    grid.expect_done(0, "a", &[B, C, 4]);
    assert_eq!(grid.credit(A).invalid, 1);
}

#[test]
fn a_fetch_that_ends_after_its_job_changes_nothing() {
    let mut grid = agreed();
    let id = grid.job;
    grid.cancel(id).expect("a job");
    let before = format!("{:?}", grid.store);
    grid.output_arrives(0, "a", &[1]);
    grid.output_is_lost(0, &[1, 2]);
    assert_eq!(format!("{:?}", grid.store), before);
}

#[test]
fn a_fetch_is_begun_again_after_a_restart() {
    let mut grid = agreed();
    grid.coordinator_restarts();
    assert_eq!(grid.fetches.len(), 1);
    grid.output_arrives(0, "a", &[]);
    grid.expect_done(0, "a", &[A, B]);
}

#[test]
fn half_validated_outputs_are_bounded() {
    let mut grid = Grid::default();
    grid.worker(A).connects(1);
    grid.submit(job(100_000).quorum(2));
    let output = Arc::new(Output { stdout: vec![b'x'; 1 << 20], ..Output::default() });
    let long = |attempt| {
        let mut report = Says::from("").report(attempt, Duration::from_secs(1));
        if let ReportOutcome::Execution { output: said, .. } = &mut report.outcome {
            *said = ReportOutput::Inline(output.clone());
        }
        report
    };
    let held_max = limits::HELD_OUTPUT_BYTES_MAX / output.len();
    let mut reported = 0;
    while let Some(index) = grid.worker(A).holds().first().copied() {
        let attempt = grid.worker(A).attempt(index);
        grid.worker(A).sends(vec![long(attempt)]);
        reported += 1;
        assert!(reported <= held_max + 2, "a job that only one peer works at has to wait");
    }
    assert!(reported >= held_max);
    let waits_for = "other tasks of its job to be validated first: too many are half-validated";
    assert_eq!(grid.explain(99_999).waits_for, waits_for);
    grid.worker(B).connects(1);
    for index in 0..3 {
        let attempt = grid.worker(B).attempt(index);
        grid.worker(B).sends(vec![long(attempt)]);
        grid.expect_grants(index, &[A, B]);
    }
    assert!(!grid.worker(A).holds().is_empty(), "it goes on when there is room");
}
