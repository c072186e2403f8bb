//! Getting a job ready: its blobs are fetched from whoever has them, its bundle compiled.

use std::{collections::HashMap, sync::Arc, time::Duration};

use talka_core::{
    ids::JobId,
    job::{BlobRef, Inputs, JobSpec},
    limits,
    outcome::NoResult,
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
    /// Jobs that are being made ready, and whose blobs others may fetch from here.
    running: HashMap<JobId, AbortOnDropHandle<()>>,
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
        Self { shared: Arc::new(Shared { blobs, swarm, tracker, compiler }), events, running: HashMap::new() }
    }

    /// Makes a job ready and says so.
    pub(crate) fn fetch(&mut self, job: JobId, spec: Arc<JobSpec>) {
        let (shared, events) = (self.shared.clone(), self.events.clone());
        let work = tokio::spawn(async move {
            let ready = shared.ready(job, spec.clone()).await.map_err(|error| {
                tracing::warn!(%job, %error, "a job can't be run");
                error.reason()
            });
            // An error means that the worker stops.
            drop(events.send(Event::Fetched(job, ready)).await);
            shared.keep_telling(&spec).await;
        });
        self.running.insert(job, AbortOnDropHandle::new(work));
    }

    /// A job has ended: its blobs are no longer pinned.
    pub(crate) fn forget(&mut self, job: JobId) {
        self.running.remove(&job);
        let blobs = self.shared.blobs.clone();
        tokio::spawn(async move { blobs.untag(&job_tag(job)).await });
    }

    /// Bytes fetched from the coordinator and from other peers.
    pub(crate) fn fetched(&self) -> (u64, u64) {
        self.shared.swarm.received()
    }
}

fn job_tag(job: JobId) -> String {
    format!("job/{job}/")
}

impl Shared {
    async fn ready(&self, job: JobId, spec: Arc<JobSpec>) -> Result<ReadyJob, ReadyError> {
        let data = match &spec.inputs {
            Inputs::Packed { data, .. } => Some(*data),
            Inputs::Array { .. } => None,
        };
        // Tags, so that nothing is lost over a restart in the middle of it. Of the inputs, a task waits for its own.
        let mut inputs = None;
        for (number, blob) in spec.blobs().into_iter().enumerate() {
            let tag = format!("{}{number}", job_tag(job));
            let failed = |error: BlobError| ReadyError::Fetch { blob, reason: error.to_string() };
            self.blobs.tag(&tag, blob.hash).await.map_err(failed)?;
            let failed = |error: Arc<FetchBlobError>| ReadyError::Fetch { blob, reason: error.to_string() };
            if data == Some(blob) {
                let fetched = JobInputs::fetch(blob, &self.blobs, &self.swarm, &self.tracker).await;
                inputs = Some(Arc::new(fetched.map_err(failed)?));
            } else {
                let fetch = self.swarm.fetch(blob, self.tracker.clone()).await.map_err(Arc::new);
                fetch.map_err(failed)?.done().await.map_err(failed)?;
            }
        }
        let wasm = self.read(spec.bundle, limits::MODULE_BYTES_MAX).await?;
        let program = self.compiler.compile(spec.bundle.hash, wasm).await?;
        let mut datasets = Vec::with_capacity(spec.datasets.len());
        for dataset in &spec.datasets {
            let bytes = self.read(dataset.blob, limits::DATASETS_BYTES_MAX).await?;
            datasets.push((dataset.name.clone(), dataset.blob.hash, bytes));
        }
        let world = Arc::new(world::job_world(&spec, program, datasets));
        Ok(ReadyJob { spec, world, inputs })
    }

    async fn read(&self, blob: BlobRef, max: u64) -> Result<bytes::Bytes, ReadyError> {
        let failed = |error: BlobError| ReadyError::Fetch { blob, reason: error.to_string() };
        self.blobs.read(blob.hash, max).await.map_err(failed)
    }

    /// Takes part in the exchange of a job's blobs until the job is forgotten.
    async fn keep_telling(&self, spec: &JobSpec) {
        loop {
            tokio::time::sleep(TELL_INTERVAL.mul_f64(rand::random_range(0.75..1.25))).await;
            for blob in spec.blobs() {
                if let Err(error) = self.tracker.others(blob).await {
                    tracing::debug!(%error, "the coordinator was not told of a blob");
                }
            }
        }
    }
}
