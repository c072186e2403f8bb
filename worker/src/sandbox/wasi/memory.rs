//! The program's memory as its host calls point into it.
//!
//! A pointer outside of memory ends the program with [`Trap::BadPointer`]: no compiler emits such a call,
//! and an error code would only be ignored. A range of length 0 is never looked at, wherever it points.

use talka_core::outcome::{Exit, Trap};

use super::super::world::{Answer, Errno, Fault};

/// Most buffers of one vectored call, as on Linux.
const VECTORS_MAX: u32 = 1024;

const BAD_POINTER: Fault = Fault::End(Exit::Trap(Trap::BadPointer));

/// The linear memory of a program during one host call.
#[derive(Debug)]
pub(super) struct GuestMemory<'a>(pub(super) &'a mut [u8]);

impl GuestMemory<'_> {
    /// `length` bytes from `pointer` on.
    pub(super) fn bytes(&self, pointer: u32, length: u32) -> Answer<&[u8]> {
        let range = range(pointer, length)?;
        self.0.get(range).ok_or(BAD_POINTER)
    }

    /// `length` bytes from `pointer` on, to be written.
    pub(super) fn bytes_mut(&mut self, pointer: u32, length: u32) -> Answer<&mut [u8]> {
        let range = range(pointer, length)?;
        self.0.get_mut(range).ok_or(BAD_POINTER)
    }

    /// Copies `data` to `pointer`.
    pub(super) fn write(&mut self, pointer: u32, data: &[u8]) -> Answer<()> {
        let length = u32::try_from(data.len()).map_err(|_| BAD_POINTER)?;
        self.bytes_mut(pointer, length)?.copy_from_slice(data);
        Ok(())
    }

    /// Writes a 32-bit number.
    pub(super) fn write_u32(&mut self, pointer: u32, number: u32) -> Answer<()> {
        self.write(pointer, &number.to_le_bytes())
    }

    /// Writes a 64-bit number.
    pub(super) fn write_u64(&mut self, pointer: u32, number: u64) -> Answer<()> {
        self.write(pointer, &number.to_le_bytes())
    }

    /// Writes a count of something in memory.
    pub(super) fn write_size(&mut self, pointer: u32, size: usize) -> Answer<()> {
        self.write_u32(pointer, u32::try_from(size).map_err(|_| Errno::Overflow)?)
    }

    /// The buffers of a vectored call, one after the other.
    pub(super) fn vector(&self, pointer: u32, position: u32) -> Answer<(u32, u32)> {
        let record = self.bytes(offset(pointer, u64::from(position) * 8)?, 8)?;
        Ok((u32_at(record, 0), u32_at(record, 4)))
    }
}

/// Refuses a vectored call with too many buffers.
pub(super) fn check_vectors(count: u32) -> Answer<()> {
    if count > VECTORS_MAX { Err(Errno::Inval.into()) } else { Ok(()) }
}

/// `pointer + distance`, which must not wrap around.
pub(super) fn offset(pointer: u32, distance: u64) -> Answer<u32> {
    u32::try_from(u64::from(pointer) + distance).map_err(|_| BAD_POINTER)
}

/// The number at a fixed place of a record; 0 beyond its end.
pub(super) fn u32_at(record: &[u8], at: usize) -> u32 {
    record.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// The number at a fixed place of a record; 0 beyond its end.
pub(super) fn u64_at(record: &[u8], at: usize) -> u64 {
    record.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn range(pointer: u32, length: u32) -> Answer<std::ops::Range<usize>> {
    if length == 0 {
        return Ok(0..0);
    }
    let start = usize::try_from(pointer).map_err(|_| BAD_POINTER)?;
    let end = usize::try_from(u64::from(pointer) + u64::from(length)).map_err(|_| BAD_POINTER)?;
    Ok(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked_at_both_ends_and_never_wrap() {
        let mut bytes = vec![7; 100];
        let memory = GuestMemory(&mut bytes);
        for (pointer, length) in [(0, 0), (0, 100), (99, 1), (100, 0), (u32::MAX, 0)] {
            assert!(memory.bytes(pointer, length).is_ok(), "{pointer} {length}");
        }
        for (pointer, length) in
            [(0, 101), (100, 1), (99, 2), (u32::MAX, 1), (1 << 31, 1 << 31), (50, u32::MAX)]
        {
            assert_eq!(memory.bytes(pointer, length), Err(BAD_POINTER), "{pointer} {length}");
        }
        assert_eq!(memory.vector(96, 0), Err(BAD_POINTER));
        assert_eq!(memory.vector(u32::MAX, 1), Err(BAD_POINTER));
    }
}
