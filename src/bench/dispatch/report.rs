//! The figures, and what they should be.

use std::time::Duration;

use serde::Serialize;

use super::{DispatchConfig, Seen, idle::Idle};
use crate::{
    bench::{quantiles::Quantiles, rounded, subject::Usage, verdict},
    output::Out,
};

/// CPU time of the coordinator for each attempt, store included, when messages hold 32 reports or more.
const CPU_US_GOAL: f64 = 5.0;
/// Tasks a second, end to end.
const TASKS_PER_SEC_GOAL: f64 = 20_000.0;
/// Bytes that a finished task leaves on the disk.
const DISK_BYTES_GOAL: f64 = 60.0;
/// From a submission to the word that it is durable, in milliseconds.
const SUBMIT_MS_GOAL: f64 = 100.0;

/// What was measured. What real workers see they don't tell.
#[expect(clippy::struct_field_names, reason = "the names are those of the JSON")]
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Report {
    tasks: u64,
    attempts: u64,
    wall_secs: f64,
    tasks_per_sec: f64,
    coordinator_cpu_us_per_attempt: f64,
    lease_ms: Option<Quantiles>,
    report_ms: Option<Quantiles>,
    wire_bytes_per_task: Option<f64>,
    disk_bytes_per_task: f64,
    rss_mib: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle: Option<Idle>,
    #[serde(skip)]
    submit: Details,
}

/// What `--details` adds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Details {
    submit_ms: f64,
    submit_rss_mib: f64,
}

/// How a submission went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Submit {
    pub(super) time: Duration,
    /// Memory that the coordinator has more after it than before.
    pub(super) rss_bytes: u64,
}

#[expect(clippy::cast_precision_loss, reason = "sizes and counts far below 2^52")]
impl Report {
    pub(super) fn new(
        config: &DispatchConfig,
        attempts: u64,
        wall: Duration,
        (before, after): (Usage, Usage),
        submit: Submit,
        seen: Option<Seen>,
        idle: Option<Idle>,
    ) -> Self {
        let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
        let tasks = config.tasks as f64;
        let (mut leases, mut reports, mut wire) = (None, None, None);
        if let Some(mut seen) = seen {
            leases = seen.leases.quantiles();
            reports = seen.reports.quantiles();
            wire = Some(rounded(seen.wire_bytes as f64 / tasks, 1));
        }
        let mib = |bytes: u64| rounded(bytes as f64 / f64::from(1 << 20), 1);
        let submit = Details {
            submit_ms: rounded(submit.time.as_secs_f64() * 1e3, 2),
            submit_rss_mib: mib(submit.rss_bytes),
        };
        Self {
            tasks: config.tasks,
            attempts,
            wall_secs: rounded(wall.as_secs_f64(), 3),
            tasks_per_sec: rounded(tasks / wall.as_secs_f64(), 0),
            coordinator_cpu_us_per_attempt: rounded(cpu * 1e6 / attempts.max(1) as f64, 2),
            lease_ms: leases,
            report_ms: reports,
            wire_bytes_per_task: wire,
            disk_bytes_per_task: 0.0,
            rss_mib: mib(after.rss_peak_bytes),
            details: config.details.then_some(submit),
            idle,
            submit,
        }
    }

    /// What the store grew by.
    pub(super) fn set_disk(&mut self, bytes: u64) {
        self.disk_bytes_per_task = rounded(bytes as f64 / self.tasks as f64, 1);
    }

    pub(super) fn print(&self, config: &DispatchConfig, out: Out) -> anyhow::Result<()> {
        if out.is_json() {
            return out.json(self);
        }
        if out.is_quiet() {
            out.line(format!("tasks_per_sec {}", self.tasks_per_sec))?;
            return out
                .line(format!("coordinator_cpu_us_per_attempt {}", self.coordinator_cpu_us_per_attempt));
        }
        let mut fields = vec![
            ("tasks", format!("{} in {:.2} s, {} attempts", self.tasks, self.wall_secs, self.attempts)),
            ("tasks per second", goal_of_speed(self.tasks_per_sec)),
            ("coordinator CPU", self.cpu_verdict(config)),
            ("lease", of(self.lease_ms)),
            ("report", of(self.report_ms)),
            (
                "on the wire",
                self.wire_bytes_per_task.map_or_else(unknown, |bytes| format!("{bytes:.1} B per task")),
            ),
            (
                "on the disk",
                at_most(
                    format!("{:.1} B per task", self.disk_bytes_per_task),
                    self.disk_bytes_per_task,
                    DISK_BYTES_GOAL,
                    " B",
                ),
            ),
            ("memory", format!("{:.1} MiB at most", self.rss_mib)),
            (
                "submit",
                at_most(
                    format!("{:.1} ms, {:.1} MiB more", self.submit.submit_ms, self.submit.submit_rss_mib),
                    self.submit.submit_ms,
                    SUBMIT_MS_GOAL,
                    " ms",
                ),
            ),
        ];
        if let Some(idle) = self.idle {
            let Idle { sessions, rss_kib_per_session, cpu_percent, open_secs } = idle;
            fields.push((
                "idle",
                format!(
                    "{sessions} sessions, opened in {open_secs:.1} s: {rss_kib_per_session:.1} KiB each, {cpu_percent:.1} % of a \
                     processor together"
                ),
            ));
        }
        out.fields(fields)
    }

    fn cpu_verdict(&self, config: &DispatchConfig) -> String {
        let micros = self.coordinator_cpu_us_per_attempt;
        let figure = format!("{micros:.2} µs per attempt");
        if config.run || config.batch < 32 {
            return figure;
        }
        at_most(figure, micros, CPU_US_GOAL, " µs")
    }
}

fn goal_of_speed(tasks_per_sec: f64) -> String {
    let goal = format!("at least {TASKS_PER_SEC_GOAL}");
    verdict(tasks_per_sec, goal, tasks_per_sec >= TASKS_PER_SEC_GOAL)
}

fn at_most(figure: String, value: f64, goal: f64, unit: &str) -> String {
    verdict(figure, format!("at most {goal}{unit}"), value <= goal)
}

fn of(quantiles: Option<Quantiles>) -> String {
    quantiles.map_or_else(unknown, |of| format!("p50 {:.2} ms, p99 {:.2} ms", of.p50, of.p99))
}

fn unknown() -> String {
    "real workers don't tell".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::quantiles::Samples;

    fn config(run: bool, details: bool) -> DispatchConfig {
        DispatchConfig { tasks: 1000, batch: 64, workers: 8, quorum: 2, run, idle: 0, details }
    }

    fn report(config: &DispatchConfig, seen: Option<Seen>) -> Report {
        let usage = |millis, mib: u64| Usage {
            cpu: Duration::from_millis(millis),
            rss_bytes: mib << 20,
            rss_peak_bytes: mib << 20,
        };
        let submit = Submit { time: Duration::from_millis(7), rss_bytes: 1 << 19 };
        let usage = (usage(20, 30), usage(28, 32));
        let mut report = Report::new(config, 2000, Duration::from_millis(100), usage, submit, seen, None);
        report.set_disk(52_000);
        report
    }

    fn json(report: &Report) -> String {
        serde_json::to_string(report).expect("JSON")
    }

    #[test]
    fn the_json_has_the_agreed_form() {
        let series = |millis: u64| {
            let mut samples = Samples::default();
            samples.add(Duration::from_millis(millis));
            samples
        };
        let seen = Seen { leases: series(2), reports: series(3), wire_bytes: 150_000 };
        assert_eq!(
            json(&report(&config(false, false), Some(seen))),
            r#"{"tasks":1000,"attempts":2000,"wall_secs":0.1,"tasks_per_sec":10000.0,"#.to_owned()
                + r#""coordinator_cpu_us_per_attempt":4.0,"lease_ms":{"p50":2.0,"p99":2.0},"#
                + r#""report_ms":{"p50":3.0,"p99":3.0},"wire_bytes_per_task":150.0,"#
                + r#""disk_bytes_per_task":52.0,"rss_mib":32.0}"#
        );
    }

    #[test]
    fn what_was_not_seen_is_null_and_details_are_for_who_asks() {
        let json = json(&report(&config(true, true), None));
        assert!(json.contains(r#""lease_ms":null,"report_ms":null,"wire_bytes_per_task":null"#), "{json}");
        assert!(json.ends_with(r#""details":{"submit_ms":7.0,"submit_rss_mib":0.5}}"#), "{json}");
    }
}
