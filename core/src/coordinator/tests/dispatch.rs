//! Who gets what, and how much of it.

use std::time::Duration;

use super::grid::{A, B, C, Grid, job, no_result};
use crate::{ids::JobId, job::JobState, limits, quantities::Bytes};

/// Tasks of all jobs that a worker holds.
fn load(grid: &mut Grid, worker: u8) -> usize {
    grid.worker(worker);
    grid.machines[&worker].holds.len()
}

#[test]
fn a_worker_of_unknown_speed_holds_twice_its_slots() {
    let mut grid = Grid::default();
    grid.worker(A).connects(4);
    grid.submit(job(1000));
    assert_eq!(load(&mut grid, A), 8);
}

#[test]
fn a_fast_worker_holds_half_a_second_of_work() {
    let mut grid = Grid::default();
    grid.worker(A).connects(2);
    grid.submit(job(100_000));
    for _ in 0..8 {
        grid.worker(A).finishes_all(Duration::from_millis(1));
    }
    let held = load(&mut grid, A);
    assert!((800..=1010).contains(&held), "two slots of 500 × 1 ms, not {held}");
}

#[test]
fn a_slow_worker_holds_one_more_than_its_slots() {
    let mut grid = Grid::default();
    grid.worker(A).connects(4);
    grid.submit(job(1000));
    for index in 0..50 {
        grid.passes(Duration::from_mins(1));
        let attempt = grid.worker(A).attempt(index);
        grid.worker(A).reports_attempt(attempt, "x", Duration::from_mins(1));
    }
    assert_eq!(load(&mut grid, A), 5);
}

#[test]
fn a_worker_can_not_claim_more_time_than_went_by() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(1_000_000));
    for _ in 0..8 {
        grid.worker(A).finishes_all(Duration::MAX);
    }
    let held = load(&mut grid, A);
    assert!(held > 400, "its attempts took a millisecond at most, so it is kept busy: {held}");
}

#[test]
fn no_worker_holds_more_than_its_loss_may_cost() {
    let mut grid = Grid::default();
    grid.worker(A).connects_with(limits::WORKER_SLOTS_MAX, Bytes::mib(1 << 20));
    grid.submit(job(1_000_000));
    for _ in 0..9 {
        grid.worker(A).finishes_all(Duration::ZERO);
    }
    let held = load(&mut grid, A);
    assert!((limits::WORKER_IN_FLIGHT_MAX / 2..=limits::WORKER_IN_FLIGHT_MAX).contains(&held), "{held}");
}

#[test]
fn the_last_tasks_of_a_job_are_shared() {
    let mut grid = Grid::default();
    for worker in A..=C {
        grid.worker(worker).connects(1);
    }
    // All workers are fast, so that each would take everything that is left.
    grid.submit(job(3000));
    for worker in A..=C {
        for _ in 0..20 {
            let index = grid.worker(worker).holds()[0];
            let attempt = grid.worker(worker).attempt(index);
            grid.worker(worker).reports_attempt(attempt, "x", Duration::from_micros(10));
        }
    }
    let mut left = 3000 - 60;
    while left > 0 {
        for worker in A..=C {
            let held = load(&mut grid, worker);
            assert!(held <= usize::max(left / 6 + 1, 1), "half of its even share of {left}, not {held}");
        }
        let before = left;
        for worker in A..=C {
            if let Some(index) = grid.worker(worker).holds().first().copied() {
                grid.worker(worker).reports(index, "x");
                left -= 1;
            }
        }
        assert!(before - left == 3.min(before), "nobody is idle while there is work");
    }
}

#[test]
fn a_small_job_is_shared_although_one_worker_could_hold_it_all() {
    let mut grid = Grid::default();
    for worker in A..=C {
        grid.worker(worker).connects(8);
    }
    grid.submit(job(6));
    let held: Vec<usize> = (A..=C).map(|worker| load(&mut grid, worker)).collect();
    assert_eq!(held, [2, 2, 2]);
}

#[test]
fn two_submitters_share_fairly_however_many_jobs_and_tasks_each_has() {
    let mut grid = Grid::default();
    for _ in 0..5 {
        grid.submit(job(1000).by(201));
    }
    let small = grid.submit(job(1000).by(202));
    grid.worker(A).connects(50);
    let of_small = grid.machines[&A].holds.iter().filter(|attempt| attempt.task.job == small).count();
    let all = grid.machines[&A].holds.len();
    assert!((all / 3..=all * 2 / 3).contains(&of_small), "{of_small} of {all}");
}

#[test]
fn long_tasks_do_not_queue_behind_one_worker_while_another_is_idle() {
    let mut grid = Grid::default();
    grid.submit(job(16));
    grid.worker(A).connects(8);
    assert_eq!(load(&mut grid, A), 8, "what it runs, although it could queue as much again");
    grid.worker(B).connects(8);
    assert_eq!(load(&mut grid, B), 8);
}

#[test]
fn a_worker_that_lost_its_work_to_a_cancellation_gets_other_work() {
    let mut grid = Grid::with_workers(A..=B);
    let id = grid.submit(job(100));
    grid.cancel(id).expect("a job");
    grid.submit(job(100));
    assert!(!grid.worker(A).holds().is_empty() && !grid.worker(B).holds().is_empty());
}

#[test]
fn a_worker_whose_attempt_came_too_late_gets_other_work() {
    let mut grid = Grid::with_workers(A..=A);
    let first = grid.submit(job(1));
    grid.passes(limits::LEASE_SLACK + limits::TASK_DEADLINE_DEFAULT);
    grid.worker(B).connects(1);
    grid.worker(B).reports(0, "x");
    assert_eq!(grid.coordinator.job(first).expect("a job").state, JobState::Finished);
    grid.worker(B).dies();
    grid.submit(job(1));
    assert_eq!(grid.worker(A).holds(), [0]);
}

#[test]
fn jobs_of_one_submitter_run_in_the_order_of_their_age() {
    let mut grid = Grid::default();
    let first = grid.submit(job(10));
    grid.submit(job(10));
    grid.worker(A).connects(2);
    assert!(grid.machines[&A].holds.iter().all(|attempt| attempt.task.job == first));
}

#[test]
fn a_job_that_needs_more_memory_than_a_slot_has_is_not_leased_there() {
    let mut grid = Grid::default();
    grid.worker(A).connects_with(4, Bytes::mib(400));
    let large = grid.submit(job(1).memory(Bytes::mib(101)));
    grid.submit(job(1).memory(Bytes::mib(100)).by(201));
    assert_eq!(grid.worker(A).holds(), [0], "the one that fits is not held up");
    grid.job = large;
    assert_eq!(grid.worker(A).holds(), []);
    grid.worker(A).offers(2, Bytes::mib(400));
    assert_eq!(grid.worker(A).holds(), [0], "fewer slots have more memory each");
}

#[test]
fn a_paused_worker_gets_nothing() {
    let mut grid = Grid::with_workers(A..=A);
    grid.worker(A).offers(0, Bytes::mib(1 << 10));
    grid.submit(job(1));
    assert_eq!(grid.worker(A).holds(), []);
    grid.worker(A).offers(1, Bytes::mib(1 << 10));
    assert_eq!(grid.worker(A).holds(), [0]);
}

#[test]
fn an_idle_worker_is_served_when_work_arrives() {
    let mut grid = Grid::with_workers(A..=C);
    grid.submit(job(1).quorum(3));
    assert!((A..=C).all(|worker| grid.worker(worker).holds() == [0]));
}

#[test]
fn work_that_is_void_does_not_hide_other_work() {
    let mut grid = Grid::with_workers(A..=B);
    let first = grid.submit(job(2).quorum(2));
    // The second vote on task 1 is queued for a third peer, and then not needed.
    grid.worker(B).disconnects();
    grid.passes(limits::RECONNECT_GRACE);
    grid.worker(B).connects(1);
    grid.worker(A).reports(0, "x");
    grid.worker(B).reports(0, "x");
    grid.worker(A).reports(1, "x");
    grid.worker(B).offers(0, Bytes::mib(1));
    grid.worker(B).reports(1, "x");
    assert_eq!(grid.state(), JobState::Finished);

    grid.submit(job(2).quorum(2).by(201));
    grid.worker(B).dies();
    grid.passes(limits::RECONNECT_GRACE);
    let second = grid.job;
    grid.submit(job(1).by(202));
    grid.worker(C).connects(1);
    assert_eq!(grid.worker(C).holds(), [0], "after {first} and {second}");
}

#[test]
fn a_million_untouched_tasks_cost_nothing() {
    let mut grid = Grid::with_workers(A..=A);
    let id = grid.submit(job(limits::JOB_TASKS_MAX));
    let progress = grid.coordinator.job(id).expect("a job");
    assert_eq!(progress.tasks(), limits::JOB_TASKS_MAX);
    assert_eq!(progress.open, 2, "only what is leased is held in memory");
    for index in 0..100 {
        grid.worker(A).reports(index, "x");
    }
    let progress = grid.coordinator.job(id).expect("a job");
    assert_eq!(progress.open, load(&mut grid, A) as u64, "what is final is not held either");
    assert_eq!((progress.shard.low, progress.shard.done), (100, 100));
    grid.cancel(id).expect("a job");
    assert_eq!(grid.coordinator.job(id).expect("a job").open, 0);
}

#[test]
fn jobs_beyond_the_limit_are_refused_until_one_ends() {
    let mut grid = Grid::default();
    let mut fx = crate::coordinator::Effects::default();
    let submission = |number: usize| {
        let mut request = [0; 16];
        request[..8].copy_from_slice(&number.to_le_bytes());
        let spec = crate::job::tests::spec(1, 1);
        crate::job::Submission { request, submitter: super::grid::peer(9), spec, signature: None }
    };
    let now = grid.now;
    for number in 0..limits::ACTIVE_JOBS_MAX {
        grid.coordinator.on_submit(now, submission(number), &mut fx).expect("room");
    }
    let one_more = submission(limits::ACTIVE_JOBS_MAX);
    let refused = grid.coordinator.on_submit(now, one_more.clone(), &mut fx);
    let expected = Err(crate::coordinator::Refusal::TooManyJobs(limits::ACTIVE_JOBS_MAX));
    assert_eq!(refused, expected);
    let known = grid.coordinator.on_submit(now, submission(0), &mut fx);
    assert_eq!(known, Ok(JobId::new(1)), "a repeated request is no new job");
    grid.coordinator.on_cancel(now, JobId::new(1), &mut fx).expect("a job");
    grid.coordinator.on_submit(now, one_more, &mut fx).expect("room again");
}

#[test]
fn retries_go_before_untouched_tasks() {
    let mut grid = Grid::with_workers(A..=A);
    grid.submit(job(100));
    grid.worker(A).reports(0, no_result());
    grid.worker(B).connects(1);
    assert_eq!(grid.worker(B).holds()[0], 0, "what is begun is finished first");
}
