//! What must hold after each event. Tests and the simulator check it; production code never relies on it.

use std::collections::BTreeMap;

use super::{Coordinator, task::AttemptState};
use crate::{
    ids::{LeaseId, PeerNo},
    job::JobState,
    validation::{Verdict, judge},
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
        for (id, job) in &self.jobs {
            let shard = job.shard();
            assert!(shard.low <= shard.cursor && shard.cursor <= job.total(), "job {id}: cursor in range");
            let finals = shard.done + shard.failed;
            if job.state == JobState::Running {
                assert_eq!(finals + job.open.len() as u64, shard.cursor, "job {id}: touched = final + open");
                assert!(!job.is_complete(), "job {id}: a complete job has ended");
            } else {
                assert!(job.open.is_empty(), "job {id}: an ended job has no open task");
            }
            let mut open_attempts = 0;
            for (index, task) in &job.open {
                let mut voters = Vec::new();
                for attempt in &task.attempts {
                    if attempt.state.is_open() {
                        open_attempts += 1;
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
                match judge(job.quorum(), task.votes()) {
                    Verdict::Agreed(_) => assert!(task.collecting, "task {id}/{index}: agreed but open"),
                    Verdict::Wait { more } => {
                        let queued = usize::from(task.queued.is_some());
                        let coming = task.live() + queued;
                        assert!(coming > 0 && more > 0, "task {id}/{index}: nothing will ever finish it");
                    }
                }
            }
            assert_eq!(open_attempts, job.open_attempts, "job {id}: open attempts");
        }
        for (id, lease) in &self.leases {
            assert_eq!(open_by_lease.remove(id), Some(lease.open), "lease {id}: open items");
            assert!(self.workers[&lease.row.peer].leases.contains(id), "lease {id}: its worker has it");
        }
        assert!(open_by_lease.is_empty(), "every open attempt has a lease");
        for (no, worker) in &self.workers {
            assert_eq!(open_by_peer.remove(no).unwrap_or(0), worker.in_flight, "worker {no}: in flight");
            if let Some(session) = worker.session {
                assert_eq!(self.sessions.get(&session), Some(no), "worker {no}: its session is known");
            }
        }
        assert!(open_by_peer.is_empty(), "every open attempt has a worker");
        let open: u64 = self.jobs.values().map(|job| job.open_attempts).sum();
        let by_submitter: u64 = self.submitters.values().map(|submitter| submitter.open_attempts).sum();
        assert_eq!(open, by_submitter, "open attempts by submitter");
    }
}
