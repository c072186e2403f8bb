//! A final task as its entry in the ledger. There is one per task for ever, so each byte counts:
//!
//! ```text
//! head: varint = extra << 4 | output << 2 | kind
//! kind 0, ok:          fuel: varint
//! kind 1, other exit:  exit kind: varint | exit number: varint | fuel: varint
//! kind 2, no agreement; with an output: as kind 0, and the column holds the outcome
//! kind 3, no result:   reason: varint;  with an output: as kind 1, and the column holds the outcome
//! grants to the end:   peer << 2 | agreed << 1 | unusual: varint | [number: varint | nanos: varint]
//! ```
//!
//! `extra` is the number of reports above that of grants, modulo 2³². A grant is *usual* when it is for the
//! attempt whose number is its place in the list, from 1, and when it is what everybody gets: the agreed
//! fuel for a vote that agreed, nothing for another. The digest has a column of its own, and the output a
//! table. Where the digest is over the outcome and the fuel, the column holds the outcome instead: the digest follows
//! from it, and what workers signed need not repeat it.

use talka_core::{
    coordinator::{FinalOutput, FinalRow, Grant, TaskVerdict},
    digest::result_digest,
    ids::{OutcomeDigest, PeerNo, ResultDigest, TaskId},
    ledger::{LedgerEntry, TaskEntry},
    outcome::{Exit, NoResult},
    packing::put_varint,
    quantities::{Credit, Fuel},
};

use super::{Source, Undecodable, put_exit};
use crate::store::StoreError;

/// Where the output of a final task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum OutputForm {
    /// There is none.
    Nothing,
    /// The program wrote nothing, which needs no row.
    Empty,
    /// In a row of its own.
    Inline,
    /// In the blob store; a row says which blob.
    Blob,
}

impl OutputForm {
    const ALL: [Self; 4] = [Self::Nothing, Self::Empty, Self::Inline, Self::Blob];

    pub(in crate::store) fn of(output: &FinalOutput) -> Self {
        match output {
            FinalOutput::Nothing => Self::Nothing,
            FinalOutput::Inline(output) if output.is_empty() => Self::Empty,
            FinalOutput::Inline(_) => Self::Inline,
            FinalOutput::Blob(_) => Self::Blob,
        }
    }
}

/// By how much the kind is higher where the column holds the outcome.
const OUTCOME: u64 = 2;

/// A ledger entry as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Entry {
    pub(in crate::store) verdict: TaskVerdict,
    pub(in crate::store) outcome: Option<OutcomeDigest>,
    pub(in crate::store) attempts: u32,
    pub(in crate::store) grants: Vec<Grant>,
    pub(in crate::store) output: OutputForm,
}

impl Entry {
    /// What the ledger says of it.
    pub(in crate::store) fn in_ledger(self, at_secs: u64, task: TaskId) -> LedgerEntry {
        let Self { verdict, attempts, grants, .. } = self;
        LedgerEntry::Task(TaskEntry { at_secs, task, verdict, attempts, grants })
    }
}

/// The outcome of a row, if its entry keeps it.
pub(in crate::store) fn kept_outcome(row: &FinalRow) -> Option<OutcomeDigest> {
    row.outcome.filter(|_| {
        let agreed = matches!(row.verdict, TaskVerdict::Agreed { .. });
        agreed && OutputForm::of(&row.output) != OutputForm::Nothing
    })
}

/// Appends an entry and returns what is in the column of its digest.
pub(in crate::store) fn put_entry(out: &mut Vec<u8>, row: &FinalRow) -> Result<Option<[u8; 32]>, StoreError> {
    let grants = u32::try_from(row.grants.len()).unwrap_or(u32::MAX);
    let extra = u64::from(row.attempts.wrapping_sub(grants));
    let form = OutputForm::of(&row.output) as u64;
    let outcome = kept_outcome(row);
    let of_outcome = if outcome.is_some() { OUTCOME } else { 0 };
    let mut put_head = |kind: u64| put_varint(out, extra << 4 | form << 2 | kind);
    let column = match row.verdict {
        TaskVerdict::Agreed { digest, exit: Exit::Ok, fuel } => {
            put_head(of_outcome);
            put_varint(out, fuel.get());
            Some(outcome.map_or(*digest.as_bytes(), |outcome| *outcome.as_bytes()))
        }
        TaskVerdict::Agreed { digest, exit, fuel } => {
            put_head(1 + of_outcome);
            put_exit(out, exit);
            put_varint(out, fuel.get());
            Some(outcome.map_or(*digest.as_bytes(), |outcome| *outcome.as_bytes()))
        }
        TaskVerdict::NoAgreement => {
            put_head(2);
            None
        }
        TaskVerdict::NoResult(reason) => {
            put_head(3);
            put_varint(out, reason.to_code().into());
            None
        }
    };
    for (place, grant) in (1..).zip(&row.grants) {
        let unusual = *grant != usual(&row.verdict, place, grant.peer, grant.agreed);
        let flags = u64::from(grant.agreed) << 1 | u64::from(unusual);
        put_varint(out, u64::from(grant.peer.get()) << 2 | flags);
        if unusual {
            let nanos = u64::try_from(grant.credit.nanos());
            let refused = || StoreError::refused(format!("a credit of {} for {}", grant.credit, row.task));
            put_varint(out, grant.number.into());
            put_varint(out, nanos.map_err(|_| refused())?);
        }
    }
    Ok(column)
}

/// The inverse of [`put_entry`].
pub(in crate::store) fn entry(column: Option<[u8; 32]>, bytes: &[u8]) -> Result<Entry, Undecodable> {
    let mut source = Source(bytes);
    let head = source.number()?;
    let has_output = head >> 2 & 3 != OutputForm::Nothing as u64;
    let mut outcome = None;
    let verdict = match (head & 3, column) {
        (kind @ (0 | 1), Some(digest)) => {
            let exit = if kind == 0 { Exit::Ok } else { source.exit()? };
            TaskVerdict::Agreed { digest: ResultDigest::new(digest), exit, fuel: Fuel::new(source.number()?) }
        }
        (kind, Some(column)) if has_output => {
            let exit = if kind == OUTCOME { Exit::Ok } else { source.exit()? };
            let (fuel, of) = (Fuel::new(source.number()?), OutcomeDigest::new(column));
            outcome = Some(of);
            TaskVerdict::Agreed { digest: result_digest(of, Some(fuel)), exit, fuel }
        }
        (2, None) => TaskVerdict::NoAgreement,
        (3, None) => TaskVerdict::NoResult(NoResult::from_code(source.number32()?).ok_or(Undecodable)?),
        _ => return Err(Undecodable),
    };
    let output = OutputForm::ALL.into_iter().find(|form| *form as u64 == head >> 2 & 3);
    let extra = u32::try_from(head >> 4).map_err(|_| Undecodable)?;
    let mut grants = Vec::new();
    for place in 1.. {
        if source.is_empty() {
            break;
        }
        let mark = source.number()?;
        let peer = PeerNo::new(u32::try_from(mark >> 2).map_err(|_| Undecodable)?);
        let mut grant = usual(&verdict, place, peer, mark & 2 != 0);
        if mark & 1 != 0 {
            grant.number = source.number32()?;
            grant.credit = Credit::from_nanos(source.number()?.into());
        }
        grants.push(grant);
    }
    let count = u32::try_from(grants.len()).unwrap_or(u32::MAX);
    let attempts = extra.wrapping_add(count);
    Ok(Entry { verdict, outcome, attempts, grants, output: output.ok_or(Undecodable)? })
}

fn usual(verdict: &TaskVerdict, place: u32, peer: PeerNo, agreed: bool) -> Grant {
    let credit = match verdict {
        TaskVerdict::Agreed { fuel, .. } if agreed => fuel.credit(),
        _ => Credit::ZERO,
    };
    Grant { peer, number: place, agreed, credit }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use talka_core::ids::JobId;

    use super::*;

    fn row(verdict: TaskVerdict, attempts: u32, grants: Vec<Grant>, output: FinalOutput) -> FinalRow {
        let task = TaskId { job: JobId::new(1), index: 2 };
        FinalRow { task, verdict, outcome: None, attempts, grants, output, had_pending: false }
    }

    fn grant(peer: u32, number: u32, agreed: bool, nanos: i128) -> Grant {
        Grant { peer: PeerNo::new(peer), number, agreed, credit: Credit::from_nanos(nanos) }
    }

    fn agreed(exit: Exit, fuel: u64) -> TaskVerdict {
        TaskVerdict::Agreed { digest: ResultDigest::new([7; 32]), exit, fuel: Fuel::new(fuel) }
    }

    fn encoded(row: &FinalRow) -> Vec<u8> {
        let mut bytes = vec![];
        put_entry(&mut bytes, row).expect("a row that fits");
        bytes
    }

    #[test]
    fn a_usual_two_replica_task_takes_ten_bytes_beside_its_digest() {
        let fuel = 10_000_000_000;
        let grants = vec![grant(1000, 1, true, fuel.into()), grant(2000, 2, true, fuel.into())];
        let row = row(agreed(Exit::Ok, fuel), 2, grants, FinalOutput::Inline(Arc::default()));
        assert_eq!(encoded(&row), [4, 0x80, 0xc8, 0xaf, 0xa0, 0x25, 0xa2, 0x1f, 0xc2, 0x3e]);
    }

    #[test]
    fn a_grant_that_is_negative_is_refused() {
        let row = row(agreed(Exit::Ok, 5), 1, vec![grant(1, 1, true, -1)], FinalOutput::Nothing);
        assert!(matches!(put_entry(&mut vec![], &row), Err(StoreError::Refused { .. })));
    }

    #[test]
    fn an_entry_without_its_digest_is_undecodable() {
        let bytes = encoded(&row(agreed(Exit::Ok, 5), 0, vec![], FinalOutput::Nothing));
        assert_eq!(entry(None, &bytes), Err(Undecodable));
        let bytes = encoded(&row(TaskVerdict::NoAgreement, 0, vec![], FinalOutput::Nothing));
        assert_eq!(entry(Some([0; 32]), &bytes), Err(Undecodable));
    }

    #[test]
    fn an_outcome_stands_in_for_its_digest_and_takes_no_room() {
        let outcome = OutcomeDigest::new([5; 32]);
        for (exit, fuel) in [(Exit::Ok, 0), (Exit::Code(7), 300)] {
            let fuel = Fuel::new(fuel);
            let verdict = TaskVerdict::Agreed { digest: result_digest(outcome, Some(fuel)), exit, fuel };
            let plain = row(verdict, 1, vec![grant(3, 1, false, 0)], FinalOutput::Inline(Arc::default()));
            let given = FinalRow { outcome: Some(outcome), ..plain.clone() };
            let mut bytes = vec![];
            let column = put_entry(&mut bytes, &given).expect("a row that fits");
            assert_eq!(column, Some([5; 32]));
            assert_eq!(bytes.len(), encoded(&plain).len());
            let read = entry(column, &bytes).expect("decodable");
            assert_eq!((read.verdict, read.outcome), (verdict, Some(outcome)));
            assert_eq!(entry(None, &bytes), Err(Undecodable));
            assert_eq!(kept_outcome(&FinalRow { output: FinalOutput::Nothing, ..given }), None);
        }
    }

    proptest! {
        #[test]
        fn entries_round_trip(
            kind in 0..4,
            fuel: u64,
            code in 1..=u32::MAX,
            attempts: u32,
            raw in prop::collection::vec((any::<u32>(), any::<u32>(), any::<bool>(), any::<Option<u64>>()), 0..5),
        ) {
            let verdict = match kind {
                0 => agreed(Exit::Ok, fuel),
                1 => agreed(Exit::Code(code), fuel),
                2 => TaskVerdict::NoAgreement,
                _ => TaskVerdict::NoResult(NoResult::ALL[code as usize % NoResult::ALL.len()]),
            };
            let grants: Vec<_> = raw
                .into_iter()
                .zip(1..)
                .map(|((peer, number, agreed, nanos), place)| {
                    let usual = usual(&verdict, place, PeerNo::new(peer), agreed);
                    nanos.map_or(usual, |nanos| grant(peer, number, agreed, nanos.into()))
                })
                .collect();
            let given = row(verdict, attempts, grants.clone(), FinalOutput::Nothing);
            let mut bytes = vec![];
            let digest = put_entry(&mut bytes, &given).expect("a row that fits");
            let expected = Entry { verdict, outcome: None, attempts, grants, output: OutputForm::Nothing };
            prop_assert_eq!(entry(digest, &bytes), Ok(expected));
        }

        #[test]
        fn damaged_entries_are_refused_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..60), digest: Option<[u8; 32]>,
        ) {
            let _ = entry(digest, &bytes);
        }
    }
}
