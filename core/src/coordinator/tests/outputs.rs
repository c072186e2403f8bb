//! Outputs that stay with the worker until a quorum agrees on them.

use std::{sync::Arc, time::Duration};

use super::grid::{A, B, C, Grid, Says, blob, job, large, peer, said};
use crate::{
    coordinator::{CreditDelta, ReportOutcome, ReportOutput, TaskState, ToWorker},
    job::JobState,
    limits,
    outcome::{Exit, NoResult, Output},
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
    for worker in 1..=4 {
        grid.worker(worker).connects(8);
    }
    // The end of the job would take all rows with it.
    grid.submit(job(2).quorum(4));
    for _ in 0..limits::OUTPUTS_LOST_MAX / 4 {
        grid.expect_open(0);
        while grid.fetches.is_empty() {
            for worker in 1..=4 {
                if grid.worker(worker).holds().contains(&0) {
                    grid.worker(worker).reports(0, large("a"));
                }
            }
            // Whoever had no result may try again where nobody else is there.
            grid.passes(limits::RECONNECT_GRACE);
        }
        // The store checks that no pending row outlives its task.
        let numbers: Vec<u32> = grid.fetches[0].sources.iter().map(|source| source.number).collect();
        grid.output_is_lost(0, &numbers);
    }
    grid.expect_failed(0, "no attempt gave a result: its output was lost before it could be fetched");
}

#[test]
fn an_output_is_waited_for_while_those_who_have_it_are_away() {
    let mut grid = agreed();
    grid.worker(C).connects(1);
    for worker in [A, B] {
        grid.worker(worker).disconnects();
    }
    // Nobody can be reached: nobody has lied.
    grid.output_is_lost(0, &[]);
    let told = grid.explain(0);
    assert_eq!(told.state, TaskState::Validating);
    let waits_for = "its output: no worker that has it could be reached (1 time(s)); it is computed again after 10 min of that";
    assert_eq!(told.waits_for, waits_for);
    assert_eq!(grid.coordinator.job(grid.job).expect("known").outputs_away, 1);
    let waits_for = "0 attempt(s) under way and 1 output(s) to be fetched (1 from workers that are away); every task is begun";
    assert_eq!(grid.coordinator.explain_job(grid.job).expect("known").waits_for, waits_for);
    assert_eq!(grid.fetches, [], "not at once");
    grid.passes(limits::OUTPUT_PAUSE_MIN);
    assert_eq!(grid.fetches.len(), 1, "after a pause");
    assert_eq!(grid.worker(C).holds(), [], "what is waited for is not computed again");

    grid.output_is_lost(0, &[]);
    grid.worker(B).connects(1);
    grid.passes(Duration::ZERO);
    assert_eq!(grid.fetches.len(), 1, "whoever is back is asked at once");
    grid.output_arrives(0, "a", &[]);
    grid.expect_done(0, "a", &[A, B]);
    assert_eq!(grid.coordinator.job(grid.job).expect("known").outputs_lost, 0);
}

#[test]
fn an_output_whose_workers_stay_away_is_computed_again_and_paid_once() {
    let mut grid = agreed();
    for worker in [A, B] {
        grid.worker(worker).disconnects();
    }
    let mut waited = Duration::ZERO;
    let mut pauses = vec![];
    while grid.coordinator.job(grid.job).expect("known").outputs_lost == 0 {
        assert!(
            waited <= limits::OUTPUT_WAIT_MAX + limits::OUTPUT_PAUSE_MAX,
            "it is not waited for without end"
        );
        grid.output_is_lost(0, &[]);
        let mut pause = Duration::ZERO;
        while grid.fetches.is_empty() && pause <= limits::OUTPUT_PAUSE_MAX {
            grid.passes(Duration::from_secs(1));
            pause += Duration::from_secs(1);
        }
        pauses.push(pause.as_secs());
        waited += pause;
    }
    assert_eq!(pauses[..7], [1, 2, 4, 8, 16, 30, 30]);
    assert!(waited >= limits::OUTPUT_WAIT_MAX);
    let states: Vec<_> = grid.explain(0).attempts.iter().map(|attempt| attempt.detail.clone()).collect();
    assert_eq!(states, ["its output was lost before it could be fetched"; 2]);
    // Others do it, and one of the first: what it votes now is paid, and what it voted then is not.
    grid.worker(C).connects(1);
    grid.worker(C).reports(0, large("a"));
    grid.worker(A).connects(1);
    grid.passes(limits::RECONNECT_GRACE);
    grid.worker(A).reports(0, large("a"));
    grid.output_arrives(0, "a", &[]);
    grid.expect_done(0, "a", &[A, C]);
    assert_eq!(grid.credit(A).validated, 1);
    assert_eq!(grid.credit(B), CreditDelta::default());
}

#[test]
fn who_comes_back_without_the_output_is_not_waited_for() {
    let mut grid = agreed();
    for worker in [A, B] {
        grid.worker(worker).dies();
    }
    grid.output_is_lost(0, &[]);
    grid.worker(A).connects(1);
    assert_eq!(
        grid.explain(0).waits_for,
        "1 more matching result(s) of 2: another peer: each of the 1 connected worker(s) had an attempt already"
    );
    assert_eq!(grid.coordinator.job(grid.job).expect("known").outputs_lost, 1);
    grid.worker(C).connects(1);
    grid.worker(C).reports(0, large("a"));
    grid.output_arrives(0, "a", &[]);
    grid.expect_done(0, "a", &[B, C]);
}

#[test]
fn who_has_something_else_need_not_keep_it() {
    let mut grid = agreed();
    let attempt = grid.attempt(0, 1);
    grid.worker(A).hears();
    grid.output_is_lost(0, &[1]);
    let released = ToWorker::Settled { attempts: vec![], released: vec![attempt] };
    assert!(grid.worker(A).hears().contains(&released));
}

#[test]
fn an_output_that_is_waited_for_outlives_a_restart() {
    let mut grid = agreed();
    grid.output_is_lost(0, &[]);
    grid.coordinator_restarts();
    assert_eq!(grid.fetches.len(), 1);
    grid.output_arrives(0, "a", &[]);
    grid.expect_done(0, "a", &[A, B]);
}

#[test]
fn a_job_that_is_cancelled_waits_for_no_output() {
    let mut grid = agreed();
    grid.output_is_lost(0, &[]);
    let id = grid.job;
    grid.cancel(id).expect("a job");
    grid.passes(limits::OUTPUT_WAIT_MAX);
    assert_eq!(grid.fetches, []);
}

#[test]
fn whether_an_output_is_lost_is_not_for_a_worker_to_say() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(1));
    let mut report = Says::from("").report(grid.worker(A).attempt(0), Duration::ZERO);
    report.outcome = ReportOutcome::NoResult(NoResult::OutputLost);
    grid.worker(A).sends(vec![report]);
    assert_eq!(grid.explain(0).attempts[0].detail, "internal error of the worker");
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
    let large = usize::try_from(limits::INLINE_OUTPUT_BYTES_MAX).expect("small");
    let output = Arc::new(Output { stdout: vec![b'x'; large], ..Output::default() });
    let long = |attempt| {
        let mut report = Says::from("").report(attempt, Duration::from_secs(1));
        if let ReportOutcome::Execution { output: said, .. } = &mut report.outcome {
            *said = ReportOutput::Inline(output.clone());
        }
        report
    };
    let held_max = limits::HELD_OUTPUT_BYTES_MAX / output.len();
    let mut reported = 0;
    loop {
        let held: Vec<u64> = grid.worker(A).holds();
        if held.is_empty() {
            break;
        }
        reported += held.len() as u64;
        let reports = held.iter().map(|index| long(grid.worker(A).attempt(*index))).collect();
        grid.worker(A).sends(reports);
        assert!(
            reported <= held_max + limits::WORKER_IN_FLIGHT_START as u64,
            "a job that only one peer works at has to wait"
        );
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

#[test]
fn what_no_sandbox_reports_is_no_vote() {
    let too_long = usize::try_from(limits::INLINE_OUTPUT_BYTES_MAX + 1).expect("small");
    let output =
        |bytes: usize| ReportOutput::Inline(Arc::new(Output { stdout: vec![0; bytes], ..Output::default() }));
    let fuel_max = crate::job::TaskLimits::default().fuel;
    let too_much = crate::quantities::Fuel::new(fuel_max.get() + 1);
    let cases = [
        (fuel_max, output(too_long - 1), true),
        (fuel_max, output(too_long), false),
        (too_much, output(0), false),
    ];
    for (fuel, output, counts) in cases {
        let mut grid = Grid::with_workers(A..=A);
        grid.submit(job(1));
        let mut report = Says::from("").report(grid.worker(A).attempt(0), Duration::ZERO);
        if let ReportOutcome::Execution { fuel: said, output: written, .. } = &mut report.outcome {
            (*said, *written) = (fuel, output);
        }
        grid.worker(A).sends(vec![report]);
        if counts {
            assert_eq!(grid.credit(A).credit, fuel.credit());
        } else {
            grid.expect_open(0);
            assert_eq!(grid.explain(0).attempts[0].state, "no-result");
            assert_eq!(grid.explain(0).attempts[0].detail, "internal error of the worker");
        }
    }
}
