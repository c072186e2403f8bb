//! Jobs and tasks come and go.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Coordinator, JobRow, Refusal, ShardRow, Standing, ToWorker, again::Again, effects::Effects, job::Job,
    task,
};
use crate::{
    ids::{AttemptId, JobId, PeerNo, TaskId},
    job::{JobState, Submission},
    limits,
    quantities::Timestamp,
};

impl Coordinator {
    /// A submitter's job, valid and with all its blobs in place. The same request gives the same job.
    pub fn on_submit(
        &mut self,
        now: Timestamp,
        submission: Submission,
        fx: &mut Effects,
    ) -> Result<JobId, Refusal> {
        if let Some(job) = self.requests.get(&(submission.submitter, submission.request)) {
            return Ok(*job);
        }
        let running = self.shares.running().count();
        if running >= limits::ACTIVE_JOBS_MAX {
            return Err(Refusal::TooManyJobs(running));
        }
        self.shares.set_now(now);
        self.number(submission.submitter, fx);
        let id = self.jobs.keys().next_back().map_or(JobId::new(1), |last| last.next());
        let standing = Standing { paused: false, priority: submission.spec.priority() };
        let row = JobRow {
            job: id,
            submission: Arc::new(submission),
            submitted: now,
            state: JobState::Running,
            ended: None,
            standing,
        };
        fx.batch.jobs.push(row.clone());
        fx.batch.shards.insert(id, ShardRow::default());
        fx.changed.insert(id);
        self.insert_job(row, ShardRow::default());
        self.note_work(id);
        self.feed(now, fx);
        Ok(id)
    }

    /// Ends a job. Tasks that are final stay so; the others never will be. Cancelling twice is no error.
    pub fn on_cancel(&mut self, now: Timestamp, id: JobId, fx: &mut Effects) -> Result<(), Refusal> {
        let job = self.jobs.get(&id).ok_or(Refusal::UnknownJob(id))?;
        if job.state != JobState::Running {
            return Ok(());
        }
        self.shares.set_now(now);
        let open: Vec<u64> = job.open.keys().collect();
        let mut unwanted = BTreeMap::<PeerNo, Vec<AttemptId>>::new();
        for index in open {
            self.drop_task(TaskId { job: id, index }, &mut unwanted, fx);
        }
        self.send_unwanted(unwanted, fx);
        self.end_job(now, id, JobState::Cancelled, fx);
        self.feed(now, fx);
        Ok(())
    }

    pub(super) fn insert_job(&mut self, row: JobRow, shard: ShardRow) {
        let (id, submitter) = (row.job, row.submission.submitter);
        self.requests.insert((submitter, row.submission.request), id);
        if row.state == JobState::Running {
            self.shares.add(submitter, id);
        }
        self.jobs.insert(id, Job::new(row, shard));
    }

    pub(super) fn end_job(&mut self, now: Timestamp, id: JobId, state: JobState, fx: &mut Effects) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.state = state;
        job.ended = Some(now);
        job.again = Again::default();
        let unchecked = std::mem::take(&mut job.unchecked);
        self.trust.forget(id, unchecked.keys());
        fx.batch.shards.insert(id, job.shard());
        fx.batch.ended.insert(id, (state, now));
        fx.changed.insert(id);
        self.shares.remove(job.submission.submitter, id, job.standing.priority);
        for worker in self.workers.values_mut() {
            worker.mean_micros.remove(&id);
            if worker.told.remove(&id) {
                fx.send(worker.session, ToWorker::Ended { job: id });
            }
        }
    }

    /// Forgets a task that is final or cancelled, and notes who still works at it.
    pub(super) fn drop_task(
        &mut self,
        task: TaskId,
        unwanted: &mut BTreeMap<PeerNo, Vec<AttemptId>>,
        fx: &mut Effects,
    ) -> Option<task::Task> {
        let open = self.jobs.get(&task.job)?.open.get(&task.index)?;
        let still: Vec<_> = open
            .attempts
            .iter()
            .filter(|attempt| attempt.state.is_open())
            .map(|attempt| (attempt.peer, AttemptId { task, number: attempt.number }))
            .collect();
        for (peer, attempt) in still {
            self.close_item(attempt, fx);
            unwanted.entry(peer).or_default().push(attempt);
        }
        let job = self.jobs.get_mut(&task.job)?;
        let stood_still = job.untouched() == 0;
        let gone = job.open.remove(&task.index)?;
        self.uncollected.remove(&task);
        job.rechecked -= u64::from(gone.checks.is_some());
        job.held_bytes -= gone.held_bytes();
        if stood_still && job.untouched() > 0 {
            self.note_work(task.job);
        }
        Some(gone)
    }

    /// Tells workers what is not wanted any more. It leaves them with room for other work, and no report
    /// of theirs will ask for it.
    pub(super) fn send_unwanted(&mut self, unwanted: BTreeMap<PeerNo, Vec<AttemptId>>, fx: &mut Effects) {
        for (peer, attempts) in unwanted {
            let session = self.workers.get(&peer).and_then(|worker| worker.session);
            if session.is_some() {
                self.woken.insert(peer);
            }
            fx.send(session, ToWorker::Cancelled { attempts });
        }
    }
}
