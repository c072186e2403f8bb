//! Quorums: who may vote, when a task is final, and what that earns.

use std::time::Duration;

use super::grid::{A, B, C, D, FUEL, Grid, Says, job, no_result};
use crate::{
    coordinator::{CreditDelta, TaskVerdict},
    ids::JobId,
    job::JobState,
    limits,
    outcome::{Exit, NoResult, Trap},
    quantities::{Bytes, Credit},
};

#[test]
fn with_a_quorum_of_one_the_first_result_is_final() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(1));
    grid.worker(A).reports(0, "a");
    grid.expect_done(0, "a", &[A]);
    assert_eq!(grid.state(), JobState::Finished);
}

#[test]
fn attempts_of_one_task_go_to_distinct_peers() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(1).quorum(3));
    assert_eq!(grid.worker(A).holds(), [0]);
    grid.worker(A).reports(0, "a");
    assert_eq!(grid.worker(A).holds(), [], "a peer never votes twice on a task");
    grid.worker(B).connects(8);
    grid.worker(C).connects(8);
    grid.worker(D).connects(8);
    assert_eq!(grid.worker(B).holds(), [0]);
    assert_eq!(grid.worker(C).holds(), [0]);
    assert_eq!(grid.worker(D).holds(), [], "three attempts are enough until one fails");
}

#[test]
fn a_quorum_that_agrees_makes_the_task_final_and_credits_each_of_it_once() {
    let mut grid = Grid::with_workers(A..=B);
    grid.submit(job(1).quorum(2));
    grid.worker(A).reports(0, "a");
    grid.expect_open(0);
    grid.worker(B).reports(0, "a");
    grid.expect_done(0, "a", &[A, B]);
    let earned = CreditDelta { credit: FUEL.credit(), validated: 1, invalid: 0 };
    assert_eq!((grid.credit(A), grid.credit(B)), (earned, earned));
    assert_eq!(grid.result(0).attempts, 2);
}

#[test]
fn disagreement_brings_a_third_peer_and_the_odd_one_out_gets_nothing() {
    let mut grid = Grid::with_workers(A..=C);
    grid.submit(job(1).quorum(2));
    grid.worker(A).reports(0, "wrong");
    grid.worker(B).reports(0, "right");
    grid.expect_open(0);
    grid.worker(C).reports(0, "right");
    grid.expect_done(0, "right", &[B, C]);
    assert_eq!(grid.credit(A), CreditDelta { credit: Credit::ZERO, validated: 0, invalid: 1 });
    assert_eq!(grid.state(), JobState::Finished);
}

#[test]
fn the_log_is_not_part_of_the_vote() {
    let mut grid = Grid::with_workers(A..=B);
    grid.submit(job(1).quorum(2));
    let fails = |stderr| Says::Fails(Exit::Code(3), stderr);
    grid.worker(A).reports(0, fails("at 10:01: no such record"));
    grid.worker(B).reports(0, fails("at 10:02: no such record"));
    grid.expect_failed(0, "exit code 3");
}

#[test]
fn a_failure_that_is_agreed_on_is_final_with_its_log_and_is_paid() {
    for exit in [Exit::Code(3), Exit::Trap(Trap::Unreachable)] {
        let mut grid = Grid::with_workers(A..=C);
        grid.submit(job(1).quorum(2));
        grid.worker(A).reports(0, Says::Fails(exit, "no such record"));
        grid.worker(B).reports(0, Says::Fails(exit, "no such record"));
        grid.expect_failed(0, &exit.to_string());
        let crate::coordinator::FinalOutput::Inline(output) = &grid.result(0).output else {
            panic!("the log is kept");
        };
        assert_eq!(output.stderr, b"no such record");
        grid.expect_grants(0, &[A, B]);
        let progress = grid.coordinator.job(JobId::new(1)).expect("the job");
        assert_eq!((progress.shard.done, progress.shard.failed), (0, 1));
        assert_eq!(progress.state, JobState::Finished);
    }
}

#[test]
fn tasks_on_which_nobody_agrees_are_given_up_and_nobody_is_blamed() {
    let voters = 2 + u8::try_from(limits::ATTEMPTS_BEYOND_QUORUM_MAX).expect("few");
    let mut grid = Grid::with_workers(1..=voters);
    grid.submit(job(1).quorum(2));
    for worker in 1..=voters {
        grid.expect_open(0);
        grid.worker(worker).reports(0, format!("opinion {worker}").as_str());
    }
    assert_eq!(grid.result(0).verdict, TaskVerdict::NoAgreement);
    assert_eq!(grid.result(0).attempts, u32::from(voters));
    assert!((1..=voters).all(|worker| grid.credit(worker) == CreditDelta::default()));
    assert_eq!(grid.state(), JobState::Finished);
}

#[test]
fn no_result_is_tried_elsewhere_first() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(1));
    grid.worker(A).reports(0, no_result());
    assert_eq!(grid.worker(A).holds(), []);
    grid.worker(B).connects(1);
    assert_eq!(grid.worker(B).holds(), [0]);
    grid.worker(B).reports(0, "b");
    grid.expect_done(0, "b", &[B]);
    assert_eq!(grid.credit(A), CreditDelta::default(), "no result is no offence");
    assert_eq!(grid.result(0).attempts, 2);
}

#[test]
fn no_result_is_tried_on_the_same_peer_when_nobody_else_is_there() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(1));
    grid.worker(A).reports(0, no_result());
    grid.passes(Duration::from_millis(200));
    assert_eq!(grid.worker(A).holds(), [0]);
    grid.worker(A).reports(0, "a");
    grid.expect_done(0, "a", &[A]);
}

#[test]
fn a_peer_that_cannot_run_the_task_is_nobody_else() {
    let cannot: [fn(&mut Grid); 3] = [
        |grid| {
            grid.worker(B).connects(0);
        },
        |grid| {
            grid.worker(B).connects_with(1, Bytes::mib(1));
        },
        // It sits on what it was given, as much as it may have.
        |grid| {
            grid.worker(A).disconnects();
            grid.worker(B).connects(1);
            grid.submit(job(2).quorum(2).by(201));
            assert_eq!(grid.worker(B).holds(), [0, 1]);
            grid.passes(limits::LEASE_SLACK + limits::TASK_DEADLINE_DEFAULT);
            grid.worker(A).connects(1).works_off(Duration::from_secs(1));
        },
    ];
    for make_useless in cannot {
        let mut grid = Grid::with_workers(A..=A);
        make_useless(&mut grid);
        grid.submit(job(1));
        grid.worker(A).reports(0, no_result());
        grid.passes(Duration::from_millis(200));
        assert_eq!(grid.worker(A).holds(), [0]);
    }
}

#[test]
fn too_many_attempts_without_a_result_fail_the_task() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(1));
    for _ in 0..limits::NO_RESULTS_MAX {
        grid.expect_open(0);
        grid.worker(A).reports(0, no_result());
        grid.passes(Duration::from_millis(200));
    }
    grid.expect_failed(0, "no attempt gave a result: the machine ran out of memory");
    assert_eq!(grid.result(0).verdict, TaskVerdict::NoResult(NoResult::HostMemory));
    assert_eq!(grid.result(0).attempts, limits::NO_RESULTS_MAX);
}

#[test]
fn a_program_that_kills_its_process_fails_its_task_and_nothing_else() {
    let dies = || Says::NoResult(NoResult::ChildDied);
    let mut grid = Grid::with_workers(A..=C);
    grid.submit(job(1));
    let mut tried = vec![];
    for _ in 0..limits::NO_RESULTS_MAX {
        grid.expect_open(0);
        grid.passes(Duration::from_millis(200));
        let has: Vec<u8> = (A..=C).filter(|worker| grid.worker(*worker).holds() == [0]).collect();
        let [worker] = has[..] else { panic!("one worker has it, not {has:?}") };
        tried.push(worker);
        grid.worker(worker).reports(0, dies());
    }
    let mut first: Vec<u8> = tried[..3].to_vec();
    first.sort_unstable();
    assert_eq!(first, [A, B, C], "nobody twice while there is somebody else: {tried:?}");
    grid.expect_failed(0, "no attempt gave a result: the process that ran the program died");
    assert_eq!(grid.result(0).attempts, limits::NO_RESULTS_MAX);
    assert_eq!(grid.state(), JobState::Finished);
    assert!((A..=C).all(|worker| grid.credit(worker) == CreditDelta::default()), "and no offence");

    grid.submit(job(3));
    for index in 0..3 {
        let worker = (A..=C).find(|worker| grid.worker(*worker).holds().contains(&index)).expect("given");
        grid.worker(worker).reports(index, "fine");
        grid.expect_done(index, "fine", &[worker]);
    }
}

#[test]
fn a_vote_that_came_too_late_for_its_task_earns_nothing() {
    let mut grid = Grid::with_workers(A..=C);
    grid.submit(job(1).quorum(2));
    grid.worker(A).reports(0, "right");
    grid.worker(B).reports(0, "wrong");
    let late = grid.worker(C).attempt(0);
    grid.worker(D).connects(1);
    grid.worker(C).disconnects();
    grid.passes(limits::RECONNECT_GRACE);
    grid.worker(D).reports(0, "right");
    grid.expect_done(0, "right", &[A, D]);
    grid.worker(C).connects(1);
    grid.worker(C).reports_attempt(late, "right", Duration::from_millis(1));
    assert!(grid.worker(C).is_settled(late), "so that it is not said for ever");
    grid.expect_grants(0, &[A, D]);
    assert_eq!(grid.credit(C), CreditDelta::default());
}

#[test]
fn an_output_above_the_jobs_limit_is_no_result() {
    let mut grid = Grid::with_workers(A..=B);
    grid.submit(job(1).output(Bytes::new(10)));
    let long = "x".repeat(11 + limits::TASK_STDERR_BYTES_MAX);
    grid.worker(A).reports(0, long.as_str());
    grid.expect_open(0);
    grid.worker(B).reports(0, "short");
    grid.expect_done(0, "short", &[B]);
}
