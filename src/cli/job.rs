//! `talka job …`.

pub(crate) mod steer;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand, builder::FalseyValueParser};
use serde::Serialize;
use talka_core::{
    outcome::Output,
    quantities::{Bytes, Fuel},
};
use talka_proto::wire;

use self::steer::Change;
use super::CoordinatorFlags;
use crate::{
    client::{self, Client},
    collect::Collector,
    error::{Code, Failure},
    format, jobs,
    output::{Out, printable},
    progress::JobBar,
    selector::Selector,
    view::{self, JobView, SpecView, Summary},
    watch,
};

/// Commands about jobs. JOBS is 5, 1-3,7, 2-10:2, last or all.
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// List jobs, the newest last.
    #[command(after_help = "Example:\n  talka job list --json | jq '.[] | select(.failed > 0)'")]
    List(ListFlags),
    /// Show everything about jobs.
    #[command(after_help = "Example:\n  talka job info last")]
    Info(JobsFlags),
    /// Wait until jobs have ended.
    #[command(after_help = "Example:\n  talka job wait 1-3 && echo all done\n\n\
        Exit code: 0 when every task of every job is done, 1 otherwise.")]
    Wait(JobsFlags),
    /// Watch jobs until they have ended.
    #[command(after_help = "Example:\n  talka job progress last\n\n\
        With --json: one line whenever the job changes.\n\
        Exit code: 0 when every task of every job is done, 1 otherwise.")]
    Progress(JobsFlags),
    /// Cancel jobs: what is not final by then never will be.
    #[command(after_help = "Example:\n  talka job cancel last")]
    Cancel(JobsFlags),
    /// Pause jobs: what runs may finish, nothing more is handed out.
    #[command(after_help = "Example:\n  talka job pause 1-3")]
    Pause(JobsFlags),
    /// Go on with jobs that were paused.
    #[command(after_help = "Example:\n  talka job resume all")]
    Resume(JobsFlags),
    /// Move jobs among those of their submitter: higher priority goes first, then age.
    #[command(after_help = "Example:\n  talka job priority last 10")]
    Priority(steer::PriorityFlags),
    /// Say what jobs wait for, and why workers get nothing of them now.
    #[command(after_help = "Example:\n  talka job explain last")]
    Explain(JobsFlags),
    /// List the results of a job, or write them into a directory.
    #[command(after_help = "Example:\n  talka job results last --follow -o results/\n\n\
        DIR/<index>.out is the standard output of a task, DIR/<index>/NAME its /out files, DIR/<index>.err the\n\
        log of one that failed, and DIR/results.jsonl has a line for each.")]
    Results(ResultsFlags),
}

/// `talka job list`.
#[derive(Debug, Args)]
pub(crate) struct ListFlags {
    /// How many of the newest jobs.
    #[arg(long, value_name = "NUMBER", default_value_t = 100, env = "TALKA_LIMIT")]
    limit: u64,
    #[command(flatten)]
    coordinator: CoordinatorFlags,
}

/// A selection of jobs.
#[derive(Debug, Args)]
pub(crate) struct JobsFlags {
    /// Which jobs: 5, 1-3,7, 2-10:2, last or all.
    #[arg(value_name = "JOBS")]
    jobs: Selector,
    #[command(flatten)]
    coordinator: CoordinatorFlags,
}

/// `talka job results`.
#[derive(Debug, Args)]
pub(crate) struct ResultsFlags {
    /// Which job: a number or last.
    #[arg(value_name = "JOB")]
    job: Selector,
    /// Write the results into this directory.
    #[arg(long, short, value_name = "DIR", env = "TALKA_OUT_DIR")]
    out_dir: Option<PathBuf>,
    /// Wait for more until the job has ended.
    #[arg(long, env = "TALKA_FOLLOW", value_parser = FalseyValueParser::new())]
    follow: bool,
    /// Leave out results that rest on one worker's word until its next check. With --follow they always are.
    #[arg(long = "final", env = "TALKA_FINAL", value_parser = FalseyValueParser::new())]
    final_only: bool,
    #[command(flatten)]
    coordinator: CoordinatorFlags,
}

/// `job info --json`.
#[derive(Debug, Serialize)]
struct InfoView {
    #[serde(flatten)]
    job: JobView,
    spec: Option<SpecView>,
}

/// `job cancel --json`.
#[derive(Debug, Serialize)]
struct CancelView {
    job: u64,
    state: String,
    cancelled: u64,
}

impl JobCommand {
    pub(crate) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let flags = match &self {
            Self::List(flags) => &flags.coordinator,
            Self::Info(flags)
            | Self::Wait(flags)
            | Self::Progress(flags)
            | Self::Cancel(flags)
            | Self::Pause(flags)
            | Self::Resume(flags)
            | Self::Explain(flags) => &flags.coordinator,
            Self::Priority(flags) => &flags.coordinator,
            Self::Results(flags) => &flags.coordinator,
        };
        let client = Client::connect(flags).await?;
        let code = match &self {
            Self::List(flags) => list(&client, out, flags.limit).await,
            Self::Info(flags) => info(&client, out, &flags.jobs).await,
            Self::Wait(flags) => wait(&client, out, &flags.jobs, false).await,
            Self::Progress(flags) => wait(&client, out, &flags.jobs, true).await,
            Self::Cancel(flags) => cancel(&client, out, &flags.jobs).await,
            Self::Pause(flags) => steer::change(&client, out, &flags.jobs, Change::Pause).await,
            Self::Resume(flags) => steer::change(&client, out, &flags.jobs, Change::Resume).await,
            Self::Priority(flags) => {
                steer::change(&client, out, &flags.jobs, Change::Priority(flags.priority)).await
            }
            Self::Explain(flags) => steer::explain(&client, out, &flags.jobs).await,
            Self::Results(flags) => results(&client, out, flags).await,
        };
        client.close().await;
        code
    }
}

async fn list(client: &Client, out: Out, limit: u64) -> anyhow::Result<ExitCode> {
    let mut jobs = jobs::newest(client, limit).await?;
    jobs.reverse();
    let now = client::now_millis();
    let views: Vec<JobView> = jobs.iter().map(|info| JobView::new(info, now)).collect();
    if out.is_json() {
        out.json(&views)?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |view: JobView| {
        [
            view.job.to_string(),
            view.shown_state().to_owned(),
            view.priority.to_string(),
            view.name,
            view.tasks.to_string(),
            view.done.to_string(),
            view.failed.to_string(),
            format!("{:.3}", view.credit),
            view.submitted,
        ]
    };
    out.table(
        ["job", "state", "priority", "name", "tasks", "done", "failed", "credit", "submitted"],
        views.into_iter().map(row),
    )?;
    Ok(ExitCode::SUCCESS)
}

async fn info(client: &Client, out: Out, selector: &Selector) -> anyhow::Result<ExitCode> {
    let now = client::now_millis();
    let infos = jobs::select(client, selector).await?;
    if out.is_quiet() {
        infos.iter().try_for_each(|info| {
            let view = JobView::new(info, now);
            out.line(format!("{} {}", view.job, view.shown_state()))
        })?;
    } else if out.is_json() {
        let views = infos.iter().map(|info| InfoView {
            job: JobView::new(info, now),
            spec: info.spec.as_ref().map(SpecView::from),
        });
        print_json(out, selector, views.collect())?;
    } else {
        for info in &infos {
            print_info(out, info, now)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_info(out: Out, info: &wire::JobInfo, now: u64) -> anyhow::Result<()> {
    let job = JobView::new(info, now);
    let mut rows = vec![
        ("job", job.job.to_string()),
        ("state", job.shown_state().to_owned()),
        ("priority", job.priority.to_string()),
        ("name", job.name),
        (
            "tasks",
            format!("{}: {} done, {} failed, {} cancelled", job.tasks, job.done, job.failed, job.cancelled),
        ),
        (
            "certainty",
            format!(
                "{} final, {} provisional; {} taken back and done again",
                job.settled, job.provisional, job.revoked
            ),
        ),
        ("running", job.running.to_string()),
        ("attempts", job.attempts.to_string()),
        (
            "data",
            format!(
                "{} sent by the coordinator; workers say: {} from it, {} from each other",
                Bytes::new(job.served_bytes),
                Bytes::new(job.fetched_from_coordinator_bytes),
                Bytes::new(job.fetched_from_peers_bytes)
            ),
        ),
        (
            "outputs",
            format!(
                "{} with workers that are away, {} lost and computed again",
                job.outputs_away, job.outputs_lost
            ),
        ),
        ("credit", view::credit(&info.credit_nanos).to_string()),
        ("submitter", job.submitter),
        ("submitted", job.submitted),
        ("ended", job.ended.unwrap_or_else(|| "not yet".into())),
        ("wall time", format::span(job.wall_secs).to_string()),
    ];
    if let Some(spec) = info.spec.as_ref().map(SpecView::from) {
        let env: Vec<String> = spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        rows.extend([
            ("bundle", spec.bundle),
            ("inputs", spec.inputs),
            ("args", format!("{:?}", spec.args)),
            ("env", env.join(" ")),
            ("data", spec.datasets.join(" ")),
            ("memory", Bytes::new(spec.memory_bytes).to_string()),
            ("fuel", format::grouped(Fuel::new(spec.fuel))),
            ("output", Bytes::new(spec.output_bytes).to_string()),
            ("deadline", format::span(spec.deadline_secs).to_string()),
            spec.error_rate.zip(spec.liars).map_or_else(
                || ("quorum", spec.quorum.to_string()),
                |(error, liars)| ("error rate", format!("{error}, if no more than {liars} of newcomers lie")),
            ),
            ("seed", spec.seed.to_string()),
            ("on", if spec.on.is_empty() { "any peer".into() } else { spec.on.join(" ") }),
        ]);
    }
    out.fields(rows)
}

async fn wait(client: &Client, out: Out, selector: &Selector, live: bool) -> anyhow::Result<ExitCode> {
    let selected = jobs::select(client, selector).await?;
    let mut ended = Vec::with_capacity(selected.len());
    for info in &selected {
        let bar = live.then(|| JobBar::new(out));
        let info = watch::until_final(client, info.job, out, |info| {
            if let Some(bar) = &bar {
                bar.update(info);
            }
            if live && out.is_json() { out.json(&JobView::new(info, client::now_millis())) } else { Ok(()) }
        })
        .await?;
        if let Some(bar) = bar {
            bar.clear();
        }
        if !out.is_json() {
            print_end(out, &info)?;
        }
        if info.failed > 0 {
            Collector::new(client, out, info.job).show_failures().await?;
        }
        ended.push(info);
    }
    if out.is_json() && !live {
        print_json(out, selector, ended.iter().map(Summary::from).collect())?;
    }
    Ok(if ended.iter().all(view::is_success) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One line about a job that has ended.
pub(crate) fn print_end(out: Out, info: &wire::JobInfo) -> anyhow::Result<()> {
    let summary = Summary::from(info);
    let state = JobView::new(info, info.ended_millis).state;
    if out.is_quiet() {
        return out.line(format!("{} {state}", summary.job));
    }
    let Summary { job, tasks, done, failed, cancelled, attempts, wall_secs } = summary;
    let part = |count: u64, word: &str| if count > 0 { format!(", {count} {word}") } else { String::new() };
    let others = part(failed, "failed") + &part(cancelled, "cancelled");
    let span = format::span(wall_secs);
    out.line(format!(
        "job {job} {state}: {done} of {tasks} tasks done{others} in {span} ({attempts} attempts)"
    ))
}

async fn cancel(client: &Client, out: Out, selector: &Selector) -> anyhow::Result<ExitCode> {
    let mut views = Vec::new();
    for before in jobs::select(client, selector).await? {
        let had_ended = view::is_final(&before);
        let request = wire::JobRequest { job: before.job };
        let info = if had_ended { before } else { client::unary(client.jobs().cancel(request)).await? };
        let state = JobView::new(&info, info.ended_millis).state;
        if out.is_quiet() {
            out.line(info.job)?;
        } else if !out.is_json() {
            out.line(cancel_text(&info, &state, had_ended))?;
        }
        let cancelled = if had_ended { 0 } else { info.cancelled };
        views.push(CancelView { job: info.job, state, cancelled });
    }
    if out.is_json() {
        print_json(out, selector, views)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn cancel_text(info: &wire::JobInfo, state: &str, had_ended: bool) -> String {
    if had_ended {
        return format!("job {} was {state} already: nothing to cancel", info.job);
    }
    let (done, failed) = (info.done, info.failed);
    format!("job {}: cancelled {} tasks ({done} were done, {failed} failed)", info.job, info.cancelled)
}

async fn results(client: &Client, out: Out, flags: &ResultsFlags) -> anyhow::Result<ExitCode> {
    let [info] = &jobs::select(client, &flags.job).await?[..] else {
        let message = "results are of one job: give its number, or last";
        return Err(Failure::new(Code::Usage, message).into());
    };
    let job = info.job;
    let Some(dir) = &flags.out_dir else {
        return print_results(client, out, job, flags).await;
    };
    let collector = Collector::new(client, out, job).final_only(flags.final_only);
    let count = collector.into_dir(dir, flags.follow, &|print| print()).await?;
    let info = client::unary(client.jobs().get(wire::JobRequest { job })).await?;
    if out.is_json() {
        out.json(&serde_json::json!({ "job": job, "results": count, "dir": dir }))?;
    } else if out.is_quiet() {
        out.line(count)?;
    } else {
        out.line(format!("{count} of {} results of job {job} are in {}", info.tasks, dir.display()))?;
    }
    Ok(if info.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn print_results(
    client: &Client,
    out: Out,
    job: u64,
    flags: &ResultsFlags,
) -> anyhow::Result<ExitCode> {
    let mut failed = false;
    let print = |result: &wire::TaskResult, _: &Output| {
        let line = view::result_line(result);
        failed |= !view::is_done(result);
        if out.is_json() {
            return out.json(&line);
        }
        if out.is_quiet() {
            return out.line(format!("{} {}", line.index, line.state));
        }
        let certainty = if line.output_lost {
            " (output lost)"
        } else if line.provisional {
            " (provisional)"
        } else {
            ""
        };
        let digest = line.digest.as_deref().and_then(|digest| digest.get(..16)).unwrap_or("-");
        let about = printable(&line.reason.or(line.input).unwrap_or_default());
        out.line(
            format!("{job}/{} {}{certainty} {digest} {} {about}", line.index, line.state, line.fuel)
                .trim_end(),
        )
    };
    let collector = Collector::new(client, out, job).final_only(flags.final_only);
    collector.each(flags.follow, false, print).await?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// One value: the object when the user meant one job, an array otherwise.
fn print_json<T: Serialize>(out: Out, selector: &Selector, mut views: Vec<T>) -> anyhow::Result<()> {
    match views.pop() {
        Some(view) if selector.is_one() && views.is_empty() => out.json(&view),
        last => {
            views.extend(last);
            out.json(&views)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancel_says_how_much_it_cancelled() {
        let info = wire::JobInfo { job: 5, cancelled: 37, done: 60, failed: 3, ..Default::default() };
        assert_eq!(
            cancel_text(&info, "cancelled", false),
            "job 5: cancelled 37 tasks (60 were done, 3 failed)"
        );
        assert_eq!(cancel_text(&info, "finished", true), "job 5 was finished already: nothing to cancel");
    }
}
