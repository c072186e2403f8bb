//! Getting a job ready: its blobs are fetched from whoever has them, its bundle compiled.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use talka_core::{
    coordinator::Fetched,
    ids::{JobId, PeerId},
    job::{BlobRef, Inputs, JobSpec},
    limits,
    outcome::NoResult,
    quantities::{Bytes, Timestamp},
    swarm::{NoRoom, Waiting},
    worker::Fetch,
};
use talka_peer::{
    blobs::BlobError,
    swarm::{Members, Swarm},
    transfer::FetchBlobError,
};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    disk::{Disk, JOB_TAGS, PinError, Pinned, problem},
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
    /// The disk does not take what was fetched, or does not give it back.
    #[error("blob {} can't be kept: {reason}", blob.hash.short())]
    Disk { blob: BlobRef, reason: String },
    /// What the owner lets this worker use of the disk is too little.
    #[error("no room for its data: {0}")]
    NoRoom(NoRoom),
    /// The bundle can't be compiled here, or breaks a rule of the profile and should have been refused by
    /// the coordinator.
    #[error(transparent)]
    Compile(#[from] CompileError),
}

/// What to do about a job that can't be made ready.
#[derive(Debug)]
pub(crate) enum Unready {
    /// Its attempts end without a result.
    NoResult(NoResult),
    /// There is no room for these, which it needs: it is none for this worker now.
    NoRoom(Vec<BlobRef>),
    /// Nothing is, as long as the disk is as it is.
    DiskFailed(String),
}

impl Unready {
    fn new(error: &ReadyError, wanted: impl FnOnce() -> Vec<BlobRef>) -> Self {
        match error {
            ReadyError::Fetch { .. } => Self::NoResult(NoResult::Fetch),
            ReadyError::Compile(_) => Self::NoResult(NoResult::Compile),
            ReadyError::NoRoom(_) => Self::NoRoom(wanted()),
            ReadyError::Disk { .. } => Self::DiskFailed(error.to_string()),
        }
    }
}

impl ReadyError {
    fn of_fetch(blob: BlobRef, error: &FetchBlobError) -> Self {
        let reason = problem(error);
        match error {
            FetchBlobError::Local(_) => Self::Disk { blob, reason },
            _ => Self::Fetch { blob, reason },
        }
    }

    fn of_store(blob: BlobRef, error: &BlobError) -> Self {
        let reason = problem(error);
        match error {
            BlobError::Add(_) | BlobError::Sync(_) | BlobError::Gone(_) => Self::Disk { blob, reason },
            _ => Self::Fetch { blob, reason },
        }
    }

    fn of_pin(blob: BlobRef, error: PinError) -> Self {
        match error {
            PinError::NoRoom(error) => Self::NoRoom(error),
            PinError::Store(error) => Self::of_store(blob, &error),
        }
    }
}

/// What fetching needs, shared by all jobs.
pub(crate) struct Fetcher {
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
    /// Jobs that are ready or being made so, and whose blobs others may fetch from here. What runs holds their pins, each
    /// time under another tag, so that what is let go late is never what is wanted again.
    running: HashMap<JobId, AbortOnDropHandle<()>>,
    /// Times that a job was to be made ready.
    times: u64,
}

struct Shared {
    disk: Disk,
    swarm: Swarm,
    tracker: Tracker,
    compiler: Compiler,
}

/// How often it is looked how much of a job's blobs has come.
const COUNT_INTERVAL: Duration = Duration::from_millis(500);
/// How often others are told that a job's blobs are here.
const TELL_INTERVAL: Duration = Duration::from_secs(20);
/// When they are told first, unless a fetch has: nobody gets anything from a job that is over sooner, and to tell would
/// take the processors away from it.
const TELL_AFTER: Duration = Duration::from_millis(250);

impl Fetcher {
    pub(crate) fn new(
        disk: Disk,
        swarm: Swarm,
        tracker: Tracker,
        compiler: Compiler,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let shared = Arc::new(Shared { disk, swarm, tracker, compiler });
        Self { shared, events, running: HashMap::new(), times: 0 }
    }

    /// Makes a job ready and says so.
    pub(crate) fn fetch(&mut self, fetch: Fetch, spec: Arc<JobSpec>) {
        self.times += 1;
        let tag = format!("{JOB_TAGS}{}/{}/", fetch.job, self.times);
        let (shared, events) = (self.shared.clone(), self.events.clone());
        let work = tokio::spawn(async move {
            let (mut pinned, mut counted) = (None, Fetched::default());
            let ready = shared.ready(fetch, &tag, &spec, &mut pinned, &mut counted).await.map_err(|error| {
                tracing::warn!(job = %fetch.job, %error, "a job can't be run");
                Unready::new(&error, || wanted(fetch, &spec))
            });
            let inputs = ready.as_ref().ok().and_then(|ready| ready.inputs.clone());
            // An error means that the worker stops.
            drop(events.send(Event::Fetched(fetch, ready)).await);
            tokio::join!(
                shared.keep_telling(fetch, &spec),
                shared.keep_counting(fetch.job, inputs, &counted, &events)
            );
            drop(pinned);
        });
        self.running.insert(fetch.job, AbortOnDropHandle::new(work));
    }

    /// A job has ended: its blobs are no longer pinned.
    pub(crate) fn forget(&mut self, job: JobId) {
        self.running.remove(&job);
    }

    /// What blobs take of the disk, and what they may take.
    pub(crate) fn disk_usage(&self) -> (Bytes, Bytes) {
        self.shared.disk.usage()
    }

    /// Of jobs that wait for room those for which there is some.
    pub(crate) fn fitting(&self, waiting: &mut Waiting, now: Timestamp) -> Vec<JobId> {
        self.shared.disk.with_room(|room| waiting.fitting(now, room))
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

/// The blobs that a job needs here.
fn wanted(fetch: Fetch, spec: &JobSpec) -> Vec<BlobRef> {
    let data = packed(spec);
    spec.blobs().into_iter().filter(|blob| fetch.inputs || Some(*blob) != data).collect()
}

impl Shared {
    /// Makes a job ready. Its blobs are pinned before anything is looked for, so that they can't be collected in between
    /// and there is room for them, and stay so as long as `pinned` lives.
    async fn ready(
        &self,
        fetch: Fetch,
        tag: &str,
        spec: &Arc<JobSpec>,
        pinned: &mut Option<Pinned>,
        counted: &mut Fetched,
    ) -> Result<ReadyJob, ReadyError> {
        let (data, wanted) = (packed(spec), wanted(fetch, spec));
        let pin = self.disk.pin_for_job(tag, &wanted).await;
        *pinned = Some(pin.map_err(|error| ReadyError::of_pin(spec.bundle, error))?);
        let mut inputs = None;
        let known = self.compiler.known(spec.bundle.hash);
        for blob in wanted {
            if Some(blob) == data {
                // A task waits for its own part of them, and nobody for the rest.
                let begun = JobInputs::fetch(blob, self.disk.blobs(), &self.swarm, &self.tracker).await;
                inputs = Some(Arc::new(begun.map_err(|error| ReadyError::of_fetch(blob, &error))?));
            } else if known.is_none() || blob.hash != spec.bundle.hash {
                self.fetch(blob, counted).await?;
            }
        }
        let program = if let Some(known) = known {
            known
        } else {
            let wasm = self.read(spec.bundle, limits::MODULE_BYTES_MAX, counted).await?;
            self.compiler.compile(spec.bundle.hash, wasm).await?
        };
        let mut datasets = Vec::with_capacity(spec.datasets.len());
        for dataset in &spec.datasets {
            let bytes = self.read(dataset.blob, limits::DATASETS_BYTES_MAX, counted).await?;
            datasets.push((dataset.name.clone(), dataset.blob.hash, bytes));
        }
        let world = Arc::new(world::job_world(spec, program, datasets));
        Ok(ReadyJob { spec: spec.clone(), world, inputs })
    }

    /// Fetches what the job can do without, and others may want from here: the module of a program that was compiled for an
    /// earlier job.
    async fn complete(&self, spec: &JobSpec) {
        if let Err(error) = self.fetch(spec.bundle, &mut Fetched::default()).await {
            tracing::debug!(%error, "a module that was compiled before can't be had any more");
        }
    }

    async fn fetch(&self, blob: BlobRef, counted: &mut Fetched) -> Result<(), ReadyError> {
        if matches!(self.disk.blobs().size(blob.hash).await, Ok(Some(size)) if size == blob.size) {
            return Ok(());
        }
        let fetched = async {
            let fetch = self.swarm.fetch(blob, self.tracker.clone()).await.map_err(Arc::new)?;
            fetch.done().await?;
            *counted = self.and(*counted, fetch.bytes_by_provider());
            Ok(())
        };
        fetched.await.map_err(|error: Arc<FetchBlobError>| ReadyError::of_fetch(blob, &error))
    }

    /// What was counted, and what came now.
    fn and(&self, counted: Fetched, came: BTreeMap<PeerId, u64>) -> Fetched {
        let source = self.tracker.source().map(|source| source.peer());
        came.into_iter().fold(counted, |sum, (peer, bytes)| {
            let more = |sum: Bytes| Bytes::new(sum.get().saturating_add(bytes));
            if source == Some(peer) {
                Fetched { from_coordinator: more(sum.from_coordinator), ..sum }
            } else {
                Fetched { from_peers: more(sum.from_peers), ..sum }
            }
        })
    }

    /// Says what came of a job's blobs, and from whom, as long as that changes.
    async fn keep_counting(
        &self,
        job: JobId,
        inputs: Option<Arc<JobInputs>>,
        counted: &Fetched,
        events: &mpsc::Sender<Event>,
    ) {
        let mut told = Fetched::default();
        loop {
            let came = match &inputs {
                Some(inputs) => inputs.bytes_by_provider().await,
                None => BTreeMap::new(),
            };
            let fetched = self.and(*counted, came);
            if fetched != told {
                told = fetched;
                drop(events.send(Event::Counted(job, fetched)).await);
            }
            tokio::time::sleep(COUNT_INTERVAL).await;
        }
    }

    /// Reads a blob that is here. One that the disk has damaged is fetched again, once.
    async fn read(&self, blob: BlobRef, max: u64, counted: &mut Fetched) -> Result<bytes::Bytes, ReadyError> {
        let blobs = self.disk.blobs();
        let failed = |error: BlobError| ReadyError::of_store(blob, &error);
        match blobs.read(blob.hash, max).await {
            Err(BlobError::Read { .. } | BlobError::NotHere { .. }) => {
                tracing::warn!(blob = %blob.hash.short(), "the disk has damaged a blob: it is fetched again");
                blobs.discard(blob.hash).await.map_err(failed)?;
                self.fetch(blob, counted).await?;
                blobs.read(blob.hash, max).await.map_err(failed)
            }
            read => read.map_err(failed),
        }
    }

    /// Takes part in the exchange of a job's blobs until the job is forgotten.
    async fn keep_telling(&self, fetch: Fetch, spec: &JobSpec) {
        tokio::time::sleep(TELL_AFTER).await;
        self.complete(spec).await;
        loop {
            for blob in wanted(fetch, spec) {
                if let Err(error) = self.tracker.others(blob).await {
                    tracing::debug!(%error, "the coordinator was not told of a blob");
                }
                self.swarm.tell(blob).await;
            }
            tokio::time::sleep(TELL_INTERVAL.mul_f64(rand::random_range(0.75..1.25))).await;
        }
    }
}
