//! A row of the corpus.

use std::time::Duration;

use bytes::Bytes;
use talka_core::{
    job::TaskLimits,
    outcome::{Execution, Exit, Limit, NoResult, Trap},
    quantities::{Bytes as Size, Fuel},
};
use talka_profile::Rule;
use talka_worker::sandbox::TaskInput;

use super::guest;

/// What a task ended with.
pub(crate) type Outcome = Result<Execution, NoResult>;

/// How a row must end.
pub(crate) enum Expected {
    /// The profile refuses the module for this reason, and so does the compile process.
    Refused(Rule),
    /// The profile has nothing against it, but it is more than a compile process can do.
    TooExpensive,
    /// The profile has nothing against it, but the engine has.
    NotCompiled,
    /// Every task ends so.
    Ends(Exit),
    /// Every task ends well, and writes this.
    Writes(Vec<u8>),
    /// The tasks have no result.
    NoResult(NoResult),
    /// Whatever each of the modules does, it does it twice, and neither child dies of it.
    Survived,
    /// As the function finds.
    Checked(Check),
}

/// Looks at the outcomes of a row's tasks; says what is wrong with them.
pub(crate) type Check = Box<dyn Fn(&[Outcome]) -> Result<(), String>>;

pub(crate) const OK: Expected = Expected::Ends(Exit::Ok);

pub(crate) fn limit(limit: Limit) -> Expected {
    Expected::Ends(Exit::Limit(limit))
}

pub(crate) fn trap(trap: Trap) -> Expected {
    Expected::Ends(Exit::Trap(trap))
}

pub(crate) fn checked(check: impl Fn(&[Outcome]) -> Result<(), String> + 'static) -> Expected {
    Expected::Checked(Box::new(check))
}

/// One or more modules and what becomes of them.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Made only in the process of the row: some have megabytes.
    pub(crate) modules: Box<dyn Fn() -> Vec<Vec<u8>>>,
    pub(crate) limits: TaskLimits,
    /// Made there, too.
    pub(crate) batches: Box<dyn Fn() -> Vec<Vec<TaskInput>>>,
    pub(crate) expected: Expected,
    /// Memory that the row may take beyond its limit and what every row may.
    pub(crate) extra: u64,
}

impl Row {
    /// A row with one module and two tasks without input.
    pub(crate) fn new(
        name: &'static str,
        module: impl Fn() -> Vec<u8> + 'static,
        expected: Expected,
    ) -> Self {
        Self::many(name, move || vec![module()], expected)
    }

    /// A row with several modules.
    pub(crate) fn many(
        name: &'static str,
        modules: impl Fn() -> Vec<Vec<u8>> + 'static,
        expected: Expected,
    ) -> Self {
        // The deadline is so far above what the fuel takes that only a program which gets work done without
        // paying for it comes near.
        let limits = TaskLimits {
            memory: Size::mib(16),
            fuel: Fuel::new(100_000_000),
            output: Size::mib(1),
            deadline: Duration::from_secs(15),
        };
        let batches = Box::new(|| vec![vec![TaskInput::default(); 2]]);
        Self { name, modules: Box::new(modules), limits, batches, expected, extra: 0 }
    }

    /// A program in text: see [`guest::program`].
    pub(crate) fn text(
        name: &'static str,
        fields: impl Into<String>,
        start: impl Into<String>,
        expected: Expected,
    ) -> Self {
        let (fields, start) = (fields.into(), start.into());
        Self::new(name, move || guest::program(&fields, &start), expected)
    }

    pub(crate) fn fuel(mut self, fuel: u64) -> Self {
        self.limits.fuel = Fuel::new(fuel);
        self
    }

    pub(crate) fn memory(mut self, memory: Size) -> Self {
        self.limits.memory = memory;
        self
    }

    pub(crate) fn output(mut self, output: Size) -> Self {
        self.limits.output = output;
        self
    }

    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.limits.deadline = deadline;
        self
    }

    /// Memory beyond the usual bound, with a reason where it is called.
    pub(crate) fn extra(mut self, extra: Size) -> Self {
        self.extra = extra.get();
        self
    }

    /// One task for each of these standard inputs.
    pub(crate) fn inputs(self, inputs: &'static [&'static str]) -> Self {
        let task = |input: &&'static str| TaskInput {
            stdin: Bytes::from_static(input.as_bytes()),
            ..TaskInput::default()
        };
        self.batches(move || vec![inputs.iter().map(task).collect()])
    }

    pub(crate) fn batches(mut self, batches: impl Fn() -> Vec<Vec<TaskInput>> + 'static) -> Self {
        self.batches = Box::new(batches);
        self
    }
}
