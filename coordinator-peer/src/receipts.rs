//! Whether a worker signed what it reports.
//!
//! Reports without the signature that belongs to them are not taken, so that whatever earns credit can be shown to
//! have been claimed. The signature is over what the reports digest to, not over what they say that they do.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use talka_core::{
    coordinator::{Coordinator, Examined, Report, ReportOutcome},
    ids::{BlobHash, JobId, PeerId},
    ledger::Frontier,
    limits,
    signing::{Receipt, receipts_statement},
};
use talka_peer::identity::{Signature, Verifier};
use talka_proto::convert::InvalidMessage;

use crate::reactor::{Handle, Stopped};

/// What a worker signed with one message of reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) signature: [u8; 64],
    pub(crate) receipts: Vec<Receipt>,
}

/// Why reports are not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsigned {
    /// The worker breaks the protocol.
    #[error(transparent)]
    Message(#[from] InvalidMessage),
    /// There is nobody to ask.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// What jobs run, as far as a session was told of them: whoever reports on one was. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bundles(Arc<Mutex<HashMap<JobId, BlobHash>>>);

impl Bundles {
    /// Notes what a job runs.
    pub(crate) fn note(&self, job: JobId, bundle: BlobHash) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= limits::ACTIVE_JOBS_MAX {
            // Who asks for one of these asks the reactor.
            known.clear();
        }
        known.insert(job, bundle);
    }

    fn get(&self, job: JobId) -> Option<BlobHash> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&job).copied()
    }
}

/// Checks the reports of one worker.
#[derive(Debug)]
pub(crate) struct Checker {
    coordinator: PeerId,
    worker: Verifier,
    bundles: Bundles,
}

impl Checker {
    pub(crate) fn new(coordinator: PeerId, worker: PeerId, bundles: Bundles) -> Self {
        Self { coordinator, worker: Verifier::new(worker), bundles }
    }

    /// Whose reports it checks.
    pub(crate) fn worker(&self) -> PeerId {
        self.worker.signer()
    }

    /// The reports, and what the worker signed; `None` when nothing was executed.
    pub(crate) async fn check(
        &mut self,
        reactor: &Handle,
        reports: impl ExactSizeIterator<Item = Result<Report, InvalidMessage>>,
        signature: &[u8],
    ) -> Result<(Vec<Examined>, Option<Signed>), Unsigned> {
        let mut examined = Vec::with_capacity(reports.len());
        let mut receipts = Vec::with_capacity(reports.len());
        let mut tree = Frontier::default();
        for report in reports {
            let report = report?;
            if matches!(report.outcome, ReportOutcome::NoResult(_)) {
                examined.push(report.into());
                continue;
            }
            let bundle = self.bundle(reactor, report.attempt.task.job).await?;
            let (report, receipt) = Examined::new(report, bundle);
            examined.push(report);
            let Some(receipt) = receipt else { continue };
            tree.append(receipt.leaf(bundle));
            receipts.push(receipt);
        }
        if receipts.is_empty() {
            return Ok((examined, None));
        }
        let signature = self.verify(&tree, signature)?;
        Ok((examined, Some(Signed { signature, receipts })))
    }

    fn verify(&self, receipts: &Frontier, signature: &[u8]) -> Result<[u8; 64], InvalidMessage> {
        let bad = || InvalidMessage::new("signature", "not the worker's under these reports");
        let signature: [u8; 64] = signature.try_into().map_err(|_| bad())?;
        let (count, root) = (receipts.size(), receipts.root());
        let statement = receipts_statement(self.coordinator, self.worker(), count, root);
        self.worker.verify(statement.as_bytes(), &Signature::new(signature)).map_err(|_| bad())?;
        Ok(signature)
    }

    /// Workers are told of a job before they report on it, so an honest one names none that is unknown.
    async fn bundle(&mut self, reactor: &Handle, job: JobId) -> Result<BlobHash, Unsigned> {
        if let Some(bundle) = self.bundles.get(job) {
            return Ok(bundle);
        }
        let question =
            move |coordinator: &Coordinator| Some(coordinator.job(job).ok()?.submission.spec.bundle.hash);
        let bundle = reactor.ask(question).await?;
        let bundle = bundle.ok_or_else(|| InvalidMessage::new("job", "there is no such job"))?;
        self.bundles.note(job, bundle);
        Ok(bundle)
    }
}

#[cfg(test)]
mod tests {
    use talka_core::{
        ledger::{TreeHash, leaf_hash},
        signing::receipts_root,
    };
    use talka_peer::identity::Identity;

    use super::*;

    #[test]
    fn only_the_workers_own_signature_under_these_very_reports_will_do() {
        let (worker, other) = (Identity::ephemeral(), Identity::ephemeral());
        let [here, there] = [1, 2].map(|byte| PeerId::new([byte; 32]));
        let leaves: Vec<TreeHash> = [b"a", b"b", b"c"].iter().map(|text| leaf_hash(*text)).collect();
        let sign = |by: &Identity, to: PeerId, leaves: &[TreeHash]| {
            let root = receipts_root(leaves.iter().copied());
            let statement = receipts_statement(to, by.peer_id(), leaves.len() as u64, root);
            by.sign(statement.as_bytes()).as_bytes().to_vec()
        };
        let swapped = [leaves[1], leaves[0], leaves[2]];
        let checker = Checker::new(here, worker.peer_id(), Bundles::default());
        for (signature, ok) in [
            (sign(&worker, here, &leaves), true),
            (sign(&worker, there, &leaves), false),
            (sign(&other, here, &leaves), false),
            (sign(&worker, here, &swapped), false),
            (sign(&worker, here, &leaves[..2]), false),
            (vec![], false),
            (vec![0; 64], false),
        ] {
            let mut tree = Frontier::default();
            for leaf in &leaves {
                tree.append(*leaf);
            }
            assert_eq!(checker.verify(&tree, &signature).is_ok(), ok);
        }
    }
}
