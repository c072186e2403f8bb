//! What a policy makes of a whole population: how many wrong results stand in the end, and what certainty costs.
//!
//! The decisions are those of [`talka_core::trust`]; everything around them is statistics. Volunteers come and go, some
//! are fast, some lie in one way or another; a task is handed to whoever asks first and may have it, as often as the
//! policy wants; what rested on the word of somebody who is caught is done again, and its credit taken back. There are
//! no messages and no crashes here, which is why a million tasks on a hundred thousand volunteers take seconds:
//! [`run`](crate::run) is for those.
//!
//! | module | subject |
//! |---|---|
//! | `setup` | a scenario, as it is written down and as it is used |
//! | `strategy` | how volunteers answer |
//! | `volunteers` | who is there when, and how long a task takes |
//! | `grid` | time goes by: who gets which task |
//! | `verdicts` | what becomes of the answers |
//! | `queue` | tasks that wait for somebody |

mod grid;
mod queue;
mod setup;
mod strategy;
#[cfg(test)]
mod tests;
mod verdicts;
mod volunteers;

use talka_core::quantities::Credit;

pub use setup::{Group, InvalidSetup, PolicyName, RawGroup, RawSetup, Replicas, Setup};
pub use strategy::Strategy;

/// What came of a scenario under one policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Which policy.
    pub policy: PolicyName,
    /// What chance was drawn from.
    pub seed: u64,
    /// Tasks with a result.
    pub tasks: u64,
    /// Those among them whose result is wrong.
    pub wrong_accepted: u64,
    /// Attempts that were handed out.
    pub attempts: u64,
    /// Virtual time until the last result was certain.
    pub makespan_secs: f64,
    /// Credit that stands in the end.
    pub credit_total: Credit,
    /// Bytes that went to volunteers and came back.
    pub network_bytes: u64,
    /// What became of each group of volunteers, in the order of the scenario.
    pub groups: Vec<GroupOutcome>,
}

/// What became of a group of volunteers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupOutcome {
    /// How they answered.
    pub strategy: Strategy,
    /// How many they were.
    pub volunteers: u32,
    /// Attempts that they were handed, but for those that they were told to stop.
    pub attempts: u64,
    /// Wrong results of theirs that stand.
    pub wrong_accepted: u64,
    /// Credit of theirs that stands.
    pub credit: Credit,
}

impl Outcome {
    /// Attempts for each result.
    #[expect(clippy::cast_precision_loss, reason = "a mean")]
    pub fn attempts_per_task(&self) -> f64 {
        self.attempts as f64 / self.tasks.max(1) as f64
    }
}

impl GroupOutcome {
    /// Credit for each attempt.
    #[expect(clippy::cast_precision_loss, reason = "a mean")]
    pub fn credit_per_attempt(&self) -> f64 {
        self.credit.as_f64() / self.attempts.max(1) as f64
    }
}

/// Runs a scenario under one policy.
pub fn simulate(setup: &Setup, policy: PolicyName, seed: u64) -> Outcome {
    grid::Grid::new(setup, policy, seed).run()
}
