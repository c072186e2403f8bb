//! What people see: progress of jobs, the state of a task and what it waits for, the workers.
//!
//! Answers come from the same structures that decide, so they can't disagree with what happens.

use std::{fmt, sync::Arc};

use super::{
    Capacity, Coordinator, Refusal, ShardRow,
    task::{AttemptState, Task},
};
use crate::{
    digest::result_digest,
    ids::{JobId, PeerId, PeerNo, ResultDigest, TaskId},
    job::{JobState, Submission},
    outcome::NoResult,
    quantities::{Fuel, Timestamp},
    validation::{Verdict, judge},
};

/// A job and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobProgress {
    /// Its number.
    pub job: JobId,
    /// Who wants what.
    pub submission: Arc<Submission>,
    /// Where it stands.
    pub state: JobState,
    /// When it was taken on.
    pub submitted: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Counters.
    pub shard: ShardRow,
    /// Tasks that are touched and not final.
    pub open: u64,
}

impl JobProgress {
    /// Tasks in all.
    pub fn tasks(&self) -> u64 {
        self.submission.spec.inputs.count()
    }

    /// Tasks that will never be final.
    pub fn cancelled(&self) -> u64 {
        match self.state {
            JobState::Cancelled => self.tasks() - self.shard.done - self.shard.failed,
            JobState::Running | JobState::Finished => 0,
        }
    }
}

/// Where a task stands, in the words of the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// Nobody works at it.
    Queued,
    /// A worker holds it.
    Running,
    /// Results are in, but not enough that agree.
    Validating,
    /// Final: in the store. Ask there.
    Final,
    /// Its job was cancelled. What was final by then is in the store: ask there.
    Cancelled,
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Validating => "validating",
            Self::Final => "final",
            Self::Cancelled => "cancelled",
        })
    }
}

/// A task and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskView {
    /// Where it stands.
    pub state: TaskState,
    /// A sentence; empty when it waits for nothing.
    pub waits_for: String,
    /// Its attempts so far; empty when it is final.
    pub attempts: Vec<AttemptView>,
}

/// One attempt, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptView {
    /// Which.
    pub number: u32,
    /// Whose.
    pub peer: Option<PeerId>,
    /// `leased`, `expired`, `gone`, `reported` or `no-result`.
    pub state: &'static str,
    /// What it reported.
    pub digest: Option<ResultDigest>,
    /// What it reported.
    pub fuel: Fuel,
    /// Exit or reason, as a sentence.
    pub detail: String,
}

/// A worker, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerView {
    /// Who.
    pub peer: PeerId,
    /// Whether its session is up.
    pub connected: bool,
    /// What it offers.
    pub capacity: Capacity,
    /// Attempts that it holds.
    pub in_flight: usize,
    /// When it was heard of last.
    pub last_seen: Timestamp,
}

impl Coordinator {
    /// The newest job.
    pub fn newest_job(&self) -> Option<JobId> {
        self.jobs.keys().next_back().copied()
    }

    /// Up to `limit` jobs older than `before`, newest first.
    pub fn jobs(&self, before: Option<JobId>, limit: usize) -> Vec<JobProgress> {
        let jobs = self.jobs.iter().rev();
        let older = jobs.filter(|(id, _)| before.is_none_or(|before| **id < before));
        older.take(limit).map(|(_, job)| progress(job)).collect()
    }

    /// One job.
    pub fn job(&self, id: JobId) -> Result<JobProgress, Refusal> {
        self.jobs.get(&id).map(progress).ok_or(Refusal::UnknownJob(id))
    }

    /// The job of an earlier submission with the same request.
    pub fn job_of_request(&self, request: &[u8; 16]) -> Option<JobId> {
        self.requests.get(request).copied()
    }

    /// Every worker that is connected or was, not long ago.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView> {
        self.workers.iter().filter_map(|(no, worker)| {
            Some(WorkerView {
                peer: self.peer_id(*no)?,
                connected: worker.session.is_some(),
                capacity: worker.capacity,
                in_flight: worker.in_flight,
                last_seen: worker.last_seen,
            })
        })
    }

    /// Where a task stands and what it waits for. A task beyond the last of its job is `None`.
    pub fn explain(&self, id: TaskId) -> Result<Option<TaskView>, Refusal> {
        let job = self.jobs.get(&id.job).ok_or(Refusal::UnknownJob(id.job))?;
        if id.index >= job.total() {
            return Ok(None);
        }
        let view = |state, waits_for: String| TaskView { state, waits_for, attempts: vec![] };
        if job.state == JobState::Cancelled {
            return Ok(Some(view(TaskState::Cancelled, String::new())));
        }
        if id.index >= job.shard.cursor {
            let waits_for = if job.untouched() == 0 {
                "other tasks of its job to be validated first: too many are half-validated".into()
            } else {
                self.waits_for_worker(job.id, |_| true)
            };
            return Ok(Some(view(TaskState::Queued, waits_for)));
        }
        let Some(task) = job.open.get(&id.index) else {
            return Ok(Some(view(TaskState::Final, String::new())));
        };
        Ok(Some(self.explain_open(job.id, job.quorum(), task)))
    }

    fn explain_open(&self, job: JobId, quorum: u32, task: &Task) -> TaskView {
        let attempts = task.attempts.iter().map(|attempt| self.attempt_view(attempt)).collect();
        let live = task.live();
        let state = match (live, task.votes().count()) {
            (0, 0) => TaskState::Queued,
            (0, _) => TaskState::Validating,
            _ => TaskState::Running,
        };
        let waits_for = if task.collecting {
            "its output to be fetched from the workers that agreed on it".into()
        } else {
            let more = match judge(quorum, task.votes()) {
                Verdict::Wait { more } => more,
                Verdict::Agreed(_) => 0,
            };
            let needed = format!("{more} more matching result(s) of {quorum}");
            if live > 0 {
                format!("{needed}; {live} attempt(s) under way")
            } else {
                let exclusion = task.exclusion(false);
                let worker = self.waits_for_worker(job, |peer| !exclusion.excludes(peer));
                format!("{needed}: {worker}")
            }
        };
        TaskView { state, waits_for, attempts }
    }

    /// Why no worker has taken a task, given who may.
    fn waits_for_worker(&self, job: JobId, may: impl Fn(PeerNo) -> bool) -> String {
        let memory = self.jobs[&job].submission.spec.limits.memory;
        let connected: Vec<_> = self.workers.iter().filter(|(_, worker)| worker.session.is_some()).collect();
        let others = connected.iter().filter(|(no, _)| may(**no)).count();
        let fitting =
            connected.iter().filter(|(no, worker)| may(**no) && worker.memory_per_slot() >= memory).count();
        match (connected.len(), others, fitting) {
            (0, _, _) => "no worker is connected".into(),
            (n, 0, _) => format!("another peer: each of the {n} connected worker(s) had an attempt already"),
            (_, _, 0) => format!("a worker with {memory} of memory per slot"),
            (_, _, n) => format!("a free slot: {n} worker(s) could take it"),
        }
    }

    fn attempt_view(&self, attempt: &super::task::Attempt) -> AttemptView {
        let (state, digest, fuel, detail) = match &attempt.state {
            AttemptState::Leased => ("leased", None, Fuel::default(), String::new()),
            AttemptState::Expired => ("expired", None, Fuel::default(), String::new()),
            AttemptState::Gone => ("gone", None, Fuel::default(), String::new()),
            AttemptState::Reported(reported) => {
                let (fuel, resumed) = (reported.fuel, reported.resumed);
                let digest = result_digest(reported.outcome, (!resumed).then_some(fuel));
                let how = if resumed { ", resumed from a checkpoint" } else { "" };
                let detail = format!("{}{how}", reported.exit);
                ("reported", Some(digest), fuel, detail)
            }
            AttemptState::NoResult(reason) => {
                ("no-result", None, Fuel::default(), NoResult::to_string(reason))
            }
        };
        let peer = self.peer_id(attempt.peer);
        AttemptView { number: attempt.number, peer, state, digest, fuel, detail }
    }
}

fn progress(job: &super::job::Job) -> JobProgress {
    JobProgress {
        job: job.id,
        submission: job.submission.clone(),
        state: job.state,
        submitted: job.submitted,
        ended: job.ended,
        shard: job.shard(),
        open: job.open.len() as u64,
    }
}
