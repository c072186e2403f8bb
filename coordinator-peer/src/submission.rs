//! Taking a job on: its blobs are pulled from the submitter, checked and made durable, and only then is
//! the job accepted.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use talka_core::{
    coordinator::{Coordinator, JobProgress},
    ids::PeerId,
    job::{BlobRef, Inputs, JobSpec, Submission},
    limits,
    packing::InputIndex,
    signing::job_statement,
};
use talka_peer::{
    blobs::{BlobError, BlobStore, Served},
    identity::{Signature, verify},
    transfer::{Fetcher, Provider},
};
use talka_proto::wire::{self, submit_event};
use tokio::sync::mpsc;
use tonic::Status;

use crate::{
    inputs::JobInputs,
    places::Places,
    reactor::Event,
    services::{Context, refused},
};

/// Where events about one submission go.
type Events = mpsc::Sender<Result<wire::SubmitEvent, Status>>;

/// What a submitter signed.
#[derive(Debug)]
pub(crate) struct SignedSpec {
    spec: JobSpec,
    signature: [u8; 64],
}

impl SignedSpec {
    /// Checks the signature.
    pub(crate) fn new(
        coordinator: PeerId,
        submitter: PeerId,
        request: [u8; 16],
        spec: JobSpec,
        signature: &[u8],
    ) -> Result<Self, Status> {
        let refused = || {
            Status::permission_denied(
                "the job is not signed by the key that submits it, so no worker would run it; update talka",
            )
        };
        let signature: [u8; 64] = signature.try_into().map_err(|_| refused())?;
        let statement = job_statement(coordinator, submitter, request, &spec);
        verify(submitter, statement.as_bytes(), &Signature::new(signature)).map_err(|_| refused())?;
        Ok(Self { spec, signature })
    }
}

/// See the [module](self). Cheap to clone.
#[derive(Clone)]
pub(crate) struct Submissions {
    blobs: BlobStore,
    fetcher: Fetcher,
    /// Where other peers can be reached, as they say.
    places: Places,
    /// Bundles that were checked and blobs that are durable, because a job that was accepted has them. Tags of jobs are
    /// never removed as yet: whoever does has to take their blobs out of here first, or a job would be accepted whose
    /// blobs are about to go.
    settled: Arc<Mutex<HashSet<Needed>>>,
}

impl Submissions {
    pub(crate) fn new(blobs: BlobStore, fetcher: Fetcher, has_relay: bool) -> Self {
        Self { blobs, fetcher, places: Places::new(has_relay), settled: Arc::default() }
    }

    /// What this coordinator has.
    pub(crate) fn blobs(&self) -> &BlobStore {
        &self.blobs
    }

    /// Fetches what others have.
    pub(crate) fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// What this coordinator has sent of its blobs.
    pub(crate) fn served(&self) -> &Served {
        self.blobs.served()
    }

    /// Bytes of a job's blobs that this coordinator has sent; those that other jobs have as well were sent for them, too.
    pub(crate) fn served_of(&self, spec: &JobSpec) -> u64 {
        spec.blobs().iter().map(|blob| self.blobs.served().of(blob.hash)).sum()
    }

    /// Where peers can be reached.
    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// Takes a job on, telling how the transfer goes. The same `request` gives the same job.
    pub(crate) async fn take(
        &self,
        context: &Context,
        submitter: PeerId,
        request: [u8; 16],
        signed: SignedSpec,
        events: &Events,
    ) -> Result<JobProgress, Status> {
        let SignedSpec { spec, signature } = signed;
        check_targets(context, &spec).await?;
        let (tag, needed) = (tag_of(request), blobs_of(&spec));
        let is_settled = self.are_settled(&needed);
        let inputs = if is_settled {
            self.check_inputs(&spec).await?
        } else {
            let known = move |coordinator: &Coordinator| {
                coordinator.job_of_request(submitter, request).and_then(|job| coordinator.job(job).ok())
            };
            if let Some(job) = context.reactor.ask(known).await? {
                return Ok(job);
            }
            self.pull(submitter, &needed, &tag, events).await?;
            self.check_bundle(&spec).await?;
            let inputs = self.check_inputs(&spec).await?;
            self.blobs.sync().await.map_err(|error| unstored(&error))?;
            inputs
        };
        let submission = Box::new(Submission { request, submitter, spec, signature: Some(signature) });
        let submit = context.reactor.call(|reply| Event::Submit { submission, inputs, reply });
        let taken = if is_settled {
            // Another job's tag holds each of them already, so this one's need not be on the disk before the job is: a
            // restart sets it again.
            let (kept, taken) = tokio::join!(self.keep(&needed, &tag), submit);
            kept.and(taken.map_err(Status::from))?
        } else {
            submit.await?
        };
        let job = taken.map_err(|refusal| refused(&refusal))?;
        self.note_settled(&needed);
        Ok(job)
    }

    /// Sees to it that the blobs of jobs that run are kept for each of them, whatever becomes of the others.
    pub(crate) async fn keep_again(self, running: Vec<Arc<Submission>>) {
        for submission in running {
            // Its text says what to do, which here is to look at the disk; that was logged.
            drop(self.keep(&blobs_of(&submission.spec), &tag_of(submission.request)).await);
        }
    }

    /// Whether jobs that were accepted have all of these: then they are here, checked and durable.
    fn are_settled(&self, blobs: &[Needed]) -> bool {
        let settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.iter().all(|needed| settled.contains(needed))
    }

    fn note_settled(&self, blobs: &[Needed]) {
        /// Blobs that are remembered: what comes back soon, and 40 bytes each.
        const SETTLED_MAX: usize = 100_000;
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if settled.len() + blobs.len() > SETTLED_MAX {
            settled.clear();
        }
        settled.extend(blobs);
    }

    /// Keeps blobs that are here, for one more job.
    async fn keep(&self, blobs: &[Needed], tag: &str) -> Result<(), Status> {
        for (number, needed) in blobs.iter().enumerate() {
            let kept = self.blobs.tag(&format!("{tag}/{number}/"), needed.blob.hash).await;
            kept.map_err(|error| unstored(&error))?;
        }
        Ok(())
    }

    /// Fetches what is missing from the submitter.
    async fn pull(
        &self,
        submitter: PeerId,
        blobs: &[Needed],
        tag: &str,
        events: &Events,
    ) -> Result<(), Status> {
        let total: u64 = blobs.iter().map(|needed| needed.blob.size.get()).sum();
        let mut done = 0;
        for (number, Needed { blob, .. }) in blobs.iter().copied().enumerate() {
            let provider = Provider::reverse(submitter);
            let progress = |bytes: u64| {
                let fetching = wire::Fetching { done_bytes: done + bytes, total_bytes: total };
                let event = submit_event::Event::Fetching(fetching);
                // Progress is for people: a full queue may drop some.
                drop(events.try_send(Ok(wire::SubmitEvent { event: Some(event) })));
            };
            let tag = format!("{tag}/{number}/");
            self.fetcher.fetch(&provider, blob, &tag, progress).await.map_err(|error| {
                Status::failed_precondition(format!(
                    "blob {} could not be fetched from the submitter: {error}",
                    blob.hash.short()
                ))
            })?;
            done += blob.size.get();
        }
        Ok(())
    }

    /// Refuses a bundle that the profile forbids, naming every problem.
    async fn check_bundle(&self, spec: &JobSpec) -> Result<(), Status> {
        let wasm = self.read(spec.bundle, limits::MODULE_BYTES_MAX).await?;
        let problems = tokio::task::spawn_blocking(move || talka_profile::check(&wasm)).await;
        let problems = problems.map_err(|_| Status::internal("the bundle could not be checked"))?;
        if problems.is_empty() {
            return Ok(());
        }
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Err(Status::invalid_argument(format!("the bundle is refused: {}", problems.join("; "))))
    }

    /// Reads the index of packed inputs and compares it with what the job says.
    async fn check_inputs(&self, spec: &JobSpec) -> Result<Option<JobInputs>, Status> {
        let Inputs::Packed { data, index, count } = &spec.inputs else { return Ok(None) };
        let parsed = self.index(*index).await?;
        if parsed.count() != *count || parsed.total() != data.size.get() {
            let text = format!(
                "the index lists {} inputs of {} bytes, the job {count} inputs of {} bytes",
                parsed.count(),
                parsed.total(),
                data.size.get()
            );
            return Err(Status::invalid_argument(text));
        }
        Ok(Some(JobInputs { index: Arc::new(parsed), data: data.hash }))
    }

    /// An index of packed inputs that lies in the store.
    pub(crate) async fn index(&self, blob: BlobRef) -> Result<InputIndex, Status> {
        let bytes = self.read(blob, limits::INPUT_INDEX_BYTES_MAX).await?;
        InputIndex::decode(&bytes).map_err(|error| Status::invalid_argument(error.to_string()))
    }

    async fn read(&self, blob: BlobRef, max: u64) -> Result<bytes::Bytes, Status> {
        self.blobs.read(blob.hash, max).await.map_err(|error| {
            tracing::error!(%error, blob = %blob.hash, "a blob can't be read");
            Status::unavailable("the coordinator can't read a blob that it has just stored")
        })
    }
}

/// A blob of a job, and whether it is to be a program: what was checked as one is no dataset, and the reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Needed {
    blob: BlobRef,
    is_bundle: bool,
}

/// What the tags of a job's blobs begin with.
fn tag_of(request: [u8; 16]) -> String {
    format!("request/{:032x}", u128::from_be_bytes(request))
}

/// Everything that a job needs.
fn blobs_of(spec: &JobSpec) -> Vec<Needed> {
    let mut blobs = spec.blobs();
    if let Inputs::Packed { index, .. } = &spec.inputs {
        blobs.push(*index);
    }
    let needed = |(number, blob)| Needed { blob, is_bundle: number == 0 };
    blobs.into_iter().enumerate().map(needed).collect()
}

fn unstored(error: &BlobError) -> Status {
    tracing::error!(%error, "blobs can't be made durable");
    Status::unavailable("the coordinator can't store the job; try again later")
}

/// Refuses a job that is meant for peers that were never here: it would wait for a typing error.
async fn check_targets(context: &Context, spec: &JobSpec) -> Result<(), Status> {
    if spec.on.is_empty() {
        return Ok(());
    }
    let targets = spec.on.clone();
    let unknown = move |coordinator: &Coordinator| -> Vec<String> {
        let unknown = targets.iter().filter(|peer| !coordinator.knows(**peer));
        unknown.map(ToString::to_string).collect()
    };
    let unknown = context.reactor.ask(unknown).await?;
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Status::not_found(format!(
        "the job is meant for peers that were never connected here: {}; `talka peer list --json` shows who is",
        unknown.join(", ")
    )))
}
