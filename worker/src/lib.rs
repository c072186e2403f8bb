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
//!   machine ──┤            └──▶ slots (executors) ────────┘
//!   owner   ──┘
//! ```
//!
//! | module | subject |
//! |---|---|
//! | [`sandbox`] | where programs of strangers run; the only place that knows wasmtime |
//! | [`checkpoints`] | what lets attempts go on after a restart |
//! | `disk` | what blobs may take of the disk, and what goes when there is no room |
//! | `outputs` | large results, kept until somebody fetched them |
//! | `persistent` | a worker that waits for room when its disk is full |
//! | [`control`] | the owner's hand on a running worker: a socket in its data directory |
//! | [`receipts`] | the signature under reports |
//! | [`trust`] | whose programs are run |
//! | [`world`] | from a task to what the sandbox runs, and back to a report |

mod capacity;
pub mod checkpoints;
pub mod control;
mod disk;
mod fetch;
mod inputs;
mod outputs;
mod persistent;
pub mod receipts;
pub mod sandbox;
mod session;
mod shell;
mod slots;
mod tracker;
pub mod trust;
pub mod world;

use std::{io, net::SocketAddr, num::NonZeroU64, path::PathBuf, sync::Arc, time::Duration};

use talka_core::{
    duty::CpuPercent,
    ids::{BlobHash, PeerId, SlotNo},
    ledger::Names,
    outcome::Execution,
    quantities::Bytes,
};
use talka_peer::{
    Cause,
    blobs::{self, Admit, AdmitAll, BlobError, BlobServer, BlobStore, Serving, offer},
    connections::ConnectionLimits,
    endpoint::{BindError, EndpointConfig, PeerEndpoint, Privacy, Relay},
    identity::{Identity, IdentityError},
    rpc::{self, Client, PeerHandler, PeerStreams},
    swarm::{ExchangeService, Swarm},
    ticket::Ticket,
    transfer::{GrpcBlobs, IrohBlobs, Transports},
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    capacity::Machine,
    checkpoints::{Checkpoints, Holder},
    control::{ControlError, Pause},
    disk::Disk,
    fetch::Fetcher,
    outputs::{KeepError, Outputs},
    receipts::Signer,
    sandbox::{Compiler, Executor, ExecutorConfig, Place, throttle},
    shell::{EVENT_QUEUE, Kept, Owner, Shell, SlotHandle},
    slots::Slot,
    tracker::{Presence, Tracker},
    trust::Trust,
};

/// Program and version, as peers are told.
pub use self::persistent::run_persistently;

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
    /// What blobs may take of its disk: inputs and programs, outputs, and what is kept of them for later. Checkpoints and
    /// compiled programs have bounds of their own.
    pub disk: Bytes,
    /// Share of each processor that it uses, until its owner says otherwise.
    pub cpu_percent: CpuPercent,
    /// Where to listen for other peers; any free port unless set.
    pub bind: Option<SocketAddr>,
    /// The relay that carries what can't go directly.
    pub relay: Relay,
    /// Whether no other volunteer may learn its address.
    pub private: bool,
    /// What of its connection it may use.
    pub bandwidth: Bandwidth,
    /// Whose programs to run.
    pub trust: Trust,
    /// What the owner and the team want to be called.
    pub names: Names,
    /// The program that is started for executor and compile processes: `talka` itself.
    pub executable: PathBuf,
    /// Makes this worker lie. `None` in every honest one.
    pub tamper: Option<Tamper>,
}

/// What of the machine's connection a worker may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// Most bytes of blobs per second that it sends, to all peers together; no limit unless set.
    pub upload: Option<NonZeroU64>,
    /// Most bytes of blobs per second that it takes; no limit unless set.
    pub download: Option<NonZeroU64>,
    /// Whether each byte costs its owner: then it sends nothing to other volunteers.
    pub metered: bool,
}

/// Lets the coordinator fetch, and nobody else.
struct Only(PeerId);

impl Admit for Only {
    fn peer(&self, peer: PeerId) -> bool {
        peer == self.0
    }

    fn blob(&self, peer: PeerId, _blob: BlobHash) -> bool {
        peer == self.0
    }
}

/// The worker can't start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Another worker has the data directory, or the owner could not reach this one.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The key can't be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The peer can't listen.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The blob store can't be used.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The disk does not take what has to be kept. Worth a retry when there is room.
    #[error("the disk under {} fails: {problem}", dir.display())]
    Disk {
        /// The data directory.
        dir: PathBuf,
        /// What the system says.
        problem: String,
    },
    /// Outputs of an earlier run can't be looked at.
    #[error("can't use {} for outputs", dir.display())]
    Outputs {
        /// Which.
        dir: PathBuf,
        /// Why not.
        source: Cause,
    },
    /// The directory of checkpoints can't be used.
    #[error("can't use {} for checkpoints", dir.display())]
    Checkpoints {
        /// Which.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
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

/// Time for what a worker says last to reach its coordinator; without it that finds out by itself.
const LEAVE_MAX: Duration = Duration::from_secs(2);
/// Time for what is open to close when the disk has failed.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// Runs a worker until `shutdown`; `on_ready` is called once its session is up.
pub async fn run(
    config: WorkerConfig,
    shutdown: CancellationToken,
    on_ready: impl FnOnce(PeerId),
) -> Result<(), WorkerError> {
    let socket = control::Socket::bind(&config.data_dir).await?;
    let identity = Identity::load_or_create(&config.data_dir)?;
    let peer = identity.peer_id();
    let endpoint = PeerEndpoint::bind(endpoint_config(&config, identity.clone())).await?;
    let blobs = BlobStore::open(&config.data_dir.join("blobs")).await?;
    let disk = Disk::open(blobs.clone(), config.disk).await?;
    let (outputs, found) = open_outputs(&config, &disk).await?;
    let (checkpoints, held) = open_checkpoints(&config).await?;
    let connections = ConnectionLimits::default();
    let serving = Serving { upload: config.bandwidth.upload, is_source: false };
    // Whoever serves nobody is named to nobody.
    let for_others = !config.bandwidth.metered && !matches!(endpoint.privacy(), Privacy::Only(_));
    let presence = Presence::of(&endpoint, &config.ticket.coordinator, for_others);
    let server = if for_others {
        BlobServer::with(&blobs, AdmitAll, serving, connections.clone())
    } else {
        let only = Only(config.ticket.coordinator.peer);
        BlobServer::with(&blobs, only, serving, connections.clone())
    };
    let (peers, streams) = PeerHandler::new(connections.clone());
    let for_blobs = endpoint.router(&connections).accept(blobs::ALPN, server.clone());
    let router = for_blobs.accept(rpc::ALPN, peers).spawn();
    let client = Client::new(endpoint.clone(), &config.ticket);
    // Behind NAT nobody can dial this worker: the coordinator fetches large outputs on a connection made here.
    let stopping = CancellationToken::new();
    let coordinator = config.ticket.coordinator.clone();
    let offered = tokio::spawn(offer(endpoint.clone(), coordinator, server.clone(), stopping.clone()));

    let (events, incoming) = mpsc::channel(EVENT_QUEUE);
    let transport =
        IrohBlobs::new(endpoint.clone(), blobs.clone(), None).with_download_limit(config.bandwidth.download);
    let second = GrpcBlobs::new(endpoint.clone(), blobs.clone(), presence.addresses().iter().copied());
    let swarm = Swarm::new(peer, Transports::both(transport, second), blobs.clone(), server);
    let exchange = tokio::spawn(answer_peers(swarm.exchange(), connections, streams, stopping.clone()));
    let fetcher = Fetcher::new(
        disk,
        swarm,
        Tracker::new(client.clone(), presence.clone()),
        Compiler::with_cache(config.executable.clone(), config.data_dir.clone()),
        events.clone(),
    );
    let machine = Machine::new(config.slots, config.memory)?;
    let (share, shares) = watch::channel(config.cpu_percent);
    let stores = (&outputs, &checkpoints);
    let slots = start_slots(&config, machine.slots(), stores, &events, &shares).await?;
    let pause = Pause::load(&config.data_dir, control::now_millis());
    let owner = Owner::new(peer, config.ticket.coordinator.peer, pause, share);
    // One request is obeyed at a time.
    let (ask, asked) = mpsc::channel(1);
    let control = tokio::spawn(control::serve(socket, config.data_dir.clone(), ask));
    let signer = Signer { identity, coordinator: config.ticket.coordinator.peer };
    // The rest is for what goes into programs.
    let outputs_max = Bytes::new(config.disk.get() / 2);
    let kept = Kept { outputs, found, outputs_max, checkpoints, held, signer };
    let shell = Shell::new(machine, slots, fetcher, kept, incoming, owner, asked);

    let (up, mut is_up) = mpsc::channel(1);
    let terms = session::Terms { trust: config.trust, names: config.names, presence };
    let session = tokio::spawn(session::keep(client, terms, events, up, stopping.clone()));
    let shell = tokio::spawn(shell.run(shutdown.clone()));
    let (mut session, mut shell) = (session, shell);
    let mut on_ready = Some(on_ready);
    let mut disk_problem = None;
    let ended = loop {
        tokio::select! {
            Some(()) = is_up.recv(), if on_ready.is_some() => {
                if let Some(on_ready) = on_ready.take() {
                    on_ready(peer);
                }
            }
            ended = &mut session => break ended.ok().and_then(Result::err),
            ended = &mut shell => {
                disk_problem = ended.ok().flatten();
                break None;
            }
        }
    };
    stopping.cancel();
    // The last word of the shell may still be on its way.
    if !session.is_finished() {
        drop(tokio::time::timeout(LEAVE_MAX, &mut session).await);
    }
    session.abort();
    shell.abort();
    control.abort();
    // So that the socket is gone before the process is.
    drop(control.await);
    let closed = async {
        drop(offered.await);
        exchange.abort();
        drop(router.shutdown().await);
        endpoint.close().await;
        blobs.shutdown().await;
    };
    if let Some(problem) = disk_problem {
        // A blob store whose index could not be written has stopped, and need not answer any more.
        if tokio::time::timeout(CLOSE_MAX, closed).await.is_err() {
            tracing::debug!("the blob store does not close");
        }
        return Err(WorkerError::Disk { dir: config.data_dir, problem });
    }
    closed.await;
    ended.map_or(Ok(()), |error| Err(WorkerError::Refused(error.to_string())))
}

/// Where the worker listens, and who may know of it.
fn endpoint_config(config: &WorkerConfig, identity: Identity) -> EndpointConfig {
    let coordinator = &config.ticket.coordinator;
    let privacy = if config.private {
        Privacy::private(&config.relay, coordinator.peer, coordinator.relay.as_ref())
    } else {
        Privacy::Open
    };
    // Through a relay anybody could come who knows the key.
    let relay = if matches!(privacy, Privacy::Only(_)) { Relay::Disabled } else { config.relay.clone() };
    let default = EndpointConfig::new(identity);
    EndpointConfig { listen: config.bind.unwrap_or(default.listen), relay, privacy, ..default }
}

/// Answers to other peers over gRPC. Without it they still have the blob protocol.
async fn answer_peers(
    exchange: ExchangeService,
    connections: ConnectionLimits,
    streams: PeerStreams,
    shutdown: CancellationToken,
) {
    if let Err(error) = exchange.serve(connections, streams, shutdown).await {
        tracing::warn!(%error, "other peers get no answers over gRPC");
    }
}

/// Opens the store of checkpoints and finds what this worker held before it was started.
async fn open_checkpoints(config: &WorkerConfig) -> Result<(Arc<Checkpoints>, Vec<Holder>), WorkerError> {
    let (dir, coordinator) = (config.data_dir.join("checkpoints"), config.ticket.coordinator.peer);
    let open = {
        let dir = dir.clone();
        move || Checkpoints::open(&dir, Some(coordinator))
    };
    let opened = tokio::task::spawn_blocking(open).await.map_err(io::Error::other).flatten();
    let (checkpoints, held) = opened.map_err(|source| WorkerError::Checkpoints { dir, source })?;
    for holder in &held {
        let attempt = holder.assignment.attempt;
        tracing::info!(%attempt, "an attempt will go on from its checkpoint");
    }
    Ok((checkpoints, held))
}

/// Finds the outputs that this worker kept before it was started.
async fn open_outputs(
    config: &WorkerConfig,
    disk: &Disk,
) -> Result<(Arc<Outputs>, Vec<outputs::Found>), WorkerError> {
    let (dir, coordinator) = (config.data_dir.join("outputs"), config.ticket.coordinator.peer);
    match Outputs::open(dir.clone(), coordinator, disk.clone()).await {
        Ok(opened) => Ok(opened),
        Err(KeepError::Store(error)) => Err(error.into()),
        Err(error) => Err(WorkerError::Outputs { dir, source: error.into() }),
    }
}

async fn start_slots(
    config: &WorkerConfig,
    count: u32,
    (outputs, checkpoints): (&Arc<Outputs>, &Arc<Checkpoints>),
    events: &mpsc::Sender<shell::Event>,
    shares: &watch::Receiver<CpuPercent>,
) -> Result<Vec<SlotHandle>, WorkerError> {
    let mut slots = Vec::new();
    let epoch = Instant::now();
    for number in 0..count {
        let executable = config.executable.clone();
        let executor = Executor::spawn(ExecutorConfig { exe: executable.clone() }).await;
        let executor = executor.map_err(|source| WorkerError::Executor { executable, source })?;
        let control = executor.control();
        let place = Place { slot: number, slots: count, epoch };
        tokio::spawn(throttle(control.clone(), shares.clone(), place));
        let slot = Slot {
            number: SlotNo::new(number),
            executor,
            outputs: outputs.clone(),
            checkpoints: checkpoints.clone(),
            coordinator: config.ticket.coordinator.peer,
            events: events.clone(),
            tamper: config.tamper,
        };
        // One batch at a time: the shell starts a slot only when it is idle.
        let (batches, waiting) = mpsc::channel(1);
        tokio::spawn(slot.run(waiting));
        slots.push(SlotHandle { batches, stop: CancellationToken::new(), control });
    }
    Ok(slots)
}
