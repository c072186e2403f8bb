//! Which entries one commit added to the ledger.
//!
//! ```text
//! each: count << 1: varint | step: zigzag varint      tasks with neighbouring keys
//!     | length << 1 | 1: varint | bytes               any other entry, as it is
//! ```
//!
//! A step leads from behind the last task to the first one of the run.

use talka_core::packing::put_varint;

use super::{Source, Undecodable, unzigzag, zigzag};

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        fn damaged_rows_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = ledger_items(&bytes);
        }
    }
}
