//! When the answers to a task suffice.

use std::num::NonZeroU32;

use super::{Camp, Draw, Lesson, Record};
use crate::{limits, quantities::Ppm};

/// How a job's results are made certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// So many have to agree: m-first voting (Sarmenta 2001, §3.1), whoever they are.
    Quorum(NonZeroU32),
    /// Agreeing answers are accepted when the chance that they are wrong is at most `error`: credibility-based
    /// fault tolerance (Sarmenta 2001, §4), with a floor under the rate of checks.
    ErrorRate {
        /// Wrong results among those that are accepted.
        error: Ppm,
        /// Liars among those that nothing is known of.
        liars: Ppm,
    },
    /// What BOINC does, to compare with: two have to agree, but who was right `trusted_after` times in a row when
    /// others looked is believed alone, but for one time in as many. (BOINC, *Adaptive replication*; `set_trust` in
    /// `sched_send.cpp`, where `trusted_after` is 10.) What was believed is never looked at again.
    Adaptive {
        /// Checks in a row after which somebody is believed alone.
        trusted_after: u32,
    },
}

/// A number of a policy is out of its range. Choose another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// Of attempts that have to agree.
    #[error("quorum {0} is not between 1 and {max}", max = limits::QUORUM_MAX)]
    Quorum(u32),
    /// Of errors.
    #[error("error rate {} is not between {} and {}",
        Ppm::new(*.0), Ppm::new(limits::ERROR_RATE_PPM_MIN), Ppm::new(limits::ERROR_RATE_PPM_MAX))]
    Error(u32),
    /// Of liars.
    #[error("share of liars {} is not between {} and {}",
        Ppm::new(*.0), Ppm::new(limits::LIARS_PPM_MIN), Ppm::new(limits::LIARS_PPM_MAX))]
    Liars(u32),
}

/// How many established workers must be there, beside those who have a task, of so many `workers` in all, before one of them
/// has to agree with newcomers.
///
/// Measured over 40,000 tasks and 500 volunteers that were new: with one, the first few did the last look at every task,
/// attempts per task rose from 1.70 to 2.19 and the time by half; with 16, to 1.73, and the time by a hundredth. Against 500
/// newcomers that lie alike in a grid of 500 known volunteers both leave no wrong result; without any rule half of all are.
pub fn established_min(workers: usize) -> usize {
    (workers / 4).clamp(1, limits::ESTABLISHED_NEEDED_MAX)
}

/// What matters of a task beside its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scene {
    /// The task's draw.
    pub draw: Draw,
    /// Provisional results of the first voter: those that rest on its word alone since its last passed check.
    pub unchecked: usize,
    /// Whether an established worker could take the task that has not had it.
    pub established_elsewhere: bool,
}

/// Whether the answers suffice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// They do.
    Accept {
        /// Which of the camps is right.
        camp: usize,
        /// Whether that rests on one voter's word, and so only until its next check.
        provisional: bool,
    },
    /// They don't.
    More {
        /// So many more answers are needed at least.
        attempts: u32,
        /// Whether the next one has to come from an established worker.
        established: bool,
    },
}

impl Policy {
    /// So many have to agree.
    pub fn quorum(quorum: u32) -> Result<Self, InvalidPolicy> {
        let valid = NonZeroU32::new(quorum).filter(|quorum| quorum.get() <= limits::QUORUM_MAX);
        valid.map(Self::Quorum).ok_or(InvalidPolicy::Quorum(quorum))
    }

    /// At most `error` wrong results in a million, when at most `liars` in a million of those lie of whom nothing is
    /// known.
    pub fn error_rate(error: u32, liars: u32) -> Result<Self, InvalidPolicy> {
        if !(limits::ERROR_RATE_PPM_MIN..=limits::ERROR_RATE_PPM_MAX).contains(&error) {
            return Err(InvalidPolicy::Error(error));
        }
        if !(limits::LIARS_PPM_MIN..=limits::LIARS_PPM_MAX).contains(&liars) {
            return Err(InvalidPolicy::Liars(liars));
        }
        Ok(Self::ErrorRate { error: Ppm::new(error), liars: Ppm::new(liars) })
    }

    /// How likely a worker is to lie: f for one without a record, f / k after k passed checks, where f is the share of
    /// liars. (Sarmenta 2001, §4.2, for spot-checking without blacklisting: whoever is caught may come back under another
    /// name, so the sharper bound with blacklisting doesn't hold.) Policies that don't weigh words take all alike.
    pub(super) fn doubt(&self, worker: Record) -> f64 {
        match self {
            Self::ErrorRate { liars, .. } => liars.as_fraction() / f64::from(worker.checks.max(1)),
            Self::Quorum(_) | Self::Adaptive { .. } => 0.1,
        }
    }

    /// The credibility of a worker: one minus its doubt.
    pub fn credibility(&self, worker: &Record) -> f64 {
        1.0 - self.doubt(*worker)
    }

    /// How often somebody is checked whose word alone would do: one time in k after k checks, as in BOINC, but never less
    /// than [`limits::CHECK_RATE_FLOOR_PPM`]. Without that floor whoever was honest for long could lie unseen for as long.
    pub fn check_rate(worker: &Record) -> f64 {
        let floor = Ppm::new(limits::CHECK_RATE_FLOOR_PPM).as_fraction();
        f64::max(1.0 / f64::from(worker.checks.max(1)), floor)
    }

    /// Judges the answers so far.
    pub fn judge(&self, camps: &[Camp], scene: Scene) -> Judgement {
        let more = |attempts| Judgement::More { attempts, established: false };
        let Some(lead) = self.lead(camps) else { return more(self.at_least()) };
        let camp = &camps[lead];
        let lone = camp.voters() == 1;
        let missing = match self {
            Self::Quorum(quorum) => quorum.get().saturating_sub(camp.voters()),
            Self::ErrorRate { error, .. } => u32::from(!is_credible(camps, lead, *error, scene)),
            Self::Adaptive { trusted_after } => {
                let checks = camp.first().checks;
                let trusted =
                    lone && checks >= *trusted_after && !scene.draw.hits(1.0 / f64::from(checks.max(1)));
                if trusted && camps.len() == 1 { 0 } else { 2_u32.saturating_sub(camp.voters()) }
            }
        };
        if missing > 0 {
            return more(missing);
        }
        let weighs = !matches!(self, Self::Adaptive { .. });
        if weighs && !camp.is_established() && scene.established_elsewhere {
            return Judgement::More { attempts: 1, established: true };
        }
        let provisional = lone && matches!(self, Self::ErrorRate { .. });
        Judgement::Accept { camp: lead, provisional }
    }

    /// Answers that are needed before there are any.
    fn at_least(&self) -> u32 {
        match self {
            Self::Quorum(quorum) => quorum.get(),
            Self::ErrorRate { .. } | Self::Adaptive { .. } => 1,
        }
    }

    /// The camp that is ahead; of equals the first.
    pub fn lead(&self, camps: &[Camp]) -> Option<usize> {
        let ahead = |a: &Camp, b: &Camp| match self {
            Self::ErrorRate { .. } => a.leads(b),
            Self::Quorum(_) | Self::Adaptive { .. } => a.voters() > b.voters(),
        };
        let of_voters = camps.iter().enumerate().filter(|(_, camp)| camp.voters() > 0);
        let lead = of_voters.reduce(|lead, other| if ahead(other.1, lead.1) { other } else { lead });
        lead.map(|(place, _)| place)
    }

    /// What the end of a task says about one of its voters: whether it `agreed` with what was accepted, was the `first`
    /// of all to be handed the task, and how many agreed in all.
    ///
    /// Only the first passes a check: whoever gets a task later may see by its place among other tasks that somebody
    /// had it before, and would earn trust by being honest then and only then.
    pub fn lesson(&self, agreed: bool, first: bool, agreeing: u32) -> Lesson {
        let looked_at = agreeing > 1;
        let unaware = first || matches!(self, Self::Adaptive { .. });
        match agreed {
            true if looked_at && unaware => Lesson::Passed,
            true => Lesson::Nothing,
            false => Lesson::Caught,
        }
    }
}

/// Whether a camp is right with so little doubt, and with one voter to spare if the draw wants its task checked.
fn is_credible(camps: &[Camp], lead: usize, error: Ppm, scene: Scene) -> bool {
    /// What rounding may cost, as a part of the error rate.
    const ROUNDING: f64 = 1e-9;
    let allowed = error.as_fraction() * (1.0 + ROUNDING);
    let camp = &camps[lead];
    let others = || camps.iter().enumerate().filter(|(place, _)| *place != lead).map(|(_, camp)| *camp);
    let lone = camp.voters() == 1;
    if camp.error(others()) > allowed || (lone && !camp.is_counted()) {
        return false;
    }
    let contradicted = camps.iter().filter(|camp| camp.voters() > 0).count() > 1;
    if lone {
        let overdue = scene.unchecked >= limits::UNCHECKED_RESULTS_MAX;
        return !contradicted && !overdue && !scene.draw.hits(Policy::check_rate(camp.first()));
    }
    // Agreeing is being checked, unless all who agree belong together.
    let checked = scene.draw.hits_ppm(Ppm::new(limits::CHECK_RATE_FLOOR_PPM));
    contradicted || !checked || camp.error_without_weakest(others()) <= allowed
}
