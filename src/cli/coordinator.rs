//! `talka coordinator …`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, Subcommand, builder::FalseyValueParser};
use serde::Serialize;
use talka_coordinator_peer::{CoordinatorConfig, Ready};
use talka_core::{
    job::JobState,
    limits,
    placement::{Admit, Apart},
    quantities::{Bytes, Span},
};
use talka_peer::{
    endpoint::Relay,
    rpc::Tls,
    ticket::{InviteToken, Ticket},
};
use talka_proto::wire;

use super::{
    CoordinatorFlags,
    archive::{BackupFlags, CheckFlags, RestoreFlags},
};
use crate::{
    client::{self, Client},
    error::Failure,
    find,
    format::iso8601,
    jobs,
    output::Out,
    paths,
    problems::Problems,
    registry,
    selector::Selector,
    shutdown, view,
};

/// Commands of and about a coordinator.
#[derive(Debug, Subcommand)]
pub(crate) enum CoordinatorCommand {
    /// Own jobs: serve until Ctrl-C.
    #[command(
        after_help = "Example:\n  talka coordinator start --bind 0.0.0.0:7118 --http 127.0.0.1:7117\n\n\
        Prints a ticket: whoever has it may submit jobs and donate. For volunteers there is a ticket that only\n\
        admits workers: talka coordinator ticket --worker.\n\n\
        Behind a router, with a relay that all can reach (see: talka relay start --help):\n  \
        talka coordinator start --relay https://relay.example.org\n\n\
        For a laboratory or a home, where workers then need no ticket:\n  talka coordinator start --lan\n\n\
        With --json: one line {\"ticket\", \"peer\", \"http\"} when it is ready to serve."
    )]
    Start(StartFlags),
    /// Print a coordinator's ticket.
    #[command(
        after_help = "Examples:\n  talka worker start --ticket \"$(talka coordinator ticket --worker)\"\n  \
        talka coordinator ticket --invite --uses 20 --expires 7d\n\n\
        An invite is made anew each time, and only the coordinator's owner can make one."
    )]
    Ticket(TicketFlags),
    /// Show how a coordinator is doing.
    #[command(after_help = "Example:\n  talka coordinator status --json | jq .workers.slots")]
    Status(StatusFlags),
    /// Copy a coordinator, also while it runs.
    Backup(BackupFlags),
    /// Put a copy back.
    Restore(RestoreFlags),
    /// Find out whether a coordinator's store is sound.
    Check(CheckFlags),
}

/// `talka coordinator start`.
#[derive(Debug, Default, Args)]
pub(crate) struct StartFlags {
    /// Where its key, jobs and blobs are [default: ~/.local/share/talka/coordinator].
    #[arg(long, value_name = "DIR", env = "TALKA_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Address for peers (UDP) [default: any free port].
    #[arg(long, value_name = "ADDRESS", env = "TALKA_BIND")]
    bind: Option<String>,
    /// Relay through which peers reach it that can't dial it: disabled, or a URL, which tickets then name
    /// [default: disabled].
    #[arg(long, value_name = "RELAY", env = "TALKA_RELAY")]
    relay: Option<String>,
    /// Let volunteers on the local network find this coordinator: talka worker start, without a ticket.
    #[arg(long, env = "TALKA_LAN", value_parser = FalseyValueParser::new())]
    lan: bool,
    #[cfg(feature = "dht")]
    #[command(flatten)]
    dht: super::dht::PublishFlags,
    /// Serve gRPC, JSON and the web page on this address (TCP) [default: off].
    #[arg(long, value_name = "ADDRESS", env = "TALKA_HTTP")]
    http: Option<String>,
    /// Certificate chain (PEM) for --http; required off loopback, where tools send a token.
    #[arg(long, value_name = "FILE", env = "TALKA_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key (PEM) of --tls-cert.
    #[arg(long, value_name = "FILE", env = "TALKA_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// How long a worker that lost its connection keeps its work [default: 10s].
    #[arg(long, value_name = "TIME", env = "TALKA_RECONNECT_GRACE")]
    reconnect_grace: Option<String>,
    /// Most bytes of data per second to send to peers, as 20MiB [default: no limit].
    #[arg(long, value_name = "SIZE", env = "TALKA_UPLOAD_LIMIT")]
    upload_limit: Option<String>,
    /// Which workers to let in: anyone, invited (with a ticket from: talka coordinator ticket --invite), or approved (by:
    /// talka peer approve) [default: anyone].
    #[arg(long, value_name = "WHOM", env = "TALKA_ADMIT")]
    admit: Option<String>,
    /// What the attempts of one task must not share: peers, owners (nor a peer), or networks (public /24 or /48, nor an
    /// owner, nor a peer) [default: networks].
    #[arg(long, value_name = "WHAT", env = "TALKA_APART")]
    apart: Option<String>,
    /// Stop at the end of standard input, so that it never outlives the program that started it.
    #[arg(long, env = "TALKA_UNTIL_EOF", value_parser = FalseyValueParser::new())]
    until_eof: bool,
}

/// `talka coordinator ticket`.
#[derive(Debug, Args)]
pub(crate) struct TicketFlags {
    /// A ticket for volunteers: it admits workers and submits nothing.
    #[arg(long, env = "TALKA_WORKER", value_parser = FalseyValueParser::new())]
    worker: bool,
    /// A ticket for volunteers whom the coordinator's owner invites: it lets them in whatever --admit says, and they need not
    /// begin with two tasks at a time.
    #[arg(long, env = "TALKA_INVITE", value_parser = FalseyValueParser::new(), conflicts_with = "worker")]
    invite: bool,
    /// Workers that may come with the invite, each once [default: 1].
    #[arg(long, value_name = "NUMBER", env = "TALKA_USES", requires = "invite",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::INVITE_USES_MAX)))]
    uses: Option<u32>,
    /// How long the invite may be used, as 12h or 30d [default: 7d].
    #[arg(long, value_name = "TIME", env = "TALKA_EXPIRES", requires = "invite")]
    expires: Option<Span>,
    #[command(flatten)]
    coordinator: CoordinatorFlags,
}

/// `talka coordinator status`.
#[derive(Debug, Args)]
pub(crate) struct StatusFlags {
    #[command(flatten)]
    coordinator: CoordinatorFlags,
}

/// The line that says that a coordinator serves.
#[derive(Debug, Serialize)]
struct ReadyView {
    ticket: String,
    peer: String,
    http: Option<String>,
}

#[derive(Debug, Serialize)]
struct StatusView {
    peer: String,
    jobs: JobsView,
    workers: WorkersView,
    served_bytes: u64,
    /// Requests for ranges of blobs that it served.
    served_requests: u64,
}

#[derive(Debug, Default, Serialize)]
struct JobsView {
    running: usize,
    finished: usize,
    cancelled: usize,
    tasks_waiting: u64,
    tasks_running: u64,
}

#[derive(Debug, Default, Serialize)]
struct WorkersView {
    connected: usize,
    away: usize,
    slots: u64,
    busy: u64,
}

impl CoordinatorCommand {
    pub(crate) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        match self {
            Self::Start(flags) => {
                let until_eof = flags.until_eof;
                Box::pin(start(flags.try_into()?, until_eof, out)).await?;
            }
            Self::Ticket(flags) => ticket(&flags, out).await?,
            Self::Status(flags) => status(&flags, out).await?,
            Self::Backup(flags) => return flags.run(out).await,
            Self::Restore(flags) => return flags.run(out).await,
            Self::Check(flags) => return flags.run(out).await,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl TryFrom<StartFlags> for CoordinatorConfig {
    type Error = Failure;

    fn try_from(flags: StartFlags) -> Result<Self, Failure> {
        let mut problems = Problems::default();
        let bind = problems.optional("--bind", flags.bind.as_deref());
        let http: Option<SocketAddr> = problems.optional("--http", flags.http.as_deref());
        let relay = problems.parsed("--relay", flags.relay.as_deref(), Relay::Disabled);
        let grace = Span(limits::RECONNECT_GRACE);
        let grace = problems.parsed("--reconnect-grace", flags.reconnect_grace.as_deref(), grace);
        let upload_per_second = problems.rate("--upload-limit", flags.upload_limit.as_deref());
        let admit = problems.parsed("--admit", flags.admit.as_deref(), Admit::default());
        let apart = problems.parsed("--apart", flags.apart.as_deref(), Apart::default());
        let tls = flags.tls_cert.zip(flags.tls_key);
        if http.is_some_and(|http| !http.ip().is_loopback()) && tls.is_none() {
            problems
                .add("--http off loopback needs --tls-cert and --tls-key: tokens could be read on the way");
        }
        let mut read = |flag: &str, path: &Path| {
            std::fs::read(path).unwrap_or_else(|error| {
                problems.add(format!("{flag}: can't read {}: {error}", path.display()));
                Vec::new()
            })
        };
        let tls = tls.map(|(cert, key)| Tls {
            certificate_pem: read("--tls-cert", &cert),
            key_pem: read("--tls-key", &key),
        });
        let config = Self {
            data_dir: paths::data_dir(flags.data_dir, "coordinator")?,
            bind,
            relay,
            lan: flags.lan,
            #[cfg(feature = "dht")]
            dht: flags.dht.nodes(),
            http,
            tls,
            reconnect_grace: grace.0,
            upload_per_second,
            admit,
            apart,
        };
        problems.into_result(config)
    }
}

async fn start(config: CoordinatorConfig, until_eof: bool, out: Out) -> anyhow::Result<()> {
    let token = shutdown::on_signals().context("cannot listen for signals")?;
    if until_eof {
        shutdown::at_end_of_input(&token);
    }
    let (data_dir, admit) = (config.data_dir.clone(), config.admit);
    paths::create_private(&data_dir)
        .with_context(|| format!("cannot create the data directory {}", data_dir.display()))?;
    // Lives until the coordinator has ended, then takes it off the list.
    let mut registration = None;
    let mut announced = Ok(());
    let stop = token.clone();
    let on_ready = |ready: Ready| {
        // Before it says that it is ready: whoever reads that may look for it at once.
        let register = registry::dir().and_then(|dir| {
            registry::Registration::create(&dir, ready.peer, ready.ticket.to_string(), &data_dir)
        });
        match register {
            Ok(listed) => registration = Some(listed),
            Err(error) => {
                out.warn(format!("{error:#}; commands on this machine need --ticket or --data-dir"));
            }
        }
        announced = announce(&ready, admit, out);
        if announced.is_err() {
            stop.cancel();
        }
    };
    let ran = Box::pin(talka_coordinator_peer::run(config, token, on_ready)).await;
    drop(registration);
    announced?;
    ran.context("the coordinator stopped")
}

fn announce(ready: &Ready, admit: Admit, out: Out) -> anyhow::Result<()> {
    let http = ready.http.map(|http| format!("http://{http}"));
    if out.is_json() {
        return out.json(&ReadyView {
            ticket: ready.ticket.to_string(),
            peer: ready.peer.to_string(),
            http: ready.http.map(|http| http.to_string()),
        });
    }
    if out.is_quiet() {
        return out.line(&ready.ticket);
    }
    let look = http.map(|http| format!("look:     {http}\n")).unwrap_or_default();
    let donate = match admit {
        Admit::Anyone => format!("talka worker start --ticket {}", ready.worker_ticket),
        Admit::Invited => "with a ticket from: talka coordinator ticket --invite".into(),
        Admit::Approved => {
            format!(
                "talka worker start --ticket {}\n          once you said: talka peer approve KEY",
                ready.worker_ticket
            )
        }
    };
    out.line(format!(
        "coordinator {} is ready\n\n\
         donate:   {donate}\n\
         submit:   talka submit prog.wasm --each inputs/* --wait -o results/\n\
         elsewhere, submit with --ticket {}\n\
         {look}\
         stop:     Ctrl-C",
        ready.peer.short(),
        ready.ticket,
    ))
}

async fn ticket(flags: &TicketFlags, out: Out) -> anyhow::Result<()> {
    if flags.invite {
        return invite(flags, out).await;
    }
    let found = find::coordinator(&flags.coordinator)?;
    let ticket = client::parse_ticket(&found)?;
    let ticket = if flags.worker { Ticket { invite: None, ..ticket } } else { ticket };
    if out.is_json() {
        let peer = ticket.coordinator.peer.to_string();
        return out.json(&serde_json::json!({ "ticket": ticket.to_string(), "peer": peer }));
    }
    out.line(ticket)
}

async fn invite(flags: &TicketFlags, out: Out) -> anyhow::Result<()> {
    let uses = flags.uses.unwrap_or(1);
    let valid = flags.expires.unwrap_or(Span(limits::INVITE_TIME_DEFAULT)).0;
    let client = Client::connect_as_owner(&flags.coordinator).await?;
    let request = wire::InviteRequest { uses, valid_secs: valid.as_secs() };
    let reply = client::unary(client.peers().invite(request)).await;
    let coordinator = client.address().clone();
    client.close().await;
    let reply = reply?;
    let token = <[u8; 16]>::try_from(reply.token.as_ref()).context("the coordinator sent no token")?;
    let peer = coordinator.peer.to_string();
    let ticket = Ticket { coordinator, invite: Some(InviteToken(token)) };
    if out.is_json() {
        let expires = iso8601(reply.expires_millis);
        let view = serde_json::json!({
            "ticket": ticket.to_string(), "peer": peer, "uses": uses, "expires": expires
        });
        return out.json(&view);
    }
    out.line(ticket)
}

async fn status(flags: &StatusFlags, out: Out) -> anyhow::Result<()> {
    let client = Client::connect(&flags.coordinator).await?;
    let jobs = jobs::select(&client, &Selector::All).await;
    let peers = client::unary(client.peers().list(wire::ListPeersRequest {})).await;
    let peer = client.coordinator().to_string();
    client.close().await;
    let (jobs, peers) = (jobs?, peers?);
    let view = StatusView {
        peer,
        jobs: jobs_view(&jobs),
        workers: workers_view(&peers.peers),
        served_bytes: peers.served_bytes,
        served_requests: peers.served_requests,
    };
    if out.is_json() {
        return out.json(&view);
    }
    if out.is_quiet() {
        return out.line(format!("{} {}", view.jobs.running, view.workers.connected));
    }
    let StatusView { jobs, workers, .. } = &view;
    out.fields([
        ("coordinator", view.peer.clone()),
        (
            "jobs",
            format!("{} running, {} finished, {} cancelled", jobs.running, jobs.finished, jobs.cancelled),
        ),
        ("tasks", format!("{} running, {} waiting", jobs.tasks_running, jobs.tasks_waiting)),
        (
            "workers",
            format!(
                "{} connected with {} slots, {} busy; {} away",
                workers.connected, workers.slots, workers.busy, workers.away
            ),
        ),
        ("served", Bytes::new(view.served_bytes).to_string()),
    ])
}

fn jobs_view(jobs: &[wire::JobInfo]) -> JobsView {
    let mut view = JobsView::default();
    for info in jobs {
        match view::job_state(info) {
            Some(JobState::Running) => {
                view.running += 1;
                view.tasks_running += info.running;
                let touched = info.done + info.failed + info.cancelled + info.running;
                view.tasks_waiting += info.tasks.saturating_sub(touched);
            }
            Some(JobState::Finished) => view.finished += 1,
            Some(JobState::Cancelled) => view.cancelled += 1,
            None => {}
        }
    }
    view
}

fn workers_view(peers: &[wire::PeerInfo]) -> WorkersView {
    let mut view = WorkersView::default();
    for peer in peers {
        if peer.connected {
            let capacity = peer.capacity.unwrap_or_default();
            view.connected += 1;
            view.slots += u64::from(capacity.slots);
            view.busy += u64::from(capacity.running);
        } else {
            view.away += 1;
        }
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: StartFlags) -> Result<CoordinatorConfig, Failure> {
        StartFlags { data_dir: Some("/data".into()), ..flags }.try_into()
    }

    #[test]
    fn flags_become_a_configuration() {
        let config = config(StartFlags {
            bind: Some("0.0.0.0:7118".into()),
            http: Some("127.0.0.1:0".into()),
            reconnect_grace: Some("2s".into()),
            admit: Some("invited".into()),
            apart: Some("owners".into()),
            ..StartFlags::default()
        })
        .expect("valid");
        assert_eq!((config.admit, config.apart), (Admit::Invited, Apart::Owners));
        assert_eq!(config.bind.map(|bind| bind.port()), Some(7118));
        assert_eq!(config.reconnect_grace.as_secs(), 2);
    }

    #[test]
    fn all_problems_are_named() {
        let message = config(StartFlags {
            bind: Some("here".into()),
            http: Some("0.0.0.0:7117".into()),
            relay: Some("somewhere".into()),
            reconnect_grace: Some("soon".into()),
            admit: Some("friends".into()),
            apart: Some("cities".into()),
            ..StartFlags::default()
        })
        .expect_err("broken")
        .to_string();
        for part in [
            "--bind here: ",
            "--relay somewhere: ",
            "--tls-cert",
            "--reconnect-grace soon: ",
            "--admit friends: ",
            "--apart cities: ",
        ] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
    }

    #[test]
    fn the_status_counts_what_waits() {
        let info = |state: JobState, tasks, done, running| wire::JobInfo {
            state: state as u32,
            tasks,
            done,
            running,
            ..Default::default()
        };
        let jobs = [info(JobState::Running, 100, 20, 5), info(JobState::Finished, 7, 7, 0)];
        let view = jobs_view(&jobs);
        assert_eq!((view.running, view.finished, view.tasks_waiting), (1, 1, 75));
    }
}
