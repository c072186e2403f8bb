//! Who gets what next.
//!
//! A worker is kept *prefilled*: it holds what its slots run plus about [`super::Config::prefill`] worth of work, so
//! that no round trip stands between two tasks. Near the end of a job a worker holds no more than its slots
//! run or half of its even share of what is left (guided self-scheduling: Polychronopoulos and Kuck, 1987),
//! so that the last tasks do not queue behind one worker.
//!
//! The submitter that is most behind its share goes first, then the job of the highest priority, then the oldest,
//! unless the worker has the blobs of another one already. Within a job, tasks go out by position, so a worker
//! gets neighbours.
//!
//! Workers for which there was not enough are remembered, and looked at again only when something has changed for
//! them: each lease costs what it hands out, however many workers are idle.

use std::{sync::Arc, time::Duration};

use super::{
    Coordinator, Lease, LeaseRow, PassedOver, ToWorker, Worker,
    effects::{Effects, LeaseItem},
    shares::SLOT,
};
use crate::{
    ids::{JobId, PeerId, PeerNo},
    limits,
    mutants::{Mutant, is_active},
    quantities::{Bytes, Timestamp},
};

impl Worker {
    /// How long the attempts that it holds take, as far as known.
    pub(super) fn backlog(&self, job: JobId, attempts: usize) -> Duration {
        let slots = u32::max(self.capacity.slots, 1);
        let mean = self.mean_micros.get(&job).copied().unwrap_or(0.0);
        let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
        Duration::from_secs_f64((mean / 1e6).clamp(0.0, 1e7)) * attempts / slots
    }

    /// The part of a slot that an attempt holds: its time in the slot, out of that and the time for which it is
    /// queued in advance.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and a million"
    )]
    pub(super) fn part_of_slot(&self, job: JobId, prefill: Duration) -> u32 {
        let Some(mean) = self.mean_micros.get(&job) else { return SLOT / 2 };
        let part = mean / (mean + prefill.as_micros() as f64);
        (part * f64::from(SLOT)).clamp(1.0, f64::from(SLOT)) as u32
    }

    /// Whether it has what a job's tasks need, as far as this side can know: it was given some before.
    fn is_at_home_in(&self, job: JobId) -> bool {
        self.told.contains(&job) || self.mean_micros.contains_key(&job)
    }

    pub(super) fn memory_per_slot(&self) -> Bytes {
        let slots = u64::from(self.capacity.slots.max(1));
        Bytes::new(self.capacity.memory.get() / slots)
    }

    /// Attempts that it holds and that are not overdue.
    pub(super) fn live(&self) -> usize {
        self.in_flight - self.overdue
    }
}

/// A job for a worker.
struct Choice {
    submitter: PeerId,
    job: JobId,
    room: usize,
}

impl Coordinator {
    /// Serves the workers for which something has changed, and those that went away hungry, if work has arrived
    /// since: one lease each in turn, so that a small job does not go to the first of them as a whole.
    pub(super) fn feed(&mut self, now: Timestamp, fx: &mut Effects) {
        self.reconsider(now, fx);
        loop {
            let woken = std::mem::take(&mut self.woken).into_iter().collect();
            self.take_turns(now, woken, fx);
            let Some(job) = self.arrived.pop_first() else {
                if self.woken.is_empty() {
                    break;
                }
                continue;
            };
            self.feed_job(now, job, fx);
        }
        self.rebalance(now, fx);
    }

    /// Hands a worker leases until it holds enough or there is nothing for it.
    pub(super) fn pump(&mut self, now: Timestamp, peer: PeerNo, fx: &mut Effects) {
        self.take_turns(now, vec![peer], fx);
    }

    fn take_turns(&mut self, now: Timestamp, mut peers: Vec<PeerNo>, fx: &mut Effects) {
        while !peers.is_empty() {
            peers.retain(|peer| self.lease_once(now, *peer, fx));
        }
    }

    /// Work of a job has arrived: the hungry workers that may take it get it, as long as there is any.
    fn feed_job(&mut self, now: Timestamp, id: JobId, fx: &mut Effects) {
        let Some(job) = self.jobs.get(&id) else { return };
        let submission = Arc::clone(&job.submission);
        let memory = submission.spec.limits.memory;
        let mut targets = submission.spec.on.iter().filter_map(|peer| self.numbers.get(peer).copied());
        let targets: Option<Vec<PeerNo>> =
            (!submission.spec.on.is_empty()).then(|| targets.by_ref().collect());
        let mut targets = targets.map(Vec::into_iter);
        let (mut place, mut served) = (None, vec![]);
        while self.jobs.get(&id).is_some_and(|job| job.may_run() && job.has_work()) {
            let next = if let Some(targets) = &mut targets {
                targets.next()
            } else {
                place = self.hungry.next(memory, place);
                place.map(|(_, peer)| peer)
            };
            let Some(peer) = next else { break };
            let has_work =
                self.jobs.get(&id).is_some_and(|job| job.has_work_for(&self.trust.candidate(peer)));
            if has_work && self.hungry.contains(peer) && self.lease_once(now, peer, fx) {
                served.push(peer);
            }
        }
        self.take_turns(now, served, fx);
    }

    fn lease_once(&mut self, now: Timestamp, peer: PeerNo, fx: &mut Effects) -> bool {
        self.hungry.remove(peer);
        let Some(worker) = self.workers.get(&peer).filter(|worker| worker.session.is_some()) else {
            return false;
        };
        if worker.capacity.slots == 0 {
            return false;
        }
        let (memory, is_idle) = (worker.memory_per_slot(), worker.has_idle_slot());
        let (choice, full) = self.choose(peer);
        let Some(Choice { submitter, job: id, room }) = choice else {
            if !full {
                if is_idle {
                    self.idle.insert(peer);
                }
                self.hungry.insert(peer, memory);
            }
            return false;
        };
        // Leases are picked by turns among the submitters, so none may take all the room at once.
        let turn = self.shares.turn(submitter, room);
        let Some(job) = self.jobs.get(&id) else { return false };
        let bound = if is_active(Mutant::LeasesWithoutBound) { usize::MAX } else { limits::LEASE_ITEMS_MAX };
        let count = turn.min(self.share(job)).clamp(1, bound);
        self.open_lease(now, peer, id, count, fx);
        true
    }

    /// The job of which a worker gets attempts next, and whether there is one of which it has enough for now.
    fn choose(&mut self, peer: PeerNo) -> (Option<Choice>, bool) {
        self.shares.refresh();
        let Some(worker) = self.workers.get(&peer) else { return (None, false) };
        let candidate = self.trust.candidate(peer);
        let (mut first, mut choice, mut full) = (None::<Choice>, None, false);
        let (mut drained, mut looked) = (vec![], 0);
        for (submitter, id) in self.shares.ready() {
            let Some(job) = self.jobs.get(&id) else { continue };
            if let Some(first) = &first {
                // There is something for it. What else its submitter has must be as good, and nearer.
                let place = self.jobs.get(&first.job).map(|job| job.standing.priority);
                looked += 1;
                let comparable = first.submitter == submitter && place == Some(job.standing.priority);
                if !comparable || looked > limits::LOCALITY_LOOK_MAX {
                    break;
                }
                if !worker.is_at_home_in(id) {
                    continue;
                }
            }
            if !job.has_work() {
                drained.push(id);
                continue;
            }
            match self.room(job, peer, worker) {
                Ok(room) if job.has_work_for(&candidate) => {
                    let found = Choice { submitter, job: id, room };
                    let waits_long = job.passed_over >= limits::LOCALITY_PASSES_MAX;
                    if worker.is_at_home_in(id) || (first.is_none() && waits_long) {
                        choice = Some(found);
                        break;
                    }
                    first = Some(found);
                }
                Err(PassedOver::InFlightLimit | PassedOver::Full) => full = true,
                Ok(_) | Err(_) => {}
            }
        }
        for id in drained {
            self.refresh_ready(id);
        }
        if let Some(passed) = first.as_ref().filter(|_| choice.is_some())
            && let Some(job) = self.jobs.get_mut(&passed.job)
        {
            job.passed_over += 1;
        }
        (choice.or(first), full)
    }

    /// Opens a lease, unless all that the job seemed to have for the peer was void; it is gone then, and the
    /// next look finds something else.
    fn open_lease(&mut self, now: Timestamp, peer: PeerNo, id: JobId, count: usize, fx: &mut Effects) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.passed_over = 0;
        let items = job.take(peer, self.next_lease, count, &self.trust);
        if !items.is_empty() {
            self.grant_lease(now, peer, id, items, fx);
        }
    }

    /// Hands out a lease of attempts that are the worker's already.
    pub(super) fn grant_lease(
        &mut self,
        now: Timestamp,
        peer: PeerNo,
        id: JobId,
        items: Vec<LeaseItem>,
        fx: &mut Effects,
    ) {
        let lease = self.next_lease;
        self.next_lease = lease.next();
        let prefill = self.config.prefill;
        let (Some(job), Some(worker)) = (self.jobs.get_mut(&id), self.workers.get_mut(&peer)) else { return };
        worker.in_flight += items.len();
        *worker.jobs.entry(id).or_default() += items.len();
        worker.leases.insert(lease);
        job.leases.insert(lease);
        let submission = Arc::clone(&job.submission);
        let wait = worker.backlog(id, worker.in_flight) * 4;
        let part = worker.part_of_slot(id, prefill);
        let deadline = now + limits::LEASE_SLACK + submission.spec.limits.deadline + wait;
        let row = Arc::new(LeaseRow { lease, job: id, peer, deadline, items });
        if worker.told.insert(id) {
            let spec = Arc::new(submission.spec.clone());
            fx.send(worker.session, ToWorker::Job { job: id, spec, submission: submission.clone() });
        }
        fx.send(worker.session, ToWorker::Lease(row.clone()));
        let held = u64::from(part) * row.items.len() as u64;
        worker.held += held;
        self.shares.hold(submission.submitter, held);
        // Tasks that need further votes are queued for others by now.
        if job.again.len() > 0 {
            self.arrived.insert(id);
        }
        fx.batch.shards.insert(id, job.shard());
        fx.changed.insert(id);
        self.deadlines.insert((deadline, lease));
        let open = row.items.len();
        fx.batch.leases_opened.insert(lease, row.clone());
        self.leases.insert(lease, Lease { row, open, expired: false, opened: now, part });
    }

    /// Work of a job may have arrived, or have gone: its place among those that wait for workers.
    pub(super) fn refresh_ready(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let ready = job.may_run() && job.has_work();
        self.shares.set_ready(job.submission.submitter, id, job.standing.priority, ready);
    }

    /// Work of a job has arrived that a hungry worker may take.
    pub(super) fn note_work(&mut self, id: JobId) {
        self.refresh_ready(id);
        if self.jobs.get(&id).is_some_and(super::job::Job::may_run) {
            self.arrived.insert(id);
        }
    }
}
