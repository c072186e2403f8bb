//! `talka run`: one task, here, in exactly the world that the grid gives it.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use talka_core::{
    ids::{BlobHash, InputDigest},
    job::{BlobRef, Inputs, JobSpec},
    limits,
    outcome::{Execution, Exit, NoResult},
    quantities::{Bytes as Size, Fuel},
};
use talka_worker::{
    sandbox::{Compiler, JobParts, RunError, run_one_kept},
    world,
};

use super::{
    bundle,
    program::{ProgramFlags, Terms},
};
use crate::{
    error::{Code, Failure},
    format,
    output::Out,
    paths,
    problems::Problems,
    results,
};

/// Exit code of a program that trapped, or exited with a code that no shell can show (`EX_SOFTWARE`).
const EXIT_TRAP: u8 = 70;
/// Exit code of a program that went over a limit of its job.
const EXIT_LIMIT: u8 = 71;
/// Exit code when nothing can be said about the program: another try may tell (`EX_TEMPFAIL`).
const EXIT_NO_RESULT: u8 = 75;

/// `talka run`.
#[derive(Debug, Default, Args)]
#[command(after_help = "Example:\n  talka run wordcount.wasm < book.txt\n\n\
    Digest and fuel are those that any peer would report for this task: with the same flags as in submit,\n\
    the same --index and the same input. They go to standard error, with --json as one object\n\
    {\"status\", \"exit_code\", \"digest\", \"fuel\", \"resumed\", \"wall_secs\"} and \"reason\" when the status is not ok.\n\n\
    Exit code: 0 when the program succeeds; its own exit code when that is 1 to 125; 70 when it traps or exits\n\
    with any other code; 71 when it goes over a limit; 75 when there is no result (deadline, out of memory);\n\
    1 also when the program can't be run at all.")]
pub(crate) struct RunFlags {
    #[command(flatten)]
    program: ProgramFlags,
    /// The task's index [default: 0].
    #[arg(long, value_name = "NUMBER", env = "TALKA_INDEX", help_heading = "Task")]
    index: Option<String>,
    /// Keep checkpoints in this directory, and go on from the one that an interrupted run of the same task left
    /// there. A run that went on has another fuel, and a digest without it.
    #[arg(long, value_name = "DIR", env = "TALKA_CHECKPOINT")]
    checkpoint: Option<PathBuf>,
    /// Write the program's /out files into this directory.
    #[arg(long, short, value_name = "DIR", env = "TALKA_OUT_DIR")]
    out_dir: Option<PathBuf>,
}

/// How it ended.
#[derive(Debug, PartialEq, Serialize)]
struct RunView {
    status: &'static str,
    exit_code: Option<u32>,
    digest: Option<String>,
    fuel: Option<u64>,
    /// From a checkpoint: then the fuel is not to be compared, and the digest leaves it out.
    resumed: bool,
    wall_secs: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl RunFlags {
    pub(crate) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let mut problems = Problems::default();
        let first: u64 = problems.parsed("--index", self.index.as_deref(), 0);
        let inputs = Inputs::Array { first, count: 1 };
        let program = self.program.validate(inputs, Terms { quorum: 1, ..Terms::default() }, &mut problems);
        let program = problems.into_result(program)?;
        let module = Bytes::from(bundle::load(&program.module)?);
        let datasets = read_datasets(&program.datasets)?;
        let mut draft = program.draft;
        draft.bundle = blob(&module);
        for dataset in &mut draft.datasets {
            let known = datasets.iter().find(|(name, ..)| *name == dataset.name);
            dataset.blob = known.map_or(dataset.blob, |(_, _, bytes)| blob(bytes));
        }
        let spec = draft.validate().map_err(|invalid| Failure::usage(&invalid.problems))?;
        let stdin = read_stdin(out)?;
        let started = Instant::now();
        let (digest, outcome) = execute(&spec, module, datasets, stdin, self.checkpoint).await?;
        let wall_secs = started.elapsed().as_secs_f64();
        if let Ok(execution) = &outcome {
            write_output(out, execution, self.out_dir.as_deref())?;
        }
        let view = RunView::new(digest, &outcome, wall_secs);
        if out.is_json() {
            out.json(&view)?;
        } else {
            out.note(view.text());
        }
        Ok(exit_code(&outcome))
    }
}

/// What the sandbox says about one task, with its digest.
async fn execute(
    spec: &JobSpec,
    module: Bytes,
    datasets: Vec<(String, BlobHash, Bytes)>,
    stdin: Bytes,
    checkpoint_dir: Option<PathBuf>,
) -> anyhow::Result<(Option<String>, Result<Execution, NoResult>)> {
    let ran = ran(spec, 0, module, datasets, stdin, checkpoint_dir).await?;
    let digest = ran.outcome.as_ref().map(|execution| world::digest(ran.bundle, ran.input, execution));
    Ok((digest.ok().map(|digest| digest.to_string()), ran.outcome))
}

/// How one task ended here.
pub(super) struct Ran {
    pub(super) bundle: BlobHash,
    pub(super) input: InputDigest,
    pub(super) outcome: Result<Execution, NoResult>,
}

/// Executes one task of a job, exactly as a worker would.
pub(super) async fn again(
    spec: &JobSpec,
    position: u64,
    module: Bytes,
    datasets: Vec<(String, BlobHash, Bytes)>,
    stdin: Bytes,
) -> anyhow::Result<Ran> {
    ran(spec, position, module, datasets, stdin, None).await
}

async fn ran(
    spec: &JobSpec,
    position: u64,
    module: Bytes,
    datasets: Vec<(String, BlobHash, Bytes)>,
    stdin: Bytes,
    checkpoint_dir: Option<PathBuf>,
) -> anyhow::Result<Ran> {
    let executable = paths::own_executable().context("cannot find this program's own file")?;
    let parts = JobParts { datasets, limits: spec.limits, seed: spec.seed, clock_secs: spec.clock_secs };
    let compiler = match paths::cache_home() {
        Some(dir) => Compiler::with_cache(executable, dir),
        None => Compiler::new(executable),
    };
    let task = world::task_input(spec, position, stdin);
    match run_one_kept(&compiler, module, parts, task, checkpoint_dir).await {
        Ok(run) => Ok(Ran { bundle: run.bundle, input: run.input, outcome: Ok(run.execution) }),
        Err(RunError::NoResult(reason)) => {
            let (bundle, input) = (spec.bundle.hash, InputDigest::new([0; 32]));
            Ok(Ran { bundle, input, outcome: Err(reason) })
        }
        Err(error) => Err(error.into()),
    }
}

fn read_datasets(datasets: &[(String, PathBuf)]) -> anyhow::Result<Vec<(String, BlobHash, Bytes)>> {
    let mut room = limits::DATASETS_BYTES_MAX;
    let mut read = Vec::with_capacity(datasets.len());
    for (name, path) in datasets {
        let doing = || format!("cannot read the dataset {name} from {}", path.display());
        let file = File::open(path).with_context(doing)?;
        let bytes = read_bounded(file, room).with_context(doing)?;
        room -= bytes.len() as u64;
        let hash = BlobHash::new(*blake3::hash(&bytes).as_bytes());
        read.push((name.clone(), hash, bytes));
    }
    Ok(read)
}

/// The task's input. A terminal is no input: the program runs only when all of it is there.
fn read_stdin(out: Out) -> anyhow::Result<Bytes> {
    if io::stdin().is_terminal() {
        out.note("standard input is a terminal, so the task's input is empty; use < FILE");
        return Ok(Bytes::new());
    }
    read_bounded(io::stdin().lock(), limits::INPUT_BYTES_MAX).context("cannot read the task's input")
}

fn read_bounded(source: impl Read, max: u64) -> anyhow::Result<Bytes> {
    let mut bytes = Vec::new();
    source.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        let message = format!("more than {}, the limit of the grid", Size::new(max));
        return Err(Failure::new(Code::Limit, message).into());
    }
    Ok(bytes.into())
}

fn blob(bytes: &[u8]) -> BlobRef {
    BlobRef { hash: BlobHash::new(*blake3::hash(bytes).as_bytes()), size: Size::of(bytes) }
}

fn write_output(out: Out, execution: &Execution, dir: Option<&Path>) -> anyhow::Result<()> {
    let output = &execution.output;
    out.bytes(&output.stdout)?;
    out.stderr_bytes(&output.stderr);
    if output.stderr.last().is_some_and(|last| *last != b'\n') {
        // What is said about the run begins on a line of its own.
        out.stderr_bytes(b"\n");
    }
    let Some(dir) = dir else {
        for (name, data) in &output.files {
            out.note(format!("/out/{name}: {}; keep it with -o DIR", Size::of(data)));
        }
        return Ok(());
    };
    for name in results::write_files(dir, output)? {
        out.warn(format!("/out/{name:?} can't be a file here; left out"));
    }
    Ok(())
}

impl RunView {
    fn new(digest: Option<String>, outcome: &Result<Execution, NoResult>, wall_secs: f64) -> Self {
        match outcome {
            Ok(execution) => Self {
                status: execution.exit.status(),
                exit_code: match execution.exit {
                    Exit::Ok => Some(0),
                    Exit::Code(code) => Some(code),
                    Exit::Trap(_) | Exit::Limit(_) => None,
                },
                digest,
                fuel: Some(execution.fuel.get()),
                resumed: execution.resumed,
                wall_secs,
                reason: (!execution.exit.is_ok()).then(|| execution.exit.to_string()),
            },
            Err(reason) => Self {
                status: "no-result",
                exit_code: None,
                digest: None,
                fuel: None,
                resumed: false,
                wall_secs,
                reason: Some(reason.to_string()),
            },
        }
    }

    fn text(&self) -> String {
        // How a program ended says itself which status that is.
        let reason = self.reason.as_ref().map(|reason| match self.digest {
            Some(_) => reason.clone(),
            None => format!("no result: {reason}"),
        });
        let digest = self.digest.as_ref().map(|digest| format!("digest {digest}"));
        let fuel = self.fuel.map(|fuel| format!("fuel   {}", format::grouped(Fuel::new(fuel))));
        let time = Some(format!("time   {}", format::span(self.wall_secs)));
        [reason, digest, fuel, time].into_iter().flatten().collect::<Vec<_>>().join("\n")
    }
}

fn exit_code(outcome: &Result<Execution, NoResult>) -> ExitCode {
    ExitCode::from(match outcome {
        Ok(execution) => match execution.exit {
            Exit::Ok => 0,
            Exit::Code(code @ 1..=125) => u8::try_from(code).unwrap_or(EXIT_TRAP),
            Exit::Code(_) | Exit::Trap(_) => EXIT_TRAP,
            Exit::Limit(_) => EXIT_LIMIT,
        },
        Err(_) => EXIT_NO_RESULT,
    })
}

#[cfg(test)]
mod tests {
    use talka_core::{
        outcome::{Limit, Output, Trap},
        quantities::Fuel,
    };

    use super::*;

    fn ended(exit: Exit) -> Execution {
        Execution { exit, output: Output::default(), fuel: Fuel::new(1_234_567), resumed: false }
    }

    #[test]
    fn the_exit_code_is_the_programs_own_where_a_shell_can_show_it() {
        let check = |outcome: Result<Execution, NoResult>, code: u8| {
            assert_eq!(format!("{:?}", exit_code(&outcome)), format!("{:?}", ExitCode::from(code)));
        };
        check(Ok(ended(Exit::Ok)), 0);
        check(Ok(ended(Exit::Code(1))), 1);
        check(Ok(ended(Exit::Code(125))), 125);
        check(Ok(ended(Exit::Code(126))), 70);
        check(Ok(ended(Exit::Code(256))), 70);
        check(Ok(ended(Exit::Trap(Trap::Unreachable))), 70);
        check(Ok(ended(Exit::Limit(Limit::Fuel))), 71);
        check(Err(NoResult::Deadline), 75);
    }

    #[test]
    fn the_json_says_why_only_when_something_went_wrong() {
        let json = |view: RunView| serde_json::to_string(&view).expect("json");
        assert_eq!(
            json(RunView::new(Some("ab".into()), &Ok(ended(Exit::Ok)), 0.5)),
            r#"{"status":"ok","exit_code":0,"digest":"ab","fuel":1234567,"resumed":false,"wall_secs":0.5}"#
        );
        assert_eq!(
            json(RunView::new(None, &Err(NoResult::Deadline), 0.5)),
            r#"{"status":"no-result","exit_code":null,"digest":null,"fuel":null,"resumed":false,"wall_secs":0.5,"reason":"the deadline passed; raise --deadline"}"#
        );
        assert!(
            RunView::new(Some("ab".into()), &Ok(ended(Exit::Ok)), 0.5).text().contains("fuel   1_234_567")
        );
    }
}
