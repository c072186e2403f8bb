//! What the tests are made of: peers, a server, and waiting for a condition.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use talka_peer::{
    Router,
    address::PeerAddr,
    blobs::{self, AdmitAll, BlobServer, BlobStore, ReverseProviders},
    connections::ConnectionLimits,
    endpoint::{EndpointConfig, PeerEndpoint},
    identity::Identity,
    rpc::{self, Access, AccessTable, Caller, PeerHandler, Role, Roles, Server, server::standard_services},
    transfer::{IrohBlobs, Patience},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic_health::{ServingStatus, server::HealthReporter};

/// Longer than anything here takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// Polls until `found` gives something.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut found: impl FnMut() -> F,
) -> T {
    let start = tokio::time::Instant::now();
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "waited too long for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn endpoint() -> PeerEndpoint {
    let config = EndpointConfig::new(Identity::ephemeral()).on_loopback();
    PeerEndpoint::bind(config).await.expect("a free port")
}

/// Remembers who called, and takes everybody for a peer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Callers(pub(crate) Arc<Mutex<Vec<Caller>>>);

impl Roles for Callers {
    fn role(&self, caller: &Caller, _token: Option<&[u8]>) -> Role {
        self.0.lock().expect("no panic").push(*caller);
        Role::Peer
    }
}

impl Callers {
    pub(crate) fn last(&self) -> Option<Caller> {
        self.0.lock().expect("no panic").last().copied()
    }
}

/// A server of the health service.
pub(crate) struct Health {
    pub(crate) server: Server,
    pub(crate) callers: Callers,
    pub(crate) connections: ConnectionLimits,
    pub(crate) reporter: HealthReporter,
}

pub(crate) async fn health(rows: &[(&'static str, Access)]) -> Health {
    let (services, reporter) = standard_services(&[]).expect("described");
    reporter.set_service_status("talka", ServingStatus::Serving).await;
    let (callers, connections) = (Callers::default(), ConnectionLimits::default());
    let table = AccessTable::new(rows);
    let server = Server::new(services.routes(), table, Arc::new(callers.clone()), connections.clone());
    Health { server, callers, connections, reporter }
}

/// A peer that serves gRPC until it is dropped.
pub(crate) struct Served {
    pub(crate) address: PeerAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: AbortOnDropHandle<()>,
    pub(crate) router: Router,
}

impl Health {
    pub(crate) fn serve(&self, endpoint: &PeerEndpoint) -> Served {
        let (handler, incoming) = PeerHandler::new(self.connections.clone());
        let address = endpoint.address();
        let router = endpoint.router(&self.connections).accept(rpc::ALPN, handler).spawn();
        let shutdown = CancellationToken::new();
        let (server, stop) = (self.server.clone(), shutdown.clone());
        let serving =
            tokio::spawn(async move { server.serve_peers(incoming, stop).await.expect("it serves") });
        Served { address, shutdown, serving: AbortOnDropHandle::new(serving), router }
    }
}

/// A peer with a store that others may fetch from.
pub(crate) struct Node {
    pub(crate) endpoint: PeerEndpoint,
    pub(crate) store: BlobStore,
    pub(crate) reverse: ReverseProviders,
    pub(crate) transport: IrohBlobs,
    pub(crate) server: BlobServer,
    _router: Router,
}

impl Node {
    pub(crate) async fn new() -> Self {
        Self::with(BlobStore::in_memory(), AdmitAll).await
    }

    pub(crate) async fn with(store: BlobStore, admit: impl blobs::Admit) -> Self {
        Self::at_rate(store, admit, None).await
    }

    pub(crate) async fn at_rate(store: BlobStore, admit: impl blobs::Admit, upload: Option<u64>) -> Self {
        let endpoint = endpoint().await;
        let connections = ConnectionLimits::default();
        let upload = upload.and_then(std::num::NonZeroU64::new);
        let server = BlobServer::new(&store, admit, upload, connections.clone());
        let reverse = ReverseProviders::new(connections.clone());
        let router = endpoint
            .router(&connections)
            .accept(blobs::ALPN, server.clone())
            .accept(blobs::REVERSE_ALPN, reverse.clone())
            .spawn();
        let transport = IrohBlobs::new(endpoint.clone(), store.clone(), Some(reverse.clone()));
        Self { endpoint, store, reverse, transport, server, _router: router }
    }

    pub(crate) fn with_patience(mut self, stall: Duration, rate_min: u64) -> Self {
        self.transport = self.transport.with_patience(Patience { stall, rate_min });
        self
    }
}

/// Bytes without pattern.
pub(crate) fn noise(len: u64) -> bytes::Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ len;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let len = usize::try_from(len).expect("it fits memory");
    let mut bytes: Vec<u8> = std::iter::repeat_with(next).take(len.div_ceil(8)).flatten().collect();
    bytes.truncate(len);
    bytes.into()
}
