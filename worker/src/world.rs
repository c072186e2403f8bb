//! From a task of a job to what the sandbox runs, and from how that ended to a report.
//!
//! `talka run` and the grid both come through here, which is why they give the same digest.

use std::sync::Arc;

use bytes::Bytes;
use talka_core::{
    coordinator::{Report, ReportOutcome, ReportOutput},
    digest::{outcome_digest, result_digest},
    ids::{AttemptId, BlobHash, InputDigest, OutcomeDigest, ResultDigest},
    job::{BlobRef, JobSpec},
    limits,
    outcome::{Execution, NoResult},
    quantities::Bytes as Size,
};
use talka_proto::wire;

use crate::sandbox::{JobWorld, Program, TaskInput};

/// What all tasks of a job have in common. `datasets` are the files under `/data`, by name.
pub fn job_world(
    spec: &JobSpec,
    program: Arc<Program>,
    datasets: Vec<(String, BlobHash, Bytes)>,
) -> JobWorld {
    JobWorld::new(program, datasets, spec.limits, spec.seed, spec.clock_secs)
}

/// What is one task's own.
pub fn task_input(spec: &JobSpec, position: u64, stdin: Bytes) -> TaskInput {
    TaskInput {
        index: spec.inputs.visible_index(position),
        args: spec.task_args(position),
        env: spec.task_env(position),
        stdin,
    }
}

/// The digest of an execution of `bundle` on `input`.
pub fn digest(bundle: BlobHash, input: InputDigest, execution: &Execution) -> ResultDigest {
    let fuel = (!execution.resumed).then_some(execution.fuel);
    result_digest(outcome_of(bundle, input, execution), fuel)
}

fn outcome_of(bundle: BlobHash, input: InputDigest, execution: &Execution) -> OutcomeDigest {
    outcome_digest(bundle, input, execution.exit, &execution.output)
}

/// An output that is too large for a report, as the blob that the worker keeps.
pub(crate) struct LargeOutput {
    pub(crate) encoded: Bytes,
}

/// The report of an attempt, and the output that has to be kept if it is too large to come along.
pub(crate) fn report(
    attempt: AttemptId,
    bundle: BlobHash,
    input: InputDigest,
    outcome: Result<Execution, NoResult>,
    wall_micros: u64,
) -> (Report, Option<LargeOutput>) {
    let execution = match outcome {
        Ok(execution) => execution,
        Err(reason) => {
            let outcome = ReportOutcome::NoResult(reason);
            return (Report { attempt, outcome, wall_micros }, None);
        }
    };
    let (exit, fuel, resumed) = (execution.exit, execution.fuel, execution.resumed);
    let (output, large) = if execution.output.len() <= limits::INLINE_OUTPUT_BYTES_MAX {
        (ReportOutput::Inline(Arc::new(execution.output)), None)
    } else {
        let digest = outcome_of(bundle, input, &execution);
        let encoded = prost::Message::encode_to_vec(&wire::Output::from(&execution.output));
        let hash = BlobHash::new(*blake3::hash(&encoded).as_bytes());
        let blob = BlobRef { hash, size: Size::of(&encoded) };
        (ReportOutput::Remote { blob, digest }, Some(LargeOutput { encoded: encoded.into() }))
    };
    let outcome = ReportOutcome::Execution { input, exit, fuel, resumed, output };
    (Report { attempt, outcome, wall_micros }, large)
}
