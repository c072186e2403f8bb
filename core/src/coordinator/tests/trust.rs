//! Answers weighed by what is known of those who gave them: provisional results, checks, and what happens when
//! somebody is caught.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use super::grid::{A, B, C, FUEL, Grid, job, large, peer};
use crate::{
    coordinator::{CreditDelta, RecordRow, ToWorker},
    ids::PeerNo,
    job::JobState,
    quantities::Credit,
    trust::Record,
};

/// Errors and liars in a million: one word suffices after five checks.
const ERROR: u32 = 10_000;
const LIARS: u32 = 50_000;
/// Checks after which one word suffices.
const CHECKS: u32 = 5;

impl Grid {
    fn record(&self, worker: u8) -> Record {
        let no = self.store.peers.iter().find(|(_, id)| **id == peer(worker)).expect("a known peer").0;
        self.store.records.get(no).map(|row| row.record).unwrap_or_default()
    }

    /// Tasks of the current job that are final and rest on one worker's word.
    fn provisional(&self) -> BTreeSet<u64> {
        self.store.provisional.keys().filter(|task| task.job == self.job).map(|task| task.index).collect()
    }

    fn revoked(&self) -> u64 {
        self.coordinator.job(self.job).expect("a job").shard.revoked
    }

    /// These workers report everything of the current job that they hold, until they hold nothing: what `answer` says
    /// for each worker and task.
    fn works_off(&mut self, workers: &[u8], mut answer: impl FnMut(u8, u64) -> Option<&'static str>) {
        let mut busy = true;
        while busy {
            busy = false;
            for worker in workers {
                for index in self.worker(*worker).holds() {
                    if self.worker(*worker).holds().contains(&index)
                        && let Some(answer) = answer(*worker, index)
                    {
                        busy = true;
                        self.worker(*worker).reports(index, answer);
                    }
                }
            }
        }
    }
}

/// A grid in which A, B and C passed so many checks.
fn known_grid(checks: u32) -> Grid {
    let mut grid = Grid::with_workers(A..=C);
    let record = Record { checks, caught: 0 };
    let row = |no: &PeerNo| (*no, RecordRow { record, quota: 64, ..RecordRow::default() });
    grid.store.records = grid.store.peers.keys().map(row).collect();
    grid.coordinator_restarts();
    for worker in A..=C {
        grid.worker(worker).connects(1);
    }
    grid
}

#[test]
fn newcomers_have_to_agree_and_pass_checks_by_it() {
    let mut grid = Grid::with_workers(A..=C);
    grid.submit(job(1).error_rate(1_000, 50_000));
    for worker in [A, B] {
        grid.worker(worker).reports(0, "right");
        grid.expect_open(0);
    }
    grid.worker(C).reports(0, "right");
    grid.expect_done(0, "right", &[A, B, C]);
    let checks = [A, B, C].map(|worker| grid.record(worker).checks);
    assert_eq!(checks.iter().sum::<u32>(), 1, "only who had it first could not know: {checks:?}");
    assert_eq!(grid.state(), JobState::Finished);
}

#[test]
fn a_known_worker_is_believed_for_now_and_checked_before_the_job_ends() {
    let mut grid = known_grid(CHECKS);
    grid.submit(job(1).error_rate(ERROR, LIARS));
    // The draw of this task asks for no check by itself.
    let first = (A..=C).find(|worker| !grid.worker(*worker).holds().is_empty()).expect("somebody has it");
    grid.worker(first).reports(0, "right");
    grid.expect_done(0, "right", &[first]);
    assert_eq!(grid.provisional(), [0].into());
    assert_eq!(grid.state(), JobState::Running, "it rests on one word");
    assert!(grid.worker(first).holds().is_empty(), "nobody checks themselves");
    let second = (A..=C).find(|worker| !grid.worker(*worker).holds().is_empty()).expect("it is checked");
    assert!(grid.explain(0).waits_for.starts_with("another peer to confirm"), "{:?}", grid.explain(0));
    let before = grid.record(first).checks;
    grid.worker(second).reports(0, "right");
    grid.expect_done(0, "right", &[first, second]);
    assert_eq!((grid.provisional(), grid.state(), grid.revoked()), ([].into(), JobState::Finished, 0));
    assert_eq!(grid.record(first).checks, before + 1);
}

#[test]
fn what_rests_on_a_liar_is_taken_back_in_every_job_and_done_again() {
    let mut grid = known_grid(2 * CHECKS);
    let earned = |grid: &Grid| grid.credit(A).credit;
    let before = earned(&grid);
    grid.worker(B).pauses(&[]);
    grid.worker(C).pauses(&[]);
    // Two jobs; A alone works at them, and lies.
    let first = grid.submit(job(20).error_rate(ERROR, LIARS));
    grid.works_off(&[A], |_, _| Some("wrong"));
    let second = grid.submit(job(20).error_rate(ERROR, LIARS));
    grid.works_off(&[A], |_, _| Some("wrong"));
    let resting = grid.store.provisional.len();
    assert!(resting > 10, "{resting}");
    let wrong = i128::try_from(resting).expect("few") * FUEL.credit().nanos();
    assert_eq!(earned(&grid), before + Credit::from_nanos(wrong));

    // The first that looks.
    for worker in [B, C] {
        grid.worker(worker).offers(1, crate::quantities::Bytes::mib(16 << 10));
    }
    for id in [second, first, second] {
        grid.job = id;
        grid.works_off(&[A, B, C], |worker, _| (worker != A).then_some("right"));
    }
    assert_eq!(earned(&grid), before, "nothing of it is left");
    assert_eq!(grid.record(A).checks, 0);
    assert!(grid.record(A).caught > 0);
    let revoked: u64 = [first, second].iter().map(|id| grid.store.jobs[id].1.revoked).sum();
    assert_eq!(revoked, resting as u64);
    for id in [first, second] {
        grid.job = id;
        grid.works_off(&[A, B, C], |_, _| Some("right"));
        assert_eq!(grid.state(), JobState::Finished);
        for index in 0..20 {
            assert!(grid.result(index).verdict.is_done());
            assert_eq!(grid.provisional(), [].into());
        }
    }
}

#[test]
fn a_large_result_that_rests_on_one_word_is_checked_with_the_output_of_who_checks() {
    let mut grid = known_grid(CHECKS);
    grid.submit(job(1).error_rate(ERROR, LIARS));
    for _ in 0..2 {
        let holder = (A..=C).find(|worker| !grid.worker(*worker).holds().is_empty()).expect("somebody");
        grid.worker(holder).reports(0, large("big"));
        grid.output_arrives(0, "big", &[]);
    }
    assert_eq!((grid.state(), grid.provisional()), (JobState::Finished, [].into()));
    assert_eq!(grid.result(0).grants.len(), 2);
}

#[test]
fn what_rests_on_one_word_and_who_is_known_outlive_a_restart() {
    let mut grid = known_grid(2 * CHECKS);
    let record = grid.record(A);
    grid.worker(B).pauses(&[]);
    grid.worker(C).pauses(&[]);
    grid.submit(job(10).error_rate(ERROR, LIARS));
    grid.works_off(&[A], |_, _| Some("right"));
    let resting = grid.provisional();
    assert!(!resting.is_empty());
    grid.coordinator_restarts();
    assert_eq!((grid.provisional(), grid.record(A)), (resting.clone(), record));
    for worker in [A, B, C] {
        grid.worker(worker).connects(1);
    }
    // B contradicts A, and C tells who is right.
    grid.works_off(&[A, B, C], |worker, _| Some(if worker == B { "wrong" } else { "right" }));
    assert_eq!(grid.state(), JobState::Finished);
    assert_eq!(grid.record(B).checks, 0);
    assert!(resting.iter().all(|index| grid.result(*index).verdict.is_done()));
}

#[test]
fn a_cancelled_job_keeps_what_it_has_as_it_is() {
    let mut grid = known_grid(CHECKS);
    grid.worker(B).pauses(&[]);
    grid.worker(C).pauses(&[]);
    let id = grid.submit(job(10).error_rate(ERROR, LIARS));
    grid.works_off(&[A], |_, _| Some("right"));
    let resting = grid.provisional();
    grid.cancel(id).expect("a job");
    assert_eq!(grid.provisional(), resting);
    grid.coordinator_restarts();
    assert_eq!((grid.state(), grid.provisional()), (JobState::Cancelled, resting));
}

/// Nothing in a lease tells whether anybody looks: of two tasks that a worker gets in one lease, one is drawn to be
/// checked and the other is not, and the message is what it would be if it were the other way round.
#[test]
fn a_lease_that_is_checked_is_a_lease_like_any_other() {
    let mut grid = known_grid(CHECKS);
    let (mut alone, mut checked) = (vec![], vec![]);
    let mut sizes = BTreeSet::new();
    for _ in 0..100 {
        grid.submit(job(12).error_rate(ERROR, LIARS));
        let mut leases = vec![];
        for is_begun in [false, true] {
            if is_begun {
                grid.works_off(&[A, B, C], |_, _| Some("right"));
            }
            for worker in A..=C {
                for message in grid.worker(worker).hears() {
                    if let ToWorker::Lease(row) = message
                        && row.job == grid.job
                    {
                        // Later the time depends on what a worker was seen to take.
                        let time = row.deadline.since(grid.now);
                        sizes.extend((!is_begun).then(|| format!("{time:?}")));
                        leases.extend(row.items.iter().map(|item| (item.index, item.number)));
                    }
                }
            }
        }
        let of = |index: u64| leases.iter().filter(move |(other, _)| *other == index);
        for index in 0..12 {
            match of(index).count() {
                0 => {}
                1 => alone.extend(of(index).map(|(_, number)| *number)),
                _ => checked.extend(of(index).map(|(_, number)| *number)),
            }
        }
        assert_eq!(grid.state(), JobState::Finished);
    }
    assert_eq!(sizes.len(), 1, "every lease has the same time: {sizes:?}");
    // Numbers are all that differs. They are spread alike: in each quarter of their range a quarter of them.
    assert!(alone.len() > 300 && checked.len() > 30, "{} {}", alone.len(), checked.len());
    for numbers in [&alone, &checked] {
        let distinct: BTreeSet<u32> = numbers.iter().copied().collect();
        assert_eq!(distinct.len(), numbers.len());
        for quarter in 0..4 {
            let within = numbers.iter().filter(|number| **number >> 30 == quarter).count();
            let expected = numbers.len() / 4;
            assert!(within > expected / 3 && within < expected * 2, "{within} of {expected}");
        }
    }
}

/// How a worker of a random history answers.
#[derive(Debug, Clone, Copy)]
enum Habit {
    Honest,
    /// Is honest so many times, then lies so many times, and so on.
    Turns(u8, u8),
    /// Lies in a way of its own.
    Odd,
}

fn habit() -> impl Strategy<Value = Habit> {
    prop_oneof![
        3 => Just(Habit::Honest),
        3 => (5_u8..40, 1_u8..40).prop_map(|(honest, lies)| Habit::Turns(honest, lies)),
        1 => Just(Habit::Odd),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// The store checks after each commit that credit is the sum of the grants, of each worker and of each job, and the
    /// coordinator after each event that what rests on one word is on record. What is left: a catch leaves nothing
    /// that rested on the worker's word, in any job.
    #[test]
    fn a_catch_leaves_nothing_that_rested_on_the_liar(
        habits in prop::collection::vec(habit(), 3..6),
        jobs in prop::collection::vec((3_u64..25, prop::bool::weighted(0.3)), 1..5),
        restart in prop::option::weighted(0.3, 0_usize..60),
    ) {
        let workers: Vec<u8> = (A..).take(habits.len()).collect();
        let mut grid = Grid::with_workers(A..=*workers.last().expect("some"));
        for (tasks, by_quorum) in &jobs {
            let new = job(*tasks);
            grid.submit(if *by_quorum { new.quorum(2) } else { new.error_rate(100_000, 200_000) });
        }
        let mut answers = vec![0_u32; habits.len()];
        let mut steps = 0;
        let mut held = true;
        while held {
            held = false;
            for (place, worker) in workers.iter().enumerate() {
                let Some(attempt) = grid.machines[worker].holds.first().copied() else { continue };
                held = true;
                answers[place] += 1;
                let answer = match habits[place] {
                    Habit::Turns(honest, lies) => {
                        let turn = answers[place] % u32::from(honest + lies);
                        if turn < u32::from(honest) { "right" } else { "wrong" }
                    }
                    Habit::Odd if answers[place].is_multiple_of(7) => "odd",
                    Habit::Honest | Habit::Odd => "right",
                };
                let caught = |grid: &Grid| workers.iter().map(|worker| grid.record(*worker).caught).collect::<Vec<_>>();
                let before = caught(&grid);
                grid.worker(*worker).reports_attempt(attempt, answer, Duration::from_millis(1));
                for (other, (before, after)) in workers.iter().zip(before.iter().zip(caught(&grid))) {
                    let no = grid.store.peers.iter().find(|(_, id)| **id == peer(*other)).expect("known").0;
                    let resting = grid.store.provisional.values().any(|(_, row)| row.peer == *no);
                    prop_assert!(*before == after || !resting, "{other} was caught and is still believed");
                }
                steps += 1;
                if restart == Some(steps) {
                    grid.coordinator_restarts();
                    for worker in &workers {
                        grid.worker(*worker).connects(1);
                    }
                }
            }
        }
        // Whoever is left over had an attempt of all that is open.
        for worker in 100..130 {
            grid.worker(worker).connects(4);
        }
        let mut busy = true;
        while busy {
            busy = false;
            grid.passes(Duration::from_millis(200));
            for worker in (100..130).chain(workers.iter().copied()) {
                for attempt in grid.machines[&worker].holds.clone() {
                    if grid.machines[&worker].holds.contains(&attempt) {
                        busy = true;
                        grid.worker(worker).reports_attempt(attempt, "right", Duration::from_millis(1));
                    }
                }
            }
        }
        prop_assert!(grid.store.jobs.values().all(|(row, _)| row.state == JobState::Finished));
        prop_assert!(grid.store.provisional.is_empty());
        let granted: Credit = grid.store.finals.values().flat_map(|row| &row.grants).map(|grant| grant.credit).sum();
        let shown: Credit = grid.store.credit.values().map(|delta: &CreditDelta| delta.credit).sum();
        prop_assert_eq!(granted, shown);
    }
}
