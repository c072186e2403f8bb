//! The form in which machine code lies on the disk: a header, the code, and a MAC over both.
//!
//! Machine code is executed, so nothing of a file is believed before its MAC is right: not a length, not a
//! name. The MAC is computed over the very bytes that are used afterwards, and its key
//! belongs to this user on this machine ([`Key`]).
//!
//! ```text
//! magic 8 · format 4 · module 32 · engine class 32 · transformed module 32 · length of the code 8 · code · MAC 32
//! ```

use std::io;

use bytes::{Buf as _, BufMut as _, Bytes};
use talka_core::{ids::BlobHash, limits};

use super::{
    super::{engine::EngineClass, job::Program},
    key::Key,
};

const MAGIC: [u8; 8] = *b"talka\0mc";
/// Version of this form.
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = MAGIC.len() + 4 + 3 * 32 + 8;
const MAC_BYTES: usize = 32;

/// Longest file.
pub(super) const FILE_BYTES_MAX: u64 = limits::COMPILED_BYTES_MAX + (HEADER_BYTES + MAC_BYTES) as u64;

/// Why a file is not used. The module is compiled again, and the file replaced.
#[derive(Debug, thiserror::Error)]
pub(super) enum Rejected {
    /// A symbolic link, a directory, a pipe.
    #[error("it is not a regular file")]
    NotAFile,
    /// The machine can't or may not read it.
    #[error("it can't be read")]
    Read(#[source] io::Error),
    /// Shorter or longer than any file of this kind.
    #[error("{0} bytes can't be one")]
    Size(u64),
    /// Some byte is not what it was, or it was written with another key.
    #[error("it is damaged, or somebody else wrote it")]
    Mac,
    /// Another version of this program wrote it, with the same key.
    #[error("it has another form")]
    Format,
    /// It has the name of another module's file.
    #[error("it belongs to another module")]
    Module,
    /// It has the name of another engine's file.
    #[error("it belongs to another engine")]
    Class,
}

/// What is written around the code.
pub(super) struct Seal {
    pub(super) header: Vec<u8>,
    pub(super) mac: [u8; MAC_BYTES],
}

/// Seals a program that was compiled just now.
pub(super) fn seal(key: &Key, class: EngineClass, program: &Program) -> Seal {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.put_slice(&MAGIC);
    header.put_u32_le(FORMAT);
    header.put_slice(program.hash.as_bytes());
    header.put_slice(class.as_bytes());
    header.put_slice(program.transformed.as_bytes());
    header.put_u64_le(program.size() as u64);
    let mac = *key.mac(&[&header, &program.compiled]).as_bytes();
    Seal { header, mac }
}

/// The program in a file that is to hold this module, compiled for this class of engines.
pub(super) fn open(
    key: &Key,
    class: EngineClass,
    module: BlobHash,
    file: Vec<u8>,
) -> Result<Program, Rejected> {
    let size = file.len() as u64;
    let code_end = file.len().checked_sub(MAC_BYTES).filter(|end| *end >= HEADER_BYTES);
    let code_end = code_end.filter(|_| size <= FILE_BYTES_MAX).ok_or(Rejected::Size(size))?;
    let file = Bytes::from(file);
    let mac = <[u8; MAC_BYTES]>::try_from(&file[code_end..]).map_err(|_| Rejected::Size(size))?;
    // In constant time.
    if key.mac(&[&file[..code_end]]) != blake3::Hash::from_bytes(mac) {
        return Err(Rejected::Mac);
    }
    let mut header = file.slice(..HEADER_BYTES);
    if header.split_to(MAGIC.len()) != MAGIC[..] || header.get_u32_le() != FORMAT {
        return Err(Rejected::Format);
    }
    if header.split_to(32) != module.as_bytes()[..] {
        return Err(Rejected::Module);
    }
    if header.split_to(32) != class.as_bytes()[..] {
        return Err(Rejected::Class);
    }
    let transformed = BlobHash::try_from(&header.split_to(32)[..]).map_err(|_| Rejected::Format)?;
    let compiled = file.slice(HEADER_BYTES..code_end);
    if header.get_u64_le() != compiled.len() as u64 {
        return Err(Rejected::Format);
    }
    Ok(Program { hash: module, transformed, compiled })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key::new([7; 32]);
    const CLASS: EngineClass = EngineClass::new([1; 32]);
    const MODULE: BlobHash = BlobHash::new([2; 32]);

    fn sealed(code: &'static [u8]) -> Vec<u8> {
        let program =
            Program { hash: MODULE, transformed: BlobHash::new([3; 32]), compiled: Bytes::from_static(code) };
        let Seal { header, mac } = seal(&KEY, CLASS, &program);
        assert_eq!((header.len(), mac.len()), (HEADER_BYTES, MAC_BYTES));
        [&header[..], code, &mac[..]].concat()
    }

    #[test]
    fn what_was_sealed_comes_back() {
        for code in [&b""[..], b"machine code"] {
            let program = open(&KEY, CLASS, MODULE, sealed(code)).expect("intact");
            assert_eq!(program.compiled, code);
            assert_eq!((program.hash, program.transformed), (MODULE, BlobHash::new([3; 32])));
        }
    }

    #[test]
    fn no_flipped_bit_and_no_other_length_gets_through() {
        let file = sealed(b"machine code");
        for position in 0..file.len() {
            for bit in 0..8 {
                let mut flipped = file.clone();
                flipped[position] ^= 1 << bit;
                let result = open(&KEY, CLASS, MODULE, flipped);
                assert!(matches!(result, Err(Rejected::Mac)), "byte {position}, bit {bit}");
            }
        }
        for length in 0..file.len() {
            let result = open(&KEY, CLASS, MODULE, file[..length].to_vec());
            assert!(matches!(result, Err(Rejected::Mac | Rejected::Size(_))), "{length}");
        }
        let longer = [&file[..], b"\0"].concat();
        assert!(matches!(open(&KEY, CLASS, MODULE, longer), Err(Rejected::Mac)));
    }

    #[test]
    fn a_file_is_good_for_its_own_key_module_and_engine_only() {
        let open = |key: Key, class: u8, module: u8| {
            let (class, module) = (EngineClass::new([class; 32]), BlobHash::new([module; 32]));
            open(&key, class, module, sealed(b"machine code"))
        };
        assert!(open(KEY, 1, 2).is_ok());
        assert!(matches!(open(Key::new([8; 32]), 1, 2), Err(Rejected::Mac)));
        assert!(matches!(open(KEY, 1, 9), Err(Rejected::Module)));
        assert!(matches!(open(KEY, 9, 2), Err(Rejected::Class)));
    }

    #[test]
    fn a_file_of_another_form_is_refused_although_its_mac_is_right() {
        let check = |position: usize| {
            let mut file = sealed(b"machine code");
            file[position] ^= 1;
            let code_end = file.len() - MAC_BYTES;
            let mac = KEY.mac(&[&file[..code_end]]);
            file[code_end..].copy_from_slice(mac.as_bytes());
            let result = open(&KEY, CLASS, MODULE, file);
            assert!(matches!(result, Err(Rejected::Format)), "{position}");
        };
        let (magic, format, length) = (0, MAGIC.len(), HEADER_BYTES - 8);
        [magic, format, length, length + 7].into_iter().for_each(check);
    }
}
