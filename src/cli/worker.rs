//! `talka worker …`.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Subcommand, builder::FalseyValueParser};
use serde::Serialize;
use talka_core::{ids::PeerId, limits, quantities::Bytes};
use talka_worker::WorkerConfig;

use super::CoordinatorFlags;
use crate::{client, error::Failure, find, output::Out, paths, problems::Problems, shutdown};

/// Commands of a worker.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// Donate this machine's spare time: work until Ctrl-C.
    #[command(after_help = "Example:\n  talka worker start --ticket TICKET --cpus 2\n\n\
        Programs of strangers run in a sandbox: they can't read, write or connect to anything here.\n\
        With --json: one line {\"peer\"} when the coordinator has welcomed this worker.")]
    Start(StartFlags),
}

/// `talka worker start`.
#[derive(Debug, Default, Args)]
pub(crate) struct StartFlags {
    /// The coordinator's ticket. Default: the coordinator that runs on this machine.
    #[arg(long, value_name = "TICKET", env = "TALKA_TICKET", hide_env_values = true)]
    ticket: Option<String>,
    /// Where this worker's key and blobs are [default: ~/.local/share/talka/worker].
    #[arg(long, value_name = "DIR", env = "TALKA_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Tasks at the same time [default: one per processor].
    #[arg(long, value_name = "NUMBER", env = "TALKA_CPUS")]
    cpus: Option<String>,
    /// Memory of all tasks together [default: half of the machine's].
    #[arg(long, value_name = "SIZE", env = "TALKA_MEMORY")]
    memory: Option<String>,
    /// Address for peers (UDP) [default: any free port].
    #[arg(long, value_name = "ADDRESS", env = "TALKA_BIND")]
    bind: Option<String>,
    /// Stop at the end of standard input, so that it never outlives the program that started it.
    #[arg(long, env = "TALKA_UNTIL_EOF", value_parser = FalseyValueParser::new())]
    until_eof: bool,
}

/// What the owner decided, before the coordinator is looked for.
#[derive(Debug, PartialEq, Eq)]
struct Donation {
    data_dir: PathBuf,
    slots: Option<u32>,
    memory: Option<Bytes>,
    bind: Option<SocketAddr>,
}

/// The line that says that a worker works.
#[derive(Debug, Serialize)]
struct ReadyView {
    peer: String,
}

impl WorkerCommand {
    pub(crate) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let Self::Start(flags) = self;
        start(flags, out).await?;
        Ok(ExitCode::SUCCESS)
    }
}

impl TryFrom<StartFlags> for Donation {
    type Error = Failure;

    fn try_from(flags: StartFlags) -> Result<Self, Failure> {
        let mut problems = Problems::default();
        let slots: Option<u32> = problems.optional("--cpus", flags.cpus.as_deref());
        if slots.is_some_and(|slots| !(1..=limits::WORKER_SLOTS_MAX).contains(&slots)) {
            problems.add(format!("--cpus must be 1 to {}", limits::WORKER_SLOTS_MAX));
        }
        let memory: Option<Bytes> = problems.optional("--memory", flags.memory.as_deref());
        if memory.is_some_and(|memory| memory < Bytes::mib(1)) {
            problems.add("--memory must be at least 1MiB; most tasks ask for 256MiB");
        }
        let bind = problems.optional("--bind", flags.bind.as_deref());
        let data_dir = paths::data_dir(flags.data_dir, "worker")?;
        problems.into_result(Self { data_dir, slots, memory, bind })
    }
}

async fn start(flags: StartFlags, out: Out) -> anyhow::Result<()> {
    // A worker's data directory is its own and never names a coordinator.
    let coordinator = CoordinatorFlags { ticket: flags.ticket.clone(), data_dir: None };
    let until_eof = flags.until_eof;
    let Donation { data_dir, slots, memory, bind } = flags.try_into()?;
    let ticket = client::parse_ticket(&find::coordinator(&coordinator)?)?;
    let executable = paths::own_executable().context("cannot find this program's own file")?;
    paths::create_private(&data_dir)
        .with_context(|| format!("cannot create the data directory {}", data_dir.display()))?;
    let token = shutdown::on_signals().context("cannot listen for signals")?;
    if until_eof {
        shutdown::at_end_of_input(&token);
    }
    let config = WorkerConfig { data_dir, ticket, slots, memory, bind, executable, tamper: None };
    let mut announced = Ok(());
    let stop = token.clone();
    let on_ready = |peer: PeerId| {
        announced = announce(peer, out);
        if announced.is_err() {
            stop.cancel();
        }
    };
    let ran = talka_worker::run(config, token, on_ready).await;
    announced?;
    ran.context("the worker stopped")
}

fn announce(peer: PeerId, out: Out) -> anyhow::Result<()> {
    if out.is_json() {
        return out.json(&ReadyView { peer: peer.to_string() });
    }
    if out.is_quiet() {
        return out.line(peer);
    }
    out.line(format!("worker {} is at work; thank you. Stop it with Ctrl-C", peer.short()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn donation(flags: StartFlags) -> Result<Donation, Failure> {
        StartFlags { data_dir: Some("/data".into()), ..flags }.try_into()
    }

    #[test]
    fn everything_has_a_default() {
        let expected = Donation { data_dir: "/data".into(), slots: None, memory: None, bind: None };
        assert_eq!(donation(StartFlags::default()).expect("valid"), expected);
    }

    #[test]
    fn all_problems_are_named() {
        let flags = StartFlags {
            cpus: Some("0".into()),
            memory: Some("1KiB".into()),
            bind: Some("7118".into()),
            ..StartFlags::default()
        };
        let message = donation(flags).expect_err("broken").to_string();
        for part in ["--cpus must be 1 to ", "--memory must be", "--bind 7118: "] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
    }
}
