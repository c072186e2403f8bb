//! What is found out about a row.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Sent from the process of a row, as one line of JSON.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) name: String,
    /// How it ended, in words.
    pub(crate) outcome: String,
    /// Most fuel that one of its tasks used.
    pub(crate) fuel: u64,
    pub(crate) peaks: Peaks,
    pub(crate) secs: f64,
    /// Everything that is not as it should be.
    pub(crate) wrong: Vec<String>,
}

/// Peaks of resident memory, in bytes; 0 where the system doesn't tell.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Peaks {
    pub(crate) executor: u64,
    pub(crate) compiler: u64,
    /// What the worker itself took beyond what it had before.
    pub(crate) worker: u64,
}

/// The reports for people, by name.
pub(crate) fn table(reports: &[Report]) -> String {
    let mut reports: Vec<_> = reports.iter().collect();
    reports.sort_by(|a, b| a.name.cmp(&b.name));
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let mut text = format!(
        "{:<44} {:<38} {:>13} {:>9} {:>9} {:>7} {:>6}\n",
        "row", "end", "fuel", "executor", "compiler", "worker", "secs"
    );
    for report in reports {
        let Report { name, outcome, fuel, peaks, secs, .. } = report;
        let (executor, compiler, worker) = (mib(peaks.executor), mib(peaks.compiler), mib(peaks.worker));
        writeln!(
            text,
            "{name:<44} {outcome:<38} {fuel:>13} {executor:>5} MiB {compiler:>5} MiB {worker:>3} MiB {secs:>6.2}"
        )
        .expect("a string");
    }
    text
}
