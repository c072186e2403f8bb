//! Who may take part in a task beside whom: not two of one public network, nor two of one owner, and one at least that
//! is no newcomer, where there is one.
//!
//! **Owners.** The name of an owner is a claim that nobody can check, so it must not be of use against those who bear
//! it. A claim binds whoever makes it, and nobody of a better [`Standing`]: a newcomer that calls itself *ada* keeps
//! away from the tasks of Ada's established workers, and they don't keep away from its own. Where both then have a vote on
//! one task, only that of the better standing counts, and of equals the first. To be in their way the liar would
//! have to be established, by honest work, and would be in the way only at tasks that it works at itself.
//!
//! **Networks** are seen, not claimed. Behind a relay there is nothing to see: newcomers that come through one count as
//! one network together, until they are established or somebody vouches for them: an invite, the coordinator's own token,
//! or its owner.

use std::num::NonZeroU32;

use super::{
    again::Exclusion,
    job::Job,
    task::{Attempt, Reported, Task},
    trust::{Known, Trust, votes_needed},
};
use crate::{
    ids::{JobId, PeerId, PeerNo},
    placement::{Admission, Apart, Origin, OwnerKey, Site},
    quantities::Bytes,
    trust::{Policy, established_min},
    validation::{self, Agreed, Verdict},
};

/// How much a peer's being who it is rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Nothing: keys are free.
    Newcomer,
    /// Checks that it passed.
    Established,
    /// The word of the coordinator's owner.
    Approved,
}

/// What matters of a worker when a task is handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) no: PeerNo,
    /// The public network that it comes from.
    pub(super) site: Option<Site>,
    /// Whose it is, as it says.
    pub(super) owner: Option<OwnerKey>,
    pub(super) standing: Standing,
}

/// An established worker that is there.
#[derive(Debug, Clone)]
pub(super) struct Present {
    pub(super) peer: PeerId,
    pub(super) memory_per_slot: Bytes,
    /// Jobs that it does not run.
    pub(super) refused: Vec<JobId>,
}

impl Known {
    pub(super) fn standing(&self) -> Standing {
        if self.admission == Admission::Approved {
            Standing::Approved
        } else if self.record.is_established() {
            Standing::Established
        } else {
            Standing::Newcomer
        }
    }

    /// The network that it shares with others.
    fn shared_site(&self) -> Option<Site> {
        let is_known = self.standing() > Standing::Newcomer || self.admission.is_vouched_for();
        self.site.filter(|site| !(site.is_relayed() && is_known))
    }
}

impl Trust {
    pub(super) fn standing(&self, peer: PeerNo) -> Standing {
        self.known(peer).standing()
    }

    pub(super) fn is_established(&self, peer: PeerNo) -> bool {
        self.standing(peer) > Standing::Newcomer
    }

    /// What matters of a worker when a task is handed out.
    pub(super) fn candidate(&self, no: PeerNo) -> Candidate {
        let known = self.known(no);
        let site = known.shared_site().filter(|_| self.apart >= Apart::Networks);
        let owner = known.owner.filter(|_| self.apart >= Apart::Owners);
        Candidate { no, site, owner, standing: known.standing() }
    }

    /// Takes note of where a worker comes from now. Returns whether that is something to remember.
    pub(super) fn note_origin(&mut self, peer: PeerNo, origin: &Origin) -> bool {
        let known = self.known_mut(peer);
        let before = (known.site, known.owner);
        (known.site, known.owner) = (origin.site(), origin.owner);
        let is_stranger = !(origin.is_local() || origin.has_token || known.admission.is_vouched_for());
        // What is remembered of a worker says how much it may hold.
        let begins = !std::mem::replace(&mut known.seen, true);
        if begins && is_stranger {
            known.quota = known.quota.min(super::quota::Quota::of_newcomer());
        }
        (begins && is_stranger) || before != (known.site, known.owner)
    }

    /// An established worker is there, or is not.
    pub(super) fn set_present(&mut self, no: PeerNo, present: Option<Present>) {
        match present.filter(|_| self.is_established(no)) {
            Some(present) => drop(self.present.insert(no, present)),
            None => drop(self.present.remove(&no)),
        }
    }

    /// Adds those who must not get a task because of where those come from who have it.
    fn keep_apart(&self, task: &Task, exclusion: &mut Exclusion) {
        let takes_part = |attempt: &&Attempt| !attempt.state.is_given_up();
        for attempt in task.attempts.iter().filter(takes_part) {
            let Candidate { site, owner, standing, .. } = self.candidate(attempt.peer);
            exclusion.sites.extend(site);
            exclusion.owners.extend(owner.map(|owner| (owner, standing)));
        }
        exclusion.sites.sort_unstable();
        exclusion.sites.dedup();
        exclusion.owners.sort_unstable();
        exclusion.owners.dedup();
    }

    /// Who must not get the next attempt at a task: see [`Task::exclusion`]; nobody else of the networks and owners of
    /// those that take part; and no newcomer, where one that is none is missing and could be had.
    pub(super) fn exclusion(&self, job: &Job, index: u64, task: &Task, relaxed: bool) -> Exclusion {
        let mut exclusion = task.exclusion(relaxed);
        self.keep_apart(task, &mut exclusion);
        if self.present.len() >= established_min(self.connected)
            && self.wants_established(job, index, task)
            && self.is_elsewhere(job, &exclusion)
        {
            exclusion.newcomers = true;
            // When there is none any more, others will do.
            exclusion.relaxed = false;
        }
        exclusion
    }

    /// Whether the next attempt at a task is the last chance of somebody who is no newcomer.
    fn wants_established(&self, job: &Job, index: u64, task: &Task) -> bool {
        match job.policy() {
            Policy::Quorum(quorum) if quorum.get() > 1 => {
                let votes = self.votes(task).map(|(_, reported)| reported.vote());
                let more = match validation::judge(votes_needed(quorum), votes) {
                    // All of one mind are newcomers, and somebody who is not said otherwise.
                    Verdict::Agreed(_) => return true,
                    Verdict::Wait { more } => more as usize,
                };
                let takes_part = |attempt: &&Attempt| !attempt.state.is_given_up();
                let mut others = task.attempts.iter().filter(takes_part);
                more <= task.live() + 1 && !others.any(|attempt| self.is_established(attempt.peer))
            }
            Policy::Quorum(_) | Policy::Adaptive { .. } => false,
            policy @ Policy::ErrorRate { .. } => self.would_want_established(policy, job, index, task),
        }
    }

    /// Whether enough established workers that could take a job's task are there, and not excluded.
    pub(super) fn is_elsewhere(&self, job: &Job, exclusion: &Exclusion) -> bool {
        let spec = &job.submission.spec;
        let could = self.present.iter().filter(|(no, present)| {
            present.memory_per_slot >= spec.limits.memory
                && spec.is_meant_for(present.peer)
                && !present.refused.contains(&job.id)
                && !exclusion.excludes(&self.candidate(**no))
        });
        let enough = established_min(self.connected);
        could.take(enough).count() == enough
    }

    /// Whether an established worker could be had that takes no part in a task.
    pub(super) fn is_elsewhere_than(&self, job: &Job, task: &Task) -> bool {
        if self.present.len() < established_min(self.connected) {
            return false;
        }
        let mut exclusion = task.exclusion(false);
        self.keep_apart(task, &mut exclusion);
        self.is_elsewhere(job, &exclusion)
    }

    /// What the first quorum that agreed is worth. Where newcomers agreed against somebody who is none, a quorum of others
    /// decides if it has an established worker in it; until it comes together another one is asked, as long as one
    /// could be had.
    pub(super) fn look_again(&self, job: &Job, task: &Task, quorum: NonZeroU32, agreed: Agreed) -> Verdict {
        let established = |attempt: &Attempt| self.is_established(attempt.peer);
        let mut known = self.votes(task).filter(|(attempt, _)| established(attempt)).peekable();
        let none_voted = known.peek().is_none();
        if none_voted || known.any(|(_, reported)| agreed.includes(reported.vote())) {
            return Verdict::Agreed(agreed);
        }
        let others =
            self.votes(task).map(|(_, reported)| reported.vote()).filter(|vote| !agreed.includes(*vote));
        if let Verdict::Agreed(other) = validation::judge(votes_needed(quorum), others)
            && self.votes(task).any(|(attempt, said)| established(attempt) && other.includes(said.vote()))
        {
            return Verdict::Agreed(other);
        }
        if self.is_elsewhere_than(job, task) { Verdict::Wait { more: 1 } } else { Verdict::Agreed(agreed) }
    }

    /// The votes on a task that count.
    pub(super) fn votes<'a>(&'a self, task: &'a Task) -> impl Iterator<Item = (&'a Attempt, &'a Reported)> {
        task.reported().filter(|(attempt, _)| self.counts(task, attempt))
    }

    /// Whether a vote counts: not that of a banned peer, and of those of one owner only the one of the best standing.
    pub(super) fn counts(&self, task: &Task, vote: &Attempt) -> bool {
        if self.is_banned(vote.peer) {
            return false;
        }
        let Candidate { owner: Some(owner), standing, .. } = self.candidate(vote.peer) else { return true };
        !task.reported().any(|(other, _)| {
            let rival = self.candidate(other.peer);
            rival.owner == Some(owner)
                && (rival.standing, vote.ordinal) > (standing, other.ordinal)
                && !self.is_banned(other.peer)
        })
    }

    fn is_banned(&self, peer: PeerNo) -> bool {
        self.known(peer).admission == Admission::Banned
    }

    /// Whether a worker may take part in a task beside those who do, but for attempt `without`.
    pub(super) fn may_join(&self, task: &Task, without: u32, no: PeerNo) -> bool {
        let candidate = self.candidate(no);
        if candidate.site.is_none() && candidate.owner.is_none() {
            return true;
        }
        let mut others = task.attempts.iter().filter(|attempt| {
            attempt.number != without && !attempt.state.is_given_up() && attempt.peer != no
        });
        !others.any(|attempt| {
            let other = self.candidate(attempt.peer);
            let same_site = other.site.is_some() && other.site == candidate.site;
            same_site || (other.owner.is_some() && other.owner == candidate.owner)
        })
    }
}
