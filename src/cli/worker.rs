//! `talka worker …`.

mod control;

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Subcommand, builder::FalseyValueParser};
use serde::Serialize;
use talka_core::{duty::CpuPercent, ids::PeerId, ledger::Names, limits, quantities::Bytes};
use talka_peer::{endpoint::Relay, ticket::Ticket};
use talka_worker::{
    Bandwidth, WorkerConfig, WorkerError,
    control::ControlError,
    trust::{self, Policy, Trust},
};

use self::control::{DirFlags, PauseFlags, SetFlags};
use super::CoordinatorFlags;
use crate::{
    client,
    error::{Code, Failure},
    find,
    lan::{self, Lan},
    output::Out,
    paths,
    problems::Problems,
    shutdown,
};

/// Commands of a worker.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// Donate this machine's spare time: work until Ctrl-C.
    #[command(after_help = "Examples:\n  talka worker start --ticket TICKET --cpus 2\n  \
        talka worker start --ticket TICKET --private\n  \
        talka worker start                                  looks for a coordinator here and on the local network\n\n\
        Programs of strangers run in a sandbox: they can't read, write or connect to anything here.\n\
        With --json: one line {\"peer\"} when the coordinator has welcomed this worker.")]
    Start(Box<StartFlags>),
    /// Show what the worker on this machine does, and why not more.
    #[command(after_help = "Example:\n  talka worker status\n\n\
        With --quiet: one word, paused, finishing, working, idle or disconnected.")]
    Status(DirFlags),
    /// Stop at once what runs, keep it in memory, and take nothing new.
    #[command(after_help = "Examples:\n  talka worker pause\n  talka worker pause --for 2h\n\n\
        What waits goes to others; what runs goes on where it was, after: talka worker resume\n\
        A pause outlives the worker: one that is started again stays paused until it is over.")]
    Pause(PauseFlags),
    /// Go on after a pause.
    #[command(after_help = "Example:\n  talka worker resume")]
    Resume(DirFlags),
    /// Take nothing new, finish what runs, and end.
    #[command(after_help = "Example:\n  talka worker finish\n\n\
        Returns at once; the worker ends when its last result is with the coordinator. A paused worker waits \
        until it is resumed.")]
    Finish(DirFlags),
    /// Change how much the worker may use while it runs.
    #[command(after_help = "Example:\n  talka worker set --cpu-percent 25\n\n\
        Holds until the worker ends; for good: talka worker start --cpu-percent 25")]
    Set(SetFlags),
}

/// `talka worker start`.
#[derive(Debug, Default, Args)]
pub(crate) struct StartFlags {
    /// The coordinator's ticket. Default: the coordinator that runs on this machine, or one on the local network.
    #[arg(long, value_name = "TICKET", env = "TALKA_TICKET", hide_env_values = true)]
    ticket: Option<String>,
    /// Without a ticket: ask (look for coordinators on the local network, and ask before working for one), off, or the
    /// key of one there [default: ask].
    #[arg(long, value_name = "WHICH", env = "TALKA_LAN", conflicts_with = "ticket")]
    lan: Option<String>,
    #[cfg(feature = "dht")]
    #[command(flatten)]
    dht: super::dht::FindFlags,
    /// Where this worker's key and blobs are [default: ~/.local/share/talka/worker].
    #[arg(long, value_name = "DIR", env = "TALKA_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Tasks at the same time [default: one per processor].
    #[arg(long, value_name = "NUMBER", env = "TALKA_CPUS")]
    cpus: Option<String>,
    /// Share of each processor to use, 1 to 100, held by stopping tasks for some milliseconds again and again
    /// [default: 100].
    #[arg(long, value_name = "PERCENT", env = "TALKA_CPU_PERCENT")]
    cpu_percent: Option<String>,
    /// Memory of all tasks together [default: half of the machine's].
    #[arg(long, value_name = "SIZE", env = "TALKA_MEMORY")]
    memory: Option<String>,
    /// What programs, inputs and results may take of the disk; what was used longest ago goes first [default: 20GiB].
    #[arg(long, value_name = "SIZE", env = "TALKA_DISK")]
    disk: Option<String>,
    /// Whose programs to run: coordinator (of everybody whom the coordinator lets submit), any (also what nobody
    /// signed), or the keys of submitters, separated by commas [default: coordinator].
    #[arg(long, value_name = "WHOM", env = "TALKA_TRUST")]
    trust: Option<String>,
    /// Keys of submitters whose programs are never run, separated by commas: stolen or abused ones.
    #[arg(long, value_name = "KEYS", env = "TALKA_DISTRUST")]
    distrust: Option<String>,
    /// Name under which this worker's credit is shown, together with that of all others with this name. Nobody
    /// checks it.
    #[arg(long, value_name = "NAME", env = "TALKA_OWNER")]
    owner: Option<String>,
    /// Name of the team that the credit counts for as well.
    #[arg(long, value_name = "NAME", env = "TALKA_TEAM")]
    team: Option<String>,
    /// Address for peers (UDP) [default: any free port].
    #[arg(long, value_name = "ADDRESS", env = "TALKA_BIND")]
    bind: Option<String>,
    /// Relay that carries what can't go directly: disabled, or a URL [default: that of the ticket].
    #[arg(long, value_name = "RELAY", env = "TALKA_RELAY")]
    relay: Option<String>,
    /// Show this machine's address to no other volunteer: everything goes through the relay, or, where the coordinator
    /// has none, to and from the coordinator alone.
    #[arg(long, env = "TALKA_PRIVATE", value_parser = FalseyValueParser::new())]
    private: bool,
    /// Most bytes of data per second to send to others, as 2MiB [default: no limit].
    #[arg(long, value_name = "SIZE", env = "TALKA_UPLOAD_LIMIT")]
    upload_limit: Option<String>,
    /// Most bytes of data per second to take, as 10MiB [default: no limit].
    #[arg(long, value_name = "SIZE", env = "TALKA_DOWNLOAD_LIMIT")]
    download_limit: Option<String>,
    /// The connection is paid by the byte: send nothing to other volunteers, only results to the coordinator.
    #[arg(long, env = "TALKA_METERED", value_parser = FalseyValueParser::new())]
    metered: bool,
    /// Stop at the end of standard input, so that it never outlives the program that started it.
    #[arg(long, env = "TALKA_UNTIL_EOF", value_parser = FalseyValueParser::new())]
    until_eof: bool,
}

/// What the owner decided, before the coordinator is looked for.
#[derive(Debug, PartialEq, Eq)]
struct Donation {
    data_dir: PathBuf,
    slots: Option<u32>,
    cpu_percent: CpuPercent,
    memory: Option<Bytes>,
    disk: Bytes,
    bind: Option<SocketAddr>,
    lan: Lan,
    #[cfg(feature = "dht")]
    dht: super::dht::Search,
    /// That of the ticket unless set.
    relay: Option<Relay>,
    private: bool,
    bandwidth: Bandwidth,
    trust: Trust,
    names: Names,
}

/// The line that says that a worker works.
#[derive(Debug, Serialize)]
struct ReadyView {
    peer: String,
}

impl WorkerCommand {
    pub(crate) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        match self {
            Self::Start(flags) => start(*flags, out).await?,
            Self::Status(flags) => flags.status(out).await?,
            Self::Pause(flags) => flags.pause(out).await?,
            Self::Resume(flags) => flags.resume(out).await?,
            Self::Finish(flags) => flags.finish(out).await?,
            Self::Set(flags) => flags.set(out).await?,
        }
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
        let cpu_percent = problems.parsed("--cpu-percent", flags.cpu_percent.as_deref(), CpuPercent::ALL);
        let memory: Option<Bytes> = problems.optional("--memory", flags.memory.as_deref());
        if memory.is_some_and(|memory| memory < Bytes::mib(1)) {
            problems.add("--memory must be at least 1MiB; most tasks ask for 256MiB");
        }
        let disk = Bytes::new(limits::DISK_BYTES_DEFAULT);
        let disk: Bytes = problems.parsed("--disk", flags.disk.as_deref(), disk);
        if disk.get() < limits::DISK_BYTES_MIN {
            problems.add(format!("--disk must be at least {}", Bytes::new(limits::DISK_BYTES_MIN)));
        }
        let bind = problems.optional("--bind", flags.bind.as_deref());
        #[cfg(feature = "dht")]
        let dht = flags.dht.search(&mut problems);
        let lan = problems.parsed("--lan", flags.lan.as_deref(), Lan::default());
        if flags.private && matches!(lan, Lan::Key(_)) {
            problems.add(
                "--private and --lan: a question to the local network would show who asks; give --ticket",
            );
        }
        let relay = problems.optional("--relay", flags.relay.as_deref());
        let upload = problems.rate("--upload-limit", flags.upload_limit.as_deref());
        let download = problems.rate("--download-limit", flags.download_limit.as_deref());
        let bandwidth = Bandwidth { upload, download, metered: flags.metered };
        let policy = problems.parsed("--trust", flags.trust.as_deref(), Policy::default());
        let revoked = trust::parse_keys(flags.distrust.as_deref().unwrap_or_default());
        let revoked = revoked.unwrap_or_else(|error| {
            problems.add(format!("--distrust: {error}"));
            BTreeSet::new()
        });
        let names =
            Names::new(flags.owner.as_deref().unwrap_or_default(), flags.team.as_deref().unwrap_or_default());
        let names = names.unwrap_or_else(|error| {
            problems.add(format!("--owner, --team: {error}"));
            Names::default()
        });
        let trust = Trust { policy, revoked };
        let data_dir = paths::data_dir(flags.data_dir, "worker")?;
        let private = flags.private;
        problems.into_result(Self {
            data_dir,
            slots,
            cpu_percent,
            memory,
            disk,
            bind,
            lan,
            #[cfg(feature = "dht")]
            dht,
            relay,
            private,
            bandwidth,
            trust,
            names,
        })
    }
}

async fn start(flags: StartFlags, out: Out) -> anyhow::Result<()> {
    // A worker's data directory is its own and never names a coordinator.
    let coordinator = CoordinatorFlags { ticket: flags.ticket.clone(), ..CoordinatorFlags::default() };
    let until_eof = flags.until_eof;
    let Donation {
        data_dir,
        slots,
        cpu_percent,
        memory,
        disk,
        bind,
        lan,
        #[cfg(feature = "dht")]
        dht,
        relay,
        private,
        bandwidth,
        trust,
        names,
    } = flags.try_into()?;
    let lan = if private { Lan::Off } else { lan };
    #[cfg(feature = "dht")]
    let from_dht = dht.ticket(bind).await?;
    #[cfg(not(feature = "dht"))]
    let from_dht = None;
    let ticket = match from_dht {
        Some(ticket) => ticket,
        None => ticket_of(&coordinator, lan, bind, out).await?,
    };
    let relay = relay.unwrap_or_else(|| ticket.coordinator.relay.clone().into());
    let executable = paths::own_executable().context("cannot find this program's own file")?;
    paths::create_private(&data_dir)
        .with_context(|| format!("cannot create the data directory {}", data_dir.display()))?;
    let token = shutdown::on_signals().context("cannot listen for signals")?;
    if until_eof {
        shutdown::at_end_of_input(&token);
    }
    let config = WorkerConfig {
        data_dir,
        ticket,
        slots,
        memory,
        disk,
        cpu_percent,
        bind,
        relay,
        private,
        bandwidth,
        trust,
        names,
        executable,
        tamper: None,
    };
    let mut announced = Ok(());
    let stop = token.clone();
    let on_ready = |peer: PeerId| {
        announced = announce(peer, out);
        if announced.is_err() {
            stop.cancel();
        }
    };
    let ran = talka_worker::run_persistently(config, token, on_ready).await;
    announced?;
    match ran {
        Err(WorkerError::Control(error @ ControlError::AlreadyRuns(_))) => {
            Err(Failure::new(Code::AlreadyRuns, error.to_string()).into())
        }
        ran => ran.context("the worker stopped"),
    }
}

/// The ticket that was given, that of the coordinator here, or one for a coordinator on the local network.
async fn ticket_of(
    flags: &CoordinatorFlags,
    lan: Lan,
    bind: Option<SocketAddr>,
    out: Out,
) -> anyhow::Result<Ticket> {
    let found = match lan {
        Lan::Key(_) => None,
        Lan::Ask | Lan::Off => Some(find::coordinator(flags)),
    };
    match found {
        Some(Ok(found)) => Ok(client::parse_ticket(&found)?),
        Some(Err(error)) if lan == Lan::Off || Failure::code_of(&error) != Code::NoCoordinator => Err(error),
        _ => lan::coordinator(lan, bind, out).await,
    }
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
        let expected = Donation {
            data_dir: "/data".into(),
            slots: None,
            cpu_percent: CpuPercent::ALL,
            memory: None,
            disk: Bytes::new(20 << 30),
            bind: None,
            lan: Lan::Ask,
            #[cfg(feature = "dht")]
            dht: super::super::dht::Search::default(),
            relay: None,
            private: false,
            bandwidth: Bandwidth::default(),
            trust: Trust::default(),
            names: Names::default(),
        };
        assert_eq!(donation(StartFlags::default()).expect("valid"), expected);
    }

    #[test]
    fn all_problems_are_named() {
        let flags = StartFlags {
            cpus: Some("0".into()),
            cpu_percent: Some("0".into()),
            memory: Some("1KiB".into()),
            disk: Some("1MiB".into()),
            bind: Some("7118".into()),
            lan: Some("somewhere".into()),
            relay: Some("relay.example.org".into()),
            upload_limit: Some("1KiB".into()),
            download_limit: Some("fast".into()),
            trust: Some("everybody".into()),
            distrust: Some("me".into()),
            owner: Some("a\tb".into()),
            ..StartFlags::default()
        };
        let message = donation(flags).expect_err("broken").to_string();
        for part in [
            "--cpus must be 1 to ",
            "--cpu-percent 0: ",
            "--memory must be",
            "--disk must be at least 16 MiB",
            "--bind 7118: ",
            "--lan somewhere: ",
            "--relay relay.example.org: ",
            "--upload-limit must",
            "--download-limit fast: ",
            "--trust everybody: ",
            "--distrust: ",
            "--owner, --team: ",
        ] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
    }
}
