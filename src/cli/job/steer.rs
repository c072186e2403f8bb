//! `talka job pause|resume|priority|explain`: what people change of running jobs, and why a job waits.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use talka_core::precedence::Priority;
use talka_proto::wire;

use super::{CoordinatorFlags, print_json};
use crate::{
    client::{self, Client},
    jobs,
    output::Out,
    selector::Selector,
    view::{self, JobExplanationView, JobView, PassedOverView},
};

/// `talka job priority`.
#[derive(Debug, Args)]
pub(crate) struct PriorityFlags {
    /// Which jobs: 5, 1-3,7, 2-10:2, last or all.
    #[arg(value_name = "JOBS")]
    pub(super) jobs: Selector,
    /// From -100 to 100; jobs begin with 0.
    #[arg(value_name = "NUMBER", allow_negative_numbers = true, value_parser = priority)]
    pub(super) priority: Priority,
    #[command(flatten)]
    pub(super) coordinator: CoordinatorFlags,
}

fn priority(text: &str) -> Result<Priority, String> {
    let number: i64 = text.parse().map_err(|_| "a priority is a whole number".to_owned())?;
    Priority::new(number).map_err(|error| error.to_string())
}

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Pause,
    Resume,
    Priority(Priority),
}

/// `job pause --json` and its like.
#[derive(Debug, Serialize)]
struct ChangedView {
    job: u64,
    state: String,
    paused: bool,
    priority: i32,
}

impl Change {
    async fn apply(self, client: &Client, job: u64) -> anyhow::Result<wire::JobInfo> {
        let request = wire::JobRequest { job };
        let info = match self {
            Self::Pause => client::unary(client.jobs().pause(request)).await?,
            Self::Resume => client::unary(client.jobs().resume(request)).await?,
            Self::Priority(priority) => {
                let request = wire::PriorityRequest { job, priority: priority.get() };
                client::unary(client.jobs().set_priority(request)).await?
            }
        };
        Ok(info)
    }

    /// One sentence about a job that was changed.
    fn text(self, job: u64) -> String {
        match self {
            Self::Pause => format!(
                "job {job} is paused: what runs may finish, nothing more is handed out; go on with: talka job \
                 resume {job}"
            ),
            Self::Resume => format!("job {job} goes on"),
            Self::Priority(priority) => format!("job {job} has priority {}", priority.get()),
        }
    }
}

/// Changes the jobs that have not ended; says so of those that have.
pub(super) async fn change(
    client: &Client,
    out: Out,
    selector: &Selector,
    change: Change,
) -> anyhow::Result<ExitCode> {
    let mut views = Vec::new();
    for before in jobs::select(client, selector).await? {
        let had_ended = view::is_final(&before);
        let info = if had_ended { before } else { change.apply(client, before.job).await? };
        let JobView { job, state, paused, priority, .. } = JobView::new(&info, info.ended_millis);
        if out.is_quiet() {
            out.line(job)?;
        } else if !out.is_json() && had_ended {
            out.line(format!("job {job} was {state} already: nothing to change"))?;
        } else if !out.is_json() {
            out.line(change.text(job))?;
        }
        views.push(ChangedView { job, state, paused, priority });
    }
    if out.is_json() {
        print_json(out, selector, views)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what jobs wait for.
pub(super) async fn explain(client: &Client, out: Out, selector: &Selector) -> anyhow::Result<ExitCode> {
    let mut views = Vec::new();
    for info in jobs::select(client, selector).await? {
        let request = wire::JobRequest { job: info.job };
        let view = JobExplanationView::from(&client::unary(client.jobs().explain_job(request)).await?);
        if out.is_quiet() {
            out.line(format!("{} {}", view.job, view.waits_for.as_deref().unwrap_or(&view.state)))?;
        } else if !out.is_json() {
            explanation(&view).iter().try_for_each(|line| out.line(line))?;
        }
        views.push(view);
    }
    if out.is_json() {
        print_json(out, selector, views)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A sentence, and a line for each thing that holds the job up.
fn explanation(view: &JobExplanationView) -> Vec<String> {
    let JobExplanationView { job, state, .. } = view;
    let Some(waits_for) = &view.waits_for else {
        return vec![format!("job {job} is {state}: it waits for nothing")];
    };
    let mut lines = if view.paused {
        vec![format!("job {job} is paused; go on with: talka job resume {job}")]
    } else {
        vec![format!("job {job} is {state}: {waits_for}")]
    };
    let before = match view.before {
        0 => String::new(),
        before => format!("; {before} job(s) of the same submitter go first"),
    };
    lines.push(format!("  priority {}, weight of its submitter {}{before}", view.priority, view.weight));
    lines.extend(passed_over(&view.passed_over));
    lines
}

/// A line for each reason for which workers get nothing.
pub(crate) fn passed_over(groups: &[PassedOverView]) -> impl Iterator<Item = String> {
    groups.iter().map(|group| {
        let short = group.peers.iter().map(|peer| peer.get(..10).unwrap_or(peer));
        let mut peers: Vec<&str> = short.collect();
        if group.workers > peers.len() as u64 {
            peers.push("…");
        }
        format!("  {} worker(s) get nothing now: {} ({})", group.workers, group.text, peers.join(" "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_in_range_are_priorities() {
        assert_eq!(priority("-100").map(Priority::get), Ok(-100));
        for (wrong, part) in [("101", "between -100 and 100"), ("high", "whole number"), ("", "whole number")]
        {
            let error = priority(wrong).expect_err(wrong);
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn an_explanation_names_what_holds_a_job_up() {
        let mut info = wire::JobInfo { job: 5, state: 1, priority: -3, ..Default::default() };
        let full = wire::PassedOver {
            reason: "full".into(),
            text: "it holds enough work".into(),
            workers: 2,
            peers: vec![vec![0xab; 32].into()],
        };
        let mut explained = wire::JobExplanation {
            info: Some(info.clone()),
            waits_for: "a free slot: 2 worker(s) could take it".into(),
            weight: 1,
            before: 4,
            passed_over: vec![full],
        };
        assert_eq!(
            explanation(&JobExplanationView::from(&explained)),
            [
                "job 5 is running: a free slot: 2 worker(s) could take it",
                "  priority -3, weight of its submitter 1; 4 job(s) of the same submitter go first",
                "  2 worker(s) get nothing now: it holds enough work (ababababab …)",
            ]
        );
        info.paused = true;
        explained = wire::JobExplanation { info: Some(info.clone()), passed_over: vec![], ..explained };
        let lines = explanation(&JobExplanationView::from(&explained));
        assert_eq!(lines[0], "job 5 is paused; go on with: talka job resume 5");
        // Of a job that has ended, the pause does not matter any more.
        info.state = 3;
        explained = wire::JobExplanation { info: Some(info), waits_for: String::new(), ..explained };
        let lines = explanation(&JobExplanationView::from(&explained));
        assert_eq!(lines, ["job 5 is cancelled: it waits for nothing"]);
    }
}
