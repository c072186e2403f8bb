//! Second attempts where the first one takes too long.

use std::time::Duration;

use super::grid::{A, B, C, Grid, job};
use crate::{ids::AttemptId, limits};

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(20);

/// Four tasks of a second each: B has done two of them, C one, and A has one that it does not finish.
fn one_straggles(quorum: u32) -> (Grid, u64) {
    let mut grid = Grid::with_workers(A..=C);
    grid.submit(job(4).quorum(quorum));
    let index = grid.worker(A).holds()[0];
    for _ in 0..3 {
        grid.passes(SECOND);
        for worker in B..=C {
            let held = grid.worker(worker).holds();
            for index in held {
                let attempt = grid.worker(worker).attempt(index);
                grid.worker(worker).reports_attempt(attempt, "x", SECOND);
            }
        }
    }
    (grid, index)
}

#[test]
fn a_straggler_gets_company_and_the_first_result_counts() {
    for first in [A, B] {
        let (mut grid, index) = one_straggles(1);
        assert_eq!((grid.worker(B).holds(), grid.worker(C).holds()), (vec![], vec![]));
        grid.passes(LONG);
        let helper = [B, C].into_iter().find(|worker| grid.worker(*worker).holds() == [index]);
        let helper = helper.expect("an idle worker helps");
        let (winner, loser) = if first == A { (A, helper) } else { (helper, A) };
        let late = grid.worker(loser).attempt(index);
        grid.worker(winner).reports(index, "x");
        grid.expect_done(index, "x", &[winner]);
        assert_eq!(grid.worker(loser).holds(), [], "the other attempt is cancelled");
        grid.worker(loser).reports_attempt(late, "x", LONG);
        assert_eq!(grid.credit(loser).invalid, 0, "nobody is blamed");
        let quotas = grid.coordinator.workers().map(|worker| worker.in_flight_max);
        assert!(quotas.min() >= Some(limits::WORKER_IN_FLIGHT_START));
    }
}

#[test]
fn there_is_one_second_attempt_and_no_third() {
    let (mut grid, index) = one_straggles(1);
    for _ in 0..20 {
        grid.passes(LONG);
    }
    let attempts: Vec<AttemptId> = (A..=C).flat_map(|worker| grid.machines[&worker].holds.clone()).collect();
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    assert!(attempts.iter().all(|attempt| attempt.task.index == index));
}

#[test]
fn a_task_with_two_stragglers_gets_one_second_attempt() {
    let mut grid = Grid::default();
    // Slots for company are many.
    for worker in 1..=12 {
        grid.worker(worker).connects(if worker <= B { 2 } else { 8 });
    }
    grid.submit(job(48).quorum(2));
    let slow = [A, B].map(|worker| grid.worker(worker).holds());
    assert_eq!(slow[0], slow[1], "both votes on the same tasks are slow to come");
    assert!(slow[0].len() > 1, "{slow:?}");
    for _ in 0..4 {
        grid.passes(SECOND);
        for worker in 3..=12 {
            for index in grid.worker(worker).holds() {
                let attempt = grid.worker(worker).attempt(index);
                grid.worker(worker).reports_attempt(attempt, "x", SECOND);
            }
        }
    }
    grid.passes(LONG);
    for index in slow.concat() {
        let running = grid.explain(index).attempts.iter().filter(|attempt| attempt.state == "leased").count();
        assert_eq!(running, 3, "task {index}");
    }
}

#[test]
fn nobody_gets_company_too_early() {
    let (mut grid, _) = one_straggles(1);
    // A second is usual, but some seconds are nothing.
    let (elapsed, moment) = (SECOND * 3, Duration::from_millis(1));
    grid.passes(limits::STRAGGLER_AGE_MIN.saturating_sub(elapsed + moment));
    assert_eq!((grid.worker(B).holds(), grid.worker(C).holds()), (vec![], vec![]));
}

#[test]
fn no_second_attempt_is_made_while_there_is_untouched_work() {
    let mut grid = Grid::with_workers(A..=B);
    grid.submit(job(1000));
    let index = grid.worker(A).holds()[0];
    for _ in 0..30 {
        grid.passes(SECOND);
        let next = grid.worker(B).holds()[0];
        let attempt = grid.worker(B).attempt(next);
        grid.worker(B).reports_attempt(attempt, "x", SECOND);
    }
    assert!(!grid.worker(B).holds().contains(&index));
}

#[test]
fn a_worker_that_never_did_this_job_or_was_wrong_is_no_help() {
    let (mut grid, index) = one_straggles(1);
    grid.worker(B).leaves();
    grid.worker(C).leaves();
    grid.worker(4).connects(1);
    grid.passes(LONG);
    assert_eq!(grid.worker(4).holds(), [], "nobody knows whether it is fast");
    grid.worker(B).connects(1);
    grid.passes(SECOND);
    assert_eq!(grid.worker(B).holds(), [index]);
}

#[test]
fn a_second_attempt_never_goes_to_a_peer_that_had_one_of_the_task() {
    let mut grid = Grid::with_workers(A..=C);
    grid.submit(job(4).quorum(2));
    let index = grid.worker(A).holds()[0];
    for _ in 0..8 {
        grid.passes(SECOND);
        for worker in B..=C {
            for index in grid.worker(worker).holds() {
                let attempt = grid.worker(worker).attempt(index);
                grid.worker(worker).reports_attempt(attempt, "x", SECOND);
            }
        }
    }
    grid.passes(LONG);
    let voted = grid.explain(index).attempts.iter().filter(|attempt| attempt.state == "reported").count();
    assert!(voted <= 1 || grid.store.finals.contains_key(&grid.task(index)));
}

#[test]
fn after_a_restart_no_number_of_an_attempt_is_used_again() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(1));
    let mut last = 0;
    for _ in 0..5 {
        let number = grid.worker(A).attempt(0).number;
        assert!(number > last, "{number} after {last}");
        last = number;
        // It loses its work, gets it anew, and the coordinator forgets that there was an attempt in between.
        grid.worker(A).dies();
        grid.worker(A).connects(1);
        grid.worker(A).dies();
        grid.passes(limits::RECONNECT_GRACE);
        grid.worker(A).connects(0);
        grid.coordinator_restarts();
        grid.worker(A).connects(1);
    }
}
