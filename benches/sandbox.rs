//! What a task costs that does nothing: everything between a worker that has a task and a worker that has its
//! result.
//!
//! The program is `empty` of the sample tasks: each execution makes a fresh instance with a world of its own, in an
//! executor process that is warm, and its result comes back over a pipe. In a batch, as in the grid, executions
//! follow each other without waiting for the parent.
//!
//! Run with `cargo bench --bench sandbox`.

use std::{hint::black_box, process::ExitCode, sync::Arc, time::Duration};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group};
use talka_core::{
    ids::BlobHash,
    job::{CLOCK_SECS_DEFAULT, TaskLimits},
    outcome::Exit,
};
use talka_worker::sandbox::{Compiler, Executor, ExecutorConfig, JobWorld, TaskInput, child};
use tokio::{runtime::Runtime, sync::mpsc};

const EMPTY: &[u8] = include_bytes!("../sample-tasks/wasm/empty.wasm");

/// A warm executor and what it runs.
struct Slot {
    executor: Executor,
    world: Arc<JobWorld>,
}

impl Slot {
    async fn new() -> Self {
        let exe = std::env::current_exe().expect("this program");
        let hash = BlobHash::new(*blake3::hash(EMPTY).as_bytes());
        let compiler = Compiler::new(exe.clone());
        let program = compiler.compile(hash, Bytes::from_static(EMPTY)).await.expect("compiled");
        let world = JobWorld::new(program, vec![], TaskLimits::default(), 0, CLOCK_SECS_DEFAULT);
        let executor = Executor::spawn(ExecutorConfig { exe }).await.expect("an executor");
        Self { executor, world: Arc::new(world) }
    }

    /// One batch, and the result of each of its tasks.
    async fn run(&mut self, tasks: Vec<TaskInput>) {
        let count = tasks.len();
        let (sender, mut results) = mpsc::channel(count);
        self.executor.run(&self.world, tasks, sender).await;
        for _ in 0..count {
            let (_, result) = results.recv().await.expect("a result for each task");
            assert_eq!(black_box(result).expect("a result").exit, Exit::Ok);
        }
    }
}

fn task(index: u64) -> TaskInput {
    let env = vec![("TALKA_TASK_INDEX".to_owned(), index.to_string())];
    TaskInput { index, args: vec!["task".to_owned()], env, stdin: Bytes::new() }
}

fn executions(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut slot = runtime.block_on(Slot::new());
    let mut group = criterion.benchmark_group("empty task");
    group.sampling_mode(SamplingMode::Flat);
    for batch in [1, 64] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::new("batch of", batch), |bencher| {
            bencher.iter(|| runtime.block_on(slot.run((0..batch).map(task).collect())));
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
    targets = executions
}

/// Not criterion's own, because this program is also what its executor processes run.
fn main() -> ExitCode {
    if let Some(code) = child::dispatch() {
        return code;
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
    ExitCode::SUCCESS
}
