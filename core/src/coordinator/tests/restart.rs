//! The coordinator is killed and goes on from what is on disk.

use std::time::Duration;

use super::grid::{A, B, C, Grid, job, large};
use crate::{coordinator::CreditDelta, job::JobState, limits};

/// Whoever is there works off everything.
fn finish(grid: &mut Grid) {
    for round in 0.. {
        if grid.state() != JobState::Running {
            return;
        }
        assert!(round < 1000, "the job never ends");
        for worker in [A, B, C] {
            if let Some(index) = grid.worker(worker).holds().first().copied() {
                grid.worker(worker).reports(index, index.to_string().as_str());
            }
        }
        grid.passes(Duration::from_millis(200));
    }
}

#[test]
fn workers_that_come_back_go_on_where_they_were() {
    let mut grid = Grid::with_workers(A..=C);
    grid.submit(job(20).quorum(2));
    grid.worker(A).reports(0, "0");
    let held = grid.worker(A).holds();
    grid.coordinator_restarts();
    assert_eq!(grid.worker(A).holds(), held);
    for worker in A..=C {
        grid.worker(worker).connects(1);
    }
    grid.passes(limits::RECONNECT_GRACE * 2);
    assert!(grid.worker(A).holds().starts_with(&held), "nothing was taken away");
    finish(&mut grid);
    for index in 0..20 {
        assert_eq!(grid.result(index).grants.len(), 2);
        assert_eq!(grid.result(index).attempts, 2, "nothing was done twice");
    }
}

#[test]
fn leases_of_workers_that_stay_away_go_to_others_after_the_grace() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(1));
    grid.coordinator_restarts();
    grid.worker(B).connects(1);
    assert_eq!(grid.worker(B).holds(), []);
    grid.passes(limits::RECONNECT_GRACE);
    assert_eq!(grid.worker(B).holds(), [0]);
}

#[test]
fn restarting_in_the_midst_of_everything_changes_no_outcome() {
    let mut grid = Grid::with_workers(A..=C);
    grid.submit(job(8).quorum(2));
    for step in 0..8 {
        grid.worker(A).reports(step, step.to_string().as_str());
        grid.coordinator_restarts();
        for worker in A..=C {
            grid.worker(worker).connects(1);
        }
        if let Some(index) = grid.worker(B).holds().first().copied() {
            grid.worker(B).reports(index, index.to_string().as_str());
        }
    }
    finish(&mut grid);
    for index in 0..8 {
        let row = grid.result(index);
        assert!(row.verdict.is_done() && row.grants.len() == 2, "{row:?}");
    }
}

#[test]
fn what_was_not_durable_was_not_acknowledged_and_is_said_again() {
    let mut grid = Grid::with_workers(A..=B);
    grid.submit(job(2).quorum(2));
    grid.disk_stalls();
    let attempt = grid.worker(A).attempt(0);
    grid.worker(A).reports_attempt(attempt, "0", Duration::from_secs(1));
    grid.worker(B).reports(0, "0");
    grid.coordinator_restarts();
    grid.expect_open(0);
    assert!(!grid.worker(A).is_settled(attempt));
    grid.worker(A).connects(1);
    grid.worker(B).connects(1);
    grid.worker(A).reports_attempt(attempt, "0", Duration::from_secs(1));
    grid.worker(B).reports(0, "0");
    grid.expect_done(0, "0", &[A, B]);
}

#[test]
fn a_vote_survives_and_is_not_asked_for_twice() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(1).quorum(2));
    grid.worker(A).reports(0, "0");
    grid.coordinator_restarts();
    grid.worker(A).connects(1);
    assert_eq!(grid.worker(A).holds(), []);
    grid.worker(B).connects(1);
    grid.worker(B).reports(0, "0");
    grid.expect_done(0, "0", &[A, B]);
}

#[test]
fn a_repeated_vote_is_recorded_without_its_output_and_survives_too() {
    let mut grid = Grid::with_workers(A..=B);
    grid.submit(job(1).quorum(3));
    grid.worker(A).reports(0, "0");
    grid.worker(B).reports(0, "0");
    grid.coordinator_restarts();
    grid.worker(C).connects(1);
    grid.worker(C).reports(0, "0");
    grid.expect_done(0, "0", &[A, B, C]);
}

#[test]
fn an_attempt_that_was_given_up_does_not_come_back_as_a_second_vote() {
    let mut grid = Grid::default();
    grid.worker(A).connects(1);
    grid.submit(job(2).quorum(2));
    assert_eq!(grid.worker(A).holds(), [0, 1]);
    // A lost task 0, kept task 1, and was given task 0 once more.
    let lost = grid.worker(A).attempt(0);
    grid.machines.get_mut(&A).expect("a worker").holds.remove(&lost);
    grid.worker(A).connects(1);
    let again = grid.worker(A).attempt(0);
    assert_ne!(lost, again);
    grid.coordinator_restarts();
    grid.worker(A).connects(1);
    for attempt in [lost, again] {
        grid.worker(A).reports_attempt(attempt, "0", Duration::from_secs(1));
    }
    grid.expect_open(0);
    grid.worker(B).connects(1);
    grid.worker(B).reports(0, "0");
    grid.expect_done(0, "0", &[A, B]);
}

#[test]
fn ended_jobs_stay_ended_and_credit_is_granted_once() {
    let mut grid = Grid::with_workers(A..=B);
    let cancelled = grid.submit(job(3));
    grid.cancel(cancelled).expect("a job");
    grid.submit(job(1).quorum(2));
    grid.worker(A).reports(0, "0");
    grid.worker(B).reports(0, "0");
    let before: CreditDelta = grid.credit(A);
    grid.coordinator_restarts();
    assert_eq!(grid.state(), JobState::Finished);
    assert_eq!(grid.coordinator.job(cancelled).expect("known").state, JobState::Cancelled);
    grid.worker(A).connects(1);
    assert_eq!(grid.worker(A).holds(), []);
    assert_eq!(grid.credit(A), before);
    let next = grid.submit(job(1));
    assert_eq!(next.get(), 3, "numbers of jobs are not used again");
}

#[test]
fn kept_outputs_are_known_again() {
    let mut grid = Grid::with_workers(A..=B);
    grid.submit(job(1).quorum(2));
    let attempt = grid.worker(A).attempt(0);
    grid.worker(A).reports(0, large("a"));
    grid.machines.get_mut(&A).expect("a worker").holds.insert(attempt);
    grid.coordinator_restarts();
    grid.worker(A).connects(1);
    assert_eq!(grid.worker(A).holds(), [0], "the welcome does not call it unknown");
    grid.worker(B).connects(1);
    grid.worker(B).reports(0, large("a"));
    assert_eq!(grid.fetches[0].sources.len(), 2);
}

#[test]
fn a_restart_with_an_old_clock_is_no_harm() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(3));
    grid.now = grid.now - Duration::from_hours(1);
    grid.coordinator_restarts();
    grid.worker(A).connects(1);
    finish(&mut grid);
    assert_eq!(grid.state(), JobState::Finished);
}
