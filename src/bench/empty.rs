//! A task that does nothing: all that it costs is the sandbox's.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::ensure;
use bytes::Bytes;
use talka_core::{
    ids::BlobHash,
    job::{CLOCK_SECS_DEFAULT, TaskLimits},
    outcome::Exit,
};
use talka_worker::sandbox::{Compiler, Executor, ExecutorConfig, JobParts, JobWorld, TaskInput, run_one};
use tokio::{sync::mpsc, time::Instant};

use super::SandboxConfig;

/// The program.
pub(super) const EMPTY: &[u8] = include_bytes!("../../sample-tasks/wasm/empty.wasm");

/// Tasks of one batch: enough that its beginning and its end do not count.
const BATCH: u32 = 20_000;
/// The same for rough figures.
const BATCH_QUICK: u32 = 2000;

/// Wall-clock time of a task in a large batch, in an executor that has run the program before: from a worker that has
/// the tasks to a worker that has their results.
pub(super) async fn warm(exe: &Path, config: SandboxConfig) -> anyhow::Result<Duration> {
    let hash = BlobHash::new(*blake3::hash(EMPTY).as_bytes());
    let program = Compiler::new(exe.to_owned()).compile(hash, Bytes::from_static(EMPTY)).await?;
    let world = Arc::new(parts().with(program));
    let mut executor = Executor::spawn(ExecutorConfig { exe: exe.to_owned() }).await?;
    run_batch(&mut executor, &world, 1).await?;
    let count = if config.quick { BATCH_QUICK } else { BATCH };
    let mut best = Duration::MAX;
    for _ in 0..config.rounds {
        best = best.min(run_batch(&mut executor, &world, count).await?);
    }
    Ok(best / count)
}

/// Wall-clock time of a task from nothing: a compile process, the program compiled, an executor process, the task.
pub(super) async fn cold(exe: &Path, config: SandboxConfig) -> anyhow::Result<Duration> {
    let mut best = Duration::MAX;
    for index in 0..config.rounds {
        let begun = Instant::now();
        let run = run_one(exe.to_owned(), Bytes::from_static(EMPTY), parts(), task(index)).await?;
        best = best.min(begun.elapsed());
        ensure!(run.execution.exit == Exit::Ok, "the empty task ended with {}", run.execution.exit);
    }
    Ok(best)
}

async fn run_batch(executor: &mut Executor, world: &Arc<JobWorld>, count: u32) -> anyhow::Result<Duration> {
    let tasks = (0..count).map(task).collect();
    let (sender, mut results) = mpsc::channel(count as usize);
    let begun = Instant::now();
    executor.run(world, tasks, sender).await;
    let elapsed = begun.elapsed();
    let mut ended = 0;
    while let Some((_, result)) = results.recv().await {
        let exit = result.map_err(|reason| anyhow::anyhow!("no result: {reason}"))?.exit;
        ensure!(exit == Exit::Ok, "the empty task ended with {exit}");
        ended += 1;
    }
    ensure!(ended == count, "{ended} of {count} tasks gave a result");
    Ok(elapsed)
}

/// What its tasks have in common.
pub(super) fn parts() -> JobParts {
    JobParts { datasets: Vec::new(), limits: TaskLimits::default(), seed: 0, clock_secs: CLOCK_SECS_DEFAULT }
}

fn task(index: u32) -> TaskInput {
    let env = vec![("TALKA_TASK_INDEX".to_owned(), index.to_string())];
    TaskInput { index: index.into(), args: vec!["empty".to_owned()], env, stdin: Bytes::new() }
}
