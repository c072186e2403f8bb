//! How many attempts a worker may hold, by what became of those that it had.
//!
//! Additive increase, multiplicative decrease (Chiu and Jain, 1989): each validated result allows one attempt
//! more, each bad or missing outcome halves the limit. Nothing that a worker says of itself has a part in it,
//! nor does what is nobody's fault: an agreed failure, a cancelled attempt, a lost connection, or a program that
//! gives no result on anybody's machine.

use super::{Coordinator, Effects, FinalRow, TaskVerdict, task::AttemptState, task::Task};
use crate::{ids::PeerNo, limits, outcome::NoResult};

/// See the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Quota(usize);

impl Default for Quota {
    fn default() -> Self {
        Self(limits::WORKER_IN_FLIGHT_START)
    }
}

impl Quota {
    /// What a stranger begins with.
    pub(super) fn of_newcomer() -> Self {
        Self(limits::NEWCOMER_IN_FLIGHT)
    }

    /// As it was when it was written down.
    pub(super) fn restored(quota: u32) -> Self {
        Self((quota as usize).clamp(1, limits::WORKER_IN_FLIGHT_MAX))
    }

    pub(super) fn get(self) -> usize {
        self.0
    }

    /// Whether its last outcomes were good.
    pub(super) fn is_good(self) -> bool {
        self >= Self::default()
    }

    fn grow(&mut self) {
        self.0 = (self.0 + 1).min(limits::WORKER_IN_FLIGHT_MAX);
    }

    fn halve(&mut self) {
        self.0 = (self.0 / 2).max(1);
    }
}

impl Coordinator {
    /// A task has ended, with a result or without one.
    pub(super) fn judge_workers(&mut self, task: &Task, row: &FinalRow, fx: &mut Effects) {
        if !matches!(row.verdict, TaskVerdict::Agreed { .. }) {
            return;
        }
        for grant in &row.grants {
            if grant.agreed {
                self.note_good(grant.peer);
            } else {
                self.note_bad(grant.peer, fx);
            }
        }
        // Others could give a result.
        for attempt in &task.attempts {
            if matches!(attempt.state, AttemptState::NoResult(reason) if !matches!(reason, NoResult::Stopped | NoResult::Disk))
            {
                self.note_bad(attempt.peer, fx);
            }
        }
    }

    fn note_good(&mut self, peer: PeerNo) {
        let Some(worker) = self.workers.get_mut(&peer) else { return };
        let was_at_limit = worker.live() >= worker.quota.get();
        worker.quota.grow();
        self.trust.set_quota(peer, worker.quota);
        if was_at_limit && worker.session.is_some() {
            self.woken.insert(peer);
        }
    }

    /// An outcome of a worker is bad, or missing.
    pub(super) fn note_bad(&mut self, peer: PeerNo, fx: &mut Effects) {
        if let Some(worker) = self.workers.get_mut(&peer) {
            worker.quota.halve();
            self.trust.set_quota(peer, worker.quota);
            fx.batch.records.insert(peer, self.trust.row(peer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_grows_by_one_and_halves_within_its_bounds() {
        let mut quota = Quota::default();
        assert!(quota.is_good());
        quota.grow();
        assert_eq!(quota.get(), limits::WORKER_IN_FLIGHT_START + 1);
        quota.halve();
        assert_eq!(quota.get(), limits::WORKER_IN_FLIGHT_START / 2);
        assert!(!quota.is_good());
        for _ in 0..100 {
            quota.halve();
        }
        assert_eq!(quota.get(), 1, "it may always earn its way back");
        for _ in 0..2 * limits::WORKER_IN_FLIGHT_MAX {
            quota.grow();
        }
        assert_eq!(quota.get(), limits::WORKER_IN_FLIGHT_MAX);
    }
}
