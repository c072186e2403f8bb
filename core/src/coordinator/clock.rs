//! What happens because time passes.

use std::collections::BTreeSet;

use super::{Coordinator, effects::Effects, placing::Candidate, task::AttemptState};
use crate::{
    ids::{JobId, LeaseId, PeerNo, TaskId},
    limits,
    mutants::{Mutant, is_active},
    quantities::{Bytes, Timestamp},
};

impl Coordinator {
    /// Time passes: leases expire, workers that stayed away lose theirs.
    pub fn on_tick(&mut self, now: Timestamp, fx: &mut Effects) {
        self.shares.set_now(now);
        self.shares.pass();
        let mut late = BTreeSet::new();
        let expires = !is_active(Mutant::NeverExpires);
        while let Some((due, lease)) =
            self.deadlines.first().copied().filter(|(due, _)| expires && *due <= now)
        {
            self.deadlines.remove(&(due, lease));
            late.extend(self.expire_lease(lease, fx));
        }
        for peer in late {
            // Who has no session could not report; it may be this side that was down. And many leases may end in
            // one moment because a clock was set.
            if self.workers.get(&peer).is_some_and(|worker| worker.session.is_some()) {
                self.note_bad(peer, fx);
            }
        }
        while let Some((due, no)) = self.away.first().copied().filter(|(due, _)| *due <= now) {
            self.away.remove(&(due, no));
            let leases: Vec<_> = self.workers.get(&no).map_or(vec![], |w| w.leases.iter().copied().collect());
            for lease in leases {
                if !is_active(Mutant::WaitsForTheLost) {
                    self.expire_lease(lease, fx);
                }
            }
        }
        self.relax_blocked();
        self.retry_outputs(now, fx);
        self.workers.retain(|_, worker| {
            let gone = worker.session.is_none() && worker.leases.is_empty();
            !gone || now.since(worker.last_seen) < limits::WORKER_FORGOTTEN_AFTER
        });
        self.look_again();
        self.feed(now, fx);
        self.help_stragglers(now, fx);
    }

    /// A worker's leases are over.
    pub(super) fn expire_leases_of(&mut self, no: PeerNo, fx: &mut Effects) {
        let leases: Vec<_> = self.workers.get(&no).map_or(vec![], |w| w.leases.iter().copied().collect());
        for lease in leases {
            self.expire_lease(lease, fx);
        }
    }

    /// The time of a lease is over: what is open of it is given to others as well. Returns whose it is, when
    /// there was any.
    fn expire_lease(&mut self, id: LeaseId, fx: &mut Effects) -> Option<PeerNo> {
        let lease = self.leases.get_mut(&id)?;
        if std::mem::replace(&mut lease.expired, true) {
            return None;
        }
        let (row, part) = (lease.row.clone(), lease.part);
        let job = self.jobs.get_mut(&row.job)?;
        let (mut requeued, mut expired) = (false, 0);
        for item in &row.items {
            let attempt = job.open.get_mut(&item.index).and_then(|task| task.attempt_mut(item.number));
            if let Some(attempt) = attempt.filter(|attempt| matches!(attempt.state, AttemptState::Leased)) {
                attempt.state = AttemptState::Expired;
                expired += 1;
                if job.requeue(item.index, false, &self.trust) {
                    requeued = true;
                } else {
                    // What the others said may suffice by now.
                    self.reconsidered.push(TaskId { job: row.job, index: item.index });
                }
            }
        }
        let held = u64::from(part) * expired as u64;
        self.shares.let_go(job.submission.submitter, held);
        let worker = self.workers.get_mut(&row.peer)?;
        worker.overdue += expired;
        worker.held -= held;
        if expired > 0 && worker.session.is_some() {
            self.woken.insert(row.peer);
        }
        fx.changed.insert(row.job);
        if requeued {
            self.note_work(row.job);
        }
        (expired > 0).then_some(row.peer)
    }

    /// Lets peers that gave no result try again where nobody else is there, and newcomers decide where nobody else is. Who
    /// is paused, or sits on attempts whose time is over, is not there.
    fn relax_blocked(&mut self) {
        if is_active(Mutant::NeverRelaxes) {
            return;
        }
        let expired = |lease: &LeaseId| self.leases.get(lease).is_some_and(|lease| lease.expired);
        let able = self.workers.iter().filter(|(_, worker)| {
            worker.session.is_some() && worker.capacity.slots > 0 && !worker.leases.iter().any(expired)
        });
        let able: Vec<(PeerNo, Bytes)> = able.map(|(no, worker)| (*no, worker.memory_per_slot())).collect();
        let running: Vec<JobId> = self.shares.running().collect();
        for id in running {
            let Some(job) = self.jobs.get_mut(&id).filter(|job| job.again.may_relax()) else { continue };
            let spec = &job.submission.spec;
            let fits = |no: PeerNo, per_slot| {
                let peer = self.names.get(no.get() as usize);
                per_slot >= spec.limits.memory && peer.is_some_and(|peer| spec.is_meant_for(*peer))
            };
            let workers = &self.workers;
            let refuses =
                |no: PeerNo| workers.get(&no).is_some_and(|worker| worker.refused.contains_key(&id));
            let able = able.iter().filter(|(no, per_slot)| fits(*no, *per_slot) && !refuses(*no));
            let able: Vec<Candidate> = able.map(|(no, _)| self.trust.candidate(*no)).collect();
            let mut requeued = false;
            for entry in job.again.take_blocked(&able) {
                let valid = job.open.get_mut(&entry.index).filter(|task| task.queued == Some(entry.ticket));
                if let Some(task) = valid {
                    task.queued = None;
                    if job.requeue(entry.index, true, &self.trust) {
                        requeued = true;
                    } else {
                        self.reconsidered.push(TaskId { job: id, index: entry.index });
                    }
                }
            }
            if requeued {
                self.note_work(id);
            }
        }
    }
}
