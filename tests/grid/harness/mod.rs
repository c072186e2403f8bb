//! A grid that a test owns, and what it takes to use it.

#![allow(dead_code, unused_imports, reason = "several test programs share it, and each uses a part")]

mod command;
mod guests;
mod network;
mod server;
mod wait;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

pub(crate) use self::{
    command::{Ended, Talka},
    guests::Guest,
    network::Network,
    server::Server,
    wait::{LONG, until},
};

/// A temporary home with a coordinator and workers in it. Commands that are run with [`Grid::talka`] find the
/// coordinator by themselves, because it is the only one in this home.
pub(crate) struct Grid {
    home: TempDir,
    flags: Vec<String>,
    /// Variables of the coordinator.
    variables: Vec<(&'static str, PathBuf)>,
    coordinator: Server,
    ticket: String,
    workers: usize,
}

impl Grid {
    /// A coordinator alone.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// A coordinator with further flags.
    pub(crate) fn start_with(flags: &[&str]) -> Self {
        Self::start_in(flags, &[])
    }

    /// A coordinator with further flags and variables.
    pub(crate) fn start_in(flags: &[&str], variables: &[(&'static str, PathBuf)]) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        let variables = variables.to_vec();
        let coordinator = Server::start(coordinator(home.path(), &flags, &variables), "coordinator");
        let ticket = text(coordinator.ready(), "ticket");
        Self { home, flags, variables, coordinator, ticket, workers: 0 }
    }

    /// A coordinator and workers of one slot each.
    pub(crate) fn with_workers(count: usize) -> (Self, Vec<Server>) {
        let mut grid = Self::start();
        let workers = (0..count).map(|_| grid.start_worker()).collect();
        (grid, workers)
    }

    /// One more worker. It stops when the value goes away.
    pub(crate) fn start_worker(&mut self) -> Server {
        self.start_worker_with(&[])
    }

    /// One more worker, with further flags.
    pub(crate) fn start_worker_with(&mut self, flags: &[&str]) -> Server {
        let dir = self.worker_dir();
        self.worker_in(dir, self.workers, flags)
    }

    /// One more worker, with further flags and variables.
    pub(crate) fn start_worker_in(&mut self, flags: &[&str], variables: &[(&str, PathBuf)]) -> Server {
        let dir = self.worker_dir();
        let talka = self.worker_command(dir, flags);
        let talka = variables.iter().fold(talka, |talka, (name, value)| talka.env(name, value));
        Server::start(talka, &format!("worker-{}", self.workers))
    }

    /// The data directory of a worker: they are numbered from 1.
    pub(crate) fn worker_data(&self, number: usize) -> PathBuf {
        self.path(&format!("worker-{number}"))
    }

    /// What a worker has said so far.
    pub(crate) fn worker_log(&self, number: usize) -> String {
        std::fs::read_to_string(self.path(&format!("worker-{number}.log"))).unwrap_or_default()
    }

    /// What a worker says of itself.
    pub(crate) fn worker_status(&self, number: usize) -> Value {
        let dir = self.worker_data(number);
        self.json(["worker", "status", "--data-dir", dir.to_str().expect("UTF-8")])
    }

    /// A worker that has ended, once more.
    pub(crate) fn restart_worker(&self, number: usize) -> Server {
        self.restart_worker_with(number, &[])
    }

    /// The same with further flags.
    pub(crate) fn restart_worker_with(&self, number: usize, flags: &[&str]) -> Server {
        self.worker_in(self.path(&format!("worker-{number}")), number, flags)
    }

    /// One more worker, which was told of no coordinator.
    pub(crate) fn start_worker_without_ticket(&mut self, flags: &[&str]) -> Server {
        let dir = self.worker_dir();
        let args = ["worker", "start", "--cpus", "1", "--bind", "127.0.0.1:0"];
        let talka = self.talka(args).arg("--data-dir").arg(dir).args(flags);
        Server::start(talka, &format!("worker-{}", self.workers))
    }

    fn worker_in(&self, dir: PathBuf, number: usize, flags: &[&str]) -> Server {
        Server::start(self.worker_command(dir, flags), &format!("worker-{number}"))
    }

    fn worker_command(&self, dir: PathBuf, flags: &[&str]) -> Talka {
        let args = ["worker", "start", "--cpus", "1", "--bind", "127.0.0.1:0"];
        let ticket: &[&str] = if flags.contains(&"--ticket") { &[] } else { &["--ticket", &self.ticket] };
        self.talka(args).args(ticket).arg("--data-dir").arg(dir).args(flags)
    }

    /// One more worker, which lies about every result.
    pub(crate) fn start_liar(&mut self) -> Server {
        self.start_liar_who("always")
    }

    /// One more worker, which lies as this habit says.
    pub(crate) fn start_liar_who(&mut self, habit: &str) -> Server {
        let dir = self.worker_dir();
        let talka =
            Talka::program(&example("lying_worker"), self.home.path(), [&self.ticket]).arg(dir).arg(habit);
        Server::start(talka, &format!("liar-{}", self.workers))
    }

    fn worker_dir(&mut self) -> PathBuf {
        self.workers += 1;
        self.home.path().join(format!("worker-{}", self.workers))
    }

    /// A command in this home.
    pub(crate) fn talka<I: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Talka {
        Talka::new(self.home.path(), args)
    }

    /// The value that a command prints under `--json`; the command must succeed.
    pub(crate) fn json<I: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Value {
        // In front: what follows `--` is the guest's.
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        let args: Vec<_> = std::iter::once("--json".into()).chain(args).collect();
        self.talka(args).run().success().json()
    }

    /// The home, for files of the test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes a file into the home and returns its path.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("a writable home");
        path
    }

    /// The coordinator's ticket.
    pub(crate) fn ticket(&self) -> &str {
        &self.ticket
    }

    /// The coordinator's data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.path("coordinator")
    }

    /// What the coordinator said when it was ready.
    pub(crate) fn ready(&self) -> &Value {
        self.coordinator.ready()
    }

    /// Kills the coordinator as a power cut would, and starts it again on what is on the disk.
    pub(crate) fn restart_coordinator(&mut self) {
        self.coordinator.kill();
        self.start_coordinator_again();
    }

    /// Starts the coordinator, which has ended, on what is on the disk.
    pub(crate) fn start_coordinator_again(&mut self) {
        let talka = coordinator(self.home.path(), &self.flags, &self.variables);
        self.coordinator = Server::start(talka, "coordinator");
    }

    /// Waits until the coordinator fails by itself; returns what it said.
    pub(crate) fn until_coordinator_fails(&mut self) -> String {
        self.coordinator.until_it_fails()
    }

    /// Starts the coordinator, which must refuse; returns what it said.
    #[track_caller]
    pub(crate) fn coordinator_refuses_to_start(&self) -> String {
        coordinator(self.home.path(), &self.flags, &self.variables).run().exits(1).stderr
    }

    /// Kills the coordinator for good.
    pub(crate) fn kill_coordinator(&mut self) {
        self.coordinator.kill();
    }

    /// A job as it is now.
    pub(crate) fn job(&self, job: u64) -> Value {
        self.json(["job", "info", &job.to_string()])
    }

    /// The final tasks of a job, as they are listed now.
    pub(crate) fn results(&self, job: u64) -> Vec<Value> {
        let listed = self.talka(["job", "results", &job.to_string(), "--json"]).run();
        listed.json_lines()
    }

    /// Credit by peer.
    pub(crate) fn credit(&self) -> Vec<Credit> {
        let rows = self.json(["credit", "list"]);
        let rows = rows.as_array().expect("a list");
        rows.iter()
            .map(|row| Credit {
                peer: text(row, "peer"),
                amount: row["credit"].as_f64().expect("a number"),
                validated: number(row, "validated"),
                invalid: number(row, "invalid"),
            })
            .collect()
    }
}

/// A relay for whoever comes, on loopback.
#[derive(Debug)]
pub(crate) struct Relay {
    _home: TempDir,
    _server: Server,
    /// What peers are told.
    pub(crate) url: String,
}

impl Relay {
    pub(crate) fn start() -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let args =
            ["relay", "start", "--listen", "127.0.0.1:0", "--rate", "64MiB", "--token", "open-sesame-1"];
        let server = Server::start(Talka::new(home.path(), args), "relay");
        let url = text(server.ready(), "url");
        Self { _home: home, _server: server, url }
    }
}

/// A row of `talka credit list`.
#[derive(Debug)]
pub(crate) struct Credit {
    pub(crate) peer: String,
    pub(crate) amount: f64,
    pub(crate) validated: u64,
    pub(crate) invalid: u64,
}

fn coordinator(home: &Path, flags: &[String], variables: &[(&str, PathBuf)]) -> Talka {
    let args = ["coordinator", "start", "--bind", "127.0.0.1:0", "--data-dir"];
    let talka = Talka::new(home, args).arg(home.join("coordinator")).args(flags);
    variables.iter().fold(talka, |talka, (name, value)| talka.env(name, value))
}

/// A field that must be a text.
#[track_caller]
pub(crate) fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("{field} is no text in {value}")).to_owned()
}

/// A field that must be a whole number.
#[track_caller]
pub(crate) fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("{field} is no number in {value}"))
}

/// The SHA-256 of some bytes, as `sha256sum` prints it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let hex = |mut text: String, byte: &u8| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    };
    Sha256::digest(bytes).iter().fold(String::new(), hex)
}

/// A module of the sample tasks.
pub(crate) fn sample(name: &str) -> String {
    format!("{}/sample-tasks/wasm/{name}.wasm", env!("CARGO_MANIFEST_DIR"))
}

/// An example of this package, which `cargo test` builds beside the binary.
fn example(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_talka")).parent().expect("a folder");
    let path = folder.join("examples").join(name);
    assert!(path.exists(), "{} is missing; `cargo test` builds it", path.display());
    path
}
