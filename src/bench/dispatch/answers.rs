//! What an honest worker answers when the task does nothing.

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use talka_core::{
    coordinator::{Report, ReportOutcome, ReportOutput},
    ids::{AttemptId, BlobHash},
    job::JobSpec,
    outcome::{Execution, Output},
};
use talka_worker::{
    sandbox::{Compiler, Executor, ExecutorConfig, JobWorld},
    world,
};
use tokio::sync::mpsc;

use crate::{bench::empty::EMPTY, paths};

/// The program was run once; all its executions are like that one.
#[derive(Debug)]
pub(super) struct Answers {
    world: JobWorld,
    spec: Arc<JobSpec>,
    execution: Execution,
    output: Arc<Output>,
}

impl Answers {
    /// Runs the first task of a job in the sandbox.
    pub(super) async fn learn(spec: JobSpec) -> anyhow::Result<Self> {
        let exe = paths::own_executable().context("cannot find this program's own file")?;
        let hash = BlobHash::new(*blake3::hash(EMPTY).as_bytes());
        let program = Compiler::new(exe.clone()).compile(hash, Bytes::from_static(EMPTY)).await?;
        let world = Arc::new(world::job_world(&spec, program, Vec::new()));
        let mut executor = Executor::spawn(ExecutorConfig { exe }).await?;
        let (sender, mut results) = mpsc::channel(1);
        executor.run(&world, vec![world::task_input(&spec, 0, Bytes::new())], sender).await;
        let (_, result) = results.recv().await.context("the executor said nothing")?;
        let execution = result.map_err(|reason| anyhow::anyhow!("no result: {reason}"))?;
        let output = Arc::new(execution.output.clone());
        let world = Arc::unwrap_or_clone(world);
        Ok(Self { world, spec: Arc::new(spec), execution, output })
    }

    /// The report that a worker would send after it has run an attempt.
    pub(super) fn report(&self, attempt: AttemptId) -> Report {
        let input = world::task_input(&self.spec, attempt.task.index, Bytes::new());
        let outcome = ReportOutcome::Execution {
            input: self.world.input_digest(&input),
            exit: self.execution.exit,
            fuel: self.execution.fuel,
            resumed: self.execution.resumed,
            output: ReportOutput::Inline(self.output.clone()),
        };
        Report { attempt, outcome, wall_micros: 1 }
    }
}
