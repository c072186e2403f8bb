//! Workers come, go, come back, and say things that they shouldn't.

use std::time::Duration;

use super::grid::{A, B, C, Grid, job, no_result, peer};
use crate::{
    coordinator::{Capacity, CreditDelta, Refusal, ToWorker},
    ids::{AttemptId, JobId, TaskId},
    job::JobState,
    limits,
    quantities::Bytes,
};

const BLINK: Duration = Duration::from_secs(1);

#[test]
fn the_work_of_a_lost_worker_goes_to_others_after_the_grace_and_is_no_failure() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(1));
    grid.worker(A).dies();
    grid.worker(B).connects(1);
    grid.passes(BLINK);
    assert_eq!(grid.worker(B).holds(), [], "it may come back");
    grid.passes(limits::RECONNECT_GRACE);
    assert_eq!(grid.worker(B).holds(), [0]);
    grid.worker(B).reports(0, "b");
    grid.expect_done(0, "b", &[B]);
    assert_eq!(grid.result(0).attempts, 1, "a lost attempt is not counted");
}

#[test]
fn losing_workers_again_and_again_never_fails_a_task() {
    let mut grid = Grid::default();
    grid.submit(job(1));
    for worker in 1..=50 {
        grid.worker(worker).connects(1);
        assert_eq!(grid.worker(worker).holds(), [0]);
        grid.worker(worker).dies();
        grid.passes(limits::RECONNECT_GRACE);
    }
    grid.worker(51).connects(1);
    grid.worker(51).reports(0, "b");
    grid.expect_done(0, "b", &[51]);
}

#[test]
fn a_worker_that_is_back_within_the_grace_goes_on() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(1));
    grid.worker(B).connects(1);
    grid.worker(A).disconnects();
    grid.passes(BLINK);
    grid.worker(A).connects(1);
    grid.passes(limits::RECONNECT_GRACE * 2);
    assert_eq!(grid.worker(B).holds(), [], "nothing was given to others");
    grid.worker(A).reports(0, "a");
    grid.expect_done(0, "a", &[A]);
}

#[test]
fn what_a_worker_lost_is_given_away_as_soon_as_it_is_back() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(1));
    grid.worker(A).dies();
    grid.worker(A).connects(1);
    assert_eq!(grid.worker(A).holds(), [0], "it may have it again");
    assert_eq!(grid.worker(A).attempt(0).number, 2);
    grid.worker(A).reports(0, "a");
    grid.expect_done(0, "a", &[A]);
}

#[test]
fn a_worker_that_lost_its_vote_after_the_grace_may_vote_again() {
    let mut grid = Grid::with_workers(A..=B);
    grid.submit(job(1).quorum(2));
    grid.worker(A).reports(0, "a");
    grid.worker(B).dies();
    // Longer than the grace: the task waits for a third peer, and there is none.
    grid.passes(limits::RECONNECT_GRACE);
    grid.worker(B).connects(1);
    assert_eq!(grid.worker(B).holds(), [0]);
    grid.worker(B).reports(0, "a");
    grid.expect_done(0, "a", &[A, B]);
}

#[test]
fn a_worker_that_was_late_and_gave_no_result_may_try_again() {
    let mut grid = Grid::with_workers(A..=B);
    grid.submit(job(1).quorum(2));
    grid.worker(A).reports(0, "a");
    grid.worker(B).disconnects();
    grid.passes(limits::RECONNECT_GRACE);
    grid.worker(B).connects(1);
    grid.worker(B).reports(0, no_result());
    grid.passes(BLINK);
    assert_eq!(grid.worker(B).holds(), [0], "nobody else is there");
}

#[test]
fn a_worker_that_leaves_gives_back_what_it_has_not_reported() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(2));
    grid.worker(B).connects(1);
    grid.worker(A).reports(0, "a");
    grid.worker(A).leaves();
    assert_eq!(grid.worker(B).holds(), [1]);
    grid.worker(B).reports(1, "b");
    grid.expect_done(0, "a", &[A]);
    grid.expect_done(1, "b", &[B]);
}

#[test]
fn a_paused_worker_keeps_what_it_runs_and_gives_back_the_rest() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(4));
    assert_eq!(grid.worker(A).holds(), [0, 1]);
    grid.worker(A).pauses(&[0]);
    grid.worker(B).connects(1);
    for _ in 0..3 {
        grid.worker(B).works_off(BLINK);
    }
    grid.expect_open(0);
    for index in 1..4 {
        // Others need not wait for its owner.
        grid.expect_grants(index, &[B]);
    }
    grid.submit(job(8));
    assert_eq!(grid.worker(A).holds(), [], "it is given nothing new");
    grid.worker(A).offers(1, Bytes::mib(1024));
    assert_eq!(grid.worker(A).holds().len(), 1, "until it has slots again");

    let kept = AttemptId { task: TaskId { job: JobId::new(1), index: 0 }, number: 1 };
    grid.worker(A).reports_attempt(kept, "a", BLINK);
    assert!(grid.worker(A).is_settled(kept));
    assert_eq!(grid.store.finals[&kept.task].attempts, 1, "what it kept counts");
}

#[test]
fn what_a_paused_worker_kept_too_long_goes_to_others_and_still_counts() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(1));
    grid.worker(A).pauses(&[0]);
    grid.worker(B).connects(1);
    grid.passes(limits::TASK_DEADLINE_DEFAULT);
    assert_eq!(grid.worker(B).holds(), []);
    grid.passes(limits::LEASE_SLACK);
    assert_eq!(grid.worker(B).holds(), [0]);
    grid.worker(A).reports(0, "a");
    grid.expect_done(0, "a", &[A]);
}

#[test]
fn a_lease_ends_at_its_deadline_and_its_attempts_go_to_others_as_well() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(1));
    grid.worker(B).connects(1);
    grid.passes(limits::TASK_DEADLINE_DEFAULT);
    assert_eq!(grid.worker(B).holds(), []);
    grid.passes(limits::LEASE_SLACK);
    assert_eq!(grid.worker(B).holds(), [0]);
    assert_eq!(grid.worker(A).holds(), [0], "a result of it would still count");
}

#[test]
fn a_late_result_counts_while_its_task_is_not_final() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(1));
    grid.worker(A).disconnects();
    grid.passes(limits::RECONNECT_GRACE);
    grid.worker(B).connects(1);
    assert_eq!(grid.worker(B).holds(), [0]);
    grid.passes(Duration::from_hours(1));
    grid.worker(A).connects(1);
    grid.worker(A).reports(0, "a");
    grid.expect_done(0, "a", &[A]);
    assert_eq!(grid.worker(B).holds(), [], "it is told not to bother");
}

#[test]
fn reports_on_what_the_peer_was_not_given_are_settled_and_change_nothing() {
    let mut grid = Grid::with_workers(A..=B);
    grid.submit(job(4).quorum(2));
    grid.worker(A).reports(0, "a");
    let own = grid.worker(A).attempt(1);
    let of_b = grid.worker(B).attempt(0);
    let wrong = [
        of_b,
        AttemptId { number: 0, ..own },
        AttemptId { number: 99, ..own },
        AttemptId { task: TaskId { index: 3, ..own.task }, number: 1 },
        AttemptId { task: TaskId { index: 4, ..own.task }, number: 1 },
        AttemptId { task: TaskId { index: u64::MAX, ..own.task }, number: u32::MAX },
        AttemptId { task: TaskId { job: JobId::new(0), index: 0 }, number: 1 },
        AttemptId { task: TaskId { job: JobId::new(77), index: 0 }, number: 1 },
    ];
    let untouched = grid.explain(3).attempts.is_empty();
    assert!(untouched, "task 3 was never leased");
    for attempt in wrong {
        let before = format!("{:?}", grid.store);
        grid.worker(A).reports_attempt(attempt, "x", BLINK);
        assert!(grid.worker(A).is_settled(attempt), "{attempt} is answered");
        assert_eq!(format!("{:?}", grid.store), before, "{attempt} changes nothing");
    }
    grid.worker(B).reports(0, "a");
    grid.expect_done(0, "a", &[A, B]);
}

#[test]
fn a_report_that_is_repeated_counts_once() {
    let mut grid = Grid::with_workers(A..=B);
    grid.submit(job(1).quorum(2));
    let attempt = grid.worker(A).attempt(0);
    for _ in 0..3 {
        grid.worker(A).hears();
        grid.worker(A).reports_attempt(attempt, "a", BLINK);
        assert!(grid.worker(A).is_settled(attempt));
        grid.expect_open(0);
    }
    // The first answer stands, whatever it says later.
    grid.worker(A).reports_attempt(attempt, "b", BLINK);
    grid.worker(B).reports(0, "a");
    grid.expect_done(0, "a", &[A, B]);
    grid.worker(A).reports_attempt(attempt, "a", BLINK);
    assert_eq!(grid.credit(A).validated, 1);
    assert_eq!(grid.result(0).attempts, 2);
}

#[test]
fn one_message_may_hold_the_same_report_twice() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(2).quorum(2));
    let attempt = grid.worker(A).attempt(0);
    grid.disk_stalls();
    grid.worker(A).reports_attempt(attempt, "a", BLINK);
    grid.worker(A).reports_attempt(attempt, "a", BLINK);
    assert!(!grid.worker(A).is_settled(attempt), "nothing is acknowledged before the commit");
    grid.disk_recovers();
    assert!(grid.worker(A).is_settled(attempt));
    assert_eq!(grid.coordinator.job(grid.job).expect("a job").shard.attempts, 1);
}

#[test]
fn a_job_that_is_cancelled_ends_at_once_for_everybody() {
    let mut grid = Grid::with_workers(A..=C);
    let id = grid.submit(job(10).quorum(2));
    grid.worker(A).reports(0, "a");
    grid.worker(B).reports(0, "a");
    let vote = grid.worker(A).attempt(1);
    grid.worker(A).reports(1, "a");
    grid.cancel(id).expect("a job");
    assert_eq!(grid.state(), JobState::Cancelled);
    for worker in [A, B, C] {
        assert_eq!(grid.worker(worker).holds(), []);
        assert!(grid.worker(worker).hears().contains(&ToWorker::Ended { job: id }));
    }
    assert!(grid.store.leases.is_empty() && grid.store.pending.is_empty());
    grid.expect_done(0, "a", &[A, B]);
    assert_eq!(grid.credit(C), CreditDelta::default());
    assert_eq!(grid.coordinator.job(id).expect("a job").cancelled(), 9);

    grid.worker(A).reports_attempt(vote, "a", BLINK);
    assert!(grid.worker(A).is_settled(vote), "what is left over is settled");
    grid.cancel(id).expect("cancelling twice is no error");
    assert_eq!(grid.cancel(JobId::new(9)), Err(Refusal::UnknownJob(JobId::new(9))));
}

#[test]
fn the_same_request_gives_the_same_job() {
    let mut grid = Grid::with_workers(A..=A);
    let first = grid.submit(job(2).request(5));
    let again = grid.submit(job(2).request(5));
    let other = grid.submit(job(2).request(6));
    assert_eq!(first, again);
    assert_ne!(first, other);
    assert_eq!(grid.store.jobs.len(), 2);
    assert_eq!(grid.coordinator.job_of_request(&[5; 16]), Some(first));
    grid.coordinator_restarts();
    assert_eq!(grid.submit(job(2).request(5)), first, "after a restart, too");
}

#[test]
fn a_newer_session_of_the_same_peer_takes_over() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(2));
    let old = grid.worker(A).session();
    let attempt = grid.worker(A).attempt(0);
    grid.worker(A).hears();
    grid.worker(A).connects(1);
    assert_eq!(grid.worker(A).hears()[0], ToWorker::Replaced);
    let now = grid.now;
    let mut fx = crate::coordinator::Effects::default();
    let report = super::grid::Says::from("a").report(attempt, BLINK);
    grid.coordinator.on_reports(now, old, vec![report], &mut fx);
    grid.coordinator.on_session_closed(now, old);
    assert!(fx.is_empty(), "the old session has no say");
    grid.passes(limits::RECONNECT_GRACE * 2);
    grid.worker(A).reports(0, "a");
    grid.expect_done(0, "a", &[A]);
    assert_eq!(grid.coordinator.workers().filter(|worker| worker.connected).count(), 1);
}

#[test]
fn what_a_worker_need_not_hold_any_longer_is_said_in_the_welcome() {
    let mut grid = Grid::with_workers(A..=A);
    let id = grid.submit(job(1));
    let attempt = grid.worker(A).attempt(0);
    grid.worker(A).disconnects();
    grid.cancel(id).expect("a job");
    grid.worker(A).hears();
    grid.worker(A).connects(1);
    assert_eq!(grid.worker(A).hears(), [ToWorker::Welcome { unknown: vec![attempt] }]);
}

#[test]
fn workers_beyond_the_limit_are_refused_and_told_so() {
    let mut grid = Grid::default();
    let (mut fx, capacity) = (crate::coordinator::Effects::default(), Capacity::default());
    let id = |number: usize| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_le_bytes());
        crate::ids::PeerId::new(id)
    };
    let mut open = |number: usize, of: usize| {
        let session = crate::ids::SessionId::new(number as u64);
        grid.coordinator.on_session_opened(grid.now, session, id(of), capacity, &[], &mut fx)
    };
    for number in 1..=limits::WORKERS_MAX {
        open(number, number).expect("room");
    }
    let refused = open(limits::WORKERS_MAX + 1, 0);
    assert_eq!(refused, Err(Refusal::TooManyWorkers(limits::WORKERS_MAX)));
    open(limits::WORKERS_MAX + 2, 7).expect("who has a session already may replace it");
    assert!(fx.batch.peers.iter().all(|row| row.id != id(0)), "a refused peer costs nothing");
}

#[test]
fn a_worker_that_comes_back_over_and_over_without_its_work_costs_no_memory() {
    let mut grid = Grid::default();
    grid.submit(job(1));
    for _ in 0..1000 {
        grid.worker(A).connects(1);
        grid.worker(A).dies();
    }
    assert!(grid.explain(0).attempts.len() < 10, "attempts that nobody has are forgotten");
}

#[test]
fn workers_that_left_for_good_are_forgotten() {
    let mut grid = Grid::with_workers(A..=A);
    grid.worker(A).disconnects();
    grid.passes(limits::WORKER_FORGOTTEN_AFTER / 2);
    assert_eq!(grid.coordinator.workers().next().map(|worker| worker.peer), Some(peer(A)));
    grid.passes(limits::WORKER_FORGOTTEN_AFTER / 2);
    assert_eq!(grid.coordinator.workers().next(), None);
}
