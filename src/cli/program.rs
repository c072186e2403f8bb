//! Flags that describe a program and its world: the same for `submit` and `run`, so that a task means
//! the same in both.

use std::path::PathBuf;

use clap::Args;
use talka_core::{
    ids::{BlobHash, PeerId},
    job::{BlobRef, CLOCK_SECS_DEFAULT, Dataset, ErrorRate, Inputs, RawJobSpec, TaskLimits},
    quantities::{Bytes, Span},
};

use super::module_name;
use crate::problems::Problems;

/// What the user wrote.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ProgramFlags {
    /// The program: a WASI preview 1 command, as compilers emit for wasm32-wasip1.
    #[arg(value_name = "FILE.wasm")]
    pub(crate) module: PathBuf,
    /// Memory of one task [default: 256MiB].
    #[arg(long, value_name = "SIZE", env = "TALKA_MEMORY", help_heading = "Task")]
    pub(crate) memory: Option<String>,
    /// Fuel of one task: executed operators, as 500M or 2T [default: 1T].
    #[arg(long, value_name = "FUEL", env = "TALKA_FUEL", help_heading = "Task")]
    pub(crate) fuel: Option<String>,
    /// Wall-clock time of one attempt; passing it says nothing about the program [default: 1h].
    #[arg(long, value_name = "TIME", env = "TALKA_DEADLINE", help_heading = "Task")]
    pub(crate) deadline: Option<String>,
    /// Standard output and /out files of one task together [default: 16MiB].
    #[arg(long, value_name = "SIZE", env = "TALKA_OUTPUT", help_heading = "Task")]
    pub(crate) output: Option<String>,
    /// Seed of the program's random numbers, together with the task's index [default: 0].
    #[arg(long, value_name = "NUMBER", env = "TALKA_SEED", help_heading = "Task")]
    pub(crate) seed: Option<String>,
    /// A file that every task sees as /data/NAME. May be repeated.
    #[arg(long, value_name = "NAME=PATH", env = "TALKA_DATA", help_heading = "Task")]
    pub(crate) data: Vec<String>,
    /// An environment variable; {index} in its value becomes the task's index. May be repeated.
    #[arg(long, value_name = "NAME=VALUE", env = "TALKA_ENV", help_heading = "Task")]
    pub(crate) env: Vec<String>,
    /// Arguments of the program; {index} becomes the task's index.
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
}

/// A job to which only its blobs are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    /// The module.
    pub(crate) module: PathBuf,
    /// `/data` files: name and path.
    pub(crate) datasets: Vec<(String, PathBuf)>,
    /// The rest, with stand-ins for the blobs that have to be read first.
    pub(crate) draft: RawJobSpec,
}

/// What a job is besides its program and its inputs.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    /// `None`: the program's file name.
    pub(crate) name: Option<String>,
    /// Peers that must agree.
    pub(crate) quorum: u32,
    /// Instead: how certain results must be.
    pub(crate) error_rate: Option<ErrorRate>,
    /// See [`RawJobSpec::priority`].
    pub(crate) priority: i64,
    /// See [`RawJobSpec::on`].
    pub(crate) on: Vec<PeerId>,
}

/// A blob that is not known yet: it breaks no rule.
const UNKNOWN: BlobRef = BlobRef { hash: BlobHash::new([0; 32]), size: Bytes::new(0) };

impl ProgramFlags {
    /// Checks everything that can be checked before a file is read. Each problem goes to `problems`.
    pub(crate) fn validate(self, inputs: Inputs, terms: Terms, problems: &mut Problems) -> Program {
        let defaults = TaskLimits::default();
        let limits = TaskLimits {
            memory: problems.parsed("--memory", self.memory.as_deref(), defaults.memory),
            fuel: problems.parsed("--fuel", self.fuel.as_deref(), defaults.fuel),
            output: problems.parsed("--output", self.output.as_deref(), defaults.output),
            deadline: problems.parsed("--deadline", self.deadline.as_deref(), Span(defaults.deadline)).0,
        };
        let seed = problems.parsed("--seed", self.seed.as_deref(), 0);
        let datasets: Vec<(String, PathBuf)> = problems
            .pairs("--data", "NAME=PATH, as in genome.fa=data/hg38.fa", self.data)
            .into_iter()
            .map(|(name, path)| (name, PathBuf::from(path)))
            .collect();
        let env = problems.pairs("--env", "NAME=VALUE", self.env);
        let draft = RawJobSpec {
            name: terms.name.unwrap_or_else(|| module_name(&self.module)),
            bundle: UNKNOWN,
            inputs,
            args: self.args,
            env,
            datasets: datasets
                .iter()
                .map(|(name, _)| Dataset { name: name.clone(), blob: UNKNOWN })
                .collect(),
            limits,
            quorum: terms.quorum,
            seed,
            clock_secs: CLOCK_SECS_DEFAULT,
            priority: terms.priority,
            on: terms.on,
            error_rate: terms.error_rate,
        };
        if let Err(invalid) = draft.clone().validate() {
            problems.extend(invalid.problems);
        }
        Program { module: self.module, datasets, draft }
    }
}

/// One task without input, where no flag says anything about inputs.
pub(crate) const ONE_TASK: Inputs = Inputs::Array { first: 0, count: 1 };

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn validate(flags: ProgramFlags) -> Result<Program, String> {
        let mut problems = Problems::default();
        let program = flags.validate(ONE_TASK, Terms { quorum: 2, ..Terms::default() }, &mut problems);
        problems.into_result(program).map_err(|failure| failure.to_string())
    }

    #[test]
    fn flags_become_quantities_and_defaults_fill_the_rest() {
        let program = validate(ProgramFlags {
            module: "dir/tiles.wasm".into(),
            memory: Some("64MiB".into()),
            deadline: Some("90s".into()),
            data: vec!["genome=a=b.fa".into()],
            env: vec!["A=".into(), "B=x=y".into()],
            ..ProgramFlags::default()
        })
        .expect("valid");
        assert_eq!(program.draft.name, "tiles");
        assert_eq!(program.draft.limits.memory, Bytes::mib(64));
        assert_eq!(program.draft.limits.deadline, Duration::from_secs(90));
        assert_eq!(program.draft.limits.fuel, TaskLimits::default().fuel);
        assert_eq!(program.datasets, [("genome".to_owned(), PathBuf::from("a=b.fa"))]);
        assert_eq!(program.draft.env, [("A".into(), String::new()), ("B".into(), "x=y".into())]);
    }

    #[test]
    fn every_problem_is_named_with_its_flag() {
        let message = validate(ProgramFlags {
            module: "x.wasm".into(),
            memory: Some("lots".into()),
            fuel: Some("-1".into()),
            seed: Some("abc".into()),
            data: vec!["no-path".into(), "../x=a".into(), "=a".into(), "a=".into()],
            env: vec!["=1".into()],
            ..ProgramFlags::default()
        })
        .expect_err("broken");
        for part in [
            "--memory lots: ",
            "--fuel -1: ",
            "--seed abc: ",
            "--data no-path: ",
            "\"../x\"",
            "--data =a: ",
            "--data a=: ",
            "--env =1: ",
        ] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
    }
}
