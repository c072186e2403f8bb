//! What people are told about a task, sentence by sentence.

use super::grid::{A, B, C, Grid, job, large, no_result};
use crate::{
    coordinator::{JobProgress, Refusal, TaskState},
    ids::{JobId, TaskId},
    job::JobState,
    limits,
    quantities::Bytes,
};

fn check(grid: &Grid, index: u64, state: TaskState, waits_for: &str) {
    let view = grid.explain(index);
    assert_eq!((view.state, view.waits_for.as_str()), (state, waits_for), "task {index}");
}

#[test]
fn an_untouched_task_waits_for_a_worker() {
    let mut grid = Grid::default();
    grid.submit(job(10).memory(Bytes::mib(512)));
    check(&grid, 9, TaskState::Queued, "no worker is connected");
    grid.worker(A).connects_with(2, Bytes::mib(600));
    check(&grid, 9, TaskState::Queued, "a worker with 512 MiB of memory per slot");
    grid.worker(B).connects_with(1, Bytes::mib(600));
    check(&grid, 9, TaskState::Queued, "a free slot: 1 worker(s) could take it");
    grid.worker(A).disconnects();
    grid.worker(B).disconnects();
    check(&grid, 9, TaskState::Queued, "no worker is connected");
}

#[test]
fn a_leased_task_is_running() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(1));
    check(&grid, 0, TaskState::Running, "1 more matching result(s) of 1; 1 attempt(s) under way");
    assert_eq!(grid.explain(0).attempts[0].state, "leased");
}

#[test]
fn a_task_with_too_few_votes_waits_for_another_peer() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(1).quorum(3));
    grid.worker(A).reports(0, "a");
    let waits_for = "2 more matching result(s) of 3: another peer: each of the 1 connected worker(s) had an attempt already";
    check(&grid, 0, TaskState::Validating, waits_for);
    grid.worker(B).connects(1);
    check(&grid, 0, TaskState::Running, "2 more matching result(s) of 3; 1 attempt(s) under way");
    grid.worker(B).reports(0, "b");
    grid.worker(C).connects_with(1, Bytes::mib(1));
    let waits_for = "2 more matching result(s) of 3: a worker with 256 MiB of memory per slot";
    check(&grid, 0, TaskState::Validating, waits_for);
    let attempts = grid.explain(0).attempts;
    assert_eq!(attempts.iter().map(|attempt| attempt.state).collect::<Vec<_>>(), ["reported", "reported"]);
    assert_eq!(attempts[0].detail, "ok");
    assert_ne!(attempts[0].digest, attempts[1].digest);
}

#[test]
fn every_end_of_an_attempt_has_its_word() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(1).quorum(2));
    grid.worker(A).reports(0, no_result());
    grid.worker(B).connects(1);
    grid.worker(B).dies();
    grid.worker(B).connects(1);
    grid.worker(B).disconnects();
    grid.passes(limits::RECONNECT_GRACE);
    let attempts = grid.explain(0).attempts;
    let words: Vec<_> = attempts.iter().map(|attempt| (attempt.number, attempt.state)).collect();
    assert_eq!(words, [(1, "no-result"), (2, "gone"), (3, "expired"), (4, "leased")]);
    assert_eq!(attempts[0].detail, "the machine ran out of memory");
}

#[test]
fn an_agreed_output_that_is_not_here_is_waited_for() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(1));
    grid.worker(A).reports(0, large("a"));
    let waits_for = "its output to be fetched from the workers that agreed on it";
    check(&grid, 0, TaskState::Validating, waits_for);
}

#[test]
fn final_tasks_are_in_the_store_and_those_of_a_cancelled_job_may_be() {
    let mut grid = Grid::with_workers(A..=A);
    let id = grid.submit(job(5));
    grid.worker(A).reports(0, "a");
    check(&grid, 0, TaskState::Final, "");
    grid.cancel(id).expect("a job");
    for index in 0..5 {
        check(&grid, index, TaskState::Cancelled, "");
    }
    assert_eq!(grid.coordinator.explain(TaskId { job: id, index: 5 }), Ok(None));
    let unknown = JobId::new(9);
    let refusal = grid.coordinator.explain(TaskId { job: unknown, index: 0 });
    assert_eq!(refusal, Err(Refusal::UnknownJob(unknown)));
    assert!(refusal.expect_err("unknown").to_string().contains("`talka job list`"));
}

#[test]
fn jobs_are_listed_newest_first_and_in_pages() {
    let mut grid = Grid::with_workers(A..=A);
    for _ in 0..5 {
        grid.submit(job(1));
    }
    grid.cancel(JobId::new(3)).expect("a job");
    let numbers = |jobs: Vec<JobProgress>| jobs.iter().map(|job| job.job.get()).collect::<Vec<_>>();
    assert_eq!(numbers(grid.coordinator.jobs(None, 2)), [5, 4]);
    assert_eq!(numbers(grid.coordinator.jobs(Some(JobId::new(4)), 9)), [3, 2, 1]);
    assert_eq!(grid.coordinator.newest_job(), Some(JobId::new(5)));
    assert_eq!(grid.coordinator.job(JobId::new(3)).expect("a job").state, JobState::Cancelled);
}
