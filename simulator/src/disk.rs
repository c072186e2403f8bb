//! What survives a crash, in maps, and the books that an outside observer keeps of what is written: whatever
//! happens, they must balance.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use talka_core::{
    coordinator::{
        Batch, CreditDelta, FinalOutput, FinalRow, InviteRow, JobRow, JobSnapshot, LeaseRow, PeerRow,
        PendingOutput, PendingReport, PendingRow, RecordRow, ShardRow, Snapshot, TaskVerdict,
    },
    ids::{AttemptId, JobId, LeaseId, PeerId, PeerNo, TaskId},
    job::JobState,
    limits,
    placement::InviteId,
    precedence::Weight,
    quantities::Credit,
};

use crate::{report::Report, truth::Answer};

#[derive(Debug, Default)]
pub(crate) struct Disk {
    peers: BTreeMap<PeerNo, PeerId>,
    jobs: BTreeMap<JobId, (JobRow, ShardRow)>,
    leases: BTreeMap<LeaseId, LeaseRow>,
    pending: BTreeMap<AttemptId, PendingRow>,
    finals: BTreeMap<TaskId, FinalRow>,
    credit: BTreeMap<PeerNo, CreditDelta>,
    provisional: BTreeMap<TaskId, (AttemptId, PendingRow)>,
    records: BTreeMap<PeerNo, RecordRow>,
    invites: BTreeMap<InviteId, InviteRow>,
    weights: BTreeMap<PeerNo, Weight>,
    /// Attempts of the open leases, and whose they are.
    leased: BTreeMap<AttemptId, PeerNo>,
    /// Peers that never lie.
    honest: BTreeSet<PeerId>,
    /// Tasks whose accepted result is wrong.
    wrong: u64,
}

fn attempts_of(first: TaskId, last: TaskId) -> RangeInclusive<AttemptId> {
    AttemptId { task: first, number: 0 }..=AttemptId { task: last, number: u32::MAX }
}

fn tasks_of(job: JobId, from: u64) -> RangeInclusive<TaskId> {
    TaskId { job, index: from }..=TaskId { job, index: u64::MAX }
}

fn items(lease: &LeaseRow) -> impl Iterator<Item = AttemptId> {
    let job = lease.job;
    lease
        .items
        .iter()
        .map(move |item| AttemptId { task: TaskId { job, index: item.index }, number: item.number })
}

impl Disk {
    pub(crate) fn trust(&mut self, peer: PeerId) {
        self.honest.insert(peer);
    }

    pub(crate) fn commit(&mut self, batch: &Batch) {
        for PeerRow { no, id } in &batch.peers {
            assert_eq!(self.peers.insert(*no, *id), None, "a number is one peer's");
        }
        for row in &batch.jobs {
            let before = self.jobs.insert(row.job, (row.clone(), ShardRow::default()));
            assert!(before.is_none(), "job {} is taken on once", row.job);
        }
        for (job, row) in &batch.shards {
            let (_, shard) = self.jobs.get_mut(job).expect("progress of a job that exists");
            assert!(row.cursor >= shard.cursor && row.attempts >= shard.attempts, "job {job} goes forward");
            *shard = *row;
        }
        for (job, standing) in &batch.standings {
            self.jobs.get_mut(job).expect("a change of a job that exists").0.standing = *standing;
        }
        for (peer, weight) in &batch.weights {
            assert!(self.peers.contains_key(peer), "a weight of a known peer");
            self.weights.insert(*peer, *weight);
        }
        for task in &batch.cleared {
            self.pending.extract_if(attempts_of(*task, *task), |_, _| true).for_each(drop);
        }
        for task in &batch.revoked {
            self.finals.remove(task);
            self.provisional.remove(task);
        }
        // An attempt may be leased and reported in one batch, and so may be closed what others opened.
        for lease in batch.leases_opened.values() {
            self.open_lease(lease);
        }
        for row in &batch.finals {
            self.finish(row);
        }
        for id in &batch.leases_closed {
            let lease = self.leases.remove(id).expect("a lease that is closed was open");
            for attempt in items(&lease) {
                self.leased.remove(&attempt);
            }
        }
        for (id, row) in &batch.pending {
            let open = self.provisional.contains_key(&id.task) || !self.finals.contains_key(&id.task);
            assert!(open, "{id} is reported although its task is final");
            self.pending.insert(*id, row.clone());
        }
        for (id, row) in &batch.provisional {
            self.provisional.insert(id.task, (*id, row.clone()));
        }
        for task in &batch.confirmed {
            self.provisional.remove(task);
        }
        self.records.extend(&batch.records);
        self.invites.extend(&batch.invites);
        self.invites.retain(|_, row| row.uses > 0);
        for (peer, delta) in &batch.credit {
            let sum = self.credit.entry(*peer).or_default();
            sum.credit += delta.credit;
            sum.validated += delta.validated;
            sum.invalid += delta.invalid;
        }
        for (job, (state, ended)) in &batch.ended {
            self.end(*job, *state, *ended);
        }
    }

    fn open_lease(&mut self, lease: &LeaseRow) {
        assert!((1..=limits::LEASE_ITEMS_MAX).contains(&lease.items.len()), "a lease of bounded size");
        for attempt in items(lease) {
            let task = &attempt.task;
            let open = self.provisional.contains_key(task) || !self.finals.contains_key(task);
            assert!(open, "{attempt} is leased although its task is final");
            let before = self.leased.insert(attempt, lease.peer);
            assert_eq!(before, None, "{attempt} is leased to one worker at a time");
        }
        assert!(self.leases.insert(lease.lease, lease.clone()).is_none(), "a lease is opened once");
        let held = self.leases.values().filter(|other| other.peer == lease.peer);
        let held: usize = held.map(|lease| lease.items.len()).sum();
        assert!(held <= limits::WORKER_IN_FLIGHT_MAX * 2, "a worker holds a bounded number of attempts");
    }

    /// A task becomes final: once, by a quorum, paid once to each of it, and no vote is forgotten.
    fn finish(&mut self, row: &FinalRow) {
        let task = row.task;
        let (job, _) = &self.jobs[&task.job];
        let quorum = job.submission.spec.quorum();
        let (answer, bundle) = (Answer::right(task), job.submission.spec.bundle.hash);
        let right = [answer.digest(bundle), answer.digest_without_fuel(bundle)];
        let voters: BTreeSet<PeerNo> = row.grants.iter().map(|grant| grant.peer).collect();
        assert_eq!(voters.len(), row.grants.len(), "task {task}: votes of distinct peers");
        let agreed = row.grants.iter().filter(|grant| grant.agreed);
        if let TaskVerdict::Agreed { digest, fuel, .. } = row.verdict {
            let delivered = matches!(row.output, FinalOutput::Inline(_)) || agreed.clone().count() > 0;
            assert!(delivered, "task {task}: nobody agreed");
            let by_quorum = job.submission.spec.error_rate.is_none();
            if by_quorum && matches!(row.output, FinalOutput::Inline(_)) {
                assert!(agreed.clone().count() >= quorum as usize, "task {task}: a quorum agreed");
            }
            for grant in &row.grants {
                let earned = if grant.agreed { fuel.credit() } else { Credit::ZERO };
                assert_eq!(grant.credit, earned, "task {task}: paid is the fuel of those who agreed");
                let honest = self.honest.contains(&self.peers[&grant.peer]);
                let is_right = right.contains(&digest);
                assert!(!honest || grant.agreed == is_right, "task {task}: who is honest is right");
            }
            if digest == right[0] {
                assert_eq!(fuel, answer.fuel(), "task {task}: what the digest covers");
            }
            self.wrong += u64::from(!right.contains(&digest));
        } else {
            assert!(row.grants.is_empty(), "task {task}: nobody is paid where nobody agrees");
        }
        self.check_votes(row);
        if row.had_pending {
            self.pending.extract_if(attempts_of(task, task), |_, _| true).for_each(drop);
        }
        let left = self.pending.range(attempts_of(task, task)).next();
        assert!(left.is_none(), "task {task} is final and {left:?} still pending");
        assert!(self.finals.insert(task, row.clone()).is_none(), "task {task} becomes final once");
    }

    /// Every vote that was on record, and so acknowledged, is in the ledger. Large outputs that were not
    /// delivered are the exception.
    fn check_votes(&self, row: &FinalRow) {
        if !matches!(row.verdict, TaskVerdict::Agreed { .. }) {
            return;
        }
        for (attempt, vote) in self.pending.range(attempts_of(row.task, row.task)) {
            let PendingReport::Execution { output, .. } = &vote.report else { continue };
            let known =
                row.grants.iter().any(|grant| (grant.number, grant.peer) == (attempt.number, vote.peer));
            let exempt = matches!(output, PendingOutput::Remote(_));
            assert!(known || exempt, "{attempt} was on record and is not in the ledger");
        }
    }

    fn end(&mut self, id: JobId, state: JobState, ended: talka_core::quantities::Timestamp) {
        let (row, shard) = self.jobs.get_mut(&id).expect("the end of a job that exists");
        assert_eq!(row.state, JobState::Running, "job {id} ends once");
        (row.state, row.ended) = (state, Some(ended));
        let complete = shard.done + shard.failed == row.submission.spec.inputs.count();
        assert!(complete || state == JobState::Cancelled, "job {id} is finished when it is complete");
        for (_, lease) in self.leases.extract_if(.., |_, lease| lease.job == id) {
            for attempt in items(&lease) {
                self.leased.remove(&attempt);
            }
        }
        let all = TaskId { job: id, index: 0 }..=TaskId { job: id, index: u64::MAX };
        self.pending.extract_if(attempts_of(*all.start(), *all.end()), |_, _| true).for_each(drop);
    }

    /// Whether a report of this attempt is on record, or not needed any more.
    pub(crate) fn has(&self, attempt: AttemptId) -> bool {
        let ended = self.jobs.get(&attempt.task.job).is_none_or(|(row, _)| row.state != JobState::Running);
        ended || self.pending.contains_key(&attempt) || self.finals.contains_key(&attempt.task)
    }

    /// An answer tells of this job.
    pub(crate) fn check_taken_on(&self, job: JobId) {
        assert!(self.jobs.contains_key(&job), "job {job} is acknowledged and not on disk");
    }

    pub(crate) fn all_ended(&self) -> bool {
        self.jobs.values().all(|(row, _)| row.state != JobState::Running)
    }

    /// Tasks of running jobs that are not final.
    pub(crate) fn open_tasks(&self) -> impl Iterator<Item = TaskId> {
        let running = self.jobs.iter().filter(|(_, (row, _))| row.state == JobState::Running);
        let tasks = running.flat_map(|(job, (row, _))| {
            (0..row.submission.spec.inputs.count()).map(|index| TaskId { job: *job, index })
        });
        tasks.filter(|task| !self.finals.contains_key(task))
    }

    fn open_in(&self, (row, shard): &(JobRow, ShardRow)) -> Vec<u64> {
        let job = row.job;
        let touched = if row.ended.is_none() { shard.low..shard.cursor } else { 0..0 };
        touched.filter(|index| !self.finals.contains_key(&TaskId { job, index: *index })).collect()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let job = |(id, entry): (&JobId, &(JobRow, ShardRow))| {
            let all = tasks_of(*id, 0);
            let pending = self.pending.range(attempts_of(*all.start(), *all.end()));
            JobSnapshot {
                row: entry.0.clone(),
                shard: entry.1,
                leases: self.leases.values().filter(|lease| lease.job == *id).cloned().collect(),
                pending: pending.map(|(attempt, row)| (*attempt, row.clone())).collect(),
                open: self.open_in(entry),
                provisional: self
                    .provisional
                    .values()
                    .filter(|(attempt, _)| attempt.task.job == *id && entry.0.ended.is_none())
                    .cloned()
                    .collect(),
            }
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

    /// The books at the end.
    pub(crate) fn check_end(&self, report: &mut Report) {
        assert!(self.leases.is_empty(), "leases outlive their jobs: {:?}", self.leases);
        assert!(self.pending.is_empty(), "reports outlive their tasks: {:?}", self.pending);
        let mut sums = BTreeMap::<PeerNo, CreditDelta>::new();
        for grant in self.finals.values().flat_map(|row| &row.grants) {
            let sum = sums.entry(grant.peer).or_default();
            sum.credit += grant.credit;
            *(if grant.agreed { &mut sum.validated } else { &mut sum.invalid }) += 1;
        }
        let mut credit = self.credit.clone();
        credit.retain(|_, sum| *sum != CreditDelta::default());
        assert_eq!(sums, credit, "credit is the sum of the grants");
        for (id, (row, shard)) in &self.jobs {
            let finals: Vec<&FinalRow> = self.finals.range(tasks_of(*id, 0)).map(|(_, row)| row).collect();
            let done = finals.iter().filter(|row| row.verdict.is_done()).count() as u64;
            let all = finals.len() as u64;
            assert_eq!((shard.done, shard.done + shard.failed), (done, all), "job {id}: progress");
            report.jobs += 1;
            report.tasks_done += done;
            report.tasks_failed += all - done;
            report.tasks_cancelled += row.submission.spec.inputs.count() - all;
            report.attempts_reported += shard.attempts;
            let fails =
                |row: &&&FinalRow| !row.verdict.is_done() && Answer::right(row.task).is_meant_to_fail();
            report.tasks_meant_to_fail += finals.iter().filter(fails).count() as u64;
        }
        report.wrong_accepted = self.wrong;
    }

    /// All that became final, for the trace.
    pub(crate) fn summary(&self) -> String {
        format!("{:?} {:?}", self.finals, self.credit)
    }
}
