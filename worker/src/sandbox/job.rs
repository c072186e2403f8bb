//! What an executor is given to run.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use talka_core::{
    digest::Input,
    ids::{BlobHash, InputDigest},
    job::TaskLimits,
};

/// A compiled module, for this machine only.
#[derive(Debug, Clone)]
pub struct Program {
    /// The module that it was compiled from.
    pub hash: BlobHash,
    /// That module as the counting pass left it.
    pub(super) transformed: BlobHash,
    /// Machine code, as this machine's own compile process wrote it. Never taken from anybody else.
    pub(super) compiled: Bytes,
}

impl Program {
    /// The hash of the module as the counting pass left it, in the words of the compile process: equal on all machines
    /// that agree about fuel and results.
    pub fn transformed(&self) -> BlobHash {
        self.transformed
    }

    /// Bytes of machine code.
    pub fn size(&self) -> usize {
        self.compiled.len()
    }
}

/// Everything that all tasks of a job have in common.
#[derive(Debug, Clone)]
pub struct JobWorld {
    program: Arc<Program>,
    /// Sorted by name.
    names: Vec<(String, BlobHash)>,
    /// In the same order.
    contents: Vec<Bytes>,
    limits: TaskLimits,
    seed: u64,
    clock_secs: u64,
}

impl JobWorld {
    /// A job's world. `datasets` are name, hash and content of the files under `/data`.
    pub fn new(
        program: Arc<Program>,
        mut datasets: Vec<(String, BlobHash, Bytes)>,
        limits: TaskLimits,
        seed: u64,
        clock_secs: u64,
    ) -> Self {
        datasets.sort_by(|a, b| a.0.cmp(&b.0));
        let (names, contents) = datasets.into_iter().map(|(name, hash, bytes)| ((name, hash), bytes)).unzip();
        Self { program, names, contents, limits, seed, clock_secs }
    }

    /// The program.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Bounds of each task.
    pub fn limits(&self) -> TaskLimits {
        self.limits
    }

    /// Files under `/data`, by name.
    pub(super) fn datasets(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.names.iter().map(|(name, _)| name.as_str()).zip(&self.contents)
    }

    pub(super) fn seed_and_clock(&self) -> (u64, u64) {
        (self.seed, self.clock_secs)
    }

    /// What the datasets take in memory.
    pub(super) fn dataset_bytes(&self) -> u64 {
        self.contents.iter().map(|content| content.len() as u64).sum()
    }

    /// The digest of all that the task will see.
    pub fn input_digest(&self, task: &TaskInput) -> InputDigest {
        let input = Input {
            args: &task.args,
            env: &task.env,
            seed: self.seed,
            index: task.index,
            clock_secs: self.clock_secs,
            datasets: &self.names,
            memory_bytes: self.limits.memory.get(),
            fuel: self.limits.fuel.get(),
            output_bytes: self.limits.output.get(),
            stdin: &task.stdin,
        };
        input.digest()
    }
}

/// What is one task's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskInput {
    /// The index that the program is told, and half of the seed of its random stream.
    pub index: u64,
    /// Arguments, `argv[0]` included.
    pub args: Vec<String>,
    /// Environment, sorted by name.
    pub env: Vec<(String, String)>,
    /// Standard input. Travels beside the rest, not in it.
    #[serde(skip)]
    pub stdin: Bytes,
}
