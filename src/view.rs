//! The JSON forms of what a coordinator tells: stable names, ids as numbers or hexadecimal text, times in
//! ISO 8601, durations in float seconds.

use serde::Serialize;
use talka_core::{
    job::JobState,
    outcome::Exit,
    placement::Admission,
    quantities::{Bytes, Credit, Ppm},
};
use talka_proto::{convert, wire};

use crate::{
    format::{iso8601, peer_text, secs_between},
    output::printable,
    results::ResultLine,
};

/// A job, as `job list` and `job info` show it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct JobView {
    pub(crate) job: u64,
    pub(crate) name: String,
    pub(crate) state: String,
    /// Whether nothing of it is handed out for now; never so when it has ended.
    pub(crate) paused: bool,
    pub(crate) priority: i32,
    pub(crate) submitter: String,
    pub(crate) submitted: String,
    pub(crate) ended: Option<String>,
    /// From the submission to the end, or to `now`.
    pub(crate) wall_secs: f64,
    pub(crate) tasks: u64,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    /// Of those done and failed: what rests on one worker's word until its next check.
    pub(crate) provisional: u64,
    /// Of those done and failed: all others.
    #[serde(rename = "final")]
    pub(crate) settled: u64,
    /// Results that were accepted and taken back.
    pub(crate) revoked: u64,
    pub(crate) cancelled: u64,
    pub(crate) running: u64,
    pub(crate) attempts: u64,
    pub(crate) credit: f64,
    /// Bytes of its blobs that the coordinator sent, since it was started: a fact.
    pub(crate) served_bytes: u64,
    /// Bytes of its blobs that workers say they got from the coordinator, since it was started.
    pub(crate) fetched_from_coordinator_bytes: u64,
    /// The same from each other.
    pub(crate) fetched_from_peers_bytes: u64,
    /// Agreed outputs that can't be fetched now, because whoever has them is away.
    pub(crate) outputs_away: u64,
    /// Agreed outputs that were lost with whoever had them, since the coordinator was started: computed again.
    pub(crate) outputs_lost: u64,
}

/// The last line of `submit --wait --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) job: u64,
    pub(crate) tasks: u64,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    pub(crate) attempts: u64,
    pub(crate) wall_secs: f64,
}

impl JobView {
    pub(crate) fn new(info: &wire::JobInfo, now_millis: u64) -> Self {
        let ended = (info.ended_millis > 0).then_some(info.ended_millis);
        Self {
            job: info.job,
            name: info.spec.as_ref().map(|spec| printable(&spec.name)).unwrap_or_default(),
            state: job_state(info).map_or_else(|| "unknown".to_owned(), |state| state.to_string()),
            paused: info.paused && !is_final(info),
            priority: info.priority,
            submitter: peer_text(&info.submitter),
            submitted: iso8601(info.submitted_millis),
            ended: ended.map(iso8601),
            wall_secs: secs_between(info.submitted_millis, ended.unwrap_or(now_millis)),
            tasks: info.tasks,
            done: info.done,
            failed: info.failed,
            provisional: info.provisional,
            settled: (info.done + info.failed).saturating_sub(info.provisional),
            revoked: info.revoked,
            cancelled: info.cancelled,
            running: info.running,
            attempts: info.attempts,
            credit: credit(&info.credit_nanos).as_f64(),
            served_bytes: info.served_bytes,
            fetched_from_coordinator_bytes: info.fetched_from_coordinator_bytes,
            fetched_from_peers_bytes: info.fetched_from_peers_bytes,
            outputs_away: info.outputs_away,
            outputs_lost: info.outputs_lost,
        }
    }

    /// Its state for people, to whom a pause is one.
    pub(crate) fn shown_state(&self) -> &str {
        if self.paused { "paused" } else { &self.state }
    }
}

/// What a job waits for, as `job explain` shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct JobExplanationView {
    pub(crate) job: u64,
    pub(crate) state: String,
    pub(crate) paused: bool,
    pub(crate) priority: i32,
    pub(crate) waits_for: Option<String>,
    /// What its submitter weighs.
    pub(crate) weight: u32,
    /// Jobs of its submitter that go before it and have work.
    pub(crate) before: u64,
    pub(crate) passed_over: Vec<PassedOverView>,
}

impl From<&wire::JobExplanation> for JobExplanationView {
    fn from(explained: &wire::JobExplanation) -> Self {
        let info = explained.info.clone().unwrap_or_default();
        let JobView { job, state, paused, priority, .. } = JobView::new(&info, info.ended_millis);
        Self {
            job,
            state,
            paused,
            priority,
            waits_for: text(&explained.waits_for),
            weight: explained.weight,
            before: explained.before,
            passed_over: explained.passed_over.iter().map(PassedOverView::from).collect(),
        }
    }
}

/// Workers that get nothing of a job or a task now, for one reason.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PassedOverView {
    pub(crate) reason: String,
    pub(crate) text: String,
    pub(crate) workers: u64,
    /// Some of them.
    pub(crate) peers: Vec<String>,
}

impl From<&wire::PassedOver> for PassedOverView {
    fn from(group: &wire::PassedOver) -> Self {
        Self {
            reason: printable(&group.reason),
            text: printable(&group.text),
            workers: group.workers,
            peers: group.peers.iter().map(|peer| peer_text(peer)).collect(),
        }
    }
}

impl From<&wire::JobInfo> for Summary {
    /// Of a job that has ended.
    fn from(info: &wire::JobInfo) -> Self {
        Self {
            job: info.job,
            tasks: info.tasks,
            done: info.done,
            failed: info.failed,
            cancelled: info.cancelled,
            attempts: info.attempts,
            wall_secs: secs_between(info.submitted_millis, info.ended_millis),
        }
    }
}

/// What a job asked for, for `job info`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct SpecView {
    pub(crate) bundle: String,
    pub(crate) bundle_bytes: u64,
    pub(crate) inputs: String,
    pub(crate) input_bytes: u64,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) datasets: Vec<String>,
    pub(crate) memory_bytes: u64,
    pub(crate) fuel: u64,
    pub(crate) output_bytes: u64,
    pub(crate) deadline_secs: f64,
    pub(crate) quorum: u32,
    /// Instead of the quorum: wrong results among those that are accepted, at most.
    pub(crate) error_rate: Option<f64>,
    /// Liars among those that nothing is known of, as assumed.
    pub(crate) liars: Option<f64>,
    pub(crate) seed: u64,
    /// The only peers that get attempts; any when empty.
    pub(crate) on: Vec<String>,
}

impl From<&wire::JobSpec> for SpecView {
    fn from(spec: &wire::JobSpec) -> Self {
        use wire::job_spec::Inputs;
        let (inputs, input_bytes) = match &spec.inputs {
            Some(Inputs::Array(array)) => {
                let last = array.first.saturating_add(array.count.saturating_sub(1));
                (format!("array {}-{last}", array.first), 0)
            }
            Some(Inputs::Packed(packed)) => {
                let bytes = packed.data.as_ref().map_or(0, |blob| blob.size);
                (format!("{} inputs, {}", packed.count, Bytes::new(bytes)), bytes)
            }
            None => ("unknown".to_owned(), 0),
        };
        let variable = |variable: &wire::Variable| (variable.name.clone(), variable.value.clone());
        Self {
            bundle: spec.bundle.as_ref().map(|blob| peer_text(&blob.hash)).unwrap_or_default(),
            bundle_bytes: spec.bundle.as_ref().map_or(0, |blob| blob.size),
            inputs,
            input_bytes,
            args: spec.args.clone(),
            env: spec.env.iter().map(variable).collect(),
            datasets: spec.datasets.iter().map(|dataset| dataset.name.clone()).collect(),
            memory_bytes: spec.memory_bytes,
            fuel: spec.fuel,
            output_bytes: spec.output_bytes,
            deadline_secs: secs_between(0, spec.deadline_millis),
            quorum: spec.quorum,
            error_rate: (spec.error_ppm > 0).then(|| Ppm::new(spec.error_ppm).as_fraction()),
            liars: (spec.error_ppm > 0).then(|| Ppm::new(spec.liars_ppm).as_fraction()),
            seed: spec.seed,
            on: spec.on.iter().map(|peer| peer_text(peer)).collect(),
        }
    }
}

/// A task, as `task list` and `task info` show it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct TaskView {
    /// `JOB/INDEX`, with the index that the program is told.
    pub(crate) task: String,
    pub(crate) index: u64,
    pub(crate) input: Option<String>,
    pub(crate) state: String,
    pub(crate) waits_for: Option<String>,
    pub(crate) passed_over: Vec<PassedOverView>,
    pub(crate) attempts: Vec<AttemptView>,
    pub(crate) result: Option<ResultLine>,
}

/// One execution of a task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct AttemptView {
    pub(crate) number: u32,
    pub(crate) peer: String,
    pub(crate) state: String,
    pub(crate) digest: Option<String>,
    pub(crate) fuel: u64,
    pub(crate) detail: Option<String>,
}

impl From<&wire::TaskInfo> for TaskView {
    fn from(info: &wire::TaskInfo) -> Self {
        let attempt = |attempt: &wire::AttemptInfo| AttemptView {
            number: attempt.number,
            peer: peer_text(&attempt.peer),
            state: printable(&attempt.state),
            digest: digest_text(&attempt.digest),
            fuel: attempt.fuel,
            detail: text(&attempt.detail),
        };
        Self {
            task: format!("{}/{}", info.job, info.index),
            index: info.index,
            input: text(&info.input),
            state: printable(&info.state),
            waits_for: text(&info.waits_for),
            passed_over: info.passed_over.iter().map(PassedOverView::from).collect(),
            attempts: info.attempts.iter().map(attempt).collect(),
            result: info.result.as_ref().map(result_line),
        }
    }
}

/// A worker, as `peer list` shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PeerView {
    pub(crate) peer: String,
    pub(crate) connected: bool,
    pub(crate) slots: u32,
    pub(crate) cpus: u32,
    pub(crate) load_percent: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) free_memory_bytes: u64,
    pub(crate) fuel_per_sec: u64,
    pub(crate) in_flight: u32,
    pub(crate) queued: u32,
    pub(crate) fetching: u32,
    pub(crate) running: u32,
    pub(crate) fetched_from_coordinator_bytes: u64,
    pub(crate) fetched_from_peers_bytes: u64,
    /// Bytes that the coordinator sent to it: a fact, while the two above are what it says itself.
    pub(crate) served_bytes: u64,
    pub(crate) last_seen: String,
    pub(crate) admission: String,
    /// For the coordinator's owner alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reputation: Option<ReputationView>,
}

/// What a worker's votes have shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ReputationView {
    pub(crate) checks: u32,
    pub(crate) caught: u32,
    pub(crate) established: bool,
    pub(crate) in_flight_max: u32,
}

impl From<&wire::PeerInfo> for PeerView {
    fn from(info: &wire::PeerInfo) -> Self {
        let capacity = info.capacity.unwrap_or_default();
        Self {
            peer: peer_text(&info.peer),
            connected: info.connected,
            slots: capacity.slots,
            cpus: capacity.cpus,
            load_percent: capacity.load_percent,
            memory_bytes: capacity.memory_bytes,
            free_memory_bytes: capacity.free_memory_bytes,
            fuel_per_sec: capacity.fuel_per_sec,
            in_flight: info.in_flight,
            queued: capacity.queued,
            fetching: capacity.fetching,
            running: capacity.running,
            fetched_from_coordinator_bytes: capacity.fetched_from_coordinator_bytes,
            fetched_from_peers_bytes: capacity.fetched_from_peers_bytes,
            served_bytes: info.served_bytes,
            last_seen: iso8601(info.last_seen_millis),
            admission: admission(info).into(),
            reputation: info.reputation.map(|known| ReputationView {
                checks: known.checks,
                caught: known.caught,
                established: known.established,
                in_flight_max: known.in_flight_max,
            }),
        }
    }
}

/// What the coordinator's owner said of a peer.
fn admission(info: &wire::PeerInfo) -> &'static str {
    let admission = u8::try_from(info.admission).ok().and_then(Admission::from_code);
    admission.map_or("unknown", Admission::name)
}

/// Where a job stands; `None` for a state of a newer version.
pub(crate) fn job_state(info: &wire::JobInfo) -> Option<JobState> {
    u8::try_from(info.state).ok().and_then(JobState::from_code)
}

/// Whether nothing more will happen to a job.
pub(crate) fn is_final(info: &wire::JobInfo) -> bool {
    matches!(job_state(info), Some(JobState::Finished | JobState::Cancelled))
}

/// Whether every task is done.
pub(crate) fn is_success(info: &wire::JobInfo) -> bool {
    is_final(info) && info.done == info.tasks
}

/// Whether a final task is done, and not failed.
pub(crate) fn is_done(result: &wire::TaskResult) -> bool {
    let exit = convert::exit(result.exit_kind, result.exit_number);
    !result.digest.is_empty() && exit.is_ok_and(Exit::is_ok)
}

/// The line of a final task in `results.jsonl`.
pub(crate) fn result_line(result: &wire::TaskResult) -> ResultLine {
    let done = is_done(result);
    let agreed = result.grants.iter().filter(|grant| grant.agreed);
    ResultLine {
        index: result.index,
        input: (!result.input.is_empty()).then(|| result.input.clone()),
        state: if done { "done" } else { "failed" },
        provisional: result.provisional,
        output_lost: result.output_lost,
        digest: digest_text(&result.digest),
        fuel: result.fuel,
        attempts: result.attempts,
        peers: agreed.map(|grant| peer_text(&grant.peer)).collect(),
        reason: text(&result.reason).filter(|_| !done),
    }
}

/// Credit from the wire; a field that is broken counts as none.
pub(crate) fn credit(nanos: &bytes::Bytes) -> Credit {
    convert::credit(nanos).unwrap_or_default()
}

fn digest_text(digest: &bytes::Bytes) -> Option<String> {
    convert::result_digest(digest).ok().map(|digest| digest.to_string())
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| printable(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(exit: Exit, digest: &'static [u8]) -> wire::TaskResult {
        let (kind, number) = exit.to_code();
        wire::TaskResult {
            index: 103,
            exit_kind: kind.into(),
            exit_number: number,
            digest: bytes::Bytes::from_static(digest),
            reason: "why".into(),
            grants: vec![
                wire::Grant { peer: vec![1; 32].into(), agreed: true, ..Default::default() },
                wire::Grant { peer: vec![2; 32].into(), agreed: false, ..Default::default() },
            ],
            ..Default::default()
        }
    }

    #[test]
    fn a_task_is_done_only_when_peers_agree_that_the_program_succeeded() {
        let line = result_line(&result(Exit::Ok, &[7; 32]));
        assert_eq!((line.state, line.index, line.reason), ("done", 103, None));
        assert_eq!(line.peers, ["01".repeat(32)]);
        let failed = result_line(&result(Exit::Code(3), &[7; 32]));
        assert_eq!((failed.state, failed.reason.as_deref()), ("failed", Some("why")));
        assert_eq!(result_line(&result(Exit::Ok, b"")).state, "failed");
    }

    #[test]
    fn the_summary_is_what_scripts_rely_on() {
        let info = wire::JobInfo {
            job: 5,
            state: JobState::Finished as u32,
            submitted_millis: 1000,
            ended_millis: 3500,
            tasks: 10,
            done: 9,
            failed: 1,
            attempts: 21,
            ..Default::default()
        };
        let json = serde_json::to_string(&Summary::from(&info)).expect("json");
        assert_eq!(
            json,
            r#"{"job":5,"tasks":10,"done":9,"failed":1,"cancelled":0,"attempts":21,"wall_secs":2.5}"#
        );
        assert!(is_final(&info) && !is_success(&info));
    }
}
