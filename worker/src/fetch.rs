//! Getting a job ready: its blobs are fetched from whoever has them, its bundle compiled.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use talka_core::{
    ids::{JobId, PeerId},
    job::{BlobRef, Inputs, JobSpec},
    limits,
    outcome::NoResult,
    worker::Fetch,
};
use talka_peer::{
    blobs::BlobStore,
    rpc::Client,
    transfer::{self, Provider},
};
use talka_proto::{
    convert::{id_bytes, peer_id},
    wire::{self, peers_client::PeersClient},
};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use crate::{
    sandbox::{CompileError, Compiler},
    shell::Event,
    slots::ReadyJob,
    world,
};

/// What the tags of all jobs' blobs begin with.
pub(crate) const JOB_TAGS: &str = "job/";

/// Why a job can't be made ready.
#[derive(Debug, thiserror::Error)]
enum ReadyError {
    /// A blob can't be had. Worth a retry with the next lease.
    #[error("blob {} can't be fetched: {reason}", blob.hash.short())]
    Fetch { blob: BlobRef, reason: String },
    /// The bundle can't be compiled here, or breaks a rule of the profile and should have been refused by
    /// the coordinator.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

impl ReadyError {
    fn reason(&self) -> NoResult {
        match self {
            Self::Fetch { .. } => NoResult::Fetch,
            Self::Compile(_) => NoResult::Compile,
        }
    }
}

/// What fetching needs, shared by all jobs.
pub(crate) struct Fetcher {
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
    /// Jobs that are ready or being made so, with the tag of their blobs: each time another one, so that
    /// what is let go late is never what is wanted again.
    running: HashMap<JobId, (String, AbortOnDropHandle<()>)>,
    /// Times that a job was to be made ready.
    times: u64,
}

struct Shared {
    blobs: BlobStore,
    transfer: transfer::Fetcher,
    client: Client,
    coordinator: Provider,
    /// Where this peer can be dialed.
    addresses: Vec<String>,
    compiler: Compiler,
    from_coordinator: AtomicU64,
    from_peers: AtomicU64,
}

impl Fetcher {
    pub(crate) fn new(
        blobs: BlobStore,
        transfer: transfer::Fetcher,
        client: Client,
        addresses: &[SocketAddr],
        compiler: Compiler,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let coordinator = Provider::from(client.address().clone());
        let shared = Shared {
            blobs,
            transfer,
            client,
            coordinator,
            addresses: addresses.iter().map(ToString::to_string).collect(),
            compiler,
            from_coordinator: AtomicU64::new(0),
            from_peers: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), events, running: HashMap::new(), times: 0 }
    }

    /// Makes a job ready and says so.
    pub(crate) fn fetch(&mut self, fetch: Fetch, spec: Arc<JobSpec>) {
        self.times += 1;
        let tag = format!("{JOB_TAGS}{}/{}/", fetch.job, self.times);
        let (shared, events, blobs_of) = (self.shared.clone(), self.events.clone(), tag.clone());
        let work = tokio::spawn(async move {
            let ready = shared.ready(fetch, &blobs_of, spec).await.map_err(|error| {
                tracing::warn!(job = %fetch.job, %error, "a job can't be run");
                error.reason()
            });
            // An error means that the worker stops.
            drop(events.send(Event::Fetched(fetch, ready)).await);
        });
        if let Some((earlier, _)) = self.running.insert(fetch.job, (tag, AbortOnDropHandle::new(work))) {
            self.untag(earlier);
        }
    }

    /// A job has ended: its blobs are no longer pinned.
    pub(crate) fn forget(&mut self, job: JobId) {
        if let Some((tag, _)) = self.running.remove(&job) {
            self.untag(tag);
        }
    }

    fn untag(&self, tag: String) {
        let blobs = self.shared.blobs.clone();
        tokio::spawn(async move { blobs.untag(&tag).await });
    }

    /// Bytes fetched from the coordinator and from other peers.
    pub(crate) fn fetched(&self) -> (u64, u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (load(&self.shared.from_coordinator), load(&self.shared.from_peers))
    }
}

impl Shared {
    async fn ready(
        self: &Arc<Self>,
        fetch: Fetch,
        tag: &str,
        spec: Arc<JobSpec>,
    ) -> Result<ReadyJob, ReadyError> {
        let data = match &spec.inputs {
            Inputs::Packed { data, .. } => Some(*data),
            Inputs::Array { .. } => None,
        };
        for (number, blob) in spec.blobs().into_iter().enumerate() {
            if Some(blob) == data && !fetch.inputs {
                continue;
            }
            let tag = format!("{tag}{number}");
            self.get(blob, &tag).await?;
        }
        let wasm = self.read(spec.bundle, limits::MODULE_BYTES_MAX).await?;
        let program = self.compiler.compile(spec.bundle.hash, wasm).await?;
        let mut datasets = Vec::with_capacity(spec.datasets.len());
        for dataset in &spec.datasets {
            let bytes = self.read(dataset.blob, limits::DATASETS_BYTES_MAX).await?;
            datasets.push((dataset.name.clone(), dataset.blob.hash, bytes));
        }
        let world = Arc::new(world::job_world(&spec, program, datasets));
        Ok(ReadyJob { spec, world, data: data.filter(|_| fetch.inputs) })
    }

    async fn read(&self, blob: BlobRef, max: u64) -> Result<bytes::Bytes, ReadyError> {
        let failed =
            |error: talka_peer::blobs::BlobError| ReadyError::Fetch { blob, reason: error.to_string() };
        self.blobs.read(blob.hash, max).await.map_err(failed)
    }

    /// Fetches one blob from whom the coordinator names, until it is here.
    async fn get(self: &Arc<Self>, blob: BlobRef, tag: &str) -> Result<(), ReadyError> {
        /// Sources that are tried before the job is given up for now.
        const TRIES_MAX: usize = 8;
        let failed = |reason: String| ReadyError::Fetch { blob, reason };
        // In this order, so that it can't be collected in between.
        if self.blobs.tag(tag, blob.hash).await.is_ok()
            && matches!(self.blobs.size(blob.hash).await, Ok(Some(size)) if size == blob.size)
        {
            // Others may want it from here, but this job need not wait until they know.
            let this = self.clone();
            tokio::spawn(async move { this.announce(blob, true).await });
            return Ok(());
        }
        let mut last = "no source was named".to_owned();
        for _ in 0..TRIES_MAX {
            let provider = match self.provider(blob).await {
                Ok(provider) => provider,
                Err(status) => return Err(failed(status.message().to_owned())),
            };
            let fetched = self.transfer.fetch(&provider, blob, tag, |_| ()).await;
            self.announce(blob, fetched.is_ok()).await;
            match fetched {
                Ok(bytes) => {
                    let from_coordinator = provider.peer() == self.coordinator.peer();
                    let counter = if from_coordinator { &self.from_coordinator } else { &self.from_peers };
                    counter.fetch_add(bytes, Ordering::Relaxed);
                    return Ok(());
                }
                Err(error) => {
                    tracing::info!(peer = %provider.peer(), %error, "a source failed");
                    last = error.to_string();
                }
            }
        }
        Err(failed(last))
    }

    /// Asks the coordinator for a source, waiting while all of them are busy.
    async fn provider(&self, blob: BlobRef) -> Result<Provider, Status> {
        let mut peers = PeersClient::new(self.client.channel());
        loop {
            let request = wire::ProvidersRequest { hash: id_bytes(blob.hash.as_bytes()) };
            let reply = peers.providers(request).await?.into_inner();
            let Some(named) = reply.providers.into_iter().next() else {
                tokio::time::sleep(Duration::from_millis(reply.retry_millis.clamp(1, 5000).into())).await;
                continue;
            };
            let peer: PeerId = peer_id(&named.peer)?;
            if peer == self.coordinator.peer() {
                return Ok(self.coordinator.clone());
            }
            let addresses = named.addresses.iter().filter_map(|text| text.parse().ok());
            return Ok(Provider::dial(peer, addresses.collect()));
        }
    }

    async fn announce(&self, blob: BlobRef, have: bool) {
        let request = wire::AnnounceRequest {
            hash: id_bytes(blob.hash.as_bytes()),
            have,
            addresses: self.addresses.clone(),
            failed: !have,
        };
        let mut peers = PeersClient::new(self.client.channel());
        if let Err(status) = peers.announce(request).await {
            tracing::debug!(error = status.message(), "an announcement did not get through");
        }
    }
}
