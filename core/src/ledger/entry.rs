//! The encoding of entries. There is exactly one for each, because its hash is what is signed.
//!
//! ```text
//! entry:   kind: 1 byte | body
//! peer:    no: varint | id: 32                                                             kind 1
//! task:    at: varint | job: varint | index: varint | attempts: varint | verdict | grants  kind 2
//! revoked: at: varint | entry: varint | job: varint | index: varint | grants               kind 3
//! named:   at: varint | peer: varint | owner: text | team: text                            kind 4
//! verdict: 0 | digest: 32 | fuel: varint                                        ended well
//!        | 1 | digest: 32 | fuel: varint | exit: 2 varints                      ended otherwise
//!        | 2                                                                    no agreement
//!        | 3 | reason: varint                                                   no result
//! grants:  to the end, each: peer << 2 | agreed << 1 | own: varint | number: varint | [nanos: varint]
//! text:    length: varint | UTF-8
//! ```
//!
//! Times are seconds since the Unix epoch. A grant states its credit only when that is not the usual one: what
//! the verdict's fuel earns for a vote that agreed, nothing for another. A revocation repeats the grants that it
//! takes back, all of them stated. Numbers are in their shortest form; bytes that decode are the encoding of what they
//! decode to, or are refused.

use crate::{
    coordinator::{FinalRow, Grant, TaskVerdict},
    ids::{JobId, PeerId, PeerNo, ResultDigest, TaskId},
    limits,
    outcome::{Exit, NoResult},
    packing::{put_varint, take_varint},
    quantities::{Credit, Fuel, Timestamp},
};

const PEER: u8 = 1;
const TASK: u8 = 2;
const REVOKED: u8 = 3;
const NAMED: u8 = 4;

/// The bytes are no entry, or not in the form that it has. Never worth a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an entry of a ledger")]
pub struct EntryError;

/// What one peer's vote earned.
pub type LedgerGrant = Grant;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerEntry {
    /// From here on, a number stands for a peer.
    Peer {
        /// The number.
        no: PeerNo,
        /// Who.
        id: PeerId,
    },
    /// A task became final.
    Task(TaskEntry),
    /// A final task is open again, and what was granted for it is taken back.
    Revoked {
        /// When, in seconds since the Unix epoch.
        at_secs: u64,
        /// The place in the log of the entry that counts no more.
        entry: u64,
        /// Which task.
        task: TaskId,
        /// What was granted.
        grants: Vec<LedgerGrant>,
    },
    /// What a peer says that its owner and team are called. Nobody checks it.
    Named {
        /// When, in seconds since the Unix epoch.
        at_secs: u64,
        /// Who.
        peer: PeerNo,
        /// How.
        names: Names,
    },
}

/// A final task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskEntry {
    /// When, in seconds since the Unix epoch.
    pub at_secs: u64,
    /// Which.
    pub task: TaskId,
    /// How it ended.
    pub verdict: TaskVerdict,
    /// Reports taken, those without a result included.
    pub attempts: u32,
    /// What each peer that voted got for it.
    pub grants: Vec<LedgerGrant>,
}

/// What a volunteer wants to be called, on leader boards and in statistics.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Names {
    owner: String,
    team: String,
}

/// A name is not acceptable. The text says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "names of owners and teams have {} bytes at most, no control characters, and no space at either end",
    limits::OWNER_NAME_BYTES_MAX
)]
pub struct NamesError;

impl Names {
    /// Checks both; an empty one is none.
    pub fn new(owner: &str, team: &str) -> Result<Self, NamesError> {
        let is_good = |name: &str| {
            name.len() <= limits::OWNER_NAME_BYTES_MAX
                && !name.chars().any(char::is_control)
                && name.trim() == name
        };
        if is_good(owner) && is_good(team) {
            Ok(Self { owner: owner.into(), team: team.into() })
        } else {
            Err(NamesError)
        }
    }

    /// The person; empty if nobody said.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The team; empty if nobody said.
    pub fn team(&self) -> &str {
        &self.team
    }
}

impl LedgerEntry {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Peer { no, id } => {
                out.push(PEER);
                put_varint(out, no.get().into());
                out.extend_from_slice(id.as_bytes());
            }
            Self::Task(task) => {
                put_task(out, task.at_secs, task.task, &task.verdict, task.attempts, &task.grants);
            }
            Self::Revoked { at_secs, entry, task, grants } => {
                out.push(REVOKED);
                for number in [*at_secs, *entry, task.job.get(), task.index] {
                    put_varint(out, number);
                }
                put_grants(out, None, grants);
            }
            Self::Named { at_secs, peer, names } => {
                out.push(NAMED);
                put_varint(out, *at_secs);
                put_varint(out, peer.get().into());
                for text in [&names.owner, &names.team] {
                    put_varint(out, text.len() as u64);
                    out.extend_from_slice(text.as_bytes());
                }
            }
        }
    }

    /// The encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(80);
        self.encode(&mut bytes);
        bytes
    }

    /// The inverse of [`LedgerEntry::encode`]. Allocates no more than a small multiple of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let (kind, mut rest) = bytes.split_first().ok_or(EntryError)?;
        let rest = &mut rest;
        let entry = match *kind {
            PEER => Self::Peer { no: PeerNo::new(number32(rest)?), id: PeerId::new(hash(rest)?) },
            TASK => {
                let at_secs = number(rest)?;
                let task = TaskId { job: JobId::new(number(rest)?), index: number(rest)? };
                let attempts = number32(rest)?;
                let verdict = verdict(rest)?;
                let grants = grants(rest, Some(&verdict))?;
                Self::Task(TaskEntry { at_secs, task, verdict, attempts, grants })
            }
            REVOKED => {
                let (at_secs, entry) = (number(rest)?, number(rest)?);
                let task = TaskId { job: JobId::new(number(rest)?), index: number(rest)? };
                Self::Revoked { at_secs, entry, task, grants: grants(rest, None)? }
            }
            NAMED => {
                let (at_secs, peer) = (number(rest)?, PeerNo::new(number32(rest)?));
                let names = Names::new(text(rest)?, text(rest)?).map_err(|_| EntryError)?;
                Self::Named { at_secs, peer, names }
            }
            _ => return Err(EntryError),
        };
        // One entry has one encoding: nothing may follow, and no number may be written longer than it is.
        if entry.to_bytes() == bytes { Ok(entry) } else { Err(EntryError) }
    }
}

impl TaskEntry {
    /// Appends the encoding of the entry of a row that becomes final at `at`.
    pub fn encode_row(out: &mut Vec<u8>, at: Timestamp, row: &FinalRow) {
        put_task(out, at.millis() / 1000, row.task, &row.verdict, row.attempts, &row.grants);
    }
}

fn put_task(
    out: &mut Vec<u8>,
    at_secs: u64,
    task: TaskId,
    verdict: &TaskVerdict,
    attempts: u32,
    grants: &[LedgerGrant],
) {
    out.push(TASK);
    for number in [at_secs, task.job.get(), task.index, attempts.into()] {
        put_varint(out, number);
    }
    match verdict {
        TaskVerdict::Agreed { digest, exit, fuel } => {
            out.push(u8::from(*exit != Exit::Ok));
            out.extend_from_slice(digest.as_bytes());
            put_varint(out, fuel.get());
            if *exit != Exit::Ok {
                let (kind, number) = exit.to_code();
                put_varint(out, kind.into());
                put_varint(out, number.into());
            }
        }
        TaskVerdict::NoAgreement => out.push(2),
        TaskVerdict::NoResult(reason) => {
            out.push(3);
            put_varint(out, reason.to_code().into());
        }
    }
    put_grants(out, Some(verdict), grants);
}

/// Without a verdict no credit is usual.
fn put_grants(out: &mut Vec<u8>, verdict: Option<&TaskVerdict>, grants: &[LedgerGrant]) {
    for grant in grants {
        let own = usual(verdict, grant.agreed) != Some(grant.credit);
        let flags = u64::from(grant.agreed) << 1 | u64::from(own);
        put_varint(out, u64::from(grant.peer.get()) << 2 | flags);
        put_varint(out, grant.number.into());
        if own {
            // No rule grants less than nothing, nor more than the fuel that 64 bits can count.
            put_varint(out, u64::try_from(grant.credit.nanos().max(0)).unwrap_or(u64::MAX));
        }
    }
}

fn usual(verdict: Option<&TaskVerdict>, agreed: bool) -> Option<Credit> {
    Some(match verdict? {
        TaskVerdict::Agreed { fuel, .. } if agreed => fuel.credit(),
        _ => Credit::ZERO,
    })
}

fn number(rest: &mut &[u8]) -> Result<u64, EntryError> {
    take_varint(rest).map_err(|_| EntryError)
}

fn number32(rest: &mut &[u8]) -> Result<u32, EntryError> {
    u32::try_from(number(rest)?).map_err(|_| EntryError)
}

fn hash(rest: &mut &[u8]) -> Result<[u8; 32], EntryError> {
    let (hash, behind) = rest.split_first_chunk().ok_or(EntryError)?;
    *rest = behind;
    Ok(*hash)
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, EntryError> {
    let length = usize::try_from(number(rest)?).map_err(|_| EntryError)?;
    let (text, behind) = rest.split_at_checked(length).ok_or(EntryError)?;
    *rest = behind;
    std::str::from_utf8(text).map_err(|_| EntryError)
}

fn verdict(rest: &mut &[u8]) -> Result<TaskVerdict, EntryError> {
    let kind = number(rest)?;
    Ok(match kind {
        0 | 1 => {
            let digest = ResultDigest::new(hash(rest)?);
            let fuel = Fuel::new(number(rest)?);
            let exit = if kind == 0 {
                Exit::Ok
            } else {
                let kind = u8::try_from(number(rest)?).map_err(|_| EntryError)?;
                Exit::from_code((kind, number32(rest)?)).ok_or(EntryError)?
            };
            TaskVerdict::Agreed { digest, exit, fuel }
        }
        2 => TaskVerdict::NoAgreement,
        3 => TaskVerdict::NoResult(NoResult::from_code(number32(rest)?).ok_or(EntryError)?),
        _ => return Err(EntryError),
    })
}

fn grants(rest: &mut &[u8], verdict: Option<&TaskVerdict>) -> Result<Vec<LedgerGrant>, EntryError> {
    let mut grants = Vec::new();
    while !rest.is_empty() {
        let mark = number(rest)?;
        let peer = PeerNo::new(u32::try_from(mark >> 2).map_err(|_| EntryError)?);
        let (agreed, number) = (mark & 2 != 0, number32(rest)?);
        let credit = match usual(verdict, agreed) {
            Some(credit) if mark & 1 == 0 => credit,
            _ if mark & 1 == 1 => Credit::from_nanos(self::number(rest)?.into()),
            _ => return Err(EntryError),
        };
        grants.push(Grant { peer, number, agreed, credit });
    }
    Ok(grants)
}
