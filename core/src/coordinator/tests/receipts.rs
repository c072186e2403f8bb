//! What workers sign, what they are called, and what they refuse to run.

use std::time::Duration;

use super::grid::{A, B, Grid, job};
use crate::{
    coordinator::{Effects, JobRefusal, PassedOver, ToWorker},
    ids::{AttemptId, JobId, OutcomeDigest, TaskId},
    ledger::Names,
    limits,
    quantities::{Fuel, Timestamp},
    signing::Receipt,
};

fn receipt(attempt: AttemptId) -> Receipt {
    Receipt { attempt, outcome: OutcomeDigest::new([1; 32]), fuel: Fuel::new(1), resumed: false }
}

#[test]
fn receipts_are_kept_of_what_a_worker_was_given_and_of_little_else() {
    let mut grid = Grid::with_workers(A..=B);
    grid.submit(job(8).quorum(2));
    let session = grid.worker(A).session();
    let given: Vec<Receipt> = {
        let held = grid.worker(A).holds();
        held.into_iter().map(|index| receipt(grid.worker(A).attempt(index))).collect()
    };
    assert!(!given.is_empty());
    let made_up = |index| receipt(AttemptId { task: TaskId { job: JobId::new(1), index }, number: 77 });
    let made_up: Vec<Receipt> = (0..100).map(made_up).collect();
    let mut kept = |receipts: Vec<Receipt>| {
        let mut fx = Effects::default();
        grid.coordinator.on_receipts(session, [7; 64], receipts, &mut fx);
        fx.batch.receipts.pop().map(|signed| signed.receipts.len())
    };
    assert_eq!(kept(given.clone()), Some(given.len()));
    // All or nothing: what was signed together is checked together.
    let late = [&given[..], &made_up[..given.len()]].concat();
    assert_eq!(kept(late.clone()), Some(late.len()));
    assert_eq!(kept([&given[..], &made_up[..=given.len()]].concat()), None);
    assert_eq!(kept(made_up), None);
    assert_eq!(kept(vec![]), None);
}

#[test]
fn a_job_that_a_worker_refuses_goes_to_others_at_once_and_comes_back_with_its_next_session() {
    let mut grid = Grid::default();
    grid.worker(A).connects(2);
    let id = grid.submit(job(4));
    let held = grid.worker(A).holds();
    assert!(!held.is_empty());
    let session = grid.worker(A).session();
    let mut fx = Effects::default();
    // Of jobs that it was never told of a worker can say nothing.
    grid.coordinator.on_refused(
        Timestamp::from_millis(1),
        session,
        &[JobId::new(99)],
        JobRefusal::Distrusts,
        &mut fx,
    );
    grid.coordinator.on_refused(Timestamp::from_millis(1), session, &[id], JobRefusal::NoRoom, &mut fx);
    grid.coordinator.check_invariants();
    let view = grid.coordinator.explain_job(id).expect("a job");
    assert_eq!(view.passed_over[0].reason, PassedOver::NoRoom);
    grid.worker(B).connects(2).works_off(Duration::from_millis(1));
    for index in 0..4 {
        grid.expect_done(index, &index.to_string(), &[B]);
    }
    let other = grid.submit(job(2));
    grid.worker(A).disconnects();
    grid.worker(A).connects(2);
    assert!(grid.machines[&A].holds.iter().any(|held| held.task.job == other));
}

#[test]
fn a_job_for_which_there_was_no_room_comes_again_when_there_is_and_one_that_is_distrusted_does_not() {
    for (why, again) in [(JobRefusal::NoRoom, true), (JobRefusal::Distrusts, false)] {
        let mut grid = Grid::default();
        grid.worker(A).connects(1);
        let id = grid.submit(job(2).quorum(1));
        let session = grid.worker(A).session();
        let refuses = |grid: &mut Grid| {
            grid.event(|coordinator, now, fx| coordinator.on_refused(now, session, &[id], why, fx));
            // As a worker does that forgets the job.
            let machine = grid.machines.get_mut(&A).expect("connected");
            machine.holds.clear();
            machine.told.remove(&id);
            machine.inbox.clear();
        };
        let has_room =
            |grid: &mut Grid| grid.event(|coordinator, now, fx| coordinator.on_room(now, session, &[id], fx));
        refuses(&mut grid);
        has_room(&mut grid);
        assert!(grid.worker(A).holds().is_empty(), "it was refused just now");
        grid.passes(limits::ROOM_REFUSAL_MIN);
        has_room(&mut grid);
        assert_eq!(!grid.worker(A).holds().is_empty(), again, "{why:?}");
        let told = |message: &ToWorker| matches!(message, ToWorker::Job { job, .. } if *job == id);
        assert_eq!(grid.worker(A).hears().iter().any(told), again, "{why:?}: what the job is");
        let session = grid.worker(A).session();
        grid.event(|coordinator, now, fx| coordinator.on_room(now, session, &[JobId::new(99)], fx));
    }
}

#[test]
fn what_a_worker_is_called_is_recorded_with_its_time() {
    let mut grid = Grid::with_workers(A..=A);
    let session = grid.worker(A).session();
    let names = Names::new("Ada", "Žemė").expect("plain");
    let mut fx = Effects::default();
    grid.coordinator.on_names(Timestamp::from_millis(5), session, names.clone(), &mut fx);
    assert_eq!(fx.batch.names.into_values().collect::<Vec<_>>(), [names]);
    assert_eq!(fx.batch.at, Timestamp::from_millis(5));
}
