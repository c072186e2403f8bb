//! The worker's side: runs one row, and an honest task after each of its modules.

use std::{
    collections::BTreeSet,
    io::Write as _,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use talka_core::{
    ids::BlobHash,
    job::TaskLimits,
    limits,
    outcome::{Exit, NoResult},
    quantities::Bytes as Size,
};
use talka_profile::Problem;
use talka_worker::sandbox::{CompileError, Compiler, Executor, ExecutorConfig, JobWorld, Program, TaskInput};
use tokio::sync::mpsc;

use super::{
    corpus, guest,
    measure::Watch,
    report::{Peaks, Report},
    row::{Expected, Outcome, Row},
};

/// What executor and worker may take beyond the job's limit, whatever they run.
const BEYOND_LIMIT: u64 = 64 << 20;

/// No row takes nearly as long; one that hangs must not stop the others.
const TIME_MAX: Duration = Duration::from_mins(2);

/// What the honest task reads and writes.
const GREETING: &str = "hello, honest world";

/// Runs the row of that name and writes its report to standard output.
pub(crate) fn run(name: &str) -> ExitCode {
    let Some(row) = corpus::rows().into_iter().find(|row| row.name == name) else { return ExitCode::FAILURE };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let report = runtime.expect("a runtime").block_on(async {
        let report = Side::start(&row).await.run();
        tokio::time::timeout(TIME_MAX, report).await.unwrap_or_else(|_| Report {
            name: name.to_owned(),
            wrong: vec!["no end in sight".to_owned()],
            ..Report::default()
        })
    });
    let line = serde_json::to_vec(&report).expect("plain data");
    std::io::stdout().write_all(&line).expect("standard output");
    ExitCode::SUCCESS
}

/// What became of a module.
enum End {
    Refused(BTreeSet<&'static str>),
    NotCompiled(CompileError),
    Ran(Vec<Outcome>),
}

struct Side<'r> {
    row: &'r Row,
    compiler: Compiler,
    executor: Executor,
    honest: Arc<JobWorld>,
    wrong: Vec<String>,
    fuel: u64,
}

impl<'r> Side<'r> {
    async fn start(row: &'r Row) -> Self {
        let exe = std::env::current_exe().expect("this program");
        let compiler = Compiler::new(exe.clone());
        let executor = Executor::spawn(ExecutorConfig { exe }).await.expect("an executor");
        let echo = compile(&compiler, &guest::echo().into()).await.expect("honest");
        let honest = Arc::new(JobWorld::new(echo, vec![], TaskLimits::default(), 0, 0));
        Self { row, compiler, executor, honest, wrong: Vec::new(), fuel: 0 }
    }

    async fn run(mut self) -> Report {
        // The worker never checks modules itself: whoever takes a job does, and it is not measured here.
        let checked = |module: Vec<u8>| (talka_profile::check(&module), Bytes::from(module));
        let modules: Vec<_> = (self.row.modules)().into_iter().map(checked).collect();
        let watch = Watch::start();
        let start = Instant::now();
        let mut outcome = String::new();
        for (number, (problems, module)) in modules.iter().enumerate() {
            let before = self.executor.pid();
            let end = self.attempt(problems, module).await;
            outcome = end.to_string();
            let wrong = self.judge(&end, before).err();
            self.wrong.extend(wrong.map(|wrong| format!("module {number}: {wrong}")));
            self.honest_task().await;
        }
        let secs = start.elapsed().as_secs_f64();
        // Their children are still there.
        let peaks = watch.stop();
        self.judge_memory(peaks);
        if modules.len() > 1 {
            outcome = format!("{} modules", modules.len());
        }
        Report { name: self.row.name.to_owned(), outcome, fuel: self.fuel, peaks, secs, wrong: self.wrong }
    }

    async fn attempt(&mut self, problems: &[Problem], module: &Bytes) -> End {
        let compiled = compile(&self.compiler, module).await;
        match compiled {
            Ok(program) => {
                if !problems.is_empty() {
                    self.wrong.push(format!("compiled, although the profile refuses it: {problems:?}"));
                }
                End::Ran(self.execute(program).await)
            }
            Err(_) if !problems.is_empty() => {
                End::Refused(problems.iter().map(|problem| problem.rule.name()).collect())
            }
            Err(error) => End::NotCompiled(error),
        }
    }

    async fn execute(&mut self, program: Arc<Program>) -> Vec<Outcome> {
        let job = Arc::new(JobWorld::new(program, vec![], self.row.limits, 0, 0));
        let mut outcomes = Vec::new();
        for batch in (self.row.batches)() {
            outcomes.extend(run_batch(&mut self.executor, &job, batch).await);
        }
        let fuels = outcomes.iter().flatten().map(|execution| execution.fuel.get());
        self.fuel = self.fuel.max(fuels.max().unwrap_or(0));
        outcomes
    }

    fn judge(&self, end: &End, executor_before: Option<u32>) -> Result<(), String> {
        let unexpected = || Err(format!("ended with {end}"));
        if let End::Ran(outcomes) = end {
            let died = outcomes.iter().any(Result::is_err);
            if !died && self.executor.pid() != executor_before {
                return Err("the executor was replaced".into());
            }
            let limits = self.row.limits;
            let above = outcomes.iter().flatten().find(|execution| execution.fuel > limits.fuel);
            if let Some(execution) = above {
                return Err(format!("{:?} is above {:?}", execution.fuel, limits.fuel));
            }
        }
        let all = |outcomes: &[Outcome], exit: Exit| {
            let same = outcomes.iter().all(|outcome| outcome == &outcomes[0]);
            let ends = |outcome: &Outcome| outcome.as_ref().is_ok_and(|execution| execution.exit == exit);
            outcomes.iter().all(ends) && same
        };
        match (&self.row.expected, end) {
            (Expected::Refused(rule), End::Refused(rules)) if rules.contains(rule.name()) => Ok(()),
            (Expected::TooExpensive, End::NotCompiled(CompileError::TooExpensive))
            | (Expected::NotCompiled | Expected::Survived, End::NotCompiled(CompileError::Refused { .. }))
            | (Expected::Survived, End::Refused(_)) => Ok(()),
            (Expected::Ends(exit), End::Ran(outcomes)) if all(outcomes, *exit) => Ok(()),
            (Expected::Writes(bytes), End::Ran(outcomes)) if all(outcomes, Exit::Ok) => {
                let different = outcomes.iter().flatten().find(|execution| execution.output.stdout != *bytes);
                different.map_or(Ok(()), |execution| {
                    Err(format!("wrote {:?}, not {bytes:?}", execution.output.stdout))
                })
            }
            (Expected::NoResult(reason), End::Ran(outcomes))
                if outcomes.iter().all(|outcome| *outcome == Err(*reason)) =>
            {
                Ok(())
            }
            (Expected::Survived, End::Ran(outcomes)) => {
                if outcomes
                    .iter()
                    .any(|outcome| *outcome != outcomes[0] || *outcome == Err(NoResult::ChildDied))
                {
                    return unexpected();
                }
                Ok(())
            }
            (Expected::Checked(check), End::Ran(outcomes)) => check(outcomes),
            _ => unexpected(),
        }
    }

    fn judge_memory(&mut self, peaks: Peaks) {
        let extra = self.row.extra;
        let bounds = [
            ("the executor", peaks.executor, self.row.limits.memory.get() + BEYOND_LIMIT + extra),
            ("the worker", peaks.worker, BEYOND_LIMIT + extra),
            ("the compile process", peaks.compiler, limits::COMPILE_MEMORY_BYTES_MAX),
        ];
        for (who, peak, bound) in bounds {
            if peak > bound {
                self.wrong.push(format!("{who} took {} of {}", Size::new(peak), Size::new(bound)));
            }
        }
    }

    async fn honest_task(&mut self) {
        let task = TaskInput { stdin: Bytes::from_static(GREETING.as_bytes()), ..TaskInput::default() };
        let outcomes = run_batch(&mut self.executor, &self.honest, vec![task]).await;
        let well = |outcome: &Outcome| {
            outcome.as_ref().is_ok_and(|execution| {
                execution.exit == Exit::Ok && execution.output.stdout == GREETING.as_bytes()
            })
        };
        if !outcomes.iter().all(well) {
            self.wrong.push(format!("the honest task after it ended with {outcomes:?}"));
        }
    }
}

async fn compile(compiler: &Compiler, module: &Bytes) -> Result<Arc<Program>, CompileError> {
    compiler.compile(BlobHash::new(*blake3::hash(module).as_bytes()), module.clone()).await
}

async fn run_batch(executor: &mut Executor, job: &Arc<JobWorld>, tasks: Vec<TaskInput>) -> Vec<Outcome> {
    let (sender, mut receiver) = mpsc::channel(tasks.len().max(1));
    let count = tasks.len();
    executor.run(job, tasks, sender).await;
    let mut outcomes = Vec::with_capacity(count);
    while let Some((_, outcome)) = receiver.recv().await {
        outcomes.push(outcome);
    }
    assert_eq!(outcomes.len(), count, "every task has an outcome");
    outcomes
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(rules) => {
                write!(f, "refused: {}", rules.iter().copied().collect::<Vec<_>>().join(", "))
            }
            Self::NotCompiled(error) => write!(f, "not compiled: {error}"),
            Self::Ran(outcomes) => {
                let words = |outcome: &Outcome| match outcome {
                    Ok(execution) => execution.exit.to_string(),
                    Err(reason) => format!("no result: {reason}"),
                };
                let different: BTreeSet<_> = outcomes.iter().map(words).collect();
                f.write_str(&different.into_iter().collect::<Vec<_>>().join(" / "))
            }
        }
    }
}
