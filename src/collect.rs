//! Takes the results of a job as they become final: into files, and failures onto the screen.

use std::{cell::Cell, path::Path};

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt};
use prost::Message;
use talka_core::outcome::Output;
use talka_proto::{convert, wire};

use crate::{
    client::Client,
    error::Failure,
    output::{Out, printable},
    results::{ResultLine, ResultsWriter},
    view,
    watch::{Retry, ended_early},
};

/// Large outputs that are fetched at the same time.
const FETCHES: usize = 4;
/// Failed tasks that are shown one by one; the rest is in the files and in `talka task list`.
const FAILURES_SHOWN: u64 = 10;
/// Bytes of a failed task's log that are shown: its end, where the cause usually stands.
const LOG_SHOWN_BYTES: usize = 2 << 10;

/// Takes the results of one job.
#[derive(Debug)]
pub(crate) struct Collector<'a> {
    client: &'a Client,
    out: Out,
    job: u64,
    /// Whether results that rest on one worker's word are left out.
    final_only: bool,
    /// Failed tasks that were met so far.
    failures: Cell<u64>,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(client: &'a Client, out: Out, job: u64) -> Self {
        Self { client, out, job, final_only: false, failures: Cell::new(0) }
    }

    /// Leaves out results that rest on one worker's word, if `only`.
    pub(crate) fn final_only(self, only: bool) -> Self {
        Self { final_only: only, ..self }
    }

    /// Writes every final task into `dir`; with `follow` until the job has ended. Returns the number of
    /// results. `show` prints around whatever else is on the screen.
    pub(crate) async fn into_dir(
        self,
        dir: &Path,
        follow: bool,
        show: &dyn Fn(&mut dyn FnMut()),
    ) -> anyhow::Result<u64> {
        let mut writer = ResultsWriter::create(dir)?;
        self.each(follow, true, |result, output| {
            let line = view::result_line(result);
            let refused = writer.write(&line, output)?;
            self.report(&line, output, &refused, show);
            Ok(())
        })
        .await
    }

    /// Calls `take` with every final task, in the order of their index, and with what it wrote if `with_output`;
    /// with `follow` until the job has ended. Survives restarts of the coordinator. Returns the number of
    /// results.
    pub(crate) async fn each(
        &self,
        follow: bool,
        with_output: bool,
        mut take: impl FnMut(&wire::TaskResult, &Output) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        let mut retry = Retry::new(self.client, self.out);
        let (mut from, mut count) = (0, 0);
        loop {
            let broken = match self.stream(from, follow, with_output).await {
                Err(status) => status,
                Ok(results) => {
                    // In the order of the stream, and a few ahead, so that one large output delays nobody.
                    let fetched = results.map(|result| async move {
                        let result = result.map_err(Interruption::Stream)?;
                        output_of(self.client, result).await
                    });
                    let mut fetched = std::pin::pin!(fetched.buffered(FETCHES));
                    loop {
                        match fetched.try_next().await {
                            Ok(Some((result, output))) => {
                                retry.succeeded();
                                take(&result, &output)?;
                                from = result.position + 1;
                                count += 1;
                            }
                            Ok(None) if self.is_complete(count, follow).await? => return Ok(count),
                            Ok(None) => break ended_early(),
                            Err(Interruption::Stream(status)) => break status,
                            Err(Interruption::Other(error)) => return Err(error),
                        }
                    }
                }
            };
            let doing = || format!("cannot fetch the results of job {}", self.job);
            retry.failed(broken).await.with_context(doing)?;
        }
    }

    /// Shows why the first tasks failed, of a job whose results nobody asked for.
    pub(crate) async fn show_failures(self) -> anyhow::Result<()> {
        let mut results = self.stream(0, false, false).await.map_err(Failure::from)?;
        while self.failures.get() < FAILURES_SHOWN
            && let Some(result) = results.try_next().await.map_err(Failure::from)?
        {
            if view::is_done(&result) {
                continue;
            }
            // The log comes with the output, so only for those that are shown.
            let mut one = self.stream(result.position, false, true).await.map_err(Failure::from)?;
            let result = one.try_next().await.map_err(Failure::from)?.unwrap_or(result);
            let (result, output) = output_of(self.client, result).await.map_err(|stop| match stop {
                Interruption::Stream(status) => Failure::from(status).into(),
                Interruption::Other(error) => error,
            })?;
            self.report(&view::result_line(&result), &output, &[], &|print| print());
        }
        Ok(())
    }

    async fn stream(
        &self,
        from: u64,
        follow: bool,
        with_output: bool,
    ) -> Result<tonic::Streaming<wire::TaskResult>, tonic::Status> {
        let final_only = self.final_only;
        let request = wire::ResultsRequest { job: self.job, from, follow, with_output, final_only };
        Ok(self.client.jobs().results(request).await?.into_inner())
    }

    /// Whether a stream that ended has told everything; a coordinator that shuts down ends it as well.
    async fn is_complete(&self, count: u64, follow: bool) -> anyhow::Result<bool> {
        if !follow {
            return Ok(true);
        }
        match self.client.jobs().get(wire::JobRequest { job: self.job }).await {
            Ok(info) => {
                let info = info.into_inner();
                let left_out = if self.final_only { info.provisional } else { 0 };
                Ok(view::is_final(&info) && count + left_out >= info.done + info.failed)
            }
            Err(status) if crate::error::is_transient(&status) => Ok(false),
            Err(status) => Err(Failure::from(status).into()),
        }
    }

    fn report(
        &self,
        line: &ResultLine,
        output: &Output,
        refused: &[String],
        show: &dyn Fn(&mut dyn FnMut()),
    ) {
        let (out, job, index) = (self.out, self.job, line.index);
        for name in refused {
            let name = printable(name);
            let text = format!("task {job}/{index}: /out/{name:?} can't be a file here; left out");
            show(&mut || out.warn(&text));
        }
        if line.output_lost && !out.is_quiet() {
            let text = format!(
                "task {job}/{index} is done, but its output is lost: neither the coordinator nor a worker has it any more"
            );
            show(&mut || out.warn(&text));
        }
        if line.state == "done" {
            return;
        }
        let failures = self.failures.get() + 1;
        self.failures.set(failures);
        if failures <= FAILURES_SHOWN && !out.is_quiet() {
            show(&mut || out.warn(failure_text(job, line, &output.stderr)));
        } else if failures == FAILURES_SHOWN + 1 && !out.is_quiet() {
            show(&mut || {
                out.warn(format!("more tasks failed; see: talka task list {job} --state failed"));
            });
        }
    }
}

/// Why the following of a stream stopped.
enum Interruption {
    /// The stream itself: it can be asked for again.
    Stream(tonic::Status),
    /// Anything else: it can't be mended by asking again.
    Other(anyhow::Error),
}

/// The output of a result, fetched if it did not come along.
async fn output_of(
    client: &Client,
    mut result: wire::TaskResult,
) -> Result<(wire::TaskResult, Output), Interruption> {
    let invalid = |error: anyhow::Error| {
        Interruption::Other(error.context(format!("the output of task {} is broken", result.index)))
    };
    let output = match result.output.take() {
        None => Output::default(),
        Some(wire::task_result::Output::Inlined(output)) => {
            output.try_into().map_err(|error: convert::InvalidMessage| invalid(error.into()))?
        }
        Some(wire::task_result::Output::Blob(blob)) => {
            let blob = blob.try_into().map_err(|error: convert::InvalidMessage| invalid(error.into()))?;
            let fetched = client.fetch(blob, &result.holders).await.map_err(|error| {
                let text = format!("the output of task {} can't be fetched: {error:#}", result.index);
                Interruption::Stream(tonic::Status::unavailable(text))
            })?;
            result.output_lost = fetched.is_none();
            let Some(bytes) = fetched else { return Ok((result, Output::default())) };
            let output = wire::Output::decode(bytes).map_err(|error| invalid(error.into()))?;
            output.try_into().map_err(|error: convert::InvalidMessage| invalid(error.into()))?
        }
    };
    Ok((result, output))
}

/// `task 5/17 (input a.csv) failed: exit code 3`, and the end of its log.
fn failure_text(job: u64, line: &ResultLine, log: &[u8]) -> String {
    let input = line.input.as_ref().map(|input| format!(" (input {})", printable(input)));
    let reason = line.reason.as_deref().unwrap_or("no reason given");
    let mut text = format!("task {job}/{}{} failed: {reason}", line.index, input.unwrap_or_default());
    let tail = &log[log.len().saturating_sub(LOG_SHOWN_BYTES)..];
    for log_line in printable(&String::from_utf8_lossy(tail)).trim_end().lines() {
        text.push_str("\n  | ");
        text.push_str(log_line);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_its_input_its_reason_and_the_end_of_its_log() {
        let line = ResultLine {
            provisional: false,
            output_lost: false,
            index: 17,
            input: Some("a\x1b.csv".into()),
            state: "failed",
            digest: None,
            fuel: 0,
            attempts: 2,
            peers: vec![],
            reason: Some("exit code 3".into()),
        };
        let log = format!("{}\nlast line\n", "x".repeat(5000));
        let text = failure_text(5, &line, log.as_bytes());
        assert!(text.starts_with("task 5/17 (input a\u{fffd}.csv) failed: exit code 3\n  | xxx"), "{text}");
        assert!(text.ends_with("\n  | last line"));
        assert!(text.len() < 2200);
    }
}
