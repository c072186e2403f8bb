//! A worker: what donates CPU.
//!
//! [`run`] keeps a session with one coordinator. The session delivers leases; the `fetch` side gets a
//! job's blobs from whoever has them and compiles its bundle; each slot owns a warm, locked-down executor
//! process that runs attempts; what comes out is reported and kept until the coordinator has it on disk.
//! What happens next is decided by [`talka_core::worker::Worker`], which one task owns.
//!
//! ```text
//!   session ──┐            ┌──▶ fetch (blobs, compiler) ──┐
//!             ├──▶ shell ──┤                              ├──▶ shell
//!   machine ──┘            └──▶ slots (executors) ────────┘
//! ```
//!
//! | module | subject |
//! |---|---|
//! | [`sandbox`] | where programs of strangers run; the only place that knows wasmtime |
//! | [`world`] | from a task to what the sandbox runs, and back to a report |

mod capacity;
mod fetch;
pub mod sandbox;
mod session;
mod shell;
mod slots;
pub mod world;

use std::{net::SocketAddr, path::PathBuf};

use talka_core::{
    ids::{PeerId, SlotNo},
    outcome::Execution,
    quantities::Bytes,
};
use talka_peer::{
    blobs::{self, AdmitAll, BlobError, BlobServer, BlobStore, offer},
    connections::ConnectionLimits,
    endpoint::{BindError, EndpointConfig, PeerEndpoint},
    identity::{Identity, IdentityError},
    rpc::Client,
    ticket::Ticket,
    transfer,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    capacity::Machine,
    fetch::Fetcher,
    sandbox::{Compiler, Executor, ExecutorConfig},
    shell::{EVENT_QUEUE, Shell, SlotHandle},
    slots::Slot,
};

/// Program and version, as peers are told.
pub(crate) const AGENT: &str = concat!("talka/", env!("CARGO_PKG_VERSION"));

/// Changes what a program returned: for fault injection in tests. A worker that lies.
pub type Tamper = fn(&mut Execution);

/// What a worker's owner decides.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Where the key, the blobs and the compiled modules are.
    pub data_dir: PathBuf,
    /// Whom to work for.
    pub ticket: Ticket,
    /// Attempts at the same time; one per processor unless set.
    pub slots: Option<u32>,
    /// Memory of all slots together; half of the machine's unless set.
    pub memory: Option<Bytes>,
    /// Where to listen for other peers; any free port unless set.
    pub bind: Option<SocketAddr>,
    /// The program that is started for executor and compile processes: `talka` itself.
    pub executable: PathBuf,
    /// Makes this worker lie. `None` in every honest one.
    pub tamper: Option<Tamper>,
}

/// The worker can't start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The key can't be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The peer can't listen.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The blob store can't be used.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// An executor process can't be started.
    #[error("can't start an executor process ({})", executable.display())]
    Executor {
        /// The program that was to be it.
        executable: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The machine does not tell what it has.
    #[error("can't find out about this machine's processors and memory")]
    Machine(#[from] sysinfo::Error),
    /// The coordinator refuses this worker for good.
    #[error("the coordinator refuses this worker: {0}")]
    Refused(String),
}

/// Runs a worker until `shutdown`; `on_ready` is called once its session is up.
pub async fn run(
    config: WorkerConfig,
    shutdown: CancellationToken,
    on_ready: impl FnOnce(PeerId),
) -> Result<(), WorkerError> {
    let identity = Identity::load_or_create(&config.data_dir)?;
    let peer = identity.peer_id();
    let mut listen = EndpointConfig::new(identity);
    if let Some(bind) = config.bind {
        listen.listen = bind;
    }
    let endpoint = PeerEndpoint::bind(listen).await?;
    let blobs = BlobStore::open(&config.data_dir.join("blobs")).await?;
    let connections = ConnectionLimits::default();
    let server = BlobServer::new(&blobs, AdmitAll, None, connections.clone());
    let router = endpoint.router(&connections).accept(blobs::ALPN, server.clone()).spawn();
    let client = Client::new(endpoint.clone(), &config.ticket);
    // Behind NAT nobody can dial this worker: the coordinator fetches large outputs on a connection made here.
    let stopping = CancellationToken::new();
    let coordinator = config.ticket.coordinator.clone();
    let offered = tokio::spawn(offer(endpoint.clone(), coordinator, server, stopping.clone()));

    let (events, incoming) = mpsc::channel(EVENT_QUEUE);
    let fetcher = Fetcher::new(
        blobs.clone(),
        transfer::Fetcher::new(endpoint.clone(), blobs.clone(), None),
        client.clone(),
        &endpoint.address().direct,
        Compiler::with_cache(config.executable.clone(), config.data_dir.clone()),
        events.clone(),
    );
    let machine = Machine::new(config.slots, config.memory)?;
    let slots = start_slots(&config, machine.slots(), &blobs, &events).await?;
    let shell = Shell::new(machine, slots, fetcher, blobs.clone(), incoming);

    let (up, mut is_up) = mpsc::channel(1);
    let session = tokio::spawn(session::keep(client, events, up, stopping.clone()));
    let shell = tokio::spawn(shell.run(shutdown.clone()));
    let (mut session, mut shell) = (session, shell);
    let mut on_ready = Some(on_ready);
    let ended = loop {
        tokio::select! {
            Some(()) = is_up.recv(), if on_ready.is_some() => {
                if let Some(on_ready) = on_ready.take() {
                    on_ready(peer);
                }
            }
            ended = &mut session => break ended.ok().and_then(Result::err),
            _ = &mut shell => break None,
        }
    };
    stopping.cancel();
    session.abort();
    shell.abort();
    drop(offered.await);
    drop(router.shutdown().await);
    endpoint.close().await;
    blobs.shutdown().await;
    ended.map_or(Ok(()), |error| Err(WorkerError::Refused(error.to_string())))
}

async fn start_slots(
    config: &WorkerConfig,
    count: u32,
    blobs: &BlobStore,
    events: &mpsc::Sender<shell::Event>,
) -> Result<Vec<SlotHandle>, WorkerError> {
    let mut slots = Vec::new();
    for number in 0..count {
        let executable = config.executable.clone();
        let executor = Executor::spawn(ExecutorConfig { exe: executable.clone() }).await;
        let executor = executor.map_err(|source| WorkerError::Executor { executable, source })?;
        let slot = Slot {
            number: SlotNo::new(number),
            executor,
            blobs: blobs.clone(),
            events: events.clone(),
            tamper: config.tamper,
        };
        // One batch at a time: the shell starts a slot only when it is idle.
        let (batches, waiting) = mpsc::channel(1);
        tokio::spawn(slot.run(waiting));
        slots.push(SlotHandle { batches, stop: CancellationToken::new() });
    }
    Ok(slots)
}
