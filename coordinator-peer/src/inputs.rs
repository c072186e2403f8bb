//! Where the input of each task lies: the indices of packed inputs, by job.
//!
//! A cache of what lies in the blob store. It is filled when a job is taken on or restored, and read by
//! sessions when a lease goes out.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, PoisonError, RwLock},
};

use talka_core::{ids::JobId, packing::InputIndex};

/// See the [module](self). Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct InputIndices(Arc<RwLock<HashMap<JobId, Arc<InputIndex>>>>);

impl InputIndices {
    /// Remembers the index of a job.
    pub(crate) fn insert(&self, job: JobId, index: Arc<InputIndex>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(job, index);
    }

    /// The index of a job with packed inputs.
    pub(crate) fn get(&self, job: JobId) -> Option<Arc<InputIndex>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&job).cloned()
    }

    /// Where the input of a task lies; empty for an array.
    pub(crate) fn range(&self, job: JobId, position: u64) -> Range<u64> {
        self.get(job).and_then(|index| index.range(position)).unwrap_or(0..0)
    }

    /// What the input of a task is called; empty if it has no name.
    pub(crate) fn name(&self, job: JobId, position: u64) -> String {
        let index = self.get(job);
        index.as_ref().and_then(|index| index.name(position)).unwrap_or_default().to_owned()
    }
}
