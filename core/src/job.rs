//! What a submitter asks for.
//!
//! [`JobSpec`] is always valid: it can only be made by [`RawJobSpec::validate`], which reports every
//! problem at once. It is what the coordinator stores, what a worker is sent, and what a submitter signs.

use std::{collections::BTreeSet, fmt, num::NonZeroU32, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    ids::{BlobHash, PeerId},
    limits,
    precedence::Priority,
    quantities::{Bytes, Fuel, Ppm},
    trust::Policy,
};

/// The variable that tells a program which task it is.
pub const TASK_INDEX_VARIABLE: &str = "TALKA_TASK_INDEX";

/// What is replaced by the task's index in arguments and environment values.
pub const INDEX_PLACEHOLDER: &str = "{index}";

/// The virtual clock's start unless the job sets another one: 2026-01-01T00:00:00Z. The same for every
/// job, so that `talka run` and the grid agree on a program that looks at the clock.
pub const CLOCK_SECS_DEFAULT: u64 = 1_767_225_600;

/// A blob and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// Its name.
    pub hash: BlobHash,
    /// Its length, as its owner says; checked when the last byte is verified.
    pub size: Bytes,
}

/// Where the standard input of each task comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inputs {
    /// Empty; the task has its index only. Indices are `first..first + count`.
    Array {
        /// Index of the first task.
        first: u64,
        /// Number of tasks.
        count: u64,
    },
    /// Task *i* reads a range of one packed blob; see [`crate::packing`].
    Packed {
        /// All inputs, one after the other.
        data: BlobRef,
        /// Their lengths and names.
        index: BlobRef,
        /// Number of tasks.
        count: u64,
    },
}

impl Inputs {
    /// Number of tasks.
    pub fn count(&self) -> u64 {
        match self {
            Self::Array { count, .. } | Self::Packed { count, .. } => *count,
        }
    }

    /// What the program is told as its index, for the task at `position` (from 0).
    pub fn visible_index(&self, position: u64) -> u64 {
        match self {
            Self::Array { first, .. } => first + position,
            Self::Packed { .. } => position,
        }
    }
}

/// A read-only file that every task of the job sees as `/data/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataset {
    /// One path component.
    pub name: String,
    /// Its bytes.
    pub blob: BlobRef,
}

/// What bounds one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLimits {
    /// Linear memory.
    pub memory: Bytes,
    /// Executed operators.
    pub fuel: Fuel,
    /// Standard output and `/out` together.
    pub output: Bytes,
    /// Wall-clock time of one attempt; passing it gives no result.
    pub deadline: Duration,
}

impl Default for TaskLimits {
    fn default() -> Self {
        Self {
            memory: Bytes::new(limits::TASK_MEMORY_BYTES_DEFAULT),
            fuel: Fuel::new(limits::TASK_FUEL_DEFAULT),
            output: Bytes::new(limits::TASK_OUTPUT_BYTES_DEFAULT),
            deadline: limits::TASK_DEADLINE_DEFAULT,
        }
    }
}

/// A job as somebody claims it to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawJobSpec {
    /// For people; need not be unique.
    pub name: String,
    /// The WebAssembly module.
    pub bundle: BlobRef,
    /// Standard input of each task.
    pub inputs: Inputs,
    /// Arguments after `argv[0]`.
    pub args: Vec<String>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// Files that every task sees.
    pub datasets: Vec<Dataset>,
    /// Bounds of one task.
    pub limits: TaskLimits,
    /// Attempts that must agree, unless there is an error rate.
    pub quorum: u32,
    /// Seed of the random stream, together with the index.
    pub seed: u64,
    /// Start of the virtual clock in seconds since the Unix epoch.
    pub clock_secs: u64,
    /// Among its submitter's jobs, those of higher priority go first. It may be changed while the job runs.
    #[serde(default)]
    pub priority: i64,
    /// The only peers that may get attempts; anybody when empty.
    #[serde(default)]
    pub on: Vec<PeerId>,
    /// Accept answers by what is known of those who gave them, and not by their number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<ErrorRate>,
}

/// How certain results must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorRate {
    /// Wrong results among those that are accepted.
    pub error: Ppm,
    /// Liars among those that nothing is known of.
    pub liars: Ppm,
}

impl Default for ErrorRate {
    fn default() -> Self {
        Self { error: Ppm::new(limits::ERROR_RATE_PPM_DEFAULT), liars: Ppm::new(limits::LIARS_PPM_DEFAULT) }
    }
}

/// A job that breaks no rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawJobSpec", into = "RawJobSpec")]
pub struct JobSpec {
    raw: RawJobSpec,
    quorum: NonZeroU32,
    policy: Policy,
    priority: Priority,
}

impl std::ops::Deref for JobSpec {
    type Target = RawJobSpec;

    fn deref(&self) -> &RawJobSpec {
        &self.raw
    }
}

impl From<JobSpec> for RawJobSpec {
    fn from(spec: JobSpec) -> Self {
        spec.raw
    }
}

impl TryFrom<RawJobSpec> for JobSpec {
    type Error = InvalidJob;

    fn try_from(raw: RawJobSpec) -> Result<Self, InvalidJob> {
        raw.validate()
    }
}

/// A job breaks rules. Submit it again, mended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct InvalidJob {
    /// Each problem, as a sentence that names the field and the remedy.
    pub problems: Vec<String>,
}

impl fmt::Display for InvalidJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("; "))
    }
}

impl RawJobSpec {
    /// A job that asks for nothing special: one answer is enough, no arguments, every limit as it is by default.
    pub fn plain(name: impl Into<String>, bundle: BlobRef, inputs: Inputs) -> Self {
        Self {
            name: name.into(),
            bundle,
            inputs,
            args: vec![],
            env: vec![],
            datasets: vec![],
            limits: TaskLimits::default(),
            quorum: 1,
            seed: 0,
            clock_secs: CLOCK_SECS_DEFAULT,
            priority: 0,
            on: vec![],
            error_rate: None,
        }
    }

    /// Checks every rule and reports all that are broken.
    pub fn validate(mut self) -> Result<JobSpec, InvalidJob> {
        let mut problems = Vec::new();
        self.check_name(&mut problems);
        self.check_inputs(&mut problems);
        self.check_arguments(&mut problems);
        self.check_datasets(&mut problems);
        self.check_limits(&mut problems);
        let quorum = NonZeroU32::new(self.quorum).filter(|quorum| quorum.get() <= limits::QUORUM_MAX);
        if quorum.is_none() {
            let max = limits::QUORUM_MAX;
            problems.push(format!("quorum {} is not between 1 and {max}", self.quorum));
        }
        let policy = match self.error_rate {
            Some(ErrorRate { error, liars }) => Policy::error_rate(error.get(), liars.get()),
            None => Policy::quorum(self.quorum),
        };
        if let (Err(problem), true) = (policy, self.error_rate.is_some()) {
            problems.push(problem.to_string());
        }
        let priority = Priority::new(self.priority);
        if let Err(problem) = priority {
            problems.push(problem.to_string());
        }
        self.on.sort();
        self.on.dedup();
        self.check_targets(&mut problems);
        self.env.sort();
        self.datasets.sort_by(|a, b| a.name.cmp(&b.name));
        match (quorum, policy, priority) {
            (Some(quorum), Ok(policy), Ok(priority)) if problems.is_empty() => {
                Ok(JobSpec { raw: self, quorum, policy, priority })
            }
            _ => Err(InvalidJob { problems }),
        }
    }

    fn check_name(&self, problems: &mut Vec<String>) {
        let max = limits::JOB_NAME_BYTES_MAX;
        if self.name.is_empty() || self.name.len() > max || self.name.chars().any(char::is_control) {
            problems.push(format!("name must be 1 to {max} bytes without control characters"));
        }
        over(problems, "bundle", self.bundle.size.get(), limits::MODULE_BYTES_MAX, "bytes");
    }

    fn check_inputs(&self, problems: &mut Vec<String>) {
        let count = self.inputs.count();
        if count == 0 {
            problems.push("a job needs at least one task".into());
        }
        match &self.inputs {
            Inputs::Array { first, .. } => {
                over(problems, "array", count, limits::JOB_TASKS_MAX, "tasks");
                if first.checked_add(count).is_none() {
                    problems.push("array indices must fit 64 bits".into());
                }
            }
            Inputs::Packed { data, index, .. } => {
                over(problems, "inputs", count, limits::JOB_PACKED_TASKS_MAX, "tasks");
                over(problems, "inputs", data.size.get(), limits::BLOB_BYTES_MAX, "bytes");
                over(problems, "input index", index.size.get(), limits::INPUT_INDEX_BYTES_MAX, "bytes");
            }
        }
    }

    fn check_arguments(&self, problems: &mut Vec<String>) {
        let entries = self.args.len() + self.env.len();
        over(problems, "args and env", entries as u64, limits::JOB_ARGS_MAX as u64, "entries");
        let texts = self.args.iter().chain(self.env.iter().flat_map(|(name, value)| [name, value]));
        let bytes: usize = texts.clone().map(String::len).sum();
        over(problems, "args and env", bytes as u64, limits::JOB_ARGS_BYTES_MAX as u64, "bytes");
        if texts.clone().any(|text| text.contains('\0')) {
            problems.push("args and env must not hold NUL bytes".into());
        }
        let mut names = BTreeSet::new();
        for (name, _) in &self.env {
            if name.is_empty() || name.contains('=') {
                problems.push(format!("{name:?} is not a name of an environment variable"));
            } else if name == TASK_INDEX_VARIABLE {
                problems.push(format!("{TASK_INDEX_VARIABLE} is set by the grid itself"));
            } else if !names.insert(name) {
                problems.push(format!("environment variable {name:?} is set twice"));
            }
        }
    }

    fn check_datasets(&self, problems: &mut Vec<String>) {
        let (count, max) = (self.datasets.len() as u64, limits::JOB_DATASETS_MAX as u64);
        over(problems, "datasets", count, max, "files");
        let bytes: Bytes = self.datasets.iter().map(|dataset| dataset.blob.size).sum();
        over(problems, "datasets", bytes.get(), limits::DATASETS_BYTES_MAX, "bytes");
        let mut names = BTreeSet::new();
        for Dataset { name, .. } in &self.datasets {
            if !is_file_name(name) {
                let max = limits::DATASET_NAME_BYTES_MAX;
                problems
                    .push(format!("dataset name {name:?} must be one path component of at most {max} bytes"));
            } else if !names.insert(name) {
                problems.push(format!("dataset {name:?} is given twice"));
            }
        }
    }

    fn check_targets(&self, problems: &mut Vec<String>) {
        let peers = self.on.len();
        over(problems, "on", peers as u64, limits::JOB_TARGETS_MAX as u64, "peers");
        let quorum = usize::try_from(self.quorum).unwrap_or(usize::MAX);
        if peers > 0 && quorum > peers && self.error_rate.is_none() {
            problems.push(format!(
                "quorum {quorum} can't be reached by the {peers} peer(s) that the job is meant for; name more of \
                 them or lower --quorum"
            ));
        }
    }

    fn check_limits(&self, problems: &mut Vec<String>) {
        let TaskLimits { memory, fuel, output, deadline } = self.limits;
        over(problems, "memory", memory.get(), limits::TASK_MEMORY_BYTES_MAX, "bytes");
        over(problems, "fuel", fuel.get(), limits::TASK_FUEL_MAX, "operators");
        over(problems, "output", output.get(), limits::TASK_OUTPUT_BYTES_MAX, "bytes");
        over(problems, "deadline", deadline.as_secs(), limits::TASK_DEADLINE_MAX.as_secs(), "seconds");
        if memory.get() < 64 << 10 {
            problems.push("memory must be at least one page, 64KiB".into());
        }
        if fuel.get() == 0 || deadline.is_zero() {
            problems.push("fuel and deadline must be above 0".into());
        }
    }
}

fn over(problems: &mut Vec<String>, what: &str, value: u64, max: u64, unit: &str) {
    if value > max {
        problems.push(format!("{what}: {value} {unit} is above the limit of {max}"));
    }
}

/// Whether `name` is one path component that is safe on any host.
pub fn is_file_name(name: &str) -> bool {
    let fits = (1..=limits::DATASET_NAME_BYTES_MAX).contains(&name.len());
    fits && name != "." && name != ".." && !name.contains(['/', '\\']) && !name.chars().any(char::is_control)
}

impl JobSpec {
    /// Attempts that must agree, if nothing else decides.
    pub fn quorum(&self) -> u32 {
        self.quorum.get()
    }

    /// What decides when answers suffice.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Where it stands among its submitter's jobs when it begins.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// Whether a peer may get attempts of it.
    pub fn is_meant_for(&self, peer: PeerId) -> bool {
        self.on.is_empty() || self.on.binary_search(&peer).is_ok()
    }

    /// `argv` of the task at `position`: the job's name for `argv[0]`, `{index}` substituted.
    pub fn task_args(&self, position: u64) -> Vec<String> {
        let index = self.inputs.visible_index(position).to_string();
        let args = self.args.iter().map(|arg| arg.replace(INDEX_PLACEHOLDER, &index));
        std::iter::once("task".to_owned()).chain(args).collect()
    }

    /// Environment of the task at `position`, sorted by name.
    pub fn task_env(&self, position: u64) -> Vec<(String, String)> {
        let index = self.inputs.visible_index(position).to_string();
        let own =
            self.env.iter().map(|(name, value)| (name.clone(), value.replace(INDEX_PLACEHOLDER, &index)));
        let mut env: Vec<_> = own.chain([(TASK_INDEX_VARIABLE.to_owned(), index.clone())]).collect();
        env.sort();
        env
    }

    /// Every blob that a task of this job may need, the bundle first.
    pub fn blobs(&self) -> Vec<BlobRef> {
        let packed = match &self.inputs {
            Inputs::Packed { data, .. } => Some(*data),
            Inputs::Array { .. } => None,
        };
        let datasets = self.datasets.iter().map(|dataset| dataset.blob);
        [self.bundle].into_iter().chain(packed).chain(datasets).collect()
    }
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum JobState {
    /// Tasks are handed out.
    Running = 1,
    /// Every task is done or failed.
    Finished = 2,
    /// The submitter cancelled it; tasks that were not final by then never will be.
    Cancelled = 3,
}

impl JobState {
    /// From the number of a row; `None` for one that this version never wrote.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Running, Self::Finished, Self::Cancelled].into_iter().find(|state| *state as u8 == code)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Cancelled => "cancelled",
        })
    }
}

/// A job with its submitter, as the coordinator took it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// Drawn by the submitter; submitting again with the same one gives the same job.
    pub request: [u8; 16],
    /// Who asked.
    pub submitter: PeerId,
    /// What for.
    pub spec: JobSpec,
    /// The submitter's signature of [`job_statement`](crate::signing::job_statement). Jobs that were taken on before
    /// there were signatures have none.
    pub signature: Option<[u8; 64]>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn raw(count: u64, quorum: u32) -> RawJobSpec {
        RawJobSpec {
            args: vec!["--tile".into(), "{index}".into()],
            env: vec![("B".into(), "x{index}".into()), ("A".into(), String::new())],
            quorum,
            ..RawJobSpec::plain(
                "test",
                BlobRef { hash: BlobHash::new([1; 32]), size: Bytes::new(100) },
                Inputs::Array { first: 0, count },
            )
        }
    }

    pub(crate) fn spec(count: u64, quorum: u32) -> JobSpec {
        raw(count, quorum).validate().expect("a valid job")
    }

    #[test]
    fn the_index_is_substituted_and_the_environment_sorted() {
        let mut raw = raw(10, 2);
        raw.inputs = Inputs::Array { first: 100, count: 10 };
        let spec = raw.validate().expect("valid");
        assert_eq!(spec.task_args(3), ["task", "--tile", "103"]);
        let env = spec.task_env(3);
        let env: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(env, [("A", ""), ("B", "x103"), ("TALKA_TASK_INDEX", "103")]);
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let broken = RawJobSpec {
            name: "a\nb".into(),
            inputs: Inputs::Array { first: u64::MAX, count: 2 },
            env: vec![("A=B".into(), String::new()), (TASK_INDEX_VARIABLE.into(), String::new())],
            datasets: vec![Dataset {
                name: "../etc".into(),
                blob: BlobRef { hash: BlobHash::new([0; 32]), size: Bytes::new(1) },
            }],
            limits: TaskLimits { memory: Bytes::new(1), ..TaskLimits::default() },
            quorum: 0,
            priority: 101,
            on: (0..=limits::JOB_TARGETS_MAX)
                .map(|n| PeerId::new([u8::try_from(n).expect("few"); 32]))
                .collect(),
            ..raw(1, 1)
        };
        let InvalidJob { problems } = broken.validate().expect_err("broken");
        assert_eq!(problems.len(), 9, "{problems:#?}");
    }

    #[test]
    fn a_quorum_must_be_reachable_by_the_peers_that_the_job_is_meant_for() {
        let [a, b, c] = [1, 2, 3].map(|byte| PeerId::new([byte; 32]));
        let meant_for = |on: &[PeerId], quorum| RawJobSpec { on: on.to_vec(), ..raw(1, quorum) }.validate();
        let spec = meant_for(&[c, a, c], 2).expect("two peers can agree");
        assert_eq!([a, b, c].map(|peer| spec.is_meant_for(peer)), [true, false, true]);
        assert!(meant_for(&[a, a, a], 2).is_err(), "one peer named thrice is one peer");
        assert!(meant_for(&[a, b, c], 4).is_err());
        let anybody = meant_for(&[], 4).expect("anybody");
        assert!(anybody.is_meant_for(b));
    }

    #[test]
    fn a_file_name_is_one_component() {
        for good in ["a", "a.txt", "ünï", "a b"] {
            assert!(is_file_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a\\b", "a\0", "a\n", &"x".repeat(201)] {
            assert!(!is_file_name(bad), "{bad:?}");
        }
    }
}
