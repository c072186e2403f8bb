//! One program, once, on this machine: what `talka run` does.

use std::{io, path::PathBuf, sync::Arc};

use bytes::Bytes;
use talka_core::{
    ids::{BlobHash, InputDigest},
    job::TaskLimits,
    outcome::{Execution, NoResult},
};
use tokio::sync::mpsc;

use super::{CompileError, Compiler, Executor, ExecutorConfig, JobWorld, Program, TaskInput};
use crate::checkpoints::{Keep, Key};

/// A [`JobWorld`] whose program is not compiled yet.
#[derive(Debug, Clone, Default)]
pub struct JobParts {
    /// Name, hash and content of the files under `/data`.
    pub datasets: Vec<(String, BlobHash, Bytes)>,
    /// Bounds of each task.
    pub limits: TaskLimits,
    /// Seed of the random streams.
    pub seed: u64,
    /// Start of the clock, seconds since the Unix epoch.
    pub clock_secs: u64,
}

impl JobParts {
    /// The whole.
    pub fn with(self, program: Arc<Program>) -> JobWorld {
        JobWorld::new(program, self.datasets, self.limits, self.seed, self.clock_secs)
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The module was not compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The directory for checkpoints can't be used.
    #[error("cannot keep checkpoints in {}", dir.display())]
    Checkpoints {
        /// Which.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The executor could not be started. Worth a retry.
    #[error("cannot start an executor")]
    Start(#[source] io::Error),
    /// The program ran, and that says nothing about it.
    #[error("no result: {0}")]
    NoResult(NoResult),
}

/// An execution and what it was one of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalRun {
    /// The module.
    pub bundle: BlobHash,
    /// What the program saw.
    pub input: InputDigest,
    /// What it did.
    pub execution: Execution,
}

/// Compiles a module and runs one task, behind the same walls as in the grid. `exe` is as in
/// [`ExecutorConfig`].
pub async fn run_one(
    exe: PathBuf,
    wasm: Bytes,
    parts: JobParts,
    task: TaskInput,
) -> Result<LocalRun, RunError> {
    run_one_with(&Compiler::new(exe), wasm, parts, task).await
}

/// The same with a compiler that may know the module already; its program is also the executor's.
pub async fn run_one_with(
    compiler: &Compiler,
    wasm: Bytes,
    parts: JobParts,
    task: TaskInput,
) -> Result<LocalRun, RunError> {
    run_one_kept(compiler, wasm, parts, task, None).await
}

/// The same with checkpoints in a directory: a task that was interrupted goes on from there. They go when it has ended.
pub async fn run_one_kept(
    compiler: &Compiler,
    wasm: Bytes,
    parts: JobParts,
    task: TaskInput,
    checkpoint_dir: Option<PathBuf>,
) -> Result<LocalRun, RunError> {
    let bundle = BlobHash::new(*blake3::hash(&wasm).as_bytes());
    let program = compiler.compile(bundle, wasm).await?;
    let exe = compiler.exe().to_owned();
    let world = Arc::new(parts.with(program));
    let input = world.input_digest(&task);
    let keep = match checkpoint_dir {
        Some(dir) => {
            let key = Key::new(bundle, world.program().transformed(), input);
            let keep = Keep::in_dir(dir.clone(), key).await;
            Some(keep.map_err(|source| RunError::Checkpoints { dir, source })?)
        }
        None => None,
    };
    let mut executor = Executor::spawn(ExecutorConfig { exe }).await.map_err(RunError::Start)?;
    let (sender, mut results) = mpsc::channel(1);
    executor.run_kept(&world, vec![task], std::slice::from_ref(&keep), sender).await;
    match results.recv().await {
        Some((_, Ok(execution))) => {
            if let Some(keep) = keep {
                keep.remove().await;
            }
            Ok(LocalRun { bundle, input, execution })
        }
        Some((_, Err(reason))) => Err(RunError::NoResult(reason)),
        None => Err(RunError::NoResult(NoResult::Internal)),
    }
}
