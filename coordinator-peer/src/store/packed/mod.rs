//! The compact form of the rows that there are many of.
//!
//! Numbers are LEB128, as in [`talka_core::packing`]; everything else is framed by its length or has a fixed
//! one. A row that was written once is read by every later version: a form may be added, never changed.

mod entry;
mod ledger;
mod receipts;
mod report;

use talka_core::{
    coordinator::LeaseItem,
    ids::BlobHash,
    job::BlobRef,
    outcome::Exit,
    packing::{put_varint, take_varint},
    quantities::Bytes,
};

pub(super) use self::{
    entry::{Entry, OutputForm, entry, kept_outcome, put_entry},
    ledger::{LedgerItem, LedgerItems, ledger_items},
    receipts::{Says, StoredReceipt, put_receipts, receipts},
    report::{output, put_output, put_report, report},
};

/// Bytes are not what this module writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Undecodable;

/// What is left to be read.
struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    fn number(&mut self) -> Result<u64, Undecodable> {
        take_varint(&mut self.0).map_err(|_| Undecodable)
    }

    fn number32(&mut self) -> Result<u32, Undecodable> {
        u32::try_from(self.number()?).map_err(|_| Undecodable)
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Undecodable> {
        let count = usize::try_from(count).map_err(|_| Undecodable)?;
        let (front, back) = self.0.split_at_checked(count).ok_or(Undecodable)?;
        self.0 = back;
        Ok(front)
    }

    /// Bytes that are preceded by their length.
    fn framed(&mut self) -> Result<&'a [u8], Undecodable> {
        let length = self.number()?;
        self.take(length)
    }

    fn hash<T: TryFrom<&'a [u8]>>(&mut self) -> Result<T, Undecodable> {
        T::try_from(self.take(32)?).map_err(|_| Undecodable)
    }

    fn exit(&mut self) -> Result<Exit, Undecodable> {
        let kind = u8::try_from(self.number()?).map_err(|_| Undecodable)?;
        Exit::from_code((kind, self.number32()?)).ok_or(Undecodable)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing may be left.
    fn finish<T>(self, value: T) -> Result<T, Undecodable> {
        if self.is_empty() { Ok(value) } else { Err(Undecodable) }
    }
}

fn put_framed(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_exit(out: &mut Vec<u8>, exit: Exit) {
    let (kind, number) = exit.to_code();
    put_varint(out, kind.into());
    put_varint(out, number.into());
}

/// Appends a blob: hash, size.
pub(super) fn put_blob(out: &mut Vec<u8>, blob: &BlobRef) {
    out.extend_from_slice(blob.hash.as_bytes());
    put_varint(out, blob.size.get());
}

/// The inverse of [`put_blob`].
pub(super) fn blob(bytes: &[u8]) -> Result<BlobRef, Undecodable> {
    let mut source = Source(bytes);
    let hash: BlobHash = source.hash()?;
    let size = Bytes::new(source.number()?);
    source.finish(BlobRef { hash, size })
}

/// Appends the items of a lease: (difference to the position before, number of the attempt) each. Leases
/// run along the job, so that an item mostly takes two bytes.
pub(super) fn put_items(out: &mut Vec<u8>, items: &[LeaseItem]) {
    let mut before = 0u64;
    for item in items {
        put_varint(out, zigzag(item.index.wrapping_sub(before)));
        put_varint(out, item.number.into());
        before = item.index;
    }
}

/// The inverse of [`put_items`].
pub(super) fn items(bytes: &[u8]) -> Result<Vec<LeaseItem>, Undecodable> {
    let mut source = Source(bytes);
    let mut items = Vec::with_capacity(bytes.len() / 2);
    let mut index = 0u64;
    while !source.is_empty() {
        index = index.wrapping_add(unzigzag(source.number()?));
        items.push(LeaseItem { index, number: source.number32()? });
    }
    Ok(items)
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

    use super::*;

    proptest! {
        #[test]
        fn items_round_trip(raw in prop::collection::vec((any::<u64>(), any::<u32>()), 0..20)) {
            let given: Vec<_> =
                raw.into_iter().map(|(index, number)| LeaseItem { index, number }).collect();
            let mut bytes = vec![];
            put_items(&mut bytes, &given);
            prop_assert_eq!(items(&bytes), Ok(given));
        }
    }

    #[test]
    fn an_item_in_a_run_takes_two_bytes() {
        let run: Vec<_> = (1000..1512).map(|index| LeaseItem { index, number: 2 }).collect();
        let mut bytes = vec![];
        put_items(&mut bytes, &run);
        assert_eq!(bytes.len(), 2 * run.len() + 1);
    }
}
