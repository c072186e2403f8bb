//! Checked conversions between the wire and the domain.
//!
//! To the wire is infallible. From the wire every message is hostile until it is converted: a missing
//! field, a wrong length or a number that stands for nothing is an [`InvalidMessage`] that names the field.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes as RawBytes;
use talka_core::{
    coordinator::{Capacity, LeaseItem, LeaseRow, Report, ReportOutcome, ReportOutput, ToWorker},
    ids::{AttemptId, BlobHash, InputDigest, JobId, OutcomeDigest, PeerId, ResultDigest, TaskId},
    job::{BlobRef, Dataset, ErrorRate, Inputs, JobSpec, RawJobSpec, TaskLimits},
    limits,
    outcome::{Exit, NoResult, Output},
    quantities::{Bytes, Credit, Fuel, Ppm},
    worker::Assignment,
};

use crate::wire;

/// A message breaks a rule. The sender has to be mended; a retry of the same message fails again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidMessage {
    /// The offending field, as in the `.proto`.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl InvalidMessage {
    /// An error about one field.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }

    fn missing(field: &'static str) -> Self {
        Self::new(field, "missing")
    }
}

impl From<InvalidMessage> for tonic::Status {
    fn from(error: InvalidMessage) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// A 32-byte id out of a field.
fn id<'a, T>(field: &'static str, bytes: &'a RawBytes) -> Result<T, InvalidMessage>
where
    T: TryFrom<&'a [u8]>,
    T::Error: std::fmt::Display,
{
    T::try_from(bytes).map_err(|error| InvalidMessage::new(field, error.to_string()))
}

/// The bytes of a 32-byte id.
pub fn id_bytes(id: &[u8; 32]) -> RawBytes {
    RawBytes::copy_from_slice(id)
}

/// A peer's key out of a field named `peer`.
pub fn peer_id(bytes: &RawBytes) -> Result<PeerId, InvalidMessage> {
    id("peer", bytes)
}

/// A blob's hash out of a field named `hash`.
pub fn blob_hash(bytes: &RawBytes) -> Result<BlobHash, InvalidMessage> {
    id("hash", bytes)
}

/// An outcome digest out of a field named `digest`.
pub fn outcome_digest(bytes: &RawBytes) -> Result<OutcomeDigest, InvalidMessage> {
    id("digest", bytes)
}

/// A result digest out of a field named `digest`.
pub fn result_digest(bytes: &RawBytes) -> Result<ResultDigest, InvalidMessage> {
    id("digest", bytes)
}

/// Credit as its 16 bytes.
pub fn credit_bytes(credit: Credit) -> RawBytes {
    RawBytes::copy_from_slice(&credit.nanos().to_le_bytes())
}

/// Credit from its 16 bytes; an empty field is zero.
pub fn credit(bytes: &RawBytes) -> Result<Credit, InvalidMessage> {
    if bytes.is_empty() {
        return Ok(Credit::ZERO);
    }
    let bytes: [u8; 16] =
        bytes[..].try_into().map_err(|_| InvalidMessage::new("credit_nanos", "expected 16 bytes"))?;
    Ok(Credit::from_nanos(i128::from_le_bytes(bytes)))
}

impl From<AttemptId> for wire::Attempt {
    fn from(id: AttemptId) -> Self {
        Self { job: id.task.job.get(), index: id.task.index, number: id.number }
    }
}

impl From<wire::Attempt> for AttemptId {
    fn from(id: wire::Attempt) -> Self {
        let task = TaskId { job: JobId::new(id.job), index: id.index };
        Self { task, number: id.number }
    }
}

/// Ids of attempts, as a list of messages.
pub fn attempts(ids: &[AttemptId]) -> Vec<wire::Attempt> {
    ids.iter().copied().map(Into::into).collect()
}

/// A list of messages, as ids of attempts.
pub fn attempt_ids(ids: Vec<wire::Attempt>) -> Vec<AttemptId> {
    ids.into_iter().map(Into::into).collect()
}

impl From<BlobRef> for wire::Blob {
    fn from(blob: BlobRef) -> Self {
        Self { hash: id_bytes(blob.hash.as_bytes()), size: blob.size.get() }
    }
}

impl TryFrom<wire::Blob> for BlobRef {
    type Error = InvalidMessage;

    fn try_from(blob: wire::Blob) -> Result<Self, InvalidMessage> {
        Ok(Self { hash: blob_hash(&blob.hash)?, size: Bytes::new(blob.size) })
    }
}

/// A blob that has to be there.
pub fn blob(field: &'static str, blob: Option<wire::Blob>) -> Result<BlobRef, InvalidMessage> {
    blob.ok_or_else(|| InvalidMessage::missing(field))?.try_into()
}

impl From<Capacity> for wire::Capacity {
    fn from(capacity: Capacity) -> Self {
        Self {
            slots: capacity.slots,
            memory_bytes: capacity.memory.get(),
            cpus: capacity.cpus,
            load_percent: capacity.load_percent,
            fuel_per_sec: capacity.fuel_per_sec,
            free_memory_bytes: capacity.free_memory.get(),
            fetched_from_coordinator_bytes: capacity.fetched_from_coordinator.get(),
            fetched_from_peers_bytes: capacity.fetched_from_peers.get(),
            queued: capacity.queued,
            fetching: capacity.fetching,
            running: capacity.running,
        }
    }
}

impl TryFrom<wire::Capacity> for Capacity {
    type Error = InvalidMessage;

    fn try_from(capacity: wire::Capacity) -> Result<Self, InvalidMessage> {
        if capacity.slots > limits::WORKER_SLOTS_MAX {
            let problem = format!("{} is above the limit of {}", capacity.slots, limits::WORKER_SLOTS_MAX);
            return Err(InvalidMessage::new("slots", problem));
        }
        Ok(Self {
            slots: capacity.slots,
            memory: Bytes::new(capacity.memory_bytes),
            cpus: capacity.cpus,
            load_percent: capacity.load_percent,
            fuel_per_sec: capacity.fuel_per_sec,
            free_memory: Bytes::new(capacity.free_memory_bytes),
            fetched_from_coordinator: Bytes::new(capacity.fetched_from_coordinator_bytes),
            fetched_from_peers: Bytes::new(capacity.fetched_from_peers_bytes),
            queued: capacity.queued,
            fetching: capacity.fetching,
            running: capacity.running,
        })
    }
}

impl From<&Output> for wire::Output {
    fn from(output: &Output) -> Self {
        let file = |(name, data): (&String, &Vec<u8>)| wire::File {
            name: name.clone(),
            data: RawBytes::copy_from_slice(data),
        };
        Self {
            stdout: RawBytes::copy_from_slice(&output.stdout),
            stderr: RawBytes::copy_from_slice(&output.stderr),
            files: output.files.iter().map(file).collect(),
        }
    }
}

impl TryFrom<wire::Output> for Output {
    type Error = InvalidMessage;

    fn try_from(output: wire::Output) -> Result<Self, InvalidMessage> {
        if output.files.len() > limits::TASK_OUT_FILES_MAX {
            return Err(InvalidMessage::new("files", format!("{} files", output.files.len())));
        }
        let mut stderr = output.stderr.to_vec();
        stderr.truncate(limits::TASK_STDERR_BYTES_MAX);
        let files: BTreeMap<String, Vec<u8>> =
            output.files.into_iter().map(|file| (file.name, file.data.to_vec())).collect();
        Ok(Self { stdout: output.stdout.to_vec(), files, stderr })
    }
}

impl From<&Report> for wire::Report {
    fn from(report: &Report) -> Self {
        let outcome = match &report.outcome {
            ReportOutcome::NoResult(reason) => wire::report::Outcome::NoResult(reason.to_code()),
            ReportOutcome::Execution { input, exit, fuel, resumed, output } => {
                let (exit_kind, exit_number) = exit.to_code();
                let (output, digest) = match output {
                    ReportOutput::Inline(output) => {
                        (wire::execution::Output::Inlined(output.as_ref().into()), RawBytes::new())
                    }
                    ReportOutput::Remote { blob, digest } => {
                        (wire::execution::Output::Blob((*blob).into()), id_bytes(digest.as_bytes()))
                    }
                };
                wire::report::Outcome::Execution(wire::Execution {
                    input: id_bytes(input.as_bytes()),
                    exit_kind: exit_kind.into(),
                    exit_number,
                    fuel: fuel.get(),
                    output: Some(output),
                    digest,
                    resumed: *resumed,
                })
            }
        };
        Self { attempt: Some(report.attempt.into()), outcome: Some(outcome), wall_micros: report.wall_micros }
    }
}

impl TryFrom<wire::Report> for Report {
    type Error = InvalidMessage;

    fn try_from(report: wire::Report) -> Result<Self, InvalidMessage> {
        let attempt = report.attempt.ok_or_else(|| InvalidMessage::missing("attempt"))?.into();
        let outcome = match report.outcome.ok_or_else(|| InvalidMessage::missing("outcome"))? {
            wire::report::Outcome::NoResult(code) => ReportOutcome::NoResult(
                NoResult::from_code(code)
                    .ok_or_else(|| InvalidMessage::new("no_result", format!("{code} is no reason")))?,
            ),
            wire::report::Outcome::Execution(execution) => execution.try_into()?,
        };
        Ok(Self { attempt, outcome, wall_micros: report.wall_micros })
    }
}

impl TryFrom<wire::Execution> for ReportOutcome {
    type Error = InvalidMessage;

    fn try_from(execution: wire::Execution) -> Result<Self, InvalidMessage> {
        let exit = exit(execution.exit_kind, execution.exit_number)?;
        let input: InputDigest = id("input", &execution.input)?;
        let output = match execution.output.ok_or_else(|| InvalidMessage::missing("output"))? {
            wire::execution::Output::Inlined(output) => ReportOutput::Inline(Arc::new(output.try_into()?)),
            wire::execution::Output::Blob(blob) => {
                ReportOutput::Remote { blob: blob.try_into()?, digest: outcome_digest(&execution.digest)? }
            }
        };
        let (fuel, resumed) = (Fuel::new(execution.fuel), execution.resumed);
        Ok(Self::Execution { input, exit, fuel, resumed, output })
    }
}

/// An exit from its two numbers.
pub fn exit(kind: u32, number: u32) -> Result<Exit, InvalidMessage> {
    let kind = u8::try_from(kind).ok();
    kind.and_then(|kind| Exit::from_code((kind, number)))
        .ok_or_else(|| InvalidMessage::new("exit_kind", "no such exit"))
}

impl From<&JobSpec> for wire::JobSpec {
    fn from(spec: &JobSpec) -> Self {
        let inputs = match &spec.inputs {
            Inputs::Array { first, count } => {
                wire::job_spec::Inputs::Array(wire::ArrayInputs { first: *first, count: *count })
            }
            Inputs::Packed { data, index, count } => wire::job_spec::Inputs::Packed(wire::PackedInputs {
                data: Some((*data).into()),
                index: Some((*index).into()),
                count: *count,
            }),
        };
        let variable =
            |(name, value): &(String, String)| wire::Variable { name: name.clone(), value: value.clone() };
        let dataset =
            |dataset: &Dataset| wire::Dataset { name: dataset.name.clone(), blob: Some(dataset.blob.into()) };
        Self {
            name: spec.name.clone(),
            bundle: Some(spec.bundle.into()),
            inputs: Some(inputs),
            args: spec.args.clone(),
            env: spec.env.iter().map(variable).collect(),
            datasets: spec.datasets.iter().map(dataset).collect(),
            memory_bytes: spec.limits.memory.get(),
            fuel: spec.limits.fuel.get(),
            output_bytes: spec.limits.output.get(),
            deadline_millis: u64::try_from(spec.limits.deadline.as_millis()).unwrap_or(u64::MAX),
            quorum: spec.quorum(),
            seed: spec.seed,
            clock_secs: spec.clock_secs,
            priority: spec.priority().get(),
            on: spec.on.iter().map(|peer| id_bytes(peer.as_bytes())).collect(),
            error_ppm: spec.error_rate.map_or(0, |rate| rate.error.get()),
            liars_ppm: spec.error_rate.map_or(0, |rate| rate.liars.get()),
        }
    }
}

impl TryFrom<wire::JobSpec> for JobSpec {
    type Error = InvalidMessage;

    fn try_from(spec: wire::JobSpec) -> Result<Self, InvalidMessage> {
        let inputs = match spec.inputs.ok_or_else(|| InvalidMessage::missing("inputs"))? {
            wire::job_spec::Inputs::Array(array) => Inputs::Array { first: array.first, count: array.count },
            wire::job_spec::Inputs::Packed(packed) => Inputs::Packed {
                data: blob("packed.data", packed.data)?,
                index: blob("packed.index", packed.index)?,
                count: packed.count,
            },
        };
        let dataset = |dataset: wire::Dataset| {
            Ok(Dataset { name: dataset.name, blob: blob("dataset.blob", dataset.blob)? })
        };
        let raw = RawJobSpec {
            name: spec.name,
            bundle: blob("bundle", spec.bundle)?,
            inputs,
            args: spec.args,
            env: spec.env.into_iter().map(|variable| (variable.name, variable.value)).collect(),
            datasets: spec.datasets.into_iter().map(dataset).collect::<Result<_, InvalidMessage>>()?,
            limits: TaskLimits {
                memory: Bytes::new(spec.memory_bytes),
                fuel: Fuel::new(spec.fuel),
                output: Bytes::new(spec.output_bytes),
                deadline: Duration::from_millis(spec.deadline_millis),
            },
            quorum: spec.quorum,
            seed: spec.seed,
            clock_secs: spec.clock_secs,
            priority: spec.priority.into(),
            on: spec.on.iter().map(|peer| id("on", peer)).collect::<Result<_, InvalidMessage>>()?,
            error_rate: (spec.error_ppm > 0)
                .then(|| ErrorRate { error: Ppm::new(spec.error_ppm), liars: Ppm::new(spec.liars_ppm) }),
        };
        raw.validate().map_err(|error| InvalidMessage::new("spec", error.to_string()))
    }
}

/// A lease for the wire; `ranges` tells where the input of each item lies in the packed inputs, nothing for an array, and
/// `inputs` are all of them, if they are to travel along.
pub fn lease(row: &LeaseRow, ranges: &[Range<u64>], inputs: RawBytes) -> wire::Lease {
    let ranges = ranges.iter().cloned().chain(std::iter::repeat(0..0));
    let item = |(item, range): (&LeaseItem, Range<u64>)| wire::LeaseItem {
        index: item.index,
        number: item.number,
        input_offset: range.start,
        input_length: range.end - range.start,
    };
    wire::Lease {
        lease: row.lease.get(),
        job: row.job.get(),
        deadline_millis: row.deadline.millis(),
        items: row.items.iter().zip(ranges).map(item).collect(),
        inputs,
    }
}

/// The assignments of a lease. Inputs that came along are all there, or the message is refused.
pub fn assignments(lease: wire::Lease) -> Result<(JobId, Vec<Assignment>), InvalidMessage> {
    let job = JobId::new(lease.job);
    if lease.items.len() > limits::LEASE_ITEMS_MAX {
        return Err(InvalidMessage::new("items", format!("{} items", lease.items.len())));
    }
    let bytes = lease.items.iter().map(|item| item.input_length).fold(0, u64::saturating_add);
    let came_along = bytes == lease.inputs.len() as u64;
    if !came_along && !lease.inputs.is_empty() {
        let problem = format!("{} bytes for inputs of {bytes}", lease.inputs.len());
        return Err(InvalidMessage::new("inputs", problem));
    }
    let mut inputs = &lease.inputs[..];
    let empty = Arc::<[u8]>::from([]);
    let mut take = |length: u64| {
        if length == 0 {
            return Some(empty.clone());
        }
        let (input, rest) = inputs.split_at_checked(usize::try_from(length).ok()?)?;
        inputs = rest;
        Some(Arc::from(input))
    };
    let assignment = |item: wire::LeaseItem| {
        let inline = if came_along { take(item.input_length) } else { None };
        let end = item.input_offset.checked_add(item.input_length);
        let end = end.filter(|_| item.input_length <= limits::INPUT_BYTES_MAX);
        Ok(Assignment {
            attempt: AttemptId { task: TaskId { job, index: item.index }, number: item.number },
            input: item.input_offset
                ..end.ok_or_else(|| InvalidMessage::new("input_length", "beyond the limit"))?,
            inline,
        })
    };
    let items = lease.items.into_iter().map(assignment).collect::<Result<_, InvalidMessage>>()?;
    Ok((job, items))
}

/// A message to a worker, but for leases: see [`lease`].
pub fn to_worker(message: ToWorker) -> Option<wire::coordinator_message::Message> {
    use wire::coordinator_message::Message;
    Some(match message {
        ToWorker::Welcome { unknown } => Message::Welcome(wire::Welcome { unknown: attempts(&unknown) }),
        ToWorker::Job { job, spec, submission } => Message::Job(wire::Job {
            job: job.get(),
            spec: Some(spec.as_ref().into()),
            submitter: id_bytes(submission.submitter.as_bytes()),
            request: submission.request.to_vec().into(),
            signature: submission.signature.map_or_else(Vec::new, Vec::from).into(),
        }),
        ToWorker::Lease(row) => Message::Lease(lease(&row, &[], RawBytes::new())),
        ToWorker::Settled { attempts: settled, released } => {
            Message::Settled(wire::Settled { attempts: attempts(&settled), released: attempts(&released) })
        }
        ToWorker::Cancelled { attempts: ids } => {
            Message::Cancelled(wire::Cancelled { attempts: attempts(&ids) })
        }
        ToWorker::Recall { attempts: ids } => Message::Recall(wire::Recall { attempts: attempts(&ids) }),
        ToWorker::Ended { job } => Message::Ended(wire::Ended { job: job.get() }),
        ToWorker::Replaced => return None,
    })
}

#[cfg(test)]
mod tests {
    use talka_core::job::CLOCK_SECS_DEFAULT;

    use super::*;

    fn spec() -> JobSpec {
        let blob = |byte, size| BlobRef { hash: BlobHash::new([byte; 32]), size: Bytes::new(size) };
        RawJobSpec {
            name: "tiles".into(),
            bundle: blob(1, 5000),
            inputs: Inputs::Packed { data: blob(2, 70), index: blob(3, 10), count: 7 },
            args: vec!["{index}".into()],
            env: vec![("A".into(), "b".into())],
            datasets: vec![Dataset { name: "genome".into(), blob: blob(4, 1 << 20) }],
            limits: TaskLimits::default(),
            quorum: 3,
            seed: 8,
            clock_secs: CLOCK_SECS_DEFAULT,
            priority: -7,
            on: vec![PeerId::new([1; 32]), PeerId::new([2; 32]), PeerId::new([3; 32])],
            error_rate: Some(ErrorRate { error: Ppm::new(10), liars: Ppm::new(200_000) }),
        }
        .validate()
        .expect("a valid job")
    }

    #[test]
    fn a_job_survives_the_wire() {
        let spec = spec();
        assert_eq!(JobSpec::try_from(wire::JobSpec::from(&spec)), Ok(spec));
    }

    #[test]
    fn reports_survive_the_wire() {
        let attempt = AttemptId { task: TaskId { job: JobId::new(4), index: 9 }, number: 2 };
        let output = Output { stdout: b"42".to_vec(), stderr: b"log".to_vec(), ..Output::default() };
        let execution = |resumed, output| ReportOutcome::Execution {
            input: InputDigest::new([5; 32]),
            exit: Exit::Code(3),
            fuel: Fuel::new(77),
            resumed,
            output,
        };
        let remote = ReportOutput::Remote {
            blob: BlobRef { hash: BlobHash::new([6; 32]), size: Bytes::mib(3) },
            digest: OutcomeDigest::new([7; 32]),
        };
        for outcome in [
            ReportOutcome::NoResult(NoResult::Deadline),
            execution(false, ReportOutput::Inline(Arc::new(output))),
            execution(true, remote),
        ] {
            let report = Report { attempt, outcome, wall_micros: 12 };
            assert_eq!(Report::try_from(wire::Report::from(&report)), Ok(report));
        }
    }

    #[test]
    fn broken_messages_name_their_field() {
        let field = |spec: wire::JobSpec| JobSpec::try_from(spec).expect_err("broken").field;
        let good = wire::JobSpec::from(&spec());
        assert_eq!(field(wire::JobSpec { inputs: None, ..good.clone() }), "inputs");
        assert_eq!(field(wire::JobSpec { bundle: None, ..good.clone() }), "bundle");
        assert_eq!(field(wire::JobSpec { quorum: 0, ..good.clone() }), "spec");
        assert_eq!(field(wire::JobSpec { priority: 101, ..good.clone() }), "spec");
        let cut = vec![RawBytes::from_static(&[1; 31])];
        assert_eq!(field(wire::JobSpec { on: cut, ..good.clone() }), "on");
        let short = wire::Blob { hash: RawBytes::from_static(b"x"), size: 1 };
        assert_eq!(field(wire::JobSpec { bundle: Some(short), ..good }), "hash");
        let report = wire::Report::default();
        assert_eq!(Report::try_from(report).expect_err("broken").field, "attempt");
        assert_eq!(exit(1, 0).expect_err("broken").field, "exit_kind");
        assert_eq!(exit(256, 0).expect_err("broken").field, "exit_kind");
        let item = wire::LeaseItem { input_offset: u64::MAX, input_length: 1, ..Default::default() };
        let lease = wire::Lease { items: vec![item], ..Default::default() };
        assert_eq!(assignments(lease).expect_err("broken").field, "input_length");
    }

    #[test]
    fn inputs_come_along_all_or_none() {
        let item = |index, input_offset, input_length| wire::LeaseItem {
            index,
            number: 1,
            input_offset,
            input_length,
        };
        let inline = |lengths: &[u64], inputs: &'static [u8]| {
            let items = (0..).zip(lengths).map(|(index, length)| item(index, 100 * index, *length));
            let inputs = RawBytes::from_static(inputs);
            let lease = wire::Lease { items: items.collect(), inputs, ..Default::default() };
            assignments(lease).map(|(_, items)| items.into_iter().map(|item| item.inline).collect::<Vec<_>>())
        };
        let some = |bytes: &[u8]| Some(Arc::from(bytes));
        assert_eq!(inline(&[2, 0, 3], b"abcde"), Ok(vec![some(b"ab"), some(b""), some(b"cde")]));
        assert_eq!(inline(&[0, 0], b""), Ok(vec![some(b""), some(b"")]), "nothing is all there is");
        assert_eq!(inline(&[2, 3], b""), Ok(vec![None, None]));
        for (lengths, inputs) in [(&[2, 3][..], &b"abcd"[..]), (&[2], b"abc"), (&[u64::MAX, 2], b"x")] {
            assert_eq!(inline(lengths, inputs).expect_err("refused").field, "inputs", "{lengths:?}");
        }
    }
}
