//! What is known of workers, and what their answers to a task amount to.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    effects::RecordRow,
    job::Job,
    quota::Quota,
    task::{Attempt, AttemptState, Reported, Task},
};
use crate::{
    ids::{JobId, OutcomeDigest, PeerNo, TaskId},
    mutants::{Mutant, is_active},
    placement::Admission,
    trust::{AuditKey, Camp, Judgement, Lesson, Policy, Record, Scene},
    validation::{self, Agreed, Verdict},
};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Trust {
    key: AuditKey,
    /// By the numbers of peers.
    known: Vec<Known>,
    /// Jobs with results that rest on a worker's word alone.
    unchecked: BTreeMap<PeerNo, BTreeSet<JobId>>,
}

/// What is remembered of a peer, connected or not.
#[derive(Debug, Default, Clone, Copy)]
struct Known {
    record: Record,
    quota: Quota,
    admission: Admission,
}

/// An answer and those who gave it.
struct Side {
    answer: Agreed,
    camp: Camp,
}

impl Trust {
    pub(super) fn new(key: AuditKey) -> Self {
        Self { key, known: vec![], unchecked: BTreeMap::new() }
    }

    fn known_mut(&mut self, peer: PeerNo) -> &mut Known {
        let place = peer.get() as usize;
        if self.known.len() <= place {
            self.known.resize(place + 1, Known::default());
        }
        &mut self.known[place]
    }

    fn known(&self, peer: PeerNo) -> Known {
        self.known.get(peer.get() as usize).copied().unwrap_or_default()
    }

    pub(super) fn restore(&mut self, peer: PeerNo, row: RecordRow) {
        let RecordRow { record, quota, admission } = row;
        *self.known_mut(peer) = Known { record, quota: Quota::restored(quota), admission };
    }

    pub(super) fn row(&self, peer: PeerNo) -> RecordRow {
        let Known { record, quota, admission } = self.known(peer);
        RecordRow { record, admission, quota: u32::try_from(quota.get()).unwrap_or(u32::MAX) }
    }

    pub(super) fn record(&self, peer: PeerNo) -> Record {
        self.known(peer).record
    }

    pub(super) fn learn(&mut self, peer: PeerNo, lesson: Lesson) {
        self.known_mut(peer).record.learn(lesson);
    }

    pub(super) fn quota(&self, peer: PeerNo) -> Quota {
        self.known(peer).quota
    }

    pub(super) fn set_quota(&mut self, peer: PeerNo, quota: Quota) {
        self.known_mut(peer).quota = quota;
    }

    /// A result of a job rests on a worker's word alone.
    pub(super) fn note_unchecked(&mut self, peer: PeerNo, job: JobId) {
        self.unchecked.entry(peer).or_default().insert(job);
    }

    /// None of a job does any more.
    pub(super) fn forget<'a>(&mut self, job: JobId, peers: impl Iterator<Item = &'a PeerNo>) {
        for peer in peers {
            if let Some(jobs) = self.unchecked.get_mut(peer) {
                jobs.remove(&job);
                if jobs.is_empty() {
                    self.unchecked.remove(peer);
                }
            }
        }
    }

    /// Jobs of which results rest on a worker's word alone.
    pub(super) fn jobs_resting_on(&self, peer: PeerNo) -> Vec<JobId> {
        self.unchecked.get(&peer).into_iter().flatten().copied().collect()
    }

    /// What an attempt is called. Where nobody may know which attempts are checks, its number does not tell.
    pub(super) fn number(&self, policy: Policy, task: TaskId, ordinal: u32) -> u32 {
        match policy {
            Policy::ErrorRate { .. } => self.key.attempt_number(task, ordinal),
            Policy::Quorum(_) | Policy::Adaptive { .. } => ordinal,
        }
    }

    /// The inverse of [`Trust::number`], for a number that is one of the first `most`.
    pub(super) fn ordinal(&self, policy: Policy, task: TaskId, number: u32, most: u32) -> u32 {
        match policy {
            Policy::ErrorRate { .. } => self.key.attempt_ordinal(task, number).min(most),
            Policy::Quorum(_) | Policy::Adaptive { .. } => number,
        }
    }

    /// One of so many, drawn for a task.
    pub(super) fn pick(&self, task: TaskId, of: usize) -> usize {
        self.key.draw(task).pick(of)
    }

    /// What the votes on a task amount to.
    pub(super) fn judge(&self, job: &Job, index: u64, task: &Task) -> Verdict {
        match job.policy() {
            Policy::Quorum(quorum) => {
                let hurried = is_active(Mutant::HurriesQuorum) && quorum.get() > 1;
                validation::judge(quorum.get() - u32::from(hurried), task.votes())
            }
            policy => self.weigh(policy, job, index, task, false),
        }
    }

    /// Whether more attempts are needed than are under way, if all of those agree with what leads.
    pub(super) fn wants_more(&self, job: &Job, index: u64, task: &Task) -> bool {
        match job.policy() {
            Policy::Quorum(quorum) => match validation::judge(quorum.get(), task.votes()) {
                Verdict::Agreed(_) => false,
                Verdict::Wait { more } => more as usize > task.live(),
            },
            policy => matches!(self.weigh(policy, job, index, task, true), Verdict::Wait { .. }),
        }
    }

    fn weigh(&self, policy: Policy, job: &Job, index: u64, task: &Task, with_live: bool) -> Verdict {
        let mut sides = self.sides(policy, task);
        if with_live {
            let camps: Vec<Camp> = sides.iter().map(|side| side.camp).collect();
            let lead = policy.lead(&camps);
            for attempt in live(task) {
                if lead.is_none() && sides.is_empty() {
                    let answer = Agreed { outcome: OutcomeDigest::new([0; 32]), fuel: None };
                    sides.push(Side { answer, camp: Camp::default() });
                }
                if let Some(side) = sides.get_mut(lead.unwrap_or(0)) {
                    side.camp.join(&policy, &self.record(attempt.peer), true);
                }
            }
        }
        let first = task.reported().map(|(attempt, _)| attempt).chain(live(task)).next();
        let unchecked = match task.checks {
            // A result that is checked because nothing else is left to be done.
            Some(_) => usize::MAX,
            None => first.and_then(|first| job.unchecked.get(&first.peer)).map_or(0, BTreeMap::len),
        };
        let draw = self.key.draw(job.task_id(index));
        let scene = Scene { draw, unchecked, established_elsewhere: false };
        let camps: Vec<Camp> = sides.iter().map(|side| side.camp).collect();
        match policy.judge(&camps, scene) {
            Judgement::Accept { camp, .. } => Verdict::Agreed(sides[camp].answer),
            Judgement::More { attempts, .. } => Verdict::Wait { more: attempts },
        }
    }

    /// The answers to a task. Attempts that resumed agree with any fuel of the same outcome; where counts of that
    /// differ they are left out, as it is not for them to choose.
    fn sides(&self, policy: Policy, task: &Task) -> Vec<Side> {
        let mut voters: Vec<(&Attempt, &Reported)> = task.reported().collect();
        voters.sort_by_key(|(attempt, _)| attempt.ordinal);
        let mut sides = Vec::<Side>::new();
        for (attempt, reported) in &voters {
            let vote = reported.vote();
            let fuel = if vote.resumed {
                let same = voters.iter().map(|(_, other)| other.vote());
                let mut counts = same.filter(|other| other.outcome == vote.outcome && !other.resumed);
                let first = counts.next().map(|other| other.fuel);
                if counts.any(|other| Some(other.fuel) != first) {
                    continue;
                }
                first
            } else {
                Some(vote.fuel)
            };
            let answer = Agreed { outcome: vote.outcome, fuel };
            let place = sides.iter().position(|side| side.answer == answer).unwrap_or_else(|| {
                sides.push(Side { answer, camp: Camp::default() });
                sides.len() - 1
            });
            sides[place].camp.join(&policy, &self.record(attempt.peer), !vote.resumed);
        }
        sides
    }
}

/// Attempts that may bring a vote soon.
fn live(task: &Task) -> impl Iterator<Item = &Attempt> {
    task.attempts.iter().filter(|attempt| matches!(attempt.state, AttemptState::Leased))
}
