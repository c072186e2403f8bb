//! Rough grids by their seeds: what a search for defects goes through.

use std::{collections::VecDeque, fmt};

use crate::{Report, Scenario, Violation, run, run_logged};

/// Events before the end of a run that failed.
const LAST_EVENTS: usize = 60;

/// A seed with which something that must hold does not, and how to see it again.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// What.
    pub violation: Violation,
    /// What happened before.
    pub last_events: Vec<String>,
}

impl Failure {
    /// The command that shows it again.
    pub fn replay(&self) -> String {
        format!("talka simulate --seed {}", self.seed)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, violation, last_events } = self;
        writeln!(f, "seed {seed}: {violation}")?;
        for event in last_events {
            writeln!(f, "  {event}")?;
        }
        write!(f, "replay it with: {}", self.replay())
    }
}

impl std::error::Error for Failure {}

/// Runs the [rough](Scenario::rough) grid of a seed. If something breaks, it is run again for its last events.
pub fn check(seed: u64) -> Result<Report, Box<Failure>> {
    let scenario = Scenario::rough(seed);
    run(seed, &scenario).map_err(|_| Box::new(replayed(seed, &scenario)))
}

fn replayed(seed: u64, scenario: &Scenario) -> Failure {
    let mut last = VecDeque::new();
    let again = run_logged(seed, scenario, &mut |at, line| {
        last.push_back(format!("{:>12.3} {line}", at.as_secs_f64()));
        if last.len() > LAST_EVENTS {
            last.pop_front();
        }
    });
    let violation = again.err().unwrap_or_else(|| Violation {
        invariant: crate::Invariant::Sound,
        at: std::time::Duration::ZERO,
        what: "the same seed gives another run".into(),
    });
    Failure { seed, violation, last_events: last.into() }
}
