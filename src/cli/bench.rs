//! `talka bench`.

mod load;

use std::process::ExitCode;

use clap::{Args, Subcommand, builder::FalseyValueParser};

use self::load::{DispatchFlags, LatencyFlags};
use crate::{
    bench::{self, SandboxConfig},
    error::Failure,
    output::Out,
    problems::Problems,
};

/// Rounds when the user does not say how many: enough that a machine with something else to do has a quiet moment in one.
const ROUNDS_DEFAULT: u32 = 5;
/// The same with `--quick`.
const ROUNDS_QUICK: u32 = 2;
/// Most rounds: half an hour and more.
const ROUNDS_MAX: u32 = 100;

/// Commands that measure.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Compare the sandbox with bare metal.
    Sandbox(SandboxFlags),
    /// Find out how many tasks a coordinator hands out, and what each costs it.
    Dispatch(DispatchFlags),
    /// Find out how long one tiny task takes, from its submission to its result.
    Latency(LatencyFlags),
}

/// `talka bench sandbox`.
#[derive(Debug, Default, Args)]
#[command(after_help = "Example:\n  talka bench sandbox --rounds 10\n\n\
    Runs five kernels natively and in the sandbox, from the same source, and shows how many\n\
    times as long each takes: unmetered, with the engine's fuel, counted by the project's own\n\
    pass, and counted with NaNs settled, which is what tasks get. Times are CPU seconds, the\n\
    best of all rounds, without compiling. Also: what an empty task costs, in a warm executor\n\
    and from nothing, and how long the pass takes. Let the machine do nothing else meanwhile.\n\n\
    With --json: {\"empty_warm_us\", \"empty_cold_us\", \"kernels\": [{\"name\", \"native_secs\",\n\
    \"unmetered\", \"engine_fuel\", \"counted\", \"counted_nan\"}], \"geomean\": {…},\n\
    \"pass_secs_per_mb\", \"rounds\", \"quick\"}.\n\n\
    Exit code: 0 whether goals are reached or not; 1 when something fails or outputs differ.")]
pub(crate) struct SandboxFlags {
    /// Smaller sizes and fewer rounds: seconds and rough figures.
    #[arg(long, env = "TALKA_QUICK", value_parser = FalseyValueParser::new())]
    quick: bool,
    /// How often everything is measured; the best counts [default: 5, with --quick 2].
    #[arg(long, value_name = "NUMBER", env = "TALKA_ROUNDS")]
    rounds: Option<String>,
}

impl TryFrom<SandboxFlags> for SandboxConfig {
    type Error = Failure;

    fn try_from(flags: SandboxFlags) -> Result<Self, Failure> {
        let mut problems = Problems::default();
        let default = if flags.quick { ROUNDS_QUICK } else { ROUNDS_DEFAULT };
        let rounds = problems.parsed("--rounds", flags.rounds.as_deref(), default);
        if !(1..=ROUNDS_MAX).contains(&rounds) {
            problems.add(format!("--rounds must be 1 to {ROUNDS_MAX}"));
        }
        problems.into_result(Self { rounds, quick: flags.quick })
    }
}

impl BenchCommand {
    pub(crate) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        match self {
            Self::Sandbox(flags) => bench::sandbox(flags.try_into()?, out).await,
            Self::Dispatch(flags) => bench::dispatch(flags.try_into()?, out).await,
            Self::Latency(flags) => bench::latency(flags.count()?, out).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_few_and_at_least_one() {
        let config = |quick, rounds: Option<&str>| {
            SandboxConfig::try_from(SandboxFlags { quick, rounds: rounds.map(Into::into) })
        };
        assert_eq!(config(false, None).expect("valid").rounds, 5);
        assert_eq!(config(true, None).expect("valid").rounds, 2);
        assert_eq!(config(true, Some("7")).expect("valid").rounds, 7);
        for wrong in ["0", "101", "-1", "many"] {
            let error = config(false, Some(wrong)).expect_err("refused").to_string();
            assert!(error.contains("--rounds"), "{error}");
        }
    }
}
