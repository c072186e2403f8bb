//! This worker's signature under its reports.

use talka_core::{
    coordinator::Report,
    ids::{BlobHash, JobId, PeerId},
    ledger::TreeHash,
    signing::{receipts_root, receipts_statement},
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
        let leaf = |report: &Report| {
            let bundle = bundle(report.attempt.task.job)?;
            Some(report.receipt(bundle)?.leaf(bundle))
        };
        let leaves: Vec<TreeHash> = reports.iter().filter_map(leaf).collect();
        if leaves.is_empty() {
            return Vec::new();
        }
        let count = leaves.len() as u64;
        let root = receipts_root(leaves);
        let statement = receipts_statement(self.coordinator, self.identity.peer_id(), count, root);
        self.identity.sign(statement.as_bytes()).as_bytes().to_vec()
    }
}
