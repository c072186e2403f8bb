//! `talka bench latency`: from the submission of one tiny task to its validated result.

use std::{process::ExitCode, time::Instant};

use serde::Serialize;

use super::{quantiles::Samples, subject::Subject, submitter::Submitter, verdict};
use crate::{output::Out, progress};

/// Half of all tasks, in milliseconds.
const P50_MS_GOAL: f64 = 3.0;
/// Tasks that are not counted: the first ones compile and connect.
const WARM_UP: usize = 3;

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Report {
    n: usize,
    p50_ms: f64,
    p99_ms: f64,
}

/// Submits `count` jobs of one task, one after the other, from one client to a real coordinator with one real worker.
pub(crate) async fn latency(count: usize, out: Out) -> anyhow::Result<ExitCode> {
    let mut subject = Subject::start().await?;
    let measured = measure(count, &subject, out).await;
    let report = subject.check(measured).await?;
    subject.stop().await?;
    report.print(out)?;
    Ok(ExitCode::SUCCESS)
}

async fn measure(count: usize, subject: &Subject, out: Out) -> anyhow::Result<Report> {
    let worker = subject.start_worker(1).await?;
    let submitter = Submitter::connect(subject.ticket()).await?;
    let spec = submitter.job(1, 1)?;
    let mut samples = Samples::default();
    let bar = progress::steps_bar(out, count as u64);
    for number in 0..WARM_UP + count {
        let begun = Instant::now();
        let job = submitter.submit(&spec).await?;
        submitter.result(job).await?;
        if number >= WARM_UP {
            samples.add(begun.elapsed());
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    submitter.close().await;
    worker.stop().await?;
    let (p50_ms, p99_ms) = samples.quantiles().map_or((0.0, 0.0), |of| (of.p50, of.p99));
    Ok(Report { n: count, p50_ms, p99_ms })
}

impl Report {
    fn print(self, out: Out) -> anyhow::Result<()> {
        let Self { n, p50_ms, p99_ms } = self;
        if out.is_json() {
            return out.json(&self);
        }
        if out.is_quiet() {
            return out.line(format!("p50_ms {p50_ms}")).and_then(|()| out.line(format!("p99_ms {p99_ms}")));
        }
        let p50 = verdict(format!("{p50_ms:.2} ms"), format!("below {P50_MS_GOAL} ms"), p50_ms < P50_MS_GOAL);
        out.fields([
            ("jobs", format!("{n} of one task each, one after the other")),
            ("p50", p50),
            ("p99", format!("{p99_ms:.2} ms")),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_agreed_form() {
        let report = Report { n: 200, p50_ms: 2.5, p99_ms: 7.25 };
        let json = serde_json::to_string(&report).expect("JSON");
        assert_eq!(json, r#"{"n":200,"p50_ms":2.5,"p99_ms":7.25}"#);
    }
}
