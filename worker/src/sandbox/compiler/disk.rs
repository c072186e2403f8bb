//! Machine code on the disk, so that a module is compiled once and not once for each process.
//!
//! A directory with one file for each module and class of engines, and beside it the key that seals them.
//! Whatever is wrong with a file, it is removed, and its module is compiled again; whatever is wrong with the
//! disk, modules are kept in memory only, and the owner is warned once. Several processes may use one directory.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use talka_core::{ids::BlobHash, limits, quantities::Bytes as Size};

use super::{
    super::{
        engine::{EngineClass, EngineError},
        job::Program,
    },
    artefact::{self, Rejected, Seal},
    key::{Key, Origin},
    shelf::{self, Bounds, FileName, Shelf},
};

/// The files, below a data directory.
const DIR: &str = "compiled";
/// Their key. Beside the directory, so that it is neither listed nor cleared with it.
const KEY_FILE: &str = "compiled.key";

/// There is no cache on the disk. Worth a retry when the cause is gone.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    /// The directory can't be made, or used.
    #[error("can't use the directory {}", path.display())]
    Directory {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The key can't be read or made.
    #[error("can't use the key file {}", path.display())]
    Key {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The engine does not say what it depends on.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Machine code on the disk. Each call reads or writes files, one call at a time: not for asynchronous
/// threads.
#[derive(Debug)]
pub(super) struct Disk {
    key: Key,
    class: EngineClass,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    shelf: Shelf,
    /// The owner knows that something can't be written.
    warned: bool,
}

impl Disk {
    /// Opens the cache below `data_dir`, and makes it if need be.
    pub(super) fn open(data_dir: &Path) -> Result<Self, DiskError> {
        let bounds =
            Bounds { bytes: limits::COMPILE_CACHE_BYTES_MAX, files: limits::COMPILE_CACHE_FILES_MAX };
        Self::open_for(data_dir, EngineClass::of_this_machine()?, bounds)
    }

    fn open_for(data_dir: &Path, class: EngineClass, bounds: Bounds) -> Result<Self, DiskError> {
        let dir = data_dir.join(DIR);
        let failed = |source| DiskError::Directory { path: dir.clone(), source };
        // First, because it is made with its parents, all for the owner alone.
        let mut shelf = Shelf::open(dir.clone(), bounds).map_err(failed)?;
        let path = data_dir.join(KEY_FILE);
        let (key, origin) =
            Key::load_or_create(&path).map_err(|source| DiskError::Key { path: path.clone(), source })?;
        if origin == Origin::Replaced {
            let path = path.display();
            tracing::warn!(%path, "the key of the compiled modules was unfit; they are thrown away");
        }
        if origin != Origin::Known {
            shelf.clear().map_err(failed)?;
        }
        Ok(Self { key, class, state: Mutex::new(State { shelf, warned: false }) })
    }

    /// The program that this module was compiled to, if it is there and intact.
    pub(super) fn load(&self, module: BlobHash) -> Option<Program> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let name = self.file_name(module);
        match self.open_file(&mut state.shelf, &name, module) {
            Ok(program) => program,
            Err(reason) => {
                let (file, reason): (_, &(dyn Error + 'static)) = (name.as_str(), &reason);
                tracing::info!(%module, file, reason, "a compiled module is thrown away, and compiled again");
                let removed = state.shelf.remove(&name);
                state.settle(removed);
                None
            }
        }
    }

    fn open_file(
        &self,
        files: &mut Shelf,
        name: &FileName,
        module: BlobHash,
    ) -> Result<Option<Program>, Rejected> {
        let Some(bytes) = files.get(name)? else { return Ok(None) };
        artefact::open(&self.key, self.class, module, bytes).map(Some)
    }

    /// Keeps a program that was compiled just now, if the disk lets it.
    pub(super) fn store(&self, program: &Program) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Seal { header, mac } = artefact::seal(&self.key, self.class, program);
        let name = self.file_name(program.hash);
        let written = state.shelf.put(&name, &[&header, &program.compiled, &mac]);
        state.settle(written);
    }

    fn file_name(&self, module: BlobHash) -> FileName {
        let mut hasher = blake3::Hasher::new_derive_key("talka compiled module");
        hasher.update(module.as_bytes()).update(self.class.as_bytes());
        FileName::new(hasher.finalize())
    }
}

impl State {
    fn settle(&mut self, written: io::Result<()>) {
        let Err(error) = written else { return };
        if !std::mem::replace(&mut self.warned, true) {
            let dir = self.shelf.dir().display();
            tracing::warn!(%dir, %error, "compiled modules can't be kept on the disk, only in memory");
        }
    }
}

/// A cache of compiled modules, for its owner to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheUsage {
    /// Its directory.
    pub dir: PathBuf,
    /// Modules in it.
    pub modules: usize,
    /// What they take.
    pub size: Size,
    /// What they may take.
    pub max: Size,
}

/// The cache below this data directory; `None` when there is none. Reads the disk.
pub fn cache_usage(data_dir: &Path) -> io::Result<Option<CacheUsage>> {
    let dir = data_dir.join(DIR);
    match shelf::usage(&dir) {
        Ok((modules, bytes)) => {
            let (size, max) = (Size::new(bytes), Size::new(limits::COMPILE_CACHE_BYTES_MAX));
            Ok(Some(CacheUsage { dir, modules, size, max }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
