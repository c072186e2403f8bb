//! The coordinator that is measured: a process of its own, in a directory of its own, on loopback.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use talka_coordinator_peer::store::sqlite::FILE as STORE_FILE;
use talka_peer::ticket::Ticket;
use tempfile::TempDir;

use crate::process::Process;

/// See the [module](self). What it keeps goes away with this value.
#[derive(Debug)]
pub(super) struct Subject {
    process: Process,
    ticket: Ticket,
    dir: TempDir,
}

/// What a process has used since it began.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    /// On all processors together, the kernel's work for it included.
    pub(super) cpu: Duration,
    /// Memory that it has now.
    pub(super) rss_bytes: u64,
    /// The most that it ever had.
    pub(super) rss_peak_bytes: u64,
}

impl Subject {
    /// Starts a coordinator and waits until it serves.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("talka-bench-").context("cannot create a temporary directory")?;
        Self::start_in(dir).await
    }

    /// Where a coordinator in `dir` has its data.
    pub(super) fn dir_in(dir: &TempDir) -> PathBuf {
        dir.path().join("coordinator")
    }

    /// The same with what an earlier one has left in `dir`.
    pub(super) async fn start_in(dir: TempDir) -> anyhow::Result<Self> {
        let mut args = words("coordinator start --bind 127.0.0.1:0");
        args.extend(["--data-dir".into(), Self::dir_in(&dir).into()]);
        let mut process = Process::start("coordinator", dir.path(), args)?;
        let ready = process.ready().await?;
        let ticket = ready.ticket.context("the coordinator told no ticket")?;
        let ticket = ticket.parse().context("the coordinator's ticket is of no use")?;
        Ok(Self { process, ticket, dir })
    }

    /// How it is reached, by those who may submit.
    pub(super) fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Starts a worker of one slot for it and waits until it is connected.
    pub(super) async fn start_worker(&self, number: usize) -> anyhow::Result<Process> {
        let mut args = words("worker start --cpus 1 --bind 127.0.0.1:0");
        let dir = self.dir.path().join(format!("worker-{number}"));
        args.extend(["--data-dir".into(), dir.into(), "--ticket".into(), self.ticket.to_string().into()]);
        let mut worker = Process::start(&format!("worker {number}"), self.dir.path(), args)?;
        worker.ready().await?;
        Ok(worker)
    }

    /// What it has used so far.
    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        let Some(id) = self.process.id() else { bail!("the coordinator has ended") };
        usage(id).context("cannot read what the coordinator uses: this needs /proc, as on Linux")
    }

    /// A measurement that failed, and why the coordinator ended, if that is the reason.
    pub(super) async fn check<T>(&mut self, measured: anyhow::Result<T>) -> anyhow::Result<T> {
        /// For a process that broke to be gone.
        const ENDED_MAX: Duration = Duration::from_millis(200);
        let Err(error) = measured else { return measured };
        match tokio::time::timeout(ENDED_MAX, self.process.ended()).await {
            Ok(why) => Err(error.context(why)),
            Err(_) => Err(error),
        }
    }

    /// Bytes of its store, as long as they are.
    pub(super) fn store_bytes(&self) -> anyhow::Result<u64> {
        store_bytes(&Self::dir_in(&self.dir)).context("cannot look at the coordinator's store")
    }

    /// Stops it; returns the bytes of its store, with nothing left in the log.
    pub(super) async fn stop(self) -> anyhow::Result<u64> {
        let dir = self.stop_and_keep().await?;
        store_bytes(&Self::dir_in(&dir)).context("cannot look at the coordinator's store")
    }

    /// Stops it; returns the directory, for another one.
    pub(super) async fn stop_and_keep(self) -> anyhow::Result<TempDir> {
        let Self { process, ticket: _, dir } = self;
        process.stop().await?;
        Ok(dir)
    }
}

fn words(command: &str) -> Vec<OsString> {
    command.split(' ').map(OsString::from).collect()
}

/// The database and its write-ahead log.
fn store_bytes(dir: &Path) -> io::Result<u64> {
    let length = |name: String| match fs::metadata(PathBuf::from(dir).join(name)) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    };
    Ok(length(STORE_FILE.to_owned())? + length(format!("{STORE_FILE}-wal"))?)
}

fn usage(id: u32) -> anyhow::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    Ok(Usage {
        cpu: cpu_of(&stat).context("/proc/PID/stat has another form")?,
        rss_bytes: kib_of(&status, "VmRSS:").context("/proc/PID/status names no VmRSS")? << 10,
        rss_peak_bytes: kib_of(&status, "VmHWM:").context("/proc/PID/status names no VmHWM")? << 10,
    })
}

/// User and system time out of `/proc/PID/stat` (proc(5)): fields 14 and 15, in hundredths of a second, counted behind
/// the name, which may hold anything.
fn cpu_of(stat: &str) -> Option<Duration> {
    /// What the kernel counts in for programs, whatever it counts in itself (`USER_HZ`).
    const TICK: Duration = Duration::from_millis(10);
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * user.checked_add(system)?)
}

fn kib_of(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_memory_are_found_whatever_the_process_is_called() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 12345 999 111";
        assert_eq!(cpu_of(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu_of("7 (cut off"), None);
        assert_eq!(cpu_of("7 (cut off) S 1 2 3"), None);
        let status = "Name:\tVmRSS\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(kib_of(status, "VmRSS:"), Some(1024));
        assert_eq!(kib_of(status, "VmHWM:"), Some(2048));
        assert_eq!(kib_of(status, "VmSwap:"), None);
    }
}
