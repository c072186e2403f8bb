//! What workers say that they fetched of a job's blobs, and from whom: for people alone, nothing is decided by it.

use super::Coordinator;
use crate::{
    ids::{JobId, PeerNo, SessionId},
    quantities::Bytes,
};

/// Bytes of blobs that came to workers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    /// From the coordinator.
    pub from_coordinator: Bytes,
    /// From other peers.
    pub from_peers: Bytes,
}

/// What is believed at most: all of a job's blobs so many times over. They may be fetched again after a damage or when
/// their room was needed in between; more would only spoil the sum.
const TIMES_MAX: u64 = 4;

impl Coordinator {
    /// What a worker says that it fetched of a job in all.
    pub fn on_fetched(&mut self, session: SessionId, id: JobId, fetched: Fetched) {
        let Some(peer) = self.sessions.get(&session).copied() else { return };
        let told = self.workers.get(&peer).is_some_and(|worker| worker.told.contains(&id));
        let Some(job) = self.jobs.get_mut(&id).filter(|_| told) else { return };
        let blobs: u64 = job.submission.spec.blobs().iter().map(|blob| blob.size.get()).sum();
        let believed = |bytes: Bytes| Bytes::new(bytes.get().min(blobs.saturating_mul(TIMES_MAX)));
        let fetched = Fetched {
            from_coordinator: believed(fetched.from_coordinator),
            from_peers: believed(fetched.from_peers),
        };
        job.fetched.note(peer, fetched);
    }
}

/// Of one job, by worker: at most one row for each that was told of the job.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    by_peer: std::collections::BTreeMap<PeerNo, Fetched>,
    sum: Fetched,
}

impl Traffic {
    fn note(&mut self, peer: PeerNo, fetched: Fetched) {
        let before = self.by_peer.insert(peer, fetched).unwrap_or_default();
        let moved = |sum: Bytes, before: Bytes, now: Bytes| {
            Bytes::new(sum.get().saturating_sub(before.get()).saturating_add(now.get()))
        };
        self.sum = Fetched {
            from_coordinator: moved(
                self.sum.from_coordinator,
                before.from_coordinator,
                fetched.from_coordinator,
            ),
            from_peers: moved(self.sum.from_peers, before.from_peers, fetched.from_peers),
        };
    }

    pub(super) fn sum(&self) -> Fetched {
        self.sum
    }
}
