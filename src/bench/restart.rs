//! `talka bench restart`: from the start of a coordinator with a full store to its first answer.

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde::Serialize;
use talka_coordinator_peer::store::{Store, sqlite::SqliteStore};
use talka_core::{
    coordinator::{Batch, JobRow, LeaseItem, LeaseRow, PeerRow, ShardRow, Standing},
    ids::{BlobHash, JobId, LeaseId, PeerId, PeerNo},
    job::{BlobRef, Inputs, JobState, RawJobSpec, Submission},
    limits,
    quantities::{Bytes, Timestamp},
};
use tempfile::TempDir;

use super::{rounded, subject::Subject, submitter::Submitter, verdict};
use crate::output::Out;

/// From its start to its first answer, in seconds.
const SECS_GOAL: f64 = 2.0;
/// Starts, of which the slowest counts: the first one finds the store as it was written, the others as a stop leaves it.
const STARTS: u32 = 3;
/// Who holds the attempts.
const WORKERS: u32 = 1000;
/// Tasks of one job that may be open.
const JOB_OPEN_MAX: u64 = limits::OPEN_TASKS_MAX as u64;

/// What a coordinator is to come back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RestartConfig {
    /// Open attempts.
    pub(crate) open: u64,
    /// How many of them are in one lease.
    pub(crate) per_lease: usize,
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Report {
    open: u64,
    secs: f64,
    rss_mib: f64,
}

/// Writes a store in which so many attempts are open, and starts a real coordinator on it a few times.
pub(crate) async fn restart(config: RestartConfig, out: Out) -> anyhow::Result<ExitCode> {
    let mut dir = TempDir::with_prefix("talka-bench-").context("cannot create a temporary directory")?;
    let store = Subject::dir_in(&dir);
    tokio::task::spawn_blocking(move || fill(&store, config))
        .await
        .context("the store was not written")??;
    let open = config.open;
    let (mut slowest, mut rss_bytes) = (Duration::ZERO, 0);
    for _ in 0..STARTS {
        let begun = Instant::now();
        let mut subject = Subject::start_in(dir).await?;
        let answered = first_answer(&subject, open, begun).await;
        slowest = slowest.max(subject.check(answered).await?);
        rss_bytes = rss_bytes.max(subject.usage()?.rss_peak_bytes);
        dir = subject.stop_and_keep().await?;
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let rss_mib = rounded(rss_bytes as f64 / f64::from(1 << 20), 1);
    Report { open, secs: rounded(slowest.as_secs_f64(), 3), rss_mib }.print(out)?;
    Ok(ExitCode::SUCCESS)
}

/// Since `begun`.
async fn first_answer(subject: &Subject, open: u64, begun: Instant) -> anyhow::Result<Duration> {
    let submitter = Submitter::connect(subject.ticket()).await?;
    let mut found = submitter.info(1).await?.running;
    let took = begun.elapsed();
    for job in 2..=open.div_ceil(JOB_OPEN_MAX) {
        found += submitter.info(job).await?.running;
    }
    ensure!(found == open, "{found} of {open} attempts are open after the restart");
    submitter.close().await;
    Ok(took)
}

fn fill(dir: &std::path::Path, config: RestartConfig) -> anyhow::Result<()> {
    let RestartConfig { open, per_lease } = config;
    std::fs::create_dir_all(dir)?;
    let mut store = SqliteStore::open(dir, PeerId::new([1; 32]))?;
    let peer = |no: u32| {
        let id = *blake3::hash(&no.to_le_bytes()).as_bytes();
        PeerRow { no: PeerNo::new(no), id: PeerId::new(id) }
    };
    let peers = (0..WORKERS).map(peer).collect();
    let mut batch = Batch { peers, ..Batch::default() };
    let mut leases = 0_u64;
    for (job, first) in (1..).map(JobId::new).zip((0..open).step_by(limits::OPEN_TASKS_MAX)) {
        let tasks = JOB_OPEN_MAX.min(open - first);
        batch.jobs.push(job_row(job, tasks)?);
        for from in (0..tasks).step_by(per_lease) {
            let to = tasks.min(from + per_lease as u64);
            let items = (from..to).map(|index| LeaseItem { index, number: 1 }).collect();
            let peer = PeerNo::new(u32::try_from(leases % u64::from(WORKERS))?);
            leases += 1;
            let lease = LeaseId::new(leases);
            // Far ahead, so that nothing is taken back while it is measured.
            let deadline = Timestamp::from_millis(u64::from(u32::MAX) * 1000);
            batch.leases_opened.insert(lease, Arc::new(LeaseRow { lease, job, peer, deadline, items }));
        }
        batch.shards.insert(job, ShardRow { cursor: tasks, numbers: 1, ..ShardRow::default() });
        store.commit(store.last_seq().next(), &std::mem::take(&mut batch))?;
    }
    Ok(())
}

fn job_row(job: JobId, count: u64) -> anyhow::Result<JobRow> {
    let bundle = BlobRef { hash: BlobHash::new([1; 32]), size: Bytes::new(100) };
    let spec = RawJobSpec::plain("bench", bundle, Inputs::Array { first: 0, count }).validate()?;
    let request = u128::from(job.get()).to_le_bytes();
    let submission = Submission { request, submitter: PeerId::new([0; 32]), spec, signature: None };
    Ok(JobRow {
        job,
        submission: Arc::new(submission),
        submitted: Timestamp::from_millis(0),
        state: JobState::Running,
        ended: None,
        standing: Standing::default(),
    })
}

impl Report {
    fn print(self, out: Out) -> anyhow::Result<()> {
        let Self { open, secs, rss_mib } = self;
        if out.is_json() {
            return out.json(&self);
        }
        if out.is_quiet() {
            return out.line(format!("restart_secs {secs}"));
        }
        let took = verdict(format!("{secs:.2} s"), format!("below {SECS_GOAL} s"), secs < SECS_GOAL);
        out.fields([
            ("open attempts", open.to_string()),
            ("start to first answer", format!("{took}, the slowest of {STARTS}")),
            ("memory", format!("{rss_mib:.1} MiB at most")),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_agreed_form() {
        let json = serde_json::to_string(&Report { open: 2, secs: 0.5, rss_mib: 80.5 }).expect("JSON");
        assert_eq!(json, r#"{"open":2,"secs":0.5,"rss_mib":80.5}"#);
    }

    #[test]
    fn all_attempts_are_open_in_the_store_that_is_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = limits::OPEN_TASKS_MAX + 1300;
        let config = RestartConfig { open: open as u64, per_lease: 400 };
        fill(dir.path(), config).expect("written");
        let mut store = SqliteStore::open(dir.path(), PeerId::new([1; 32])).expect("a store");
        let jobs = store.load().expect("readable").jobs;
        assert_eq!(jobs.iter().map(|job| job.open.len()).collect::<Vec<_>>(), [limits::OPEN_TASKS_MAX, 1300]);
        let items = jobs.iter().flat_map(|job| &job.leases).map(|lease| lease.items.len());
        assert_eq!(items.sum::<usize>(), open);
    }
}
