//! Checkpoints on the disk: what lets an attempt go on after its process, its worker or its machine died.
//!
//! A checkpoint is a file of its own ([`file`]), named after what it is one of and the order in which it was made; a newer
//! one is written beside the older and synced before that goes. The one before the last stays as well: should the
//! last be damaged, the attempt goes on from there, and else from the beginning. Nothing here is ever an error to a
//! task: on a full disk its attempt goes on without.
//!
//! Whose attempt it is (`Holder`) lies in the same file, so that a worker that was killed knows what it held.
//!
//! All of this blocks on the disk; the methods that are asynchronous move it off their caller's thread.

mod file;
mod holder;
mod index;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    fs::{self, DirBuilder, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use talka_core::{
    ids::{AttemptId, BlobHash, InputDigest, JobId, PeerId},
    limits,
};
use talka_peer::files::{Existing, write_durably};
use tokio::task::spawn_blocking;

pub(crate) use self::holder::Holder;
use self::index::{Generation, Index};
use crate::sandbox::SNAPSHOT_VERSION;

/// What a checkpoint is one of: a program as it is run here, and all that it sees.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of a task. `transformed` is the module as the counting pass left it: another pass counts otherwise.
    pub fn new(bundle: BlobHash, transformed: BlobHash, input: InputDigest) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("talka-1 checkpoint");
        hasher.update(&SNAPSHOT_VERSION.to_le_bytes());
        hasher.update(bundle.as_bytes()).update(transformed.as_bytes()).update(input.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    fn to_hex(self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

/// The checkpoints of one data directory.
#[derive(Debug)]
pub struct Checkpoints {
    dir: PathBuf,
    /// Most bytes of all files together.
    bytes_max: u64,
    /// What is there. Never held while the disk is waited for.
    index: Mutex<Index>,
    /// Held by whoever changes files.
    disk: Mutex<()>,
}

impl Checkpoints {
    /// Opens the directory, or makes it, for its owner alone. Also tells what was held for `coordinator`, if there is one.
    pub(crate) fn open(dir: &Path, coordinator: Option<PeerId>) -> io::Result<(Arc<Self>, Vec<Holder>)> {
        Self::open_with(dir, coordinator, limits::CHECKPOINTS_BYTES_MAX)
    }

    fn open_with(
        dir: &Path,
        coordinator: Option<PeerId>,
        bytes_max: u64,
    ) -> io::Result<(Arc<Self>, Vec<Holder>)> {
        make_private(dir)?;
        let mut index = Index::default();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match (file::parse_name(name), fs::metadata(&path)) {
                (Some((key, seq)), Ok(found)) if found.is_file() => {
                    index.add(key, Generation { seq, bytes: found.len() });
                }
                // What a process left that died while it wrote.
                _ if path.extension().is_some_and(|ending| ending == "tmp") => drop(fs::remove_file(&path)),
                _ => {}
            }
        }
        let this = Self { dir: dir.to_owned(), bytes_max, index: Mutex::new(index), disk: Mutex::new(()) };
        let holders = coordinator.map(|coordinator| this.holders(coordinator)).unwrap_or_default();
        Ok((Arc::new(this), holders))
    }

    /// Whose attempts the checkpoints are, by the newest readable one of each; those of other coordinators are left
    /// alone.
    fn holders(&self, coordinator: PeerId) -> Vec<Holder> {
        let keys: Vec<Key> = self.lock().keys().collect();
        let mut holders = Vec::new();
        for key in keys {
            let generations = self.lock().newest_first(key);
            let holder = generations.iter().find_map(|generation| {
                let file = File::open(self.path(key, generation.seq)).ok()?;
                file::read_record(file.take(generation.bytes), key)
            });
            if let Some(holder) = holder.and_then(|record| Holder::decode(&record))
                && holder.coordinator == coordinator
            {
                self.lock().claim(key, holder.assignment.attempt);
                holders.push(holder);
            }
        }
        holders
    }

    /// Whether there is a checkpoint of an attempt.
    pub(crate) fn has_attempt(&self, attempt: AttemptId) -> bool {
        self.lock().key_of(attempt).is_some()
    }

    /// These attempts are over: nobody will go on with them.
    pub(crate) fn forget(self: &Arc<Self>, attempts: &[AttemptId]) {
        let found: Vec<_> = {
            let index = self.lock();
            attempts.iter().filter_map(|attempt| Some((index.key_of(*attempt)?, *attempt))).collect()
        };
        self.remove_unless_claimed(found);
    }

    /// A job is over.
    pub(crate) fn forget_job(self: &Arc<Self>, job: JobId) {
        let found = self.lock().of_job(job);
        self.remove_unless_claimed(found);
    }

    fn remove_unless_claimed(self: &Arc<Self>, found: Vec<(Key, AttemptId)>) {
        if found.is_empty() {
            return;
        }
        let this = self.clone();
        drop(spawn_blocking(move || {
            let disk = this.lock_disk();
            for (key, attempt) in found {
                if this.lock().attempt_of(key) == Some(attempt) {
                    this.remove_files(&disk, key);
                }
            }
        }));
    }

    /// Writes a checkpoint, and removes what is superseded or beyond the bound.
    fn save(
        &self,
        key: Key,
        holder: Option<&Holder>,
        snapshot: &[u8],
        revoked: &AtomicBool,
    ) -> io::Result<()> {
        let record = holder.map(Holder::encode).unwrap_or_default();
        let bytes = file::encode(key, &record, snapshot);
        let size = bytes.len() as u64;
        let disk = self.lock_disk();
        if revoked.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (seq, evicted) = {
            let mut index = self.lock();
            (index.next_seq(), index.evict(size, self.bytes_max))
        };
        for (key, seq) in evicted {
            tracing::info!(?key, "a checkpoint makes room for newer ones");
            self.remove_file(key, seq);
        }
        write_durably(&self.path(key, seq), &bytes, Existing::Replace)?;
        let superseded = {
            let mut index = self.lock();
            if let Some(holder) = holder {
                index.claim(key, holder.assignment.attempt);
            }
            index.add(key, Generation { seq, bytes: size });
            index.superseded(key)
        };
        for seq in superseded {
            self.remove_file(key, seq);
        }
        drop(disk);
        Ok(())
    }

    /// The newest checkpoint that is not damaged.
    fn load(&self, key: Key, holder: Option<&Holder>) -> Option<Vec<u8>> {
        let _disk = self.lock_disk();
        let generations = self.lock().newest_first(key);
        for Generation { seq, bytes } in generations {
            match self.read(key, seq, bytes) {
                Ok(snapshot) => {
                    if let Some(holder) = holder {
                        self.lock().claim(key, holder.assignment.attempt);
                    }
                    return Some(snapshot);
                }
                Err(error) => {
                    tracing::warn!(?key, %error, "a checkpoint can't be used");
                    self.lock().drop_generation(key, seq);
                    self.remove_file(key, seq);
                }
            }
        }
        None
    }

    fn read(&self, key: Key, seq: u64, bytes: u64) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        File::open(self.path(key, seq))?.take(bytes).read_to_end(&mut content)?;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is damaged");
        file::snapshot(&content, key).map(<[u8]>::to_vec).ok_or_else(damaged)
    }

    fn remove(&self, key: Key) {
        let disk = self.lock_disk();
        self.remove_files(&disk, key);
    }

    fn remove_files(&self, _disk: &MutexGuard<'_, ()>, key: Key) {
        let gone = self.lock().remove(key);
        for generation in gone {
            self.remove_file(key, generation.seq);
        }
    }

    fn remove_file(&self, key: Key, seq: u64) {
        if let Err(error) = fs::remove_file(self.path(key, seq))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "a checkpoint can't be removed");
        }
    }

    fn path(&self, key: Key, seq: u64) -> PathBuf {
        self.dir.join(file::name(key, seq))
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_disk(&self) -> MutexGuard<'_, ()> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a directory that nobody else can look into.
fn make_private(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Where the checkpoints of one task are kept.
#[derive(Debug, Clone)]
pub struct Keep {
    checkpoints: Arc<Checkpoints>,
    key: Key,
    holder: Option<Arc<Holder>>,
}

impl Keep {
    /// For an attempt of a worker, which will go on with it after a restart.
    pub(crate) fn for_attempt(checkpoints: &Arc<Checkpoints>, key: Key, holder: Holder) -> Self {
        Self { checkpoints: checkpoints.clone(), key, holder: Some(Arc::new(holder)) }
    }

    /// In a directory of its own, for whoever asks for the same again.
    pub async fn in_dir(dir: PathBuf, key: Key) -> io::Result<Self> {
        let open = move || Checkpoints::open(&dir, None);
        let (checkpoints, _) = spawn_blocking(open).await.map_err(io::Error::other)??;
        Ok(Self { checkpoints, key, holder: None })
    }

    /// What to go on from.
    pub(crate) async fn load(&self) -> Option<Vec<u8>> {
        if !self.checkpoints.lock().has(self.key) {
            return None;
        }
        let this = self.clone();
        spawn_blocking(move || this.checkpoints.load(this.key, this.holder.as_deref())).await.ok().flatten()
    }

    /// Writes a checkpoint, unless it is revoked before that has begun.
    pub(crate) async fn save(&self, snapshot: Vec<u8>, revoked: Arc<AtomicBool>) {
        let this = self.clone();
        let bytes = snapshot.len();
        let save = move || this.checkpoints.save(this.key, this.holder.as_deref(), &snapshot, &revoked);
        match spawn_blocking(save).await.map_err(io::Error::other).flatten() {
            Ok(()) => tracing::debug!(key = ?self.key, bytes, "checkpoint written"),
            Err(error) => {
                tracing::warn!(%error, "a checkpoint can't be written; its attempt goes on without");
            }
        }
    }

    /// Nobody will go on from here.
    pub async fn remove(&self) {
        let this = self.clone();
        if self.checkpoints.lock().has(self.key) {
            drop(spawn_blocking(move || this.checkpoints.remove(this.key)).await);
        }
    }
}
