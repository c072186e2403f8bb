//! What a store does, in maps: it takes batches and gives back a snapshot. It refuses what no store should
//! ever be asked to do.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    coordinator::{
        Batch, CreditDelta, FinalOutput, FinalRow, InviteRow, JobRow, JobSnapshot, LeaseItem, LeaseRow,
        PeerRow, PendingRow, RecordRow, ShardRow, Snapshot, TaskVerdict,
    },
    ids::{AttemptId, JobId, LeaseId, PeerId, PeerNo, TaskId},
    job::JobState,
    placement::InviteId,
    precedence::Weight,
    quantities::Credit,
    trust::Policy,
};

#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) peers: BTreeMap<PeerNo, PeerId>,
    pub(super) jobs: BTreeMap<JobId, (JobRow, ShardRow)>,
    pub(super) leases: BTreeMap<LeaseId, LeaseRow>,
    pub(super) pending: BTreeMap<AttemptId, PendingRow>,
    pub(super) finals: BTreeMap<TaskId, FinalRow>,
    pub(super) credit: BTreeMap<PeerNo, CreditDelta>,
    pub(super) weights: BTreeMap<PeerNo, Weight>,
    pub(super) provisional: BTreeMap<TaskId, (AttemptId, PendingRow)>,
    pub(super) records: BTreeMap<PeerNo, RecordRow>,
    pub(super) invites: BTreeMap<InviteId, InviteRow>,
    /// Every attempt that was ever leased.
    numbered: BTreeSet<AttemptId>,
}

fn pending_of(first: TaskId, last: TaskId) -> std::ops::RangeInclusive<AttemptId> {
    AttemptId { task: first, number: 0 }..=AttemptId { task: last, number: u32::MAX }
}

impl Store {
    pub(super) fn commit(&mut self, batch: Batch) {
        for PeerRow { no, id } in batch.peers {
            assert_eq!(self.peers.insert(no, id), None, "a peer is numbered once");
        }
        for row in batch.jobs {
            let job = row.job;
            assert!(self.jobs.insert(job, (row, ShardRow::default())).is_none(), "a job is taken on once");
        }
        for (job, row) in batch.shards {
            let shard = &mut self.jobs.get_mut(&job).expect("progress of a job that exists").1;
            assert!(row.numbers >= shard.numbers, "numbers of attempts go up");
            *shard = row;
        }
        for (job, standing) in batch.standings {
            self.jobs.get_mut(&job).expect("a job that exists").0.standing = standing;
        }
        for (peer, weight) in batch.weights {
            assert!(self.peers.contains_key(&peer), "a weight of a known peer");
            self.weights.insert(peer, weight);
        }
        for (id, row) in batch.leases_opened {
            for item in &row.items {
                let task = TaskId { job: row.job, index: item.index };
                let new = self.numbered.insert(AttemptId { task, number: item.number });
                assert!(new, "no number of an attempt is used twice");
            }
            assert!(self.leases.insert(id, LeaseRow::clone(&row)).is_none(), "a lease is opened once");
        }
        for id in batch.leases_closed {
            assert!(self.leases.remove(&id).is_some(), "a lease that is closed was open");
        }
        for task in batch.cleared {
            self.forget_pending(task, task);
        }
        for task in batch.revoked {
            self.finals.remove(&task);
            self.provisional.remove(&task);
        }
        self.pending.extend(batch.pending);
        for row in batch.finals {
            self.check_paid(&row);
            let mut voters: Vec<PeerNo> = row.grants.iter().map(|grant| grant.peer).collect();
            voters.sort();
            voters.dedup();
            assert_eq!(voters.len(), row.grants.len(), "task {}: one vote per peer", row.task);
            if row.had_pending {
                self.forget_pending(row.task, row.task);
            }
            let task = row.task;
            assert!(self.finals.insert(task, row).is_none(), "task {task} becomes final once");
        }
        for (attempt, row) in batch.provisional {
            let new = self.provisional.insert(attempt.task, (attempt, row)).is_none();
            assert!(
                new && self.finals.contains_key(&attempt.task),
                "{attempt} makes its task provisional once"
            );
        }
        for task in batch.confirmed {
            assert!(
                self.provisional.remove(&task).is_some(),
                "task {task} is confirmed that was provisional"
            );
        }
        self.records.extend(batch.records);
        self.invites.extend(batch.invites);
        self.invites.retain(|_, row| row.uses > 0);
        for (peer, delta) in batch.credit {
            let sum = self.credit.entry(peer).or_default();
            sum.credit += delta.credit;
            sum.validated += delta.validated;
            sum.invalid += delta.invalid;
        }
        for (job, (state, ended)) in batch.ended {
            let (row, _) = self.jobs.get_mut(&job).expect("the end of a job that exists");
            assert_eq!(row.state, JobState::Running, "job {job} ends once");
            (row.state, row.ended) = (state, Some(ended));
            self.leases.retain(|_, lease| lease.job != job);
            self.forget_pending(TaskId { job, index: 0 }, TaskId { job, index: u64::MAX });
        }
        self.check();
    }

    fn forget_pending(&mut self, first: TaskId, last: TaskId) {
        self.pending.extract_if(pending_of(first, last), |_, _| true).for_each(drop);
    }

    /// A quorum agreed, unless its members promised a large output that only some of them had; and paid is
    /// who agreed.
    fn check_paid(&self, row: &FinalRow) {
        let task = row.task;
        let TaskVerdict::Agreed { fuel, .. } = row.verdict else {
            assert_eq!(row.grants, [], "task {task}: nobody agreed");
            return;
        };
        let agreed = row.grants.iter().filter(|grant| grant.agreed).count();
        let needed = match row.output {
            FinalOutput::Inline(_) => match self.jobs[&task.job].0.submission.spec.policy() {
                Policy::Quorum(quorum) => quorum.get() as usize,
                _ => 1,
            },
            FinalOutput::Blob(_) => 1,
            FinalOutput::Nothing => panic!("task {task}: what was agreed on is there"),
        };
        assert!(agreed >= needed, "task {task}: {agreed} of {needed} votes");
        for grant in &row.grants {
            // Less if one of those who agreed was interrupted and states less.
            let most = if grant.agreed { fuel.credit() } else { Credit::ZERO };
            assert!(grant.credit <= most, "task {task}: paid is the fuel of those who agreed");
            let same = row.grants.iter().filter(|other| other.agreed == grant.agreed);
            assert!(same.clone().all(|other| other.credit == grant.credit), "task {task}: the same to each");
            // Attempts of leases that are closed by now can't be looked up.
            let lease = self.leases.values().find(|lease| {
                let item = |item: &LeaseItem| (item.index, item.number) == (task.index, grant.number);
                lease.job == task.job && lease.items.iter().any(item)
            });
            assert!(lease.is_none_or(|lease| lease.peer == grant.peer), "task {task}: who had it is paid");
        }
    }

    /// What must hold between the tables after each commit.
    fn check(&self) {
        let mut sums = BTreeMap::<PeerNo, CreditDelta>::new();
        for grant in self.finals.values().flat_map(|row| &row.grants) {
            let sum = sums.entry(grant.peer).or_default();
            sum.credit += grant.credit;
            *(if grant.agreed { &mut sum.validated } else { &mut sum.invalid }) += 1;
        }
        let mut credit = self.credit.clone();
        // What was granted and taken back.
        credit.retain(|_, sum| *sum != CreditDelta::default());
        assert_eq!(sums, credit, "credit is the sum of the grants");
        for attempt in self.pending.keys() {
            let checked = self.provisional.contains_key(&attempt.task);
            assert!(
                checked || !self.finals.contains_key(&attempt.task),
                "{attempt} is pending and its task final"
            );
        }
        for (id, (row, shard)) in &self.jobs {
            let finals = self.finals_from(*id, 0).collect::<Vec<_>>();
            let done = finals.iter().filter(|row| row.verdict.is_done()).count() as u64;
            assert_eq!((shard.done, shard.done + shard.failed), (done, finals.len() as u64), "job {id}");
            assert_eq!(
                shard.credit,
                finals.iter().flat_map(|row| &row.grants).map(|grant| grant.credit).sum()
            );
            let provisional = finals.iter().filter(|row| self.provisional.contains_key(&row.task));
            assert_eq!(shard.provisional, provisional.count() as u64, "job {id}: provisional results");
            let complete =
                finals.len() as u64 == row.submission.spec.inputs.count() && shard.provisional == 0;
            assert_eq!(complete, row.state == JobState::Finished, "job {id} is finished when it is complete");
            if row.state == JobState::Running {
                let below = finals.iter().filter(|row| row.task.index < shard.low).count() as u64;
                assert_eq!(below, shard.low, "job {id}: every task below `low` is final");
            }
        }
    }

    /// Whether a report of this attempt is here, or not needed any more.
    pub(super) fn has(&self, attempt: AttemptId) -> bool {
        let ended = self.jobs.get(&attempt.task.job).is_none_or(|(row, _)| row.state != JobState::Running);
        ended || self.pending.contains_key(&attempt) || self.finals.contains_key(&attempt.task)
    }

    fn finals_from(&self, job: JobId, index: u64) -> impl Iterator<Item = &FinalRow> {
        self.finals.range(TaskId { job, index }..=TaskId { job, index: u64::MAX }).map(|(_, row)| row)
    }

    fn open(&self, (row, shard): &(JobRow, ShardRow)) -> Vec<u64> {
        let job = row.job;
        let touched = if row.ended.is_none() { shard.low..shard.cursor } else { 0..0 };
        touched.filter(|index| !self.finals.contains_key(&TaskId { job, index: *index })).collect()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let job = |(id, entry): (&JobId, &(JobRow, ShardRow))| JobSnapshot {
            row: entry.0.clone(),
            shard: entry.1,
            leases: self.leases.values().filter(|lease| lease.job == *id).cloned().collect(),
            pending: self
                .pending
                .range(pending_of(TaskId { job: *id, index: 0 }, TaskId { job: *id, index: u64::MAX }))
                .map(|(attempt, row)| (*attempt, row.clone()))
                .collect(),
            open: self.open(entry),
            provisional: self
                .provisional
                .values()
                .filter(|(attempt, _)| attempt.task.job == *id && entry.0.ended.is_none())
                .cloned()
                .collect(),
        };
        let peers = self.peers.iter().map(|(no, id)| PeerRow { no: *no, id: *id });
        let (weights, records) = (self.weights.clone(), self.records.clone());
        Snapshot {
            peers: peers.collect(),
            weights,
            records,
            invites: self.invites.clone(),
            jobs: self.jobs.iter().map(job).collect(),
        }
    }
}
