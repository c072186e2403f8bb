//! Results that rest on one worker's word: provisional until that worker passes its next two checks in their job, and
//! taken back when it is caught anywhere before.
//!
//! A check is an attempt like any other at a task that the worker had first. Where none comes by itself because
//! nothing is left to be handed out, one of the worker's provisional results is drawn and checked: its task is open
//! again, with the worker's vote in it, while its result stays where people can see it.

use super::{
    Coordinator, FinalRow, Grant, PendingOutput, PendingReport, PendingRow, TaskVerdict,
    attempts::Attempts,
    effects::Effects,
    task::{Attempt, AttemptState, Reported, Task},
};
use crate::{
    digest::result_digest,
    ids::{AttemptId, JobId, LeaseId, PeerNo, TaskId},
    job::JobState,
    outcome::Exit,
    quantities::{Credit, Fuel, Timestamp},
    trust::Lesson,
};

/// What a worker said of a task that is final on its word.
#[derive(Debug, Clone)]
pub(super) struct Word {
    number: u32,
    ordinal: u32,
    said: Reported,
    /// Whether its worker passed a check since. That is not written down: after a restart one more has to be passed.
    passed: bool,
}

impl Word {
    /// The only vote that a verdict rests on, and whose it is. Its fuel is what it was granted. Where others said something
    /// else, more than one agreed, though not all of them could deliver: that rests on no single word.
    pub(super) fn sole(task: &Task, row: &FinalRow) -> Option<(PeerNo, Self)> {
        let [grant @ Grant { agreed: true, .. }] = row.grants.as_slice() else { return None };
        let (attempt, reported) = task.reported().find(|(attempt, _)| attempt.number == grant.number)?;
        let fuel = Fuel::new(u64::try_from(grant.credit.nanos()).unwrap_or(0));
        // The output is in the row of the final task.
        let said = Reported { fuel, output: PendingOutput::Repeated, ..reported.clone() };
        Some((grant.peer, Self { number: attempt.number, ordinal: attempt.ordinal, said, passed: false }))
    }

    /// The inverse of its row; `None` for a row that is no vote.
    pub(super) fn restored(number: u32, ordinal: u32, row: &PendingRow) -> Option<(PeerNo, Self)> {
        let PendingReport::Execution { outcome, input, exit, fuel, resumed, .. } = row.report else {
            return None;
        };
        let said = Reported { outcome, input, exit, fuel, resumed, output: PendingOutput::Repeated };
        Some((row.peer, Self { number, ordinal, said, passed: false }))
    }

    fn row(&self, peer: PeerNo) -> PendingRow {
        PendingRow { peer, report: self.said.to_row() }
    }

    /// What it earned: the fuel that it counted, as nobody else did.
    fn grant(&self, peer: PeerNo) -> Grant {
        Grant { peer, number: self.number, agreed: true, credit: self.credit() }
    }

    fn credit(&self) -> Credit {
        self.said.fuel.credit()
    }

    /// Whether it said what a verdict says.
    pub(super) fn is_confirmed_by(&self, verdict: &TaskVerdict) -> bool {
        let own = [Some(self.said.fuel), None].map(|fuel| result_digest(self.said.outcome, fuel));
        matches!(verdict, TaskVerdict::Agreed { digest, .. } if own.contains(digest))
    }

    fn is_done(&self) -> bool {
        self.said.exit == Exit::Ok
    }

    /// Its task, open again with this vote.
    pub(super) fn as_task(&self, peer: PeerNo, last_number: u32) -> Task {
        let (number, ordinal) = (self.number, self.ordinal);
        let state = AttemptState::Reported(Box::new(self.said.clone()));
        let vote = Attempt { number, ordinal, peer, lease: LeaseId::new(0), state };
        Task { attempts: Attempts::One(vote), last_number, checks: Some(peer), ..Task::default() }
    }
}

impl Coordinator {
    /// A task became final on one worker's word.
    pub(super) fn note_word(&mut self, task: TaskId, peer: PeerNo, word: Word, fx: &mut Effects) {
        let Some(job) = self.jobs.get_mut(&task.job) else { return };
        fx.batch.provisional.insert(AttemptId { task, number: word.number }, word.row(peer));
        job.shard.provisional += 1;
        job.unchecked.entry(peer).or_default().insert(task.index, word);
        self.trust.note_unchecked(peer, task.job);
    }

    /// What the end of a task says about those who voted on it, and what follows for their other results.
    pub(super) fn draw_lessons(&mut self, now: Timestamp, task: &Task, row: &FinalRow, fx: &mut Effects) {
        let Some(job) = self.jobs.get(&row.task.job) else { return };
        let policy = job.policy();
        let first = task.reported().map(|(attempt, _)| (attempt.ordinal, attempt.peer)).min();
        // Who belongs together does not look at one another.
        let counts = |grant: &&Grant| {
            let mut votes = self.trust.votes(task);
            grant.agreed && votes.any(|(attempt, _)| attempt.number == grant.number)
        };
        let agreeing = row.grants.iter().filter(counts).count();
        let agreeing = u32::try_from(agreeing).unwrap_or(u32::MAX);
        for grant in &row.grants {
            let is_first = first.is_some_and(|(_, first)| first == grant.peer);
            let lesson = policy.lesson(grant.agreed, is_first, agreeing);
            let was_established = self.trust.is_established(grant.peer);
            self.trust.learn(grant.peer, lesson);
            if self.trust.is_established(grant.peer) != was_established {
                self.note_presence(grant.peer);
                // What newcomers must not have may wait for it.
                if self.workers.get(&grant.peer).is_some_and(|worker| worker.session.is_some()) {
                    self.woken.insert(grant.peer);
                }
            }
            match lesson {
                Lesson::Passed => self.confirm(row.task.job, grant.peer, fx),
                Lesson::Nothing => {}
                Lesson::Caught => self.backtrack(now, grant.peer, fx),
            }
            fx.batch.records.insert(grant.peer, self.trust.row(grant.peer));
        }
    }

    /// A worker passed a check: its results of that job are final that had one before, and the others have one now. One
    /// that is being checked itself stays as it is.
    ///
    /// Once is not enough, because whoever looked may lie together with it; that two who look do is as much rarer.
    fn confirm(&mut self, id: JobId, peer: PeerNo, fx: &mut Effects) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(words) = job.unchecked.get_mut(&peer) else { return };
        let open = &job.open;
        let twice = |index: &u64, word: &mut Word| {
            open.get(index).is_none() && std::mem::replace(&mut word.passed, true)
        };
        let confirmed: Vec<(u64, Word)> = words.extract_if(.., twice).collect();
        let is_last = words.is_empty();
        for (index, word) in &confirmed {
            fx.batch.confirm(AttemptId { task: TaskId { job: id, index: *index }, number: word.number });
        }
        job.shard.provisional -= confirmed.len() as u64;
        fx.changed.insert(id);
        if is_last {
            job.unchecked.remove(&peer);
            self.trust.forget(id, std::iter::once(&peer));
        }
    }

    /// A worker was caught: whatever rests on its word alone, in any job, is taken back and done again.
    pub(super) fn backtrack(&mut self, now: Timestamp, peer: PeerNo, fx: &mut Effects) {
        for id in self.trust.jobs_resting_on(peer) {
            let Some(job) = self.jobs.get(&id) else { continue };
            let indices: Vec<u64> =
                job.unchecked.get(&peer).into_iter().flat_map(|words| words.keys().copied()).collect();
            for index in &indices {
                self.take_back(now, TaskId { job: id, index: *index }, peer, fx);
                let Some(job) = self.jobs.get_mut(&id) else { continue };
                job.shard.revoked += 1;
                let last_number = job.shard.numbers;
                if job.open.get(index).is_none() {
                    job.open.insert(*index, Task { last_number, ..Task::default() });
                }
                let Some(task) = job.open.get_mut(index) else { continue };
                job.rechecked -= u64::from(task.checks.take().is_some());
                task.attempts.retain(|attempt| {
                    !(attempt.peer == peer && matches!(attempt.state, AttemptState::Reported(_)))
                });
                task.queued = None;
                task.collecting = false;
                self.uncollected.remove(&TaskId { job: id, index: *index });
                job.requeue(*index, false, &self.trust);
                self.reconsidered.push(TaskId { job: id, index: *index });
            }
            let Some(job) = self.jobs.get(&id) else { continue };
            fx.batch.shards.insert(id, job.shard());
            fx.changed.insert(id);
            self.note_work(id);
        }
    }

    /// Judges anew what a vote was taken from: the other votes may suffice.
    pub(super) fn reconsider(&mut self, now: Timestamp, fx: &mut Effects) {
        while let Some(task) = self.reconsidered.pop() {
            self.evaluate(now, task, fx);
        }
    }

    /// Undoes what a worker's word alone made final, but for opening its task.
    pub(super) fn take_back(
        &mut self,
        now: Timestamp,
        task: TaskId,
        peer: PeerNo,
        fx: &mut Effects,
    ) -> Option<Word> {
        let job = self.jobs.get_mut(&task.job)?;
        let words = job.unchecked.get_mut(&peer)?;
        let word = words.remove(&task.index)?;
        let is_last = words.is_empty();
        *(if word.is_done() { &mut job.shard.done } else { &mut job.shard.failed }) -= 1;
        job.shard.provisional -= 1;
        job.shard.credit += Credit::from_nanos(-word.credit().nanos());
        fx.batch.revoke(now, AttemptId { task, number: word.number }, &[word.grant(peer)]);
        if is_last {
            job.unchecked.remove(&peer);
            self.trust.forget(task.job, std::iter::once(&peer));
        }
        Some(word)
    }

    /// When nothing else of a job is left to be done, one of the results that rest on each worker's word is checked,
    /// drawn so that nobody knows which.
    pub(super) fn check_the_rest(&mut self, id: JobId, fx: &mut Effects) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let over = job.state == JobState::Running
            && job.shard.cursor == job.total()
            && job.open.is_empty()
            && job.shard.provisional > 0;
        if !over {
            return;
        }
        let last_number = job.shard.numbers;
        let mut tasks = vec![];
        for (peer, words) in &job.unchecked {
            let Some((last, _)) = words.last_key_value() else { continue };
            let pick = self.trust.pick(job.task_id(*last), words.len());
            if let Some((index, word)) = words.iter().nth(pick) {
                tasks.push((*index, word.as_task(*peer, last_number)));
            }
        }
        for (index, task) in tasks {
            job.open.insert(index, task);
            job.rechecked += 1;
            job.requeue(index, false, &self.trust);
        }
        fx.batch.shards.insert(id, job.shard());
        fx.changed.insert(id);
        self.note_work(id);
    }
}
