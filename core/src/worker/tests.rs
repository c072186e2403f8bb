//! The worker, event by event, with slots that do what they are told.

mod inline;
mod kept;
mod recalled;

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use proptest::prelude::*;

use super::{Assignment, Effects, Fetch, Load, Running, Start, Worker};
use crate::{
    coordinator::{Report, ReportOutcome, ReportOutput},
    ids::{AttemptId, BlobHash, InputDigest, JobId, OutcomeDigest, SlotNo, TaskId},
    job::{BlobRef, tests::spec},
    limits,
    outcome::{Exit, NoResult, Output},
    quantities::{Bytes, Fuel},
};

/// The only job of most scripts.
const JOB: JobId = JobId::new(1);
const OTHER: JobId = JobId::new(2);
/// What that job needs: there are no packed inputs.
const PROGRAM: Fetch = Fetch { job: JOB, inputs: false };

fn all_of(job: JobId) -> Fetch {
    Fetch { job, inputs: true }
}

fn attempt_of(job: JobId, index: u64) -> AttemptId {
    AttemptId { task: TaskId { job, index }, number: 1 }
}

fn attempt(index: u64) -> AttemptId {
    attempt_of(JOB, index)
}

fn attempts(indices: Range<u64>) -> Vec<AttemptId> {
    indices.map(attempt).collect()
}

fn assignments(job: JobId, indices: Range<u64>) -> Vec<Assignment> {
    indices.map(|index| Assignment { attempt: attempt_of(job, index), input: 0..0, inline: None }).collect()
}

fn report(attempt: AttemptId, bytes: usize, wall_micros: u64) -> Report {
    let output = Output { stdout: vec![b'x'; bytes], ..Output::default() };
    let outcome = ReportOutcome::Execution {
        input: InputDigest::new([7; 32]),
        exit: Exit::Ok,
        fuel: Fuel::new(1),
        resumed: false,
        output: ReportOutput::Inline(Arc::new(output)),
    };
    Report { attempt, outcome, wall_micros }
}

fn large(attempt: AttemptId) -> Report {
    let mut report = report(attempt, 0, 1000);
    if let ReportOutcome::Execution { output, .. } = &mut report.outcome {
        let blob = BlobRef { hash: BlobHash::new([1; 32]), size: Bytes::mib(1) };
        *output = ReportOutput::Remote { blob, digest: OutcomeDigest::new([1; 32]) };
    }
    report
}

/// A worker and what it asked for. Slots hold their batches until the script finishes or stops them.
struct Rig {
    worker: Worker,
    slots: BTreeMap<SlotNo, Vec<AttemptId>>,
    /// Messages of reports, by the attempts in them.
    sent: Vec<Vec<AttemptId>>,
    fx: Effects,
}

impl Rig {
    /// A welcome worker that knows the job and has its blobs.
    fn ready(slots: u32) -> Self {
        let mut rig =
            Self { worker: Worker::new(slots), slots: BTreeMap::new(), sent: vec![], fx: Effects::default() };
        rig.welcome(&[]);
        rig.introduce(JOB);
        rig
    }

    fn introduce(&mut self, job: JobId) {
        self.act(|worker, fx| worker.on_job(job, Arc::new(spec(1000, 1)), fx));
        self.act(|worker, fx| worker.on_fetched(all_of(job), fx));
    }

    fn act(&mut self, event: impl FnOnce(&mut Worker, &mut Effects)) {
        let mut fx = Effects::default();
        event(&mut self.worker, &mut fx);
        for Start { slot, job, batch } in &fx.start {
            assert!(batch.iter().all(|item| item.attempt.task.job == *job), "a batch is of one job");
            let batch: Vec<_> = batch.iter().map(|item| item.attempt).collect();
            assert!(!batch.is_empty(), "an empty batch");
            let before = self.slots.insert(*slot, batch);
            assert!(before.is_none_or(|batch| batch.is_empty()), "{slot} is busy");
        }
        for message in &fx.reports {
            self.sent.push(message.iter().map(|report| report.attempt).collect());
        }
        self.fx = fx;
    }

    fn welcome(&mut self, unknown: &[AttemptId]) {
        self.act(|worker, fx| worker.on_welcome(unknown, fx));
    }

    fn lease(&mut self, indices: Range<u64>) {
        self.lease_of(JOB, indices);
    }

    fn lease_of(&mut self, job: JobId, indices: Range<u64>) {
        self.act(|worker, fx| worker.on_lease(job, assignments(job, indices), fx));
    }

    /// The running attempt of a slot ends.
    fn finish(&mut self, slot: u32) -> AttemptId {
        let attempt = self.running(slot).expect("a slot that runs something");
        self.finish_as(slot, report(attempt, 1, 1000));
        attempt
    }

    fn finish_as(&mut self, slot: u32, report: Report) {
        let slot = SlotNo::new(slot);
        if let Some(batch) = self.slots.get_mut(&slot).filter(|batch| batch.first() == Some(&report.attempt))
        {
            batch.remove(0);
        }
        self.act(|worker, fx| {
            worker.on_finished(slot, report, fx);
            worker.flush(fx);
        });
    }

    fn stopped(&mut self, slot: u32) {
        self.slots.remove(&SlotNo::new(slot));
        self.act(|worker, fx| worker.on_stopped(SlotNo::new(slot), fx));
    }

    fn settle(&mut self, attempts: &[AttemptId], released: &[AttemptId]) {
        self.act(|worker, fx| worker.on_settled(attempts, released, fx));
    }

    fn cancel(&mut self, attempts: &[AttemptId]) {
        self.act(|worker, fx| worker.on_cancelled(attempts, fx));
    }

    fn running(&self, slot: u32) -> Option<AttemptId> {
        self.slots.get(&SlotNo::new(slot)).and_then(|batch| batch.first().copied())
    }

    fn batch(&self, slot: u32) -> &[AttemptId] {
        self.slots.get(&SlotNo::new(slot)).map_or(&[], Vec::as_slice)
    }

    fn sends(&mut self) -> Vec<Vec<AttemptId>> {
        std::mem::take(&mut self.sent)
    }
}

#[test]
fn a_jobs_blobs_are_fetched_once_before_its_first_attempt() {
    let mut worker = Worker::new(2);
    let mut fx = Effects::default();
    worker.on_welcome(&[], &mut fx);
    worker.on_job(JOB, Arc::new(spec(10, 1)), &mut fx);
    assert_eq!(fx.fetch, [], "not before there is something to run");
    worker.on_lease(JOB, assignments(JOB, 0..1), &mut fx);
    worker.on_lease(JOB, assignments(JOB, 1..3), &mut fx);
    assert_eq!(fx.fetch, [PROGRAM]);
    assert!(fx.start.is_empty());
    assert_eq!(worker.load(), Load { fetching: 3, ..Load::default() });
    worker.on_fetched(all_of(JOB), &mut fx);
    assert_eq!(fx.start.len(), 2);
    assert_eq!(worker.load(), Load { queued: 1, running: 2, ..Load::default() });
}

/// A shell gathers what several messages lead to: after a lost session, the welcome, the job and its lease come at once.
#[test]
fn a_job_that_comes_again_at_once_is_fetched_and_not_forgotten() {
    let mut worker = Worker::new(1);
    let mut fx = Effects::default();
    worker.on_welcome(&[], &mut fx);
    worker.on_job(JOB, Arc::new(spec(10, 1)), &mut fx);
    worker.on_disconnected();
    let mut fx = Effects::default();
    worker.on_welcome(&[], &mut fx);
    assert_eq!(fx.forget, [JOB], "nothing of it is held");
    worker.on_job(JOB, Arc::new(spec(10, 1)), &mut fx);
    worker.on_lease(JOB, assignments(JOB, 0..1), &mut fx);
    assert_eq!((fx.fetch, fx.forget), (vec![PROGRAM], vec![]), "or what is fetched would be thrown away");
}

#[test]
fn a_job_that_cannot_be_fetched_gives_no_result_and_is_tried_again() {
    let mut worker = Worker::new(1);
    let mut fx = Effects::default();
    worker.on_welcome(&[], &mut fx);
    worker.on_job(JOB, Arc::new(spec(10, 1)), &mut fx);
    worker.on_lease(JOB, assignments(JOB, 0..2), &mut fx);
    let mut fx = Effects::default();
    worker.on_fetch_failed(JOB, &ReportOutcome::NoResult(NoResult::Fetch), &mut fx);
    let reported: Vec<_> = fx.reports.concat().iter().map(|report| report.attempt).collect();
    assert_eq!(reported, attempts(0..2));
    let mut fx = Effects::default();
    worker.on_lease(JOB, assignments(JOB, 2..3), &mut fx);
    assert_eq!(fx.fetch, [PROGRAM]);
}

#[test]
fn an_attempt_of_unknown_length_goes_to_a_slot_alone() {
    let mut rig = Rig::ready(2);
    rig.lease(0..100);
    assert_eq!((rig.batch(0), rig.batch(1)), (&attempts(0..1)[..], &attempts(1..2)[..]));
}

#[test]
fn short_attempts_go_in_batches_of_some_20_milliseconds() {
    let mut rig = Rig::ready(1);
    rig.lease(0..1000);
    rig.finish(0);
    assert_eq!(rig.batch(0), attempts(1..21), "attempts of 1 ms");
    for _ in 0..20 {
        let attempt = rig.running(0).expect("a batch");
        rig.finish_as(0, report(attempt, 1, 0));
    }
    assert!(rig.batch(0).len() > 200, "shorter ones in larger batches, not {}", rig.batch(0).len());
    assert!(rig.batch(0).len() <= 256);
}

#[test]
fn a_batch_is_no_more_than_a_slots_even_share() {
    let mut rig = Rig::ready(4);
    rig.lease(0..4);
    rig.lease(4..12);
    rig.finish(2);
    assert_eq!(rig.batch(2), attempts(4..6), "8 attempts, 4 slots");
}

#[test]
fn long_attempts_run_one_by_one() {
    let mut rig = Rig::ready(1);
    rig.lease(0..10);
    let first = rig.running(0).expect("running");
    rig.finish_as(0, report(first, 1, 60_000_000));
    assert_eq!(rig.batch(0), attempts(1..2));
}

#[test]
fn jobs_run_in_the_order_in_which_they_were_leased() {
    let mut rig = Rig::ready(1);
    rig.introduce(OTHER);
    rig.lease_of(OTHER, 0..1);
    rig.lease_of(OTHER, 1..2);
    rig.lease(0..2);
    rig.lease_of(OTHER, 2..3);
    let mut order = vec![];
    while let Some(attempt) = rig.running(0) {
        order.push(attempt);
        rig.finish_as(0, report(attempt, 1, 1_000_000));
    }
    let expected = [
        attempt_of(OTHER, 0),
        attempt_of(OTHER, 1),
        attempt_of(JOB, 0),
        attempt_of(JOB, 1),
        attempt_of(OTHER, 2),
    ];
    assert_eq!(order, expected);
}

#[test]
fn a_job_that_keeps_coming_does_not_starve_another() {
    let mut rig = Rig::ready(1);
    rig.introduce(OTHER);
    rig.lease(0..2);
    rig.lease_of(OTHER, 0..1);
    for round in 1..100 {
        let attempt = rig.running(0).expect("work");
        if attempt.task.job == OTHER {
            return;
        }
        rig.finish_as(0, report(attempt, 1, 1_000_000));
        rig.lease(round * 2..round * 2 + 2);
    }
    panic!("the other job never runs");
}

#[test]
fn a_result_is_reported_at_once_and_forgotten_when_settled() {
    let mut rig = Rig::ready(1);
    rig.lease(0..1);
    rig.finish(0);
    assert_eq!(rig.sends(), [attempts(0..1)]);
    assert_eq!(rig.worker.holding(), attempts(0..1), "until it is settled");
    rig.settle(&attempts(0..1), &attempts(0..1));
    assert_eq!(rig.worker.holding(), []);
    assert_eq!(rig.worker.load(), Load::default());
}

#[test]
fn while_four_messages_are_unanswered_results_gather_in_one() {
    let mut rig = Rig::ready(10);
    rig.lease(0..10);
    for slot in 0..10 {
        rig.finish(slot);
    }
    let sent = rig.sends();
    assert_eq!(sent, [attempts(0..1), attempts(1..2), attempts(2..3), attempts(3..4)]);
    rig.settle(&sent[0], &[]);
    assert_eq!(rig.sends(), [attempts(4..10)], "one answer, one larger message");
    rig.settle(&[], &attempts(4..5));
    assert_eq!(rig.sends(), [] as [Vec<AttemptId>; 0], "a release is no answer");
}

#[test]
fn messages_of_reports_are_bounded_in_count_and_bytes() {
    let mut rig = Rig::ready(1024);
    rig.worker.on_disconnected();
    rig.lease(0..1024);
    for slot in 0..1024 {
        rig.finish(slot);
    }
    rig.welcome(&[]);
    assert_eq!(rig.sends().iter().map(Vec::len).collect::<Vec<_>>(), [limits::REPORTS_MAX; 2]);

    let mut rig = Rig::ready(100);
    rig.worker.on_disconnected();
    rig.lease(0..100);
    for slot in 0..100 {
        let attempt = rig.running(slot).expect("running");
        rig.finish_as(slot, report(attempt, 60 << 10, 1000));
    }
    rig.welcome(&[]);
    let sent = rig.sends();
    assert_eq!(sent.len(), 4, "no more than the window");
    assert!(sent.iter().all(|message| message.len() == limits::REPORTS_BYTES_MAX / (60 << 10)), "{sent:?}");
}

#[test]
fn a_report_above_the_bound_travels_alone() {
    let mut rig = Rig::ready(3);
    rig.worker.on_disconnected();
    rig.lease(0..3);
    for slot in 0..3 {
        let attempt = rig.running(slot).expect("running");
        rig.finish_as(slot, report(attempt, limits::REPORTS_BYTES_MAX + 1, 1000));
    }
    rig.welcome(&[]);
    assert_eq!(rig.sends(), [attempts(0..1), attempts(1..2), attempts(2..3)]);
}

#[test]
fn reports_are_repeated_on_each_session_until_they_are_settled() {
    let mut rig = Rig::ready(2);
    rig.lease(0..2);
    rig.finish(0);
    rig.finish(1);
    for _ in 0..3 {
        rig.sends();
        rig.worker.on_disconnected();
        rig.welcome(&[]);
        assert_eq!(rig.sends(), [attempts(0..2)]);
    }
    rig.settle(&attempts(0..1), &[]);
    rig.welcome(&[]);
    assert_eq!(rig.sends(), [attempts(1..2)]);
}

#[test]
fn work_goes_on_without_a_session() {
    let mut rig = Rig::ready(1);
    rig.lease(0..3);
    rig.worker.on_disconnected();
    rig.finish(0);
    rig.finish(0);
    rig.finish(0);
    assert_eq!(rig.sends(), [] as [Vec<AttemptId>; 0]);
    assert_eq!(rig.worker.holding(), attempts(0..3));
    rig.welcome(&[]);
    assert_eq!(rig.sends(), [attempts(0..3)]);
}

#[test]
fn an_attempt_that_waits_is_cancelled_without_a_trace() {
    let mut rig = Rig::ready(1);
    rig.lease(0..3);
    rig.cancel(&attempts(1..2));
    assert_eq!(rig.fx.stop, []);
    assert_eq!(rig.worker.holding(), [attempt(0), attempt(2)]);
    rig.finish(0);
    assert_eq!(rig.running(0), Some(attempt(2)));
}

#[test]
fn an_attempt_that_runs_is_stopped_and_the_rest_of_its_batch_comes_again() {
    let mut rig = Rig::ready(1);
    rig.lease(0..6);
    rig.finish(0);
    assert_eq!(rig.batch(0), attempts(1..6));
    rig.cancel(&attempts(1..2));
    assert_eq!(rig.fx.stop, [SlotNo::new(0)]);
    assert_eq!(rig.worker.holding(), [attempt(0), attempt(2), attempt(3), attempt(4), attempt(5)]);
    rig.stopped(0);
    assert_eq!(rig.batch(0), attempts(2..6), "in the same order");
    while rig.running(0).is_some() {
        rig.finish(0);
    }
    assert!(!rig.worker.holding().contains(&attempt(1)));
}

#[test]
fn a_later_attempt_of_a_batch_is_cancelled_without_stopping_the_slot() {
    let mut rig = Rig::ready(1);
    rig.lease(0..4);
    rig.finish(0);
    rig.cancel(&attempts(2..3));
    assert_eq!(rig.fx.stop, []);
    rig.sends();
    rig.finish(0);
    rig.finish(0);
    assert_eq!(rig.fx.release, attempts(2..3), "its result is thrown away");
    rig.finish(0);
    assert_eq!(rig.sends().concat(), [attempt(1), attempt(3)]);
}

#[test]
fn a_reported_attempt_that_is_cancelled_is_not_repeated() {
    let mut rig = Rig::ready(1);
    rig.lease(0..1);
    let first = rig.running(0).expect("running");
    rig.finish_as(0, large(first));
    rig.cancel(&[first]);
    assert_eq!(rig.fx.release, [first]);
    rig.sends();
    rig.worker.on_disconnected();
    rig.welcome(&[]);
    assert_eq!(rig.sends(), [] as [Vec<AttemptId>; 0]);
    assert_eq!(rig.worker.load(), Load::default());
}

#[test]
fn a_result_that_comes_in_the_moment_of_its_cancellation_is_dropped() {
    let mut rig = Rig::ready(1);
    rig.lease(0..2);
    rig.cancel(&attempts(0..1));
    assert_eq!(rig.fx.stop, [SlotNo::new(0)]);
    rig.finish(0);
    assert_eq!(rig.sends(), [] as [Vec<AttemptId>; 0]);
    assert_eq!(rig.running(0), Some(attempt(1)), "the slot goes on");
}

#[test]
fn a_result_of_a_stopped_batch_does_not_disturb_the_next_one() {
    let mut rig = Rig::ready(1);
    rig.lease(0..2);
    rig.cancel(&attempts(0..1));
    rig.stopped(0);
    assert_eq!(rig.running(0), Some(attempt(1)));
    rig.finish_as(0, report(attempt(0), 1, 1000));
    assert_eq!(rig.fx.release, attempts(0..1));
    assert_eq!(rig.sends(), [] as [Vec<AttemptId>; 0]);
    assert_eq!(rig.finish(0), attempt(1));
    assert_eq!(rig.sends(), [attempts(1..2)]);
}

#[test]
fn what_the_coordinator_does_not_know_is_dropped_at_the_welcome() {
    let mut rig = Rig::ready(1);
    rig.lease(0..3);
    rig.finish(0);
    rig.worker.on_disconnected();
    rig.sends();
    rig.welcome(&attempts(0..2));
    assert_eq!(rig.fx.stop, [SlotNo::new(0)]);
    assert_eq!(rig.sends(), [] as [Vec<AttemptId>; 0]);
    assert_eq!(rig.worker.holding(), attempts(2..3));
}

#[test]
fn a_job_is_forgotten_at_the_welcome_when_nothing_of_it_is_wanted() {
    let mut rig = Rig::ready(1);
    rig.lease(0..1);
    rig.welcome(&attempts(0..1));
    assert_eq!(rig.fx.forget, [JOB], "although its last attempt has yet to stop");
    rig.stopped(0);
    assert!(rig.worker.spec(JOB).is_none());
    rig.lease(1..2);
    assert_eq!(rig.running(0), None, "a lease of a job that was not introduced is ignored");
}

#[test]
fn the_end_of_a_job_drops_everything_of_it_and_nothing_else() {
    let mut rig = Rig::ready(2);
    rig.introduce(OTHER);
    rig.lease(0..3);
    rig.finish(0);
    rig.lease_of(OTHER, 0..1);
    rig.act(|worker, fx| worker.on_ended(JOB, fx));
    assert_eq!(rig.fx.forget, [JOB]);
    assert_eq!(rig.fx.stop.len(), 2);
    assert_eq!(rig.worker.holding(), [attempt_of(OTHER, 0)]);
    rig.stopped(0);
    rig.stopped(1);
    assert_eq!(rig.running(0), Some(attempt_of(OTHER, 0)));
    rig.act(|worker, fx| worker.on_ended(JOB, fx));
    assert_eq!(rig.fx.forget, [], "once");
}

#[test]
fn a_large_output_is_kept_until_it_is_released() {
    let mut rig = Rig::ready(1);
    rig.lease(0..1);
    rig.finish_as(0, large(attempt(0)));
    rig.settle(&attempts(0..1), &[]);
    assert_eq!(rig.worker.holding(), attempts(0..1), "on record, but its output is needed");
    assert_eq!(rig.worker.load().unsettled, 0);
    rig.sends();
    rig.welcome(&[]);
    assert_eq!(rig.sends(), [] as [Vec<AttemptId>; 0], "what is settled is not repeated");
    rig.settle(&[], &attempts(0..1));
    assert_eq!(rig.fx.release, attempts(0..1));
    assert_eq!(rig.worker.holding(), []);
}

#[test]
fn a_large_output_is_released_whatever_the_order_of_the_messages() {
    for messages in [[true, false], [false, true]] {
        let mut rig = Rig::ready(1);
        rig.lease(0..1);
        rig.finish_as(0, large(attempt(0)));
        let mut released = vec![];
        for release in messages {
            let (settled, gone) = if release { (vec![], attempts(0..1)) } else { (attempts(0..1), vec![]) };
            rig.settle(&settled, &gone);
            released.append(&mut rig.fx.release);
        }
        assert_eq!(released, attempts(0..1));
        assert_eq!(rig.worker.holding(), []);
        assert_eq!(rig.worker.load(), Load::default());
    }
}

#[test]
fn a_lease_that_is_repeated_runs_once() {
    let mut rig = Rig::ready(1);
    rig.lease(0..2);
    rig.lease(0..2);
    assert_eq!(rig.worker.load(), Load { queued: 1, running: 1, ..Load::default() });
    rig.finish(0);
    rig.lease(0..2);
    rig.finish(0);
    assert_eq!(rig.running(0), None);
}

#[test]
fn attempts_of_another_job_in_a_lease_are_ignored() {
    let mut rig = Rig::ready(1);
    rig.act(|worker, fx| worker.on_lease(JOB, assignments(OTHER, 0..2), fx));
    rig.act(|worker, fx| worker.on_lease(OTHER, assignments(OTHER, 0..2), fx));
    assert_eq!(rig.worker.holding(), []);
}

#[test]
fn a_coordinator_cannot_make_a_worker_hold_without_end() {
    let mut rig = Rig::ready(1);
    for part in 0..100 {
        rig.lease(part * 1000..(part + 1) * 1000);
    }
    assert_eq!(rig.worker.holding().len(), limits::WORKER_HELD_MAX + limits::WORKER_IN_FLIGHT_MAX);
}

#[test]
fn nothing_new_runs_while_too_much_is_unsettled() {
    let mut rig = Rig::ready(1);
    let max = limits::WORKER_HELD_MAX as u64;
    rig.lease(0..max + 100);
    let mut finished = 0;
    while let Some(attempt) = rig.running(0) {
        rig.finish_as(0, report(attempt, 0, 0));
        finished += 1;
    }
    assert!((max..max + 256).contains(&finished), "{finished}");
    rig.settle(&attempts(0..512), &attempts(0..512));
    assert!(rig.running(0).is_some(), "it goes on when there is room");
}

#[test]
fn draining_finishes_what_runs_and_gives_back_the_rest() {
    let mut rig = Rig::ready(2);
    rig.lease(0..10);
    rig.worker.drain();
    assert_eq!(rig.worker.holding(), attempts(0..2));
    assert!(!rig.worker.is_drained());
    rig.lease(10..12);
    rig.finish(0);
    rig.finish(1);
    assert_eq!((rig.running(0), rig.running(1)), (None, None));
    assert!(!rig.worker.is_drained(), "its results are not settled");
    rig.settle(&attempts(0..2), &attempts(0..2));
    assert!(rig.worker.is_drained());
}

#[test]
fn draining_without_a_session_waits_for_nobody() {
    let mut rig = Rig::ready(1);
    rig.lease(0..1);
    rig.worker.drain();
    rig.finish(0);
    assert!(!rig.worker.is_drained());
    rig.worker.on_disconnected();
    assert!(rig.worker.is_drained());
}

#[test]
fn a_paused_worker_keeps_what_runs_and_takes_nothing() {
    let mut rig = Rig::ready(2);
    rig.lease(0..10);
    rig.worker.pause();
    assert!(!rig.worker.takes_work());
    assert_eq!(rig.worker.holding(), attempts(0..2), "what waits is given back");
    rig.lease(10..12);
    assert_eq!(rig.worker.holding(), attempts(0..2), "what was on its way is not taken");
    // A slot may have finished in the moment of the pause.
    rig.finish(0);
    assert_eq!(rig.running(0), None);
    assert_eq!(rig.sends(), [attempts(0..1)], "and is reported");
    let running = Running { attempt: attempt(1), behind: 0 };
    assert_eq!(rig.worker.slots().collect::<Vec<_>>(), [None, Some(running)]);

    rig.act(Worker::resume);
    rig.lease(12..13);
    assert_eq!((rig.running(0), rig.running(1)), (Some(attempt(12)), Some(attempt(1))));
}

#[test]
fn what_a_stopped_slot_gives_back_during_a_pause_runs_afterwards() {
    let mut rig = Rig::ready(1);
    rig.lease(0..4);
    rig.finish(0);
    assert_eq!(rig.batch(0), attempts(1..4));
    rig.worker.pause();
    rig.cancel(&attempts(1..2));
    rig.stopped(0);
    assert_eq!((rig.running(0), rig.worker.holding()), (None, vec![attempt(0), attempt(2), attempt(3)]));
    rig.act(Worker::resume);
    assert_eq!(rig.batch(0), attempts(2..4));
}

#[test]
fn a_worker_that_finishes_does_not_start_anew_at_the_end_of_a_pause() {
    let mut rig = Rig::ready(1);
    rig.lease(0..3);
    rig.worker.pause();
    rig.worker.drain();
    rig.act(Worker::resume);
    rig.finish(0);
    rig.lease(3..5);
    assert_eq!((rig.running(0), rig.worker.takes_work()), (None, false));
}

#[test]
fn outputs_that_may_be_fetched_are_known() {
    let mut rig = Rig::ready(1);
    rig.lease(0..1);
    rig.finish_as(0, large(attempt(0)));
    assert!(!rig.worker.keeps_outputs(), "its report comes first");
    rig.settle(&attempts(0..1), &[]);
    assert!(rig.worker.keeps_outputs());
    rig.settle(&[], &attempts(0..1));
    assert!(!rig.worker.keeps_outputs());
}

/// A worker that was started again and has checkpoints of these attempts.
fn restored(indices: Range<u64>) -> Rig {
    let mut worker = Worker::new(2);
    for assignment in assignments(JOB, indices) {
        worker.on_restored(&Arc::new(spec(1000, 1)), assignment);
    }
    Rig { worker, slots: BTreeMap::new(), sent: vec![], fx: Effects::default() }
}

#[test]
fn what_has_a_checkpoint_is_held_over_a_restart_and_goes_on() {
    let mut rig = restored(3..5);
    assert_eq!(rig.worker.holding(), attempts(3..5));
    assert_eq!(rig.fx.fetch, [], "without a coordinator nothing can be fetched");
    rig.welcome(&[]);
    assert_eq!(rig.fx.fetch, [PROGRAM]);
    rig.welcome(&[]);
    assert_eq!(rig.fx.fetch, [], "once");
    rig.lease(3..6);
    rig.act(|worker, fx| worker.on_fetched(all_of(JOB), fx));
    assert_eq!((rig.running(0), rig.running(1)), (Some(attempt(3)), Some(attempt(4))));
    let done = rig.finish(0);
    assert_eq!(rig.running(0), Some(attempt(5)), "a lease that is repeated runs once");
    assert_eq!(rig.fx.spent, [], "it may be lost until it is settled");
    rig.settle(&[done], &[]);
    assert_eq!(rig.fx.spent, [done]);
}

#[test]
fn checkpoints_of_what_nobody_wants_any_more_go() {
    let mut rig = restored(3..5);
    rig.welcome(&[attempt(3)]);
    assert_eq!((rig.worker.holding(), &rig.fx.spent), (attempts(4..5), &attempts(3..4)));
    rig.act(|worker, fx| worker.on_ended(JOB, fx));
    assert_eq!((&rig.fx.spent, &rig.fx.forget), (&attempts(4..5), &vec![JOB]));

    let mut rig = Rig::ready(1);
    rig.lease(0..2);
    rig.cancel(&attempts(0..1));
    assert_eq!(rig.fx.spent, [], "it still runs, and may write one");
    rig.stopped(0);
    assert_eq!(rig.fx.spent, attempts(0..1));
}

#[test]
fn a_checkpoint_outlives_a_process_that_died_but_not_a_deadline() {
    for (reason, spent) in
        [(NoResult::ChildDied, false), (NoResult::HostMemory, false), (NoResult::Deadline, true)]
    {
        let mut rig = Rig::ready(1);
        rig.lease(0..1);
        let outcome = ReportOutcome::NoResult(reason);
        rig.finish_as(0, Report { attempt: attempt(0), outcome, wall_micros: 1 });
        rig.settle(&attempts(0..1), &attempts(0..1));
        assert_eq!(rig.fx.spent.len(), usize::from(spent), "{reason}");
    }
}

#[test]
fn what_is_unfinished_is_known() {
    let mut rig = Rig::ready(1);
    rig.lease(0..3);
    rig.finish(0);
    assert_eq!(rig.worker.unfinished().collect::<Vec<_>>(), attempts(1..3));
}

#[test]
fn events_of_slots_that_do_not_exist_or_are_idle_are_ignored() {
    let mut rig = Rig::ready(1);
    for slot in [0, 9] {
        rig.finish_as(slot, report(attempt(0), 1, 1000));
        rig.stopped(slot);
    }
    assert_eq!(rig.worker.load(), Load::default());
    let mut rig = Rig::ready(0);
    rig.lease(0..1);
    assert_eq!(rig.running(0), None, "a worker without slots runs nothing");
}

/// What may happen to a worker.
#[derive(Debug, Clone)]
enum Event {
    Introduce(u64),
    Lease { job: u64, from: u64, count: u64 },
    Fetched(u64),
    FetchFailed(u64),
    Finish { slot: u32, large: bool },
    Stopped,
    Settle { message: usize },
    Release { held: usize },
    Cancel { held: usize },
    Ended(u64),
    Pause,
    Resume,
    Disconnect,
    Welcome { forgets: usize },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let job = 1u64..4;
    let event = prop_oneof![
        2 => job.clone().prop_map(Event::Introduce),
        6 => (job.clone(), 0u64..40, 1u64..9).prop_map(|(job, from, count)| Event::Lease { job, from, count }),
        3 => job.clone().prop_map(Event::Fetched),
        1 => job.clone().prop_map(Event::FetchFailed),
        12 => (0u32..3, any::<bool>()).prop_map(|(slot, large)| Event::Finish { slot, large }),
        3 => Just(Event::Stopped),
        5 => (0usize..4).prop_map(|message| Event::Settle { message }),
        2 => (0usize..9).prop_map(|held| Event::Release { held }),
        2 => (0usize..9).prop_map(|held| Event::Cancel { held }),
        1 => job.prop_map(Event::Ended),
        1 => Just(Event::Pause),
        2 => Just(Event::Resume),
        1 => Just(Event::Disconnect),
        2 => (0usize..9).prop_map(|forgets| Event::Welcome { forgets }),
    ];
    prop::collection::vec(event, 1..200)
}

fn apply(rig: &mut Rig, event: &Event, stopping: &mut Vec<SlotNo>) {
    let held = |rig: &Rig, held: usize| rig.worker.holding().get(held).copied();
    match *event {
        Event::Introduce(job) => {
            rig.act(|worker, fx| worker.on_job(JobId::new(job), Arc::new(spec(1000, 1)), fx));
        }
        Event::Lease { job, from, count } => rig.lease_of(JobId::new(job), from..from + count),
        Event::Fetched(job) => rig.act(|worker, fx| worker.on_fetched(all_of(JobId::new(job)), fx)),
        Event::FetchFailed(job) => {
            let outcome = ReportOutcome::NoResult(NoResult::Fetch);
            rig.act(|worker, fx| worker.on_fetch_failed(JobId::new(job), &outcome, fx));
        }
        Event::Finish { slot, large: is_large } => {
            if let Some(attempt) = rig.running(slot) {
                rig.finish_as(slot, if is_large { large(attempt) } else { report(attempt, 1, 1000) });
            }
        }
        Event::Stopped => {
            if let Some(slot) = stopping.pop() {
                rig.stopped(slot.get());
            }
        }
        Event::Settle { message } => {
            if message < rig.sent.len() {
                let message = rig.sent.remove(message);
                rig.settle(&message, &[]);
            }
        }
        Event::Release { held: number } => {
            if let Some(attempt) = held(rig, number) {
                rig.settle(&[], &[attempt]);
            }
        }
        Event::Cancel { held: number } => {
            if let Some(attempt) = held(rig, number) {
                rig.cancel(&[attempt]);
            }
        }
        Event::Ended(job) => rig.act(|worker, fx| worker.on_ended(JobId::new(job), fx)),
        Event::Pause => rig.worker.pause(),
        Event::Resume => rig.act(Worker::resume),
        Event::Disconnect => {
            rig.sent.clear();
            rig.worker.on_disconnected();
        }
        Event::Welcome { forgets } => {
            rig.sent.clear();
            let unknown: Vec<_> = held(rig, forgets).into_iter().collect();
            rig.welcome(&unknown);
        }
    }
    stopping.append(&mut rig.fx.stop);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4 * ProptestConfig::default().cases, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_what_is_held_is_somewhere_and_comes_to_an_end(events in events()) {
        let mut rig = Rig::ready(3);
        let mut stopping = vec![];
        for event in &events {
            apply(&mut rig, event, &mut stopping);
            let load = rig.worker.load();
            let in_slots: usize = (0..3).map(|slot| rig.batch(slot).len()).sum();
            let held = rig.worker.holding().len();
            prop_assert!(held >= load.queued + load.fetching + load.unsettled);
            prop_assert!(rig.sent.len() <= 4, "no more messages than the window: {:?}", rig.sent);
            prop_assert!(load.running <= 3 && (in_slots > 0) == (load.running > 0));
        }
        // The owner lets it work, blobs arrive, slots go on, and everything that is reported is settled.
        rig.act(Worker::resume);
        for job in 1..4 {
            rig.act(|worker, fx| worker.on_fetched(all_of(JobId::new(job)), fx));
        }
        rig.sent.clear();
        rig.welcome(&[]);
        for slot in stopping {
            rig.stopped(slot.get());
        }
        for _ in 0..2000 {
            for slot in 0..3 {
                if rig.running(slot).is_some() {
                    rig.finish(slot);
                }
            }
            for message in rig.sends() {
                rig.settle(&message, &message);
            }
        }
        let kept = rig.worker.holding();
        rig.settle(&[], &kept);
        prop_assert_eq!(rig.worker.holding(), []);
        prop_assert_eq!(rig.worker.load(), Load::default());
    }
}
