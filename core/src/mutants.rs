//! Deliberate defects, one switch each, that show whether the simulator has teeth: it must catch every one.
//!
//! Without the feature `mutants`, which nothing but the simulator's own test asks for, [`is_active`] is a constant
//! and the compiler leaves nothing of them.

/// A defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutant {
    /// A shell lets messages out before what they acknowledge is durable.
    AcknowledgesEarly,
    /// A report is settled and not put on record.
    ForgetsReports,
    /// A vote on record is missing in the ledger.
    ForgetsVotes,
    /// One vote less than the quorum decides.
    HurriesQuorum,
    /// A task that is final is handed out again.
    ReopensFinals,
    /// Credit is counted twice.
    PaysTwice,
    /// Credit is what a worker claims, not what was agreed.
    PaysClaims,
    /// The next attempt at a task has the number of the one before.
    LeasesAttemptAgain,
    /// After a restart, numbers of attempts begin anew.
    ReusesNumbers,
    /// A report counts although its worker had said that it does not have the attempt.
    CountsGivenUp,
    /// A report counts although the attempt is another worker's.
    CountsForeign,
    /// A worker may vote twice on a task.
    AsksTwice,
    /// A lease has any size.
    LeasesWithoutBound,
    /// The deadline of a lease is not looked at.
    NeverExpires,
    /// A worker that stays away keeps what it holds.
    WaitsForTheLost,
    /// Workers that gave no result are never asked again, even where there is nobody else.
    NeverRelaxes,
    /// A worker does not repeat its reports on a new session.
    ReportsOnce,
    /// A worker lets go of a job's blobs in the moment in which it begins to fetch them again.
    ForgetsAnew,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::AcknowledgesEarly,
        Self::ForgetsReports,
        Self::ForgetsVotes,
        Self::HurriesQuorum,
        Self::ReopensFinals,
        Self::PaysTwice,
        Self::PaysClaims,
        Self::LeasesAttemptAgain,
        Self::ReusesNumbers,
        Self::CountsGivenUp,
        Self::CountsForeign,
        Self::AsksTwice,
        Self::LeasesWithoutBound,
        Self::NeverExpires,
        Self::WaitsForTheLost,
        Self::NeverRelaxes,
        Self::ReportsOnce,
        Self::ForgetsAnew,
    ];
}

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Switches a defect on in this thread, and whichever was on before off.
    pub fn activate(mutant: Option<Mutant>) {
        ACTIVE.set(mutant);
    }

    /// Whether a defect is switched on.
    pub fn is_active(mutant: Mutant) -> bool {
        ACTIVE.get() == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub use switch::{activate, is_active};

/// Whether a defect is switched on: never in this build.
#[cfg(not(feature = "mutants"))]
pub const fn is_active(_: Mutant) -> bool {
    false
}
