//! What people see: progress of jobs, the state of a task and what it waits for, the workers.
//!
//! Answers come from the same structures that decide, so they can't disagree with what happens.

use std::{fmt, sync::Arc};

use super::{
    Capacity, Coordinator, Fetched, PassedOver, PassedOverGroup, Refusal, ShardRow, Standing,
    again::Exclusion,
    job::Job,
    task::{AttemptState, Task},
};
use crate::{
    digest::result_digest,
    ids::{JobId, PeerId, ResultDigest, TaskId},
    job::{JobState, Submission},
    outcome::NoResult,
    placement::Admission,
    precedence::Weight,
    quantities::{Fuel, Timestamp},
    trust::{Policy, Record},
    validation::Verdict,
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
    /// Whether it is paused, and its priority.
    pub standing: Standing,
    /// Counters.
    pub shard: ShardRow,
    /// Tasks that are touched and not final.
    pub open: u64,
    /// Agreed outputs that can't be fetched now, because whoever has them is away.
    pub outputs_away: u64,
    /// Agreed outputs that were lost with those who had them, since this coordinator was started: computed again.
    pub outputs_lost: u64,
    /// What its workers say that they fetched of its blobs, since this coordinator was started.
    pub fetched: Fetched,
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
    /// Workers that do not get it now, by the reason; empty when it waits for none.
    pub passed_over: Vec<PassedOverGroup>,
}

/// What a job waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// A sentence; empty when it has ended.
    pub waits_for: String,
    /// What its submitter weighs.
    pub weight: Weight,
    /// Jobs of its submitter that go before it and have work.
    pub before: usize,
    /// Workers that get nothing more of it now, by the reason.
    pub passed_over: Vec<PassedOverGroup>,
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
    /// Attempts that it may hold, by the outcomes of earlier ones.
    pub in_flight_max: usize,
    /// When it was heard of last.
    pub last_seen: Timestamp,
    /// What the coordinator's owner said of it.
    pub admission: Admission,
    /// Whether it passed enough checks, or is approved, to be the one in a quorum that is no newcomer. This and what it passed
    /// tell which of its tasks were checked: for the coordinator's owner alone.
    pub established: bool,
    /// What its votes have shown.
    pub record: Record,
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
        older.take(limit).map(|(_, job)| self.progress(job)).collect()
    }

    /// One job.
    pub fn job(&self, id: JobId) -> Result<JobProgress, Refusal> {
        self.jobs.get(&id).map(|job| self.progress(job)).ok_or(Refusal::UnknownJob(id))
    }

    /// Whether a peer was ever here, as a worker or as a submitter.
    pub fn knows(&self, peer: PeerId) -> bool {
        self.numbers.contains_key(&peer)
    }

    /// The job of an earlier submission of this submitter with the same request.
    pub fn job_of_request(&self, submitter: PeerId, request: [u8; 16]) -> Option<JobId> {
        self.requests.get(&(submitter, request)).copied()
    }

    /// Every worker that is connected or was, not long ago.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView> {
        self.workers.iter().filter_map(|(no, worker)| {
            Some(WorkerView {
                peer: self.peer_id(*no)?,
                connected: worker.session.is_some(),
                capacity: worker.capacity,
                in_flight: worker.in_flight,
                in_flight_max: worker.quota.get(),
                last_seen: worker.last_seen,
                admission: self.trust.admission(*no),
                established: self.trust.is_established(*no),
                record: self.trust.record(*no),
            })
        })
    }

    /// Where a task stands and what it waits for. A task beyond the last of its job is `None`.
    pub fn explain(&self, id: TaskId) -> Result<Option<TaskView>, Refusal> {
        let job = self.jobs.get(&id.job).ok_or(Refusal::UnknownJob(id.job))?;
        if id.index >= job.total() {
            return Ok(None);
        }
        let view =
            |state| TaskView { state, waits_for: String::new(), attempts: vec![], passed_over: vec![] };
        if job.state == JobState::Cancelled {
            return Ok(Some(view(TaskState::Cancelled)));
        }
        if id.index >= job.shard.cursor {
            let (waits_for, passed_over) = self.waits_for_worker(job, None);
            return Ok(Some(TaskView { waits_for, passed_over, ..view(TaskState::Queued) }));
        }
        let Some(task) = job.open.get(&id.index) else { return Ok(Some(view(TaskState::Final))) };
        Ok(Some(self.explain_open(job, id.index, task)))
    }

    /// What a job waits for, and why workers get nothing more of it now.
    pub fn explain_job(&self, id: JobId) -> Result<JobView, Refusal> {
        let job = self.jobs.get(&id).ok_or(Refusal::UnknownJob(id))?;
        let submitter = job.submission.submitter;
        let before = self.shares.before(submitter, id, job.standing.priority);
        let view = |waits_for, passed_over| JobView {
            waits_for,
            weight: self.weight(submitter),
            before,
            passed_over,
        };
        if job.state != JobState::Running {
            return Ok(JobView { before: 0, ..view(String::new(), vec![]) });
        }
        let collecting = job.open.values().filter(|task| task.collecting).count();
        let waits = job.standing.paused || job.has_work();
        if !waits && job.shard.cursor == job.total() {
            let away = match self.outputs_away(id) {
                0 => String::new(),
                away => format!(" ({away} from workers that are away)"),
            };
            let what = format!(
                "{} attempt(s) under way and {collecting} output(s) to be fetched{away}; every task is begun",
                job.open_attempts
            );
            return Ok(view(what, vec![]));
        }
        let (waits_for, passed_over) = self.waits_for_worker(job, None);
        Ok(view(waits_for, passed_over))
    }

    fn explain_open(&self, job: &Job, index: u64, task: &Task) -> TaskView {
        let attempts = task.attempts.iter().map(|attempt| self.attempt_view(attempt)).collect();
        let live = task.live();
        let state = match (live, task.votes().count()) {
            (0, 0) => TaskState::Queued,
            (0, _) => TaskState::Validating,
            _ => TaskState::Running,
        };
        let (waits_for, passed_over) = if task.collecting {
            (self.waits_for_output(TaskId { job: job.id, index }), vec![])
        } else {
            let more = match self.trust.judge(job, index, task) {
                Verdict::Wait { more } => more,
                Verdict::Agreed(_) => 0,
            };
            let needed = match job.policy() {
                _ if task.checks.is_some() => "another peer to confirm its provisional result".into(),
                Policy::ErrorRate { error, .. } => {
                    format!("{more} more result(s) at least, for an error rate of {error}")
                }
                Policy::Quorum(_) | Policy::Adaptive { .. } => {
                    format!("{more} more matching result(s) of {}", job.quorum())
                }
            };
            if live > 0 {
                (format!("{needed}; {live} attempt(s) under way"), vec![])
            } else {
                let (worker, passed_over) =
                    self.waits_for_worker(job, Some(&self.trust.exclusion(job, index, task, false)));
                (format!("{needed}: {worker}"), passed_over)
            }
        };
        TaskView { state, waits_for, attempts, passed_over }
    }

    fn progress(&self, job: &Job) -> JobProgress {
        JobProgress {
            job: job.id,
            submission: job.submission.clone(),
            state: job.state,
            submitted: job.submitted,
            ended: job.ended,
            standing: job.standing,
            shard: job.shard(),
            open: job.open.len() as u64,
            outputs_away: self.outputs_away(job.id),
            outputs_lost: job.outputs_lost,
            fetched: job.fetched.sum(),
        }
    }

    fn waits_for_output(&self, id: TaskId) -> String {
        match self.uncollected.get(&id) {
            None => "its output to be fetched from the workers that agreed on it".into(),
            Some(wait) => format!(
                "its output: no worker that has it could be reached ({} time(s)); it is computed again after {} min of that",
                wait.tries,
                self.config.output_wait.as_secs().div_ceil(60)
            ),
        }
    }

    /// Why no worker has taken a task that excludes some, or an untouched one.
    fn waits_for_worker(&self, job: &Job, exclusion: Option<&Exclusion>) -> (String, Vec<PassedOverGroup>) {
        let census = self.census(job, exclusion);
        let could = census.free + census.busy;
        let memory = job.submission.spec.limits.memory;
        let had = census.count(PassedOver::HadAttempt);
        let near = census.count(PassedOver::SameNetwork) + census.count(PassedOver::SameOwner);
        let newcomers = census.count(PassedOver::Newcomer);
        let waits_for = if job.standing.paused {
            "its job to be resumed: it is paused".into()
        } else if exclusion.is_none() && job.shard.cursor < job.total() && job.untouched() == 0 {
            "other tasks of its job to be validated first: too many are half-validated".into()
        } else if census.connected == 0 {
            "no worker is connected".into()
        } else if could > 0 {
            format!("a free slot: {could} worker(s) could take it")
        } else if had > 0 && had == census.connected {
            format!("another peer: each of the {had} connected worker(s) had an attempt already")
        } else if near > 0 && near + had == census.connected {
            format!(
                "a worker of another owner and network: {near} connected worker(s) share theirs with one that has an \
                 attempt (coordinator start --apart)"
            )
        } else if newcomers > 0 {
            format!(
                "a worker that passed checks before, or is approved: {newcomers} connected worker(s) are new"
            )
        } else if census.count(PassedOver::TooLittleMemory) > 0 {
            format!("a worker with {memory} of memory per slot")
        } else if census.count(PassedOver::NotTargeted) > 0 {
            format!("one of the {} peer(s) that its job is meant for", job.submission.spec.on.len())
        } else if had > 0 {
            format!("another peer: {had} connected worker(s) had an attempt already")
        } else {
            "a worker that is not paused".into()
        };
        (waits_for, census.into_groups())
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
