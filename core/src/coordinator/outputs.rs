//! Outputs that stayed with their workers: fetched after a quorum agreed, waited for while whoever has them is away, and
//! computed again when nobody will deliver any more.
//!
//! A task is final only when its output is on this side's disk, so no ledger entry ever stands for bytes that nobody
//! has. Until then its votes are on record and its output *is collected*: any member of the quorum will do. A member
//! that has something else, or nothing, is told apart from one that can't be reached now: the vote of the first is void at
//! once, the second is asked again and again for [`Config::output_wait`](super::Config::output_wait). Then its vote is
//! void, too, and what is left of the quorum decides as ever: mostly the task is given to others. Nobody is paid for an
//! output that never came, and whoever votes again is paid for that vote.

use super::{
    Coordinator, FinalOutput, PendingOutput, PendingReport, PendingRow, ToWorker,
    effects::Effects,
    reports::{fetch_of, members},
    task::{AttemptState, Task},
};
use crate::{
    ids::{AttemptId, JobId, PeerNo, TaskId},
    job::BlobRef,
    limits,
    outcome::NoResult,
    quantities::Timestamp,
    validation::{Agreed, Verdict},
};

/// An agreed output that nobody delivered so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Uncollected {
    /// When that was found out first.
    since: Timestamp,
    /// Times that its members were asked in vain.
    pub(super) tries: u32,
    /// When they are asked again; none while they are being asked.
    due: Option<Timestamp>,
}

impl Coordinator {
    /// An agreed output was fetched and digests to what was agreed. `bad` attempts offered something else
    /// or nothing before.
    pub fn on_output_fetched(
        &mut self,
        now: Timestamp,
        id: TaskId,
        agreed: Agreed,
        blob: BlobRef,
        bad: &[u32],
        fx: &mut Effects,
    ) {
        self.shares.set_now(now);
        self.discredit(id, bad, fx);
        self.accept(now, id, agreed, FinalOutput::Blob(blob), fx);
        self.feed(now, fx);
    }

    /// No member of the quorum delivered the output that it reported. All of `bad` are void, because they have something
    /// else or nothing; the others could not be reached, and are asked again.
    pub fn on_output_lost(&mut self, now: Timestamp, id: TaskId, bad: &[u32], fx: &mut Effects) {
        self.shares.set_now(now);
        self.discredit(id, bad, fx);
        let is_collected = self
            .jobs
            .get(&id.job)
            .and_then(|job| job.open.get(&id.index))
            .is_some_and(|task| task.collecting);
        if !is_collected {
            return self.feed(now, fx);
        }
        let wait = self.uncollected.entry(id).or_insert(Uncollected { since: now, tries: 0, due: None });
        // The clock may have been set back.
        wait.since = wait.since.min(now);
        wait.due =
            Some(now + (limits::OUTPUT_PAUSE_MIN * (1 << wait.tries.min(5))).min(limits::OUTPUT_PAUSE_MAX));
        wait.tries += 1;
        if now.since(wait.since) >= self.config.output_wait {
            let gone = self.remote_members(id);
            self.discredit(id, &gone, fx);
        }
        self.collect_anew(now, id, fx);
        self.feed(now, fx);
    }

    /// Has an agreed output fetched, unless it is to be waited for.
    pub(super) fn collect(&mut self, id: TaskId, agreed: Agreed, fx: &mut Effects) {
        let Some(task) = self.jobs.get_mut(&id.job).and_then(|job| job.open.get_mut(&id.index)) else {
            return;
        };
        task.collecting = true;
        task.queued = None;
        if self.uncollected.get(&id).is_none_or(|wait| wait.due.is_none()) {
            fx.fetches.extend(fetch_of(&self.names, id, task, agreed));
        }
    }

    /// Time passes: members that could not be reached are asked again.
    pub(super) fn retry_outputs(&mut self, now: Timestamp, fx: &mut Effects) {
        // Later than any pause means that the clock was set back.
        let is_due = |due: Timestamp| due <= now || due > now + limits::OUTPUT_PAUSE_MAX;
        let due = self.uncollected.iter().filter(|(_, wait)| wait.due.is_some_and(is_due));
        let due: Vec<TaskId> = due.map(|(id, _)| *id).collect();
        for id in due {
            if let Some(wait) = self.uncollected.get_mut(&id) {
                wait.due = None;
            }
            self.collect_anew(now, id, fx);
        }
    }

    /// A worker is back and says what it holds: of it, outputs are asked for at once, and those that it has lost are void.
    pub(super) fn on_keeper_back(
        &mut self,
        now: Timestamp,
        peer: PeerNo,
        holds: impl Fn(AttemptId) -> bool,
        fx: &mut Effects,
    ) {
        let waiting = self.uncollected.iter().filter(|(_, wait)| wait.due.is_some());
        let waiting: Vec<TaskId> = waiting.map(|(id, _)| *id).collect();
        for id in waiting {
            let job = self.jobs.get(&id.job);
            let task = job.and_then(|job| job.open.get(&id.index));
            let number = task.into_iter().flat_map(Task::reported).find_map(|(attempt, reported)| {
                let kept = matches!(reported.output, PendingOutput::Remote(_)) && attempt.peer == peer;
                kept.then_some(attempt.number)
            });
            let Some(number) = number else { continue };
            if holds(AttemptId { task: id, number }) {
                if let Some(wait) = self.uncollected.get_mut(&id) {
                    wait.due = Some(now);
                }
            } else {
                self.discredit(id, &[number], fx);
                self.collect_anew(now, id, fx);
            }
        }
    }

    /// Another vote came in while an output is waited for: it may be one of somebody who can be reached.
    pub(super) fn hasten_output(&mut self, now: Timestamp, id: TaskId) {
        if let Some(due) = self.uncollected.get_mut(&id).and_then(|wait| wait.due.as_mut()) {
            *due = now;
        }
    }

    /// Agreed outputs of a job whose members could not be reached when they were asked last.
    pub(super) fn outputs_away(&self, job: JobId) -> u64 {
        let tasks = TaskId { job, index: 0 }..=TaskId { job, index: u64::MAX };
        self.uncollected.range(tasks).count() as u64
    }

    /// Judges anew a task whose output is being collected.
    fn collect_anew(&mut self, now: Timestamp, id: TaskId, fx: &mut Effects) {
        let open = self.jobs.get_mut(&id.job).and_then(|job| job.open.get_mut(&id.index));
        match open {
            Some(task) => task.collecting = false,
            None => drop(self.uncollected.remove(&id)),
        }
        self.evaluate(now, id, fx);
        let job = self.jobs.get_mut(&id.job);
        let Some(job) = job.filter(|job| job.open.get(&id.index).is_none_or(|task| !task.collecting)) else {
            return;
        };
        // Not enough is left of the quorum.
        if self.uncollected.remove(&id).is_some() {
            job.outputs_lost += 1;
        }
    }

    /// Attempts of a quorum that keep the output.
    fn remote_members(&self, id: TaskId) -> Vec<u32> {
        let Some(job) = self.jobs.get(&id.job) else { return vec![] };
        let Some(task) = job.open.get(&id.index) else { return vec![] };
        let Verdict::Agreed(agreed) = self.trust.judge(job, id.index, task) else { return vec![] };
        let remote = members(task, agreed)
            .filter(|(_, reported)| matches!(reported.output, PendingOutput::Remote(_)))
            .map(|(attempt, _)| attempt.number);
        remote.collect()
    }

    /// Takes the votes of these attempts away: their output can't be had.
    fn discredit(&mut self, id: TaskId, bad: &[u32], fx: &mut Effects) {
        for number in bad {
            let attempt = AttemptId { task: id, number: *number };
            let peer = self.jobs.get_mut(&id.job).and_then(|job| {
                let attempt = job.open.get_mut(&id.index)?.attempt_mut(*number)?;
                matches!(attempt.state, AttemptState::Reported(_)).then_some(attempt.peer)
            });
            if let Some(peer) = peer {
                let report = PendingReport::NoResult(NoResult::OutputLost);
                fx.batch.pending.insert(attempt, PendingRow { peer, report });
                self.set_state(attempt, AttemptState::NoResult(NoResult::OutputLost), fx);
                // What it has nobody wants any more.
                let session = self.workers.get(&peer).and_then(|worker| worker.session);
                fx.send(session, ToWorker::Settled { attempts: vec![], released: vec![attempt] });
            }
        }
    }
}
