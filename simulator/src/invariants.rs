//! What must hold at each step, and who watches over it: an outside observer, who sees what becomes durable, what is
//! acknowledged, and what workers say. It knows nothing of how the coordinator decides.
//!
//! | | always |
//! |---|---|
//! | S1 | what was acknowledged is never lost |
//! | S2 | a task is accepted once, by its quorum, and its result never changes |
//! | S3 | a vote is paid once, what was agreed, and credit is the sum of the grants |
//! | S4 | an attempt is leased to one worker, once |
//! | S5 | what a worker gave back, or what is another's, never counts |
//! | S6 | the votes of a task are those of distinct peers |
//! | S7 | every queue keeps within its bound |
//!
//! Beside them, `alive` stands for liveness after healing and `sound` for what the core and the models check of
//! themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use talka_core::{
    coordinator::{
        Batch, CreditDelta, FinalOutput, FinalRow, Grant, JobProgress, JobRow, PendingOutput, PendingReport,
        PendingRow, ShardRow, TaskVerdict, attempts_of,
    },
    ids::{AttemptId, JobId, PeerId, PeerNo, TaskId},
    job::JobState,
    limits,
    quantities::Credit,
};

use crate::{
    disk::{Disk, items},
    truth::Answer,
};

/// A name for what must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// What was acknowledged is never lost.
    S1,
    /// A task is accepted once, by its quorum, and its result never changes.
    S2,
    /// A vote is paid once, what was agreed, and credit is the sum of the grants.
    S3,
    /// An attempt is leased to one worker, once.
    S4,
    /// What a worker gave back, or what is another's, never counts.
    S5,
    /// The votes of a task are those of distinct peers.
    S6,
    /// Every queue keeps within its bound.
    S7,
    /// When nothing goes wrong any more, every job ends, and soon.
    Alive,
    /// What the core and the models of its surroundings check of themselves.
    Sound,
}

impl Invariant {
    /// A word for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::S1 => "S1",
            Self::S2 => "S2",
            Self::S3 => "S3",
            Self::S4 => "S4",
            Self::S5 => "S5",
            Self::S6 => "S6",
            Self::S7 => "S7",
            Self::Alive => "alive",
            Self::Sound => "sound",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Something that must hold did not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{invariant} is violated at {:.3} s: {what}", .at.as_secs_f64())]
pub struct Violation {
    /// What must hold.
    pub invariant: Invariant,
    /// Virtual time since the start.
    pub at: Duration,
    /// What was seen instead.
    pub what: String,
}

/// How a violation travels to [`World::run`](crate::world::World::run): as the payload of an unwinding, because the
/// checks of the core are panics, too.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) invariant: Invariant,
    pub(crate) what: String,
}

/// Ends the run if something does not hold.
pub(crate) fn ensure(invariant: Invariant, holds: bool, what: impl FnOnce() -> String) {
    if !holds {
        std::panic::resume_unwind(Box::new(Broken { invariant, what: what() }));
    }
}

/// What happens before the observer's eyes. It is looked at before the disk takes it over.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'a> {
    /// A batch becomes durable.
    Commit(&'a Batch),
    /// A coordinator has started from what is durable.
    Restarted(&'a [JobProgress]),
    /// A submitter is told that its job was taken on.
    TakenOn(JobId),
    /// A worker is told that its report is on record, or was refused for good, as the coordinator says.
    Settled { attempt: AttemptId, peer: PeerId, counts: bool },
    /// The coordinator hears what a worker has, when it connects or leaves.
    Holding { peer: PeerId, holding: &'a [AttemptId] },
    /// The coordinator hears which attempts a worker has not begun and holds no longer.
    GivenBack { peer: PeerId, attempts: &'a [AttemptId] },
    /// The coordinator hears reports of a worker.
    Reports { peer: PeerId, attempts: &'a [AttemptId] },
    /// So many messages wait for a worker.
    Queue(usize),
    /// A worker holds so many attempts.
    Load(usize),
    /// Every job has ended.
    End,
}

/// What the observer remembers.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    /// Reports that a coordinator has heard, and whose.
    heard: BTreeSet<(AttemptId, PeerId)>,
    /// Attempts that their workers did not have while this coordinator lives, never having reported them.
    given_back: BTreeSet<AttemptId>,
    /// Every attempt that was ever leased, and to whom.
    leased: BTreeMap<AttemptId, PeerNo>,
    /// Sums of all grants.
    granted: BTreeMap<PeerNo, CreditDelta>,
    /// Peers that never lie.
    honest: BTreeSet<PeerId>,
    /// Tasks whose accepted result is wrong.
    pub(crate) wrong: u64,
}

impl Observer {
    /// This peer never lies.
    pub(crate) fn trust(&mut self, peer: PeerId) {
        self.honest.insert(peer);
    }

    /// Checks a step, and remembers it. What is broken more closely comes first: who votes twice is paid twice, too.
    pub(crate) fn see(&mut self, disk: &Disk, step: Step<'_>) {
        s1_acknowledged_result_is_never_lost(self, disk, step);
        s2_task_is_accepted_once_by_its_quorum(disk, step);
        s4_attempt_is_leased_to_one_worker_once(self, step);
        s5_given_back_or_foreign_never_counts(self, disk, step);
        s6_votes_are_of_distinct_peers(disk, step);
        s3_credit_is_granted_once_and_adds_up(self, disk, step);
        s7_queues_keep_within_bounds(disk, step);
        self.remember(disk, step);
    }

    fn remember(&mut self, disk: &Disk, step: Step<'_>) {
        match step {
            Step::Commit(batch) => {
                let leases = batch.leases_opened.values();
                let handed_out = leases.flat_map(|lease| items(lease).map(|attempt| (attempt, lease.peer)));
                self.leased.extend(handed_out);
                for (peer, back) in taken_back(disk, batch) {
                    let sum = self.granted.entry(peer).or_default();
                    sum.credit += back.credit;
                    sum.validated += back.validated;
                    sum.invalid += back.invalid;
                }
                batch
                    .finals
                    .iter()
                    .flat_map(|row| &row.grants)
                    .for_each(|grant| add(&mut self.granted, grant));
                let wrong = batch.finals.iter().filter(|row| is_right(disk, batch, row) == Some(false));
                self.wrong += wrong.count() as u64;
            }
            // What was said to the one before may be lost with it.
            Step::Restarted(_) => self.given_back.clear(),
            Step::Holding { peer, holding } => {
                let lost = disk
                    .leased_to(peer)
                    .filter(|attempt| !holding.contains(attempt) && !self.heard.contains(&(*attempt, peer)));
                self.given_back.extend(lost);
            }
            Step::GivenBack { peer, attempts } => {
                let lost = attempts.iter().filter(|attempt| !self.heard.contains(&(**attempt, peer)));
                self.given_back.extend(lost);
            }
            Step::Reports { peer, attempts } => {
                self.heard.extend(attempts.iter().map(|attempt| (*attempt, peer)));
            }
            Step::TakenOn(_) | Step::Settled { .. } | Step::Queue(_) | Step::Load(_) | Step::End => {}
        }
    }
}

type Sums = BTreeMap<PeerNo, CreditDelta>;

fn add(sums: &mut Sums, grant: &Grant) {
    let sum = sums.entry(grant.peer).or_default();
    sum.credit += grant.credit;
    *(if grant.agreed { &mut sum.validated } else { &mut sum.invalid }) += 1;
}

/// What the revoked results of earlier batches had granted, as it is taken back.
fn taken_back(disk: &Disk, batch: &Batch) -> Sums {
    let mut sums = Sums::new();
    let rows = batch.revoked.iter().filter_map(|task| disk.final_row(*task));
    for grant in rows.flat_map(|row| &row.grants) {
        let sum = sums.entry(grant.peer).or_default();
        sum.credit += Credit::from_nanos(-grant.credit.nanos());
        *(if grant.agreed { &mut sum.validated } else { &mut sum.invalid }) -= 1;
    }
    sums
}

fn without_zeros(sums: &Sums) -> Sums {
    sums.iter().filter(|(_, sum)| **sum != CreditDelta::default()).map(|(peer, sum)| (*peer, *sum)).collect()
}

/// A job, which may be as new as the batch.
fn job<'a>(disk: &'a Disk, batch: &'a Batch, id: JobId) -> (&'a JobRow, ShardRow) {
    let known = disk.job(id).or_else(|| {
        let row = batch.jobs.iter().find(|row| row.job == id)?;
        Some((row, ShardRow::default()))
    });
    known.unwrap_or_else(|| panic!("job {id} was never taken on"))
}

/// Whether an accepted result is what the program gives; `None` if there is none.
fn is_right(disk: &Disk, batch: &Batch, row: &FinalRow) -> Option<bool> {
    let TaskVerdict::Agreed { digest, .. } = row.verdict else { return None };
    let bundle = job(disk, batch, row.task.job).0.submission.spec.bundle.hash;
    let answer = Answer::right(row.task);
    Some([answer.digest(bundle), answer.digest_without_fuel(bundle)].contains(&digest))
}

fn s1_acknowledged_result_is_never_lost(observer: &Observer, disk: &Disk, step: Step<'_>) {
    let s1 = |holds, what: &dyn Fn() -> String| ensure(Invariant::S1, holds, what);
    match step {
        Step::Settled { attempt, peer, counts } => {
            s1(observer.heard.contains(&(attempt, peer)), &|| format!("{attempt} is settled unasked"));
            let recorded = disk.has(attempt) || !counts;
            s1(recorded, &|| format!("{attempt} is acknowledged and not on record"));
        }
        Step::TakenOn(job) => {
            s1(disk.knows(job), &|| format!("job {job} is acknowledged and not on record"));
        }
        // Every vote on record, and so acknowledged, is in the ledger, but for large outputs that did not arrive.
        Step::Commit(batch) => {
            let agreed = |row: &&FinalRow| matches!(row.verdict, TaskVerdict::Agreed { .. });
            for row in batch.finals.iter().filter(agreed) {
                for (attempt, vote) in disk.pending_of(row.task) {
                    let PendingReport::Execution { output, .. } = &vote.report else { continue };
                    let same = |grant: &Grant| (grant.number, grant.peer) == (attempt.number, vote.peer);
                    let known = row.grants.iter().any(same) || matches!(output, PendingOutput::Remote(_));
                    s1(known, &|| format!("{attempt} was on record and is not in the ledger"));
                }
            }
        }
        Step::Restarted(jobs) => {
            for job in jobs {
                let before = disk.job(job.job).map(|(_, shard)| (shard.done, shard.failed));
                let (done, failed) = before.unwrap_or_default();
                // What was on record may be enough to go further at once.
                let complete = before.is_some() && job.shard.done >= done && job.shard.failed >= failed;
                s1(complete, &|| {
                    format!("job {} comes back as {:?}, and was {before:?}", job.job, job.shard)
                });
            }
        }
        Step::Holding { .. }
        | Step::GivenBack { .. }
        | Step::Reports { .. }
        | Step::Queue(_)
        | Step::Load(_)
        | Step::End => {}
    }
}

fn s2_task_is_accepted_once_by_its_quorum(disk: &Disk, step: Step<'_>) {
    let s2 = |holds, what: &dyn Fn() -> String| ensure(Invariant::S2, holds, what);
    let Step::Commit(batch) = step else { return };
    // What rests on one worker's word may yet be checked, and taken back.
    let is_settled =
        |task: TaskId| disk.is_final(task) && !disk.is_provisional(task) && !batch.revoked.contains(&task);
    for attempt in batch.leases_opened.values().flat_map(|lease| items(lease)) {
        s2(!is_settled(attempt.task), &|| format!("{attempt} is leased although its task is final"));
    }
    let mut now = BTreeSet::<TaskId>::new();
    for row in &batch.finals {
        let task = row.task;
        let again = disk.is_final(task) && !batch.revoked.contains(&task);
        s2(!again && now.insert(task), &|| format!("task {task} becomes final twice"));
        let agreed = row.grants.iter().filter(|grant| grant.agreed).count();
        let delivered = match (&row.verdict, &row.output) {
            (TaskVerdict::Agreed { .. }, FinalOutput::Inline(_)) => {
                let spec = &job(disk, batch, task.job).0.submission.spec;
                agreed >= if spec.error_rate.is_some() { 1 } else { spec.quorum() as usize }
            }
            // Of the quorum for a large output, some may not have delivered.
            (TaskVerdict::Agreed { .. }, _) => agreed > 0,
            _ => row.grants.is_empty(),
        };
        s2(delivered, &|| format!("task {task} is {:?} by {agreed} votes", row.verdict));
    }
    for id in batch.pending.keys() {
        s2(!is_settled(id.task), &|| format!("{id} is taken although its task is final"));
    }
    for (id, (state, _)) in &batch.ended {
        let (row, shard) = job(disk, batch, *id);
        s2(row.state == JobState::Running, &|| format!("job {id} ends twice"));
        let shard = batch.shards.get(id).copied().unwrap_or(shard);
        let complete = shard.done + shard.failed == row.submission.spec.inputs.count();
        s2(complete || *state == JobState::Cancelled, &|| format!("job {id} ends before it is complete"));
    }
}

fn s3_credit_is_granted_once_and_adds_up(observer: &Observer, disk: &Disk, step: Step<'_>) {
    let s3 = |holds, what: &dyn Fn() -> String| ensure(Invariant::S3, holds, what);
    match step {
        Step::Commit(batch) => {
            let mut sums = taken_back(disk, batch);
            for row in &batch.finals {
                let task = row.task;
                let TaskVerdict::Agreed { digest, fuel, .. } = row.verdict else { continue };
                let paid: BTreeSet<PeerNo> = row.grants.iter().map(|grant| grant.peer).collect();
                s3(paid.len() == row.grants.len(), &|| format!("task {task}: a peer is paid twice"));
                let right = is_right(disk, batch, row) == Some(true);
                for grant in &row.grants {
                    let earned = if grant.agreed { fuel.credit() } else { Credit::ZERO };
                    s3(grant.credit == earned, &|| format!("task {task}: {grant:?} for {earned}"));
                    let peer = disk.peer(grant.peer, batch);
                    let honest = peer.is_some_and(|peer| observer.honest.contains(&peer));
                    s3(!honest || grant.agreed == right, &|| {
                        format!("task {task}: honest {grant:?} where the accepted result is right: {right}")
                    });
                    add(&mut sums, grant);
                }
                let answer = Answer::right(task);
                let bundle = job(disk, batch, task.job).0.submission.spec.bundle.hash;
                let covered = digest == answer.digest(bundle);
                s3(!covered || fuel == answer.fuel(), &|| format!("task {task}: {fuel} is not its fuel"));
            }
            let (sums, credit) = (without_zeros(&sums), without_zeros(&batch.credit));
            s3(sums == credit, &|| format!("credit {credit:?} for grants of {sums:?}"));
        }
        Step::End => {
            let (granted, credit) = (without_zeros(&observer.granted), without_zeros(disk.credit()));
            s3(granted == credit, &|| format!("credit {credit:?} is not the sum of the grants {granted:?}"));
        }
        _ => {}
    }
}

fn s4_attempt_is_leased_to_one_worker_once(observer: &Observer, step: Step<'_>) {
    let Step::Commit(batch) = step else { return };
    let mut now = BTreeSet::new();
    for lease in batch.leases_opened.values() {
        for attempt in items(lease) {
            let before = observer.leased.get(&attempt);
            ensure(Invariant::S4, before.is_none() && now.insert(attempt), || {
                format!("{attempt} is leased to peer {} and was leased to {before:?} before", lease.peer)
            });
        }
    }
}

fn s5_given_back_or_foreign_never_counts(observer: &Observer, disk: &Disk, step: Step<'_>) {
    let Step::Commit(batch) = step else { return };
    let counts = |attempt: AttemptId, peer: PeerNo| {
        ensure(Invariant::S5, !observer.given_back.contains(&attempt), || {
            format!("{attempt} counts although peer {peer} had given it back")
        });
        let owner = observer.leased.get(&attempt).copied().unwrap_or(peer);
        ensure(Invariant::S5, owner == peer, || {
            format!("{attempt} counts for peer {peer} and was leased to peer {owner}")
        });
    };
    batch.pending.iter().for_each(|(attempt, row)| counts(*attempt, row.peer));
    for row in &batch.finals {
        for grant in &row.grants {
            let attempt = AttemptId { task: row.task, number: grant.number };
            counts(attempt, grant.peer);
            let peer = disk.peer(grant.peer, batch);
            let said = peer.is_some_and(|peer| observer.heard.contains(&(attempt, peer)));
            ensure(Invariant::S5, said, || {
                format!("{attempt} counts for peer {}, which never reported it", grant.peer)
            });
        }
    }
}

fn s6_votes_are_of_distinct_peers(disk: &Disk, step: Step<'_>) {
    let Step::Commit(batch) = step else { return };
    let is_vote = |row: &PendingRow| matches!(row.report, PendingReport::Execution { .. });
    for (id, row) in batch.pending.iter().filter(|(_, row)| is_vote(row)) {
        let known = disk.pending_of(id.task).chain(batch.pending.range(attempts_of(id.task, id.task)));
        let mut others = known.filter(|(other, _)| *other != id && !batch_replaces(batch, **other));
        let second = others.find(|(_, other)| other.peer == row.peer && is_vote(other));
        ensure(Invariant::S6, second.is_none(), || {
            format!("peer {} votes twice on task {}: with {second:?}, too", row.peer, id.task)
        });
    }
    for row in &batch.finals {
        let peers: BTreeSet<PeerNo> = row.grants.iter().map(|grant| grant.peer).collect();
        ensure(Invariant::S6, peers.len() == row.grants.len(), || {
            format!("task {}: a peer voted twice: {:?}", row.task, row.grants)
        });
    }
}

/// Whether a row of this batch says that a vote is void.
fn batch_replaces(batch: &Batch, attempt: AttemptId) -> bool {
    let row = batch.pending.get(&attempt);
    row.is_some_and(|row| matches!(row.report, PendingReport::NoResult(_)))
}

fn s7_queues_keep_within_bounds(disk: &Disk, step: Step<'_>) {
    /// Rows of a lease stay until its last attempt is closed.
    const ROWS_OF_WORKER_MAX: usize = 2 * limits::WORKER_IN_FLIGHT_MAX;
    let s7 = |what: &str, count: usize, most: usize| {
        ensure(Invariant::S7, count <= most, || format!("{count} {what}, and {most} is the limit"));
    };
    match step {
        Step::Commit(batch) => {
            for lease in batch.leases_opened.values() {
                s7("attempts in a lease", lease.items.len(), limits::LEASE_ITEMS_MAX);
                s7("rows of a worker", disk.held(lease.peer) + lease.items.len(), ROWS_OF_WORKER_MAX);
            }
            for shard in batch.shards.values() {
                let open = usize::try_from(shard.cursor - shard.done - shard.failed).unwrap_or(usize::MAX);
                // Those of a cancelled job are dropped, not finished.
                s7("open tasks of a job", open, limits::OPEN_TASKS_MAX);
            }
        }
        Step::Reports { attempts, .. } => s7("reports in a message", attempts.len(), limits::REPORTS_MAX),
        Step::Queue(length) => s7("messages for a worker", length, limits::SESSION_QUEUE_MAX),
        Step::Load(held) => {
            s7("attempts held", held, limits::WORKER_HELD_MAX + limits::WORKER_IN_FLIGHT_MAX);
        }
        Step::End => {
            s7("leases that outlive their jobs", disk.leases(), 0);
            s7("reports that outlive their tasks", disk.reports(), 0);
        }
        Step::GivenBack { attempts, .. } => {
            s7("attempts given back in a message", attempts.len(), limits::LEASE_ITEMS_MAX);
        }
        Step::Restarted(_) | Step::TakenOn(_) | Step::Settled { .. } | Step::Holding { .. } => {}
    }
}
