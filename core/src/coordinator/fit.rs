//! Whether a worker may have attempts of a job now, and if not, why not.
//!
//! The scheduler decides by these answers and [`Coordinator::explain`] shows them, so they can't differ.

use std::{collections::BTreeMap, fmt};

use super::{Coordinator, JobRefusal, Worker, again::Exclusion, job::Job, shares::SLOT};
use crate::{
    ids::{PeerId, PeerNo},
    limits,
    mutants::{Mutant, is_active},
};

/// Why a worker is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PassedOver {
    /// Its session is down.
    Away,
    /// It offers no slot: it is paused, or about to leave.
    NoSlots,
    /// The job is meant for other peers.
    NotTargeted,
    /// It does not trust the job's submitter.
    Distrusts,
    /// What it may use of its disk has no room for the job's data.
    NoRoom,
    /// A slot of it has less memory than the job's tasks need.
    TooLittleMemory,
    /// It had an attempt of this task, or has one.
    HadAttempt,
    /// Another worker of its public network has an attempt of this task.
    SameNetwork,
    /// Another worker of its owner has one.
    SameOwner,
    /// The task needs one at least that is no newcomer.
    Newcomer,
    /// It holds as many attempts as the outcomes of earlier ones allow.
    InFlightLimit,
    /// It holds enough work.
    Full,
}

impl PassedOver {
    /// A word for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::NoSlots => "no-slots",
            Self::NotTargeted => "not-targeted",
            Self::Distrusts => "distrusts",
            Self::NoRoom => "no-room",
            Self::TooLittleMemory => "too-little-memory",
            Self::HadAttempt => "had-attempt",
            Self::SameNetwork => "same-network",
            Self::SameOwner => "same-owner",
            Self::Newcomer => "newcomer",
            Self::InFlightLimit => "in-flight-limit",
            Self::Full => "full",
        }
    }

    /// Whether it is over as soon as the worker has finished something.
    fn is_busy(self) -> bool {
        matches!(self, Self::InFlightLimit | Self::Full)
    }
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Away => "its connection is down",
            Self::NoSlots => "it offers no slot (paused or leaving)",
            Self::NotTargeted => "the job is meant for other peers",
            Self::Distrusts => "its owner does not trust the submitter (worker start --trust)",
            Self::NoRoom => "its disk quota has no room for the data of the job (worker start --disk)",
            Self::TooLittleMemory => "its slots have too little memory",
            Self::HadAttempt => "it has or had an attempt of this task",
            Self::SameNetwork => "another worker of its network (/24 or /48) has an attempt of this task",
            Self::SameOwner => "another worker of its owner has an attempt of this task",
            Self::Newcomer => "the task needs a worker that passed checks before",
            Self::InFlightLimit => "it holds as many attempts as its earlier results allow",
            Self::Full => "it holds enough work",
        })
    }
}

/// Workers that are passed over for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOverGroup {
    /// Why.
    pub reason: PassedOver,
    /// How many.
    pub workers: usize,
    /// Some of them, [`limits::EXPLAINED_PEERS_MAX`] at most.
    pub peers: Vec<PeerId>,
}

/// What all workers are to a job or a task.
#[derive(Debug, Default)]
pub(super) struct Census {
    pub(super) connected: usize,
    /// Workers that could take it now.
    pub(super) free: usize,
    /// Workers that could take it when they have finished something.
    pub(super) busy: usize,
    reasons: BTreeMap<PassedOver, PassedOverGroup>,
}

impl Census {
    pub(super) fn count(&self, reason: PassedOver) -> usize {
        self.reasons.get(&reason).map_or(0, |group| group.workers)
    }

    pub(super) fn into_groups(self) -> Vec<PassedOverGroup> {
        self.reasons.into_values().collect()
    }
}

impl Coordinator {
    /// Attempts of a job for which a worker has room.
    pub(super) fn room(&self, job: &Job, no: PeerNo, worker: &Worker) -> Result<usize, PassedOver> {
        let spec = &job.submission.spec;
        let slots = worker.capacity.slots as usize;
        if worker.session.is_none() {
            return Err(PassedOver::Away);
        }
        if slots == 0 {
            return Err(PassedOver::NoSlots);
        }
        if !spec.on.is_empty() && !self.peer_id(no).is_some_and(|peer| spec.is_meant_for(peer)) {
            return Err(PassedOver::NotTargeted);
        }
        match worker.refused.get(&job.id).map(|(why, _)| why) {
            Some(JobRefusal::Distrusts) => return Err(PassedOver::Distrusts),
            Some(JobRefusal::NoRoom) => return Err(PassedOver::NoRoom),
            None => {}
        }
        if spec.limits.memory > worker.memory_per_slot() {
            return Err(PassedOver::TooLittleMemory);
        }
        let allowed = (worker.quota.get() + worker.overdue).min(limits::WORKER_IN_FLIGHT_MAX);
        let all = slots as u64 * u64::from(SLOT);
        let free = all.saturating_sub(worker.held);
        let of_this = worker.jobs.get(&job.id).copied().unwrap_or(0);
        let most = self.share(job).max(slots);
        // A lease must be worth a message: not one task at a time while others wait in the queue. What is asked of
        // the worker as a whole must not depend on the job, or the next in line would be overtaken for ever by
        // those who ask for less.
        let waits = worker.live() > slots;
        let is_little = |room: usize, of: usize| room == 0 || (waits && room < of / 4);
        if is_little(allowed.saturating_sub(worker.in_flight), allowed) {
            return Err(PassedOver::InFlightLimit);
        }
        if (waits && free < all / 4) || is_little(most.saturating_sub(of_this), most) {
            return Err(PassedOver::Full);
        }
        // What it holds of all jobs is to fill its slots and the time for which it is supplied in advance; long
        // tasks fill more than there is room for, so that one of them waits for a slot.
        if is_active(Mutant::LeasesWithoutBound) {
            return Ok(most - of_this);
        }
        let part = u64::from(worker.part_of_slot(job.id, self.config.prefill));
        let room = usize::try_from(free / part).unwrap_or(usize::MAX).max(1);
        Ok(room.min(most - of_this).min(allowed - worker.in_flight))
    }

    /// Half of one worker's even share of what is left of a job.
    pub(super) fn share(&self, job: &Job) -> usize {
        let all = self.sessions.len();
        let targets = job.submission.spec.on.len();
        job.share(if targets == 0 { all } else { targets.min(all) })
    }

    /// What each worker is to a job, or to a task of it that excludes some.
    pub(super) fn census(&self, job: &Job, exclusion: Option<&Exclusion>) -> Census {
        let mut census = Census::default();
        for (no, worker) in &self.workers {
            census.connected += usize::from(worker.session.is_some());
            let reason = match self.room(job, *no, worker) {
                Err(reason) if !reason.is_busy() => reason,
                _ if let Some(reason) = exclusion.and_then(|e| e.reason(&self.trust.candidate(*no))) => {
                    reason
                }
                Ok(_) => {
                    census.free += 1;
                    continue;
                }
                Err(reason) => {
                    census.busy += 1;
                    reason
                }
            };
            let new = || PassedOverGroup { reason, workers: 0, peers: vec![] };
            let group = census.reasons.entry(reason).or_insert_with(new);
            group.workers += 1;
            if group.peers.len() < limits::EXPLAINED_PEERS_MAX {
                group.peers.extend(self.peer_id(*no));
            }
        }
        census
    }
}
