//! Starting, serving and stopping.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use talka_core::{
    coordinator::{Config, Coordinator, Effects, FetchOutput, Snapshot},
    ids::JobId,
    job::{Inputs, JobState},
    limits,
    trust::AuditKey,
};
#[cfg(feature = "dht")]
use talka_peer::dht::Publication;
use talka_peer::{
    Cause, Router,
    blobs::{self, AdmitAll, BlobError, BlobServer, BlobStore, REVERSE_ALPN, ReverseProviders, Serving},
    connections::ConnectionLimits,
    endpoint::{BindError, EndpointConfig, PeerEndpoint},
    files::{Existing, write_durably},
    identity::{Identity, IdentityError},
    lan::Announcement,
    rpc::{self, AccessTable, PeerHandler, Server, server},
    swarm::ExchangeService,
    ticket::{InviteToken, Ticket},
    transfer::Fetcher,
};
use talka_proto::wire::{
    grid_server::GridServer, jobs_server::JobsServer, ledger_server::LedgerServer, peers_server::PeersServer,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    CoordinatorConfig, Ready,
    access::{ACCESS, TokenRoles, operator_token},
    clock,
    inputs::{InputIndices, JobInputs},
    outputs,
    reactor::Reactor,
    services::{
        Context, grid::GridService, jobs::JobsService, ledger::LedgerService, names::PeerNames,
        peers::PeersService,
    },
    store::{
        Store, StoreError,
        sqlite::{FILE as STORE_FILE, SqliteStore},
    },
    submission::Submissions,
    writer::Writer,
};

/// Name of the file with the invite token.
pub(crate) const TOKEN_FILE: &str = "token";
/// Name of the file with the ticket, for commands on the same machine.
pub(crate) const TICKET_FILE: &str = "ticket";

/// Name of the directory with the blob store.
pub(crate) const BLOBS_DIR: &str = "blobs";

/// The coordinator can't start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// A file of the data directory can't be used.
    #[error("can't use {path}")]
    File {
        /// Which.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The invite token is not one.
    #[error("the file {path} is damaged: expected 16 bytes; restore it, or remove it to make a new token")]
    Token {
        /// Where it is.
        path: String,
    },
    /// The key can't be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The peers' side can't listen.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The tools' side can't listen. Choose another address.
    #[error("can't listen on {address} (--http)")]
    Http {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Tools would send their token in the clear.
    #[error(
        "--http {address} is not loopback: it needs --tls-cert and --tls-key, or tokens could be read on the way"
    )]
    HttpNeedsTls {
        /// Where.
        address: SocketAddr,
    },
    /// The store can't be used, or a commit failed.
    #[error("can't use the store {}", file.display())]
    Store {
        /// Where it is.
        file: PathBuf,
        /// Why not.
        source: StoreError,
    },
    /// The blob store can't be used.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// Serving failed.
    #[error("the server failed")]
    Serve(#[from] server::ServeError),
    /// Something that a restart is needed for.
    #[error("{what} failed")]
    Task {
        /// What.
        what: &'static str,
        /// Why.
        source: Cause,
    },
}

/// Runs a coordinator until `shutdown`; `on_ready` is called once it serves.
pub async fn run(
    config: CoordinatorConfig,
    shutdown: CancellationToken,
    on_ready: impl FnOnce(Ready),
) -> Result<(), CoordinatorError> {
    let dir = config.data_dir.as_path();
    let store_failed = |source| CoordinatorError::Store { file: dir.join(STORE_FILE), source };
    if let Some(address) = config.http.filter(|http| !http.ip().is_loopback() && config.tls.is_none()) {
        return Err(CoordinatorError::HttpNeedsTls { address });
    }
    fs::create_dir_all(dir).map_err(|source| file_error(dir, source))?;
    let identity = Identity::load_or_create(dir)?;
    // The same after each restart, and known to nobody else.
    let audit_key = AuditKey::new(identity.derived_key("talka-1 audits"));
    // Takes the lock, so that a second coordinator on this directory disturbs nothing.
    let mut store: Box<dyn Store> =
        Box::new(SqliteStore::open(dir, identity.peer_id()).map_err(store_failed)?);
    let token = load_or_create_token(dir)?;
    let mut listen = EndpointConfig { relay: config.relay.clone(), ..EndpointConfig::new(identity.clone()) };
    if let Some(bind) = config.bind {
        listen.listen = bind;
    }
    let endpoint = PeerEndpoint::bind_same_port(listen, dir).await?;
    let blobs = BlobStore::open(&dir.join(BLOBS_DIR)).await?;
    let ticket = Ticket { coordinator: endpoint.address(), invite: Some(token) };
    write_durably(&dir.join(TICKET_FILE), ticket.to_string().as_bytes(), Existing::Replace)
        .map_err(|source| file_error(&dir.join(TICKET_FILE), source))?;

    let connections = ConnectionLimits::default();
    let reverse = ReverseProviders::new(connections.clone());
    let fetcher = Fetcher::new(endpoint.clone(), blobs.clone(), Some(reverse.clone()));
    let submissions = Submissions::new(blobs.clone(), fetcher, endpoint.address().relay.is_some());
    let snapshot = store.load().map_err(store_failed)?;
    let (restored, fx, indices) = restore(&config, audit_key, snapshot, &submissions).await?;
    let reader = store.reader();
    let writer = Writer::start(store).map_err(|source| task("the store thread", source))?;
    let (to_fetch, wanted) = mpsc::channel::<FetchOutput>(limits::OUTPUT_FETCHES_MAX);
    let me = endpoint.peer_id();
    let running = restored.jobs(None, usize::MAX).into_iter().filter(|job| job.state == JobState::Running);
    let running = running.map(|job| job.submission).collect();
    let (reactor, handle) = Reactor::new(restored, fx, writer, indices.clone(), to_fetch);

    let stopping = CancellationToken::new();
    let tasks = TaskTracker::new();
    #[cfg(feature = "dht")]
    let own_identity = identity.clone();
    let context = Context {
        identity,
        reactor: handle.clone(),
        reader,
        inputs: indices,
        submissions: submissions.clone(),
        names: PeerNames::default(),
    };
    let roles = TokenRoles { token, operator: operator_token(&context.identity) };
    let serving = Serving { upload: config.upload_per_second, is_source: true };
    let for_blobs = BlobServer::with(&blobs, AdmitAll, serving, connections.clone());
    let exchange = ExchangeService::of_source(blobs.clone(), for_blobs.clone());
    let server = server_of(context, exchange, roles, connections.clone())?;
    let (peers, streams) = PeerHandler::new(connections.clone());
    let router: Router = endpoint
        .router(&connections)
        .accept(rpc::ALPN, peers)
        .accept(blobs::ALPN, for_blobs)
        .accept(REVERSE_ALPN, reverse)
        .spawn();
    let http = match config.http {
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            Some(listener.map_err(|source| CoordinatorError::Http { address, source })?)
        }
        None => None,
    };
    let http_address = http.as_ref().and_then(|listener| listener.local_addr().ok());

    let reactor = tokio::spawn(reactor.run(stopping.clone()));
    tasks.spawn(outputs::run(wanted, submissions.clone(), handle));
    tasks.spawn(submissions.keep_again(running));
    let (for_peers, stop) = (server.clone(), stopping.clone());
    let serving = tokio::spawn(async move { for_peers.serve_peers(streams, stop).await });
    if let Some(listener) = http {
        let (tls, stop) = (config.tls.clone(), stopping.clone());
        tasks.spawn(async move {
            if let Err(error) = server.serve_tcp(listener, tls, stop).await {
                tracing::error!(%error, "the side for tools ended");
            }
        });
    }
    #[cfg(feature = "dht")]
    let _publication = match &config.dht {
        Some(nodes) => {
            let published = Publication::start(endpoint.clone(), own_identity, nodes);
            Some(published.map_err(|error| task("publishing in the DHT", error))?)
        }
        None => None,
    };
    let _announcement = config.lan.then(|| announce(&endpoint));
    if !endpoint.reaches_relay(limits::RELAY_START_MAX).await {
        tracing::warn!("the relay does not answer; peers that need it can't connect until it does");
    }
    tracing::info!(peer = %me, "coordinator ready");
    on_ready(Ready {
        worker_ticket: Ticket { invite: None, ..ticket.clone() },
        ticket,
        peer: me,
        http: http_address,
    });

    // Whatever ends first ends everything.
    let mut reactor = reactor;
    let ended = tokio::select! {
        () = shutdown.cancelled() => None,
        ended = &mut reactor => Some(ended),
    };
    stopping.cancel();
    let ended = match ended {
        Some(ended) => ended,
        None => reactor.await,
    };
    serving.abort();
    // The order: stop accepting, drain what has to be acknowledged (the reactor did), close.
    drop(router.shutdown().await);
    endpoint.close().await;
    tasks.close();
    blobs.shutdown().await;
    ended.map_err(|error| task("the reactor", error))?.map_err(store_failed)
}

fn server_of(
    context: Context,
    exchange: ExchangeService,
    roles: TokenRoles,
    connections: ConnectionLimits,
) -> Result<Server, CoordinatorError> {
    let (mut services, _health) = server::standard_services(&[talka_proto::DESCRIPTORS])?;
    services
        .add_service(exchange.into_server())
        .add_service(GridServer::new(GridService(context.clone())))
        .add_service(JobsServer::new(JobsService(context.clone())))
        .add_service(LedgerServer::new(LedgerService(context.clone())))
        .add_service(PeersServer::new(PeersService(context)));
    Ok(Server::new(services.routes(), AccessTable::new(ACCESS), Arc::new(roles), connections))
}

/// Lets volunteers on the local network find the coordinator.
fn announce(endpoint: &PeerEndpoint) -> Announcement {
    let announcement = Announcement::start(endpoint.clone());
    let networks: Vec<String> = announcement.interfaces().iter().map(ToString::to_string).collect();
    if networks.is_empty() {
        tracing::warn!(
            "this machine has no private address: nobody finds the coordinator on a local network"
        );
    } else {
        tracing::info!(
            addresses = networks.join(", "),
            "volunteers find this coordinator on the local network"
        );
    }
    announcement
}

/// Loads the state, and the input indices of the jobs that still run.
async fn restore(
    config: &CoordinatorConfig,
    audit_key: AuditKey,
    snapshot: Snapshot,
    submissions: &Submissions,
) -> Result<(Coordinator, Effects, InputIndices), CoordinatorError> {
    let mut fx = Effects::default();
    let CoordinatorConfig { reconnect_grace, admit, apart, .. } = *config;
    let settings = Config { reconnect_grace, audit_key, admit, apart, ..Config::default() };
    let coordinator = Coordinator::restore(settings, clock::now(), snapshot, &mut fx);
    let indices = InputIndices::default();
    for job in coordinator.jobs(None, usize::MAX) {
        let Inputs::Packed { index, data, .. } = &job.submission.spec.inputs else { continue };
        match submissions.index(*index).await {
            Ok(index) => indices.insert(job.job, JobInputs { index: Arc::new(index), data: data.hash }),
            Err(status) if job.state == JobState::Running => {
                return Err(missing_inputs(job.job, status.message()));
            }
            // Names of inputs of a job that has ended are all that is lost.
            Err(status) => tracing::warn!(job = %job.job, error = status.message(), "no input index"),
        }
    }
    Ok((coordinator, fx, indices))
}

fn missing_inputs(job: JobId, reason: &str) -> CoordinatorError {
    let text = format!("job {job} runs, but the index of its inputs is not in the blob store: {reason}");
    task("restoring the jobs", text)
}

fn task(what: &'static str, source: impl Into<Cause>) -> CoordinatorError {
    CoordinatorError::Task { what, source: source.into() }
}

fn file_error(path: &Path, source: io::Error) -> CoordinatorError {
    CoordinatorError::File { path: path.display().to_string(), source }
}

/// The secret that makes a submitter, made at first start.
fn load_or_create_token(dir: &Path) -> Result<InviteToken, CoordinatorError> {
    let path = dir.join(TOKEN_FILE);
    match fs::read(&path) {
        Ok(bytes) => {
            let bytes: Result<[u8; 16], _> = bytes.try_into();
            bytes.map(InviteToken).map_err(|_| CoordinatorError::Token { path: path.display().to_string() })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = InviteToken(rand::random());
            write_durably(&path, &token.0, Existing::Keep).map_err(|source| file_error(&path, source))?;
            Ok(token)
        }
        Err(source) => Err(file_error(&path, source)),
    }
}
