//! What came of a run.

use std::{fmt, time::Duration};

/// What came of a run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// What it was run with.
    pub seed: u64,
    /// Hash of everything that happened, in its order: equal for equal runs.
    pub trace: u64,
    /// Events in all.
    pub events: u64,
    /// Virtual time until the last job had ended.
    pub elapsed: Duration,
    /// Jobs that were taken on.
    pub jobs: u64,
    /// Tasks with a result.
    pub tasks_done: u64,
    /// Tasks on whose failure a quorum agreed, or that were given up.
    pub tasks_failed: u64,
    /// Among the failed: tasks that fail on any machine.
    pub tasks_meant_to_fail: u64,
    /// Tasks of cancelled jobs that never became final.
    pub tasks_cancelled: u64,
    /// Tasks whose accepted result is wrong, because enough liars said so.
    pub wrong_accepted: u64,
    /// Attempts that were leased.
    pub attempts_leased: u64,
    /// Attempts that were taken back from workers that had not begun them.
    pub attempts_given_back: u64,
    /// Reports that were taken.
    pub attempts_reported: u64,
    /// Commits that became durable.
    pub commits: u64,
    /// Sessions that were opened.
    pub sessions: u64,
    /// Times that the coordinator was killed.
    pub coordinator_crashes: u64,
    /// Times that a worker's process ended.
    pub worker_crashes: u64,
    /// Blobs that the coordinator sent to workers.
    pub blobs_from_coordinator: u64,
    /// Blobs that workers sent to one another.
    pub blobs_from_peers: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, events, elapsed, trace, .. } = self;
        writeln!(
            f,
            "seed {seed}: {events} events in {:.1} s of virtual time, trace {trace:016x}",
            elapsed.as_secs_f64()
        )?;
        let rows = [
            ("jobs", self.jobs),
            ("tasks done", self.tasks_done),
            ("tasks failed", self.tasks_failed),
            ("tasks failed as they should", self.tasks_meant_to_fail),
            ("tasks cancelled", self.tasks_cancelled),
            ("wrong results accepted", self.wrong_accepted),
            ("attempts leased", self.attempts_leased),
            ("attempts given back", self.attempts_given_back),
            ("attempts reported", self.attempts_reported),
            ("commits", self.commits),
            ("sessions", self.sessions),
            ("coordinator crashes", self.coordinator_crashes),
            ("worker crashes", self.worker_crashes),
            ("blobs sent by the coordinator", self.blobs_from_coordinator),
            ("blobs sent by workers", self.blobs_from_peers),
        ];
        for (what, count) in rows {
            writeln!(f, "{count:>10} {what}")?;
        }
        Ok(())
    }
}
