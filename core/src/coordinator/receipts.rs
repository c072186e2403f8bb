//! What workers sign and refuse: nothing here decides about results.

use super::{
    Coordinator, Report, ReportOutcome, ReportOutput, SignedReceipts, effects::Effects, task::AttemptState,
};
use crate::{
    digest::outcome_digest,
    ids::{AttemptId, BlobHash, JobId, OutcomeDigest, SessionId, TaskId},
    ledger::Names,
    limits,
    quantities::Timestamp,
    signing::Receipt,
};

impl Report {
    /// What its worker signs of it, where `bundle` is the program of its job; none when it says nothing about the
    /// program. Worker and coordinator both compute it, each from the report itself.
    pub fn receipt(&self, bundle: BlobHash) -> Option<Receipt> {
        let ReportOutcome::Execution { input, exit, fuel, resumed, output } = &self.outcome else {
            return None;
        };
        let outcome = match output {
            ReportOutput::Inline(output) => outcome_digest(bundle, *input, *exit, output),
            ReportOutput::Remote { digest, .. } => *digest,
        };
        Some(Receipt { attempt: self.attempt, outcome, fuel: *fuel, resumed: *resumed })
    }
}

/// A report whose outcome digest this side has computed, or is still to compute: never one that somebody claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    pub(super) report: Report,
    /// The digest of an output that came along, if it was run from this bundle.
    outcome: Option<(BlobHash, OutcomeDigest)>,
}

impl Examined {
    /// Computes the digest of a report, where `bundle` is the program of its job, and what its worker signs of it.
    pub fn new(report: Report, bundle: BlobHash) -> (Self, Option<Receipt>) {
        let receipt = report.receipt(bundle);
        let outcome = receipt.map(|receipt| (bundle, receipt.outcome));
        (Self { report, outcome }, receipt)
    }

    /// The outcome of a report with its output, if it is known already.
    pub(super) fn outcome(&self, bundle: BlobHash) -> Option<OutcomeDigest> {
        self.outcome.filter(|(of, _)| *of == bundle && !self.report.is_remote()).map(|(_, outcome)| outcome)
    }
}

impl From<Report> for Examined {
    fn from(report: Report) -> Self {
        Self { report, outcome: None }
    }
}

/// Why a worker does not run a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobRefusal {
    /// Its owner does not trust who submitted it.
    Distrusts,
    /// Its data does not fit into what the owner lets it use of the disk.
    NoRoom,
}

impl Coordinator {
    /// What a worker signed about reports that are about to be taken, to be kept with them. The signature was
    /// checked. To be called before [`Coordinator::on_reports`].
    ///
    /// Only as many receipts are kept as the worker has work for, twice over: a worker could otherwise make up
    /// attempts to push out those of others.
    pub fn on_receipts(
        &mut self,
        session: SessionId,
        signature: [u8; 64],
        receipts: Vec<Receipt>,
        fx: &mut Effects,
    ) {
        let Some(peer) = self.sessions.get(&session).copied() else { return };
        let expected = receipts.iter().filter(|receipt| self.is_open(receipt.attempt, peer)).count();
        if expected * 2 >= receipts.len() && expected > 0 {
            fx.batch.receipts.push(SignedReceipts { peer, signature, receipts });
        }
    }

    /// What a worker says that its owner and team are called.
    pub fn on_names(&mut self, now: Timestamp, session: SessionId, names: Names, fx: &mut Effects) {
        if let Some(peer) = self.sessions.get(&session) {
            fx.batch.names.insert(*peer, names);
            fx.batch.at = now;
        }
    }

    /// A worker has room now for the data of jobs that it refused for lack of it. What it refused a moment ago stays
    /// refused: whoever changes its mind in each message would be given leases without end.
    pub fn on_room(&mut self, now: Timestamp, session: SessionId, jobs: &[JobId], fx: &mut Effects) {
        let Some(peer) = self.sessions.get(&session).copied() else { return };
        let Some(worker) = self.workers.get_mut(&peer) else { return };
        self.shares.set_now(now);
        for id in jobs {
            let no_room = |(why, since): &(JobRefusal, Timestamp)| {
                *why == JobRefusal::NoRoom && now.since(*since) >= limits::ROOM_REFUSAL_MIN
            };
            if worker.refused.get(id).is_some_and(no_room) {
                worker.refused.remove(id);
                // It has forgotten what the job is.
                worker.told.remove(id);
            }
        }
        self.note_presence(peer);
        self.pump(now, peer, fx);
        self.feed(now, fx);
    }

    /// A worker does not run these jobs: what it holds of them goes to others at once, and it is given nothing more of
    /// them in this session, unless it comes to have [room](Self::on_room).
    pub fn on_refused(
        &mut self,
        now: Timestamp,
        session: SessionId,
        jobs: &[JobId],
        why: JobRefusal,
        fx: &mut Effects,
    ) {
        let Some(peer) = self.sessions.get(&session).copied() else { return };
        self.shares.set_now(now);
        for id in jobs {
            let Some(worker) = self.workers.get_mut(&peer) else { return };
            // A worker can refuse what it was told of, and no more.
            if !worker.told.contains(id) || worker.refused.insert(*id, (why, now)).is_some() {
                continue;
            }
            self.note_presence(peer);
            let Some(worker) = self.workers.get(&peer) else { return };
            let leases = worker.leases.iter().filter_map(|lease| Some(self.leases.get(lease)?.row.clone()));
            for row in leases.filter(|row| row.job == *id).collect::<Vec<_>>() {
                for item in &row.items {
                    let task = TaskId { job: row.job, index: item.index };
                    let attempt = AttemptId { task, number: item.number };
                    if self.is_open(attempt, peer) {
                        self.set_state(attempt, AttemptState::Gone, fx);
                        self.evaluate(now, task, fx);
                    }
                }
            }
        }
        self.pump(now, peer, fx);
        self.feed(now, fx);
    }
}
