//! One `talka` process: started, waited for until it is ready, watched, and stopped.

use std::{
    ffi::OsString,
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Take},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// From the start of a process to its first line.
const READY_MAX: Duration = Duration::from_secs(20);
/// From the request to stop to the end: longer than a worker takes to drain.
const STOP_MAX: Duration = Duration::from_secs(8);
/// What a process may say on standard output.
const STDOUT_BYTES_MAX: u64 = 64 << 10;
/// Lines of a log that are shown when its process ended by itself.
const LOG_LINES_SHOWN: usize = 10;

/// The first line of a coordinator or worker under `--json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Ready {
    /// Its key.
    pub(crate) peer: String,
    /// A coordinator's ticket.
    pub(crate) ticket: Option<String>,
}

/// A child process. It never outlives this one: its standard input is a pipe that nobody writes to, and at
/// whose end it stops (`--until-eof`), whatever happened to this process.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    /// Held apart from the child, because waiting for that would close it.
    _stdin: ChildStdin,
    stdout: BufReader<Take<ChildStdout>>,
    log: PathBuf,
}

impl Process {
    /// Starts `talka` with `args`. Its log goes to a file named after it below `dir`.
    pub(crate) fn start(
        name: &str,
        dir: &Path,
        args: impl IntoIterator<Item = OsString>,
    ) -> anyhow::Result<Self> {
        let doing = || format!("cannot start {name}");
        let executable = std::env::current_exe().with_context(doing)?;
        let log = dir.join(format!("{}.log", name.replace(' ', "-")));
        let stderr = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut command = Command::new(executable);
        for (variable, _) in std::env::vars_os() {
            // The user's own grid is another one.
            if variable.to_string_lossy().starts_with("TALKA_") && variable != "TALKA_LOG" {
                command.env_remove(variable);
            }
        }
        command
            .args(args)
            .args(["--json", "--until-eof"])
            // Not listed among the coordinators that commands find by themselves.
            .env("XDG_RUNTIME_DIR", dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            // Ctrl-C is for whoever started it, who then stops the processes in order.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().with_context(doing)?;
        let stdin = child.stdin.take().with_context(doing)?;
        let stdout = child.stdout.take().with_context(doing)?;
        let stdout = BufReader::new(stdout.take(STDOUT_BYTES_MAX));
        Ok(Self { name: name.to_owned(), child, _stdin: stdin, stdout, log })
    }

    /// Its name, for people.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its number, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<Ready> {
        let mut line = String::new();
        let read = tokio::time::timeout(READY_MAX, self.stdout.read_line(&mut line)).await;
        match read {
            Ok(Ok(0)) => Err(self.ended().await),
            Ok(Ok(_)) => serde_json::from_str(&line)
                .with_context(|| format!("{} said something unexpected: {}", self.name, line.trim())),
            Ok(Err(error)) => Err(error).with_context(|| format!("cannot read from {}", self.name)),
            Err(_) => bail!("{} was not ready within {} s", self.name, READY_MAX.as_secs()),
        }
    }

    /// Waits for it to end, which it should not do unasked; the error says what its log says.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        let how = match self.child.wait().await {
            Ok(status) => how(status),
            Err(error) => format!("is lost: {error}"),
        };
        // The log is small: a process that ends early has not said much.
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        anyhow!("{} {how}\n{}", self.name, tail.join("\n"))
    }

    /// Asks it to stop, and makes it stop when it does not. Returns whether it obeyed.
    pub(crate) async fn stop(mut self) -> anyhow::Result<bool> {
        let doing = format!("cannot stop {}", self.name);
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Not waited for yet, so the number is still this child's.
            kill_process(pid, Signal::TERM).with_context(|| doing.clone())?;
        }
        if let Ok(status) = tokio::time::timeout(STOP_MAX, self.child.wait()).await {
            status.context(doing)?;
            return Ok(true);
        }
        self.child.kill().await.context(doing)?;
        Ok(false)
    }
}

fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended by itself with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended by itself".to_owned(),
    }
}
