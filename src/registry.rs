//! Coordinators that run on this machine under this user, so that commands find them without a ticket.
//!
//! Each is a file `coordinators/<peer>.json` in the runtime directory, readable by its user only, because the
//! ticket admits submitters. A file whose process is gone is removed by whoever meets it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};
use talka_core::ids::PeerId;
use tempfile::NamedTempFile;

use crate::paths;

/// Longest entry that is read: a ticket, a path and a number.
const ENTRY_BYTES_MAX: u64 = 64 << 10;

/// One running coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its ticket, invite token included.
    pub(crate) ticket: String,
    /// Its process.
    pub(crate) pid: u32,
    /// Its data directory.
    pub(crate) data_dir: PathBuf,
}

/// Keeps this process listed for as long as it lives.
#[derive(Debug)]
pub(crate) struct Registration {
    path: PathBuf,
}

/// The directory of entries.
pub(crate) fn dir() -> anyhow::Result<PathBuf> {
    Ok(paths::runtime_dir()?.join("coordinators"))
}

impl Registration {
    /// Lists this process in `dir`.
    pub(crate) fn create(dir: &Path, peer: PeerId, ticket: String, data_dir: &Path) -> anyhow::Result<Self> {
        let doing = || format!("cannot register the coordinator in {}", dir.display());
        paths::create_private(dir).with_context(doing)?;
        let data_dir = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
        let entry = Entry { ticket, pid: std::process::id(), data_dir };
        let path = dir.join(format!("{peer}.json"));
        // Temporary files are private from the start, and readers never see half of one.
        let file = NamedTempFile::with_prefix_in(".new-", dir).with_context(doing)?;
        serde_json::to_writer(&file, &entry)?;
        file.persist(&path).map_err(|error| error.error).with_context(doing)?;
        Ok(Self { path })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let own = read(&self.path).is_ok_and(|entry| entry.pid == std::process::id());
        if own {
            // If it can't be removed, its dead process makes readers ignore it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The coordinators that run now, by peer.
pub(crate) fn running(dir: &Path) -> Vec<Entry> {
    let Ok(files) = fs::read_dir(dir) else { return Vec::new() };
    let paths = files.filter_map(|file| file.ok().map(|file| file.path()));
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect();
    paths.sort();
    paths.into_iter().filter_map(|path| alive(&path)).collect()
}

/// The entry of a live process; the file of a dead one is removed.
fn alive(path: &Path) -> Option<Entry> {
    match read(path) {
        Ok(entry) if is_alive(entry.pid) => Some(entry),
        Ok(_) => {
            // Another command may have been faster.
            let _ = fs::remove_file(path);
            None
        }
        Err(_) => None,
    }
}

fn read(path: &Path) -> io::Result<Entry> {
    if path.metadata()?.len() > ENTRY_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // A process that may not be signalled is somebody's, so it is alive.
    pid.is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Larger than any Linux process id can be (2²² at most).
    const DEAD_PID: u32 = 1 << 30;

    fn register(dir: &Path, peer: u8) -> Registration {
        let peer = PeerId::new([peer; 32]);
        Registration::create(dir, peer, format!("ticket-of-{}", peer.short()), Path::new("/"))
            .expect("registered")
    }

    #[test]
    fn a_coordinator_is_listed_while_it_lives() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("talka/coordinators");
        assert_eq!(running(&dir), []);
        let (first, second) = (register(&dir, 1), register(&dir, 2));
        assert_eq!(running(&dir).len(), 2);
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&first.path), mode(&dir)), (0o600, 0o700));
        drop(first);
        assert_eq!(running(&dir).len(), 1);
        drop(second);
        assert_eq!(running(&dir), []);
    }

    #[test]
    fn files_of_dead_processes_go_away_and_broken_ones_are_passed_over() {
        let root = tempfile::tempdir().expect("a directory");
        let entry = Entry { ticket: "t".into(), pid: DEAD_PID, data_dir: "/".into() };
        let stale = root.path().join("aa.json");
        fs::write(&stale, serde_json::to_vec(&entry).expect("json")).expect("written");
        fs::write(root.path().join("bb.json"), "{").expect("written");
        assert_eq!(running(root.path()), []);
        assert!(!stale.exists());
    }

    #[test]
    fn a_registration_does_not_remove_its_successor() {
        let root = tempfile::tempdir().expect("a directory");
        let registration = register(root.path(), 1);
        let successor = Entry { ticket: "t".into(), pid: 1, data_dir: "/".into() };
        fs::write(&registration.path, serde_json::to_vec(&successor).expect("json")).expect("written");
        drop(registration);
        assert_eq!(running(root.path()), [successor]);
    }
}
