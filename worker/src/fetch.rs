//! Getting a job ready: its blobs are fetched from whoever has them, its bundle compiled.

use std::{collections::HashMap, sync::Arc, time::Duration};

use talka_core::{
    ids::JobId,
    job::{BlobRef, Inputs, JobSpec},
    limits,
    outcome::NoResult,
    worker::Fetch,
};
use talka_peer::{
    blobs::{BlobError, BlobStore},
    swarm::{Members, Swarm},
    transfer::FetchBlobError,
};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    inputs::JobInputs,
    sandbox::{CompileError, Compiler},
    shell::Event,
    slots::ReadyJob,
    tracker::Tracker,
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
    /// Jobs that are ready or being made so, and whose blobs others may fetch from here, with the tag of those: each time
    /// another one, so that what is let go late is never what is wanted again.
    running: HashMap<JobId, (String, AbortOnDropHandle<()>)>,
    /// Times that a job was to be made ready.
    times: u64,
}

struct Shared {
    blobs: BlobStore,
    swarm: Swarm,
    tracker: Tracker,
    compiler: Compiler,
}

/// How often others are told that a job's blobs are here.
const TELL_INTERVAL: Duration = Duration::from_secs(20);

impl Fetcher {
    pub(crate) fn new(
        blobs: BlobStore,
        swarm: Swarm,
        tracker: Tracker,
        compiler: Compiler,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let shared = Arc::new(Shared { blobs, swarm, tracker, compiler });
        Self { shared, events, running: HashMap::new(), times: 0 }
    }

    /// Makes a job ready and says so.
    pub(crate) fn fetch(&mut self, fetch: Fetch, spec: Arc<JobSpec>) {
        self.times += 1;
        let tag = format!("{JOB_TAGS}{}/{}/", fetch.job, self.times);
        let (shared, events, blobs_of) = (self.shared.clone(), self.events.clone(), tag.clone());
        let work = tokio::spawn(async move {
            let ready = shared.ready(fetch, &blobs_of, spec.clone()).await.map_err(|error| {
                tracing::warn!(job = %fetch.job, %error, "a job can't be run");
                error.reason()
            });
            // An error means that the worker stops.
            drop(events.send(Event::Fetched(fetch, ready)).await);
            shared.keep_telling(fetch, &spec).await;
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
        self.shared.swarm.received()
    }
}

/// The packed inputs of a job, if it has any.
fn packed(spec: &JobSpec) -> Option<BlobRef> {
    match &spec.inputs {
        Inputs::Packed { data, .. } => Some(*data),
        Inputs::Array { .. } => None,
    }
}

impl Shared {
    async fn ready(&self, fetch: Fetch, tag: &str, spec: Arc<JobSpec>) -> Result<ReadyJob, ReadyError> {
        let data = packed(&spec);
        let mut inputs = None;
        for (number, blob) in spec.blobs().into_iter().enumerate() {
            if Some(blob) == data && !fetch.inputs {
                continue;
            }
            let failed = |reason: String| ReadyError::Fetch { blob, reason };
            // Before anything is looked for, so that it can't be collected in between.
            let tagged = self.blobs.tag(&format!("{tag}{number}"), blob.hash).await;
            tagged.map_err(|error| failed(error.to_string()))?;
            if Some(blob) == data {
                // A task waits for its own part of them, and nobody for the rest.
                let begun = JobInputs::fetch(blob, &self.blobs, &self.swarm, &self.tracker).await;
                inputs = Some(Arc::new(begun.map_err(|error| failed(error.to_string()))?));
            } else if !self.is_here(blob).await {
                let fetched = async {
                    self.swarm.fetch(blob, self.tracker.clone()).await.map_err(Arc::new)?.done().await
                };
                fetched.await.map_err(|error: Arc<FetchBlobError>| failed(error.to_string()))?;
            }
        }
        let program = if let Some(known) = self.compiler.known(spec.bundle.hash) {
            known
        } else {
            let wasm = self.read(spec.bundle, limits::MODULE_BYTES_MAX).await?;
            self.compiler.compile(spec.bundle.hash, wasm).await?
        };
        let mut datasets = Vec::with_capacity(spec.datasets.len());
        for dataset in &spec.datasets {
            let bytes = self.read(dataset.blob, limits::DATASETS_BYTES_MAX).await?;
            datasets.push((dataset.name.clone(), dataset.blob.hash, bytes));
        }
        let world = Arc::new(world::job_world(&spec, program, datasets));
        Ok(ReadyJob { spec, world, inputs })
    }

    async fn is_here(&self, blob: BlobRef) -> bool {
        matches!(self.blobs.size(blob.hash).await, Ok(Some(size)) if size == blob.size)
    }

    async fn read(&self, blob: BlobRef, max: u64) -> Result<bytes::Bytes, ReadyError> {
        let failed = |error: BlobError| ReadyError::Fetch { blob, reason: error.to_string() };
        self.blobs.read(blob.hash, max).await.map_err(failed)
    }

    /// Takes part in the exchange of a job's blobs until the job is forgotten.
    async fn keep_telling(&self, fetch: Fetch, spec: &JobSpec) {
        let data = packed(spec);
        loop {
            for blob in spec.blobs().into_iter().filter(|blob| fetch.inputs || Some(*blob) != data) {
                if let Err(error) = self.tracker.others(blob).await {
                    tracing::debug!(%error, "the coordinator was not told of a blob");
                }
            }
            tokio::time::sleep(TELL_INTERVAL.mul_f64(rand::random_range(0.75..1.25))).await;
        }
    }
}
