//! A scenario, as it is written down and as it is used.

use std::fmt;

use serde::Deserialize;
use talka_core::{
    limits,
    trust::{InvalidPolicy, Policy},
};

use super::Strategy;

/// Tasks of a scenario.
const TASKS_MAX: u32 = 100_000_000;
/// Kinds of volunteers.
const GROUPS_MAX: usize = 1000;
/// How many times faster than others of its kind somebody is, less one.
const SPREAD_MAX: f64 = 100.0;
/// Volunteers of a scenario.
const VOLUNTEERS_MAX: u32 = 10_000_000;

/// A scenario as it is written down. `docs/simulate.md` describes each field.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each is described once, in docs/simulate.md")]
pub struct RawSetup {
    #[serde(default = "defaults::seed")]
    pub seed: u64,
    pub tasks: u32,
    #[serde(default = "defaults::task_secs")]
    pub task_secs: f64,
    #[serde(default)]
    pub task_spread: f64,
    #[serde(default = "defaults::deadline_secs")]
    pub deadline_secs: f64,
    #[serde(default)]
    pub input_bytes: u64,
    #[serde(default)]
    pub output_bytes: u64,
    #[serde(default)]
    pub shared_bytes: u64,
    #[serde(default = "defaults::error_rate")]
    pub error_rate: f64,
    #[serde(default = "defaults::assumed_liars")]
    pub assumed_liars: f64,
    #[serde(default)]
    pub replicas: Replicas,
    #[serde(default = "defaults::policies")]
    pub policies: Vec<String>,
    pub volunteers: Vec<RawGroup>,
}

/// Volunteers of one kind, as they are written down.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each is described once, in docs/simulate.md")]
pub struct RawGroup {
    pub count: u32,
    #[serde(default = "defaults::strategy")]
    pub strategy: Strategy,
    pub rate: Option<f64>,
    pub honest_for: Option<u32>,
    pub lies_for: Option<u32>,
    #[serde(default)]
    pub together: bool,
    #[serde(default)]
    pub one_owner: bool,
    #[serde(default = "defaults::speed")]
    pub speed: f64,
    #[serde(default)]
    pub speed_spread: f64,
    pub online_hours: Option<f64>,
    pub offline_hours: Option<f64>,
    #[serde(default)]
    pub checks: u32,
}

mod defaults {
    use talka_core::limits;

    use super::Strategy;

    pub(super) fn seed() -> u64 {
        1
    }
    pub(super) fn task_secs() -> f64 {
        600.0
    }
    pub(super) fn deadline_secs() -> f64 {
        86_400.0
    }
    pub(super) fn error_rate() -> f64 {
        f64::from(limits::ERROR_RATE_PPM_DEFAULT) / 1e6
    }
    pub(super) fn assumed_liars() -> f64 {
        f64::from(limits::LIARS_PPM_DEFAULT) / 1e6
    }
    pub(super) fn policies() -> Vec<String> {
        ["error-rate", "boinc", "quorum-2", "quorum-3"].map(str::to_owned).into()
    }
    pub(super) fn strategy() -> Strategy {
        Strategy::Honest
    }
    pub(super) fn speed() -> f64 {
        1.0
    }
}

/// When further attempts at a task are handed out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Replicas {
    /// As the coordinator does: for an error rate the next one when the one before has answered, which takes fewer, until
    /// all tasks are begun; and for other policies as many as will be needed if all agree.
    #[default]
    OneByOne,
    /// As many as will be needed if all agree, whatever the policy.
    AtOnce,
}

/// Which policy decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyName {
    /// Credibility, with checks and backtracking: what `--error-rate` means.
    ErrorRate,
    /// BOINC's adaptive replication.
    Boinc,
    /// So many have to agree.
    Quorum(u32),
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ErrorRate => f.write_str("error-rate"),
            Self::Boinc => f.write_str("boinc"),
            Self::Quorum(quorum) => write!(f, "quorum-{quorum}"),
        }
    }
}

/// A scenario that makes sense.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    /// What chance is drawn from, unless somebody says otherwise.
    pub seed: u64,
    /// Policies to compare, in this order.
    pub policies: Vec<PolicyName>,
    pub(super) tasks: u32,
    pub(super) task_secs: f64,
    pub(super) task_spread: f64,
    pub(super) deadline_secs: f64,
    pub(super) input_bytes: u64,
    pub(super) output_bytes: u64,
    pub(super) shared_bytes: u64,
    pub(super) error_ppm: u32,
    pub(super) liars_ppm: u32,
    pub(super) replicas: Replicas,
    pub(super) groups: Vec<Group>,
}

/// Volunteers of one kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group {
    pub(super) count: u32,
    pub(super) strategy: Strategy,
    pub(super) rate: f64,
    pub(super) honest_for: u32,
    pub(super) lies_for: u32,
    pub(super) together: bool,
    pub(super) one_owner: bool,
    pub(super) speed: f64,
    pub(super) speed_spread: f64,
    /// Mean time for which one of them is there, and away; `None` if always there.
    pub(super) sessions: Option<(f64, f64)>,
    pub(super) checks: u32,
}

/// What is wrong with a scenario: all of it at once. Mend it and try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct InvalidSetup(pub Vec<String>);

impl Setup {
    /// How a policy of this scenario decides.
    pub(super) fn policy(&self, name: PolicyName) -> Result<Policy, InvalidPolicy> {
        /// BOINC's `CONS_VALID_UNREPLICATED`.
        const BOINC_TRUSTED_AFTER: u32 = 10;
        match name {
            PolicyName::ErrorRate => Policy::error_rate(self.error_ppm, self.liars_ppm),
            PolicyName::Boinc => Ok(Policy::Adaptive { trusted_after: BOINC_TRUSTED_AFTER }),
            PolicyName::Quorum(quorum) => Policy::quorum(quorum),
        }
    }
}

impl TryFrom<RawSetup> for Setup {
    type Error = InvalidSetup;

    fn try_from(raw: RawSetup) -> Result<Self, InvalidSetup> {
        let mut problems = vec![];
        let policies = raw.policies.iter().filter_map(|text| policy_name(text, &mut problems)).collect();
        if raw.policies.is_empty() {
            problems.push("policies names none".to_owned());
        }
        if !(1..=TASKS_MAX).contains(&raw.tasks) {
            problems.push(format!("tasks must be 1 to {TASKS_MAX}"));
        }
        positive("task_secs", raw.task_secs, &mut problems);
        positive("deadline_secs", raw.deadline_secs, &mut problems);
        share("task_spread", raw.task_spread, &mut problems);
        let error_ppm = ppm("error_rate", raw.error_rate, &mut problems);
        let liars_ppm = ppm("assumed_liars", raw.assumed_liars, &mut problems);
        let groups: Vec<Group> = raw.volunteers.iter().map(|group| group.validate(&mut problems)).collect();
        let volunteers: u64 = groups.iter().map(|group| u64::from(group.count)).sum();
        if !(1..=u64::from(VOLUNTEERS_MAX)).contains(&volunteers) {
            problems.push(format!("there must be 1 to {VOLUNTEERS_MAX} volunteers in all"));
        }
        if groups.len() > GROUPS_MAX {
            problems.push(format!("there are more than {GROUPS_MAX} kinds of volunteers"));
        }
        let this = Self {
            seed: raw.seed,
            policies,
            tasks: raw.tasks,
            task_secs: raw.task_secs,
            task_spread: raw.task_spread,
            deadline_secs: raw.deadline_secs,
            input_bytes: raw.input_bytes,
            output_bytes: raw.output_bytes,
            shared_bytes: raw.shared_bytes,
            error_ppm,
            liars_ppm,
            replicas: raw.replicas,
            groups,
        };
        for name in &this.policies {
            problems.extend(this.policy(*name).err().map(|error| error.to_string()));
        }
        if problems.is_empty() { Ok(this) } else { Err(InvalidSetup(problems)) }
    }
}

impl RawGroup {
    fn validate(&self, problems: &mut Vec<String>) -> Group {
        let name = self.strategy.name();
        positive("speed", self.speed, problems);
        if !(0.0..=SPREAD_MAX).contains(&self.speed_spread) {
            problems.push(format!("speed_spread must be 0 to {SPREAD_MAX}"));
        }
        if self.rate.is_some() != self.strategy.has_rate() {
            problems.push(format!("rate is for the strategy sometimes, which needs it; this one is {name}"));
        }
        share("rate", self.rate.unwrap_or(0.0), problems);
        if self.honest_for.is_some() != self.strategy.has_count() {
            let who = "after, oscillate, turns and vanish, which need it";
            problems.push(format!("honest_for is for the strategies {who}; this one is {name}"));
        }
        let turns = self.strategy == Strategy::Turns;
        if self.lies_for.is_some() != turns {
            problems.push(format!("lies_for is for the strategy turns, which needs it; this one is {name}"));
        }
        let turn = (self.honest_for.unwrap_or(0)).checked_add(self.lies_for.unwrap_or(0));
        if turn.is_none() || (turns && turn == Some(0)) {
            problems.push(format!("honest_for and lies_for must be 1 to {} together", u32::MAX));
        }
        let sessions = match (self.online_hours, self.offline_hours) {
            (None, None) => None,
            (Some(online), Some(offline)) => {
                positive("online_hours", online, problems);
                positive("offline_hours", offline, problems);
                Some((online * 3600.0, offline * 3600.0))
            }
            _ => {
                problems.push("online_hours and offline_hours belong together".to_owned());
                None
            }
        };
        if self.strategy == Strategy::Flap && sessions.is_none() {
            problems.push("the strategy flap needs online_hours and offline_hours".to_owned());
        }
        Group {
            count: self.count,
            strategy: self.strategy,
            rate: self.rate.unwrap_or(0.0),
            honest_for: self.honest_for.unwrap_or(0),
            lies_for: self.lies_for.unwrap_or(0),
            together: self.together,
            one_owner: self.one_owner,
            speed: self.speed,
            speed_spread: self.speed_spread,
            sessions,
            checks: self.checks,
        }
    }
}

fn policy_name(text: &str, problems: &mut Vec<String>) -> Option<PolicyName> {
    let quorum = || text.strip_prefix("quorum-")?.parse().ok().map(PolicyName::Quorum);
    let name = match text {
        "error-rate" => Some(PolicyName::ErrorRate),
        "boinc" => Some(PolicyName::Boinc),
        _ => quorum(),
    };
    if name.is_none() {
        problems.push(format!(
            "there is no policy {text:?}: error-rate, boinc, or quorum-N with N up to {}",
            limits::QUORUM_MAX
        ));
    }
    name
}

fn positive(field: &str, value: f64, problems: &mut Vec<String>) {
    /// Longer than anything that makes sense, in whatever unit.
    const MAX: f64 = 1e9;
    if !(value > 0.0 && value <= MAX) {
        problems.push(format!("{field} must be above 0 and at most {MAX:e}"));
    }
}

fn share(field: &str, value: f64, problems: &mut Vec<String>) {
    if !(0.0..=1.0).contains(&value) {
        problems.push(format!("{field} must be 0 to 1"));
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to a million")]
fn ppm(field: &str, value: f64, problems: &mut Vec<String>) -> u32 {
    share(field, value, problems);
    (value.clamp(0.0, 1.0) * 1e6).round() as u32
}
