//! Those who gave the same answer, and how much more likely they are right than wrong.

use super::{Policy, Record};

/// The voters for one answer to a task.
///
/// Their *odds* are the product of Cr / (1 − Cr) over the credibilities Cr of its voters. With them the credibility
/// of a group by Bayes (Sarmenta, *Sabotage-tolerance mechanisms for volunteer computing systems*, 2001, §4.3; all wrong
/// answers are taken to agree) is odds / (1 + sum of the odds of all groups).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Camp {
    voters: u32,
    odds: f64,
    /// The odds of its least credible voter.
    weakest: f64,
    /// The first of them.
    first: Record,
    /// Whether one of them at least is established.
    established: bool,
    /// Whether one of them at least vouches for the fuel.
    counted: bool,
}

impl Default for Camp {
    fn default() -> Self {
        Self {
            voters: 0,
            odds: 1.0,
            weakest: f64::INFINITY,
            first: Record::default(),
            established: false,
            counted: false,
        }
    }
}

impl Camp {
    /// One more voter; `counted` says that it vouches for the fuel, too, as all do that were not interrupted.
    pub fn join(&mut self, policy: &Policy, voter: &Record, counted: bool) {
        let doubt = policy.doubt(*voter);
        let odds = (1.0 - doubt) / doubt;
        if self.voters == 0 {
            self.first = *voter;
        }
        self.voters += 1;
        self.odds *= odds;
        self.weakest = self.weakest.min(odds);
        self.established |= voter.is_established();
        self.counted |= counted;
    }

    /// Says that one of its voters counts as established for another reason than its record.
    pub fn vouch(&mut self) {
        self.established = true;
    }

    /// How many they are.
    pub fn voters(&self) -> u32 {
        self.voters
    }

    /// The record of the first voter.
    pub(super) fn first(&self) -> &Record {
        &self.first
    }

    /// Whether one of them at least is established.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// Whether one of them at least vouches for the fuel.
    pub(super) fn is_counted(&self) -> bool {
        self.counted
    }

    /// How likely their answer is wrong, given the other answers (Sarmenta 2001, §4.3).
    pub fn error(&self, others: impl IntoIterator<Item = Self>) -> f64 {
        Self::error_at(self.odds, others)
    }

    /// The same without its least credible voter.
    pub(super) fn error_without_weakest(&self, others: impl IntoIterator<Item = Self>) -> f64 {
        if self.voters < 2 {
            return 1.0;
        }
        Self::error_at(self.odds / self.weakest, others)
    }

    fn error_at(odds: f64, others: impl IntoIterator<Item = Self>) -> f64 {
        let against: f64 = 1.0 + others.into_iter().map(|camp| camp.odds).sum::<f64>();
        against / (against + odds)
    }

    /// Whether it is ahead of another one.
    pub(super) fn leads(&self, other: &Self) -> bool {
        self.odds > other.odds
    }
}
