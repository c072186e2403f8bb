//! Talka's grid in virtual time over the production core.
//!
//! A whole grid runs in one thread, without sockets, disks or clocks: the [`Coordinator`], the [`Worker`]s and the
//! [`Tracker`] are the very ones that run for real, only their shells are models. Time is the time of the next
//! event, chance is one seeded generator, so the same seed gives the same run, event by event, and a run that
//! breaks something can be looked at as often as needed.
//!
//! What goes wrong is drawn from the [`Scenario`]: messages are late, sessions break half-open, workers crash and
//! lose what they had, some are slow, some lie, some take work and never answer; packets get lost, parts of the network
//! are cut off, in one direction or both; the coordinator is killed in the midst of a commit, comes back with what is on
//! disk, and with another idea of what time it is. Meanwhile:
//!
//! * **safety** is checked at each step: the coordinator's own invariants, and [seven](Invariant) of an outside observer
//!   who sees what is durable and what was acknowledged;
//! * **liveness** is checked once nothing goes wrong any more: something moves until every job has ended.
//!
//! | module | subject |
//! |---|---|
//! | `agenda` | virtual time: what happens next |
//! | `network` | streams that are late, ordered, and break |
//! | `hub` | the shell of the coordinator: rounds, commits, crashes |
//! | `volunteers` | the shells of the workers: slots, honest and other behaviour |
//! | `blobs` | inputs from peer to peer, large outputs to the coordinator |
//! | `submitters` | who wants work done, and asks until there is an answer |
//! | `partitions` | parts of the network that are cut off for a while |
//! | `disk` | what survives |
//! | `invariants` | what must hold at each step |
//! | `seeds` | grids by their seeds, and how a failure is replayed |
//! | `truth` | what every task should give |
//! | [`swarm`] | one blob and hundreds of peers, over modelled links |
//!
//! [`population`] is the other simulator: statistics of large populations under a policy of trust.
//!
//! ```
//! use talka_simulator::{Scenario, run};
//!
//! let report = run(7, &Scenario::calm())?;
//! assert_eq!(report.tasks_failed, report.tasks_meant_to_fail);
//! assert_eq!(report, run(7, &Scenario::calm())?);
//! # Ok::<(), talka_simulator::Violation>(())
//! ```
//!
//! [`Coordinator`]: talka_core::coordinator::Coordinator
//! [`Worker`]: talka_core::worker::Worker
//! [`Tracker`]: talka_core::swarm::Tracker

mod agenda;
mod blobs;
mod disk;
mod hub;
mod invariants;
mod network;
mod partitions;
pub mod population;
mod report;
mod scenario;
mod seeds;
mod submitters;
pub mod swarm;
#[cfg(test)]
mod tests;
mod truth;
mod volunteers;
mod world;

use std::time::Duration;

pub use invariants::{Invariant, Violation};
pub use report::Report;
pub use scenario::{Faults, Scenario};
pub use seeds::{Failure, check};

use world::World;

/// Runs a grid until every job has ended, or until something that must hold does not: the same seed and scenario end
/// in the same way again.
pub fn run(seed: u64, scenario: &Scenario) -> Result<Report, Violation> {
    run_logged(seed, scenario, &mut |_, _| {})
}

/// Like [`run`], and tells `log` of each event: when it happened, counted from the start, and what it was.
pub fn run_logged(
    seed: u64,
    scenario: &Scenario,
    log: &mut dyn FnMut(Duration, &str),
) -> Result<Report, Violation> {
    World::new(seed, scenario, log).run()
}
