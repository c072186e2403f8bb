//! What must hold after each event. Tests and the simulator check it; production code never relies on it.

use std::collections::BTreeMap;

use super::{Coordinator, shares::JobShare, task::AttemptState};
use crate::{
    ids::{JobId, LeaseId, PeerNo},
    job::JobState,
    limits,
    validation::Verdict,
};

impl Coordinator {
    /// Checks what can be checked from within.
    ///
    /// # Panics
    ///
    /// When an invariant is broken, naming it.
    pub fn check_invariants(&self) {
        let mut open_by_lease = BTreeMap::<LeaseId, usize>::new();
        let mut open_by_peer = BTreeMap::<PeerNo, usize>::new();
        let mut overdue_by_peer = BTreeMap::<PeerNo, usize>::new();
        let mut held_by_peer = BTreeMap::<PeerNo, u64>::new();
        let mut by_peer_and_job = BTreeMap::<(PeerNo, JobId), usize>::new();
        let mut shares = Vec::new();
        for (id, job) in &self.jobs {
            let shard = job.shard();
            assert!(shard.low <= shard.cursor && shard.cursor <= job.total(), "job {id}: cursor in range");
            let finals = shard.done + shard.failed;
            if job.state == JobState::Running {
                let touched = finals + job.open.len() as u64 - job.rechecked;
                assert_eq!(touched, shard.cursor, "job {id}: touched = final + open");
                assert!(!job.is_complete(), "job {id}: a complete job has ended");
            } else {
                assert!(job.open.is_empty(), "job {id}: an ended job has no open task");
            }
            let (mut open_attempts, mut duplicates, mut held) = (0, 0, 0);
            job.again.check_invariants();
            for (index, task) in job.open.iter() {
                let mut voters = Vec::new();
                for attempt in &task.attempts {
                    assert!(attempt.ordinal <= task.last_number, "task {id}/{index}: numbers go up");
                    if attempt.state.is_open() {
                        open_attempts += 1;
                        *by_peer_and_job.entry((attempt.peer, *id)).or_default() += 1;
                        duplicates += u64::from(task.duplicate == Some(attempt.number));
                        if matches!(attempt.state, AttemptState::Leased) {
                            let part = u64::from(self.leases[&attempt.lease].part);
                            held += part;
                            *held_by_peer.entry(attempt.peer).or_default() += part;
                        } else {
                            *overdue_by_peer.entry(attempt.peer).or_default() += 1;
                        }
                        *open_by_lease.entry(attempt.lease).or_default() += 1;
                        *open_by_peer.entry(attempt.peer).or_default() += 1;
                    }
                    let counts = matches!(
                        attempt.state,
                        AttemptState::Leased | AttemptState::Expired | AttemptState::Reported(_)
                    );
                    if counts {
                        assert!(!voters.contains(&attempt.peer), "task {id}/{index}: one vote per peer");
                        voters.push(attempt.peer);
                    }
                }
                let coming = task.live() + usize::from(task.queued.is_some());
                match self.trust.judge(job, index, task) {
                    // Words may be worth less by now than when they were weighed.
                    _ if task.collecting => {}
                    // Or more, while another vote is on its way.
                    Verdict::Agreed(_) => assert!(coming > 0, "task {id}/{index}: agreed but open"),
                    Verdict::Wait { more } => {
                        assert!(coming > 0 && more > 0, "task {id}/{index}: nothing will ever finish it");
                    }
                }
            }
            let waiting = self.uncollected.keys().filter(|task| task.job == *id);
            for task in waiting {
                let collected = job.open.get(&task.index).is_some_and(|task| task.collecting);
                assert!(collected, "task {task}: nobody collects what is waited for");
            }
            let rechecked = job.open.values().filter(|task| task.checks.is_some()).count() as u64;
            assert_eq!(rechecked, job.rechecked, "job {id}: results that are checked at the end");
            let unchecked: usize = job.unchecked.values().map(BTreeMap::len).sum();
            let resting = if job.state == JobState::Running { shard.provisional } else { 0 };
            assert_eq!(unchecked as u64, resting, "job {id}: results on one word");
            for (peer, words) in &job.unchecked {
                assert!(
                    !words.is_empty() && self.trust.jobs_resting_on(*peer).contains(id),
                    "job {id}: {peer}"
                );
                let mut open = words.keys().filter_map(|index| job.open.get(index));
                assert!(
                    open.all(|task| task.checks == Some(*peer)),
                    "job {id}: what is final is open only to be checked"
                );
            }
            assert_eq!(open_attempts, job.open_attempts, "job {id}: open attempts");
            assert_eq!(duplicates, job.duplicates, "job {id}: second attempts for stragglers");
            assert!(
                job.open.values().all(|task| task.last_number <= shard.numbers),
                "job {id}: numbers on record"
            );
            if job.state == JobState::Running {
                shares.push(JobShare {
                    submitter: job.submission.submitter,
                    job: *id,
                    priority: job.standing.priority,
                    has_work: job.may_run() && job.has_work(),
                    may_run: job.may_run(),
                    held,
                });
            }
        }
        self.shares.check_invariants(&shares);
        for (id, lease) in &self.leases {
            assert_eq!(open_by_lease.remove(id), Some(lease.open), "lease {id}: open items");
            assert!(self.workers[&lease.row.peer].leases.contains(id), "lease {id}: its worker has it");
            assert!(self.jobs[&lease.row.job].leases.contains(id), "lease {id}: its job has it");
        }
        assert!(open_by_lease.is_empty(), "every open attempt has a lease");
        for (no, worker) in &self.workers {
            assert_eq!(open_by_peer.remove(no).unwrap_or(0), worker.in_flight, "worker {no}: in flight");
            let overdue = overdue_by_peer.get(no).copied().unwrap_or(0);
            assert_eq!(overdue, worker.overdue, "worker {no}: overdue attempts");
            let held = held_by_peer.get(no).copied().unwrap_or(0);
            assert_eq!(held, worker.held, "worker {no}: parts of slots");
            for (job, count) in &worker.jobs {
                let open = by_peer_and_job.remove(&(*no, *job));
                assert_eq!(open, Some(*count), "worker {no}: attempts of job {job}");
            }
            assert!((1..=limits::WORKER_IN_FLIGHT_MAX).contains(&worker.quota.get()), "worker {no}: quota");
            if let Some(session) = worker.session {
                assert_eq!(self.sessions.get(&session), Some(no), "worker {no}: its session is known");
            }
        }
        assert!(by_peer_and_job.is_empty(), "every open attempt is counted by its job");
        assert!(open_by_peer.is_empty(), "every open attempt has a worker");
        let leases: usize = self.jobs.values().map(|job| job.leases.len()).sum();
        assert_eq!(leases, self.leases.len(), "every lease of a job is open");
        for peer in self.hungry.iter() {
            let worker = &self.workers[&peer];
            assert!(worker.session.is_some() && worker.capacity.slots > 0, "only who is there is hungry");
        }
    }
}
