//! A process that serves until it is stopped.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, ExitStatus, Stdio},
    sync::mpsc,
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{
    command::Talka,
    wait::{LONG, until},
};

/// Bytes of a log that are shown when a test fails.
const LOG_SHOWN_BYTES: usize = 4 << 10;

/// A child that is killed and buried when the test is over, however it ends.
#[derive(Debug)]
pub(super) struct Guard(pub(super) Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended long ago.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A coordinator or a worker that is ready.
#[derive(Debug)]
pub(crate) struct Server {
    guard: Guard,
    name: String,
    log: PathBuf,
    ready: Value,
    /// What it says on its standard output after that.
    lines: mpsc::Receiver<String>,
}

impl Server {
    /// Starts it and waits for the line that says that it is ready.
    #[track_caller]
    pub(crate) fn start(talka: Talka, name: &str) -> Self {
        let (mut command, home) = talka.into_command();
        let log = home.join(format!("{name}.log"));
        // Its standard input ends when this process does, and then it stops.
        command.args(["--json", "--until-eof"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let file = File::options().create(true).append(true).open(&log).expect("a writable home");
        command.stderr(file);
        let mut guard = Guard(command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}")));
        let stdout = guard.0.stdout.take().expect("a pipe");
        let (lines, received) = mpsc::channel();
        // Reads on to the end, so that the server never meets a closed pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                drop(lines.send(line));
            }
        });
        let mut server = Self { guard, name: name.to_owned(), log, ready: Value::Null, lines: received };
        let line = server.lines.recv_timeout(LONG);
        let line = line.unwrap_or_else(|error| panic!("{name} was not ready: {error}\n{}", server.log()));
        server.ready = serde_json::from_str(&line).expect("JSON");
        server
    }

    /// What it said when it was ready.
    pub(crate) fn ready(&self) -> &Value {
        &self.ready
    }

    /// Its process.
    pub(crate) fn process(&self) -> u32 {
        self.guard.0.id()
    }

    /// Its key.
    pub(crate) fn peer(&self) -> String {
        super::text(&self.ready, "peer")
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.guard.0.kill().expect("a running process");
        self.guard.0.wait().expect("a child");
    }

    /// Asks it to stop and waits until it has.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let pid = i32::try_from(self.guard.0.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::TERM).expect("a running process");
        self.ends()
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> ExitStatus {
        let child = &mut self.guard.0;
        until(&format!("{} to stop", self.name), LONG, || child.try_wait().expect("a child"))
    }

    /// Waits until it ends with an error of its own; returns its log and the error.
    #[track_caller]
    pub(super) fn until_it_fails(&mut self) -> String {
        let child = &mut self.guard.0;
        let status = until(&format!("{} to fail", self.name), LONG, || child.try_wait().expect("a child"));
        // The channel closes when the output has been read to its end.
        let log = self.log() + &self.lines.iter().collect::<Vec<_>>().join("\n");
        assert_eq!(status.code(), Some(1), "{log}");
        log
    }

    fn log(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let tail = &text[text.len().saturating_sub(LOG_SHOWN_BYTES)..];
        format!("--- end of the log of {}\n{}", self.name, String::from_utf8_lossy(tail))
    }
}

impl Drop for Server {
    #[expect(clippy::print_stderr, reason = "what a failed test has to say")]
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}
