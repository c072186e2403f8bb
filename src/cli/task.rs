//! `talka task …`.
//!
//! A task is named `JOB/INDEX` with the index that its program is told, which is also the name of its
//! result file. On the wire tasks are counted from 0; only an array that starts elsewhere shows the difference.

use std::{process::ExitCode, str::FromStr};

use clap::{Args, Subcommand};
use talka_core::limits;
use talka_proto::wire::{self, job_spec::Inputs};

use super::{CoordinatorFlags, job::steer::passed_over};
use crate::{
    client::{self, Client},
    error::{Code, Failure},
    jobs,
    output::Out,
    selector::{Selector, parse_number},
    view::TaskView,
};

/// Commands about tasks. A task is JOB/INDEX, as in 7/12 or last/0.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// List the tasks of a job.
    #[command(after_help = "Example:\n  talka task list last --state failed")]
    List(ListFlags),
    /// Show a task, its executions and its result.
    #[command(after_help = "Example:\n  talka task info 7/12")]
    Info(TaskFlags),
    /// Say what a task waits for.
    #[command(after_help = "Example:\n  talka task explain last/0")]
    Explain(TaskFlags),
}

/// `talka task list`.
#[derive(Debug, Args)]
pub(crate) struct ListFlags {
    /// Which job: a number or last.
    #[arg(value_name = "JOB")]
    job: Selector,
    /// Only tasks in this state: queued, running, validating, done, failed or cancelled.
    #[arg(long, value_name = "STATE", env = "TALKA_STATE", value_parser = STATES)]
    state: Option<String>,
    /// Index of the first task to list.
    #[arg(long, value_name = "INDEX", env = "TALKA_FROM")]
    from: Option<u64>,
    /// How many tasks to list.
    #[arg(long, value_name = "NUMBER", default_value_t = 100, env = "TALKA_LIMIT")]
    limit: usize,
    #[command(flatten)]
    coordinator: CoordinatorFlags,
}

/// What a task may be filtered by.
const STATES: [&str; 6] = ["queued", "running", "validating", "done", "failed", "cancelled"];

/// One task.
#[derive(Debug, Args)]
pub(crate) struct TaskFlags {
    /// Which task: JOB/INDEX, where JOB may be last.
    #[arg(value_name = "JOB/INDEX")]
    task: TaskName,
    #[command(flatten)]
    coordinator: CoordinatorFlags,
}

/// A task as the user names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TaskName {
    /// 0 is the newest job, as on the wire.
    pub(super) job: u64,
    /// What the program is told.
    pub(super) index: u64,
}

impl FromStr for TaskName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (job, index) = text.split_once('/')?;
            let job = if job == "last" { 0 } else { parse_number(job).filter(|job| *job > 0)? };
            Some(Self { job, index: parse_number(index)? })
        };
        parse().ok_or_else(|| "name a task as JOB/INDEX, as in 7/12 or last/0".to_owned())
    }
}

impl TaskCommand {
    pub(crate) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let flags = match &self {
            Self::List(flags) => &flags.coordinator,
            Self::Info(flags) | Self::Explain(flags) => &flags.coordinator,
        };
        let client = Client::connect(flags).await?;
        let result = match &self {
            Self::List(flags) => list(&client, out, flags).await,
            Self::Info(flags) => info(&client, out, flags.task).await,
            Self::Explain(flags) => explain(&client, out, flags.task).await,
        };
        client.close().await;
        result.map(|()| ExitCode::SUCCESS)
    }
}

async fn list(client: &Client, out: Out, flags: &ListFlags) -> anyhow::Result<()> {
    let [job] = &jobs::select(client, &flags.job).await?[..] else {
        return Err(Failure::new(Code::Usage, "tasks are of one job: give its number, or last").into());
    };
    let mut from = flags.from.map_or(Ok(0), |index| position(job, index))?;
    let mut tasks: Vec<TaskView> = Vec::new();
    while tasks.len() < flags.limit {
        let left = flags.limit - tasks.len();
        // With a filter most rows may fall away, so ask for whole pages.
        let limit = if flags.state.is_some() { limits::PAGE_ROWS_MAX as usize } else { left };
        let limit = u32::try_from(limit).unwrap_or(u32::MAX).min(limits::PAGE_ROWS_MAX);
        let request = wire::TasksRequest { job: job.job, from, limit };
        let page = client::unary(client.jobs().tasks(request)).await?.tasks;
        let Some(last) = page.last() else { break };
        from = last.position.max(from) + 1;
        let wanted = |task: &&wire::TaskInfo| flags.state.as_ref().is_none_or(|state| *state == task.state);
        tasks.extend(page.iter().filter(wanted).take(left).map(TaskView::from));
    }
    if out.is_json() {
        return out.json(&tasks);
    }
    let row = |task: TaskView| {
        let result = task.result.as_ref();
        let digest = result.and_then(|result| result.digest.as_deref()).and_then(|text| text.get(..16));
        let reason = result.and_then(|result| result.reason.clone());
        [
            task.task,
            task.state,
            result.map_or_else(|| task.attempts.len().to_string(), |result| result.attempts.to_string()),
            digest.unwrap_or_default().to_owned(),
            task.input.clone().unwrap_or_default(),
            reason.or(task.waits_for).unwrap_or_default(),
        ]
    };
    out.table(["task", "state", "attempts", "digest", "input", "about"], tasks.into_iter().map(row))
}

async fn info(client: &Client, out: Out, name: TaskName) -> anyhow::Result<()> {
    let view = fetch(client, name).await?;
    if out.is_json() {
        return out.json(&view);
    }
    if out.is_quiet() {
        return out.line(format!("{} {}", view.task, view.state));
    }
    let result = view.result.as_ref();
    out.fields([
        ("task", view.task.clone()),
        ("input", view.input.clone().unwrap_or_default()),
        ("state", view.state.clone()),
        ("waits for", view.waits_for.clone().unwrap_or_default()),
        ("digest", result.and_then(|result| result.digest.clone()).unwrap_or_default()),
        ("fuel", result.map(|result| result.fuel.to_string()).unwrap_or_default()),
        ("attempts", result.map(|result| result.attempts.to_string()).unwrap_or_default()),
        ("agreed", result.map(|result| result.peers.join(" ")).unwrap_or_default()),
        ("reason", result.and_then(|result| result.reason.clone()).unwrap_or_default()),
    ])?;
    if view.attempts.is_empty() {
        return Ok(());
    }
    let row = |attempt: crate::view::AttemptView| {
        [
            attempt.number.to_string(),
            attempt.peer.get(..10).unwrap_or(&attempt.peer).to_owned(),
            attempt.state,
            attempt.digest.as_deref().and_then(|digest| digest.get(..16)).unwrap_or_default().to_owned(),
            attempt.detail.unwrap_or_default(),
        ]
    };
    out.table(["attempt", "peer", "state", "digest", "about"], view.attempts.into_iter().map(row))
}

async fn explain(client: &Client, out: Out, name: TaskName) -> anyhow::Result<()> {
    let view = fetch(client, name).await?;
    if out.is_json() {
        let waits_for = view.waits_for.as_deref();
        return out.json(&serde_json::json!({
            "task": view.task, "state": view.state, "waits_for": waits_for, "passed_over": view.passed_over,
        }));
    }
    out.line(explanation(&view))?;
    if out.is_quiet() {
        return Ok(());
    }
    passed_over(&view.passed_over).try_for_each(|line| out.line(line))
}

/// One sentence.
fn explanation(view: &TaskView) -> String {
    let (task, state) = (&view.task, &view.state);
    let Some(result) = &view.result else {
        let waits_for = view.waits_for.as_ref().map(|waits_for| format!(": {waits_for}"));
        return format!("task {task} is {state}{}", waits_for.unwrap_or_default());
    };
    let agreed =
        result.digest.as_deref().and_then(|digest| digest.get(..16)).map(|digest| {
            format!("{} of {} attempts agreed on {digest}", result.peers.len(), result.attempts)
        });
    let parts: Vec<&str> = result.reason.iter().chain(&agreed).map(String::as_str).collect();
    format!("task {task} is {state}: {}", parts.join("; "))
}

async fn fetch(client: &Client, name: TaskName) -> anyhow::Result<TaskView> {
    let job = client::unary(client.jobs().get(wire::JobRequest { job: name.job })).await?;
    let request = wire::TaskRequest { job: job.job, position: position(&job, name.index)? };
    let task = client::unary(client.jobs().explain(request)).await?;
    Ok(TaskView::from(&task))
}

/// Where the task that is told `index` stands in its job.
pub(super) fn position(job: &wire::JobInfo, index: u64) -> Result<u64, Failure> {
    let first = match job.spec.as_ref().and_then(|spec| spec.inputs.as_ref()) {
        Some(Inputs::Array(array)) => array.first,
        _ => 0,
    };
    index.checked_sub(first).filter(|position| *position < job.tasks).ok_or_else(|| {
        let last = first.saturating_add(job.tasks.saturating_sub(1));
        Failure::new(Code::NotFound, format!("job {} has tasks {first} to {last}, not {index}", job.job))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_named_by_job_and_visible_index() {
        assert_eq!("7/12".parse(), Ok(TaskName { job: 7, index: 12 }));
        assert_eq!("last/1_000".parse(), Ok(TaskName { job: 0, index: 1000 }));
        for wrong in ["7", "7/", "/1", "0/1", "7/12/1", "all/1", "7/-1"] {
            assert!(wrong.parse::<TaskName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_explanation_says_what_was_agreed_or_what_is_missing() {
        let mut info = wire::TaskInfo { job: 7, index: 3, state: "queued".into(), ..Default::default() };
        info.waits_for = "a free worker".into();
        assert_eq!(explanation(&TaskView::from(&info)), "task 7/3 is queued: a free worker");
        let grant = wire::Grant { agreed: true, ..Default::default() };
        info.state = "failed".into();
        info.result = Some(wire::TaskResult {
            exit_kind: 1,
            exit_number: 3,
            digest: vec![0xab; 32].into(),
            attempts: 3,
            grants: vec![grant.clone(), grant],
            reason: "exit code 3".into(),
            ..Default::default()
        });
        assert_eq!(
            explanation(&TaskView::from(&info)),
            "task 7/3 is failed: exit code 3; 2 of 3 attempts agreed on abababababababab"
        );
    }

    #[test]
    fn an_array_that_starts_elsewhere_is_counted_from_there() {
        let array = wire::ArrayInputs { first: 100, count: 10 };
        let spec = wire::JobSpec { inputs: Some(Inputs::Array(array)), ..Default::default() };
        let job = wire::JobInfo { job: 7, tasks: 10, spec: Some(spec), ..Default::default() };
        assert_eq!(position(&job, 103).expect("in the array"), 3);
        for outside in [0, 99, 110] {
            let error = position(&job, outside).expect_err("outside").to_string();
            assert_eq!(error, format!("job 7 has tasks 100 to 109, not {outside}"));
        }
    }
}
