//! The packed inputs of a job: they may still be on their way when its first tasks run.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use bytes::Bytes;
use talka_core::{ids::PeerId, job::BlobRef};
use talka_peer::{
    blobs::{BlobError, BlobStore},
    swarm::{Fetch, Swarm},
    transfer::FetchBlobError,
};
use tokio::sync::Mutex;

use crate::tracker::Tracker;

/// Why an input can't be had. Worth a retry with the next lease.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// It did not come.
    #[error(transparent)]
    Fetch(Arc<FetchBlobError>),
    /// It can't be read.
    #[error(transparent)]
    Read(#[from] BlobError),
}

/// See the [module](self).
pub(crate) struct JobInputs {
    blob: BlobRef,
    blobs: BlobStore,
    swarm: Swarm,
    tracker: Tracker,
    /// None while what the disk has damaged is being removed.
    fetch: Mutex<Option<Arc<Fetch>>>,
}

impl std::fmt::Debug for JobInputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobInputs").field("blob", &self.blob).finish_non_exhaustive()
    }
}

impl JobInputs {
    /// Starts to fetch them.
    pub(crate) async fn fetch(
        blob: BlobRef,
        blobs: &BlobStore,
        swarm: &Swarm,
        tracker: &Tracker,
    ) -> Result<Self, Arc<FetchBlobError>> {
        let fetch = swarm.fetch(blob, tracker.clone()).await.map_err(Arc::new)?;
        let (blobs, swarm, tracker) = (blobs.clone(), swarm.clone(), tracker.clone());
        Ok(Self { blob, blobs, swarm, tracker, fetch: Mutex::new(Some(Arc::new(fetch))) })
    }

    /// What came of them from each peer, since they were last begun.
    pub(crate) async fn bytes_by_provider(&self) -> BTreeMap<PeerId, u64> {
        let fetch = self.fetch.lock().await.clone();
        fetch.map(|fetch| fetch.bytes_by_provider()).unwrap_or_default()
    }

    /// All of them.
    pub(crate) fn blob(&self) -> BlobRef {
        self.blob
    }

    /// Reads a part, waiting until it is here. What somebody waits for is fetched before the rest.
    pub(crate) async fn read(&self, range: Range<u64>) -> Result<Bytes, InputError> {
        match self.read_once(range.clone()).await {
            Err(InputError::Read(BlobError::Read { .. } | BlobError::NotHere { .. })) => {
                self.fetch_again(range.clone()).await?;
                self.read_once(range).await
            }
            read => read,
        }
    }

    async fn read_once(&self, range: Range<u64>) -> Result<Bytes, InputError> {
        let fetch = self.running().await.map_err(InputError::Fetch)?;
        fetch.range(range.clone()).await.map_err(InputError::Fetch)?;
        Ok(self.blobs.read_part(self.blob, range).await?)
    }

    /// The disk has damaged them: they are removed, and fetched anew. Whoever reads them waits.
    async fn fetch_again(&self, range: Range<u64>) -> Result<(), InputError> {
        let mut fetch = self.fetch.lock().await;
        // Somebody else may have been here first.
        if self.blobs.read_part(self.blob, range).await.is_ok() {
            return Ok(());
        }
        tracing::warn!(blob = %self.blob.hash.short(), "the disk has damaged a job's inputs: they are fetched again");
        // It holds them.
        *fetch = None;
        self.blobs.discard(self.blob.hash).await?;
        Ok(())
    }

    /// The fetch that runs or has come to a good end: one that failed is begun anew.
    async fn running(&self) -> Result<Arc<Fetch>, Arc<FetchBlobError>> {
        let mut fetch = self.fetch.lock().await;
        match &*fetch {
            Some(fetch) if !fetch.has_failed() => Ok(fetch.clone()),
            _ => {
                let begun = self.swarm.fetch(self.blob, self.tracker.clone()).await.map_err(Arc::new)?;
                let begun = Arc::new(begun);
                *fetch = Some(begun.clone());
                Ok(begun)
            }
        }
    }
}
