//! Small files that must survive a power cut: written beside their place, synced, then moved there.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// What to do when the file is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Put the new one in its place.
    Replace,
    /// Fail with [`io::ErrorKind::AlreadyExists`]: of two processes that start at once, one wins.
    Keep,
}

/// Tells the temporary files of this process apart.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Writes `bytes` to `path`, readable by its owner alone. Either all of it is there afterwards, or nothing.
pub fn write_durably(path: &Path, bytes: &[u8], existing: Existing) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{}.tmp", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
    let temporary = dir.join(name);
    // Of a process that died here before, with the same number.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write_new(&temporary, bytes).and_then(|()| match existing {
        Existing::Replace => fs::rename(&temporary, path),
        Existing::Keep => fs::hard_link(&temporary, path),
    });
    if written.is_err() || existing == Existing::Keep {
        // The name may be gone already; what counts is whether `path` is there.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_dir(dir)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes the directory's entries durable. Only Unix lets one open a directory; elsewhere renames are
/// journaled by the file system.
fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_file_is_kept_or_replaced_as_asked() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("deep/file");
        write_durably(&path, b"one", Existing::Keep)?;
        let refused = write_durably(&path, b"two", Existing::Keep).expect_err("it is there");
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path)?, b"one");
        write_durably(&path, b"two", Existing::Replace)?;
        assert_eq!(fs::read(&path)?, b"two");
        let left = fs::read_dir(dir.path().join("deep"))?.count();
        assert_eq!(left, 1, "no temporary file is left behind");
        Ok(())
    }
}
