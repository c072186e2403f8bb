//! Whose attempt a checkpoint is.

use std::sync::Arc;

use prost::Message as _;
use talka_core::{
    ids::{AttemptId, JobId, PeerId, TaskId},
    job::JobSpec,
    worker::Assignment,
};
use talka_proto::wire;

/// An attempt with all that a worker has to know to go on with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Who wants it.
    pub(crate) coordinator: PeerId,
    pub(crate) assignment: Assignment,
    /// Its job.
    pub(crate) spec: Arc<JobSpec>,
}

impl Holder {
    /// As it lies in a file: coordinator (32 bytes), job, position, start and end of the input (8 each), number of the
    /// attempt (4), all little endian, and the job as it came over the wire.
    pub(super) fn encode(&self) -> Vec<u8> {
        let Assignment { attempt, input, inline: _ } = &self.assignment;
        let mut bytes = self.coordinator.as_bytes().to_vec();
        for number in [attempt.task.job.get(), attempt.task.index, input.start, input.end] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&attempt.number.to_le_bytes());
        bytes.extend(wire::JobSpec::from(&*self.spec).encode_to_vec());
        bytes
    }

    /// The inverse of [`Holder::encode`]; `None` for anything else, a record without a holder included.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (coordinator, mut rest) = bytes.split_at_checked(32)?;
        let coordinator = PeerId::try_from(coordinator).ok()?;
        let mut number = || {
            let (number, after) = rest.split_first_chunk::<8>()?;
            rest = after;
            Some(u64::from_le_bytes(*number))
        };
        let (job, index, start, end) = (number()?, number()?, number()?, number()?);
        let (number, spec) = rest.split_first_chunk::<4>()?;
        let task = TaskId { job: JobId::new(job), index };
        let attempt = AttemptId { task, number: u32::from_le_bytes(*number) };
        let spec = JobSpec::try_from(wire::JobSpec::decode(spec).ok()?).ok()?;
        (start <= end && index < spec.inputs.count()).then(|| Self {
            coordinator,
            assignment: Assignment { attempt, input: start..end, inline: None },
            spec: Arc::new(spec),
        })
    }
}
