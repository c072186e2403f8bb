//! One touched, unfinished task and its attempts.

use std::sync::Arc;

use super::{
    again::{Exclusion, Ticket},
    attempts::Attempts,
    effects::{PendingOutput, PendingReport},
};
use crate::{
    ids::{InputDigest, LeaseId, OutcomeDigest, PeerNo},
    mutants::{Mutant, is_active},
    outcome::{Exit, NoResult, Output},
    quantities::Fuel,
    validation::Vote,
};

/// A task that was leased at least once and is not final.
#[derive(Debug, Default)]
pub(super) struct Task {
    pub(super) attempts: Attempts,
    /// The ticket of its valid entry in the `again` queue.
    pub(super) queued: Option<Ticket>,
    /// A quorum agreed; its output is being fetched.
    pub(super) collecting: bool,
    /// Ordinal of the newest attempt that there ever was, as far as anybody may remember it.
    pub(super) last_number: u32,
    /// The attempt that was added because another one took too long. There is one at most, ever.
    pub(super) duplicate: Option<u32>,
    /// Whose word is checked, if the task is final and rests on that.
    pub(super) checks: Option<PeerNo>,
}

/// One attempt at a task.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) number: u32,
    /// Which one it was, from 1; its number may hide that.
    pub(super) ordinal: u32,
    pub(super) peer: PeerNo,
    pub(super) lease: LeaseId,
    pub(super) state: AttemptState,
}

/// Where an attempt stands.
#[derive(Debug)]
pub(super) enum AttemptState {
    /// The worker has it.
    Leased,
    /// Its time is over or its worker is away; somebody else may get the task, but a result still counts.
    Expired,
    /// The worker said that it does not have it.
    Gone,
    /// The worker reported how the program ended. Of millions of attempts few are at that point at a time.
    Reported(Box<Reported>),
    /// The worker reported that it can't say.
    NoResult(NoResult),
}

/// What was reported.
#[derive(Debug, Clone)]
pub(super) struct Reported {
    pub(super) outcome: OutcomeDigest,
    pub(super) input: InputDigest,
    pub(super) exit: Exit,
    pub(super) fuel: Fuel,
    pub(super) resumed: bool,
    pub(super) output: PendingOutput,
}

impl AttemptState {
    /// Whether a report of it would still be taken, and its lease item is open.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Leased | Self::Expired)
    }

    /// Whether it ended without a vote.
    pub(super) fn is_given_up(&self) -> bool {
        matches!(self, Self::Gone | Self::NoResult(_))
    }
}

impl Task {
    pub(super) fn attempt_mut(&mut self, number: u32) -> Option<&mut Attempt> {
        self.attempts.iter_mut().find(|attempt| attempt.number == number)
    }

    pub(super) fn reported(&self) -> impl Iterator<Item = (&Attempt, &Reported)> {
        self.attempts.iter().filter_map(|attempt| match &attempt.state {
            AttemptState::Reported(reported) => Some((attempt, reported.as_ref())),
            _ => None,
        })
    }

    /// What each attempt says that reported how the program ended.
    pub(super) fn votes(&self) -> impl Iterator<Item = Vote> {
        self.reported().map(|(_, reported)| reported.vote())
    }

    /// Attempts that may still bring a vote soon.
    pub(super) fn live(&self) -> usize {
        let live = |attempt: &&Attempt| matches!(attempt.state, AttemptState::Leased);
        self.attempts.iter().filter(live).count()
    }

    /// Reasons of the attempts without a result, in their order.
    pub(super) fn no_results(&self) -> impl Iterator<Item = NoResult> {
        self.attempts.iter().filter_map(|attempt| match attempt.state {
            AttemptState::NoResult(reason) => Some(reason),
            _ => None,
        })
    }

    /// Who must not get the next attempt: everybody who voted or may still vote, and, unless `relaxed`,
    /// those who could not give a result, because another machine may.
    pub(super) fn exclusion(&self, relaxed: bool) -> Exclusion {
        let excluded = self.attempts.iter().filter(|attempt| match attempt.state {
            _ if is_active(Mutant::AsksTwice) => false,
            AttemptState::Leased | AttemptState::Expired | AttemptState::Reported(_) => true,
            AttemptState::NoResult(_) => !relaxed,
            AttemptState::Gone => false,
        });
        let peers = excluded.map(|attempt| attempt.peer).collect();
        let nothing_to_relax = relaxed || self.no_results().next().is_none();
        Exclusion::new(peers, nothing_to_relax)
    }

    /// An attempt ended without a vote, so its peer may be asked again: the task has to be queued anew, as
    /// its entry leaves that peer out. Of what a peer lost, only the newest attempt is remembered.
    pub(super) fn note_given_up(&mut self, peer: PeerNo, ordinal: u32) {
        self.queued = None;
        self.attempts.retain(|attempt| {
            let lost = matches!(attempt.state, AttemptState::Gone);
            !(lost && attempt.peer == peer && attempt.ordinal < ordinal)
        });
    }

    /// Drops attempts that a later one of the same peer shows to have been given up, and returns their leases.
    pub(super) fn drop_superseded(&mut self) -> Vec<LeaseId> {
        let newest = |attempts: &[Attempt], peer| {
            attempts.iter().filter(|attempt| attempt.peer == peer).map(|attempt| attempt.ordinal).max()
        };
        let superseded: Vec<u32> = self
            .attempts
            .iter()
            .filter(|attempt| {
                attempt.state.is_open() && newest(&self.attempts, attempt.peer) > Some(attempt.ordinal)
            })
            .map(|attempt| attempt.number)
            .collect();
        let mut leases = Vec::new();
        self.attempts.retain(|attempt| {
            let stays = !superseded.contains(&attempt.number);
            if !stays {
                leases.push(attempt.lease);
            }
            stays
        });
        leases
    }

    /// The output of an outcome, if this side has it already.
    pub(super) fn inline_output(&self, outcome: OutcomeDigest) -> Option<Arc<Output>> {
        self.reported().find_map(|(_, reported)| match &reported.output {
            PendingOutput::Inline(output) if reported.outcome == outcome => Some(output.clone()),
            _ => None,
        })
    }

    /// Bytes of outputs held in memory.
    pub(super) fn held_bytes(&self) -> u64 {
        let held = self.reported().map(|(_, reported)| match &reported.output {
            PendingOutput::Inline(output) => output.len(),
            PendingOutput::Repeated | PendingOutput::Remote(_) => 0,
        });
        held.sum()
    }
}

impl Reported {
    /// What it says about the result.
    pub(super) fn vote(&self) -> Vote {
        Vote { outcome: self.outcome, fuel: self.fuel, resumed: self.resumed }
    }

    /// As a row.
    pub(super) fn to_row(&self) -> PendingReport {
        let Self { outcome, input, exit, fuel, resumed, ref output } = *self;
        PendingReport::Execution { outcome, input, exit, fuel, resumed, output: output.clone() }
    }
}

impl From<PendingReport> for AttemptState {
    fn from(report: PendingReport) -> Self {
        match report {
            PendingReport::Execution { outcome, input, exit, fuel, resumed, output } => {
                Self::Reported(Box::new(Reported { outcome, input, exit, fuel, resumed, output }))
            }
            PendingReport::NoResult(reason) => Self::NoResult(reason),
        }
    }
}
