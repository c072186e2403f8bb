//! What people change while jobs run, and jobs that are meant for some peers only.

use std::time::Duration;

use super::grid::{A, B, C, Grid, job, large, no_result, peer};
use crate::{
    coordinator::{PassedOver, Refusal},
    ids::JobId,
    job::JobState,
    limits,
    quantities::Bytes,
};

#[test]
fn nothing_of_a_paused_job_is_handed_out_and_what_is_out_counts() {
    let mut grid = Grid::with_workers(A..=B);
    let id = grid.submit(job(10));
    let out = grid.worker(A).holds();
    grid.pause(id).expect("it runs");
    grid.pause(id).expect("pausing twice is no error");
    assert!(grid.coordinator.job(id).expect("a job").standing.paused);
    grid.worker(A).works_off(Duration::from_millis(1));
    for index in out {
        grid.expect_done(index, &index.to_string(), &[A]);
    }
    assert_eq!(grid.worker(A).holds(), []);
    let waits_for = "its job to be resumed: it is paused";
    assert_eq!(grid.explain(9).waits_for, waits_for);
    assert_eq!(grid.coordinator.explain_job(id).expect("a job").waits_for, waits_for);
    grid.worker(C).connects(4);
    assert_eq!(grid.worker(C).holds(), []);
    grid.resume(id).expect("it runs");
    assert!(!grid.worker(A).holds().is_empty() && !grid.worker(C).holds().is_empty(), "it goes on at once");
}

#[test]
fn a_paused_job_stays_paused_after_a_restart_and_lets_others_pass() {
    let mut grid = Grid::default();
    let id = grid.submit(job(3));
    grid.pause(id).expect("it runs");
    grid.coordinator_restarts();
    let other = grid.submit(job(1));
    grid.worker(A).connects(1);
    assert!(grid.machines[&A].holds.iter().all(|held| held.task.job == other));
    grid.resume(id).expect("it runs");
    grid.coordinator_restarts();
    grid.worker(B).connects(4);
    assert!(grid.machines[&B].holds.iter().any(|held| held.task.job == id));
}

#[test]
fn retries_and_votes_of_a_paused_job_wait() {
    let mut grid = Grid::with_workers(A..=B);
    let id = grid.submit(job(1).quorum(2));
    grid.pause(id).expect("it runs");
    grid.worker(A).reports(0, no_result());
    grid.worker(B).reports(0, "x");
    grid.worker(C).connects(1);
    grid.passes(limits::LEASE_SLACK);
    assert_eq!(grid.worker(C).holds(), []);
    grid.resume(id).expect("it runs");
    assert_eq!(grid.worker(C).holds(), [0]);
    grid.worker(C).reports(0, "x");
    grid.expect_done(0, "x", &[B, C]);
}

#[test]
fn a_paused_job_can_end_and_be_cancelled() {
    let mut grid = Grid::with_workers(A..=A);
    let id = grid.submit(job(1));
    grid.pause(id).expect("it runs");
    grid.worker(A).reports(0, large("x"));
    grid.output_arrives(0, "x", &[]);
    assert_eq!(grid.state(), JobState::Finished);
    let other = grid.submit(job(1));
    grid.pause(other).expect("it runs");
    grid.cancel(other).expect("a job");
    assert_eq!(grid.state(), JobState::Cancelled);
}

#[test]
fn a_job_that_has_ended_or_never_was_is_not_changed() {
    let mut grid = Grid::with_workers(A..=A);
    let id = grid.submit(job(1));
    grid.worker(A).reports(0, "x");
    let ended = Err(Refusal::JobEnded(id, JobState::Finished));
    assert_eq!(
        [grid.pause(id), grid.resume(id), grid.prioritize(id, 1)],
        [ended.clone(), ended.clone(), ended]
    );
    let unknown = JobId::new(9);
    assert_eq!(grid.pause(unknown), Err(Refusal::UnknownJob(unknown)));
    let text = Refusal::JobEnded(id, JobState::Finished).to_string();
    assert_eq!(text, "job 1 is finished: nothing of it can be changed any more");
}

#[test]
fn a_job_that_is_meant_for_some_peers_goes_to_nobody_else() {
    let mut grid = Grid::with_workers(A..=A);
    let id = grid.submit(job(2).quorum(2).on(&[B, C]));
    assert_eq!(grid.worker(A).holds(), []);
    let view = grid.explain(0);
    assert_eq!(view.waits_for, "one of the 2 peer(s) that its job is meant for");
    assert_eq!(view.passed_over[0].reason, PassedOver::NotTargeted);
    assert_eq!(view.passed_over[0].peers, [peer(A)]);
    grid.submit(job(1));
    assert_eq!(grid.worker(A).holds(), [0], "it is not held up");
    grid.job = id;
    grid.worker(B).connects(2);
    grid.worker(C).connects(2);
    for index in 0..2 {
        grid.worker(B).reports(index, "x");
        grid.worker(C).reports(index, "x");
        grid.expect_done(index, "x", &[B, C]);
    }
}

#[test]
fn a_targeted_peer_that_failed_is_asked_again_when_only_others_are_there() {
    let mut grid = Grid::with_workers(A..=C);
    grid.submit(job(1).on(&[B]));
    grid.worker(B).reports(0, no_result());
    grid.passes(Duration::from_millis(200));
    assert_eq!(grid.worker(B).holds(), [0]);
    assert_eq!((grid.worker(A).holds(), grid.worker(C).holds()), (vec![], vec![]));
}

#[test]
fn a_targeted_task_on_which_all_its_peers_differ_fails_instead_of_waiting_for_ever() {
    let mut grid = Grid::with_workers(A..=C);
    grid.submit(job(1).quorum(2).on(&[A, B, C]));
    grid.worker(A).reports(0, "a");
    grid.worker(B).reports(0, "b");
    grid.expect_open(0);
    grid.worker(C).reports(0, "c");
    grid.expect_failed(0, "no two groups of peers could agree on a result");
}

#[test]
fn an_idle_peer_gets_what_it_alone_may_have_when_it_arrives() {
    let mut grid = Grid::with_workers(A..=C);
    grid.submit(job(1).on(&[C]));
    assert_eq!(grid.worker(C).holds(), [0]);
}

#[test]
fn requests_of_two_submitters_are_two_requests() {
    let mut grid = Grid::default();
    let first = grid.submit(job(1).request(5).by(201));
    let second = grid.submit(job(1).request(5).by(202));
    assert_ne!(first, second, "nobody can take another one's request number");
    assert_eq!(grid.submit(job(1).request(5).by(201)), first);
    assert_eq!(grid.coordinator.job_of_request(peer(202), [5; 16]), Some(second));
    assert_eq!(grid.coordinator.job_of_request(peer(203), [5; 16]), None);
}

#[test]
fn every_reason_why_workers_are_passed_over_is_told() {
    let mut grid = Grid::default();
    let id = grid.submit(job(1).quorum(2).memory(Bytes::mib(512)));
    grid.worker(A).connects_with(1, Bytes::mib(1024));
    grid.worker(A).reports(0, "x");
    grid.worker(B).connects_with(4, Bytes::mib(1024));
    grid.worker(C).connects_with(0, Bytes::mib(1024));
    grid.worker(4).connects_with(1, Bytes::mib(100)).disconnects();
    let reasons = |groups: Vec<crate::coordinator::PassedOverGroup>| {
        groups.iter().map(|group| (group.reason, group.peers.clone())).collect::<Vec<_>>()
    };
    let expected = [
        (PassedOver::Away, vec![peer(4)]),
        (PassedOver::NoSlots, vec![peer(C)]),
        (PassedOver::TooLittleMemory, vec![peer(B)]),
        (PassedOver::HadAttempt, vec![peer(A)]),
    ];
    let view = grid.explain(0);
    assert_eq!(view.waits_for, "1 more matching result(s) of 2: a worker with 512 MiB of memory per slot");
    assert_eq!(reasons(view.passed_over), expected);
    let view = grid.coordinator.explain_job(id).expect("a job");
    assert_eq!(reasons(view.passed_over).len(), 3, "{:?}", grid.coordinator.explain_job(id));
    for (reason, _) in expected {
        assert!(!reason.to_string().is_empty() && !reason.code().contains(' '));
    }
}

#[test]
fn many_workers_that_are_passed_over_are_counted_and_some_are_named() {
    let mut grid = Grid::default();
    grid.submit(job(1).memory(Bytes::mib(512)));
    for worker in 1..=20 {
        grid.worker(worker).connects_with(1, Bytes::mib(100));
    }
    let [group] = &grid.explain(0).passed_over[..] else { panic!("one reason") };
    assert_eq!((group.workers, group.peers.len()), (20, limits::EXPLAINED_PEERS_MAX));
}
