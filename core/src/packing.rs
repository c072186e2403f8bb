//! The packed inputs of a job: many small inputs as one blob, plus an index of their lengths and names.
//!
//! Task *i* is a byte range of the packed blob, so that any peer can fetch any verified range from any
//! peer that has it, and neighbouring tasks are one contiguous stretch. The index is a blob of its own,
//! which only the coordinator and the submitter read:
//!
//! ```text
//! "TLKI" 0x01 | count: varint | count × length: varint | named: 0|1 | count × (length: varint, UTF-8)
//! ```

use std::ops::Range;

use crate::limits;

const MAGIC: &[u8; 5] = b"TLKI\x01";

/// The index does not describe packed inputs. The submitter has to build it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Another format, or another version of it.
    #[error("not an index of packed inputs")]
    Magic,
    /// It ends in mid-entry, or goes on after the last one.
    #[error("the index of packed inputs is cut off or too long")]
    Length,
    /// More entries than a job may have tasks.
    #[error("the index lists {count} inputs, above the limit of {max}")]
    Count {
        /// Entries claimed.
        count: u64,
        /// Entries allowed.
        max: u64,
    },
    /// One input is longer than a task may read.
    #[error("input {position} has {length} bytes, above the limit of {max}")]
    Input {
        /// Position in the job.
        position: u64,
        /// Its length in bytes.
        length: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// The lengths overflow, or a name is not UTF-8.
    #[error("the index of packed inputs is damaged")]
    Damaged,
}

/// Where each input lies, and what it is called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InputIndex {
    /// `ends[i]` is where input *i* ends; it starts where the one before ends.
    ends: Vec<u64>,
    /// All names in one string, or nothing.
    names: String,
    /// `name_ends[i]` is where the name of input *i* ends. Empty when inputs have no names.
    name_ends: Vec<usize>,
}

impl InputIndex {
    /// Appends an input. Either all inputs have names or none has.
    pub fn push(&mut self, length: u64, name: Option<&str>) {
        self.ends.push(self.total() + length);
        if let Some(name) = name {
            self.names.push_str(name);
            self.name_ends.push(self.names.len());
        }
    }

    /// Number of inputs.
    pub fn count(&self) -> u64 {
        self.ends.len() as u64
    }

    /// Length of the packed blob in bytes.
    pub fn total(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The byte range of one input; `None` beyond the last.
    pub fn range(&self, position: u64) -> Option<Range<u64>> {
        let position = usize::try_from(position).ok()?;
        let end = *self.ends.get(position)?;
        let start = position.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(start..end)
    }

    /// The name of one input, if inputs have names.
    pub fn name(&self, position: u64) -> Option<&str> {
        let position = usize::try_from(position).ok()?;
        let end = *self.name_ends.get(position)?;
        let start = position.checked_sub(1).map_or(0, |before| self.name_ends[before]);
        Some(&self.names[start..end])
    }

    /// The blob of this index.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        put_varint(&mut out, self.count());
        let mut start = 0;
        for end in &self.ends {
            put_varint(&mut out, end - start);
            start = *end;
        }
        out.push(u8::from(!self.name_ends.is_empty()));
        let mut start = 0;
        for end in &self.name_ends {
            put_varint(&mut out, (end - start) as u64);
            out.extend_from_slice(&self.names.as_bytes()[start..*end]);
            start = *end;
        }
        out
    }

    /// Reads an index that a submitter sent. Allocates no more than a small multiple of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let mut rest = bytes.strip_prefix(MAGIC.as_slice()).ok_or(IndexError::Magic)?;
        let count = take_varint(&mut rest)?;
        let max = limits::JOB_PACKED_TASKS_MAX;
        if count > max {
            return Err(IndexError::Count { count, max });
        }
        if count > rest.len() as u64 {
            return Err(IndexError::Length);
        }
        let mut index = Self::default();
        for position in 0..count {
            let length = take_varint(&mut rest)?;
            let max = limits::INPUT_BYTES_MAX;
            if length > max {
                return Err(IndexError::Input { position, length, max });
            }
            let end = index.total().checked_add(length).ok_or(IndexError::Damaged)?;
            index.ends.push(end);
        }
        match take(&mut rest, 1)? {
            [0] => {}
            [1] => {
                for _ in 0..count {
                    let length = take_varint(&mut rest)?;
                    let name = take(&mut rest, usize::try_from(length).map_err(|_| IndexError::Length)?)?;
                    index.names.push_str(std::str::from_utf8(name).map_err(|_| IndexError::Damaged)?);
                    index.name_ends.push(index.names.len());
                }
            }
            _ => return Err(IndexError::Damaged),
        }
        if rest.is_empty() { Ok(index) } else { Err(IndexError::Length) }
    }
}

/// Appends `number` in LEB128.
pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Takes a LEB128 number from the front of `rest`.
pub fn take_varint(rest: &mut &[u8]) -> Result<u64, IndexError> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        let low = u64::from(byte & 0x7f);
        if shift == 63 && low > 1 {
            return Err(IndexError::Damaged);
        }
        number |= low << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(IndexError::Damaged)
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], IndexError> {
    let (front, back) = rest.split_at_checked(count).ok_or(IndexError::Length)?;
    *rest = back;
    Ok(front)
}

/// Whether the inputs of a lease travel inside it: all of them, when each is small and they are few enough. Otherwise
/// workers fetch them, and pass them on to one another.
pub fn travels_in_lease(inputs: &[Range<u64>]) -> bool {
    let lengths = || inputs.iter().map(|input| input.end - input.start);
    let total: u64 = lengths().sum();
    lengths().all(|length| length <= limits::INLINE_INPUT_BYTES_MAX)
        && total <= limits::LEASE_INPUTS_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            inputs in prop::collection::vec((0u64..100_000, "[a-zä/]{0,12}"), 0..50),
            named: bool,
        ) {
            let mut index = InputIndex::default();
            for (length, name) in &inputs {
                index.push(*length, named.then_some(name.as_str()));
            }
            prop_assert_eq!(InputIndex::decode(&index.encode()), Ok(index.clone()));
            for (position, (length, name)) in (0..).zip(&inputs) {
                let range = index.range(position).expect("listed");
                prop_assert_eq!(range.end - range.start, *length);
                prop_assert_eq!(index.name(position), named.then_some(name.as_str()));
            }
            prop_assert_eq!(index.range(inputs.len() as u64), None);
        }

        #[test]
        fn hostile_bytes_are_refused_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200), prefix: bool,
        ) {
            let mut hostile = if prefix { MAGIC.to_vec() } else { vec![] };
            hostile.extend(bytes);
            if let Ok(index) = InputIndex::decode(&hostile) {
                prop_assert!(index.count() <= hostile.len() as u64);
            }
        }

        #[test]
        fn what_travels_fits_into_a_message(lengths in prop::collection::vec(0..20_000_u64, 0..600)) {
            let inputs: Vec<_> = lengths.iter().map(|length| 7..7 + length).collect();
            let total: u64 = lengths.iter().sum();
            let small = lengths.iter().all(|length| *length <= limits::INLINE_INPUT_BYTES_MAX);
            let items = lengths.len() <= limits::LEASE_ITEMS_MAX;
            prop_assert_eq!(travels_in_lease(&inputs), small && total <= limits::LEASE_INPUTS_BYTES_MAX);
            // An item takes at most 40 bytes beside its input.
            let fits = total + 40 * lengths.len() as u64 <= limits::MESSAGE_BYTES_MAX as u64;
            prop_assert!(fits || !items || !travels_in_lease(&inputs));
        }

        #[test]
        fn varints_round_trip(number: u64) {
            let mut bytes = vec![];
            put_varint(&mut bytes, number);
            prop_assert_eq!(take_varint(&mut bytes.as_slice()), Ok(number));
        }
    }

    #[test]
    fn each_damage_has_its_name() {
        let mut index = InputIndex::default();
        index.push(3, Some("a"));
        let good = index.encode();
        assert_eq!(InputIndex::decode(b"PK\x03\x04"), Err(IndexError::Magic));
        assert_eq!(InputIndex::decode(&good[..good.len() - 1]), Err(IndexError::Length));
        assert_eq!(InputIndex::decode(&[&good[..], b"x"].concat()), Err(IndexError::Length));
        let mut huge = MAGIC.to_vec();
        put_varint(&mut huge, u64::MAX);
        assert!(matches!(InputIndex::decode(&huge), Err(IndexError::Count { .. })));
    }
}
