//! One job: a range of untouched tasks, the touched ones, and counters.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    again::Again,
    effects::{JobRow, LeaseItem, ShardRow, Standing},
    open::OpenTasks,
    placing::Candidate,
    stragglers::Times,
    task::{Attempt, AttemptState, Task},
    traffic::Traffic,
    trust::Trust,
    unchecked::Word,
};
use crate::{
    ids::{JobId, LeaseId, PeerNo, TaskId},
    job::{JobState, Submission},
    limits,
    mutants::{Mutant, is_active},
    quantities::Timestamp,
    trust::Policy,
};

/// A job that this coordinator owns.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) submission: Arc<Submission>,
    pub(super) submitted: Timestamp,
    pub(super) state: JobState,
    pub(super) ended: Option<Timestamp>,
    pub(super) standing: Standing,
    /// Counters and cursor; `low` is kept by [`Job::shard`].
    pub(super) shard: ShardRow,
    /// Touched tasks that are not final.
    pub(super) open: OpenTasks,
    pub(super) again: Again,
    /// Bytes of outputs of open tasks.
    pub(super) held_bytes: u64,
    /// Attempts whose lease items are open.
    pub(super) open_attempts: u64,
    /// Leases with open attempts, oldest first.
    pub(super) leases: BTreeSet<LeaseId>,
    /// How long its attempts take.
    pub(super) times: Times,
    /// Second attempts for stragglers that are open.
    pub(super) duplicates: u64,
    /// Jobs in a row that went before it because a worker had their blobs.
    pub(super) passed_over: u32,
    /// Final tasks that rest on one worker's word, by worker.
    pub(super) unchecked: BTreeMap<PeerNo, BTreeMap<u64, Word>>,
    /// Those of them that are open again, to be checked.
    pub(super) rechecked: u64,
    /// Agreed outputs that were lost with those who had them.
    pub(super) outputs_lost: u64,
    /// What workers say that they fetched of it.
    pub(super) fetched: Traffic,
}

impl Job {
    /// A job as its rows tell of it, without its open tasks.
    pub(super) fn new(row: JobRow, shard: ShardRow) -> Self {
        let JobRow { job: id, submission, submitted, state, ended, standing } = row;
        Self {
            id,
            submission,
            submitted,
            state,
            ended,
            standing,
            shard,
            open: OpenTasks::default(),
            again: Again::default(),
            held_bytes: 0,
            open_attempts: 0,
            leases: BTreeSet::new(),
            times: Times::default(),
            duplicates: 0,
            passed_over: 0,
            unchecked: BTreeMap::new(),
            rechecked: 0,
            outputs_lost: 0,
            fetched: Traffic::default(),
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.submission.spec.inputs.count()
    }

    pub(super) fn quorum(&self) -> u32 {
        self.submission.spec.quorum()
    }

    /// Votes on a task after which nobody will agree any more: too many, or those of everybody who may vote.
    pub(super) fn votes_max(&self) -> usize {
        let max = match self.policy() {
            Policy::ErrorRate { .. } => limits::ERROR_RATE_VOTES_MAX,
            Policy::Quorum(_) | Policy::Adaptive { .. } => {
                (self.quorum() + limits::ATTEMPTS_BEYOND_QUORUM_MAX) as usize
            }
        };
        let peers = self.submission.spec.on.len();
        if peers == 0 { max } else { max.min(peers) }
    }

    /// The row of its progress.
    pub(super) fn shard(&self) -> ShardRow {
        let low = self.open.first().unwrap_or(self.shard.cursor);
        ShardRow { low, ..self.shard }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.shard.done + self.shard.failed == self.total() && self.shard.provisional == 0
    }

    pub(super) fn policy(&self) -> Policy {
        self.submission.spec.policy()
    }

    pub(super) fn task_id(&self, index: u64) -> TaskId {
        TaskId { job: self.id, index }
    }

    /// Tasks that nobody has touched yet and that may be touched now. Half-validated tasks and their
    /// outputs are held in memory, so a job that only one peer works at must wait at some point.
    pub(super) fn untouched(&self) -> u64 {
        let room = self.open.len() < limits::OPEN_TASKS_MAX;
        let held = self.held_bytes < limits::HELD_OUTPUT_BYTES_MAX;
        if room && held { self.total() - self.shard.cursor } else { 0 }
    }

    /// Whether its tasks may be handed out.
    pub(super) fn may_run(&self) -> bool {
        self.state == JobState::Running && !self.standing.paused
    }

    /// Whether there may be something for somebody.
    pub(super) fn has_work(&self) -> bool {
        self.untouched() > 0 || self.again.len() > 0
    }

    /// Whether there may be something for `peer`.
    pub(super) fn has_work_for(&self, peer: &Candidate) -> bool {
        self.untouched() > 0 || self.again.has_entry_for(peer)
    }

    /// Half of one worker's even share of the votes that are left.
    pub(super) fn share(&self, workers: usize) -> usize {
        let votes = match self.policy() {
            Policy::ErrorRate { .. } => 1,
            Policy::Quorum(_) | Policy::Adaptive { .. } => self.quorum(),
        };
        let left = (self.total() - self.shard.cursor + self.open.len() as u64) * u64::from(votes);
        usize::try_from(left.div_ceil(2 * workers.max(1) as u64)).unwrap_or(usize::MAX).max(1)
    }

    /// Hands up to `count` attempts to `peer`: first those that finish begun tasks, then untouched ones.
    pub(super) fn take(
        &mut self,
        peer: PeerNo,
        lease: LeaseId,
        count: usize,
        trust: &Trust,
    ) -> Vec<LeaseItem> {
        let candidate = trust.candidate(peer);
        let had_untouched = self.shard.cursor < self.total();
        let mut items = Vec::new();
        while items.len() < count {
            let open = &self.open;
            let valid = |entry: super::again::Entry| {
                open.get(&entry.index).is_some_and(|task| task.queued == Some(entry.ticket))
            };
            let index = match self.again.pop(&candidate, valid) {
                Some(index) => index,
                None if self.untouched() > 0 => {
                    let index = self.shard.cursor;
                    self.shard.cursor += 1;
                    self.open.insert(index, Task::default());
                    index
                }
                None => break,
            };
            let Some(item) = self.begin_attempt(index, peer, lease, trust) else { continue };
            items.push(item);
            self.requeue(index, false, trust);
        }
        if had_untouched && self.shard.cursor == self.total() {
            self.hurry(trust);
        }
        items
    }

    /// Nothing is left but what is begun: whoever has to look at a task need not wait for those who are at it.
    fn hurry(&mut self, trust: &Trust) {
        if matches!(self.policy(), Policy::ErrorRate { .. }) {
            let waiting: Vec<u64> = self.open.keys().collect();
            for index in waiting {
                self.requeue(index, false, trust);
            }
        }
    }

    fn begin_attempt(
        &mut self,
        index: u64,
        peer: PeerNo,
        lease: LeaseId,
        trust: &Trust,
    ) -> Option<LeaseItem> {
        let (policy, id) = (self.policy(), self.task_id(index));
        let task = self.open.get_mut(&index)?;
        task.last_number += u32::from(task.last_number == 0 || !is_active(Mutant::LeasesAttemptAgain));
        let ordinal = task.last_number;
        let number = trust.number(policy, id, ordinal);
        task.queued = None;
        task.attempts.push(Attempt { number, ordinal, peer, lease, state: AttemptState::Leased });
        self.shard.numbers = self.shard.numbers.max(ordinal);
        self.open_attempts += 1;
        Some(LeaseItem { index, number })
    }

    /// Hands a second attempt at a straggler's task to `peer`, unless there was one already: several of its attempts may
    /// be late.
    pub(super) fn duplicate(
        &mut self,
        index: u64,
        peer: PeerNo,
        lease: LeaseId,
        trust: &Trust,
    ) -> Option<LeaseItem> {
        if self.open.get(&index)?.duplicate.is_some() {
            return None;
        }
        let item = self.begin_attempt(index, peer, lease, trust)?;
        let task = self.open.get_mut(&index)?;
        task.duplicate = Some(item.number);
        self.duplicates += 1;
        Some(item)
    }

    /// Queues a task again if more votes are needed than may come. Returns whether it did.
    pub(super) fn requeue(&mut self, index: u64, relaxed: bool, trust: &Trust) -> bool {
        let Some(task) = self.open.get(&index) else { return false };
        if task.queued.is_some() || task.collecting || !trust.wants_more(self, index, task) {
            return false;
        }
        let exclusion = trust.exclusion(self, index, task, relaxed);
        let Some(task) = self.open.get_mut(&index) else { return false };
        task.queued = Some(self.again.push(exclusion, index));
        self.sweep();
        true
    }

    /// Keeps the queue in proportion to what is open: entries turn void when their tasks become final or
    /// are queued anew, and nobody may ever come who could take them.
    fn sweep(&mut self) {
        /// Void entries that are not worth a sweep.
        const SLACK: usize = 64;
        if self.again.len() > 2 * self.open.len() + SLACK {
            let open = &self.open;
            self.again
                .sweep(|entry| open.get(&entry.index).is_some_and(|task| task.queued == Some(entry.ticket)));
        }
    }
}
