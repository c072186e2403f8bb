//! The file that a ledger is exported to: everything that it takes to recompute all credit, offline.
//!
//! ```text
//! "talka ledger 1\n"
//! head:    coordinator: 32 | size: u64 | root: 32 | at: u64, ms | signature: 64      numbers little-endian
//! entries: size × (length: varint | entry | first 8 bytes of its hash)
//!          after each 1,024th and after the last: the root over all entries so far: 32
//! ```
//!
//! The hashes within are there to name the place where something is wrong; what holds is the root that the
//! coordinator signed.

use std::io::{self, BufRead, Read, Write};

use talka_core::{
    ids::PeerId,
    ledger::{Frontier, Head, LedgerEntry, Replay, TreeHash, leaf_hash},
    limits,
    quantities::Timestamp,
};
use talka_peer::identity::{BadSignature, Signature, verify};

const MAGIC: &[u8; 15] = b"talka ledger 1\n";
/// Bytes of an entry's hash that follow it.
const MARK_BYTES: usize = 8;
/// Entries after which the root is written down.
const ROOT_EVERY: u64 = 1 << limits::LEDGER_TILE_BITS;

/// A head with the signature of its coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignedHead {
    pub(crate) head: Head,
    pub(crate) signature: Signature,
}

impl SignedHead {
    /// Whether the coordinator that it names signed it.
    pub(crate) fn verify(&self) -> Result<(), BadSignature> {
        verify(self.head.coordinator, self.head.statement().as_bytes(), &self.signature)
    }
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileProblem {
    /// It can't be read. Retry when that is mended.
    #[error("the file can't be read: {0}")]
    Read(#[from] io::Error),
    /// It is something else.
    #[error("the file is no exported ledger of this version")]
    Magic,
    /// The head was changed, or is of somebody else.
    #[error("the head is not signed by the coordinator that it names")]
    Signature(#[from] BadSignature),
    /// It ends too early.
    #[error("the file ends before the entry that the head counts")]
    Short,
    /// An entry is longer than entries are.
    #[error("an entry is said to have {0} bytes, above the limit of {max}", max = limits::LEDGER_ENTRY_BYTES_MAX)]
    Long(u64),
    /// An entry was changed, or its hash.
    #[error("the entry does not have the hash that follows it")]
    Mark,
    /// An entry contradicts those before it.
    #[error("{0}")]
    Misfit(#[from] talka_core::ledger::Misfit),
    /// Some entries were changed together with their hashes, or the root was.
    #[error("one of the entries up to {0} was changed: they don't have the root that follows them")]
    Root(u64),
    /// All of it fits together, but the coordinator signed something else.
    #[error("the entries don't have the root that the coordinator signed")]
    Head,
    /// Something follows.
    #[error("the file goes on behind the last entry")]
    Trailing,
}

/// Writes a file, entry by entry.
pub(crate) struct Export<W> {
    out: W,
    size: u64,
    log: Frontier,
}

impl<W: Write> Export<W> {
    /// Begins with the head.
    pub(crate) fn new(mut out: W, signed: &SignedHead) -> io::Result<Self> {
        let Head { coordinator, size, root, at } = signed.head;
        out.write_all(MAGIC)?;
        out.write_all(coordinator.as_bytes())?;
        out.write_all(&size.to_le_bytes())?;
        out.write_all(root.as_bytes())?;
        out.write_all(&at.millis().to_le_bytes())?;
        out.write_all(signed.signature.as_bytes())?;
        Ok(Self { out, size, log: Frontier::default() })
    }

    /// Appends the next entry. Nothing is written beyond the size that the head states.
    pub(crate) fn add(&mut self, entry: &[u8]) -> io::Result<()> {
        let hash = leaf_hash(entry);
        let mut length = Vec::new();
        talka_core::packing::put_varint(&mut length, entry.len() as u64);
        self.out.write_all(&length)?;
        self.out.write_all(entry)?;
        self.out.write_all(&hash.as_bytes()[..MARK_BYTES])?;
        self.log.append(hash);
        if has_root(self.log.size(), self.size) {
            self.out.write_all(self.log.root().as_bytes())?;
        }
        Ok(())
    }

    /// Entries so far.
    pub(crate) fn size(&self) -> u64 {
        self.log.size()
    }

    /// The file, and the root over its entries.
    pub(crate) fn finish(mut self) -> io::Result<(W, TreeHash)> {
        self.out.flush()?;
        Ok((self.out, self.log.root()))
    }
}

fn has_root(place: u64, size: u64) -> bool {
    place.is_multiple_of(ROOT_EVERY) || place == size
}

/// Reads a file, entry by entry, and checks each.
pub(crate) struct Import<R> {
    source: R,
    signed: SignedHead,
    replay: Replay,
    /// The place behind the last root that was right.
    sure: u64,
}

impl<R: BufRead> Import<R> {
    /// Reads and checks the head.
    pub(crate) fn new(mut source: R) -> Result<Self, FileProblem> {
        let magic: [u8; 15] = fixed(&mut source).map_err(|problem| match problem {
            FileProblem::Short => FileProblem::Magic,
            other => other,
        })?;
        if &magic != MAGIC {
            return Err(FileProblem::Magic);
        }
        let coordinator = PeerId::new(fixed(&mut source)?);
        let size = u64::from_le_bytes(fixed(&mut source)?);
        let root = TreeHash::new(fixed(&mut source)?);
        let at = Timestamp::from_millis(u64::from_le_bytes(fixed(&mut source)?));
        let signature = Signature::new(fixed(&mut source)?);
        let signed = SignedHead { head: Head { coordinator, size, root, at }, signature };
        signed.verify()?;
        Ok(Self { source, signed, replay: Replay::default(), sure: 0 })
    }

    /// The head.
    pub(crate) fn head(&self) -> &Head {
        &self.signed.head
    }

    /// What the entries so far add up to.
    pub(crate) fn replay(&self) -> &Replay {
        &self.replay
    }

    /// The place of the first entry that is not known to be right, when a problem was found.
    pub(crate) fn suspect(&self, problem: &FileProblem) -> Option<u64> {
        match problem {
            FileProblem::Root(_) => Some(self.sure),
            FileProblem::Short | FileProblem::Long(_) | FileProblem::Mark | FileProblem::Misfit(_) => {
                Some(self.replay.size())
            }
            _ => None,
        }
    }

    /// The next entry; `None` behind the last one, when everything was right.
    pub(crate) fn next(&mut self) -> Result<Option<(LedgerEntry, TreeHash)>, FileProblem> {
        let Head { size, root, .. } = self.signed.head;
        if self.replay.size() == size {
            return match self.source.fill_buf()? {
                [] if self.replay.root() == root => Ok(None),
                [] => Err(FileProblem::Head),
                _ => Err(FileProblem::Trailing),
            };
        }
        let length = self.length()?;
        let mut entry = Vec::new();
        self.source.by_ref().take(length).read_to_end(&mut entry)?;
        if entry.len() as u64 != length {
            return Err(FileProblem::Short);
        }
        let mark: [u8; MARK_BYTES] = fixed(&mut self.source)?;
        let hash = leaf_hash(&entry);
        if !hash.as_bytes().starts_with(&mark) {
            return Err(FileProblem::Mark);
        }
        let entry = self.replay.apply(&entry)?;
        let place = self.replay.size();
        if has_root(place, size) {
            let root: [u8; 32] = fixed(&mut self.source)?;
            if &root != self.replay.root().as_bytes() {
                return Err(FileProblem::Root(place - 1));
            }
            self.sure = place;
        }
        Ok(Some((entry, hash)))
    }

    /// A length in its shortest form.
    fn length(&mut self) -> Result<u64, FileProblem> {
        let mut bytes = Vec::new();
        loop {
            let [byte] = fixed(&mut self.source)?;
            bytes.push(byte);
            // The limit takes three bytes.
            if byte < 0x80 || bytes.len() > 3 {
                break;
            }
        }
        let length = talka_core::packing::take_varint(&mut &bytes[..]).unwrap_or(u64::MAX);
        let shortest = bytes.len() == 1 || bytes.last() != Some(&0);
        if length > limits::LEDGER_ENTRY_BYTES_MAX as u64 || !shortest {
            return Err(FileProblem::Long(length));
        }
        Ok(length)
    }
}

fn fixed<const N: usize>(source: &mut impl Read) -> Result<[u8; N], FileProblem> {
    let mut bytes = [0; N];
    source.read_exact(&mut bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => FileProblem::Short,
        _ => FileProblem::Read(error),
    })?;
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use talka_core::{
        coordinator::{Grant, TaskVerdict},
        ids::{JobId, PeerNo, ResultDigest, TaskId},
        ledger::TaskEntry,
        outcome::Exit,
        quantities::Fuel,
    };
    use talka_peer::identity::Identity;

    use super::*;

    /// Entries of a small grid: two peers, then tasks that both agree on.
    pub(crate) fn entries(count: u64) -> Vec<Vec<u8>> {
        let peer = |no: u8| LedgerEntry::Peer { no: PeerNo::new(no.into()), id: PeerId::new([no; 32]) };
        let task = |index: u64| {
            let fuel = Fuel::new(1_000_000_000 + index);
            let grant =
                |no: u32| Grant { peer: PeerNo::new(no), number: no, agreed: true, credit: fuel.credit() };
            LedgerEntry::Task(TaskEntry {
                at_secs: 1_790_000_000 + index,
                task: TaskId { job: JobId::new(1), index },
                verdict: TaskVerdict::Agreed { digest: ResultDigest::new([7; 32]), exit: Exit::Ok, fuel },
                attempts: 2,
                grants: vec![grant(1), grant(2)],
            })
        };
        let all = [peer(1), peer(2)].into_iter().chain((0..count.saturating_sub(2)).map(task));
        all.map(|entry| entry.to_bytes()).collect()
    }

    /// A file of these entries, signed.
    pub(crate) fn file(identity: &Identity, entries: &[Vec<u8>]) -> Vec<u8> {
        let mut log = Frontier::default();
        for entry in entries {
            log.append(leaf_hash(entry));
        }
        let at = Timestamp::from_millis(1_795_000_000_000);
        let head = Head { coordinator: identity.peer_id(), size: log.size(), root: log.root(), at };
        let signature = identity.sign(head.statement().as_bytes());
        let mut export = Export::new(Vec::new(), &SignedHead { head, signature }).expect("memory");
        for entry in entries {
            export.add(entry).expect("memory");
        }
        export.finish().expect("memory").0
    }

    /// Reads it all: how many entries were right, or which one is suspected of what.
    fn read(bytes: &[u8]) -> Result<u64, (Option<u64>, FileProblem)> {
        let mut import = Import::new(bytes).map_err(|problem| (None, problem))?;
        loop {
            match import.next() {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(import.replay().size()),
                Err(problem) => return Err((import.suspect(&problem), problem)),
            }
        }
    }

    #[test]
    fn what_is_exported_is_read() {
        let identity = Identity::ephemeral();
        for count in [0, 1, 2, 3, 1023, 1024, 1025, 2100] {
            let all = &entries(2100)[..count];
            assert_eq!(
                read(&file(&identity, all)).map_err(|(_, problem)| problem.to_string()),
                Ok(count as u64)
            );
        }
    }

    #[test]
    fn every_byte_that_is_changed_is_found_and_its_entry_named() {
        let entries = entries(40);
        let good = file(&Identity::ephemeral(), &entries);
        let head = MAGIC.len() + 32 + 8 + 32 + 8 + 64;
        let mut place = head;
        let mut bounds = vec![];
        for entry in &entries {
            let next = place + 1 + entry.len() + MARK_BYTES;
            bounds.push(place..next);
            place = next;
        }
        for offset in 0..good.len() {
            for bit in [1, 0x80] {
                let mut bad = good.clone();
                bad[offset] ^= bit;
                let (suspect, problem) = read(&bad).expect_err("found");
                match bounds.iter().position(|bounds| bounds.contains(&offset)) {
                    // A length that is too long is only noticed at the hash behind it.
                    Some(entry) => assert_eq!(suspect, Some(entry as u64), "byte {offset}: {problem}"),
                    None if offset < head => assert_eq!(suspect, None, "byte {offset}: {problem}"),
                    None => assert_eq!(suspect, Some(0), "byte {offset}: {problem}"),
                }
            }
        }
        for length in 0..good.len() {
            assert!(read(&good[..length]).is_err(), "{length}");
        }
        let longer = [&good[..], b"x"].concat();
        assert!(matches!(read(&longer), Err((None, FileProblem::Trailing))));
    }

    #[test]
    fn a_change_that_was_made_to_fit_is_found_by_what_was_signed() {
        let identity = Identity::ephemeral();
        let all = entries(1500);
        let good = file(&identity, &all);
        // Somebody else's credit, with all hashes made anew, but the head as it was signed.
        let mut changed = all.clone();
        let last = changed.len() - 1;
        changed[last] = entries(1501)[1500].clone();
        let forged = file(&identity, &changed);
        let head = MAGIC.len() + 32 + 8 + 32 + 8 + 64;
        let spliced = [&good[..head], &forged[head..]].concat();
        assert!(matches!(read(&spliced), Err((None, FileProblem::Head))));
        // An entry and its own hash: the next root tells, and names the first entry that may be the one.
        let mut bad = good.clone();
        let entry = &all[1200];
        let place = good.windows(entry.len()).position(|window| window == entry).expect("there");
        bad[place + 1] ^= 1;
        let mark = leaf_hash(&bad[place..place + entry.len()]);
        bad[place + entry.len()..place + entry.len() + MARK_BYTES]
            .copy_from_slice(&mark.as_bytes()[..MARK_BYTES]);
        assert!(matches!(read(&bad), Err((Some(1024), FileProblem::Root(1499)))));
    }

    #[test]
    fn hostile_lengths_cost_nothing() {
        let identity = Identity::ephemeral();
        let good = file(&identity, &entries(3));
        let head = MAGIC.len() + 32 + 8 + 32 + 8 + 64;
        for length in [&[0xff, 0xff, 0xff, 0x7f][..], &[0xff; 10], &[0x80, 0x80, 0x04], &[0x80, 0x00]] {
            let bad = [&good[..head], length, &good[head..]].concat();
            let (suspect, problem) = read(&bad).expect_err("refused");
            assert_eq!(suspect, Some(0));
            assert!(
                matches!(problem, FileProblem::Long(_) | FileProblem::Mark | FileProblem::Short),
                "{problem}"
            );
        }
    }
}
