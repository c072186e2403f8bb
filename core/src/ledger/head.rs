//! What a coordinator signs about its log.

use super::TreeHash;
use crate::{digest::Fields, ids::PeerId, quantities::Timestamp, signing::Statement};

/// A log, in one line: two heads of one coordinator with the same size and different roots, or a later one that
/// does not extend an earlier one, prove that it lied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Whose log.
    pub coordinator: PeerId,
    /// Entries.
    pub size: u64,
    /// The root over them.
    pub root: TreeHash,
    /// When it was signed.
    pub at: Timestamp,
}

impl Head {
    /// What the coordinator's signature is over.
    pub fn statement(&self) -> Statement {
        let mut fields = Fields::new("talka ledger head 1");
        fields.bytes(self.coordinator.as_bytes()).number(self.size).bytes(self.root.as_bytes());
        fields.number(self.at.millis());
        Statement::new(fields.finish())
    }
}
