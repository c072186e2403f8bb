//! Random but well-formed histories: a number is one event of a small imaginary grid, which turns it into
//! rows as a coordinator would.

#![expect(clippy::cast_possible_truncation, reason = "any part of a random number will do")]

use std::{collections::BTreeMap, sync::Arc};

use talka_core::{
    coordinator::{
        Batch, FinalOutput, FinalRow, Grant, JobRow, LeaseItem, LeaseRow, PeerRow, PendingOutput,
        PendingReport, PendingRow, ShardRow, SignedReceipts, Standing, TaskVerdict,
    },
    digest::result_digest,
    ids::{AttemptId, BlobHash, InputDigest, JobId, LeaseId, OutcomeDigest, PeerId, PeerNo, TaskId},
    job::{BlobRef, Inputs, JobState, RawJobSpec, Submission},
    ledger::Names,
    outcome::{Exit, Limit, NoResult, Output, Trap},
    precedence::{Priority, Weight},
    quantities::{Bytes, Credit, Fuel, Timestamp},
    signing::Receipt,
};

/// The grid.
#[derive(Debug, Default)]
pub(in crate::store) struct World {
    peers: u32,
    jobs: BTreeMap<JobId, Job>,
    /// Jobs that were ever submitted.
    pub(in crate::store) submitted: u64,
    leases: BTreeMap<LeaseId, JobId>,
    next_lease: u64,
    batches: u64,
    batch: Batch,
}

#[derive(Debug)]
struct Job {
    tasks: u64,
    shard: ShardRow,
    /// Touched tasks that are not final, with the reports on them: number, peer, whether committed.
    open: BTreeMap<u64, Vec<(u32, PeerNo, bool)>>,
}

/// A short deterministic sequence, by the constants of `SplitMix64`.
pub(in crate::store) fn numbers(seed: u64) -> impl Iterator<Item = u64> {
    (1u64..).map(move |step| {
        let mixed = seed.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    })
}

pub(in crate::store) fn job_row(job: JobId, tasks: u64) -> JobRow {
    let spec = RawJobSpec {
        args: vec!["{index}".into()],
        env: vec![("NAME".into(), "ä \" value".into())],
        quorum: 2,
        seed: u64::MAX,
        priority: 7,
        ..RawJobSpec::plain(
            format!("job {job}"),
            BlobRef { hash: BlobHash::new([1; 32]), size: Bytes::new(100) },
            Inputs::Array { first: 5, count: tasks },
        )
    };
    let spec = spec.validate().expect("valid");
    let standing = Standing { paused: false, priority: spec.priority() };
    let submission =
        Submission { request: [7; 16], submitter: PeerId::new([9; 32]), spec, signature: Some([8; 64]) };
    JobRow {
        job,
        submission: Arc::new(submission),
        submitted: Timestamp::from_millis(1_790_000_000_000),
        state: JobState::Running,
        ended: None,
        standing,
    }
}

impl World {
    /// One event. An event that can't happen now does nothing.
    pub(in crate::store) fn step(&mut self, number: u64) {
        let (kind, pick) = (number % 16, number / 16);
        match kind {
            0 => self.add_peer(),
            1 => self.add_job(pick % 30 + 1),
            2..=4 => self.lease(pick),
            5 => self.close_lease(pick),
            6..=10 => self.report(pick),
            11..=14 => self.finish(pick),
            _ => match pick % 8 {
                0 => self.end_job(pick / 8),
                1..=3 => self.steer(pick / 8),
                4 => self.weigh(pick / 8),
                5 => self.name(pick / 8),
                _ => {}
            },
        }
    }

    /// The rows of all events since the last call.
    pub(in crate::store) fn batch(&mut self) -> Batch {
        for reports in self.jobs.values_mut().flat_map(|job| job.open.values_mut()).flatten() {
            reports.2 = true;
        }
        self.batches += 1;
        // Eleven hours apart, so that there are several days.
        self.batch.at = Timestamp::from_millis(1_790_000_000_000 + self.batches * 40_000_000);
        std::mem::take(&mut self.batch)
    }

    fn add_peer(&mut self) {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&self.peers.to_le_bytes());
        self.batch.peers.push(PeerRow { no: PeerNo::new(self.peers), id: PeerId::new(id) });
        self.peers += 1;
    }

    fn add_job(&mut self, tasks: u64) {
        self.submitted += 1;
        let job = JobId::new(self.submitted);
        self.batch.jobs.push(job_row(job, tasks));
        self.jobs.insert(job, Job { tasks, shard: ShardRow::default(), open: BTreeMap::new() });
        self.touch(job);
    }

    fn lease(&mut self, pick: u64) {
        let Some(peer) = self.peer(pick) else { return };
        let Some(id) = nth(self.jobs.keys(), pick / 7).copied() else { return };
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let mut items: Vec<_> =
            job.open.keys().rev().take(2).map(|index| LeaseItem { index: *index, number: 3 }).collect();
        for index in job.shard.cursor..job.tasks.min(job.shard.cursor + pick % 9) {
            job.open.insert(index, vec![]);
            items.push(LeaseItem { index, number: 1 });
            job.shard.cursor = index + 1;
        }
        self.next_lease += 1;
        let lease = LeaseId::new(self.next_lease);
        let deadline = Timestamp::from_millis(pick >> 20);
        self.batch.leases_opened.insert(lease, Arc::new(LeaseRow { lease, job: id, peer, deadline, items }));
        self.leases.insert(lease, id);
        self.touch(id);
    }

    fn close_lease(&mut self, pick: u64) {
        let Some(lease) = nth(self.leases.keys(), pick).copied() else { return };
        self.leases.remove(&lease);
        if self.batch.leases_opened.remove(&lease).is_none() {
            self.batch.leases_closed.insert(lease);
        }
    }

    fn report(&mut self, pick: u64) {
        let (Some(peer), Some(task)) = (self.peer(pick), self.open_task(pick / 5)) else { return };
        let Some(job) = self.jobs.get_mut(&task.job) else { return };
        let Some(reports) = job.open.get_mut(&task.index) else { return };
        let number = reports.len() as u32 + 1;
        reports.push((number, peer, false));
        job.shard.attempts += 1;
        let output = match pick % 4 {
            0 => PendingOutput::Repeated,
            1 => PendingOutput::Remote(blob(pick)),
            _ => PendingOutput::Inline(output(pick)),
        };
        let report = match pick % 7 {
            0 => PendingReport::NoResult(NoResult::Fetch),
            _ => PendingReport::Execution {
                outcome: OutcomeDigest::new([pick as u8; 32]),
                input: InputDigest::new([3; 32]),
                exit: exit(pick),
                fuel: Fuel::new(pick >> 10),
                resumed: pick.is_multiple_of(3),
                output,
            },
        };
        let attempt = AttemptId { task, number };
        let receipt = Receipt {
            attempt,
            outcome: OutcomeDigest::new([pick as u8; 32]),
            fuel: Fuel::new(pick),
            resumed: pick.is_multiple_of(3),
        };
        match self.batch.receipts.last_mut() {
            Some(signed) if signed.peer == peer => signed.receipts.push(receipt),
            _ => {
                let signature = [pick as u8; 64];
                self.batch.receipts.push(SignedReceipts { peer, signature, receipts: vec![receipt] });
            }
        }
        self.batch.pending.insert(attempt, PendingRow { peer, report });
        self.touch(task.job);
    }

    fn finish(&mut self, pick: u64) {
        let Some(task) = self.open_task(pick) else { return };
        let Some(job) = self.jobs.get_mut(&task.job) else { return };
        let reports = job.open.remove(&task.index).unwrap_or_default();
        let fuel = Fuel::new(pick >> 12);
        let agreed_on = OutcomeDigest::new([(pick >> 8) as u8; 32]);
        let known = pick.is_multiple_of(2).then_some(fuel);
        let verdict = match pick % 5 {
            0 => TaskVerdict::NoAgreement,
            1 => TaskVerdict::NoResult(NoResult::Deadline),
            _ => TaskVerdict::Agreed { digest: result_digest(agreed_on, known), exit: exit(pick), fuel },
        };
        let outcome = known.map(|_| agreed_on).filter(|_| matches!(verdict, TaskVerdict::Agreed { .. }));
        let output = match (&verdict, pick % 3) {
            (TaskVerdict::Agreed { .. }, 0) => FinalOutput::Blob(blob(pick)),
            (TaskVerdict::Agreed { .. }, _) => FinalOutput::Inline(output(pick)),
            _ => FinalOutput::Nothing,
        };
        let grants: Vec<_> = reports.iter().map(|(number, peer, _)| grant(*peer, *number, pick)).collect();
        for grant in &grants {
            let delta = self.batch.credit.entry(grant.peer).or_default();
            delta.credit += grant.credit;
            *(if grant.agreed { &mut delta.validated } else { &mut delta.invalid }) += 1;
            job.shard.credit += grant.credit;
        }
        *(if verdict.is_done() { &mut job.shard.done } else { &mut job.shard.failed }) += 1;
        self.batch.pending.retain(|attempt, _| attempt.task != task);
        let had_pending = reports.iter().any(|(.., committed)| *committed);
        let attempts = reports.len() as u32 + (pick % 3) as u32;
        if let Some((number, peer, _)) = reports.first() {
            let attempt = AttemptId { task, number: *number };
            let fuel = if pick.is_multiple_of(7) { Fuel::new(3) } else { fuel };
            let receipt = Receipt { attempt, outcome: agreed_on, fuel, resumed: pick.is_multiple_of(11) };
            let (peer, signature) = (*peer, [pick as u8; 64]);
            self.batch.receipts.push(SignedReceipts { peer, signature, receipts: vec![receipt] });
        }
        self.batch.finals.push(FinalRow { task, verdict, outcome, attempts, grants, output, had_pending });
        self.touch(task.job);
    }

    fn end_job(&mut self, pick: u64) {
        let Some(id) = nth(self.jobs.keys(), pick).copied() else { return };
        self.jobs.remove(&id);
        self.leases.retain(|_, job| *job != id);
        let state = if pick.is_multiple_of(2) { JobState::Cancelled } else { JobState::Finished };
        self.batch.ended.insert(id, (state, Timestamp::from_millis(pick >> 20)));
    }

    fn steer(&mut self, pick: u64) {
        let Some(id) = nth(self.jobs.keys(), pick).copied() else { return };
        let priority = Priority::new(i64::from(pick as i8).clamp(-100, 100)).expect("in range");
        self.batch.standings.insert(id, Standing { paused: pick.is_multiple_of(2), priority });
    }

    fn weigh(&mut self, pick: u64) {
        let Some(peer) = self.peer(pick) else { return };
        let weight = Weight::new(pick / 3 % 4 + 1).expect("in range");
        self.batch.weights.insert(peer, weight);
    }

    fn name(&mut self, pick: u64) {
        let Some(peer) = self.peer(pick) else { return };
        let names = Names::new(&format!("owner {}", pick % 5), &"team".repeat((pick % 3) as usize));
        self.batch.names.insert(peer, names.expect("plain"));
    }

    fn touch(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.shard.numbers += 1;
            job.shard.low = job.open.keys().next().copied().unwrap_or(job.shard.cursor);
            self.batch.shards.insert(id, job.shard);
        }
    }

    fn peer(&self, pick: u64) -> Option<PeerNo> {
        (self.peers > 0).then(|| PeerNo::new((pick % u64::from(self.peers)) as u32))
    }

    fn open_task(&self, pick: u64) -> Option<TaskId> {
        let open = self
            .jobs
            .iter()
            .flat_map(|(job, state)| state.open.keys().map(|index| TaskId { job: *job, index: *index }));
        nth(open.collect::<Vec<_>>().iter(), pick).copied()
    }
}

fn nth<T>(items: impl ExactSizeIterator<Item = T>, pick: u64) -> Option<T> {
    let mut items = items;
    let count = items.len() as u64;
    (count > 0).then(|| items.nth((pick % count) as usize)).flatten()
}

fn exit(pick: u64) -> Exit {
    match pick % 6 {
        0 => Exit::Code(u32::MAX),
        1 => Exit::Trap(Trap::Other),
        2 => Exit::Limit(Limit::Fuel),
        _ => Exit::Ok,
    }
}

fn grant(peer: PeerNo, number: u32, pick: u64) -> Grant {
    let agreed = !(pick + u64::from(number)).is_multiple_of(3);
    let nanos = if agreed { pick >> 12 } else { 0 };
    Grant { peer, number, agreed, credit: Credit::from_nanos(nanos.into()) }
}

fn blob(pick: u64) -> BlobRef {
    BlobRef { hash: BlobHash::new([pick as u8; 32]), size: Bytes::new(pick) }
}

fn output(pick: u64) -> Arc<Output> {
    let bytes = |count: u64| vec![pick as u8; count as usize];
    let files = (0..pick % 3).map(|file| (format!("file {file}"), bytes(pick % 50))).collect();
    Arc::new(match pick % 4 {
        0 => Output::default(),
        1 => Output { stdout: bytes(9000), ..Output::default() },
        _ => Output { stdout: bytes(pick % 100), files, stderr: bytes(pick % 10) },
    })
}
