//! Who a peer is: an Ed25519 key, made at the first start and kept in its data directory.
//!
//! The public half is the peer's name ([`PeerId`]), its TLS identity (iroh's `EndpointId`) and what its
//! signatures are checked with: there are no accounts and no passwords. Whoever can read the file *is* the
//! peer, so a file that others can read is refused, not mended: it may have been copied already.

use std::{
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use ed25519_dalek::VerifyingKey;
use iroh::{EndpointId, SecretKey};
use talka_core::ids::PeerId;

use crate::files::{Existing, write_durably};

/// Name of the key file in a peer's data directory.
pub const KEY_FILE: &str = "key";

/// Length of the key file: 64 hexadecimal digits and a newline.
const KEY_FILE_BYTES: u64 = 65;

/// The key can't be used. Each message names the file and what to do; a retry makes no sense before that.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file can't be read.
    #[error("cannot read the key file {}", path.display())]
    Read {
        /// The key file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A new key can't be stored.
    #[error("cannot write the key file {}: its directory must be writable", path.display())]
    Write {
        /// The key file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read it, or could have written it.
    #[error(
        "the key file {} is open to other users (mode {mode:04o}): run `chmod 600` on it if nobody has copied it, or \
         move it away to become a new peer",
        path.display()
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds something else.
    #[error(
        "{} is not a key file (64 hexadecimal digits): restore it from a backup, or move it away to become a new peer",
        path.display()
    )]
    Malformed {
        /// The key file.
        path: PathBuf,
    },
}

/// A peer's own key. Its `Debug` shows the public half only.
#[derive(Clone)]
pub struct Identity(SecretKey);

impl Identity {
    /// A fresh key that is kept nowhere: for tests and one-off commands.
    pub fn ephemeral() -> Self {
        Self(SecretKey::generate())
    }

    /// A secret for one purpose, which `context` names: the same as long as the key is, and no way back to it
    /// (BLAKE3 in its mode for deriving keys).
    pub fn derived_key(&self, context: &str) -> [u8; 32] {
        blake3::derive_key(context, &self.0.to_bytes())
    }

    /// The key of `data_dir`, made now with mode 0600 if it has none yet.
    pub fn load_or_create(data_dir: &Path) -> Result<Self, IdentityError> {
        let path = data_dir.join(KEY_FILE);
        if let Some(identity) = Self::load(&path)? {
            return Ok(identity);
        }
        let identity = Self::ephemeral();
        let text = data_encoding::HEXLOWER.encode(&identity.0.to_bytes()) + "\n";
        match write_durably(&path, text.as_bytes(), Existing::Keep) {
            Ok(()) => Ok(identity),
            // Another process was faster: its key is the one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let gone = || IdentityError::Read { path: path.clone(), source: error };
                Self::load(&path)?.ok_or_else(gone)
            }
            Err(source) => Err(IdentityError::Write { path, source }),
        }
    }

    /// The key of `data_dir`; `None` if it has none.
    pub fn load_existing(data_dir: &Path) -> Result<Option<Self>, IdentityError> {
        Self::load(&data_dir.join(KEY_FILE))
    }

    /// The key in this file; `None` when there is no such file.
    fn load(path: &Path) -> Result<Option<Self>, IdentityError> {
        let failed = |source| IdentityError::Read { path: path.to_owned(), source };
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        refuse_exposed(&file, path)?;
        // One byte more than fits, so that a longer file is seen to be one.
        let mut text = Vec::new();
        file.take(KEY_FILE_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
        let bytes = data_encoding::HEXLOWER.decode(text.trim_ascii_end()).ok();
        match bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
            Some(secret) => Ok(Some(Self(SecretKey::from_bytes(&secret)))),
            None => Err(IdentityError::Malformed { path: path.to_owned() }),
        }
    }

    /// The public half: the peer's name.
    pub fn peer_id(&self) -> PeerId {
        peer_id(self.0.public())
    }

    /// Signs `message`. Callers prefix it with what it is, so that a signature of one kind is never one of
    /// another.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }

    /// What iroh authenticates connections with.
    pub(crate) fn secret_key(&self) -> SecretKey {
        self.0.clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.peer_id().short())
    }
}

#[cfg(unix)]
fn refuse_exposed(file: &fs::File, path: &Path) -> Result<(), IdentityError> {
    use std::os::unix::fs::PermissionsExt;

    let path = path.to_owned();
    match file.metadata() {
        Err(source) => Err(IdentityError::Read { path, source }),
        Ok(metadata) => {
            let mode = metadata.permissions().mode() & 0o7777;
            let of_others = mode & 0o077;
            if of_others == 0 { Ok(()) } else { Err(IdentityError::Exposed { path, mode }) }
        }
    }
}

#[cfg(not(unix))]
fn refuse_exposed(_file: &fs::File, _path: &Path) -> Result<(), IdentityError> {
    Ok(())
}

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Wraps the raw bytes; whether it is one shows in [`verify`].
    pub const fn new(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({}…)", data_encoding::HEXLOWER.encode(&self.0[..5]))
    }
}

/// The signature is not this peer's over this message. Never worth a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a signature of peer {}", signer.short())]
pub struct BadSignature {
    /// Who was said to have signed.
    pub signer: PeerId,
}

/// A peer whose signatures are checked again and again: taking its key apart is a good part of checking one.
#[derive(Debug, Clone)]
pub struct Verifier {
    signer: PeerId,
    /// None if no key has that name.
    key: Option<VerifyingKey>,
}

impl Verifier {
    /// Of nobody, if these bytes are no public key: then no signature is good.
    pub fn new(signer: PeerId) -> Self {
        Self { signer, key: VerifyingKey::from_bytes(signer.as_bytes()).ok() }
    }

    /// Whose signatures it checks.
    pub fn signer(&self) -> PeerId {
        self.signer
    }

    /// Checks that this peer signed `message`. Keys and signatures of small order are refused, as iroh does.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), BadSignature> {
        let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
        let verified = self.key.as_ref().and_then(|key| key.verify_strict(message, &signature).ok());
        verified.ok_or(BadSignature { signer: self.signer })
    }
}

/// Checks that `signer` signed `message`.
pub fn verify(signer: PeerId, message: &[u8], signature: &Signature) -> Result<(), BadSignature> {
    Verifier::new(signer).verify(message, signature)
}

/// These 32 bytes are no public key, so no peer has that name. Never worth a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not the public key of a peer")]
pub struct NotAKey(pub PeerId);

/// The name of the peer that iroh calls `id`.
pub fn peer_id(id: EndpointId) -> PeerId {
    PeerId::new(*id.as_bytes())
}

/// What iroh calls `peer`. About half of all 32-byte strings are keys.
pub fn endpoint_id(peer: PeerId) -> Result<EndpointId, NotAKey> {
    EndpointId::from_bytes(peer.as_bytes()).map_err(|_| NotAKey(peer))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A name that no key has.
    pub(crate) fn nobody() -> PeerId {
        let mut names = (0..=u8::MAX).map(|byte| PeerId::new([byte; 32]));
        names.find(|peer| endpoint_id(*peer).is_err()).expect("half of all strings are no keys")
    }

    #[test]
    fn a_key_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let data_dir = dir.path().join("new");
        let first = Identity::load_or_create(&data_dir).expect("made");
        let second = Identity::load_or_create(&data_dir).expect("found");
        assert_eq!(first.peer_id(), second.peer_id());
        assert_ne!(first.peer_id(), Identity::ephemeral().peer_id());
        assert_eq!(endpoint_id(first.peer_id()).map(peer_id), Ok(first.peer_id()));
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_that_others_can_read_is_refused_with_the_remedy() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().expect("a directory");
        Identity::load_or_create(dir.path()).expect("made");
        let path = dir.path().join(KEY_FILE);
        let mode = fs::metadata(&path).expect("there").permissions().mode() & 0o7777;
        assert_eq!(mode, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("ours");
        let error = Identity::load_or_create(dir.path()).expect_err("open to the group").to_string();
        assert!(error.contains("mode 0640") && error.contains("chmod 600"), "{error}");
        assert!(error.contains(path.to_str().expect("text")), "{error}");
    }

    #[test]
    fn a_file_that_is_no_key_is_refused_and_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(KEY_FILE);
        let key = "ab".repeat(32);
        let wrong =
            ["", "hello", &key[1..], &format!("{key}00"), &format!("{}\n", "zz".repeat(32)), "\u{fffd}"];
        for text in wrong {
            write_durably(&path, text.as_bytes(), Existing::Replace).expect("written");
            let error = Identity::load_or_create(dir.path()).expect_err(text);
            assert!(matches!(error, IdentityError::Malformed { .. }), "{text:?}: {error}");
            assert_eq!(fs::read(&path).expect("kept"), text.as_bytes());
        }
    }

    #[test]
    fn nobody_has_signed_anything() {
        let signature = Identity::ephemeral().sign(b"message");
        assert!(verify(nobody(), b"message", &signature).is_err());
        // A key of small order would have "signed" any message with the signature that is all zeros but for its own form.
        let (mut small, mut signature) = ([0; 32], [0; 64]);
        (small[0], signature[0]) = (1, 1);
        assert!(verify(PeerId::new(small), b"message", &Signature::new(signature)).is_err());
    }

    #[test]
    fn a_signature_binds_signer_and_message() {
        let (signer, other) = (Identity::ephemeral(), Identity::ephemeral());
        let signature = signer.sign(b"message");
        assert_eq!(verify(signer.peer_id(), b"message", &signature), Ok(()));
        assert!(verify(signer.peer_id(), b"massage", &signature).is_err());
        assert!(verify(other.peer_id(), b"message", &signature).is_err());
        let mut bytes = *signature.as_bytes();
        bytes[0] ^= 1;
        assert!(verify(signer.peer_id(), b"message", &Signature::new(bytes)).is_err());
        assert!(verify(nobody(), b"message", &signature).is_err());
    }
}
