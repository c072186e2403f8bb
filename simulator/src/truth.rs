//! What every task should give, and what liars say instead.

use std::{collections::BTreeMap, sync::Arc};

use talka_core::{
    coordinator::{ReportOutcome, ReportOutput},
    digest::{outcome_digest, result_digest},
    ids::{AttemptId, BlobHash, InputDigest, JobId, OutcomeDigest, ResultDigest, TaskId},
    job::BlobRef,
    outcome::{Exit, Output},
    quantities::{Bytes, Fuel},
};

/// An answer to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    exit: Exit,
    stdout: String,
    fuel: Fuel,
    resumed: bool,
    input: InputDigest,
}

impl Answer {
    /// The right one. Some tasks fail on any machine.
    pub(crate) fn right(task: TaskId) -> Self {
        /// One task in so many fails.
        const FAILS: u64 = 13;
        let exit = if task.index % FAILS == 5 { Exit::Code(3) } else { Exit::Ok };
        let mut input = [0; 32];
        input[..8].copy_from_slice(&task.job.get().to_le_bytes());
        input[8..16].copy_from_slice(&task.index.to_le_bytes());
        let fuel = Fuel::new(1_000_000 + task.index);
        let (stdout, input) = (task.to_string(), InputDigest::new(input));
        Self { exit, stdout, fuel, resumed: false, input }
    }

    /// A wrong one: `liar` makes it different from those of others.
    pub(crate) fn wrong(task: TaskId, liar: Option<usize>) -> Self {
        let stdout = liar.map_or("wrong".into(), |liar| format!("wrong, says {liar}"));
        let fuel = Fuel::new(u64::MAX);
        Self { stdout, fuel, exit: Exit::Ok, ..Self::right(task) }
    }

    pub(crate) fn is_meant_to_fail(&self) -> bool {
        !self.exit.is_ok()
    }

    fn output(&self, attempt: AttemptId) -> Output {
        let stderr = format!("log of {attempt}").into_bytes();
        Output { stdout: self.stdout.clone().into_bytes(), stderr, files: BTreeMap::new() }
    }

    fn outcome_digest(&self, bundle: BlobHash) -> OutcomeDigest {
        let nothing = AttemptId { task: TaskId { job: JobId::new(0), index: 0 }, number: 0 };
        outcome_digest(bundle, self.input, self.exit, &self.output(nothing))
    }

    /// What a quorum agrees on of which one at least was not interrupted.
    pub(crate) fn digest(&self, bundle: BlobHash) -> ResultDigest {
        result_digest(self.outcome_digest(bundle), Some(self.fuel))
    }

    /// What a quorum agrees on that was interrupted as a whole.
    pub(crate) fn digest_without_fuel(&self, bundle: BlobHash) -> ResultDigest {
        result_digest(self.outcome_digest(bundle), None)
    }

    /// The same as said after an interruption: finding the way back took `detour`.
    pub(crate) fn resumed(mut self, detour: u64) -> Self {
        self.resumed = true;
        self.fuel = Fuel::new(self.fuel.get().saturating_add(detour));
        self
    }

    /// What an uninterrupted attempt takes.
    pub(crate) fn fuel(&self) -> Fuel {
        self.fuel
    }

    /// What is reported of it.
    pub(crate) fn outcome(&self, attempt: AttemptId, bundle: BlobHash, large: bool) -> ReportOutcome {
        let output = if large {
            let digest = self.outcome_digest(bundle);
            let blob = BlobRef { hash: BlobHash::new(*digest.as_bytes()), size: Bytes::mib(1) };
            ReportOutput::Remote { blob, digest }
        } else {
            ReportOutput::Inline(Arc::new(self.output(attempt)))
        };
        let Self { input, exit, fuel, resumed, .. } = *self;
        ReportOutcome::Execution { input, exit, fuel, resumed, output }
    }
}
