//! `talka simulate`: grids in virtual time.

mod search;

use std::process::ExitCode;

use clap::{Args, builder::FalseyValueParser};

use self::search::Search;
use crate::{error::Failure, output::Out, problems::Problems};

/// Seeds when the user does not say how many: some seconds.
const SEEDS_DEFAULT: u64 = 100;
/// Most seeds of one search: days.
const SEEDS_MAX: u64 = 100_000_000;

/// `talka simulate`.
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:\n  \
    talka simulate --seeds 1000        search a thousand rough grids for what must not happen\n  \
    talka simulate --seed 17 --events  replay one of them, event by event\n\n\
    Each seed is a whole grid in virtual time, over the code that decides for real, in which messages get lost,\n\
    machines crash, clocks jump, networks fall apart and workers lie. Seven things must hold at each step, and every\n\
    job must end once nothing goes wrong any more.\n\n\
    With --json: {\"first_seed\", \"seeds\", \"events\", \"tasks\", \"sessions\", \"coordinator_crashes\", \"worker_crashes\",\n\
    \"violations\": [{\"seed\", \"invariant\", \"at_secs\", \"what\", \"last_events\", \"replay\"}]}.\n\n\
    Exit code: 0 when everything holds, 1 otherwise.")]
pub(crate) struct SimulateFlags {
    /// How many seeds are tried [default: 100, with --seed 1].
    #[arg(long, value_name = "NUMBER", env = "TALKA_SEEDS")]
    seeds: Option<String>,
    /// The first seed [default: 1].
    #[arg(long, value_name = "NUMBER", env = "TALKA_SEED")]
    seed: Option<String>,
    /// Print every event of a single seed.
    #[arg(long, env = "TALKA_EVENTS", value_parser = FalseyValueParser::new())]
    events: bool,
}

impl TryFrom<SimulateFlags> for Search {
    type Error = Failure;

    fn try_from(flags: SimulateFlags) -> Result<Self, Failure> {
        let mut problems = Problems::default();
        let default = if flags.seed.is_some() { 1 } else { SEEDS_DEFAULT };
        let seeds = problems.parsed("--seeds", flags.seeds.as_deref(), default);
        let first: u64 = problems.parsed("--seed", flags.seed.as_deref(), 1);
        if !(1..=SEEDS_MAX).contains(&seeds) {
            problems.add(format!("--seeds must be 1 to {SEEDS_MAX}"));
        }
        if first.checked_add(seeds).is_none() {
            problems.add("--seed is too high for so many seeds");
        }
        if flags.events && seeds != 1 {
            problems.add("--events is for a single seed: name it with --seed");
        }
        problems.into_result(Self { first, seeds, events: flags.events })
    }
}

impl SimulateFlags {
    pub(crate) fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        Search::try_from(self)?.run(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_replayed_alone_unless_more_are_asked_for() {
        let search = |seeds: Option<&str>, seed: Option<&str>, events| {
            let flags = SimulateFlags { seeds: seeds.map(Into::into), seed: seed.map(Into::into), events };
            Search::try_from(flags).map(|search| (search.first, search.seeds))
        };
        assert_eq!(search(None, None, false).expect("valid"), (1, 100));
        assert_eq!(search(None, Some("17"), true).expect("valid"), (17, 1));
        assert_eq!(search(Some("5"), Some("17"), false).expect("valid"), (17, 5));
        for (seeds, seed, events, named) in [
            (Some("0"), None, false, "--seeds"),
            (Some("many"), None, false, "--seeds"),
            (Some("2"), Some("18446744073709551615"), false, "--seed "),
            (Some("2"), None, true, "--events"),
        ] {
            let error = search(seeds, seed, events).expect_err("refused").to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
