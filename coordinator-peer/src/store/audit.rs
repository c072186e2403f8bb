//! Whether the credit that is shown is the credit that the ledger grants.

use std::collections::BTreeMap;

use talka_core::{
    coordinator::{CreditDelta, Grant},
    ids::PeerNo,
};

/// The outcome of recomputing all credit from the ledger.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Audit {
    /// Final tasks read.
    pub finals: u64,
    /// Grants in them.
    pub grants: u64,
    /// Peers whose credit is not the sum of their grants. Empty in a sound store.
    pub differences: Vec<Difference>,
}

/// A peer whose credit is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// Who.
    pub peer: PeerNo,
    /// What its grants add up to.
    pub ledger: CreditDelta,
    /// What the store shows.
    pub shown: CreditDelta,
}

impl Audit {
    /// Whether every peer has exactly the credit that it was granted.
    pub fn is_clean(&self) -> bool {
        self.differences.is_empty()
    }
}

/// Sums of grants, while the ledger is read.
#[derive(Debug, Default)]
pub(super) struct LedgerSum {
    audit: Audit,
    peers: BTreeMap<PeerNo, CreditDelta>,
}

impl LedgerSum {
    /// Adds the grants of one final task.
    pub(super) fn add(&mut self, grants: &[Grant]) {
        self.audit.finals += 1;
        self.audit.grants += grants.len() as u64;
        for grant in grants {
            let sum = self.peers.entry(grant.peer).or_default();
            sum.credit += grant.credit;
            *(if grant.agreed { &mut sum.validated } else { &mut sum.invalid }) += 1;
        }
    }

    /// Compares with what is shown.
    pub(super) fn compare(mut self, shown: &BTreeMap<PeerNo, CreditDelta>) -> Audit {
        for peer in shown.keys() {
            self.peers.entry(*peer).or_default();
        }
        for (peer, ledger) in self.peers {
            let shown = shown.get(&peer).copied().unwrap_or_default();
            if ledger != shown {
                self.audit.differences.push(Difference { peer, ledger, shown });
            }
        }
        self.audit
    }
}
