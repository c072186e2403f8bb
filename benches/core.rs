//! What an attempt costs the coordinator's state machine: lease, report, validation and credit, with a store
//! that does nothing.
//!
//! A steady grid: reports come in 64 at a time, from one worker after the other, and each worker is kept
//! supplied. One element is one attempt, so the time per element is what the coordinator itself spends on it,
//! wire and disk apart.
//!
//! Run with `cargo bench --bench core`.

use std::{collections::VecDeque, hint::black_box, sync::Arc, time::Duration};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use talka_core::{
    coordinator::{Capacity, Config, Coordinator, Effects, Report, ReportOutcome, ReportOutput, ToWorker},
    ids::{AttemptId, BlobHash, InputDigest, PeerId, SessionId, TaskId},
    job::{BlobRef, Inputs, RawJobSpec, Submission},
    limits,
    outcome::{Exit, Output},
    quantities::{Bytes, Fuel, Timestamp},
};

/// Reports in one message.
const BATCH: usize = 64;
/// Connected workers.
const WORKERS: u64 = 100;
/// Slots of each: enough that it holds several batches.
const SLOTS: u32 = 128;

/// A coordinator and workers that answer at once.
struct Grid {
    coordinator: Coordinator,
    now: Timestamp,
    /// Attempts that each worker holds, oldest first.
    held: Vec<VecDeque<AttemptId>>,
    turn: usize,
    output: Arc<Output>,
}

impl Grid {
    fn new(quorum: u32) -> Self {
        let workers = usize::try_from(WORKERS).expect("few");
        let mut grid = Self {
            coordinator: Coordinator::new(Config::default()),
            now: Timestamp::from_millis(1_800_000_000_000),
            held: vec![VecDeque::new(); workers],
            turn: 0,
            output: Arc::default(),
        };
        let mut fx = Effects::default();
        grid.coordinator.on_submit(grid.now, submission(quorum), &mut fx).expect("accepted");
        for worker in 0..WORKERS {
            let peer = PeerId::new(*blake3::hash(&worker.to_le_bytes()).as_bytes());
            let capacity = Capacity { slots: SLOTS, memory: Bytes::mib(1 << 20), ..Capacity::default() };
            let session = SessionId::new(worker);
            let opened = grid.coordinator.on_session_opened(grid.now, session, peer, capacity, &[], &mut fx);
            opened.expect("welcome");
        }
        grid.deliver(fx);
        grid
    }

    /// What the shell does, except that nothing is written and nobody is far away.
    fn deliver(&mut self, fx: Effects) {
        black_box(&fx.batch);
        for (session, message) in fx.messages {
            if let ToWorker::Lease(lease) = message {
                let worker = usize::try_from(session.get()).expect("few");
                let attempt = |item: &talka_core::coordinator::LeaseItem| AttemptId {
                    task: TaskId { job: lease.job, index: item.index },
                    number: item.number,
                };
                self.held[worker].extend(lease.items.iter().map(attempt));
            }
        }
    }

    /// One message of reports, and everything that follows from it.
    fn step(&mut self) {
        let worker = self.turn;
        self.turn = (worker + 1) % self.held.len();
        assert!(self.held[worker].len() >= BATCH, "a worker is idle");
        let report = |attempt: AttemptId| Report {
            attempt,
            outcome: ReportOutcome::Execution {
                input: InputDigest::new([2; 32]),
                exit: Exit::Ok,
                fuel: Fuel::new(1_000_000),
                resumed: false,
                output: ReportOutput::Inline(Arc::clone(&self.output)),
            },
            wall_micros: 1000,
        };
        let reports = self.held[worker].drain(..BATCH).map(report).collect();
        let mut fx = Effects::default();
        let session = SessionId::new(worker as u64);
        self.coordinator.on_reports(self.now, session, reports, &mut fx);
        self.now = self.now + Duration::from_millis(1);
        self.deliver(fx);
    }
}

fn submission(quorum: u32) -> Submission {
    let spec = RawJobSpec {
        quorum,
        ..RawJobSpec::plain(
            "bench",
            BlobRef { hash: BlobHash::new([1; 32]), size: Bytes::new(100) },
            Inputs::Array { first: 0, count: limits::JOB_TASKS_MAX },
        )
    };
    Submission {
        request: [0; 16],
        submitter: PeerId::new([0; 32]),
        spec: spec.validate().expect("valid"),
        signature: None,
    }
}

fn attempts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("coordinator");
    group.throughput(Throughput::Elements(BATCH as u64)).sampling_mode(SamplingMode::Flat);
    for quorum in [1, 2] {
        let mut grid = Grid::new(quorum);
        group.bench_function(BenchmarkId::new("64 attempts, quorum", quorum), |bencher| {
            bencher.iter(|| grid.step());
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = attempts
}
criterion_main!(benches);
