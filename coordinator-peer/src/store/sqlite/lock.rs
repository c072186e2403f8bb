//! One process per data directory.

use std::{
    fs::{self, File, TryLockError},
    path::Path,
};

use crate::store::StoreError;

/// Name of the lock file. It stays when the lock is released: to remove it would race with the next one.
pub(super) const FILE: &str = "coordinator.lock";

/// Held until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the data directory, which is made if there is none.
    pub(crate) fn take(dir: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Directory { dir: dir.into(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let file = File::options().create(true).append(true).open(dir.join(FILE)).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked { dir: dir.into() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}
