//! A `talka` command: run to its end, and what it said.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

use serde_json::Value;

use super::{
    network::Machine,
    server::Guard,
    wait::{LONG, until},
};

/// A command that is about to be run.
#[derive(Debug)]
pub(crate) struct Talka {
    command: Command,
    home: PathBuf,
}

/// A command that runs beside the test.
#[derive(Debug)]
pub(crate) struct Running {
    guard: Guard,
    shown: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    status: ExitStatus,
    shown: String,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Talka {
    /// `talka` with arguments, in a home of its own.
    pub(crate) fn new<I: AsRef<OsStr>>(home: &Path, args: impl IntoIterator<Item = I>) -> Self {
        Self::program(Path::new(env!("CARGO_BIN_EXE_talka")), home, args)
    }

    /// Another program in the same world.
    pub(super) fn program<I: AsRef<OsStr>>(
        program: &Path,
        home: &Path,
        args: impl IntoIterator<Item = I>,
    ) -> Self {
        let mut command = Command::new(program);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("TALKA_") {
                command.env_remove(variable);
            }
        }
        command
            .args(args)
            .current_dir(home)
            .env("HOME", home)
            .env("XDG_RUNTIME_DIR", home.join("run"))
            .env("XDG_DATA_HOME", home.join("share"))
            .env("XDG_CACHE_HOME", home.join("cache"))
            .stdin(Stdio::null());
        Self { command, home: home.to_owned() }
    }

    /// One more argument.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// More arguments.
    pub(crate) fn args<I: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = I>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The same on another machine.
    pub(crate) fn inside(self, machine: &Machine) -> Self {
        let prefix = machine.prefix();
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).arg(self.command.get_program()).args(self.command.get_args());
        command.current_dir(&self.home).stdin(Stdio::null());
        for (variable, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(variable, value),
                None => command.env_remove(variable),
            };
        }
        Self { command, home: self.home }
    }

    /// What it reads from its standard input.
    pub(crate) fn stdin(mut self, bytes: &[u8]) -> Self {
        let path = self.fresh("in");
        std::fs::write(&path, bytes).expect("a writable home");
        self.command.stdin(File::open(path).expect("just written"));
        self
    }

    /// The command itself, for servers.
    pub(super) fn into_command(self) -> (Command, PathBuf) {
        (self.command, self.home)
    }

    /// Runs it to its end.
    #[track_caller]
    pub(crate) fn run(self) -> Ended {
        self.spawn().wait()
    }

    /// Starts it.
    #[track_caller]
    pub(crate) fn spawn(mut self) -> Running {
        // Into files, so that no pipe can fill up.
        let (stdout, stderr) = (self.fresh("stdout"), self.fresh("stderr"));
        let create = |path: &Path| File::create(path).expect("a writable home");
        self.command.stdout(create(&stdout)).stderr(create(&stderr));
        let words = self.command.get_args().map(|arg| arg.to_string_lossy().into_owned());
        let shown = words.collect::<Vec<_>>().join(" ");
        let child = self.command.spawn().unwrap_or_else(|error| panic!("talka {shown}: {error}"));
        Running { guard: Guard(child), shown, stdout, stderr }
    }

    fn fresh(&self, what: &str) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.home.join(OsString::from(format!(".command-{number}.{what}")))
    }
}

impl Running {
    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Ended {
        let what = format!("talka {} to end", self.shown);
        let child = &mut self.guard.0;
        let status = until(&what, LONG, || child.try_wait().expect("a child"));
        let read = |path: &Path| std::fs::read(path).expect("its output");
        let stderr = String::from_utf8_lossy(&read(&self.stderr)).into_owned();
        Ended { status, shown: self.shown.clone(), stdout: read(&self.stdout), stderr }
    }
}

impl Ended {
    /// Its exit code; a signal is none.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Itself, if it succeeded.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        self.exits(0)
    }

    /// Itself, if it ended with this code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code(),
            Some(code),
            "talka {}\nstdout: {}\nstderr: {}",
            self.shown,
            self.text(),
            self.stderr
        );
        self
    }

    /// What it printed.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The one JSON value that it printed.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        self.parse(&self.text())
    }

    /// The JSON values that it printed, one on each line.
    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| self.parse(line)).collect()
    }

    #[track_caller]
    fn parse(&self, text: &str) -> Value {
        serde_json::from_str(text).unwrap_or_else(|error| {
            panic!("talka {}: {error}\nstdout: {text}\nstderr: {}", self.shown, self.stderr)
        })
    }

    /// Code and message of the error that it printed under `--json`.
    #[track_caller]
    pub(crate) fn error(&self) -> (String, String) {
        assert_ne!(self.code(), Some(0), "talka {} succeeded: {}", self.shown, self.text());
        let value = self.json();
        let object = value.as_object().expect("an object");
        assert_eq!(object.len(), 1, "{value}");
        (super::text(&value["error"], "code"), super::text(&value["error"], "message"))
    }
}
