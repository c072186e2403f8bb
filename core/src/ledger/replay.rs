//! Recomputing what a ledger says, from its entries alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Average, Frontier, LedgerEntry, LedgerGrant, Names, TreeHash, day_of, leaf_hash};
use crate::{
    coordinator::TaskVerdict,
    ids::{PeerId, PeerNo, TaskId},
    quantities::Credit,
};

/// An entry does not fit to those before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// It is no entry.
    #[error(transparent)]
    Entry(#[from] super::EntryError),
    /// A number or a peer is introduced a second time.
    #[error("peer {0} is introduced a second time")]
    Twice(PeerNo),
    /// A grant is for nobody.
    #[error("peer {0} was never introduced")]
    Unknown(PeerNo),
    /// A task that is final already.
    #[error("task {0} is final already")]
    Final(TaskId),
    /// A peer has two votes.
    #[error("peer {0} has two votes on one task")]
    TwoVotes(PeerNo),
    /// Credit for a vote that did not agree, or where nobody agreed, or more than the fuel that was agreed on.
    #[error("peer {0} gets more than the result is worth")]
    TooMuch(PeerNo),
    /// A revocation of what was not granted.
    #[error("a revocation for task {0} does not repeat what entry {1} grants")]
    NotGranted(TaskId, u64),
}

/// What one peer has.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerTotals {
    /// Who.
    pub id: PeerId,
    /// What it is called.
    pub names: Names,
    /// Credit.
    pub credit: Credit,
    /// Votes that agreed with the canonical result.
    pub validated: u64,
    /// Votes that did not.
    pub invalid: u64,
    /// Recent average credit.
    pub average: Average,
    /// Credit by day, in the days of [`day_of`]; a revocation counts on its own day.
    pub days: BTreeMap<u64, Credit>,
}

/// The log so far. It takes some 50 bytes of memory for each final task.
#[derive(Debug, Default)]
pub struct Replay {
    frontier: Frontier,
    peers: BTreeMap<PeerNo, PeerTotals>,
    ids: BTreeSet<PeerId>,
    /// Where each final task is, and a mark of its grants.
    finals: HashMap<TaskId, (u64, u64)>,
}

/// Tells grants apart, so that a revocation can be compared with them.
fn mark(task: TaskId, grants: &[LedgerGrant]) -> u64 {
    let entry = LedgerEntry::Revoked { at_secs: 0, entry: 0, task, grants: grants.to_vec() };
    let hash = leaf_hash(&entry.to_bytes());
    hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl Replay {
    /// Takes the next entry, or says why it can't be the next one; then nothing has changed.
    pub fn apply(&mut self, bytes: &[u8]) -> Result<LedgerEntry, Misfit> {
        let entry = LedgerEntry::decode(bytes)?;
        match &entry {
            LedgerEntry::Peer { no, id } => self.introduce(*no, *id)?,
            LedgerEntry::Task(task) => {
                if self.finals.contains_key(&task.task) {
                    return Err(Misfit::Final(task.task));
                }
                self.check(&task.verdict, &task.grants)?;
                self.finals.insert(task.task, (self.frontier.size(), mark(task.task, &task.grants)));
                self.grant(task.at_secs, &task.grants, true);
            }
            LedgerEntry::Revoked { at_secs, entry, task, grants } => {
                if self.finals.get(task) != Some(&(*entry, mark(*task, grants))) {
                    return Err(Misfit::NotGranted(*task, *entry));
                }
                self.finals.remove(task);
                self.grant(*at_secs, grants, false);
            }
            LedgerEntry::Named { peer, names, .. } => {
                self.peers.get_mut(peer).ok_or(Misfit::Unknown(*peer))?.names = names.clone();
            }
        }
        self.frontier.append(leaf_hash(bytes));
        Ok(entry)
    }

    fn introduce(&mut self, no: PeerNo, id: PeerId) -> Result<(), Misfit> {
        if self.peers.contains_key(&no) || !self.ids.insert(id) {
            return Err(Misfit::Twice(no));
        }
        let totals = PeerTotals {
            id,
            names: Names::default(),
            credit: Credit::ZERO,
            validated: 0,
            invalid: 0,
            average: Average::default(),
            days: BTreeMap::new(),
        };
        self.peers.insert(no, totals);
        Ok(())
    }

    fn check(&self, verdict: &TaskVerdict, grants: &[LedgerGrant]) -> Result<(), Misfit> {
        for (place, grant) in grants.iter().enumerate() {
            if !self.peers.contains_key(&grant.peer) {
                return Err(Misfit::Unknown(grant.peer));
            }
            if grants[..place].iter().any(|other| other.peer == grant.peer) {
                return Err(Misfit::TwoVotes(grant.peer));
            }
            let worth = match verdict {
                TaskVerdict::Agreed { fuel, .. } if grant.agreed => fuel.credit(),
                _ => Credit::ZERO,
            };
            if grant.credit > worth {
                return Err(Misfit::TooMuch(grant.peer));
            }
        }
        Ok(())
    }

    fn grant(&mut self, at_secs: u64, grants: &[LedgerGrant], given: bool) {
        for grant in grants {
            let Some(totals) = self.peers.get_mut(&grant.peer) else { continue };
            let votes = if grant.agreed { &mut totals.validated } else { &mut totals.invalid };
            *votes = if given { *votes + 1 } else { votes.saturating_sub(1) };
            let nanos = grant.credit.nanos();
            let credit = Credit::from_nanos(if given { nanos } else { -nanos });
            totals.credit += credit;
            if credit != Credit::ZERO {
                totals.average.add(at_secs, credit.as_f64());
                *totals.days.entry(day_of(at_secs)).or_default() += credit;
            }
        }
    }

    /// Entries so far.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The root over them.
    pub fn root(&self) -> TreeHash {
        self.frontier.root()
    }

    /// What each peer has, by number.
    pub fn peers(&self) -> &BTreeMap<PeerNo, PeerTotals> {
        &self.peers
    }

    /// Tasks that are final.
    pub fn finals(&self) -> usize {
        self.finals.len()
    }
}
