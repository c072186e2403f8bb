//! Copies of a coordinator: made while it runs, put back where none is.
//!
//! A copy is a directory with what makes the coordinator the one that it was:
//!
//! | file | what |
//! |---|---|
//! | `coordinator.db` | jobs, leases, reports, results with outputs up to 64 KiB, the ledger, credit |
//! | `key` | its identity: whoever has it *is* the coordinator |
//! | `token`, `ticket`, `port` | so that tickets that were given out stay good |
//! | `blobs/` | programs, packed inputs, datasets and large outputs; only if no coordinator runs meanwhile |
//!
//! The blob store of a running coordinator can't be copied from outside. Blobs never change, each is named by its
//! hash, and the submitter still has what it submitted.

#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use talka_peer::{
    endpoint::PORT_FILE,
    files::{Existing, write_durably},
    identity::{Identity, IdentityError, KEY_FILE},
};

use crate::{
    serve::{BLOBS_DIR, TICKET_FILE, TOKEN_FILE},
    store::{
        StoreError,
        sqlite::{self, Check, FILE, Lock, SqliteStore},
    },
};

/// Small files of a copy, beside the database and the key. Each may be missing.
const SMALL: [&str; 3] = [TOKEN_FILE, TICKET_FILE, PORT_FILE];

/// A copy was not made or not put back. What was there before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// There is no coordinator to copy. Name its data directory.
    #[error("there is no coordinator in {} (no file {FILE})", dir.display())]
    Nothing {
        /// Where.
        dir: PathBuf,
    },
    /// Something is there already. Choose another place.
    #[error("{} exists and is not an empty directory: choose a new one, nothing is overwritten", dir.display())]
    Occupied {
        /// Where.
        dir: PathBuf,
    },
    /// It is no copy: commits are in the write-ahead log beside the store. Make a copy of it first.
    #[error(
        "{} is no copy but the data directory of a coordinator that runs or was killed: copy it with talka coordinator \
         backup", dir.display()
    )]
    InUse {
        /// Where.
        dir: PathBuf,
    },
    /// A file can't be read or written. Retry when that is mended.
    #[error("can't copy {}", path.display())]
    Copy {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The copy is not sound. Use another one.
    #[error("the copy in {} is damaged and was not used: {problem}", dir.display())]
    Unsound {
        /// Where.
        dir: PathBuf,
        /// The first thing that is wrong.
        problem: String,
    },
    /// The store can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key of the copy can't be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// A copy that was made and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// What its store says. It is sound.
    pub check: Check,
    /// Size of the store.
    pub store_bytes: u64,
    /// Whether the blobs are in it.
    pub with_blobs: bool,
}

/// Copies the coordinator in `dir`, running or not, to the directory `to`, which must not exist or be empty.
pub fn backup(dir: &Path, to: &Path) -> Result<Copied, ArchiveError> {
    if !exists(&dir.join(FILE))? {
        return Err(ArchiveError::Nothing { dir: dir.into() });
    }
    // Held while the blobs are copied, so that no coordinator starts to change them.
    let idle = match Lock::take(dir) {
        Ok(lock) => Some(lock),
        Err(StoreError::Locked { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let place = Place::prepare(to)?;
    let backup = sqlite::reader(dir)?.backup(&place.file(FILE))?;
    copy_small(dir, &place.partial)?;
    let blobs = dir.join(BLOBS_DIR);
    let with_blobs = idle.is_some() && exists(&blobs)?;
    if with_blobs {
        copy_tree(&blobs, &place.file(BLOBS_DIR))?;
    }
    let check = sqlite::check(&place.partial)?;
    place.finish(&check)?;
    Ok(Copied { check, store_bytes: backup.bytes, with_blobs })
}

/// Puts the copy in `from` back as the data directory `dir`, which must not exist or be empty. The store gets a new
/// epoch, so that whoever still has the old one open can't commit to this one.
pub fn restore(from: &Path, dir: &Path) -> Result<Copied, ArchiveError> {
    if !exists(&from.join(FILE))? {
        return Err(ArchiveError::Nothing { dir: from.into() });
    }
    let log = from.join(format!("{FILE}-wal"));
    if exists(&log)? && size(&log)? > 0 {
        return Err(ArchiveError::InUse { dir: from.into() });
    }
    if exists(&dir.join(FILE))? {
        // Says so if a coordinator runs there; else that the place is taken.
        drop(Lock::take(dir)?);
    }
    let place = Place::prepare(dir)?;
    copy_file(&from.join(FILE), &place.file(FILE))?;
    copy_small(from, &place.partial)?;
    let blobs = from.join(BLOBS_DIR);
    let with_blobs = exists(&blobs)?;
    if with_blobs {
        copy_tree(&blobs, &place.file(BLOBS_DIR))?;
    }
    let identity = Identity::load_or_create(&place.partial)?;
    drop(SqliteStore::open(&place.partial, identity.peer_id())?);
    let check = sqlite::check(&place.partial)?;
    place.finish(&check)?;
    let store_bytes = size(&dir.join(FILE))?;
    Ok(Copied { check, store_bytes, with_blobs })
}

/// Where a directory comes to be: it has another name until it is complete, so that one under its own name is good.
struct Place {
    to: PathBuf,
    partial: PathBuf,
}

impl Place {
    fn prepare(to: &Path) -> Result<Self, ArchiveError> {
        let failed = |source| ArchiveError::Copy { path: to.into(), source };
        let free = match fs::read_dir(to) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => false,
            Err(error) => return Err(failed(error)),
        };
        if !free {
            return Err(ArchiveError::Occupied { dir: to.into() });
        }
        // `..` and a slash at the end have no name to add to.
        let to = std::path::absolute(to).map_err(failed)?;
        let partial = to.with_added_extension("partial");
        let this = Self { to, partial };
        // What an interrupted run left.
        this.remove().and_then(|()| create_private(&this.partial)).map_err(failed)?;
        Ok(this)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.partial.join(name)
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Gives it its name, if what is in it is sound.
    fn finish(self, check: &Check) -> Result<(), ArchiveError> {
        if let Some(problem) = check.problems.first() {
            return Err(ArchiveError::Unsound { dir: self.to.clone(), problem: problem.clone() });
        }
        let named = sync(&self.partial).and_then(|()| fs::rename(&self.partial, &self.to));
        let parent = self.to.parent().unwrap_or(Path::new("/"));
        named
            .and_then(|()| sync(parent))
            .map_err(|source| ArchiveError::Copy { path: self.to.clone(), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nothing is there any more when all went well; else the first error is the one that matters.
        drop(self.remove());
    }
}

fn exists(path: &Path) -> Result<bool, ArchiveError> {
    path.try_exists().map_err(|source| ArchiveError::Copy { path: path.into(), source })
}

fn size(path: &Path) -> Result<u64, ArchiveError> {
    let metadata = path.metadata().map_err(|source| ArchiveError::Copy { path: path.into(), source })?;
    Ok(metadata.len())
}

/// The key has to be there: without it the copy would be another coordinator.
fn copy_small(from: &Path, to: &Path) -> Result<(), ArchiveError> {
    for name in SMALL.into_iter().chain([KEY_FILE]) {
        let path = from.join(name);
        let copied = match fs::read(&path) {
            Ok(bytes) => write_durably(&to.join(name), &bytes, Existing::Replace),
            Err(error) if error.kind() == io::ErrorKind::NotFound && name != KEY_FILE => Ok(()),
            Err(error) => Err(error),
        };
        copied.map_err(|source| ArchiveError::Copy { path, source })?;
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> Result<(), ArchiveError> {
    let copied = fs::copy(from, to).and_then(|_| File::open(to)?.sync_all());
    copied.map_err(|source| ArchiveError::Copy { path: from.into(), source })
}

/// Files and directories; links and other things are none of a blob store's.
fn copy_tree(from: &Path, to: &Path) -> Result<(), ArchiveError> {
    let failed = |source| ArchiveError::Copy { path: from.into(), source };
    create_private(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (kind, target) = (entry.file_type().map_err(failed)?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_file() {
            copy_file(&entry.path(), &target)?;
        }
    }
    sync(to).map_err(failed)
}

/// The key is in it: readable by its owner alone.
fn create_private(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// New names are durable when their directory is.
fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
