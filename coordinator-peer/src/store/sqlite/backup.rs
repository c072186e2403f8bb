//! A copy of the store while it is in use.

use std::{fs, fs::File, io, path::Path};

use rusqlite::{
    Connection, OpenFlags,
    backup::{self, StepResult},
};

use super::read;
use crate::store::{Audit, Backup, StoreError};

/// Copies `source` to `to` and checks the copy. Until that is done the copy has another name, so that a
/// file called `to` is always a good one.
pub(super) fn make(source: &Path, to: &Path) -> Result<Backup, StoreError> {
    let failed = |source| StoreError::WriteBackup { to: to.into(), source };
    if to.try_exists().map_err(failed)? {
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    let partial = to.with_added_extension("partial");
    // Empties what an interrupted backup left, and says in plain words if nothing can be written here.
    File::create(&partial).map_err(failed)?;
    let backup = copy(source, &partial).and_then(|()| {
        let audit = check(&partial)?;
        let bytes = partial.metadata().map_err(failed)?.len();
        fs::rename(&partial, to).and_then(|()| sync_directory(to)).map_err(failed)?;
        Ok(Backup { bytes, audit })
    });
    if backup.is_err() {
        // Best effort: the error that matters is the first one.
        let _ = fs::remove_file(&partial);
    }
    backup
}

fn copy(source: &Path, partial: &Path) -> Result<(), StoreError> {
    let source = read::connect(source)?;
    let mut target = Connection::open(partial)?;
    // In one step: one that is interrupted by commits would have to start again.
    match backup::Backup::new(&source, &mut target)?.step(-1)? {
        StepResult::Done => Ok(()),
        _ => Err(StoreError::Busy),
    }
}

fn check(partial: &Path) -> Result<Audit, StoreError> {
    let conn = super::connect(partial, OpenFlags::empty())?;
    let verdict: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(StoreError::damaged(format!("the copy says: {verdict}")));
    }
    read::audit(&conn)
}

/// A new name is durable when its directory is.
fn sync_directory(of: &Path) -> io::Result<()> {
    let parent = of.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
