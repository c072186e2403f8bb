//! One job on a worker: what waits, and how long its attempts take.

use std::{collections::VecDeque, sync::Arc};

use super::{Assignment, Fetch};
use crate::{
    ids::JobId,
    job::{Inputs, JobSpec},
};

#[derive(Debug)]
pub(super) struct Job {
    pub(super) spec: Arc<JobSpec>,
    pub(super) blobs: Blobs,
    /// Whether an attempt was ever queued whose input did not come along.
    needs_inputs: bool,
    pub(super) queue: VecDeque<Queued>,
    pub(super) mean_micros: Option<f64>,
}

#[derive(Debug)]
pub(super) struct Queued {
    /// Number of the lease that brought it, in the order of arrival; 0 when it was begun before.
    pub(super) arrival: u64,
    pub(super) assignment: Assignment,
}

impl Queued {
    /// Whether nothing was ever done for it.
    pub(super) fn is_fresh(&self) -> bool {
        self.arrival > 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blobs {
    Unrequested,
    /// On their way, with the packed inputs or without.
    Fetching {
        inputs: bool,
    },
    /// Here.
    Ready {
        inputs: bool,
    },
}

impl Job {
    pub(super) fn new(spec: Arc<JobSpec>) -> Self {
        let (blobs, queue) = (Blobs::Unrequested, VecDeque::new());
        Self { spec, blobs, needs_inputs: false, queue, mean_micros: None }
    }

    /// What is to be fetched now for the attempts that wait: the rest, when the packed inputs were not needed before.
    pub(super) fn request_blobs(&mut self, job: JobId) -> Option<Fetch> {
        let packed = matches!(self.spec.inputs, Inputs::Packed { .. });
        let is_missing = |queued: &Queued| queued.assignment.inline.is_none();
        self.needs_inputs = packed && (self.needs_inputs || self.queue.iter().any(is_missing));
        let inputs = self.needs_inputs;
        let asked = match self.blobs {
            Blobs::Unrequested => self.queue.is_empty(),
            Blobs::Fetching { inputs: asked } | Blobs::Ready { inputs: asked } => asked || !inputs,
        };
        if asked {
            return None;
        }
        self.blobs = Blobs::Fetching { inputs };
        Some(Fetch { job, inputs })
    }

    /// A fetch that a larger one has overtaken changes nothing.
    pub(super) fn note_fetched(&mut self, fetched: Fetch) {
        let wanted = match self.blobs {
            Blobs::Unrequested => false,
            Blobs::Fetching { inputs } | Blobs::Ready { inputs } => inputs,
        };
        if fetched.inputs || !wanted {
            self.blobs = Blobs::Ready { inputs: fetched.inputs };
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.blobs, Blobs::Ready { .. })
    }

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
