//! Blobs on their way: inputs from peer to peer, among those whom the tracker names, and large outputs to the coordinator.

use std::time::Duration;

use rand::RngExt;
use talka_core::{
    coordinator::ReportOutcome,
    ids::{AttemptId, BlobHash, JobId, OutcomeDigest, PeerId},
    limits,
    outcome::NoResult,
    worker::Fetch,
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

/// Time until a worker asks again whom the coordinator has no slot for.
const BUSY: Duration = Duration::from_millis(50);

/// What came of asking somebody for a large output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Delivered,
    /// It has something else, or nothing.
    Bad,
    /// It can't be reached now.
    Away,
}

impl World<'_> {
    /// Looks which blob of a job a worker still needs, and where to get it.
    pub(crate) fn wants(
        &mut self,
        number: VolunteerNo,
        life: Life,
        (job, fetch): (JobId, u64),
        failures: u32,
    ) {
        let volunteer = &self.volunteers[number];
        let goes_on = volunteer.life == life && volunteer.fetching.get(&job) == Some(&fetch);
        let Some(spec) = volunteer.core.spec(job).filter(|_| goes_on) else { return };
        let missing = spec.blobs().into_iter().find(|blob| !volunteer.blobs.contains(&blob.hash));
        let Some(blob) = missing else {
            self.volunteers[number].ready.insert(job);
            return self.volunteer_event(number, |core, fx| core.on_fetched(Fetch { job, inputs: true }, fx));
        };
        if failures >= FAILURES_MAX {
            return self.give_up(number, job);
        }
        let (now, id) = (self.hub_now(), volunteer.id);
        let unanswered = self.cut(number).is_some() || self.goes_wrong(self.scenario.faults.loss);
        let Some(hub) = self.hub.as_mut().filter(|_| !unanswered) else {
            let again = Event::Wants { volunteer: number, life, job, fetch, failures: failures + 1 };
            return self.agenda.after(ASK_AGAIN, again);
        };
        let rng = &mut self.rng;
        let takes_part = hub.coordinator.knows(id);
        let mut draw = |below: u32| rng.random_range(0..below);
        let members = hub.tracker.members(now, id, blob.hash, takes_part, &mut draw).unwrap_or_default();
        let transfer = self.latency() + Duration::from_millis(10);
        let Some(from) = self.provider(number, blob.hash, &members, transfer) else {
            let again = Event::Wants { volunteer: number, life, job, fetch, failures };
            return self.agenda.after(BUSY + transfer, again);
        };
        let blob = blob.hash;
        let arrival = Event::Transferred { volunteer: number, life, job, fetch, failures, blob, from };
        self.agenda.after(transfer, arrival);
    }

    /// One of those who say that they have the blob, or else the coordinator if it has a slot.
    fn provider(
        &mut self,
        number: VolunteerNo,
        blob: BlobHash,
        members: &[PeerId],
        transfer: Duration,
    ) -> Option<PeerId> {
        let holders: Vec<PeerId> =
            members.iter().copied().filter(|peer| self.holds(*peer, number, blob)).collect();
        if !holders.is_empty() {
            let chosen = self.pick(0..=holders.len() - 1);
            return holders.get(chosen).copied();
        }
        let now = self.agenda.now();
        let hub = self.hub.as_mut()?;
        hub.serving.retain(|ends| *ends > now);
        (hub.serving.len() < limits::UPLOAD_SLOTS).then(|| {
            hub.serving.push(now + transfer);
            HUB
        })
    }

    /// Whether a peer has a blob, and a worker reaches it.
    fn holds(&self, peer: PeerId, number: VolunteerNo, blob: BlobHash) -> bool {
        let is_cut = self.cut(number).is_some();
        self.volunteer_of(peer).is_some_and(|source| {
            let other = &self.volunteers[source];
            other.is_up() && other.blobs.contains(&blob) && self.cut(source).is_some() == is_cut
        })
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
        (job, fetch): (JobId, u64),
        failures: u32,
        blob: BlobHash,
        from: PeerId,
    ) {
        if self.volunteers[number].life != life {
            return;
        }
        let there = if from == HUB {
            self.hub.is_some() && self.cut(number).is_none()
        } else {
            self.holds(from, number, blob)
        };
        let failure = self.scenario.faults.transfer_failure;
        let arrived = there && !self.goes_wrong(failure);
        self.note(format_args!("worker {number}: blob {} from {}: {arrived}", blob.short(), from.short()));
        if arrived {
            self.moved = self.agenda.now();
            self.volunteers[number].blobs.insert(blob);
            *(if from == HUB {
                &mut self.report.blobs_from_coordinator
            } else {
                &mut self.report.blobs_from_peers
            }) += 1;
        }
        self.wants(number, life, (job, fetch), failures + u32::from(!arrived));
    }

    /// Whether a peer hands over an output that digests to what was agreed.
    pub(crate) fn delivers(&mut self, peer: PeerId, attempt: AttemptId, digest: OutcomeDigest) -> Delivery {
        let failure = self.scenario.faults.transfer_failure;
        if self.goes_wrong(failure) {
            return Delivery::Away;
        }
        let Some(number) = self.volunteer_of(peer).filter(|number| self.cut(*number).is_none()) else {
            return Delivery::Away;
        };
        let source = &self.volunteers[number];
        if !source.is_up() {
            return Delivery::Away;
        }
        match source.outputs.get(&attempt) {
            Some(kept) if kept.digest == digest => Delivery::Delivered,
            _ => Delivery::Bad,
        }
    }

    /// Makes jobs ready, each from the beginning.
    pub(crate) fn fetch(&mut self, number: VolunteerNo, jobs: &[JobId]) {
        for job in jobs {
            let volunteer = &mut self.volunteers[number];
            volunteer.fetches += 1;
            let (life, fetch) = (volunteer.life, volunteer.fetches);
            volunteer.fetching.insert(*job, fetch);
            let latency = self.latency();
            let wants = Event::Wants { volunteer: number, life, job: *job, fetch, failures: 0 };
            self.agenda.after(latency, wants);
        }
    }
}
