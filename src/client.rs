//! This command's own peer and its connection to one coordinator.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use anyhow::Context;
use bytes::Bytes;
use talka_core::{ids::PeerId, job::BlobRef, limits, quantities};
use talka_peer::{
    address::PeerAddr,
    blobs::BlobStore,
    endpoint::{EndpointConfig, PeerEndpoint, Relay},
    identity::Identity,
    rpc::{self, AuthorizedChannel},
    ticket::Ticket,
    transfer::{Fetcher, fetch_blob},
};
use talka_proto::wire::{
    self, jobs_client::JobsClient, ledger_client::LedgerClient, peers_client::PeersClient,
};
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};

use crate::{
    cli::CoordinatorFlags,
    error::{Code, Failure},
    find::{self, Found},
    holders::{self, Holders, Spared},
    operator, paths,
    problems::Problems,
};

/// An encoded output: what a task may write, and names, log and framing.
const ENCODED_OUTPUT_BYTES_MAX: u64 = limits::TASK_OUTPUT_BYTES_MAX + (4 << 20);
/// Fetched bytes after which a new store takes over: one in memory never shrinks.
const STORE_BYTES_MAX: u64 = 64 << 20;

/// How long a goodbye may take: a few round trips to the far side of the world.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// A connection to a coordinator, under this user's own key.
#[derive(Debug)]
pub(crate) struct Client {
    identity: Identity,
    endpoint: PeerEndpoint,
    rpc: rpc::Client,
    outputs: Mutex<Arc<Outputs>>,
    /// Workers that did not deliver outputs.
    spared: Spared,
    /// Whether the user was told that the connection is lost.
    lost: AtomicBool,
}

/// The relay that a flag names; without it, that of the ticket.
fn relay_of(flag: Option<&str>, ticket: &Ticket) -> Result<Relay, Failure> {
    let mut problems = Problems::default();
    let relay = problems.parsed("--relay", flag, ticket.coordinator.relay.clone().into());
    problems.into_result(relay)
}

/// Where fetched outputs go.
#[derive(Debug)]
struct Outputs {
    fetcher: Fetcher,
    blobs: BlobStore,
    bytes: Mutex<u64>,
}

impl Client {
    /// Finds the coordinator that `flags` mean. The connection is made with the first request.
    pub(crate) async fn connect(flags: &CoordinatorFlags) -> anyhow::Result<Self> {
        Self::with_ticket(flags, &parse_ticket(&find::coordinator(flags)?)?).await
    }

    /// The same as the coordinator's owner.
    pub(crate) async fn connect_as_owner(flags: &CoordinatorFlags) -> anyhow::Result<Self> {
        Self::with_ticket(flags, &operator::require(flags)?).await
    }

    /// The same as the coordinator's owner if this user is, and as anybody else if not.
    pub(crate) async fn connect_as_owner_or_not(flags: &CoordinatorFlags) -> anyhow::Result<Self> {
        match operator::owners_ticket(flags) {
            Ok(Some(ticket)) => Self::with_ticket(flags, &ticket).await,
            _ => Self::connect(flags).await,
        }
    }

    async fn with_ticket(flags: &CoordinatorFlags, ticket: &Ticket) -> anyhow::Result<Self> {
        let key_dir = paths::submitter_dir(flags.data_dir.as_deref())?;
        paths::create_private(&key_dir)
            .with_context(|| format!("cannot create {} for this user's key", key_dir.display()))?;
        let identity = Identity::load_or_create(&key_dir)?;
        let relay = relay_of(flags.relay.as_deref(), ticket)?;
        let endpoint = PeerEndpoint::bind(EndpointConfig { relay, ..EndpointConfig::new(identity.clone()) });
        let endpoint = endpoint.await?;
        let rpc = rpc::Client::new(endpoint.clone(), ticket);
        let outputs = Mutex::new(Arc::new(Outputs::new(&endpoint)));
        let (spared, lost) = (Spared::default(), AtomicBool::new(false));
        Ok(Self { identity, endpoint, rpc, outputs, spared, lost })
    }

    /// Asks the coordinator whether this key may submit, before anything large is prepared.
    pub(crate) async fn check(&self) -> Result<(), Failure> {
        match unary(self.jobs().get(wire::JobRequest { job: 0 })).await {
            Err(failure) if failure.code() == Code::NotFound => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Notes whether the connection is lost; returns what was noted before.
    pub(crate) fn note_lost(&self, lost: bool) -> bool {
        self.lost.swap(lost, Ordering::Relaxed)
    }

    /// Whom this is connected to.
    pub(crate) fn coordinator(&self) -> PeerId {
        self.rpc.peer()
    }

    /// This user's own key.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where the coordinator is.
    pub(crate) fn address(&self) -> &PeerAddr {
        self.rpc.address()
    }

    /// This command's own peer.
    pub(crate) fn endpoint(&self) -> &PeerEndpoint {
        &self.endpoint
    }

    /// The service for jobs.
    pub(crate) fn jobs(&self) -> JobsClient<AuthorizedChannel> {
        JobsClient::new(self.rpc.channel())
    }

    /// The service for credit.
    pub(crate) fn ledger(&self) -> LedgerClient<AuthorizedChannel> {
        LedgerClient::new(self.rpc.channel())
    }

    /// The service that knows the workers.
    pub(crate) fn peers(&self) -> PeersClient<AuthorizedChannel> {
        PeersClient::new(self.rpc.channel())
    }

    /// Fetches an encoded output into memory, from one of `holders` or the coordinator. `None` if it is nowhere any more.
    pub(crate) async fn fetch(
        &self,
        blob: BlobRef,
        holders: &[wire::Provider],
    ) -> anyhow::Result<Option<Bytes>> {
        if blob.size.get() > ENCODED_OUTPUT_BYTES_MAX {
            let max = quantities::Bytes::new(ENCODED_OUTPUT_BYTES_MAX);
            let message = format!("an output of {} is above the limit of {max}", blob.size);
            return Err(Failure::new(Code::Limit, message).into());
        }
        let outputs = self.outputs(blob.size.get());
        let turn = usize::from(blob.hash.as_bytes()[0]);
        let providers = Holders::new(holders, self.address(), turn, &self.spared);
        let (transport, never) = (outputs.fetcher.transport(), CancellationToken::new());
        match fetch_blob(transport, &outputs.blobs, blob, providers, &never).await {
            Ok(_held) => Ok(Some(outputs.blobs.read(blob.hash, ENCODED_OUTPUT_BYTES_MAX).await?)),
            Err(error) if holders::is_lost(&error, self.coordinator()) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A store with room for `bytes` more.
    fn outputs(&self, bytes: u64) -> Arc<Outputs> {
        let mut outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        if !outputs.has_room(bytes) {
            // The old one goes with the last fetch into it.
            *outputs = Arc::new(Outputs::new(&self.endpoint));
            outputs.has_room(bytes);
        }
        outputs.clone()
    }

    /// Says goodbye, so that the coordinator need not wait for silence.
    pub(crate) async fn close(self) {
        // Whoever is not there can't be told, and the user need not wait for that.
        drop(tokio::time::timeout(GOODBYE_MAX, self.endpoint.close()).await);
    }
}

impl Outputs {
    fn new(endpoint: &PeerEndpoint) -> Self {
        let blobs = BlobStore::in_memory();
        let fetcher = Fetcher::new(endpoint.clone(), blobs.clone(), None);
        Self { fetcher, blobs, bytes: Mutex::new(0) }
    }

    /// Takes note of `more` bytes, if the store is not too full for them. An empty one takes anything.
    fn has_room(&self, more: u64) -> bool {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = *bytes == 0 || bytes.saturating_add(more) <= STORE_BYTES_MAX;
        if fits {
            *bytes = bytes.saturating_add(more.max(1));
        }
        fits
    }
}

/// A ticket, or an error that says where the text came from.
pub(crate) fn parse_ticket(found: &Found) -> Result<Ticket, Failure> {
    found.ticket.parse().map_err(|error| {
        let remedy = "copy it whole, from: talka coordinator ticket";
        Failure::new(
            Code::Usage,
            format!("the ticket from {} is not usable: {error}; {remedy}", found.source),
        )
    })
}

/// One answer, within the time that any request may take.
pub(crate) async fn unary<T>(
    request: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    let answer = tokio::time::timeout(limits::REQUEST_TIMEOUT, request).await;
    let late = |_| {
        let secs = limits::REQUEST_TIMEOUT.as_secs();
        Status::deadline_exceeded(format!("no answer within {secs} s"))
    };
    Ok(answer.map_err(late)??.into_inner())
}

/// Milliseconds since the Unix epoch, for "how long ago".
pub(crate) fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
