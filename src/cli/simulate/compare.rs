//! Policies beside each other on one population.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::Context;
use serde::Serialize;
use talka_simulator::population::{Outcome, PolicyName, RawSetup, Setup, simulate};

use super::plot;
use crate::{
    error::{Code, Failure, list},
    format,
    output::Out,
    progress,
};

/// Largest scenario file: one of a thousand kinds of volunteers is smaller.
const SCENARIO_BYTES_MAX: u64 = 1 << 20;

/// What is compared.
#[derive(Debug, Clone)]
pub(super) struct Compare {
    pub(super) file: PathBuf,
    /// The scenario says, if nobody else does.
    pub(super) seed: Option<u64>,
    pub(super) seeds: u64,
    pub(super) plot: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct OutcomeView {
    policy: String,
    tasks: u64,
    wrong_accepted: u64,
    attempts_per_task: f64,
    makespan_secs: f64,
    credit_total: f64,
    network_bytes: u64,
    seed: u64,
}

impl From<&Outcome> for OutcomeView {
    fn from(outcome: &Outcome) -> Self {
        Self {
            policy: outcome.policy.to_string(),
            tasks: outcome.tasks,
            wrong_accepted: outcome.wrong_accepted,
            attempts_per_task: outcome.attempts_per_task(),
            makespan_secs: outcome.makespan_secs,
            credit_total: outcome.credit_total.as_f64(),
            network_bytes: outcome.network_bytes,
            seed: outcome.seed,
        }
    }
}

impl Compare {
    pub(super) fn run(&self, out: Out) -> anyhow::Result<ExitCode> {
        let setup = read(&self.file)?;
        let first = self.seed.unwrap_or(setup.seed);
        let seeds = (0..self.seeds).map(|more| first.saturating_add(more));
        let runs: Vec<(u64, PolicyName)> =
            seeds.flat_map(|seed| setup.policies.iter().map(move |policy| (seed, *policy))).collect();
        let outcomes = outcomes(&setup, &runs, out);
        if let Some(path) = &self.plot {
            let picture = plot::svg(&outcomes);
            fs::write(path, picture).with_context(|| format!("cannot write {}", path.display()))?;
        }
        if out.is_json() {
            out.json(&outcomes.iter().map(OutcomeView::from).collect::<Vec<_>>())?;
        } else {
            print(&outcomes, out)?;
        }
        if let Some(path) = self.plot.as_ref().filter(|_| !out.is_json()) {
            out.note(format_args!("the plot is in {}", path.display()));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn read(path: &Path) -> anyhow::Result<Setup> {
    let unreadable = || format!("cannot read {}", path.display());
    let size = fs::metadata(path).with_context(unreadable)?.len();
    if size > SCENARIO_BYTES_MAX {
        let text = format!("{} has {size} bytes, and {SCENARIO_BYTES_MAX} is the limit", path.display());
        return Err(Failure::new(Code::Limit, text).into());
    }
    let text = fs::read_to_string(path).with_context(unreadable)?;
    let refused = |problems: &[String]| {
        Failure::new(Code::Usage, list(&format!("{} is no usable scenario", path.display()), problems))
    };
    let raw: RawSetup = toml::from_str(&text).map_err(|error| refused(&[error.to_string()]))?;
    Ok(raw.try_into().map_err(|error: talka_simulator::population::InvalidSetup| refused(&error.0))?)
}

/// All runs, on every processor, in their order.
fn outcomes(setup: &Setup, runs: &[(u64, PolicyName)], out: Out) -> Vec<Outcome> {
    let bar = progress::steps_bar(out, runs.len() as u64).with_message("runs");
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(runs.len())));
    let threads = thread::available_parallelism().map_or(1, usize::from).min(runs.len());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some((seed, policy)) = runs.get(place) else { return };
                    let outcome = simulate(setup, *policy, *seed);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((place, outcome));
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

#[expect(clippy::cast_precision_loss, reason = "shares and means")]
fn print(outcomes: &[Outcome], out: Out) -> anyhow::Result<()> {
    let rows = outcomes.iter().map(|outcome| {
        [
            outcome.policy.to_string(),
            outcome.seed.to_string(),
            outcome.tasks.to_string(),
            outcome.wrong_accepted.to_string(),
            format!("{:.5}", outcome.wrong_accepted as f64 / outcome.tasks.max(1) as f64),
            format!("{:.3}", outcome.attempts_per_task()),
            format::span(outcome.makespan_secs).to_string(),
            format!("{:.0}", outcome.credit_total.as_f64()),
            format!("{:.1}", outcome.network_bytes as f64 / (1_u64 << 30) as f64),
        ]
    });
    let titles = [
        "policy",
        "seed",
        "tasks",
        "wrong",
        "share",
        "attempts per task",
        "makespan",
        "credit",
        "network GiB",
    ];
    out.table(titles, rows)?;
    if out.is_quiet() {
        return Ok(());
    }
    let rows = outcomes.iter().flat_map(|outcome| {
        outcome.groups.iter().map(|group| {
            [
                outcome.policy.to_string(),
                outcome.seed.to_string(),
                group.strategy.name().to_owned(),
                group.volunteers.to_string(),
                group.attempts.to_string(),
                group.wrong_accepted.to_string(),
                format!("{:.1}", group.credit_per_attempt()),
            ]
        })
    });
    let titles =
        ["policy", "seed", "strategy", "volunteers", "attempts", "wrong accepted", "credit per attempt"];
    out.table(titles, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_are_usable() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/simulate");
        let mut seen = 0;
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|ending| ending == "toml") {
                let setup = read(&path).unwrap_or_else(|error| panic!("{error}"));
                assert!(!setup.policies.is_empty(), "{}", path.display());
                seen += 1;
            }
        }
        assert!(seen >= 5, "{seen} examples");
    }
}
