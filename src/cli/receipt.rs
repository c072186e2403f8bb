//! `talka receipt …`.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, Subcommand, builder::FalseyValueParser};
use serde::Serialize;
use talka_core::{
    digest::outcome_digest, ids::PeerId, job::Inputs, limits, outcome::NoResult, quantities::Fuel,
};
use talka_peer::files::{Existing, write_durably};
use talka_proto::wire;

use super::{
    CoordinatorFlags, run,
    task::{self, TaskName},
};
use crate::{
    client::{self, Client},
    error::{Code, Failure},
    format::{grouped, iso8601},
    output::{Out, printable},
    receipt::{self, NoReceipt, Vouched},
    scratch::Scratch,
};

/// Commands about receipts: all that vouches for one task, in one file.
#[derive(Debug, Subcommand)]
pub(crate) enum ReceiptCommand {
    /// Save the receipt of a task that is final.
    #[command(after_help = "Example:\n  talka receipt get 7/12 -o task.receipt\n\n\
        In it: the job as its submitter signed it, what the workers signed, the task's entry in the ledger, the proof\n\
        that it is there, and the ledger's head as the coordinator signed it.")]
    Get(GetFlags),
    /// Show what a receipt says, without checking it.
    #[command(after_help = "Example:\n  talka receipt show task.receipt")]
    Show(FileFlags),
    /// Check every signature and proof in a receipt; with --rerun, execute the task again.
    #[command(after_help = "Examples:\n  talka receipt verify task.receipt\n  \
        talka receipt verify task.receipt --rerun\n\n\
        Needs nothing but the file, and with --rerun the coordinator, which names the workers that have the program and the\n\
        input; what neither has is named. Both are what their hashes say, whoever sends them. With --json: {\"ok\", \"task\", \"digest\", \"fuel\", \"problems\", \"rerun\", ...}.\n\
        Exit code: 0 when all of it fits, 1 when not.")]
    Verify(VerifyFlags),
}

/// `talka receipt get`.
#[derive(Debug, Args)]
pub(crate) struct GetFlags {
    /// Which task: JOB/INDEX, where JOB may be last.
    #[arg(value_name = "JOB/INDEX")]
    task: TaskName,
    /// Where the receipt goes [default: JOB-INDEX.receipt].
    #[arg(long, short = 'o', value_name = "FILE", env = "TALKA_TO")]
    to: Option<PathBuf>,
    #[command(flatten)]
    coordinator: CoordinatorFlags,
}

/// `talka receipt show`.
#[derive(Debug, Args)]
pub(crate) struct FileFlags {
    /// A receipt.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// `talka receipt verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyFlags {
    /// A receipt.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Fetch the program and the input, execute the task again in the sandbox, and compare digest and fuel.
    #[arg(long, env = "TALKA_RERUN", value_parser = FalseyValueParser::new())]
    rerun: bool,
    #[command(flatten)]
    coordinator: CoordinatorFlags,
}

#[derive(Debug, Serialize)]
struct ReceiptView {
    /// Whether everything fits; null when nothing was checked.
    ok: Option<bool>,
    task: String,
    digest: Option<String>,
    fuel: Option<u64>,
    exit: String,
    bundle: String,
    submitter: String,
    coordinator: String,
    entry: u64,
    entries: u64,
    head: String,
    signed: String,
    workers: Vec<WorkerView>,
    /// Attempts that voted for the result and whose signatures are no longer kept.
    unsigned: Vec<u32>,
    problems: Vec<String>,
    rerun: Option<RerunView>,
}

#[derive(Debug, Serialize)]
struct WorkerView {
    attempt: u32,
    peer: String,
    fuel: u64,
    resumed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct RerunView {
    ok: bool,
    digest: Option<String>,
    fuel: Option<u64>,
    problem: Option<String>,
}

impl ReceiptCommand {
    pub(crate) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        match self {
            Self::Get(flags) => flags.run(out).await,
            Self::Show(flags) => {
                let reply = read(&flags.file)?;
                print(out, &ReceiptView::new(&reply), false)?;
                Ok(ExitCode::SUCCESS)
            }
            Self::Verify(flags) => flags.run(out).await,
        }
    }
}

impl GetFlags {
    async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let client = Client::connect(&self.coordinator).await?;
        let reply = get(&client, self.task).await;
        client.close().await;
        let (name, reply) = reply?;
        let file = self.to.unwrap_or_else(|| format!("{}.receipt", name.replace('/', "-")).into());
        write_durably(&file, &receipt::encode(&reply), Existing::Replace)
            .with_context(|| format!("cannot write {}", file.display()))?;
        if out.is_json() {
            out.json(&serde_json::json!({ "task": name, "file": file }))?;
        } else {
            out.line(format!("the receipt of task {name} is in {}", file.display()))?;
            out.note(format!("check it with: talka receipt verify {} --rerun", file.display()));
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn get(client: &Client, name: TaskName) -> anyhow::Result<(String, wire::ReceiptReply)> {
    let job = client::unary(client.jobs().get(wire::JobRequest { job: name.job })).await?;
    let request = wire::TaskRequest { job: job.job, position: task::position(&job, name.index)? };
    let reply = client::unary(client.ledger().receipt(request)).await?;
    Ok((format!("{}/{}", job.job, name.index), reply))
}

fn read(file: &Path) -> anyhow::Result<wire::ReceiptReply> {
    let doing = || format!("cannot read {}", file.display());
    let mut bytes = Vec::new();
    let max = limits::RECEIPT_FILE_BYTES_MAX;
    File::open(file).with_context(doing)?.take(max + 1).read_to_end(&mut bytes).with_context(doing)?;
    if bytes.len() as u64 > max {
        return Err(Failure::new(Code::Limit, format!("{} is too long for a receipt", file.display())).into());
    }
    receipt::decode(&bytes)
        .map_err(|NoReceipt| Failure::new(Code::Usage, format!("{}: {NoReceipt}", file.display())).into())
}

impl VerifyFlags {
    async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let reply = read(&self.file)?;
        let mut view = ReceiptView::new(&reply);
        let vouched = receipt::check(&reply);
        view.ok = Some(vouched.is_ok());
        match vouched {
            Ok(vouched) => {
                view.unsigned.clone_from(&vouched.unsigned);
                if self.rerun {
                    let rerun = self.execute(&reply, &vouched).await?;
                    view.ok = Some(rerun.ok);
                    view.rerun = Some(rerun);
                }
            }
            Err(problems) => view.problems = problems,
        }
        print(out, &view, true)?;
        Ok(if view.ok == Some(true) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Executes the task again and compares.
    async fn execute(&self, reply: &wire::ReceiptReply, vouched: &Vouched) -> anyhow::Result<RerunView> {
        let Some(agreed) = vouched.agreed else {
            return Ok(RerunView::failed("nobody agreed on a result, so there is nothing to compare with"));
        };
        let client = Client::connect(&self.coordinator).await?;
        let ran = rerun(&client, reply, vouched).await;
        client.close().await;
        let ran = ran?;
        Ok(match ran.outcome {
            Ok(execution) => {
                let outcome = outcome_digest(ran.bundle, ran.input, execution.exit, &execution.output);
                let same = agreed.is_of(outcome, execution.fuel);
                // Where all attempts had resumed, each had counted its own way back.
                let fuel_fits = execution.fuel == agreed.fuel || same && execution.fuel < agreed.fuel;
                let digest = talka_core::digest::result_digest(outcome, Some(execution.fuel));
                let problem = if !same {
                    Some("the result is another one than the one in the ledger")
                } else if !fuel_fits {
                    Some("the fuel is not what the ledger says")
                } else {
                    None
                };
                RerunView {
                    ok: problem.is_none(),
                    digest: Some(digest.to_string()),
                    fuel: Some(execution.fuel.get()),
                    problem: problem.map(str::to_owned),
                }
            }
            Err(reason) => RerunView::failed(no_result(reason)),
        })
    }
}

fn no_result(reason: NoResult) -> String {
    format!("this machine got no result: {reason}")
}

/// Fetches what the task needs and executes it.
async fn rerun(client: &Client, reply: &wire::ReceiptReply, vouched: &Vouched) -> anyhow::Result<run::Ran> {
    let workers = reply.workers.iter().filter_map(|worker| PeerId::try_from(&worker.peer[..]).ok());
    let scratch = Scratch::open(client, workers.take(limits::PROVIDERS_MAX).collect()).await?;
    let ran = rerun_in(&scratch, reply, vouched).await;
    scratch.close().await;
    ran
}

async fn rerun_in(
    scratch: &Scratch,
    reply: &wire::ReceiptReply,
    vouched: &Vouched,
) -> anyhow::Result<run::Ran> {
    let (spec, position) = (&vouched.spec, vouched.entry.task.index);
    let module = scratch.read(spec.bundle, limits::MODULE_BYTES_MAX, "the program").await?;
    let mut datasets = Vec::with_capacity(spec.datasets.len());
    for dataset in &spec.datasets {
        let what = format!("the dataset {}", dataset.name);
        let bytes = scratch.read(dataset.blob, limits::DATASETS_BYTES_MAX, &what).await?;
        datasets.push((dataset.name.clone(), dataset.blob.hash, bytes));
    }
    let stdin = match &spec.inputs {
        Inputs::Array { .. } => bytes::Bytes::new(),
        Inputs::Packed { data, .. } => {
            let length = reply.input_length.min(limits::INPUT_BYTES_MAX);
            let range = reply.input_offset..reply.input_offset.saturating_add(length);
            scratch.read_range(*data, range, "the input").await?
        }
    };
    run::again(spec, position, module, datasets, stdin).await
}

impl RerunView {
    fn failed(problem: impl Into<String>) -> Self {
        Self { ok: false, digest: None, fuel: None, problem: Some(problem.into()) }
    }
}

impl ReceiptView {
    /// What a receipt says, checked or not.
    fn new(reply: &wire::ReceiptReply) -> Self {
        use talka_core::{coordinator::TaskVerdict, ledger::LedgerEntry};

        fn hex(bytes: &[u8]) -> String {
            crate::format::peer_text(bytes)
        }
        let entry = match LedgerEntry::decode(&reply.entry) {
            Ok(LedgerEntry::Task(entry)) => Some(entry),
            _ => None,
        };
        let (digest, fuel, exit) = match entry.as_ref().map(|entry| entry.verdict) {
            Some(verdict @ TaskVerdict::Agreed { digest, fuel, .. }) => {
                let reason = verdict.reason();
                let exit = if reason.is_empty() { "ok".to_owned() } else { reason };
                (Some(digest.to_string()), Some(fuel.get()), exit)
            }
            Some(verdict) => (None, None, verdict.reason()),
            None => (None, None, "unknown".to_owned()),
        };
        let (head, job) = (reply.head.clone().unwrap_or_default(), reply.job.clone().unwrap_or_default());
        let bundle = job.spec.as_ref().and_then(|spec| spec.bundle.as_ref());
        let worker = |worker: &wire::WorkerReceipt| WorkerView {
            attempt: worker.number,
            peer: hex(&worker.peer),
            fuel: worker.fuel,
            resumed: worker.resumed,
        };
        Self {
            ok: None,
            task: entry.map_or_else(|| "unknown".to_owned(), |entry| entry.task.to_string()),
            digest,
            fuel,
            exit,
            bundle: bundle.map(|bundle| hex(&bundle.hash)).unwrap_or_default(),
            submitter: hex(&job.submitter),
            coordinator: hex(&head.coordinator),
            entry: reply.place,
            entries: head.size,
            head: hex(&head.root),
            signed: iso8601(head.at_millis),
            workers: reply.workers.iter().map(worker).collect(),
            unsigned: vec![],
            problems: vec![],
            rerun: None,
        }
    }
}

fn print(out: Out, view: &ReceiptView, checked: bool) -> anyhow::Result<()> {
    if out.is_json() {
        return out.json(view);
    }
    if out.is_quiet() && checked {
        return out.line(if view.ok == Some(true) { "ok" } else { "bad" });
    }
    let workers: Vec<String> =
        view.workers.iter().map(|worker| format!("#{} {}", worker.attempt, worker.peer)).collect();
    out.fields([
        ("task", view.task.clone()),
        ("ended", view.exit.clone()),
        ("digest", view.digest.clone().unwrap_or_default()),
        ("fuel", view.fuel.map(|fuel| grouped(Fuel::new(fuel))).unwrap_or_default()),
        ("program", view.bundle.clone()),
        ("submitter", view.submitter.clone()),
        ("workers", workers.join(", ")),
        ("ledger", format!("entry {} of {}, head {}", view.entry, view.entries, view.head)),
        ("coordinator", format!("{} at {}", view.coordinator, view.signed)),
    ])?;
    for problem in &view.problems {
        out.line(format!("NOT OK: {}", printable(problem)))?;
    }
    if !view.unsigned.is_empty() {
        let numbers: Vec<String> = view.unsigned.iter().map(u32::to_string).collect();
        out.line(format!("not signed, because it is too long ago: attempt {}", numbers.join(", ")))?;
    }
    match &view.rerun {
        Some(RerunView { problem: Some(problem), .. }) => {
            out.line(format!("NOT OK: executed again: {}", printable(problem)))?;
        }
        Some(_) => out.line("executed again: same digest, same fuel")?,
        None => {}
    }
    if view.ok == Some(true) {
        out.line("ok: all signatures and proofs are good")?;
    }
    Ok(())
}
