//! Blobs on their way: inputs from peer to peer, by what the tracker says, and large outputs to the coordinator.

use std::time::Duration;

use talka_core::{
    coordinator::ReportOutcome,
    ids::{AttemptId, BlobHash, JobId, OutcomeDigest, PeerId},
    outcome::NoResult,
    swarm::Answer,
    worker::{Effects, Fetch},
};

use crate::{
    agenda::{Event, Life, VolunteerNo},
    hub::HUB,
    world::World,
};

/// Transfers of one job's blobs that may fail before the worker gives the job up for now.
const FAILURES_MAX: u32 = 5;

/// Time until a worker that does not reach the coordinator asks again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl World<'_> {
    /// Looks which blob of a job a worker still needs, and where to get it.
    pub(crate) fn wants(&mut self, number: VolunteerNo, life: Life, job: JobId, failures: u32) {
        let volunteer = &self.volunteers[number];
        let Some(spec) = volunteer.core.spec(job).filter(|_| volunteer.life == life) else { return };
        let missing = spec.blobs().into_iter().find(|blob| !volunteer.blobs.contains(&blob.hash));
        let Some(blob) = missing else {
            return self.volunteer_event(number, |core, fx| core.on_fetched(Fetch { job, inputs: true }, fx));
        };
        if failures >= FAILURES_MAX {
            return self.give_up(number, job);
        }
        let (now, id) = (self.hub_now(), volunteer.id);
        let Some(hub) = &mut self.hub else {
            let again = Event::Wants { volunteer: number, life, job, failures: failures + 1 };
            return self.agenda.after(ASK_AGAIN, again);
        };
        match hub.tracker.providers(now, id, blob.hash) {
            Answer::From(from) => {
                let transfer = self.latency() + Duration::from_millis(10);
                let blob = blob.hash;
                let arrival = Event::Transferred { volunteer: number, life, job, failures, blob, from };
                self.agenda.after(transfer, arrival);
            }
            Answer::Later(pause) => {
                let latency = self.latency();
                let again = Event::Wants { volunteer: number, life, job, failures };
                self.agenda.after(pause + latency, again);
            }
            Answer::Unknown => self.give_up(number, job),
        }
    }

    fn give_up(&mut self, number: VolunteerNo, job: JobId) {
        self.note(format_args!("worker {number} can't get job {job}"));
        let outcome = ReportOutcome::NoResult(NoResult::Fetch);
        self.volunteer_event(number, |core, fx| core.on_fetch_failed(job, &outcome, fx));
    }

    /// A blob has arrived, or will not.
    pub(crate) fn transferred(
        &mut self,
        number: VolunteerNo,
        life: Life,
        job: JobId,
        failures: u32,
        blob: BlobHash,
        from: PeerId,
    ) {
        if self.volunteers[number].life != life {
            return;
        }
        let has = |world: &Self, peer| {
            world
                .volunteers
                .iter()
                .any(|other| other.id == peer && other.is_up() && other.blobs.contains(&blob))
        };
        let there = if from == HUB { self.hub.is_some() } else { has(self, from) };
        let failure = self.scenario.faults.transfer_failure;
        let arrived = there && !self.goes_wrong(failure);
        self.note(format_args!("worker {number}: blob {} from {}: {arrived}", blob.short(), from.short()));
        let id = self.volunteers[number].id;
        if arrived {
            self.volunteers[number].blobs.insert(blob);
            *(if from == HUB {
                &mut self.report.blobs_from_coordinator
            } else {
                &mut self.report.blobs_from_peers
            }) += 1;
        }
        if let Some(hub) = &mut self.hub {
            if arrived {
                hub.tracker.announce(id, blob);
            } else {
                hub.tracker.failed(id, blob);
            }
        }
        self.wants(number, life, job, failures + u32::from(!arrived));
    }

    /// Whether a peer hands over an output that digests to what was agreed.
    pub(crate) fn delivers(&mut self, peer: PeerId, attempt: AttemptId, digest: OutcomeDigest) -> bool {
        let failure = self.scenario.faults.transfer_failure;
        if self.goes_wrong(failure) {
            return false;
        }
        let source = self.volunteers.iter().find(|volunteer| volunteer.id == peer);
        source.is_some_and(|source| source.is_up() && source.outputs.get(&attempt) == Some(&digest))
    }

    /// What a worker's core wants of its blobs.
    pub(crate) fn act_on_blobs(&mut self, number: VolunteerNo, fx: &mut Effects) {
        let life = self.volunteers[number].life;
        for Fetch { job, .. } in fx.fetch.drain(..) {
            let latency = self.latency();
            self.agenda.after(latency, Event::Wants { volunteer: number, life, job, failures: 0 });
        }
        for attempt in fx.release.drain(..) {
            self.volunteers[number].outputs.remove(&attempt);
        }
    }
}
