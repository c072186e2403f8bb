//! Fetching the outputs that are too large for a report, after a quorum agreed on them.
//!
//! Any member of the quorum will do. What arrives is decoded and digested again: a member that offers
//! something else than what was agreed on has lied about its output, whatever its digest said, and one that has nothing
//! has lost it: their votes are void. One that can't be reached, or does not send, has its reasons: it is asked again
//! later.

use std::sync::Arc;

use prost::Message;
use talka_core::{
    coordinator::{Coordinator, FetchOutput},
    digest::outcome_digest,
    ids::BlobHash,
    job::BlobRef,
    limits,
    outcome::Output,
};
use talka_peer::transfer::FetchError;
use talka_proto::wire;
use tokio::sync::{Semaphore, mpsc};

use crate::{
    reactor::{Event, Handle},
    submission::Submissions,
};

/// Fetches outputs as they are asked for, a few at a time, until the reactor is gone.
pub(crate) async fn run(mut wanted: mpsc::Receiver<FetchOutput>, submissions: Submissions, reactor: Handle) {
    let places = Arc::new(Semaphore::new(limits::OUTPUT_FETCHES_MAX));
    while let Some(fetch) = wanted.recv().await {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let collector = Collector { submissions: submissions.clone(), reactor: reactor.clone() };
        tokio::spawn(async move {
            collector.collect(fetch).await;
            drop(place);
        });
    }
}

/// Whether an error says that a member will never deliver what it reported.
fn is_final(error: &FetchError) -> bool {
    match error {
        FetchError::NotHeld
        | FetchError::Refused
        | FetchError::Corrupt
        | FetchError::WrongSize { .. }
        | FetchError::OutOfRange { .. } => true,
        FetchError::Connect(_)
        | FetchError::NotOffered(_)
        | FetchError::Busy
        | FetchError::Stalled(_)
        | FetchError::TooSlow { .. }
        | FetchError::Broken(_)
        | FetchError::Store(_) => false,
    }
}

struct Collector {
    submissions: Submissions,
    reactor: Handle,
}

impl Collector {
    /// Fetches one output and tells the reactor. If the reactor is gone, the next start asks again.
    async fn collect(&self, fetch: FetchOutput) {
        let job = fetch.task.job;
        let bundle = self.reactor.ask(move |coordinator: &Coordinator| {
            coordinator.job(job).map(|job| job.submission.spec.bundle.hash)
        });
        let Ok(Ok(bundle)) = bundle.await else { return };
        let (found, bad) = self.try_sources(bundle, &fetch).await;
        let (task, agreed) = (fetch.task, fetch.agreed);
        let event = match found {
            Some(blob) => Event::OutputFetched { task, agreed, blob, bad },
            None => Event::OutputLost { task, bad },
        };
        let _ = self.reactor.send(event).await;
    }

    async fn try_sources(&self, bundle: BlobHash, fetch: &FetchOutput) -> (Option<BlobRef>, Vec<u32>) {
        let mut bad = Vec::new();
        let blobs = self.submissions.blobs();
        for source in &fetch.sources {
            let tag = format!("result/{}/{}/", fetch.task, source.number);
            // On the connection that it made; where that brings nothing, where it says that it can be dialed.
            let provider = self.submissions.places().way_to(source.peer);
            let fetched = self.submissions.fetcher().fetch(&provider, source.blob, &tag, |_| ()).await;
            let (reason, void) = match fetched {
                Ok(_) if self.is_agreed(bundle, fetch, source.blob).await => match blobs.sync().await {
                    Ok(()) => return (Some(source.blob), bad),
                    // This side's disk is at fault.
                    Err(error) => (error.to_string(), false),
                },
                Ok(_) => ("it is not the output that was agreed on".into(), true),
                Err(error) => (error.to_string(), is_final(&error)),
            };
            tracing::warn!(task = %fetch.task, peer = %source.peer, reason, void, "an output can't be had");
            bad.extend(void.then_some(source.number));
            // What stays is garbage that no tag names.
            drop(blobs.untag(&tag).await);
        }
        (None, bad)
    }

    async fn is_agreed(&self, bundle: BlobHash, fetch: &FetchOutput, blob: BlobRef) -> bool {
        let max = limits::TASK_OUTPUT_BYTES_MAX + limits::MESSAGE_BYTES_MAX as u64;
        let Ok(bytes) = self.submissions.blobs().read(blob.hash, max).await else { return false };
        let Ok(decoded) = wire::Output::decode(bytes) else { return false };
        let Ok(output) = Output::try_from(decoded) else { return false };
        outcome_digest(bundle, fetch.input, fetch.exit, &output) == fetch.agreed.outcome
    }
}
