//! Which entries one commit added to the ledger, and what workers signed.
//!
//! ```text
//! entries:  each: count << 1: varint | step: zigzag varint      tasks with neighbouring keys
//!               | length << 1 | 1: varint | bytes               any other entry, as it is
//! receipts: each: step: zigzag varint | number << 1 | resumed: varint | outcome: 32 | fuel: varint
//! ```
//!
//! A step leads from behind the last task to the first one of the run, or from the key of one receipt to that of
//! the next.

use talka_core::{
    ids::{AttemptId, OutcomeDigest, TaskId},
    packing::put_varint,
    quantities::Fuel,
    signing::Receipt,
};

use super::{Source, Undecodable};

/// Some entries of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum LedgerItem<'a> {
    /// Those of tasks with keys from `first` on.
    Tasks { first: u64, count: u64 },
    /// One that is written here.
    Own(&'a [u8]),
}

/// Builds the entries of one commit.
#[derive(Debug, Default)]
pub(in crate::store) struct LedgerItems {
    bytes: Vec<u8>,
    run: Option<(u64, u64)>,
    end: u64,
}

impl LedgerItems {
    /// Adds the entry of the task with this key.
    pub(in crate::store) fn task(&mut self, key: u64) {
        match &mut self.run {
            Some((first, count)) if *first + *count == key => *count += 1,
            _ => {
                self.end_run();
                self.run = Some((key, 1));
            }
        }
    }

    /// Adds another entry.
    pub(in crate::store) fn own(&mut self, entry: &[u8]) {
        self.end_run();
        put_varint(&mut self.bytes, (entry.len() as u64) << 1 | 1);
        self.bytes.extend_from_slice(entry);
    }

    /// The packed form.
    pub(in crate::store) fn into_bytes(mut self) -> Vec<u8> {
        self.end_run();
        self.bytes
    }

    fn end_run(&mut self) {
        if let Some((first, count)) = self.run.take() {
            put_varint(&mut self.bytes, count << 1);
            put_varint(&mut self.bytes, zigzag(first.wrapping_sub(self.end)));
            self.end = first + count;
        }
    }
}

/// The inverse of [`LedgerItems`].
pub(in crate::store) fn ledger_items(bytes: &[u8]) -> Result<Vec<LedgerItem<'_>>, Undecodable> {
    let mut source = Source(bytes);
    let (mut items, mut end) = (Vec::new(), 0u64);
    while !source.is_empty() {
        let head = source.number()?;
        items.push(if head & 1 == 1 {
            LedgerItem::Own(source.take(head >> 1)?)
        } else {
            let (first, count) = (end.wrapping_add(unzigzag(source.number()?)), head >> 1);
            end = first.checked_add(count).ok_or(Undecodable)?;
            LedgerItem::Tasks { first, count }
        });
    }
    Ok(items)
}

/// Appends receipts; `key` is that of a task.
pub(in crate::store) fn put_receipts(out: &mut Vec<u8>, receipts: &[(u64, Receipt)]) {
    let mut before = 0u64;
    for (key, receipt) in receipts {
        put_varint(out, zigzag(key.wrapping_sub(before)));
        before = *key;
        put_varint(out, u64::from(receipt.attempt.number) << 1 | u64::from(receipt.resumed));
        out.extend_from_slice(receipt.outcome.as_bytes());
        put_varint(out, receipt.fuel.get());
    }
}

/// The inverse of [`put_receipts`]; `task` is that of a key.
pub(in crate::store) fn receipts(
    bytes: &[u8],
    task: impl Fn(u64) -> TaskId,
) -> Result<Vec<Receipt>, Undecodable> {
    let mut source = Source(bytes);
    let (mut receipts, mut key) = (Vec::new(), 0u64);
    while !source.is_empty() {
        key = key.wrapping_add(unzigzag(source.number()?));
        let number = source.number()?;
        let resumed = number & 1 == 1;
        let number = u32::try_from(number >> 1).map_err(|_| Undecodable)?;
        let outcome: OutcomeDigest = source.hash()?;
        let attempt = AttemptId { task: task(key), number };
        receipts.push(Receipt { attempt, outcome, fuel: Fuel::new(source.number()?), resumed });
    }
    Ok(receipts)
}

fn zigzag(step: u64) -> u64 {
    let step = step.cast_signed();
    ((step << 1) ^ (step >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> u64 {
    (number >> 1) ^ (number & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use talka_core::ids::JobId;

    use super::*;

    fn task(key: u64) -> TaskId {
        TaskId { job: JobId::new(key >> 32), index: key & 0xffff_ffff }
    }

    #[test]
    fn neighbours_share_one_run() {
        let mut items = LedgerItems::default();
        items.own(b"peer");
        for key in [7, 8, 9, 3, 4, 12] {
            items.task(key);
        }
        let bytes = items.into_bytes();
        assert_eq!(bytes.len(), 5 + 3 * 2);
        let expected = [
            LedgerItem::Own(b"peer"),
            LedgerItem::Tasks { first: 7, count: 3 },
            LedgerItem::Tasks { first: 3, count: 2 },
            LedgerItem::Tasks { first: 12, count: 1 },
        ];
        assert_eq!(ledger_items(&bytes).as_deref(), Ok(&expected[..]));
    }

    proptest! {
        #[test]
        fn receipts_round_trip(raw in prop::collection::vec((any::<u64>(), 0..u32::MAX / 2, any::<[u8; 32]>(), any::<u64>(), any::<bool>()), 0..9)) {
            let receipts: Vec<_> = raw
                .into_iter()
                .map(|(key, number, outcome, fuel, resumed)| {
                    let attempt = AttemptId { task: task(key), number };
                    (key, Receipt { attempt, outcome: OutcomeDigest::new(outcome), fuel: Fuel::new(fuel), resumed })
                })
                .collect();
            let mut bytes = vec![];
            put_receipts(&mut bytes, &receipts);
            let expected: Vec<_> = receipts.into_iter().map(|(_, receipt)| receipt).collect();
            prop_assert_eq!(super::receipts(&bytes, task), Ok(expected));
        }

        #[test]
        fn damaged_rows_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = ledger_items(&bytes);
            let _ = super::receipts(&bytes, task);
        }
    }
}
