//! This worker's signature under its reports.

use talka_core::{
    coordinator::{Report, ReportOutcome, ReportOutput},
    digest::outcome_digest,
    ids::{BlobHash, JobId, PeerId},
    ledger::TreeHash,
    signing::{Receipt, receipts_root, receipts_statement},
};
use talka_peer::identity::Identity;

/// What it takes to sign for one coordinator.
#[derive(Debug, Clone)]
pub struct Signer {
    /// The worker's key.
    pub identity: Identity,
    /// For whom it signs.
    pub coordinator: PeerId,
}

impl Signer {
    /// The signature under a message of reports: over the executions among them, in their order. Empty when there
    /// is none.
    pub fn sign(&self, reports: &[Report], bundle: impl Fn(JobId) -> Option<BlobHash>) -> Vec<u8> {
        let leaves: Vec<TreeHash> =
            reports.iter().filter_map(|report| leaf(report, bundle(report.attempt.task.job)?)).collect();
        if leaves.is_empty() {
            return Vec::new();
        }
        let count = leaves.len() as u64;
        let root = receipts_root(leaves);
        let statement = receipts_statement(self.coordinator, self.identity.peer_id(), count, root);
        self.identity.sign(statement.as_bytes()).as_bytes().to_vec()
    }
}

/// The leaf of one report; none when it says nothing about the program.
fn leaf(report: &Report, bundle: BlobHash) -> Option<TreeHash> {
    let ReportOutcome::Execution { input, exit, fuel, resumed, output } = &report.outcome else {
        return None;
    };
    let outcome = match output {
        ReportOutput::Inline(output) => outcome_digest(bundle, *input, *exit, output),
        ReportOutput::Remote { digest, .. } => *digest,
    };
    let receipt = Receipt { attempt: report.attempt, outcome, fuel: *fuel, resumed: *resumed };
    Some(receipt.leaf(bundle))
}
