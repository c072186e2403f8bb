//! Who wants work done, and asks until there is an answer: with the same request, so that a job is never run
//! twice because an answer got lost.

use std::{ops::RangeInclusive, time::Duration};

use talka_core::{
    ids::{BlobHash, JobId, PeerId},
    job::{BlobRef, Dataset, Inputs, RawJobSpec, Submission, TaskLimits},
    quantities::Bytes,
};

use crate::{
    agenda::Event,
    world::{TASK_DEADLINE, World},
};

/// Time until a request that was not answered is made again.
const RETRY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(5);

/// Honest workers of whom nothing is known that together always suffice for the smallest error rate of a scenario.
const HONEST_MIN: u32 = 4;

/// One job, from the submitter's side.
#[derive(Debug)]
pub(crate) struct Submitter {
    pub(crate) submission: Submission,
    /// Whether its outputs are too large for a report.
    pub(crate) large: bool,
    job: Option<JobId>,
    cancel: Cancel,
}

#[derive(Debug, PartialEq, Eq)]
enum Cancel {
    Never,
    After(Duration),
    Answered,
}

impl Submitter {
    /// Whether it has had all its answers.
    pub(crate) fn is_content(&self) -> bool {
        self.job.is_some() && matches!(self.cancel, Cancel::Never | Cancel::Answered)
    }

    pub(crate) fn cancel_answered(&mut self) {
        self.cancel = Cancel::Answered;
    }
}

impl World<'_> {
    pub(crate) fn plan_submissions(&mut self) {
        let scenario = self.scenario;
        for number in 0..scenario.jobs {
            let tasks = self.pick(scenario.tasks.clone());
            let quorum = self.pick(scenario.quorum.clone()).clamp(1, scenario.honest.max(1));
            let large = self.happens(scenario.large_outputs);
            let within = Duration::ZERO..=scenario.submitted_within;
            let cancel = if self.happens(scenario.cancelled) {
                Cancel::After(self.between(&within))
            } else {
                Cancel::Never
            };
            let [a, b, c, d] = number.to_be_bytes();
            let blob = |kind| {
                let mut hash = [kind; 32];
                hash[..4].copy_from_slice(&[a, b, c, d]);
                BlobRef { hash: BlobHash::new(hash), size: Bytes::mib(1) }
            };
            let dataset = Dataset { name: "shared".into(), blob: blob(2) };
            let raw = RawJobSpec {
                datasets: if number % 2 == 0 { vec![dataset] } else { vec![] },
                limits: TaskLimits { deadline: TASK_DEADLINE, ..TaskLimits::default() },
                quorum,
                priority: i64::from(number % 5) - 2,
                error_rate: scenario.error_rate.filter(|_| number % 3 == 2 && scenario.honest >= HONEST_MIN),
                ..RawJobSpec::plain(
                    format!("job {number}"),
                    blob(1),
                    Inputs::Array { first: 0, count: tasks },
                )
            };
            let Ok(spec) = raw.validate() else { panic!("the scenario asks for invalid jobs") };
            let mut request = [0; 16];
            request[..4].copy_from_slice(&[a, b, c, d]);
            let mut submitter = [0xee; 32];
            submitter[..4].copy_from_slice(&(number % scenario.submitters.max(1)).to_be_bytes());
            let submission = Submission { request, submitter: PeerId::new(submitter), spec, signature: None };
            self.submitters.push(Submitter { submission, large, job: None, cancel });
            let at = self.between(&within);
            self.agenda.at(at, Event::Submits(self.submitters.len() - 1));
        }
    }

    pub(crate) fn submits(&mut self, submitter: usize) {
        if self.submitters[submitter].job.is_some() {
            return;
        }
        self.note(format_args!("submitter {submitter} submits"));
        if !self.goes_wrong(self.scenario.faults.loss) {
            self.hub_is_asked_to_run(submitter);
        }
        let retry = self.between(&RETRY);
        self.agenda.after(retry, Event::Submits(submitter));
    }

    pub(crate) fn submitted(&mut self, submitter: usize, job: JobId) {
        self.note(format_args!("submitter {submitter} has job {job}"));
        let state = &mut self.submitters[submitter];
        if let Some(known) = state.job.replace(job) {
            assert_eq!(known, job, "the same request gives the same job");
            return;
        }
        if let Cancel::After(delay) = state.cancel {
            self.agenda.after(delay, Event::Cancels(submitter));
        }
    }

    pub(crate) fn cancels(&mut self, submitter: usize) {
        let state = &self.submitters[submitter];
        let Some(job) = state.job.filter(|_| state.cancel != Cancel::Answered) else { return };
        self.note(format_args!("submitter {submitter} cancels job {job}"));
        if !self.goes_wrong(self.scenario.faults.loss) {
            self.hub_is_asked_to_cancel(submitter, job);
        }
        let retry = self.between(&RETRY);
        self.agenda.after(retry, Event::Cancels(submitter));
    }
}
