//! How many attempts a worker may hold, after what became of its earlier ones.

use std::time::Duration;

use super::grid::{A, B, C, D, Grid, Says, job, no_result, peer};
use crate::{
    coordinator::{PassedOver, ToWorker},
    limits,
    outcome::{Exit, NoResult},
    quantities::Bytes,
};

const START: usize = limits::WORKER_IN_FLIGHT_START;

fn quota(grid: &Grid, worker: u8) -> usize {
    let view = grid.coordinator.workers().find(|view| view.peer == peer(worker));
    view.expect("a known worker").in_flight_max
}

#[test]
fn a_worker_of_many_slots_begins_modestly() {
    let mut grid = Grid::default();
    grid.worker(A).connects_with(limits::WORKER_SLOTS_MAX, Bytes::mib(1 << 20));
    grid.submit(job(10_000));
    assert_eq!(grid.worker(A).holds().len(), START);
    let passed_over = grid.explain(9999).passed_over;
    assert_eq!(passed_over[0].reason, PassedOver::InFlightLimit);
    assert_eq!((passed_over[0].workers, &passed_over[0].peers[..]), (1, &[peer(A)][..]));
    grid.worker(A).finishes_all(Duration::from_millis(1));
    assert_eq!(grid.worker(A).holds().len(), 2 * START, "one more for each validated result");
}

#[test]
fn each_outcome_moves_the_limit_as_it_should() {
    let fails = || Says::Fails(Exit::Code(1), "");
    let none = |reason| Says::NoResult(reason);
    // What A says, what the two others say, and A's limit then.
    let cases = [
        ("a validated result", Says::from("x"), ["x".into(), "x".into()], START + 1),
        ("an agreed failure is as good as any result", fails(), [fails(), fails()], START + 1),
        ("a result that differs", "y".into(), ["x".into(), "x".into()], START / 2),
        ("nothing, where others have a result", no_result(), ["x".into(), "x".into()], START / 2),
        ("nothing, because it stops", none(NoResult::Stopped), ["x".into(), "x".into()], START),
    ];
    for (what, says, others, expected) in cases {
        let mut grid = Grid::with_workers(A..=C);
        grid.submit(job(1).quorum(2));
        for worker in A..=C {
            // A third vote is asked for only when the first two differ.
            if grid.worker(worker).holds() == [0] {
                let says = match worker {
                    A => says.clone(),
                    _ => others[usize::from(worker - B)].clone(),
                };
                grid.worker(worker).reports(0, says);
            }
        }
        let final_or_open = grid.store.finals.len();
        assert_eq!((final_or_open, quota(&grid, A)), (1, expected), "{what}");
    }
}

#[test]
fn a_program_that_gives_no_result_anywhere_is_nobodys_fault() {
    let mut grid = Grid::with_workers(A..=D);
    grid.submit(job(1));
    for _ in 0..limits::NO_RESULTS_MAX {
        let worker = (A..=D).find(|worker| grid.worker(*worker).holds() == [0]).expect("somebody has it");
        grid.worker(worker).reports(0, Says::NoResult(NoResult::ChildDied));
    }
    grid.result(0);
    assert!((A..=D).all(|worker| quota(&grid, worker) == START));
}

#[test]
fn who_never_answers_gets_less_and_less_but_something() {
    let mut grid = Grid::default();
    grid.worker(A).connects(4);
    grid.submit(job(10_000));
    let mut given = vec![];
    for _ in 0..10 {
        let before = grid.worker(A).holds().len();
        grid.passes(limits::LEASE_SLACK + limits::TASK_DEADLINE_DEFAULT);
        given.push(grid.worker(A).holds().len() - before);
    }
    assert_eq!(quota(&grid, A), 1, "one missing outcome halves it, {given:?}");
    assert!(given.iter().all(|more| *more <= 8), "{given:?}");
    assert_eq!(given[6..], [1, 1, 1, 1], "{given:?}");
}

#[test]
fn a_lost_connection_and_a_cancellation_cost_nothing() {
    let mut grid = Grid::default();
    grid.worker(A).connects(4);
    let id = grid.submit(job(100));
    grid.worker(A).dies();
    grid.passes(limits::RECONNECT_GRACE);
    grid.worker(A).connects(4);
    grid.cancel(id).expect("a job");
    assert_eq!(quota(&grid, A), START);
}

#[test]
fn what_was_due_while_the_coordinator_was_down_is_no_workers_fault() {
    let mut grid = Grid::default();
    grid.worker(A).connects(4);
    grid.submit(job(100));
    grid.now = grid.now + limits::LEASE_SLACK + limits::TASK_DEADLINE_DEFAULT;
    grid.coordinator_restarts();
    grid.passes(Duration::from_millis(200));
    assert_eq!(quota(&grid, A), START);
}

#[test]
fn who_had_a_bad_result_earns_its_way_back() {
    let mut grid = Grid::with_workers(A..=C);
    grid.submit(job(1).quorum(2));
    grid.worker(A).reports(0, "lie");
    grid.worker(B).reports(0, "x");
    grid.worker(C).reports(0, "x");
    assert_eq!(quota(&grid, A), START / 2);
    grid.worker(B).leaves();
    grid.worker(C).leaves();
    grid.submit(job(1000));
    while quota(&grid, A) < START {
        grid.worker(A).finishes_all(Duration::from_millis(1));
    }
}

#[test]
fn a_worker_at_its_limit_gets_more_when_others_confirm_its_results() {
    let mut grid = Grid::with_workers(B..=B);
    grid.worker(A).connects_with(limits::WORKER_SLOTS_MAX, Bytes::mib(1 << 20));
    grid.submit(job(10_000).quorum(2));
    let first = grid.worker(A).holds();
    assert_eq!(first.len(), START);
    let index = *first.iter().find(|index| grid.worker(B).holds().contains(index)).expect("B has it, too");
    grid.worker(A).reports(index, "x");
    let before = grid.worker(A).holds().len();
    grid.worker(A).hears();
    grid.worker(B).reports(index, "x");
    let leases =
        grid.worker(A).hears().iter().filter(|message| matches!(message, ToWorker::Lease(_))).count();
    assert_eq!((leases, grid.worker(A).holds().len()), (1, before + 1));
}
