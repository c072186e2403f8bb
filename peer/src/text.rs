//! The text forms of bytes.
//!
//! Tickets and secrets are base32 of RFC 4648, lower case and without padding, so that one double click selects
//! all of it. It is strict: each string of bytes has exactly one text. Everything else is hexadecimal.

use data_encoding::BASE32_NOPAD;

/// Base32.
pub fn base32(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

/// The bytes of a text that [`base32`] made; `None` for any other.
pub fn from_base32(text: &[u8]) -> Option<Vec<u8>> {
    let canonical = !text.iter().any(u8::is_ascii_uppercase);
    canonical.then(|| BASE32_NOPAD.decode(&text.to_ascii_uppercase()).ok()).flatten()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
