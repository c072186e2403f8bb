//! The slots: one task each, which owns a warm executor process.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use talka_core::{
    coordinator::{Report, ReportOutcome},
    ids::{AttemptId, InputDigest, PeerId, SlotNo},
    job::{Inputs, JobSpec},
    outcome::{Execution, NoResult},
    quantities::Fuel,
    worker::Assignment,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    Tamper,
    checkpoints::{Checkpoints, Holder, Keep, Key},
    disk::problem,
    inputs::{InputError, JobInputs},
    outputs::Outputs,
    sandbox::{Executor, JobWorld, TaskInput},
    shell::Event,
    world::{self, LargeOutput},
};

/// A job that is ready to run.
#[derive(Debug, Clone)]
pub(crate) struct ReadyJob {
    pub(crate) spec: Arc<JobSpec>,
    pub(crate) world: Arc<JobWorld>,
    /// The packed inputs, if there are any that did not come along with their attempts.
    pub(crate) inputs: Option<Arc<JobInputs>>,
}

/// A batch to run.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) job: ReadyJob,
    pub(crate) assignments: Vec<Assignment>,
    /// Stops the attempt that runs; the rest of the batch is given back.
    pub(crate) stop: CancellationToken,
}

/// What a slot has finished.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) slot: SlotNo,
    pub(crate) report: Report,
    /// What the attempt consumed, for the measured speed.
    pub(crate) fuel: Fuel,
}

/// One slot.
pub(crate) struct Slot {
    pub(crate) number: SlotNo,
    pub(crate) executor: Executor,
    pub(crate) outputs: Arc<Outputs>,
    pub(crate) checkpoints: Arc<Checkpoints>,
    /// For whom it works.
    pub(crate) coordinator: PeerId,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) tamper: Option<Tamper>,
}

impl Slot {
    /// Runs batches until there are no more.
    pub(crate) async fn run(mut self, mut batches: mpsc::Receiver<Batch>) {
        while let Some(batch) = batches.recv().await {
            if self.run_batch(batch).await.is_err() {
                return;
            }
        }
    }

    async fn run_batch(&mut self, batch: Batch) -> Result<(), Gone> {
        let attempts: Vec<AttemptId> = batch.assignments.iter().map(|item| item.attempt).collect();
        // Inputs may still be on their way.
        let inputs = tokio::select! {
            inputs = self.inputs(&batch) => inputs,
            () = batch.stop.cancelled() => {
                return self.events.send(Event::Stopped(self.number)).await.map_err(|_| Gone);
            }
        };
        let inputs = match inputs {
            Ok(inputs) => inputs,
            Err(reason) => {
                for attempt in attempts {
                    let outcome = ReportOutcome::NoResult(reason);
                    self.send(Report { attempt, outcome, wall_micros: 0 }, Fuel::default()).await?;
                }
                return Ok(());
            }
        };
        let bundle = batch.job.spec.bundle.hash;
        let digests: Vec<_> = inputs.iter().map(|input| batch.job.world.input_digest(input)).collect();
        let keeps = self.keeps(&batch, &digests);
        // Bounds what waits for the shell to the size of the batch.
        let (results, mut finished) = mpsc::channel(attempts.len().max(1));
        // Without the owner's pauses: they say nothing about the task or the machine.
        let clock = self.executor.control();
        let run = self.executor.run_kept(&batch.job.world, inputs, &keeps, results);
        tokio::pin!(run);
        let mut running = true;
        let mut started = clock.unpaused();
        loop {
            tokio::select! {
                biased;
                result = finished.recv() => {
                    let Some((position, outcome)) = result else { return Ok(()) };
                    let position: usize = position;
                    let now = clock.unpaused();
                    let micros = u64::try_from(now.saturating_sub(started).as_micros()).unwrap_or(u64::MAX);
                    started = now;
                    let (attempt, input) = (attempts[position], digests[position]);
                    let outcome = tampered(self.tamper, outcome);
                    // What was counted before an interruption took other time.
                    let measured = outcome.as_ref().ok().filter(|execution| !execution.resumed);
                    let fuel = measured.map(|execution| execution.fuel).unwrap_or_default();
                    let (report, large) = world::report(attempt, bundle, input, outcome, micros);
                    let report = match large {
                        Some(large) => keep(&self.outputs, &self.events, &batch.job.spec, report, large).await?,
                        None => report,
                    };
                    let number = self.number;
                    let event = Event::Finished(Finished { slot: number, report, fuel });
                    self.events.send(event).await.map_err(|_| Gone)?;
                }
                () = batch.stop.cancelled() => {
                    return self.events.send(Event::Stopped(self.number)).await.map_err(|_| Gone);
                }
                () = &mut run, if running => running = false,
            }
        }
    }

    /// Where the checkpoints of each attempt are kept.
    fn keeps(&self, batch: &Batch, digests: &[InputDigest]) -> Vec<Option<Keep>> {
        let program = batch.job.world.program();
        let keep = |(assignment, input): (&Assignment, &InputDigest)| {
            let key = Key::new(program.hash, program.transformed(), *input);
            let (coordinator, spec) = (self.coordinator, batch.job.spec.clone());
            let holder = Holder { coordinator, assignment: assignment.clone(), spec };
            Some(Keep::for_attempt(&self.checkpoints, key, holder))
        };
        batch.assignments.iter().zip(digests).map(keep).collect()
    }

    async fn send(&self, report: Report, fuel: Fuel) -> Result<(), Gone> {
        let event = Event::Finished(Finished { slot: self.number, report, fuel });
        self.events.send(event).await.map_err(|_| Gone)
    }

    async fn inputs(&self, batch: &Batch) -> Result<Vec<TaskInput>, NoResult> {
        let inline = batch.assignments.iter().map(|item| item.inline.as_deref().map(Bytes::copy_from_slice));
        let stdins = match (inline.collect::<Option<Vec<_>>>(), &batch.job.inputs) {
            (Some(stdins), _) => stdins,
            (None, Some(inputs)) => read_ranges(inputs, &batch.assignments).await?,
            (None, None) if matches!(batch.job.spec.inputs, Inputs::Array { .. }) => {
                vec![Bytes::new(); batch.assignments.len()]
            }
            (None, None) => return Err(NoResult::Fetch),
        };
        let spec = &batch.job.spec;
        let pairs = batch.assignments.iter().zip(stdins);
        Ok(pairs.map(|(item, stdin)| world::task_input(spec, item.attempt.task.index, stdin)).collect())
    }
}

/// Keeps a large output. One that can't be kept is none: whoever reports it could not deliver it.
async fn keep(
    outputs: &Outputs,
    events: &mpsc::Sender<Event>,
    spec: &JobSpec,
    report: Report,
    large: LargeOutput,
) -> Result<Report, Gone> {
    let Err(error) = outputs.keep(spec, &report, large).await else { return Ok(report) };
    tracing::warn!(attempt = %report.attempt, error = %problem(&error), "an output can't be kept");
    if error.is_of_the_disk() {
        events.send(Event::DiskFailed(problem(&error))).await.map_err(|_| Gone)?;
    }
    Ok(Report { outcome: ReportOutcome::NoResult(NoResult::Disk), ..report })
}

/// Reads the inputs of a batch: one read where they lie next to each other, as they usually do.
async fn read_ranges(inputs: &JobInputs, items: &[Assignment]) -> Result<Vec<Bytes>, NoResult> {
    let failed = |error: InputError| {
        tracing::warn!(%error, "an input can't be had");
        NoResult::Fetch
    };
    if items.iter().any(|item| item.input.end > inputs.blob().size.get()) {
        return Err(NoResult::Fetch);
    }
    if let Some(span) = span(items) {
        let bytes = inputs.read(span.clone()).await.map_err(failed)?;
        let offset = |at: u64| usize::try_from(at - span.start).unwrap_or(usize::MAX);
        let slice = |item: &Assignment| bytes.slice(offset(item.input.start)..offset(item.input.end));
        return Ok(items.iter().map(slice).collect());
    }
    let mut stdins = Vec::with_capacity(items.len());
    for item in items {
        stdins.push(inputs.read(item.input.clone()).await.map_err(failed)?);
    }
    Ok(stdins)
}

/// The range that covers a batch, if it holds nothing else and is not too large to be read at once.
fn span(items: &[Assignment]) -> Option<Range<u64>> {
    /// Twice what a batch of small inputs weighs.
    const SPAN_BYTES_MAX: u64 = 16 << 20;
    let adjacent = items.windows(2).all(|pair| pair[0].input.end == pair[1].input.start);
    let span = items.first()?.input.start..items.last()?.input.end;
    (adjacent && span.end - span.start <= SPAN_BYTES_MAX).then_some(span)
}

fn tampered(tamper: Option<Tamper>, outcome: Result<Execution, NoResult>) -> Result<Execution, NoResult> {
    outcome.map(|mut execution| {
        if let Some(tamper) = tamper {
            tamper(&mut execution);
        }
        execution
    })
}

/// The shell is gone: the worker stops.
struct Gone;

#[cfg(test)]
mod tests {
    use talka_core::ids::{JobId, TaskId};

    use super::*;

    #[test]
    fn neighbouring_inputs_are_read_at_once() {
        let item = |input| {
            let task = TaskId { job: JobId::new(1), index: 0 };
            Assignment { attempt: AttemptId { task, number: 1 }, input, inline: None }
        };
        assert_eq!(span(&[item(5..7), item(7..7), item(7..20)]), Some(5..20));
        assert_eq!(span(&[item(5..7), item(8..20)]), None);
        assert_eq!(span(&[item(0..32 << 20)]), None);
        assert_eq!(span(&[]), None);
    }
}
