//! Whose turn it is: weights of submitters, priorities of jobs, and blobs that are near.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::grid::{A, B, Grid, job};
use crate::{
    ids::{AttemptId, JobId},
    job::JobState,
    limits,
};

/// Runs a grid for a while and tells how long slots worked at each job. `task_millis` says how long an attempt
/// takes. A worker has as many slots as told, and runs what it holds in the order in which it came.
fn slot_time(
    grid: &mut Grid,
    slots: u32,
    millis: u64,
    task_millis: &BTreeMap<JobId, u64>,
) -> BTreeMap<JobId, u64> {
    /// The grid's clock moves in steps.
    const STEP: u64 = 10;
    let mut queue: Vec<AttemptId> = vec![];
    let mut running: Vec<(AttemptId, u64)> = vec![];
    let mut worked = BTreeMap::new();
    grid.worker(A).connects(slots);
    for _ in 0..millis / STEP {
        let held = &grid.machines[&A].holds;
        let new =
            held.iter().filter(|id| !queue.contains(id) && running.iter().all(|(other, _)| other != *id));
        let new: Vec<AttemptId> = new.copied().collect();
        queue.extend(new);
        let mut finished = vec![];
        for _ in 0..slots {
            // A slot goes from one short attempt to the next within a step.
            let mut left = STEP;
            if running.len() < slots as usize && !queue.is_empty() {
                running.push((queue.remove(0), 0));
            }
            let Some((mut id, mut done)) = (!running.is_empty()).then(|| running.remove(0)) else { continue };
            loop {
                let needed = task_millis[&id.task.job] - done;
                *worked.entry(id.task.job).or_default() += needed.min(left);
                if needed > left {
                    running.push((id, done + left));
                    break;
                }
                left -= needed;
                finished.push(id);
                if left == 0 || queue.is_empty() {
                    break;
                }
                (id, done) = (queue.remove(0), 0);
            }
        }
        grid.passes(Duration::from_millis(STEP));
        let report = |id: AttemptId| {
            let wall = Duration::from_millis(task_millis[&id.task.job]);
            super::grid::Says::from("x").report(id, wall)
        };
        if !finished.is_empty() {
            grid.worker(A).sends(finished.into_iter().map(report).collect());
        }
    }
    worked
}

#[test]
fn slots_are_shared_by_weight_however_long_tasks_take() {
    // Weights and times of a task of two submitters.
    let cases = [((1, 20), (1, 20)), ((1, 10), (1, 1000)), ((3, 100), (1, 20)), ((1, 400), (4, 20))];
    for ((weight_a, time_a), (weight_b, time_b)) in cases {
        let mut grid = Grid::default();
        grid.weigh(201, weight_a);
        grid.weigh(202, weight_b);
        let a = grid.submit(job(100_000).by(201));
        let b = grid.submit(job(100_000).by(202));
        let worked = slot_time(&mut grid, 4, 20_000, &[(a, time_a), (b, time_b)].into());
        let share = worked[&a] * 100 / (worked[&a] + worked[&b]);
        let fair = weight_a * 100 / (weight_a + weight_b);
        let near = fair.saturating_sub(15)..=fair + 15;
        assert!(
            near.contains(&share),
            "{share} % instead of {fair} % at {weight_a}:{weight_b}, {time_a}:{time_b}"
        );
    }
}

#[test]
fn more_submitters_than_slots_take_turns() {
    let mut grid = Grid::default();
    let jobs: Vec<JobId> = (0..5).map(|number| grid.submit(job(1000).by(201 + number))).collect();
    let times = jobs.iter().map(|id| (*id, 500)).collect();
    let worked = slot_time(&mut grid, 1, 50_000, &times);
    for id in &jobs {
        let share = worked.get(id).copied().unwrap_or(0) * 100 / 50_000;
        assert!((14..=26).contains(&share), "job {id} got {share} %: {worked:?}");
    }
}

#[test]
fn who_comes_late_gets_a_fair_share_and_no_more() {
    let mut grid = Grid::default();
    let old = grid.submit(job(100_000).by(201));
    slot_time(&mut grid, 2, 60_000, &[(old, 50)].into());
    grid.worker(A).dies();
    grid.passes(limits::RECONNECT_GRACE);
    let new = grid.submit(job(100_000).by(202));
    let worked = slot_time(&mut grid, 2, 60_000, &[(old, 50), (new, 50)].into());
    let share = worked[&new] * 100 / (worked[&new] + worked[&old]);
    assert!((35..=65).contains(&share), "{share} %");
}

#[test]
fn a_weight_survives_a_restart_and_can_be_taken_back() {
    let mut grid = Grid::with_workers(A..=A);
    let submitter = super::grid::peer(201);
    grid.weigh(201, 7);
    grid.coordinator_restarts();
    assert_eq!(grid.coordinator.weight(submitter).get(), 7, "although it never submitted anything");
    grid.weigh(201, 1);
    grid.coordinator_restarts();
    assert_eq!(grid.coordinator.weight(submitter).get(), 1);
}

#[test]
fn the_job_of_higher_priority_goes_first_and_no_other_submitter_is_outranked() {
    let mut grid = Grid::default();
    let low = grid.submit(job(10).priority(-1).by(201));
    let high = grid.submit(job(10).priority(5).by(201));
    let other = grid.submit(job(10).by(202));
    grid.worker(A).connects(4);
    let holds = |grid: &Grid, id| grid.machines[&A].holds.iter().filter(|held| held.task.job == id).count();
    let held = [low, high, other].map(|id| holds(&grid, id));
    assert!(held[0] == 0 && held[1] > 0 && held[2] > 0, "{held:?}");
    grid.prioritize(low, 6).expect("it runs");
    assert_eq!(grid.coordinator.job(low).expect("a job").standing.priority.get(), 6);
    grid.coordinator_restarts();
    assert_eq!(grid.coordinator.job(low).expect("a job").standing.priority.get(), 6);
    assert_eq!(grid.coordinator.explain_job(low).expect("a job").before, 0);
    assert_eq!(grid.coordinator.explain_job(high).expect("a job").before, 1);
    grid.worker(B).connects(1);
    assert!(grid.machines[&B].holds.iter().any(|held| held.task.job == low));
    assert!(grid.machines[&B].holds.iter().all(|held| held.task.job != high));
}

#[test]
fn a_worker_goes_on_with_the_job_whose_blobs_it_has_but_not_for_ever() {
    let mut grid = Grid::default();
    let old = grid.submit(job(1000));
    grid.pause(old).expect("a job");
    let near = grid.submit(job(1000));
    grid.worker(A).connects(1);
    assert!(grid.machines[&A].holds.iter().all(|held| held.task.job == near));
    grid.resume(old).expect("a job");
    let mut before = 0;
    while grid.machines[&A].holds.iter().all(|held| held.task.job == near) {
        before += 1;
        assert!(before < 100, "the older job waits for ever");
        let index = grid.worker(A).holds()[0];
        grid.passes(Duration::from_secs(1));
        let attempt = grid.worker(A).attempt(index);
        grid.worker(A).reports_attempt(attempt, "x", Duration::from_secs(1));
    }
    let passes = usize::try_from(limits::LOCALITY_PASSES_MAX).expect("small");
    assert!((passes / 2..=passes + 2).contains(&before), "{before}");
    grid.worker(B).connects(1);
    assert!(
        grid.machines[&B].holds.iter().all(|held| held.task.job == old),
        "who has nothing takes the oldest"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 8, ..ProptestConfig::default() })]

    /// Whatever submitters weigh and however long their tasks take, everybody gets something, and all jobs end.
    #[test]
    fn nobody_starves(
        submitters in prop::collection::vec((1_u64..=1000, -100_i64..=100, 1_u64..400), 2..6),
        slots in 1_u32..5,
    ) {
        let mut grid = Grid::default();
        let mut times = BTreeMap::new();
        for (number, (weight, priority, time)) in (0..).zip(&submitters) {
            grid.weigh(201 + number, *weight);
            times.insert(grid.submit(job(5).priority(*priority).by(201 + number)), *time);
        }
        // Twice the time that one slot needs for all of it.
        let all: u64 = times.values().map(|time| 5 * time.next_multiple_of(10)).sum();
        slot_time(&mut grid, slots, 2 * all + 1000, &times);
        for id in times.keys() {
            prop_assert_eq!(grid.coordinator.job(*id).expect("a job").state, JobState::Finished);
        }
    }

    /// Among those who always want more, nobody gets less than half of what its weight says.
    #[test]
    fn shares_follow_weights(weights in prop::collection::vec(1_u64..8, 2..5), time in 10_u64..200) {
        let mut grid = Grid::default();
        let mut times = BTreeMap::new();
        for (number, weight) in (0..).zip(&weights) {
            grid.weigh(201 + number, *weight);
            times.insert(grid.submit(job(1_000_000).by(201 + number)), time);
        }
        let worked = slot_time(&mut grid, 4, 15_000, &times);
        let (all, sum): (u64, u64) = (worked.values().sum(), weights.iter().sum());
        for (id, weight) in times.keys().zip(&weights) {
            let got = worked.get(id).copied().unwrap_or(0);
            prop_assert!(got * sum * 2 >= all * weight, "job {} got {} of {}: {:?}", id, got, all, weights);
        }
    }
}
