//! The search for a seed with which something that must hold does not.

use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use serde::Serialize;
use talka_simulator::{Failure, Report, Scenario, check, run_logged};

use crate::{output::Out, progress};

/// What is searched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search {
    pub(super) first: u64,
    pub(super) seeds: u64,
    /// Print every event.
    pub(super) events: bool,
}

#[derive(Debug, Default, Serialize)]
struct SearchView {
    first_seed: u64,
    seeds: u64,
    events: u64,
    tasks: u64,
    sessions: u64,
    coordinator_crashes: u64,
    worker_crashes: u64,
    violations: Vec<ViolationView>,
}

#[derive(Debug, Serialize)]
struct ViolationView {
    seed: u64,
    invariant: &'static str,
    at_secs: f64,
    what: String,
    last_events: Vec<String>,
    replay: String,
}

impl SearchView {
    fn add(&mut self, outcome: Result<Report, Box<Failure>>) {
        match outcome {
            Ok(report) => {
                self.events += report.events;
                self.tasks += report.tasks_done + report.tasks_failed;
                self.sessions += report.sessions;
                self.coordinator_crashes += report.coordinator_crashes;
                self.worker_crashes += report.worker_crashes;
            }
            Err(failure) => self.violations.push((*failure).into()),
        }
    }
}

impl From<Failure> for ViolationView {
    fn from(failure: Failure) -> Self {
        let replay = failure.replay();
        let Failure { seed, violation, last_events } = failure;
        let invariant = violation.invariant.code();
        let at_secs = violation.at.as_secs_f64();
        Self { seed, invariant, at_secs, what: violation.what, last_events, replay }
    }
}

impl Search {
    pub(super) fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        if self.events {
            self.print_events(out)?;
        }
        let mut view = self.search(out);
        view.violations.sort_by_key(|violation| violation.seed);
        let holds = view.violations.is_empty();
        if out.is_json() {
            out.json(&view)?;
        } else if out.is_quiet() {
            view.violations.iter().try_for_each(|violation| out.line(violation.seed))?;
        } else {
            print(&view, out)?;
        }
        Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Tries all seeds, on every processor.
    fn search(self, out: Out) -> SearchView {
        let bar = progress::steps_bar(out, self.seeds).with_message("seeds");
        let view = SearchView { first_seed: self.first, seeds: self.seeds, ..SearchView::default() };
        let (next, view) = (AtomicU64::new(self.first), Mutex::new(view));
        let last = self.first + (self.seeds - 1);
        let threads = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed > last {
                            return;
                        }
                        let outcome = check(seed);
                        view.lock().unwrap_or_else(PoisonError::into_inner).add(outcome);
                        bar.inc(1);
                    }
                });
            }
        });
        bar.finish_and_clear();
        view.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn print_events(self, out: Out) -> anyhow::Result<()> {
        let mut printed = Ok(());
        let mut print = |at: std::time::Duration, event: &str| {
            if printed.is_ok() && !out.is_json() {
                printed = out.line(format_args!("{:>12.3} {event}", at.as_secs_f64()));
            }
        };
        // What came of it is found again by the search.
        drop(run_logged(self.first, &Scenario::rough(self.first), &mut print));
        printed
    }
}

fn print(view: &SearchView, out: Out) -> anyhow::Result<()> {
    for violation in &view.violations {
        let ViolationView { seed, invariant, at_secs, what, last_events, replay } = violation;
        for event in last_events {
            out.remark(format_args!("  {event}"));
        }
        out.line(format_args!("seed {seed}: {invariant} is violated after {at_secs:.3} s: {what}"))?;
        out.line(format_args!("  see it again: {replay}"))?;
    }
    let SearchView { seeds, events, tasks, sessions, coordinator_crashes, worker_crashes, .. } = view;
    let violated = view.violations.len();
    out.line(format_args!(
        "{seeds} seeds, {violated} violations: {events} events, {tasks} tasks, {sessions} sessions, {coordinator_crashes} \
         crashes of coordinators and {worker_crashes} of workers"
    ))
}
