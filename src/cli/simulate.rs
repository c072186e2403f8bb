//! `talka simulate`: grids in virtual time.

mod compare;
mod plot;
mod search;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, builder::FalseyValueParser};

use self::{compare::Compare, search::Search};
use crate::{error::Failure, output::Out, problems::Problems};

/// Seeds when the user does not say how many: some seconds.
const SEEDS_DEFAULT: u64 = 100;
/// Most seeds of one search: days.
const SEEDS_MAX: u64 = 100_000_000;
/// Most seeds of one scenario: every outcome is kept and shown.
const SCENARIO_SEEDS_MAX: u64 = 1000;

/// `talka simulate`.
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:\n  \
    talka simulate --seeds 1000                 search a thousand rough grids for what must not happen\n  \
    talka simulate --seed 17 --events           replay one of them, event by event\n  \
    talka simulate liars.toml --plot liars.svg  compare policies on a population with liars\n\n\
    Without a file, each seed is a whole grid in virtual time, over the code that decides for real, in which messages\n\
    get lost, machines crash, clocks jump, networks fall apart and workers lie. Seven things must hold at each step,\n\
    and every job must end once nothing goes wrong any more.\n\n\
    With a file, a population of volunteers works off tasks under one policy after the other: how many wrong results\n\
    stand, and what certainty costs. docs/simulate.md describes the file.\n\n\
    With --json and a file: [{\"policy\", \"tasks\", \"wrong_accepted\", \"attempts_per_task\", \"makespan_secs\",\n\
    \"credit_total\", \"network_bytes\", \"seed\"}]. Without: {\"first_seed\", \"seeds\", \"events\", \"tasks\", \"sessions\",\n\
    \"coordinator_crashes\", \"worker_crashes\", \"violations\": [{\"seed\", \"invariant\", \"at_secs\", \"what\",\n\
    \"last_events\", \"replay\"}]}.\n\n\
    Exit code: 0 when everything holds, 1 otherwise.")]
pub(crate) struct SimulateFlags {
    /// A scenario: volunteers, liars and policies to compare.
    #[arg(value_name = "FILE.toml")]
    file: Option<PathBuf>,
    /// How many seeds are tried [default: 100, with --seed or a file 1].
    #[arg(long, value_name = "NUMBER", env = "TALKA_SEEDS")]
    seeds: Option<String>,
    /// The first seed [default: 1, or what the file says].
    #[arg(long, value_name = "NUMBER", env = "TALKA_SEED")]
    seed: Option<String>,
    /// Print every event of a single seed.
    #[arg(long, env = "TALKA_EVENTS", value_parser = FalseyValueParser::new())]
    events: bool,
    /// Draw what came of a scenario, as SVG.
    #[arg(long, value_name = "FILE.svg", env = "TALKA_PLOT")]
    plot: Option<PathBuf>,
}

/// What is asked for.
enum Asked {
    Search(Search),
    Compare(Compare),
}

impl TryFrom<SimulateFlags> for Asked {
    type Error = Failure;

    fn try_from(flags: SimulateFlags) -> Result<Self, Failure> {
        let mut problems = Problems::default();
        let one = flags.seed.is_some() || flags.file.is_some();
        let default = if one { 1 } else { SEEDS_DEFAULT };
        let seeds = problems.parsed("--seeds", flags.seeds.as_deref(), default);
        let seed: Option<u64> = problems.optional("--seed", flags.seed.as_deref());
        let first = seed.unwrap_or(1);
        let most = if flags.file.is_some() { SCENARIO_SEEDS_MAX } else { SEEDS_MAX };
        if !(1..=most).contains(&seeds) {
            problems.add(format!("--seeds must be 1 to {most}"));
        }
        if first.checked_add(seeds).is_none() {
            problems.add("--seed is too high for so many seeds");
        }
        if flags.events && seeds != 1 {
            problems.add("--events is for a single seed: name it with --seed");
        }
        if flags.events && flags.file.is_some() {
            problems.add("--events is for a search, not for a scenario");
        }
        if flags.plot.is_some() && flags.file.is_none() {
            problems.add("--plot is for a scenario: name its file");
        }
        let asked = match flags.file {
            Some(file) => Self::Compare(Compare { file, seed, seeds, plot: flags.plot }),
            None => Self::Search(Search { first, seeds, events: flags.events }),
        };
        problems.into_result(asked)
    }
}

impl SimulateFlags {
    pub(crate) fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        match Asked::try_from(self)? {
            Asked::Search(search) => search.run(out),
            Asked::Compare(compare) => compare.run(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(seeds: Option<&str>, seed: Option<&str>, events: bool, file: bool) -> Result<Asked, Failure> {
        let file = file.then(|| PathBuf::from("some.toml"));
        let flags = SimulateFlags {
            file,
            seeds: seeds.map(Into::into),
            seed: seed.map(Into::into),
            events,
            plot: None,
        };
        flags.try_into()
    }

    #[test]
    fn a_seed_is_replayed_alone_unless_more_are_asked_for() {
        let search = |seeds, seed, events| match asked(seeds, seed, events, false) {
            Ok(Asked::Search(search)) => (search.first, search.seeds),
            _ => panic!("a search"),
        };
        assert_eq!(search(None, None, false), (1, 100));
        assert_eq!(search(None, Some("17"), true), (17, 1));
        assert_eq!(search(Some("5"), Some("17"), false), (17, 5));
        let Ok(Asked::Compare(compare)) = asked(None, None, false, true) else { panic!("a scenario") };
        assert_eq!((compare.seed, compare.seeds), (None, 1));
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_named() {
        for (seeds, seed, events, file, named) in [
            (Some("0"), None, false, false, "--seeds"),
            (Some("many"), None, false, false, "--seeds"),
            (Some("1001"), None, false, true, "--seeds"),
            (Some("2"), Some("18446744073709551615"), false, false, "--seed "),
            (Some("2"), None, true, false, "--events"),
            (None, None, true, true, "--events"),
        ] {
            let Err(error) = asked(seeds, seed, events, file) else { panic!("{named} is refused") };
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}
