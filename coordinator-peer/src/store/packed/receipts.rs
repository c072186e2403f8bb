//! What a worker signed with one message.
//!
//! ```text
//! row:      0 | runs
//! run:      count << 2 | form: varint | step: zigzag varint | number: varint | [count × (outcome: 32 | fuel: varint)]
//! form:     0: as the final tasks say, with no more bytes | 1: an uninterrupted attempt | 2: one that had resumed
//! old row:  each: step: zigzag varint | number << 1 | resumed: varint | outcome: 32 | fuel: varint
//! ```
//!
//! A run is of tasks with neighbouring keys whose attempts have the same number. A step leads from behind the last task
//! to the first one of the run; in an old row from the key of one receipt to that of the next. No task has the key 0, so
//! that no old row begins with it.
//!
//! Most receipts say what the ledger has for ever: the outcome and the fuel that were agreed on. Those take less than a
//! byte each.

use talka_core::{ids::OutcomeDigest, limits, packing::put_varint, quantities::Fuel};

use super::{Source, Undecodable, unzigzag, zigzag};

/// A receipt as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct StoredReceipt {
    /// Key of the task.
    pub(in crate::store) key: u64,
    /// Number of the attempt.
    pub(in crate::store) number: u32,
    pub(in crate::store) says: Says,
}

/// How the attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Says {
    /// Uninterrupted, with the outcome and the fuel of the final task.
    AsFinal,
    /// What is written here.
    Own { outcome: OutcomeDigest, fuel: Fuel, resumed: bool },
}

impl Says {
    fn form(self) -> u64 {
        match self {
            Self::AsFinal => 0,
            Self::Own { resumed: false, .. } => 1,
            Self::Own { resumed: true, .. } => 2,
        }
    }
}

impl StoredReceipt {
    /// Whether it is of the task behind that of `self` and can be in the same run.
    fn goes_on_with(&self, next: &Self) -> bool {
        self.key.checked_add(1) == Some(next.key)
            && self.number == next.number
            && self.says.form() == next.says.form()
    }
}

/// Appends the receipts of one message.
pub(in crate::store) fn put_receipts(out: &mut Vec<u8>, receipts: &[StoredReceipt]) {
    out.push(0);
    let mut end = 0u64;
    for run in receipts.chunk_by(StoredReceipt::goes_on_with) {
        let Some(first) = run.first() else { continue };
        let count = run.len() as u64;
        put_varint(out, count << 2 | first.says.form());
        put_varint(out, zigzag(first.key.wrapping_sub(end)));
        put_varint(out, first.number.into());
        end = first.key.wrapping_add(count);
        for receipt in run {
            if let Says::Own { outcome, fuel, .. } = receipt.says {
                out.extend_from_slice(outcome.as_bytes());
                put_varint(out, fuel.get());
            }
        }
    }
}

/// The inverse of [`put_receipts`]. One message has [`limits::REPORTS_MAX`] receipts at most.
pub(in crate::store) fn receipts(bytes: &[u8]) -> Result<Vec<StoredReceipt>, Undecodable> {
    let Some((0, rest)) = bytes.split_first() else { return old_receipts(bytes) };
    let mut source = Source(rest);
    let (mut receipts, mut end) = (Vec::new(), 0u64);
    while !source.is_empty() {
        let head = source.number()?;
        let first = end.wrapping_add(unzigzag(source.number()?));
        let (number, count) = (source.number32()?, head >> 2);
        end = first.checked_add(count).ok_or(Undecodable)?;
        if count > (limits::REPORTS_MAX - receipts.len()) as u64 {
            return Err(Undecodable);
        }
        for key in first..end {
            let says = match head & 3 {
                0 => Says::AsFinal,
                form @ (1 | 2) => {
                    let outcome = source.hash()?;
                    Says::Own { outcome, fuel: Fuel::new(source.number()?), resumed: form == 2 }
                }
                _ => return Err(Undecodable),
            };
            receipts.push(StoredReceipt { key, number, says });
        }
    }
    Ok(receipts)
}

fn old_receipts(bytes: &[u8]) -> Result<Vec<StoredReceipt>, Undecodable> {
    let mut source = Source(bytes);
    let (mut receipts, mut key) = (Vec::new(), 0u64);
    while !source.is_empty() {
        key = key.wrapping_add(unzigzag(source.number()?));
        let number = source.number()?;
        let resumed = number & 1 == 1;
        let number = u32::try_from(number >> 1).map_err(|_| Undecodable)?;
        let outcome = source.hash()?;
        let says = Says::Own { outcome, fuel: Fuel::new(source.number()?), resumed };
        receipts.push(StoredReceipt { key, number, says });
    }
    Ok(receipts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn own(byte: u8, resumed: bool) -> Says {
        Says::Own { outcome: OutcomeDigest::new([byte; 32]), fuel: Fuel::new(byte.into()), resumed }
    }

    #[test]
    fn a_message_that_says_what_the_ledger_says_takes_a_few_bytes() {
        let key = 7 << 32;
        let receipts: Vec<_> =
            (key..key + 512).map(|key| StoredReceipt { key, number: 1, says: Says::AsFinal }).collect();
        let mut bytes = vec![];
        put_receipts(&mut bytes, &receipts);
        assert!(bytes.len() <= 10, "{bytes:?}");
        assert_eq!(super::receipts(&bytes), Ok(receipts));
    }

    #[test]
    fn rows_of_before_are_read() {
        let mut bytes = vec![];
        for (step, number, byte) in [(5 << 32, 3 << 1 | 1, 8), (1, 1 << 1, 9)] {
            put_varint(&mut bytes, zigzag(step));
            put_varint(&mut bytes, number);
            bytes.extend_from_slice(&[byte; 32]);
            put_varint(&mut bytes, byte.into());
        }
        let expected = vec![
            StoredReceipt { key: 5 << 32, number: 3, says: own(8, true) },
            StoredReceipt { key: (5 << 32) + 1, number: 1, says: own(9, false) },
        ];
        assert_eq!(receipts(&bytes), Ok(expected));
    }

    #[test]
    fn a_row_that_claims_more_than_a_message_has_is_damage() {
        let mut bytes = vec![0];
        for _ in 0..2 {
            put_varint(&mut bytes, 300 << 2);
            put_varint(&mut bytes, zigzag(1));
            put_varint(&mut bytes, 1);
        }
        assert_eq!(receipts(&bytes), Err(Undecodable));
    }

    proptest! {
        #[test]
        fn receipts_round_trip(
            raw in prop::collection::vec((0_u64..20, 0_u32..3, 0_u8..3, any::<u8>(), any::<bool>()), 0..40),
            far: u64,
        ) {
            let mut key = far >> 1;
            let mut receipts = vec![];
            for (step, number, kind, byte, resumed) in raw {
                key = if step < 15 { key + 1 } else { far.wrapping_mul(step) >> 1 };
                let says = if kind < 2 { Says::AsFinal } else { own(byte, resumed) };
                receipts.push(StoredReceipt { key, number, says });
            }
            let mut bytes = vec![];
            put_receipts(&mut bytes, &receipts);
            prop_assert_eq!(super::receipts(&bytes), Ok(receipts));
        }

        #[test]
        fn damaged_rows_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = receipts(&bytes);
            let _ = receipts(&[&[0][..], &bytes].concat());
        }
    }
}
