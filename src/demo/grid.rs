//! The processes of the demo together, and the proof that none of them is left.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use futures_util::future::{join_all, select_all};
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, wait},
};

use super::screen::Screen;
use crate::process::Process;

/// How long orphans of the stopped processes may take to notice that they are alone.
const ORPHANS_MAX: Duration = Duration::from_secs(3);
/// How often is looked whether they have.
const ORPHANS_PAUSE: Duration = Duration::from_millis(10);

/// A coordinator and its workers.
#[derive(Debug)]
pub(super) struct Grid {
    dir: PathBuf,
    /// The coordinator first.
    processes: Vec<Process>,
    workers: Vec<String>,
}

/// How the end of the grid went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stopped {
    /// Processes that stopped when they were asked to.
    pub(super) gracefully: usize,
    /// Processes that had to be killed.
    pub(super) killed: usize,
}

impl Grid {
    /// A grid in `dir` without processes.
    pub(super) fn new(dir: &Path) -> anyhow::Result<Self> {
        // Whatever a child leaves behind becomes a child of this process, and so can't be missed.
        set_child_subreaper(Some(getpid())).context("cannot adopt orphaned processes")?;
        Ok(Self { dir: dir.to_owned(), processes: Vec::new(), workers: Vec::new() })
    }

    /// Starts everybody; returns the coordinator's ticket when all are ready.
    pub(super) async fn start(&mut self, workers: usize, screen: &Screen) -> anyhow::Result<String> {
        let mut args = words("coordinator start --bind 127.0.0.1:0");
        args.extend(["--data-dir".into(), self.dir.join("coordinator").into()]);
        let coordinator = Process::start("coordinator", &self.dir, args)?;
        self.processes.push(coordinator);
        let ready = self.processes[0].ready().await?;
        let ticket = ready.ticket.context("the coordinator told no ticket")?;
        screen.say(format!("coordinator is up: {}", short(&ready.peer)));
        for number in 1..=workers {
            let mut args = words("worker start --cpus 1 --bind 127.0.0.1:0");
            let dir = self.dir.join(format!("worker-{number}"));
            args.extend(["--data-dir".into(), dir.into(), "--ticket".into(), ticket.clone().into()]);
            self.processes.push(Process::start(&format!("worker {number}"), &self.dir, args)?);
        }
        for worker in &mut self.processes[1..] {
            let ready = worker.ready().await?;
            screen.say(format!("{} is up: {}", worker.name(), short(&ready.peer)));
            self.workers.push(ready.peer);
        }
        Ok(ticket)
    }

    /// The workers' keys, in the order of their numbers.
    pub(super) fn workers(&self) -> Vec<String> {
        self.workers.clone()
    }

    /// Waits for a process to end, which none should do unasked.
    pub(super) async fn first_to_end(&mut self) -> anyhow::Error {
        let ends = self.processes.iter_mut().map(|process| Box::pin(process.ended()));
        select_all(ends).await.0
    }

    /// Stops everybody, the workers first so that they can say goodbye, and makes sure that nobody is left.
    pub(super) async fn stop(self) -> anyhow::Result<Stopped> {
        let mut processes = self.processes.into_iter();
        let coordinator = processes.next();
        let mut obeyed = join_all(processes.map(Process::stop)).await;
        if let Some(coordinator) = coordinator {
            obeyed.push(coordinator.stop().await);
        }
        let killed_orphans = end_orphans().await?;
        let mut stopped = Stopped { gracefully: 0, killed: killed_orphans };
        for obeyed in obeyed {
            *(if obeyed? { &mut stopped.gracefully } else { &mut stopped.killed }) += 1;
        }
        Ok(stopped)
    }
}

/// Waits until this process has no children any more. Those that do not end by themselves are killed;
/// returns how many.
async fn end_orphans() -> anyhow::Result<usize> {
    let mut patience = Instant::now() + ORPHANS_MAX;
    let mut killed = 0;
    loop {
        match wait(WaitOptions::NOHANG) {
            Err(Errno::CHILD) => return Ok(killed),
            // One more is buried.
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) if Instant::now() < patience => tokio::time::sleep(ORPHANS_PAUSE).await,
            Ok(None) if killed == 0 => {
                let orphans = children().context("cannot list the processes that are left")?;
                killed = orphans.len();
                for orphan in orphans {
                    // It may have ended in this very moment, which is as well.
                    let _ = kill_process(orphan, Signal::KILL);
                }
                patience = Instant::now() + ORPHANS_MAX;
            }
            Ok(None) => bail!("{killed} processes can't be killed"),
            Err(error) => return Err(error).context("cannot wait for the processes that are left"),
        }
    }
}

/// The children of this process, adopted ones included.
fn children() -> std::io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("children"))?;
        found.extend(text.split_whitespace().filter_map(|id| id.parse().ok().and_then(Pid::from_raw)));
    }
    Ok(found)
}

fn words(command: &str) -> Vec<OsString> {
    command.split(' ').map(OsString::from).collect()
}

/// The part of a key that people look at.
fn short(peer: &str) -> &str {
    peer.get(..10).unwrap_or(peer)
}
