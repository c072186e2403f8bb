//! What blobs may take of the disk: pinned while a job or a result needs them, a cache after that.
//!
//! [`Room`] decides; here its decisions are carried out, before a byte comes: what has to go loses its tag and is
//! collected at once. Everything is found again after a restart by the tags of the store:
//!
//! | tag | names |
//! |---|---|
//! | `job/JOB/TIME/NUMBER` | a blob of a job that runs or was running |
//! | `output/ATTEMPT/` | a large output, with its record in `DATA/outputs` |
//! | `cache/TIME/HASH` | a blob that nobody needed at that time |
//!
//! A blob of the cache that is needed again keeps its tag: what is not to go is known in memory, and a restart needs no
//! more than a name for it. A job makes no second one, so jobs that come one after the other with the same program leave
//! the store alone.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
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
/// How far the time in a tag of the cache may lie behind the last use: so much of their order a restart may get wrong.
const CACHE_TIME_ERROR_MAX: Duration = Duration::from_mins(1);

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
    /// Tags of the cache: of what nobody needs, and of what is needed again.
    cached: HashMap<BlobHash, CacheTag>,
}

#[derive(Debug)]
struct CacheTag {
    name: String,
    /// When the blob was let go of, in milliseconds; unknown where an earlier process wrote it.
    at_millis: Option<u64>,
}

impl CacheTag {
    fn new(hash: BlobHash) -> Self {
        let at_millis = now_millis();
        Self { name: format!("{CACHE_TAGS}{at_millis:016x}/{hash}"), at_millis: Some(at_millis) }
    }

    /// Whether the time that it tells is good enough.
    fn is_recent(&self) -> bool {
        let age = self.at_millis.map(|at_millis| now_millis().abs_diff(at_millis));
        age.is_some_and(|age_millis| u128::from(age_millis) < CACHE_TIME_ERROR_MAX.as_millis())
    }
}

/// Blobs that stay as long as this lives.
#[derive(Debug)]
pub(crate) struct Pinned {
    disk: Disk,
    prefix: String,
    blobs: Vec<BlobRef>,
    /// Whether there may be tags with this prefix.
    is_tagged: bool,
}

impl Disk {
    /// Finds what is there, and lets go of what is above the quota.
    pub(crate) async fn open(blobs: BlobStore, quota: Bytes) -> Result<Self, BlobError> {
        let mut state = State { room: Room::new(quota), cached: HashMap::new() };
        // Those of the cache were used before those of jobs.
        for (tag, hash) in blobs.tags(CACHE_TAGS).await? {
            match blobs.size(hash).await? {
                Some(size) => {
                    let double = state.cached.insert(hash, CacheTag { name: tag, at_millis: None });
                    let evicted = state.room.restore(BlobRef { hash, size });
                    untag(
                        &blobs,
                        double
                            .into_iter()
                            .chain(evicted.iter().filter_map(|hash| state.cached.remove(hash)))
                            .map(|tag| tag.name),
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
            if let Ok(Pins { evicted, .. }) = this.pin_in_memory(&[blob]) {
                untag(&this.0.blobs, evicted).await?;
                this.unpin(&[blob]).await?;
            }
        }
        this.0.blobs.untag(JOB_TAGS).await?;
        Ok(this)
    }

    /// Pins blobs that are here or will come, under tags that begin with `prefix`, which are removed again. When this
    /// returns there is room for all of them.
    pub(crate) async fn pin(&self, prefix: &str, blobs: &[BlobRef]) -> Result<Pinned, PinError> {
        self.pin_under(prefix, blobs, false).await
    }

    /// The same for a job: blobs that the cache names get no other tag, so nobody else may make one with this prefix.
    pub(crate) async fn pin_for_job(&self, prefix: &str, blobs: &[BlobRef]) -> Result<Pinned, PinError> {
        self.pin_under(prefix, blobs, true).await
    }

    async fn pin_under(&self, prefix: &str, blobs: &[BlobRef], is_spare: bool) -> Result<Pinned, PinError> {
        let turn = self.0.turn.lock().await;
        let Pins { nameless, evicted } = self.pin_in_memory(blobs)?;
        let tagged: Vec<_> = if is_spare { nameless } else { blobs.iter().map(|blob| blob.hash).collect() };
        // From here on it is undone by being dropped, whatever happens.
        let (is_tagged, blobs) = (!tagged.is_empty(), blobs.to_owned());
        let pinned = Pinned { disk: self.clone(), prefix: prefix.to_owned(), blobs, is_tagged };
        for (number, hash) in tagged.into_iter().enumerate() {
            self.0.blobs.tag(&format!("{prefix}{number}"), hash).await?;
        }
        if !evicted.is_empty() {
            tracing::debug!(blobs = evicted.len(), "blobs that nobody needs make room");
            untag(&self.0.blobs, evicted).await?;
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

    /// Pins blobs, and tells what is to be done about tags.
    fn pin_in_memory(&self, blobs: &[BlobRef]) -> Result<Pins, NoRoom> {
        let mut state = self.state();
        let evicted = state.room.pin(blobs)?;
        let evicted = evicted.iter().filter_map(|hash| state.cached.remove(hash)).map(|tag| tag.name);
        let evicted = evicted.collect();
        let nameless = blobs.iter().map(|blob| blob.hash).filter(|hash| !state.cached.contains_key(hash));
        Ok(Pins { nameless: nameless.collect(), evicted })
    }

    /// What nobody needs any more is cache, if all of it is here.
    async fn unpin(&self, blobs: &[BlobRef]) -> Result<(), BlobError> {
        for BlobRef { hash, .. } in blobs {
            let is_cached = {
                let mut state = self.state();
                // What the disk has damaged meanwhile is found when it is needed again.
                !state.room.unpin(*hash) || state.cached.get(hash).is_some_and(CacheTag::is_recent)
            };
            if is_cached {
                continue;
            }
            let old = if self.0.blobs.has(*hash).await? {
                let tag = CacheTag::new(*hash);
                self.0.blobs.tag(&tag.name, *hash).await?;
                let new = tag.name.clone();
                // After a clock was set back both may have the same name.
                self.state().cached.insert(*hash, tag).filter(|old| old.name != new)
            } else {
                let mut state = self.state();
                state.room.forget(*hash);
                state.cached.remove(hash)
            };
            untag(&self.0.blobs, old.map(|tag| tag.name)).await?;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Changed by whole statements, so it holds even after a panic elsewhere.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a pin leads to.
struct Pins {
    /// Blobs that no tag of the cache names.
    nameless: Vec<BlobHash>,
    /// Tags of blobs that have to go.
    evicted: Vec<String>,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let (disk, prefix) = (self.disk.clone(), std::mem::take(&mut self.prefix));
        let (blobs, is_tagged) = (std::mem::take(&mut self.blobs), self.is_tagged);
        // There is none when the worker has ended; then the next start finds the tags.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let _turn = disk.0.turn.lock().await;
            let unpinned = async {
                disk.unpin(&blobs).await?;
                if is_tagged {
                    disk.0.blobs.untag(&prefix).await?;
                }
                Ok::<_, BlobError>(())
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
    async fn what_is_needed_again_keeps_its_tag_and_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = open(dir.path(), 10).await;
        let (blob, first) = begins(&disk, 1, 6 * MIB).await.expect("room");
        ends(&disk, first).await;
        let tags = disk.blobs().tags("").await.expect("a store");
        assert!(tags.len() == 1 && tags[0].0.starts_with(CACHE_TAGS), "{tags:?}");

        for job in 2..5 {
            let pinned = disk.pin_for_job(&format!("{JOB_TAGS}{job}/1/"), &[blob]).await.expect("room");
            let other = disk.pin_for_job(&format!("{JOB_TAGS}{job}/2/"), &[blob]).await.expect("room");
            assert_eq!(disk.blobs().tags("").await.expect("a store"), tags, "job {job}");
            ends(&disk, other).await;
            let output = disk.pin("output/1/", &[blob]).await.expect("room");
            assert_eq!(disk.blobs().tags("output/").await.expect("a store").len(), 1, "job {job}");
            ends(&disk, output).await;
            assert!(matches!(begins(&disk, 9, 6 * MIB).await, Err(PinError::NoRoom(NoRoom::Now { .. }))));
            disk.blobs().collect().await;
            assert!(disk.blobs().has(blob.hash).await.expect("a store"), "job {job}");
            ends(&disk, pinned).await;
            assert_eq!(disk.blobs().tags("").await.expect("a store"), tags, "job {job}");
        }
        let killed = disk.pin_for_job(&format!("{JOB_TAGS}5/1/"), &[blob]).await.expect("room");
        std::mem::forget(killed);
        disk.blobs().sync().await.expect("durable");
        disk.blobs().shutdown().await;

        let disk = open(dir.path(), 10).await;
        disk.blobs().collect().await;
        assert!(disk.blobs().has(blob.hash).await.expect("a store"), "it was needed when the process died");
        let (_, pinned) = begins(&disk, 9, 6 * MIB).await.expect("nobody needs the other one now");
        assert!(!disk.blobs().has(blob.hash).await.expect("a store"));
        ends(&disk, pinned).await;
        disk.blobs().shutdown().await;
    }

    #[tokio::test]
    async fn what_has_gone_under_its_tag_of_the_cache_is_pinned_and_fetched_like_any_other() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = open(dir.path(), 10).await;
        let (blob, first) = begins(&disk, 1, 6 * MIB).await.expect("room");
        ends(&disk, first).await;
        disk.blobs().discard(blob.hash).await.expect("removed, as what is damaged");
        let pinned = disk.pin_for_job(&format!("{JOB_TAGS}2/1/"), &[blob]).await.expect("room");
        disk.blobs().add_bytes(bytes(1, 6 * MIB), "fetched/").await.expect("added");
        disk.blobs().untag("fetched/").await.expect("a store");
        disk.blobs().collect().await;
        assert!(disk.blobs().has(blob.hash).await.expect("a store"), "its tag is that of the cache");
        assert!(disk.usage().0 <= Bytes::mib(10));
        ends(&disk, pinned).await;
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
