//! What a coordinator wants done: rows to persist, then messages to send.
//!
//! The shell commits the [`Batch`] first and sends the messages after that commit is durable, in the
//! order in which they were made. That is the whole of the durability rule: nothing is acknowledged
//! before the fsync that follows the commit that contains it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    ids::{
        AttemptId, InputDigest, JobId, LeaseId, OutcomeDigest, PeerId, PeerNo, ResultDigest, SessionId,
        TaskId,
    },
    job::{BlobRef, JobSpec, JobState, Submission},
    ledger::Names,
    mutants::{Mutant, is_active},
    outcome::{Exit, NoResult, Output},
    placement::{Admission, InviteId, OwnerKey, Site},
    precedence::{Priority, Weight},
    quantities::{Credit, Fuel, Timestamp},
    signing::Receipt,
    trust::Record,
    validation::Agreed,
};

/// The consequences of one or more events.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be made durable before anything else is done.
    pub batch: Batch,
    /// To be sent once the batch is durable.
    pub messages: Vec<(SessionId, ToWorker)>,
    /// Outputs to fetch from the workers that hold them.
    pub fetches: Vec<FetchOutput>,
    /// Jobs whose progress changed.
    pub changed: BTreeSet<JobId>,
}

impl Effects {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.messages.is_empty() && self.fetches.is_empty()
    }

    pub(super) fn send(&mut self, session: Option<SessionId>, message: ToWorker) {
        if let Some(session) = session {
            self.messages.push((session, message));
        }
    }
}

/// A message to one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToWorker {
    /// The session is up. The attempts are held by the worker but no longer wanted.
    Welcome {
        /// To be forgotten, outputs included.
        unknown: Vec<AttemptId>,
    },
    /// What a job is, before its first lease.
    Job {
        /// The job.
        job: JobId,
        /// What to run.
        spec: Arc<JobSpec>,
        /// Who wants it, with the signature.
        submission: Arc<Submission>,
    },
    /// Attempts to run.
    Lease(Arc<LeaseRow>),
    /// Reports that are durable, or refused for good. For `released` ones the output may go as well.
    Settled {
        /// Reports that need not be repeated.
        attempts: Vec<AttemptId>,
        /// Attempts whose outputs are not needed any more.
        released: Vec<AttemptId>,
    },
    /// Attempts that are no longer wanted.
    Cancelled {
        /// Not to be started; to be stopped if running.
        attempts: Vec<AttemptId>,
    },
    /// Attempts that somebody else could begin at once: those that are not begun are to be given back.
    Recall {
        /// Which.
        attempts: Vec<AttemptId>,
    },
    /// A job has ended: nothing of it is wanted any more.
    Ended {
        /// Which.
        job: JobId,
    },
    /// Another session of the same peer took over: end this one.
    Replaced,
}

/// An agreed output that is too large for a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchOutput {
    /// Whose.
    pub task: TaskId,
    /// Members of the quorum, each with its own encoding of the output (their logs may differ).
    pub sources: Vec<OutputSource>,
    /// What was agreed.
    pub agreed: Agreed,
    /// Needed to check the digest of the outcome, as is the next one.
    pub input: InputDigest,
    /// See `input`.
    pub exit: Exit,
}

/// One member that holds an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSource {
    /// Which attempt.
    pub number: u32,
    /// Who.
    pub peer: PeerId,
    /// What to fetch.
    pub blob: BlobRef,
}

/// Rows of one atomic, durable commit.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Peers seen for the first time.
    pub peers: Vec<PeerRow>,
    /// Jobs taken on.
    pub jobs: Vec<JobRow>,
    /// What people changed of running jobs: the newest word on each.
    pub standings: BTreeMap<JobId, Standing>,
    /// Weights of submitters: the newest of each.
    pub weights: BTreeMap<PeerNo, Weight>,
    /// Jobs that ended. Their leases and pending rows go.
    pub ended: BTreeMap<JobId, (JobState, Timestamp)>,
    /// Progress of jobs: the newest row of each.
    pub shards: BTreeMap<JobId, ShardRow>,
    /// Leases handed out.
    pub leases_opened: BTreeMap<LeaseId, Arc<LeaseRow>>,
    /// Leases none of whose attempts is open any more.
    pub leases_closed: BTreeSet<LeaseId>,
    /// Reports on tasks that are not final.
    pub pending: BTreeMap<AttemptId, PendingRow>,
    /// Tasks that became final. Their pending rows go.
    pub finals: Vec<FinalRow>,
    /// Final tasks, of this batch or of earlier ones, that rest on one worker's word: its vote for each.
    pub provisional: BTreeMap<AttemptId, PendingRow>,
    /// Tasks whose results do so no more.
    pub confirmed: BTreeSet<TaskId>,
    /// Tasks that are not final any more, or not as they were. Comes before `finals`.
    pub revoked: BTreeSet<TaskId>,
    /// Tasks whose pending rows of earlier batches go. Comes before `pending`.
    pub cleared: BTreeSet<TaskId>,
    /// What is remembered of workers: the newest word on each.
    pub records: BTreeMap<PeerNo, RecordRow>,
    /// Invites that were made or used: the newest word on each.
    pub invites: BTreeMap<InviteId, InviteRow>,
    /// Credit, coalesced by peer. Equals the sum of the grants in `finals`, less that of the grants of what was revoked.
    pub credit: BTreeMap<PeerNo, CreditDelta>,
    /// What peers say that they are called.
    pub names: BTreeMap<PeerNo, Names>,
    /// What workers signed about their reports.
    pub receipts: Vec<SignedReceipts>,
    /// When all of that which the ledger records came to be; zero when there is none.
    pub at: Timestamp,
}

impl Batch {
    /// Whether a commit would change nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn close_lease(&mut self, lease: LeaseId) {
        if self.leases_opened.remove(&lease).is_none() {
            self.leases_closed.insert(lease);
        }
    }

    pub(super) fn add_final(&mut self, now: Timestamp, row: FinalRow) {
        self.at = now;
        for grant in &row.grants {
            let delta = self.credit.entry(grant.peer).or_default();
            delta.credit += grant.credit;
            if is_active(Mutant::PaysTwice) {
                delta.credit += grant.credit;
            }
            *(if grant.agreed { &mut delta.validated } else { &mut delta.invalid }) += 1;
        }
        let first = AttemptId { task: row.task, number: 0 };
        let last = AttemptId { task: row.task, number: u32::MAX };
        let replaced: Vec<_> = self.pending.range(first..=last).map(|(id, _)| *id).collect();
        for id in replaced {
            self.pending.remove(&id);
        }
        self.finals.push(row);
    }

    /// A final task is open again; what it granted is taken back.
    pub(super) fn revoke(&mut self, now: Timestamp, attempt: AttemptId, grants: &[Grant]) {
        self.at = now;
        let task = attempt.task;
        for grant in grants {
            let delta = self.credit.entry(grant.peer).or_default();
            delta.credit += Credit::from_nanos(-grant.credit.nanos());
            *(if grant.agreed { &mut delta.validated } else { &mut delta.invalid }) -= 1;
        }
        if let Some(place) = self.finals.iter().rposition(|row| row.task == task)
            && self.finals.remove(place).had_pending
        {
            self.cleared.insert(task);
        }
        self.provisional.remove(&attempt);
        self.revoked.insert(task);
    }

    /// A final task does not rest on one worker's word any more.
    pub(super) fn confirm(&mut self, attempt: AttemptId) {
        if self.provisional.remove(&attempt).is_none() {
            self.confirmed.insert(attempt.task);
        }
    }
}

/// The receipts of one message of reports, with the signature of whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedReceipts {
    /// Who signed.
    pub peer: PeerNo,
    /// Over [`receipts_statement`](crate::signing::receipts_statement).
    pub signature: [u8; 64],
    /// In the order of the tree's leaves.
    pub receipts: Vec<Receipt>,
}

/// A peer and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerRow {
    /// Short name in all other rows.
    pub no: PeerNo,
    /// Who.
    pub id: PeerId,
}

/// A job as it was taken on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRow {
    /// Its number.
    pub job: JobId,
    /// Who wants what.
    pub submission: Arc<Submission>,
    /// When.
    pub submitted: Timestamp,
    /// Where it stands.
    pub state: JobState,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// What people may change while it runs.
    pub standing: Standing,
}

/// What people may change of a job while it runs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether nothing of it is handed out for now. What was handed out before may be finished.
    pub paused: bool,
    /// Its place among its submitter's jobs.
    pub priority: Priority,
}

/// How far a job is. Everything at or above `cursor` is untouched; everything below `low` is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardRow {
    /// Position of the first task that was never leased.
    pub cursor: u64,
    /// Every task below is final.
    pub low: u64,
    /// Tasks done.
    pub done: u64,
    /// Tasks failed.
    pub failed: u64,
    /// Reports taken.
    pub attempts: u64,
    /// Credit granted.
    pub credit: Credit,
    /// Highest number that an attempt of any of its tasks ever had. After a restart attempts get higher ones, so
    /// that no number is used twice, although attempts that were given up are not on record.
    pub numbers: u32,
    /// Final tasks that rest on one worker's word until its next check.
    pub provisional: u64,
    /// Results that were accepted and taken back, because whose word they rested on was caught.
    pub revoked: u64,
}

/// What is remembered of a worker.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct RecordRow {
    /// What its votes have shown.
    pub record: Record,
    /// Attempts that it may hold.
    pub quota: u32,
    /// What the coordinator's owner said of it.
    pub admission: Admission,
    /// The network that it came from last, if others may share that.
    pub site: Option<Site>,
    /// Whose it said that it is.
    pub owner: Option<OwnerKey>,
}

/// An invite.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct InviteRow {
    /// How many more peers may come with it; none when it is used up.
    pub uses: u32,
    /// Until when.
    pub expires: Timestamp,
}

/// Attempts handed to one worker together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// Its number.
    pub lease: LeaseId,
    /// All its tasks are of this job.
    pub job: JobId,
    /// Who got it.
    pub peer: PeerNo,
    /// When its attempts are given to others as well.
    pub deadline: Timestamp,
    /// What is to be run.
    pub items: Vec<LeaseItem>,
}

/// One attempt of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseItem {
    /// Position of the task in its job.
    pub index: u64,
    /// Number of the attempt.
    pub number: u32,
}

/// A report on a task that is not final yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRow {
    /// Who reported.
    pub peer: PeerNo,
    /// What.
    pub report: PendingReport,
}

/// What is remembered of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PendingReport {
    /// The program ended.
    Execution {
        /// What must agree, but for the fuel.
        outcome: OutcomeDigest,
        /// Part of the digest, see [`crate::digest`].
        input: InputDigest,
        /// How it ended.
        exit: Exit,
        /// Executed operators.
        fuel: Fuel,
        /// Whether it went on from a checkpoint, so that its fuel is not to be compared.
        resumed: bool,
        /// What it wrote.
        output: PendingOutput,
    },
    /// It says nothing about the program.
    NoResult(NoResult),
}

/// Where the output of a pending report is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PendingOutput {
    /// Here.
    Inline(Arc<Output>),
    /// The same as that of an earlier report of this task with the same outcome.
    Repeated,
    /// Still with the worker.
    Remote(BlobRef),
}

/// How a task ended: its entry in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinalRow {
    /// Which task.
    pub task: TaskId,
    /// Done or failed, and why.
    pub verdict: TaskVerdict,
    /// What the digest of the verdict is over, together with its fuel. None where nobody agreed, or where all who did had
    /// resumed, and of a task that became final before this was kept.
    pub outcome: Option<OutcomeDigest>,
    /// Reports taken, those without a result included.
    pub attempts: u32,
    /// What each peer that voted got for it.
    pub grants: Vec<Grant>,
    /// What the program wrote.
    pub output: FinalOutput,
    /// Whether earlier batches hold pending rows of this task.
    pub had_pending: bool,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskVerdict {
    /// A quorum agreed. The task is done when the exit is [`Exit::Ok`], otherwise failed.
    Agreed {
        /// On this.
        digest: ResultDigest,
        /// How the program ended.
        exit: Exit,
        /// Executed operators: what the digest covers, or the smallest count of attempts that have all resumed.
        fuel: Fuel,
    },
    /// Too many different answers.
    NoAgreement,
    /// Too many attempts without a result; this was the last one's reason.
    NoResult(NoResult),
}

impl TaskVerdict {
    /// Whether the task is done, and not failed.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Agreed { exit: Exit::Ok, .. })
    }

    /// Why it failed, as a sentence; empty when it is done.
    pub fn reason(&self) -> String {
        match self {
            Self::Agreed { exit: Exit::Ok, .. } => String::new(),
            Self::Agreed { exit, .. } => exit.to_string(),
            Self::NoAgreement => "no two groups of peers could agree on a result".into(),
            Self::NoResult(reason) => format!("no attempt gave a result: {reason}"),
        }
    }
}

/// The output of a final task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinalOutput {
    /// In the row.
    Inline(Arc<Output>),
    /// In the blob store.
    Blob(BlobRef),
    /// There is none, because nobody agreed.
    Nothing,
}

/// What one peer's vote earned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Who.
    pub peer: PeerNo,
    /// With which attempt.
    pub number: u32,
    /// Whether it voted for the canonical result.
    pub agreed: bool,
    /// How much; zero when it did not agree.
    pub credit: Credit,
}

/// A change of one peer's credit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct CreditDelta {
    /// Credit granted.
    pub credit: Credit,
    /// Attempts that agreed with the canonical result.
    pub validated: i64,
    /// Attempts that did not.
    pub invalid: i64,
}
