//! Who gets what next.
//!
//! A worker is kept *prefilled*: it holds what its slots run plus about [`super::Config::prefill`] worth of work, so
//! that no round trip stands between two tasks. Near the end of a job a worker holds no more than its slots
//! run or half of its even share of what is left (guided self-scheduling: Polychronopoulos and Kuck, 1987),
//! so that the last tasks do not queue behind one worker.

use std::{sync::Arc, time::Duration};

use super::{Coordinator, Lease, LeaseRow, ToWorker, Worker, effects::Effects};
use crate::{
    ids::{JobId, LeaseId, PeerNo},
    limits,
    quantities::Timestamp,
};

impl Worker {
    /// Attempts of one job that this worker should hold.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to a small positive range"
    )]
    fn target(&self, job: JobId, prefill: Duration) -> usize {
        let slots = self.capacity.slots as usize;
        let Some(mean) = self.mean_micros.get(&job) else { return slots * 2 };
        let per_slot = prefill.as_micros() as f64 / mean.max(1.0);
        let extra = (per_slot * slots as f64).ceil().clamp(1.0, limits::WORKER_IN_FLIGHT_MAX as f64);
        (slots + extra as usize).min(limits::WORKER_IN_FLIGHT_MAX)
    }

    /// How long the attempts that it holds take, as far as known.
    fn backlog(&self, job: JobId, attempts: usize) -> Duration {
        let slots = u32::max(self.capacity.slots, 1);
        let mean = self.mean_micros.get(&job).copied().unwrap_or(0.0);
        let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
        Duration::from_secs_f64((mean / 1e6).clamp(0.0, 1e7)) * attempts / slots
    }
}

impl Coordinator {
    /// Serves the workers that went away hungry, if work has arrived since: one lease each in turn, so that
    /// a small job does not go to the first of them as a whole.
    pub(super) fn feed(&mut self, now: Timestamp, fx: &mut Effects) {
        while std::mem::take(&mut self.work_arrived) {
            let mut hungry = std::mem::take(&mut self.hungry);
            while !hungry.is_empty() {
                hungry.retain(|peer| self.lease_once(now, *peer, fx));
            }
        }
    }

    /// Hands a worker leases until it holds enough or there is nothing for it.
    pub(super) fn pump(&mut self, now: Timestamp, peer: PeerNo, fx: &mut Effects) {
        while self.lease_once(now, peer, fx) {}
    }

    fn lease_once(&mut self, now: Timestamp, peer: PeerNo, fx: &mut Effects) -> bool {
        let Some(worker) = self.workers.get(&peer).filter(|worker| worker.session.is_some()) else {
            return false;
        };
        let slots = worker.capacity.slots as usize;
        let mut full = slots == 0;
        let mut choice = None;
        for id in self.fair_order() {
            let job = &self.jobs[&id];
            if job.submission.spec.limits.memory > worker.memory_per_slot() {
                continue;
            }
            let share = job.share(self.sessions.len());
            let target = worker.target(id, self.config.prefill).min(share.max(slots));
            let room = target.saturating_sub(worker.in_flight);
            // A lease that is worth a message: not one task at a time while others wait in the queue.
            let worth = worker.in_flight <= slots || room >= (target / 4).max(1);
            if room == 0 || !worth {
                full = true;
            } else if job.has_work_for(peer) {
                // Leases are picked by turns among the submitters, so none may take all the room at once.
                let turn = room.div_ceil(self.submitters.len());
                choice = Some((id, turn.min(share).min(limits::LEASE_ITEMS_MAX)));
                break;
            }
        }
        let Some((job, count)) = choice else {
            if !full {
                self.hungry.insert(peer);
            }
            return false;
        };
        self.open_lease(now, peer, job, count, fx);
        true
    }

    /// Running jobs, those of the submitter with the fewest attempts in flight first, then by age.
    fn fair_order(&self) -> impl Iterator<Item = JobId> {
        let mut submitters: Vec<_> = self.submitters.values().collect();
        submitters.sort_by_key(|submitter| submitter.open_attempts);
        submitters.into_iter().flat_map(|submitter| submitter.running.iter().copied())
    }

    /// Opens a lease, unless all that the job seemed to have for the peer was void; it is gone then, and the
    /// next look finds something else.
    fn open_lease(&mut self, now: Timestamp, peer: PeerNo, id: JobId, count: usize, fx: &mut Effects) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let lease = self.next_lease;
        let items = job.take(peer, lease, count);
        if items.is_empty() {
            return;
        }
        self.next_lease = lease.next();
        let Some(worker) = self.workers.get_mut(&peer) else { return };
        worker.in_flight += items.len();
        worker.leases.insert(lease);
        let spec = Arc::clone(&job.submission);
        let wait = worker.backlog(id, worker.in_flight) * 4;
        let deadline = now + limits::LEASE_SLACK + spec.spec.limits.deadline + wait;
        let row = Arc::new(LeaseRow { lease, job: id, peer, deadline, items });
        if worker.told.insert(id) {
            let spec = Arc::new(spec.spec.clone());
            fx.send(worker.session, ToWorker::Job { job: id, spec });
        }
        fx.send(worker.session, ToWorker::Lease(row.clone()));
        if let Some(submitter) = self.submitters.get_mut(&spec.submitter) {
            submitter.open_attempts += row.items.len() as u64;
        }
        // Tasks that need further votes are queued for others by now.
        self.work_arrived |= job.quorum() > 1;
        fx.batch.shards.insert(id, job.shard());
        fx.changed.insert(id);
        self.deadlines.insert((deadline, lease));
        let open = row.items.len();
        fx.batch.leases_opened.insert(lease, row.clone());
        self.leases.insert(lease, Lease { row, open, expired: false });
    }

    /// Reconstructs a lease that was open when the coordinator stopped.
    pub(super) fn resume_lease(&mut self, row: LeaseRow, open: usize) {
        let id: LeaseId = row.lease;
        self.next_lease = self.next_lease.max(id.next());
        let worker = self.workers.entry(row.peer).or_default();
        worker.in_flight += open;
        worker.leases.insert(id);
        self.deadlines.insert((row.deadline, id));
        self.leases.insert(id, Lease { row: Arc::new(row), open, expired: false });
    }
}

impl Worker {
    pub(super) fn memory_per_slot(&self) -> crate::quantities::Bytes {
        let slots = u64::from(self.capacity.slots.max(1));
        crate::quantities::Bytes::new(self.capacity.memory.get() / slots)
    }
}
