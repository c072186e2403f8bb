//! One checkpoint as a file.
//!
//! ```text
//! magic: 8 | key: 32 | record length: 4 | snapshot length: 8 | record | BLAKE3 of all this: 32
//! snapshot | BLAKE3 of the snapshot: 32
//! ```
//!
//! Numbers are little endian. The name is the key in hexadecimal, a dash, and the number of the checkpoint, 16 digits.
//! Its first part says by itself whether it is whole, so that whose it is can be read without the rest.

use std::io::Read;

use talka_core::limits;

use super::Key;

/// The last byte is raised whenever the layout changes.
const MAGIC: [u8; 8] = *b"talkack\x01";
const LENGTHS_AT: usize = MAGIC.len() + 32;
const RECORD_AT: usize = LENGTHS_AT + 12;
const HASH_BYTES: usize = 32;
/// A job's description, which came in one message, and some numbers.
const RECORD_BYTES_MAX: usize = limits::MESSAGE_BYTES_MAX + 1024;

/// The name of a file.
pub(super) fn name(key: Key, seq: u64) -> String {
    format!("{}-{seq:016x}", key.to_hex())
}

/// The inverse of [`name`].
pub(super) fn parse_name(text: &str) -> Option<(Key, u64)> {
    let (key, seq) = text.split_once('-')?;
    let key = Key(*blake3::Hash::from_hex(key).ok()?.as_bytes());
    let seq = u64::from_str_radix(seq, 16).ok()?;
    (name(key, seq) == text).then_some((key, seq))
}

/// The content of a file.
pub(super) fn encode(key: Key, record: &[u8], snapshot: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(RECORD_AT + record.len() + snapshot.len() + 2 * HASH_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&key.0);
    bytes.extend_from_slice(&u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&(snapshot.len() as u64).to_le_bytes());
    bytes.extend_from_slice(record);
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    bytes.extend_from_slice(snapshot);
    bytes.extend_from_slice(blake3::hash(snapshot).as_bytes());
    bytes
}

/// Reads whose checkpoint it is; `None` if that is damaged.
pub(super) fn read_record(mut from: impl Read, key: Key) -> Option<Vec<u8>> {
    let mut bytes = vec![0; RECORD_AT];
    from.read_exact(&mut bytes).ok()?;
    let (record, _) = lengths(&bytes)?;
    bytes.resize(RECORD_AT + record + HASH_BYTES, 0);
    from.read_exact(&mut bytes[RECORD_AT..]).ok()?;
    first_part(&bytes, key).map(|(record, _, _)| record.to_vec())
}

/// The snapshot in a file; `None` if anything of it is damaged.
pub(super) fn snapshot(bytes: &[u8], key: Key) -> Option<&[u8]> {
    let (_, length, rest) = first_part(bytes, key)?;
    let (snapshot, hash) = rest.split_at_checked(length)?;
    (blake3::hash(snapshot).as_bytes()[..] == *hash).then_some(snapshot)
}

/// Record, length of the snapshot, and what follows.
fn first_part(bytes: &[u8], key: Key) -> Option<(&[u8], usize, &[u8])> {
    let (record, snapshot) = lengths(bytes)?;
    let (covered, rest) = bytes.split_at_checked(RECORD_AT + record)?;
    let (hash, rest) = rest.split_first_chunk::<HASH_BYTES>()?;
    let is_whole = blake3::hash(covered) == *hash;
    let is_ours = covered.starts_with(&MAGIC) && covered[MAGIC.len()..LENGTHS_AT] == key.0;
    (is_whole && is_ours).then(|| (&covered[RECORD_AT..], snapshot, rest))
}

fn lengths(bytes: &[u8]) -> Option<(usize, usize)> {
    let lengths = bytes.get(LENGTHS_AT..RECORD_AT)?;
    let (record, snapshot) = lengths.split_first_chunk::<4>()?;
    let record = usize::try_from(u32::from_le_bytes(*record)).ok()?;
    let snapshot = usize::try_from(u64::from_le_bytes(snapshot.try_into().ok()?)).ok()?;
    (record <= RECORD_BYTES_MAX).then_some((record, snapshot))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key([7; 32]);

    #[test]
    fn names_are_read_back_and_nothing_else_is_one() {
        assert_eq!(parse_name(&name(KEY, 0xabc)), Some((KEY, 0xabc)));
        let good = name(KEY, 1);
        let wrong =
            [String::new(), "x-1".into(), good.to_uppercase() + "A", format!("{good}0"), good[1..].into()];
        for text in wrong.into_iter().chain([format!("{good}.1-2.tmp"), good.replace('-', "-+")]) {
            assert_eq!(parse_name(&text), None, "{text}");
        }
    }

    #[test]
    fn a_file_is_taken_apart() {
        for (record, body) in [(&b"record"[..], &b"snapshot"[..]), (b"", b""), (b"r", b"")] {
            let bytes = encode(KEY, record, body);
            assert_eq!(snapshot(&bytes, KEY), Some(body));
            assert_eq!(read_record(&bytes[..], KEY), Some(record.to_vec()));
            let first = &bytes[..bytes.len() - body.len() - HASH_BYTES];
            assert_eq!(read_record(first, KEY), Some(record.to_vec()), "without the rest");
        }
    }

    #[test]
    fn whatever_is_damaged_is_noticed() {
        let bytes = encode(KEY, b"record", b"snapshot");
        for length in 0..bytes.len() {
            assert_eq!(snapshot(&bytes[..length], KEY), None, "cut at {length}");
        }
        assert_eq!(snapshot(&[&bytes[..], b"x"].concat(), KEY), None);
        assert_eq!(snapshot(&bytes, Key([8; 32])), None, "that of another task");
        assert_eq!(read_record(&bytes[..], Key([8; 32])), None);
        for position in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[position] ^= 0x10;
            assert_eq!(snapshot(&flipped, KEY), None, "{position}");
            if position < bytes.len() - 8 - HASH_BYTES {
                assert_eq!(read_record(&flipped[..], KEY), None, "{position}");
            }
        }
    }

    #[test]
    fn lengths_from_nowhere_allocate_nothing() {
        let mut bytes = encode(KEY, b"", b"");
        bytes[LENGTHS_AT..RECORD_AT].fill(0xff);
        assert_eq!(snapshot(&bytes, KEY), None);
        assert_eq!(read_record(&bytes[..], KEY), None);
    }
}
