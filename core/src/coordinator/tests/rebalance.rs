//! Work that waits behind one worker is taken back for another one.

use std::time::Duration;

use super::grid::{A, B, C, Grid, job, peer};
use crate::{ids::AttemptId, limits};

const SECOND: Duration = Duration::from_secs(1);
const MOMENT: Duration = Duration::from_millis(1);

/// Four tasks of quorum 1: A runs one and another one waits behind it; B has done the rest and is idle.
fn one_waits() -> (Grid, AttemptId) {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(4));
    assert_eq!(grid.worker(A).holds(), [0, 1]);
    grid.worker(B).connects(1);
    grid.passes(SECOND);
    grid.worker(B).works_off(MOMENT);
    let waiting = grid.attempt(1, 1);
    (grid, waiting)
}

#[test]
fn what_waits_behind_one_worker_goes_to_one_that_is_idle() {
    let (mut grid, waiting) = one_waits();
    assert_eq!(grid.worker(A).is_asked_for(), [waiting]);
    assert_eq!(grid.worker(B).holds(), [], "it is A's until A says that it has not begun it");
    grid.worker(A).gives_back(&[waiting]);
    assert_eq!((grid.worker(A).holds(), grid.worker(B).holds()), (vec![0], vec![1]));
    grid.worker(B).reports(1, "b");
    grid.expect_done(1, "b", &[B]);
    grid.worker(A).reports(0, "a");
    grid.expect_done(0, "a", &[A]);
    let quotas = grid.coordinator.workers().map(|worker| worker.in_flight_max);
    assert!(quotas.min() >= Some(limits::WORKER_IN_FLIGHT_START), "nobody is blamed");
}

#[test]
fn what_was_begun_stays_and_is_not_asked_for_again() {
    let (mut grid, waiting) = one_waits();
    assert_eq!(grid.worker(A).is_asked_for(), [waiting]);
    grid.worker(A).gives_back(&[]);
    for _ in 0..10 {
        // Not so long that it gets company as a straggler.
        grid.passes(MOMENT * 200);
    }
    assert_eq!(grid.worker(A).is_asked_for().iter().filter(|attempt| **attempt == waiting).count(), 0);
    assert!(grid.worker(A).holds().contains(&1));
    grid.worker(A).reports(1, "a");
    grid.expect_done(1, "a", &[A]);
}

#[test]
fn who_does_not_answer_is_asked_once() {
    let (mut grid, waiting) = one_waits();
    for _ in 0..10 {
        grid.passes(MOMENT * 200);
    }
    assert_eq!(grid.worker(A).is_asked_for(), [waiting]);
    grid.worker(A).reports(1, "a");
    grid.expect_done(1, "a", &[A]);
}

#[test]
fn an_answer_that_was_lost_with_its_connection_is_made_up_for() {
    let (mut grid, waiting) = one_waits();
    let machine = grid.machines.get_mut(&A).expect("a worker");
    assert!(machine.holds.remove(&waiting), "it has forgotten it, and its answer did not get through");
    grid.worker(A).disconnects();
    grid.passes(SECOND);
    assert_eq!(grid.worker(B).holds(), [], "it may come back with it");
    grid.worker(A).connects(1);
    assert_eq!((grid.worker(A).holds(), grid.worker(B).holds()), (vec![0], vec![1]));
    grid.worker(A).gives_back(&[waiting]);
    assert_eq!(grid.worker(B).holds(), [1], "an answer to what an earlier session asked says nothing");
}

#[test]
fn a_question_that_was_lost_with_its_connection_takes_nothing() {
    let (mut grid, waiting) = one_waits();
    grid.worker(A).disconnects();
    grid.worker(A).hears();
    grid.worker(A).connects(1);
    assert_eq!(grid.worker(A).holds(), [0, 1]);
    grid.passes(SECOND);
    assert_eq!(grid.worker(A).is_asked_for(), [waiting], "the new session is asked anew");
}

#[test]
fn saying_it_twice_changes_nothing_and_a_late_report_earns_nothing() {
    let (mut grid, waiting) = one_waits();
    grid.worker(A).gives_back(&[waiting]);
    let second = grid.worker(B).attempt(1);
    assert_ne!(second, waiting);
    grid.worker(A).gives_back(&[waiting, second]);
    assert_eq!(grid.worker(B).holds(), [1]);
    grid.worker(A).reports_attempt(waiting, "a", SECOND);
    grid.expect_open(1);
    grid.worker(B).reports(1, "b");
    grid.expect_done(1, "b", &[B]);
    grid.worker(A).gives_back(&[waiting]);
    assert_eq!(grid.credit(A).validated, 0);
}

#[test]
fn nobody_can_pass_leases_to_and_fro() {
    let mut grid = Grid::with_workers(A..=B);
    grid.submit(job(20));
    let held = grid.worker(A).attempt(0);
    let before = grid.worker(B).holds();
    grid.worker(A).gives_back(&[held]);
    assert_eq!(grid.worker(B).holds(), before, "it was not asked");
    grid.passes(SECOND);
    let worker = grid.coordinator.workers().find(|worker| worker.peer == peer(A)).expect("connected");
    assert_eq!(worker.in_flight, 2, "and has to answer for it");
}

#[test]
fn nothing_is_asked_for_that_the_idle_one_may_not_have() {
    let mut grid = Grid::with_workers(A..=B);
    grid.submit(job(4).quorum(2));
    grid.worker(B).works_off(MOMENT);
    grid.passes(SECOND);
    grid.worker(B).works_off(MOMENT);
    assert_eq!(grid.worker(B).holds(), [], "it has voted on all there is");
    assert_eq!(grid.worker(A).is_asked_for(), []);
    grid.worker(C).connects(1);
    grid.passes(SECOND);
    assert!(!grid.worker(C).holds().is_empty() || !grid.worker(A).is_asked_for().is_empty());
}

#[test]
fn a_short_wait_is_no_reason_to_ask() {
    let mut grid = Grid::with_workers(A..=B);
    grid.submit(job(400));
    for _ in 0..20 {
        for worker in [A, B] {
            let Some(index) = grid.worker(worker).holds().first().copied() else { continue };
            grid.worker(worker).reports(index, "x");
        }
    }
    grid.worker(B).works_off(MOMENT);
    assert_eq!(grid.worker(A).is_asked_for(), [], "what waits there takes some milliseconds");
}

#[test]
fn a_job_that_ends_meanwhile_ends() {
    let (mut grid, waiting) = one_waits();
    grid.cancel(grid.job).expect("cancelled");
    grid.worker(A).gives_back(&[waiting]);
    assert_eq!((grid.worker(A).holds(), grid.worker(B).holds()), (vec![], vec![]));
}

#[test]
fn a_restart_in_between_forgets_that_it_asked() {
    let (mut grid, waiting) = one_waits();
    grid.coordinator_restarts();
    grid.worker(A).connects(1);
    grid.worker(B).connects(1);
    grid.worker(A).gives_back(&[waiting]);
    grid.machines.get_mut(&A).expect("a worker").holds.insert(waiting);
    grid.worker(A).reports(1, "a");
    grid.expect_done(1, "a", &[A]);
}
