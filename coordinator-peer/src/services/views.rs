//! Domain to wire, where a message tells people about something.

use talka_core::{
    coordinator::{
        AttemptView, FinalOutput, FinalRow, Grant, JobProgress, JobView, PassedOverGroup, TaskVerdict,
        TaskView, WorkerView,
    },
    ids::{PeerId, PeerNo, TaskId},
    job::JobSpec,
    placement::Admission,
};
use talka_proto::{
    convert::{credit_bytes, id_bytes},
    wire,
};

/// Number of a final state on the wire.
const DONE: u32 = 1;
/// Likewise.
const FAILED: u32 = 2;

/// `served` are the bytes of the job's blobs that this coordinator sent.
pub(crate) fn job_info(job: &JobProgress, served: u64) -> wire::JobInfo {
    wire::JobInfo {
        job: job.job.get(),
        spec: Some((&job.submission.spec).into()),
        submitter: id_bytes(job.submission.submitter.as_bytes()),
        state: job.state as u32,
        submitted_millis: job.submitted.millis(),
        ended_millis: job.ended.map_or(0, talka_core::quantities::Timestamp::millis),
        tasks: job.tasks(),
        done: job.shard.done,
        failed: job.shard.failed,
        cancelled: job.cancelled(),
        running: job.open,
        attempts: job.shard.attempts,
        credit_nanos: credit_bytes(job.shard.credit),
        paused: job.standing.paused,
        priority: job.standing.priority.get(),
        provisional: job.shard.provisional,
        revoked: job.shard.revoked,
        request: job.submission.request.to_vec().into(),
        signature: job.submission.signature.map_or_else(Vec::new, Vec::from).into(),
        served_bytes: served,
        fetched_from_coordinator_bytes: job.fetched.from_coordinator.get(),
        fetched_from_peers_bytes: job.fetched.from_peers.get(),
        outputs_away: job.outputs_away,
        outputs_lost: job.outputs_lost,
    }
}

pub(crate) fn job_explanation(info: wire::JobInfo, view: JobView) -> wire::JobExplanation {
    wire::JobExplanation {
        info: Some(info),
        waits_for: view.waits_for,
        weight: view.weight.get(),
        before: view.before as u64,
        passed_over: view.passed_over.iter().map(passed_over).collect(),
    }
}

fn passed_over(group: &PassedOverGroup) -> wire::PassedOver {
    wire::PassedOver {
        reason: group.reason.code().into(),
        text: group.reason.to_string(),
        workers: group.workers as u64,
        peers: group.peers.iter().map(|peer| id_bytes(peer.as_bytes())).collect(),
    }
}

pub(crate) fn task_result(
    row: &FinalRow,
    spec: &JobSpec,
    input: String,
    provisional: bool,
    name_of: &dyn Fn(PeerNo) -> Option<PeerId>,
) -> wire::TaskResult {
    let (exit, digest, fuel) = match row.verdict {
        TaskVerdict::Agreed { digest, exit, fuel } => {
            (exit.to_code(), id_bytes(digest.as_bytes()), fuel.get())
        }
        TaskVerdict::NoAgreement | TaskVerdict::NoResult(_) => Default::default(),
    };
    let grant = |grant: &Grant| wire::Grant {
        peer: name_of(grant.peer).map(|peer| id_bytes(peer.as_bytes())).unwrap_or_default(),
        number: grant.number,
        agreed: grant.agreed,
        credit_nanos: credit_bytes(grant.credit),
    };
    let output = match &row.output {
        FinalOutput::Inline(output) => Some(wire::task_result::Output::Inlined(output.as_ref().into())),
        FinalOutput::Blob(blob) => Some(wire::task_result::Output::Blob((*blob).into())),
        FinalOutput::Nothing => None,
    };
    wire::TaskResult {
        position: row.task.index,
        index: spec.inputs.visible_index(row.task.index),
        input,
        state: if row.verdict.is_done() { DONE } else { FAILED },
        exit_kind: exit.0.into(),
        exit_number: exit.1,
        digest,
        fuel,
        attempts: row.attempts,
        grants: row.grants.iter().map(grant).collect(),
        output,
        reason: row.verdict.reason(),
        provisional,
        holders: vec![],
        output_lost: false,
    }
}

/// A task that is not final.
pub(crate) fn open_task(id: TaskId, spec: &JobSpec, input: String, view: TaskView) -> wire::TaskInfo {
    wire::TaskInfo {
        job: id.job.get(),
        position: id.index,
        index: spec.inputs.visible_index(id.index),
        input,
        state: view.state.to_string(),
        waits_for: view.waits_for,
        attempts: view.attempts.into_iter().map(attempt_info).collect(),
        result: None,
        passed_over: view.passed_over.iter().map(passed_over).collect(),
    }
}

/// A task that is final.
pub(crate) fn final_task(id: TaskId, result: wire::TaskResult) -> wire::TaskInfo {
    let state = if result.state == DONE { "done" } else { "failed" };
    wire::TaskInfo {
        job: id.job.get(),
        position: id.index,
        index: result.index,
        input: result.input.clone(),
        state: state.into(),
        waits_for: String::new(),
        attempts: vec![],
        result: Some(result),
        passed_over: vec![],
    }
}

fn attempt_info(view: AttemptView) -> wire::AttemptInfo {
    wire::AttemptInfo {
        number: view.number,
        peer: view.peer.map(|peer| id_bytes(peer.as_bytes())).unwrap_or_default(),
        state: view.state.into(),
        digest: view.digest.map(|digest| id_bytes(digest.as_bytes())).unwrap_or_default(),
        fuel: view.fuel.get(),
        detail: view.detail,
    }
}

/// A peer that is not here, of which the owner has said something.
pub(crate) fn absent_peer(peer: PeerId, admission: Admission) -> wire::PeerInfo {
    let peer = id_bytes(peer.as_bytes());
    wire::PeerInfo { peer, admission: admission as u32, ..Default::default() }
}

/// `served` are the bytes that this coordinator sent to it. What checks have shown of a worker would tell it which of its
/// results were checked, so that is for the owner alone.
pub(crate) fn peer_info(worker: &WorkerView, served: u64, for_operator: bool) -> wire::PeerInfo {
    let reputation = || wire::Reputation {
        checks: worker.record.checks,
        caught: worker.record.caught,
        established: worker.established,
        in_flight_max: u32::try_from(worker.in_flight_max).unwrap_or(u32::MAX),
    };
    wire::PeerInfo {
        peer: id_bytes(worker.peer.as_bytes()),
        connected: worker.connected,
        capacity: Some(worker.capacity.into()),
        in_flight: u32::try_from(worker.in_flight).unwrap_or(u32::MAX),
        last_seen_millis: worker.last_seen.millis(),
        admission: worker.admission as u32,
        reputation: for_operator.then(reputation),
        served_bytes: served,
    }
}
