//! Commands to the worker that runs on this machine.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use talka_core::{
    duty::CpuPercent,
    ids::PeerId,
    limits,
    quantities::{Bytes, Fuel, Span},
};
use talka_worker::control::{AskError, Pause, Request, SlotState, SlotStatus, State, Status, ask};

use crate::{
    client::now_millis,
    error::{Code, Failure},
    format::{ago, grouped, iso8601},
    output::Out,
    paths,
    problems::Problems,
};

/// Which worker is meant.
#[derive(Debug, Default, Args)]
pub(crate) struct DirFlags {
    /// The worker's data directory [default: ~/.local/share/talka/worker].
    #[arg(long, value_name = "DIR", env = "TALKA_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

/// `talka worker pause`.
#[derive(Debug, Args)]
pub(crate) struct PauseFlags {
    /// How long, as in 2h or 1h 30m [default: until further notice].
    #[arg(long = "for", value_name = "TIME", env = "TALKA_FOR")]
    span: Option<String>,
    #[command(flatten)]
    dir: DirFlags,
}

/// `talka worker set`.
#[derive(Debug, Args)]
pub(crate) struct SetFlags {
    /// Share of each processor to use, 1 to 100.
    #[arg(long, value_name = "PERCENT", env = "TALKA_CPU_PERCENT")]
    cpu_percent: Option<String>,
    #[command(flatten)]
    dir: DirFlags,
}

impl DirFlags {
    async fn ask(self, request: Request) -> anyhow::Result<Status> {
        let dir = paths::data_dir(self.data_dir, "worker")?;
        ask(&dir, request).await.map_err(failure)
    }

    pub(super) async fn status(self, out: Out) -> anyhow::Result<()> {
        let status = self.ask(Request::Status {}).await?;
        if out.is_json() || out.is_quiet() {
            return brief(out, &status, "");
        }
        out.fields(fields(&status, now_millis()))?;
        out.table(["slot", "state", "task", "attempt", "progress"], status.slots.iter().map(row))
    }

    pub(super) async fn resume(self, out: Out) -> anyhow::Result<()> {
        let status = self.ask(Request::Resume {}).await?;
        brief(out, &status, "the worker goes on; thank you")
    }

    pub(super) async fn finish(self, out: Out) -> anyhow::Result<()> {
        let status = self.ask(Request::Finish {}).await?;
        let busy = status.slots.iter().filter(|slot| slot.task.is_some()).count();
        let waits =
            if status.pause.is_some() { "; it is paused, so go on first: talka worker resume" } else { "" };
        brief(
            out,
            &status,
            &format!("the worker takes nothing new and ends after {busy} running task(s){waits}"),
        )
    }
}

impl PauseFlags {
    pub(super) async fn pause(self, out: Out) -> anyhow::Result<()> {
        let mut problems = Problems::default();
        let span: Option<Span> = problems.optional("--for", self.span.as_deref());
        if span.is_some_and(|Span(span)| span.as_secs() == 0 || span > limits::PAUSE_MAX) {
            let days = limits::PAUSE_MAX.as_secs() / 86_400;
            problems.add(format!("--for must be 1s to {days}d; without it, a pause has no end"));
        }
        let span = problems.into_result(span)?;
        let request = Request::Pause { for_secs: span.map(|Span(span)| span.as_secs()) };
        let status = self.dir.ask(request).await?;
        let until = status.pause.map(|pause| until(&pause)).unwrap_or_default();
        let note = format!("paused {until}; what runs stays in memory. Go on with: talka worker resume");
        brief(out, &status, &note)
    }
}

impl SetFlags {
    pub(super) async fn set(self, out: Out) -> anyhow::Result<()> {
        let mut problems = Problems::default();
        let percent: Option<CpuPercent> = problems.optional("--cpu-percent", self.cpu_percent.as_deref());
        if self.cpu_percent.is_none() {
            problems.add("there is nothing to set; give --cpu-percent");
        }
        let cpu_percent = problems.into_result(percent)?.unwrap_or(CpuPercent::ALL);
        let status = self.dir.ask(Request::Set { cpu_percent }).await?;
        brief(out, &status, &format!("the worker uses {} of each of its processors", status.cpu_percent))
    }
}

/// The whole status as JSON, its word for scripts, a sentence for people.
fn brief(out: Out, status: &Status, sentence: &str) -> anyhow::Result<()> {
    if out.is_json() {
        out.json(status)
    } else if out.is_quiet() {
        out.line(word(status.state))
    } else {
        out.line(sentence)
    }
}

fn failure(error: AskError) -> anyhow::Error {
    let code = match &error {
        AskError::NotRunning(_) => {
            let remedy =
                "start one with talka worker start, or name its directory with --data-dir (TALKA_DATA_DIR)";
            return Failure::new(Code::NoWorker, format!("{error}; {remedy}")).into();
        }
        AskError::Connect { .. } => Code::Io,
        AskError::Silent => Code::Unreachable,
        AskError::Answer(_) => Code::Internal,
        AskError::Refused(refused) => match refused.code.as_str() {
            "limit" => Code::Limit,
            "io" => Code::Io,
            "stopping" => Code::Unreachable,
            _ => Code::Refused,
        },
    };
    Failure::new(code, format!("{:#}", anyhow::Error::from(error))).into()
}

fn word(state: State) -> &'static str {
    match state {
        State::Paused => "paused",
        State::Finishing => "finishing",
        State::Working => "working",
        State::Idle => "idle",
        State::Disconnected => "disconnected",
    }
}

fn since(now_millis: u64, then_millis: u64) -> Span {
    Span(Duration::from_millis(now_millis.saturating_sub(then_millis)))
}

fn until(pause: &Pause) -> String {
    let end = pause.until_millis.map(|until| format!("until {}", iso8601(until)));
    end.unwrap_or_else(|| "until further notice".to_owned())
}

fn fields(status: &Status, now: u64) -> [(&'static str, String); 12] {
    let connection = &status.connection;
    let connected = if connection.connected { "connected" } else { "not connected" };
    let coordinator: Option<PeerId> = connection.coordinator.parse().ok();
    let coordinator = coordinator.map_or_else(|| connection.coordinator.clone(), |peer| peer.short());
    let pause = status.pause.as_ref();
    let traffic = status.fetched;
    [
        ("state", word(status.state).to_owned()),
        ("peer", status.peer.clone()),
        ("process", format!("{}, {}, started {}", status.pid, status.agent, ago(now, status.started_millis))),
        ("coordinator", format!("{coordinator}, {connected} for {}", since(now, connection.since_millis))),
        ("paused", pause.map(|pause| format!("by you, {}", until(pause))).unwrap_or_default()),
        (
            "finishing",
            if status.finishing { "ends when what runs is finished".into() } else { String::new() },
        ),
        ("share", format!("{} of each processor", status.cpu_percent)),
        ("waiting", format!("{} for a slot, {} for their data", status.queued, status.fetching)),
        ("done", format!("{}, and {} without a result", status.attempts_done, status.no_results)),
        ("fuel", grouped(Fuel::new(status.fuel_done))),
        (
            "fetched",
            format!(
                "{} from the coordinator, {} from other peers",
                Bytes::new(traffic.from_coordinator),
                Bytes::new(traffic.from_peers)
            ),
        ),
        ("disk", format!("{} of {}", Bytes::new(status.disk.used), Bytes::new(status.disk.quota))),
    ]
}

fn row(slot: &SlotStatus) -> [String; 5] {
    let state = match slot.state {
        SlotState::Running => "running",
        SlotState::Throttled => "throttled",
        SlotState::Paused => "paused",
        SlotState::Idle => "idle",
    };
    let task = slot.task.as_ref();
    let progress = task.and_then(|task| task.progress).map(|part| format!("{:.0} %", part * 100.0));
    [
        slot.slot.to_string(),
        state.to_owned(),
        task.map(|task| task.task.clone()).unwrap_or_default(),
        task.map(|task| task.attempt.to_string()).unwrap_or_default(),
        progress.unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use talka_worker::control::Refused;

    use super::*;

    #[test]
    fn an_error_says_what_to_do() {
        let check = |error: AskError, code: &str, part: &str| {
            let error = failure(error);
            assert_eq!(Failure::code_of(&error).name(), code, "{error}");
            assert!(error.to_string().contains(part), "{error}");
        };
        check(AskError::NotRunning("/somewhere".into()), "no-worker", "talka worker start");
        check(AskError::NotRunning("/somewhere".into()), "no-worker", "/somewhere");
        check(AskError::Silent, "unreachable", "does not answer");
        let refused =
            |code: &str| AskError::Refused(Refused { code: code.into(), message: "why not".into() });
        check(refused("limit"), "limit", "why not");
        check(refused("a new one"), "refused", "why not");
    }

    #[test]
    fn a_pause_says_how_long() {
        let pause = Pause { since_millis: 0, until_millis: None };
        assert_eq!(until(&pause), "until further notice");
        let pause = Pause { until_millis: Some(1_767_225_600_000), ..pause };
        assert_eq!(until(&pause), "until 2026-01-01T00:00:00.000Z");
    }
}
