//! One job on a worker: what waits, and how long its attempts take.

use std::{collections::VecDeque, sync::Arc};

use super::Assignment;
use crate::job::JobSpec;

#[derive(Debug)]
pub(super) struct Job {
    pub(super) spec: Arc<JobSpec>,
    pub(super) blobs: Blobs,
    pub(super) queue: VecDeque<Queued>,
    pub(super) mean_micros: Option<f64>,
}

#[derive(Debug)]
pub(super) struct Queued {
    /// Number of the lease that brought it, in the order of arrival.
    pub(super) arrival: u64,
    pub(super) assignment: Assignment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blobs {
    Unrequested,
    Fetching,
    Ready,
}

impl Job {
    /// Attempts for one slot: about [`BATCH_MICROS`] of work, and no more than its even share.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to a small positive range"
    )]
    pub(super) fn batch_size(&self, slots: usize) -> usize {
        /// Work in one batch: well above the cost of a pipe's round trip, well below a person's patience.
        const BATCH_MICROS: f64 = 20_000.0;
        /// Attempts in one batch.
        const BATCH_MAX: f64 = 256.0;
        let by_time =
            self.mean_micros.map_or(1.0, |mean| (BATCH_MICROS / mean.max(1.0)).clamp(1.0, BATCH_MAX));
        (by_time as usize).min(self.queue.len().div_ceil(slots)).max(1)
    }

    #[expect(clippy::cast_precision_loss, reason = "a moving mean")]
    pub(super) fn note_time(&mut self, micros: u64) {
        /// Weight of the newest sample.
        const WEIGHT: f64 = 0.2;
        let sample = micros as f64;
        let mean = self.mean_micros.get_or_insert(sample);
        *mean += (sample - *mean) * WEIGHT;
    }
}
