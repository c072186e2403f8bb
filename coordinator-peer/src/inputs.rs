//! Where the input of each task lies: the indices of packed inputs, by job.
//!
//! A cache of what lies in the blob store. It is filled when a job is taken on or restored, and read by
//! sessions when a lease goes out.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use talka_core::{
    coordinator::LeaseRow,
    ids::{BlobHash, JobId},
    packing::{InputIndex, travels_in_lease},
};
use talka_peer::blobs::BlobStore;
use talka_proto::{convert, wire};

/// The packed inputs of a job.
#[derive(Debug, Clone)]
pub(crate) struct JobInputs {
    /// Where each lies.
    pub(crate) index: Arc<InputIndex>,
    /// All of them.
    pub(crate) data: BlobHash,
}

/// See the [module](self). Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct InputIndices(Arc<RwLock<HashMap<JobId, JobInputs>>>);

impl InputIndices {
    /// Remembers the inputs of a job.
    pub(crate) fn insert(&self, job: JobId, inputs: JobInputs) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(job, inputs);
    }

    /// The inputs of a job that has packed ones.
    fn get(&self, job: JobId) -> Option<JobInputs> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&job).cloned()
    }

    /// Where the input of a task lies; empty for an array.
    pub(crate) fn range(&self, job: JobId, position: u64) -> Range<u64> {
        self.get(job).and_then(|inputs| inputs.index.range(position)).unwrap_or(0..0)
    }

    /// What the input of a task is called; empty if it has no name.
    pub(crate) fn name(&self, job: JobId, position: u64) -> String {
        let inputs = self.get(job);
        inputs.as_ref().and_then(|inputs| inputs.index.name(position)).unwrap_or_default().to_owned()
    }

    /// A lease as its worker gets it: with its inputs when they are small.
    pub(crate) async fn lease(&self, row: &LeaseRow, blobs: &BlobStore) -> wire::Lease {
        let Some(JobInputs { index, data }) = self.get(row.job) else {
            return convert::lease(row, &[], Bytes::new());
        };
        let ranges: Vec<Range<u64>> =
            row.items.iter().map(|item| index.range(item.index).unwrap_or(0..0)).collect();
        let inputs = if travels_in_lease(&ranges) { read(blobs, data, &ranges).await } else { None };
        convert::lease(row, &ranges, inputs.unwrap_or_default())
    }
}

/// Reads ranges of a blob, one after the other; those that lie side by side, as they mostly do, at once. Without them
/// the worker fetches the blob, so a failure is no reason to give up.
async fn read(blobs: &BlobStore, data: BlobHash, ranges: &[Range<u64>]) -> Option<Bytes> {
    let mut all = Vec::new();
    for side_by_side in ranges.chunk_by(|one, next| one.end == next.start) {
        let range = side_by_side.first()?.start..side_by_side.last()?.end;
        match blobs.read_range(data, range).await {
            Ok(bytes) => all.extend_from_slice(&bytes),
            Err(error) => {
                tracing::warn!(%error, "inputs can't be read; their worker has to fetch them");
                return None;
            }
        }
    }
    Some(all.into())
}
