//! What a commit costs the thread that writes, how long a restart takes to read what is open, and what a
//! finished task leaves on the disk.
//!
//! Each batch is what a steady grid with two replicas per task causes: leases of fresh tasks go out, the
//! first reports on earlier tasks become pending, the second ones make still earlier tasks final. One
//! element is one attempt, from lease to report. `cpu` is the CPU time of the writing thread, which says
//! how many attempts one core can take; `wall` includes the wait for the disk.
//!
//! Run with `cargo bench -p talka-coordinator-peer --bench store`.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};
use talka_coordinator_peer::store::{
    Store,
    sqlite::{FILE, SqliteStore},
};
use talka_core::{
    coordinator::{
        Batch, FinalOutput, FinalRow, Grant, JobRow, LeaseItem, LeaseRow, PeerRow, PendingOutput,
        PendingReport, PendingRow, ShardRow, Standing, TaskVerdict,
    },
    ids::{
        AttemptId, BlobHash, InputDigest, JobId, LeaseId, OutcomeDigest, PeerId, PeerNo, ResultDigest, TaskId,
    },
    job::{BlobRef, Inputs, JobState, RawJobSpec, Submission},
    limits,
    outcome::Exit,
    quantities::{Bytes, Fuel, Timestamp},
};
use tempfile::{TempDir, tempdir};

const JOB: JobId = JobId::new(1);
const PEERS: u32 = 1000;
/// About ten seconds of one core.
const FUEL: Fuel = Fuel::new(10_000_000_000);
/// One task in a hundred is late by that many batches, and the others by up to [`MIXED_BATCHES`], so that the
/// ledger is not written in order.
const LATE_BATCHES: usize = 64;
const MIXED_BATCHES: u8 = 8;
const SIZED_TASKS: u64 = 400_000;

/// The shape of a load.
#[derive(Clone, Copy)]
struct Load {
    /// Tasks that each batch begins, continues and ends.
    tasks: u64,
    /// Attempts in one lease.
    lease: usize,
}

const LOADS: [Load; 3] =
    [Load { tasks: 32, lease: 1 }, Load { tasks: 32, lease: 32 }, Load { tasks: 256, lease: 256 }];

/// An endless steady grid on a store of its own.
struct Grid {
    dir: TempDir,
    store: SqliteStore,
    load: Load,
    shard: ShardRow,
    next_lease: u64,
    /// Leases of the last batches, to be closed when they are reported.
    leases: VecDeque<(Vec<LeaseId>, Vec<LeaseId>)>,
    /// Tasks whose last report is due, by batch.
    due: VecDeque<Vec<u64>>,
}

impl Grid {
    fn new(load: Load) -> Self {
        let dir = tempdir().expect("a directory");
        let mut store = SqliteStore::open(dir.path(), PeerId::new([1; 32])).expect("a store");
        let peer = |no: u32| {
            let id = *blake3::hash(&no.to_le_bytes()).as_bytes();
            PeerRow { no: PeerNo::new(no), id: PeerId::new(id) }
        };
        let batch =
            Batch { peers: (0..PEERS).map(peer).collect(), jobs: vec![job_row()], ..Batch::default() };
        store.commit(store.last_seq().next(), &batch).expect("a commit");
        let due = VecDeque::from(vec![vec![]; LATE_BATCHES + 1]);
        Self { dir, store, load, shard: ShardRow::default(), next_lease: 0, leases: VecDeque::new(), due }
    }

    fn open_leases(&mut self, batch: &mut Batch, tasks: &[u64], number: u32) -> Vec<LeaseId> {
        let mut ids = vec![];
        for chunk in tasks.chunks(self.load.lease) {
            self.next_lease += 1;
            let lease = LeaseId::new(self.next_lease);
            let items = chunk.iter().map(|index| LeaseItem { index: *index, number }).collect();
            let deadline = Timestamp::from_millis(1_790_000_000_000 + self.next_lease);
            let row = LeaseRow { lease, job: JOB, peer: peer_of(chunk[0], number), deadline, items };
            batch.leases_opened.insert(lease, Arc::new(row));
            ids.push(lease);
        }
        ids
    }

    fn batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        let fresh: Vec<u64> = (self.shard.cursor..self.shard.cursor + self.load.tasks).collect();
        self.shard.cursor += self.load.tasks;
        let leases = (self.open_leases(&mut batch, &fresh, 1), self.open_leases(&mut batch, &fresh, 2));
        self.leases.push_front(leases);
        if let Some((first, _)) = self.leases.get(1) {
            batch.leases_closed.extend(first);
            let begun = self.shard.cursor - 2 * self.load.tasks;
            batch.pending = (begun..begun + self.load.tasks).map(|index| pending(index, 1)).collect();
        }
        if self.leases.len() == 3 {
            let (_, second) = self.leases.pop_back().unwrap_or_default();
            batch.leases_closed.extend(second);
            let reported = self.shard.cursor - 3 * self.load.tasks;
            for index in reported..reported + self.load.tasks {
                let mixed = usize::from(digest(index / 8).as_bytes()[0] % MIXED_BATCHES);
                let late = if index % 100 == 0 { LATE_BATCHES } else { mixed };
                self.due[late].push(index);
            }
        }
        self.due.push_back(vec![]);
        for index in self.due.pop_front().unwrap_or_default() {
            let row = final_row(index);
            for grant in &row.grants {
                let delta = batch.credit.entry(grant.peer).or_default();
                delta.credit += grant.credit;
                delta.validated += 1;
                self.shard.credit += grant.credit;
            }
            self.shard.done += 1;
            self.shard.attempts += 2;
            batch.finals.push(row);
        }
        batch.shards.insert(JOB, self.shard);
        batch
    }

    /// Commits that many batches and adds up what `clock` says.
    fn run(&mut self, batches: u64, clock: impl Fn() -> Duration) -> Duration {
        let mut spent = Duration::ZERO;
        for _ in 0..batches {
            let batch = self.batch();
            let start = clock();
            self.store.commit(self.store.last_seq().next(), &batch).expect("a commit");
            spent += clock().saturating_sub(start);
        }
        spent
    }
}

fn job_row() -> JobRow {
    let spec = RawJobSpec {
        quorum: 2,
        ..RawJobSpec::plain(
            "bench",
            BlobRef { hash: BlobHash::new([1; 32]), size: Bytes::new(100) },
            Inputs::Array { first: 0, count: limits::JOB_TASKS_MAX },
        )
    };
    let spec = spec.validate().expect("valid");
    let submission = Submission { request: [0; 16], submitter: PeerId::new([0; 32]), spec, signature: None };
    let submitted = Timestamp::from_millis(0);
    JobRow {
        job: JOB,
        submission: Arc::new(submission),
        submitted,
        state: JobState::Running,
        ended: None,
        standing: Standing::default(),
    }
}

/// Neighbouring tasks go to the same peer, the two replicas to different ones.
fn peer_of(index: u64, number: u32) -> PeerNo {
    let place = u32::try_from(index / 32 % u64::from(PEERS)).unwrap_or(0);
    PeerNo::new((place + number * 7) % PEERS)
}

fn digest(index: u64) -> ResultDigest {
    ResultDigest::new(*blake3::hash(&index.to_le_bytes()).as_bytes())
}

fn pending(index: u64, number: u32) -> (AttemptId, PendingRow) {
    let report = PendingReport::Execution {
        outcome: OutcomeDigest::new(*digest(index).as_bytes()),
        input: InputDigest::new([2; 32]),
        exit: Exit::Ok,
        fuel: FUEL,
        resumed: false,
        output: PendingOutput::Inline(Arc::default()),
    };
    let attempt = AttemptId { task: TaskId { job: JOB, index }, number };
    (attempt, PendingRow { peer: peer_of(index, number), report })
}

fn final_row(index: u64) -> FinalRow {
    let grant = |number| {
        let peer = peer_of(index, number);
        Grant { peer, number, agreed: true, credit: FUEL.credit() }
    };
    FinalRow {
        task: TaskId { job: JOB, index },
        verdict: TaskVerdict::Agreed { digest: digest(index), exit: Exit::Ok, fuel: FUEL },
        outcome: None,
        attempts: 2,
        grants: vec![grant(1), grant(2)],
        output: FinalOutput::Inline(Arc::default()),
        had_pending: true,
    }
}

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap_or_default()
}

fn commits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commit");
    let started = Instant::now();
    for load in LOADS {
        group.throughput(Throughput::Elements(2 * load.tasks));
        let name = format!("{} tasks, leases of {}", load.tasks, load.lease);
        let mut grid = Grid::new(load);
        group.bench_function(BenchmarkId::new("cpu", &name), |bencher| {
            bencher.iter_custom(|batches| grid.run(batches, cpu_time));
        });
        group.bench_function(BenchmarkId::new("wall", &name), |bencher| {
            bencher.iter_custom(|batches| grid.run(batches, || started.elapsed()));
        });
    }
    group.finish();
}

#[expect(clippy::print_stderr, reason = "a size is not a time, so criterion can't report it")]
fn size(_: &mut Criterion) {
    let load = LOADS[1];
    let mut grid = Grid::new(load);
    grid.run(SIZED_TASKS / load.tasks, Duration::default);
    let Grid { dir, store, shard, .. } = grid;
    drop(store);
    let bytes = dir.path().join(FILE).metadata().expect("a file").len();
    let (tasks, tenths) = (shard.done, 10 * bytes / shard.done);
    let each = format!("{}.{}", tenths / 10, tenths % 10);
    eprintln!("size: {bytes} bytes for {tasks} finished tasks with two replicas, {each} bytes each");
}

/// A restart with two million attempts open, a fifth of them reported.
fn load(criterion: &mut Criterion) {
    let mut grid = Grid::new(LOADS[1]);
    let mut batch = Batch::default();
    let tasks: Vec<u64> = (0..1_000_000).collect();
    for number in [1, 2] {
        grid.open_leases(&mut batch, &tasks, number);
    }
    batch.pending =
        tasks.iter().step_by(5).flat_map(|index| [1, 2].map(|number| pending(*index, number))).collect();
    batch.shards.insert(JOB, ShardRow { cursor: 1_000_000, ..ShardRow::default() });
    grid.store.commit(grid.store.last_seq().next(), &batch).expect("a commit");
    let mut group = criterion.benchmark_group("load");
    group.sample_size(10);
    group.bench_function("2,000,000 attempts open", |bencher| bencher.iter(|| grid.store.load()));
    group.finish();
}

/// A restart of a job whose first task is a straggler behind two million finished ones.
fn straggler(criterion: &mut Criterion) {
    const TASKS: u64 = 2_000_000;
    let mut grid = Grid::new(LOADS[1]);
    let tasks: Vec<u64> = (1..TASKS).collect();
    for part in tasks.chunks(50_000) {
        let finals = part.iter().map(|index| final_row(*index)).collect();
        let batch = Batch { finals, ..Batch::default() };
        grid.store.commit(grid.store.last_seq().next(), &batch).expect("a commit");
    }
    let shard = ShardRow { cursor: TASKS, done: TASKS - 1, ..ShardRow::default() };
    let batch = Batch { shards: [(JOB, shard)].into(), ..Batch::default() };
    grid.store.commit(grid.store.last_seq().next(), &batch).expect("a commit");
    let mut group = criterion.benchmark_group("load");
    group.sample_size(10);
    group.bench_function("1 open below 2,000,000 final", |bencher| bencher.iter(|| grid.store.load()));
    group.finish();
}

criterion_group!(benches, commits, load, straggler, size);
criterion_main!(benches);
