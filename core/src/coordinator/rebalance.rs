//! Work that waits behind one worker while another one is idle.
//!
//! Workers are supplied in advance, by what their attempts took so far. When that was wrong, or when the last tasks of a
//! job lie with a slow machine, some wait in a queue while somebody has nothing to do. Then the coordinator asks for half
//! of what waits (work stealing: Blumofe and Leiserson, 1999), from the end of the queue. The worker answers with those
//! that it has not begun, and forgets them: they are *gone* there, and go to whoever is hungry. Nobody is blamed.
//!
//! Nothing is taken from a worker that does not answer; its leases run out as ever. What it gives back unasked is not
//! taken note of, so that nobody can pass leases to and fro. An answer that got lost with its connection is made
//! up for by what the worker says that it holds when it comes back.

use std::time::Duration;

use super::{
    Coordinator, LeaseItem, ToWorker, Worker,
    effects::Effects,
    job::Job,
    task::{Attempt, AttemptState},
};
use crate::{
    ids::{AttemptId, JobId, LeaseId, PeerNo, SessionId, TaskId},
    limits,
    quantities::Timestamp,
};

/// Attempts that somebody is asked for.
struct Recall {
    from: PeerNo,
    attempts: Vec<AttemptId>,
}

impl Coordinator {
    /// A worker says which of the attempts that it was asked for it had not begun; it holds them no longer.
    pub fn on_given_back(
        &mut self,
        now: Timestamp,
        session: SessionId,
        attempts: &[AttemptId],
        fx: &mut Effects,
    ) {
        let Some(peer) = self.sessions.get(&session).copied() else { return };
        let Some(worker) = self.workers.get_mut(&peer) else { return };
        let mut asked = std::mem::take(&mut worker.recalled);
        let mut begun = std::mem::take(&mut worker.begun);
        self.shares.set_now(now);
        for attempt in attempts {
            if asked.remove(attempt) && self.is_open(*attempt, peer) {
                self.set_state(*attempt, AttemptState::Gone, fx);
                self.evaluate(now, attempt.task, fx);
            }
        }
        begun.append(&mut asked);
        begun.retain(|attempt| self.is_open(*attempt, peer));
        if let Some(worker) = self.workers.get_mut(&peer) {
            worker.begun = begun;
        }
        self.feed(now, fx);
    }

    /// Asks for work that waits elsewhere, for the workers that have run out of it since this was done last.
    pub(super) fn rebalance(&mut self, now: Timestamp, fx: &mut Effects) {
        while let Some(idle) = self.idle.pop_first() {
            let Some(Recall { from, attempts }) = self.find_waiting(now, idle) else { continue };
            let Some(worker) = self.workers.get_mut(&from) else { continue };
            worker.recalled.extend(attempts.iter().copied());
            fx.send(worker.session, ToWorker::Recall { attempts });
        }
    }

    /// Idle workers for which nothing was found may find something now: a worker that was thought to be quick has not
    /// said anything for a while.
    pub(super) fn look_again(&mut self) {
        let hungry: Vec<PeerNo> = self.hungry.iter().take(limits::RECALL_WORKERS_MAX).collect();
        let has_nothing = |no: &PeerNo| self.workers.get(no).is_some_and(Worker::has_idle_slot);
        self.idle.extend(hungry.into_iter().filter(has_nothing));
    }

    fn find_waiting(&self, now: Timestamp, idle: PeerNo) -> Option<Recall> {
        let worker = self.workers.get(&idle).filter(|worker| worker.has_idle_slot())?;
        let jobs = self.shares.running().filter_map(|id| self.jobs.get(&id));
        let mut jobs = jobs.filter(|job| job.may_run()).take(limits::RECALL_JOBS_MAX);
        let mut look = limits::RECALL_ITEMS_MAX;
        jobs.find_map(|job| {
            let room = self.room(job, idle, worker).ok()?;
            let mut leases = job.leases.iter().rev().take(limits::RECALL_LEASES_MAX);
            leases.find_map(|lease| self.waiting_in(now, job, *lease, (idle, room), &mut look))
        })
    }

    /// What one worker may give back of a lease, if it would wait there for long, to an idle one with so much room. At most
    /// `look` attempts are looked at, which is then so many less.
    fn waiting_in(
        &self,
        now: Timestamp,
        job: &Job,
        lease: LeaseId,
        (idle, room): (PeerNo, usize),
        look: &mut usize,
    ) -> Option<Recall> {
        let lease = self.leases.get(&lease).filter(|lease| !lease.expired)?;
        let (row, from) = (&lease.row, lease.row.peer);
        let worker = self.workers.get(&from).filter(|worker| worker.session.is_some())?;
        if from == idle || !worker.recalled.is_empty() {
            return None;
        }
        let waiting = worker.live().saturating_sub(worker.capacity.slots as usize);
        if worker.wait_for(job.id, waiting, now.since(lease.opened)) < limits::RECALL_WAIT_MIN {
            return None;
        }
        let may_go = |attempt: &AttemptId| {
            job.open.get(&attempt.task.index).is_some_and(|task| {
                // Not to who has a vote there, nor to who gave no result.
                let may_have =
                    |known: &Attempt| known.peer != idle || matches!(known.state, AttemptState::Gone);
                let open = |known: &Attempt| {
                    known.number == attempt.number && matches!(known.state, AttemptState::Leased)
                };
                let may_have =
                    task.attempts.iter().all(may_have) && self.trust.may_join(task, attempt.number, idle);
                task.attempts.iter().any(open) && may_have && !task.collecting
            })
        };
        let attempt = |item: &LeaseItem| AttemptId {
            task: TaskId { job: row.job, index: item.index },
            number: item.number,
        };
        let looked_at = row.items.iter().rev().map(attempt).take(*look);
        *look -= row.items.len().min(*look);
        let attempts = looked_at
            .filter(|attempt| may_go(attempt) && !worker.begun.contains(attempt))
            .take(waiting.div_ceil(2).min(room).min(limits::LEASE_ITEMS_MAX));
        let attempts: Vec<AttemptId> = attempts.collect();
        (!attempts.is_empty()).then_some(Recall { from, attempts })
    }
}

impl Worker {
    pub(super) fn has_idle_slot(&self) -> bool {
        self.session.is_some() && self.live() < self.capacity.slots as usize
    }

    /// How long the last of so many attempts waits for a slot. Where nothing is known of their time, and where they take
    /// longer than they used to, the lease that is out for so long tells.
    fn wait_for(&self, job: JobId, waiting: usize, out_for: Duration) -> Duration {
        let slots = self.capacity.slots.max(1);
        let attempts = u32::try_from(waiting).unwrap_or(u32::MAX);
        let known = self.backlog(job, waiting);
        if known.is_zero() { out_for.saturating_mul(attempts) / slots } else { known }
    }
}
