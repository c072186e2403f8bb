//! The key that tells this machine's own machine code from anybody else's.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use talka_peer::files::{Existing, write_durably};

const KEY_BYTES: usize = 32;

/// Permission bits of a file that its owner alone can read and write, or less.
const OTHERS: u32 = 0o077;

/// Seals what the compile process wrote. Never leaves this process and its file.
#[derive(Clone)]
pub(super) struct Key([u8; KEY_BYTES]);

/// Where a key came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Its file was there.
    Known,
    /// There was none.
    New,
    /// What was there was no key, or others could read it: whatever was sealed before can't be trusted.
    Replaced,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    #[cfg(test)]
    pub(super) const fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// The key in this file; a new one if there is none, or no good one. Of two processes that
    /// make one at the same time, both use that of the first.
    pub(super) fn load_or_create(path: &Path) -> io::Result<(Self, Origin)> {
        let origin = match Self::load(path)? {
            Found::Key(key) => return Ok((key, Origin::Known)),
            Found::Nothing => Origin::New,
            Found::Unfit => {
                remove(path)?;
                Origin::Replaced
            }
        };
        let key = Self(rand::random());
        match write_durably(path, &key.0, Existing::Keep) {
            Ok(()) => Ok((key, origin)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match Self::load(path)? {
                // Whoever made it does what a new key asks for.
                Found::Key(key) => Ok((key, Origin::Known)),
                Found::Nothing | Found::Unfit => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    fn load(path: &Path) -> io::Result<Found> {
        let mut options = OpenOptions::new();
        // A link is not followed, and a pipe not waited for.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.read(true).custom_flags(flags.bits().cast_signed());
        let file = match options.open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(_) if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) => {
                return Ok(Found::Unfit);
            }
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.mode() & OTHERS != 0 {
            return Ok(Found::Unfit);
        }
        let mut bytes = Vec::new();
        file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes.try_into().map_or(Found::Unfit, |bytes| Found::Key(Self(bytes))))
    }

    /// The MAC of all these bytes, one part after the other.
    pub(super) fn mac(&self, parts: &[&[u8]]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize()
    }
}

enum Found {
    Key(Key),
    Nothing,
    /// Something that is no key, or a key that is no secret.
    Unfit,
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn load(path: &Path) -> ([u8; 32], Origin) {
        let (key, origin) = Key::load_or_create(path).expect("a key");
        (key.0, origin)
    }

    #[test]
    fn a_key_is_made_once_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("deep/key");
        let (key, origin) = load(&path);
        assert_eq!(origin, Origin::New);
        assert_eq!(load(&path), (key, Origin::Known));
        assert_eq!(fs::metadata(&path).expect("a file").mode() & 0o777, 0o600);
        assert_ne!(load(&dir.path().join("other")).0, key);
    }

    #[test]
    fn what_is_no_key_or_no_secret_is_replaced() {
        type Damage = fn(&Path);
        let damages: [(&str, Damage); 7] = [
            ("short", |path| fs::write(path, [1; 31]).expect("written")),
            ("long", |path| fs::write(path, [1; 33]).expect("written")),
            ("empty", |path| fs::write(path, []).expect("written")),
            ("readable by others", |path| {
                fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("set");
            }),
            ("a link to a key", |path| {
                let elsewhere = path.with_extension("elsewhere");
                fs::rename(path, &elsewhere).expect("moved");
                symlink(elsewhere, path).expect("linked");
            }),
            ("a directory", |path| {
                fs::remove_file(path).expect("removed");
                fs::create_dir(path).expect("made");
            }),
            ("a pipe", |path| {
                fs::remove_file(path).expect("removed");
                rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RUSR).expect("made");
            }),
        ];
        for (what, damage) in damages {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("key");
            let (key, _) = load(&path);
            damage(&path);
            let (new, origin) = load(&path);
            assert_eq!(origin, Origin::Replaced, "{what}");
            assert_ne!(new, key, "{what}");
            assert_eq!(load(&path), (new, Origin::Known), "{what}");
        }
    }

    #[test]
    fn no_key_without_a_directory() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(Key::load_or_create(&file.path().join("below/key")).is_err());
    }
}
