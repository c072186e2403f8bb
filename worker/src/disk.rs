//! What blobs may take of the disk: pinned while a job or a result needs them, a cache after that.
//!
//! [`Room`] decides; here its decisions are carried out, before a byte comes: what has to go loses its tag and is
//! collected at once. Everything is found again after a restart by the tags of the store:
//!
//! | tag | names |
//! |---|---|
//! | `job/JOB/TIME/NUMBER` | a blob of a job that runs or was running |
//! | `output/ATTEMPT/` | a large output, with its record in `DATA/outputs` |
//! | `cache/TIME/HASH` | a blob that nobody needs now |

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use talka_core::{
    ids::BlobHash,
    job::BlobRef,
    quantities::Bytes,
    swarm::{NoRoom, Room},
};
use talka_peer::blobs::{BlobError, BlobStore};

use crate::control::now_millis;

/// What the tags of all jobs' blobs begin with.
pub(crate) const JOB_TAGS: &str = "job/";
const CACHE_TAGS: &str = "cache/";

/// Blobs can't be pinned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PinError {
    /// There is no room for them.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The store does not work.
    #[error(transparent)]
    Store(#[from] BlobError),
}

/// An error with all its causes: what the system says stands at the end.
pub(crate) fn problem(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// See the [module](self). Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    blobs: BlobStore,
    state: Mutex<State>,
    /// Held while a decision is carried out, so that they are carried out in their order.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    room: Room,
    /// Tags of what nobody needs.
    cached: HashMap<BlobHash, String>,
}

/// Blobs that stay as long as this lives.
#[derive(Debug)]
pub(crate) struct Pinned {
    disk: Disk,
    prefix: String,
    blobs: Vec<BlobRef>,
}

impl Disk {
    /// Finds what is there, and lets go of what is above the quota.
    pub(crate) async fn open(blobs: BlobStore, quota: Bytes) -> Result<Self, BlobError> {
        let mut state = State { room: Room::new(quota), cached: HashMap::new() };
        // Those of the cache were used before those of jobs.
        for (tag, hash) in blobs.tags(CACHE_TAGS).await? {
            match blobs.size(hash).await? {
                Some(size) => {
                    let double = state.cached.insert(hash, tag);
                    let evicted = state.room.restore(BlobRef { hash, size });
                    untag(
                        &blobs,
                        double.into_iter().chain(evicted.iter().filter_map(|hash| state.cached.remove(hash))),
                    )
                    .await?;
                }
                None => untag(&blobs, [tag]).await?,
            }
        }
        let this =
            Self(Arc::new(Inner { blobs, state: Mutex::new(state), turn: tokio::sync::Mutex::new(()) }));
        for (_, hash) in this.0.blobs.tags(JOB_TAGS).await? {
            let Some(size) = this.0.blobs.size(hash).await? else { continue };
            let blob = BlobRef { hash, size };
            // As if a job had just ended.
            if let Ok((untagged, _)) = this.pin_in_memory(&[blob]) {
                untag(&this.0.blobs, untagged).await?;
                this.unpin(&[blob]).await?;
            }
        }
        this.0.blobs.untag(JOB_TAGS).await?;
        Ok(this)
    }

    /// Pins blobs that are here or will come, under tags that begin with `prefix`. When this returns there is room for
    /// all of them.
    pub(crate) async fn pin(&self, prefix: &str, blobs: &[BlobRef]) -> Result<Pinned, PinError> {
        let turn = self.0.turn.lock().await;
        let (untagged, evicted) = self.pin_in_memory(blobs)?;
        // From here on it is undone by being dropped, whatever happens.
        let pinned = Pinned { disk: self.clone(), prefix: prefix.to_owned(), blobs: blobs.to_owned() };
        for (number, blob) in blobs.iter().enumerate() {
            self.0.blobs.tag(&format!("{prefix}{number}"), blob.hash).await?;
        }
        untag(&self.0.blobs, untagged).await?;
        if evicted > 0 {
            tracing::debug!(blobs = evicted, "blobs that nobody needs make room");
            self.0.blobs.collect().await;
        }
        drop(turn);
        Ok(pinned)
    }

    /// Used and allowed, the cache included.
    pub(crate) fn usage(&self) -> (Bytes, Bytes) {
        let state = self.state();
        (state.room.used(), state.room.quota())
    }

    /// Looks at what is used.
    pub(crate) fn with_room<T>(&self, look: impl FnOnce(&Room) -> T) -> T {
        look(&self.state().room)
    }

    pub(crate) fn blobs(&self) -> &BlobStore {
        &self.0.blobs
    }

    /// Pins blobs, and tells the tags that are not needed any more, and how many blobs have to go.
    fn pin_in_memory(&self, blobs: &[BlobRef]) -> Result<(Vec<String>, usize), NoRoom> {
        let mut state = self.state();
        let mut uncached = state.room.pin(blobs)?;
        let evicted = uncached.len();
        uncached.extend(blobs.iter().map(|blob| blob.hash));
        Ok((uncached.iter().filter_map(|hash| state.cached.remove(hash)).collect(), evicted))
    }

    /// What nobody needs any more is cache, if all of it is here.
    async fn unpin(&self, blobs: &[BlobRef]) -> Result<(), BlobError> {
        for BlobRef { hash, .. } in blobs {
            if !self.state().room.unpin(*hash) {
                continue;
            }
            if self.0.blobs.has(*hash).await? {
                let tag = format!("{CACHE_TAGS}{:016x}/{hash}", now_millis());
                self.0.blobs.tag(&tag, *hash).await?;
                self.state().cached.insert(*hash, tag);
            } else {
                self.state().room.forget(*hash);
            }
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Changed by whole statements, so it holds even after a panic elsewhere.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let (disk, prefix) = (self.disk.clone(), std::mem::take(&mut self.prefix));
        let blobs = std::mem::take(&mut self.blobs);
        // There is none when the worker has ended; then the next start finds the tags.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let _turn = disk.0.turn.lock().await;
            let unpinned = async {
                disk.unpin(&blobs).await?;
                disk.0.blobs.untag(&prefix).await
            };
            if let Err(error) = unpinned.await {
                tracing::debug!(%error, "blobs can't be let go of");
            }
        });
    }
}

async fn untag(blobs: &BlobStore, tags: impl IntoIterator<Item = String>) -> Result<(), BlobError> {
    for tag in tags {
        blobs.untag(&tag).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use super::*;

    const MIB: u32 = 1 << 20;

    fn bytes(seed: u32, len: u32) -> Vec<u8> {
        (0..len / 4).flat_map(|number| (number ^ seed << 20).to_le_bytes()).collect()
    }

    async fn open(dir: &Path, quota_mib: u64) -> Disk {
        let blobs = BlobStore::open(dir).await.expect("opened");
        Disk::open(blobs, Bytes::mib(quota_mib)).await.expect("opened")
    }

    fn named(seed: u32, len: u32) -> BlobRef {
        let bytes = bytes(seed, len);
        BlobRef { hash: BlobHash::new(*blake3::hash(&bytes).as_bytes()), size: Bytes::of(&bytes) }
    }

    /// A job comes: its blob is pinned and then fetched.
    async fn begins(disk: &Disk, job: u32, len: u32) -> Result<(BlobRef, Pinned), PinError> {
        let blob = named(job, len);
        let prefix = format!("{JOB_TAGS}{job}/1/");
        let pinned = disk.pin(&prefix, &[blob]).await?;
        disk.blobs().add_bytes(bytes(job, len), &format!("{prefix}0")).await.expect("added");
        Ok((blob, pinned))
    }

    /// A job ends; what follows comes after that.
    async fn ends(disk: &Disk, pinned: Pinned) {
        drop(pinned);
        tokio::task::yield_now().await;
        drop(disk.0.turn.lock().await);
    }

    /// Bytes of all files that hold data.
    fn on_disk(dir: &Path) -> u64 {
        let files = std::fs::read_dir(dir.join("data")).expect("a directory");
        files.map(|file| file.expect("a file").metadata().map_or(0, |found| found.len())).sum()
    }

    #[tokio::test]
    async fn a_stream_of_jobs_never_takes_more_than_the_quota_and_the_last_ones_stay() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = open(dir.path(), 10).await;
        let mut blobs = Vec::new();
        for job in 0..12 {
            let (blob, pinned) = begins(&disk, job, 3 * MIB).await.expect("room");
            assert!(on_disk(dir.path()) <= 10 << 20, "job {job}: {}", on_disk(dir.path()));
            ends(&disk, pinned).await;
            blobs.push(blob);
        }
        for (job, blob) in blobs.iter().enumerate() {
            assert_eq!(disk.blobs().has(blob.hash).await.expect("a store"), job >= 9, "job {job}");
        }
        disk.blobs().shutdown().await;
    }

    #[tokio::test]
    async fn what_is_needed_stays_and_a_job_that_finds_no_room_is_told_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = open(dir.path(), 10).await;
        let (first, pinned) = begins(&disk, 1, 6 * MIB).await.expect("room");
        assert!(matches!(begins(&disk, 2, 6 * MIB).await, Err(PinError::NoRoom(NoRoom::Now { .. }))));
        assert!(matches!(begins(&disk, 3, 11 * MIB).await, Err(PinError::NoRoom(NoRoom::Ever { .. }))));
        assert!(disk.blobs().has(first.hash).await.expect("a store"));
        ends(&disk, pinned).await;
        let (_, second) = begins(&disk, 2, 6 * MIB).await.expect("room");
        assert!(!disk.blobs().has(first.hash).await.expect("a store"));
        ends(&disk, second).await;
        disk.blobs().shutdown().await;
    }

    #[tokio::test]
    async fn a_restart_finds_the_cache_and_keeps_to_a_lower_quota() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = open(dir.path(), 20).await;
        let mut blobs = Vec::new();
        for job in 0..4 {
            let (blob, pinned) = begins(&disk, job, 4 * MIB).await.expect("room");
            blobs.push(blob);
            if job < 2 {
                ends(&disk, pinned).await;
                // Tags of the cache are in the order of their time.
                tokio::time::sleep(Duration::from_millis(2)).await;
            } else {
                // The process is killed while these run.
                std::mem::forget(pinned);
            }
        }
        disk.blobs().sync().await.expect("durable");
        disk.blobs().shutdown().await;

        let disk = open(dir.path(), 9).await;
        disk.blobs().collect().await;
        for (job, blob) in blobs.iter().enumerate() {
            assert_eq!(disk.blobs().has(blob.hash).await.expect("a store"), job >= 2, "job {job}");
        }
        assert!(disk.usage().0 <= Bytes::mib(9) && on_disk(dir.path()) <= 9 << 20);
        disk.blobs().shutdown().await;
    }
}
