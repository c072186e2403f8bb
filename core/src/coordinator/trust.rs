//! What is known of workers, and what their answers to a task amount to.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
};

use super::{
    effects::{InviteRow, RecordRow},
    job::Job,
    placing::Present,
    quota::Quota,
    task::{Attempt, AttemptState, Reported, Task},
};
use crate::{
    ids::{JobId, OutcomeDigest, PeerNo, TaskId},
    mutants::{Mutant, is_active},
    placement::{Admission, Apart, InviteId, OwnerKey, Site},
    quantities::Timestamp,
    trust::{AuditKey, Camp, Judgement, Lesson, Policy, Record, Scene},
    validation::{self, Agreed, Verdict},
};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Trust {
    key: AuditKey,
    pub(super) apart: Apart,
    /// By the numbers of peers.
    known: Vec<Known>,
    /// Jobs with results that rest on a worker's word alone.
    unchecked: BTreeMap<PeerNo, BTreeSet<JobId>>,
    /// Established workers that are connected and offer slots.
    pub(super) present: BTreeMap<PeerNo, Present>,
    /// Workers that are connected.
    pub(super) connected: usize,
    invites: BTreeMap<InviteId, InviteRow>,
}

/// What is remembered of a peer, connected or not.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Known {
    pub(super) record: Record,
    pub(super) quota: Quota,
    pub(super) admission: Admission,
    /// Where it came from last.
    pub(super) site: Option<Site>,
    pub(super) owner: Option<OwnerKey>,
    /// Whether it was here before, or something of it is on record.
    pub(super) seen: bool,
}

/// An answer and those who gave it.
struct Side {
    answer: Agreed,
    camp: Camp,
}

impl Trust {
    pub(super) fn new(key: AuditKey, apart: Apart) -> Self {
        Self {
            key,
            apart,
            known: vec![],
            unchecked: BTreeMap::new(),
            present: BTreeMap::new(),
            connected: 0,
            invites: BTreeMap::new(),
        }
    }

    pub(super) fn known_mut(&mut self, peer: PeerNo) -> &mut Known {
        let place = peer.get() as usize;
        if self.known.len() <= place {
            self.known.resize(place + 1, Known::default());
        }
        &mut self.known[place]
    }

    pub(super) fn known(&self, peer: PeerNo) -> Known {
        self.known.get(peer.get() as usize).copied().unwrap_or_default()
    }

    pub(super) fn restore(&mut self, peer: PeerNo, row: RecordRow) {
        let RecordRow { record, quota, admission, site, owner } = row;
        let quota = Quota::restored(quota);
        *self.known_mut(peer) = Known { record, quota, admission, site, owner, seen: true };
    }

    pub(super) fn row(&self, peer: PeerNo) -> RecordRow {
        let Known { record, quota, admission, site, owner, .. } = self.known(peer);
        RecordRow { record, admission, quota: u32::try_from(quota.get()).unwrap_or(u32::MAX), site, owner }
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

    pub(super) fn admission(&self, peer: PeerNo) -> Admission {
        self.known(peer).admission
    }

    /// What the coordinator's owner says of a peer; a ban leaves nothing of its record.
    pub(super) fn set_admission(&mut self, peer: PeerNo, admission: Admission) {
        let known = self.known_mut(peer);
        known.admission = admission;
        known.seen = true;
        if admission == Admission::Banned {
            known.record.learn(Lesson::Caught);
        }
        if admission.is_vouched_for() {
            known.quota = known.quota.max(Quota::default());
        }
    }

    pub(super) fn set_invite(&mut self, invite: InviteId, row: InviteRow) {
        if row.uses == 0 {
            self.invites.remove(&invite);
        } else {
            self.invites.insert(invite, row);
        }
    }

    /// The invites that may still be used, and those whose time is over.
    pub(super) fn invites(&self) -> &BTreeMap<InviteId, InviteRow> {
        &self.invites
    }

    /// What was said of peers, of those of whom anything was.
    pub(super) fn said(&self) -> impl Iterator<Item = (PeerNo, Admission)> {
        let numbered = (0..).map(PeerNo::new).zip(&self.known);
        let said = numbered.map(|(no, known)| (no, known.admission));
        said.filter(|(_, admission)| !matches!(admission, Admission::Open | Admission::Invited))
    }

    /// What is left of an invite that is used now; `None` when it may not be.
    pub(super) fn use_invite(&self, now: Timestamp, invite: InviteId) -> Option<InviteRow> {
        let row = self.invites.get(&invite).filter(|row| row.expires > now)?;
        Some(InviteRow { uses: row.uses - 1, ..*row })
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
        let policy = job.policy();
        let Policy::Quorum(quorum) = policy else { return self.weigh(policy, job, index, task, None).0 };
        let votes = self.votes(task).map(|(_, reported)| reported.vote());
        match validation::judge(votes_needed(quorum), votes) {
            Verdict::Agreed(agreed) => self.look_again(job, task, quorum, agreed),
            verdict @ Verdict::Wait { .. } => verdict,
        }
    }

    /// Whether more attempts are needed than are under way, if all of those agree with what leads.
    pub(super) fn wants_more(&self, job: &Job, index: u64, task: &Task) -> bool {
        match job.policy() {
            Policy::Quorum(_) => match self.judge(job, index, task) {
                Verdict::Agreed(_) => false,
                Verdict::Wait { more } => more as usize > task.live(),
            },
            // Who is at it may say what changes everything, and while there is something else to do, that costs nobody
            // any time. So those who must look are asked one by one, until the last tasks of the job are out.
            Policy::ErrorRate { .. } if task.live() > 0 && job.shard.cursor < job.total() => false,
            policy => matches!(self.weigh(policy, job, index, task, Some(0)).0, Verdict::Wait { .. }),
        }
    }

    /// Whether with one more newcomer all that is missing would be somebody who is none.
    pub(super) fn would_want_established(&self, policy: Policy, job: &Job, index: u64, task: &Task) -> bool {
        self.weigh(policy, job, index, task, Some(1)).1
    }

    /// Whether a task that nobody has answered waits for those who are at it and for nothing else, whoever they are.
    pub(super) fn is_under_way(job: &Job, task: &Task) -> bool {
        let enough = match job.policy() {
            Policy::Quorum(quorum) => votes_needed(quorum).max(1) as usize,
            Policy::ErrorRate { .. } if job.shard.cursor < job.total() => 1,
            Policy::ErrorRate { .. } | Policy::Adaptive { .. } => return false,
        };
        let is_live = |attempt: &Attempt| matches!(attempt.state, AttemptState::Leased);
        task.attempts.len() >= enough && task.attempts.iter().all(is_live)
    }

    /// What the words of those who voted are worth, and whether only an established worker is missing. With `coming`,
    /// as if those who are at it agreed with what leads, and so many newcomers more.
    fn weigh(
        &self,
        policy: Policy,
        job: &Job,
        index: u64,
        task: &Task,
        coming: Option<usize>,
    ) -> (Verdict, bool) {
        let mut sides = self.sides(policy, task);
        if let Some(newcomers) = coming {
            let camps: Vec<Camp> = sides.iter().map(|side| side.camp).collect();
            let lead = policy.lead(&camps).unwrap_or(0);
            let known =
                live(task).map(|attempt| (self.record(attempt.peer), self.is_established(attempt.peer)));
            for (record, is_established) in
                known.chain(std::iter::repeat_n((Record::default(), false), newcomers))
            {
                if sides.is_empty() {
                    let answer = Agreed { outcome: OutcomeDigest::new([0; 32]), fuel: None };
                    sides.push(Side { answer, camp: Camp::default() });
                }
                if let Some(side) = sides.get_mut(lead) {
                    side.camp.join(&policy, &record, true);
                    if is_established {
                        side.camp.vouch();
                    }
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
        let camps: Vec<Camp> = sides.iter().map(|side| side.camp).collect();
        let newcomers = camps.iter().any(|camp| !camp.is_established());
        let established_elsewhere = newcomers && self.is_elsewhere_than(job, task);
        let scene = Scene { draw, unchecked, established_elsewhere };
        match policy.judge(&camps, scene) {
            Judgement::Accept { camp, .. } => (Verdict::Agreed(sides[camp].answer), false),
            Judgement::More { attempts, established } => (Verdict::Wait { more: attempts }, established),
        }
    }

    /// The answers to a task. Attempts that resumed agree with any fuel of the same outcome; where counts of that
    /// differ they are left out, as it is not for them to choose.
    fn sides(&self, policy: Policy, task: &Task) -> Vec<Side> {
        let mut voters: Vec<(&Attempt, &Reported)> = self.votes(task).collect();
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
            if self.is_established(attempt.peer) {
                sides[place].camp.vouch();
            }
        }
        sides
    }
}

pub(super) fn votes_needed(quorum: NonZeroU32) -> u32 {
    quorum.get() - u32::from(is_active(Mutant::HurriesQuorum) && quorum.get() > 1)
}

/// Attempts that may bring a vote soon.
fn live(task: &Task) -> impl Iterator<Item = &Attempt> {
    task.attempts.iter().filter(|attempt| matches!(attempt.state, AttemptState::Leased))
}
