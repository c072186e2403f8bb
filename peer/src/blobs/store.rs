//! The store.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use iroh_blobs::{
    BlobFormat, HashAndFormat,
    api::{
        Store, TempTag,
        blobs::{AddPathOptions, BlobStatus, ImportMode},
    },
    protocol::{ChunkRanges, ChunkRangesExt, GetRequest},
    store::{
        fs::{FsStore, options::Options},
        mem::{self, MemStore},
    },
};
use talka_core::{ids::BlobHash, job::BlobRef, limits, quantities, swarm::PieceNo};
use tokio::io::AsyncWriteExt;

use super::{BlobError, Held, Served, discards::Discards, from_hash, tidy::Collections, to_hash};

/// The unit of verification: a lie or a flipped bit is found within so many bytes.
const GROUP_BYTES: u64 = 16 << 10;

/// What is read, verified and written at once when a blob is exported.
const EXPORT_BYTES: u64 = 4 << 20;

/// A store of verified blobs. Clones share it.
#[derive(Debug, Clone)]
pub struct BlobStore {
    store: Store,
    /// Where it lies; none in memory.
    dir: Option<Arc<PathBuf>>,
    served: Served,
    pub(super) collections: Arc<Collections>,
    pub(super) discards: Discards,
}

/// Keeps a blob, or as much of it as is here, from being collected, until it is dropped or the process ends.
#[derive(Debug)]
pub struct Hold {
    _tag: TempTag,
}

impl BlobStore {
    /// Opens the store in `dir`, or makes one. Only one process at a time can have it open.
    pub async fn open(dir: &Path) -> Result<Self, BlobError> {
        Self::open_with_gc(dir, limits::BLOB_GC_INTERVAL).await
    }

    async fn open_with_gc(dir: &Path, interval: Duration) -> Result<Self, BlobError> {
        let collections = Collections::new();
        let gc = collections.config(interval);
        let failed = |source| BlobError::Open { path: dir.to_owned(), source };
        let root = std::path::absolute(dir).map_err(|error| failed(error.into()))?;
        tokio::fs::create_dir_all(&root).await.map_err(|error| failed(error.into()))?;
        let options = Options { gc: Some(gc), ..Options::new(&root) };
        let store = FsStore::load_with_opts(root.join("blobs.db"), options);
        let store = store.await.map_err(|error| failed(error.into_boxed_dyn_error()))?;
        let (dir, served, discards) = (Some(Arc::new(root)), Served::default(), Discards::default());
        Ok(Self { store: store.into(), dir, served, collections, discards })
    }

    /// A store in memory, for what is small and needed once.
    pub fn in_memory() -> Self {
        let collections = Collections::new();
        let gc = collections.config(limits::BLOB_GC_INTERVAL);
        let store = MemStore::new_with_opts(mem::Options { gc_config: Some(gc) });
        let (served, discards) = (Served::default(), Discards::default());
        Self { store: store.into(), dir: None, served, collections, discards }
    }

    /// Adds bytes under a tag.
    pub async fn add_bytes(&self, bytes: impl Into<Bytes>, tag: &str) -> Result<BlobRef, BlobError> {
        let bytes = bytes.into();
        let size = quantities::Bytes::of(&bytes);
        let added = self.store.add_bytes(bytes).with_named_tag(tag).await;
        let added = added.map_err(|error| BlobError::Add(error.into()))?;
        Ok(BlobRef { hash: from_hash(added.hash), size })
    }

    /// Adds a copy of a file under a tag, without holding it in memory.
    pub async fn add_file(&self, path: &Path, tag: &str) -> Result<BlobRef, BlobError> {
        let failed = |source| BlobError::AddFile { path: path.to_owned(), source };
        let absolute = std::path::absolute(path).map_err(|error| failed(error.into()))?;
        let options = AddPathOptions { path: absolute, format: BlobFormat::Raw, mode: ImportMode::Copy };
        let added = self.store.add_path_with_opts(options).with_named_tag(tag).await;
        let hash = from_hash(added.map_err(|error| failed(error.into()))?.hash);
        let size = self.size(hash).await?.ok_or(BlobError::NotHere { hash })?;
        Ok(BlobRef { hash, size })
    }

    /// Whether all of a blob is here.
    pub async fn has(&self, hash: BlobHash) -> Result<bool, BlobError> {
        Ok(self.size(hash).await?.is_some())
    }

    /// Whether any byte of a blob is here.
    pub(crate) async fn is_begun(&self, hash: BlobHash) -> Result<bool, BlobError> {
        let status = self.store.status(to_hash(hash)).await;
        let status = status.map_err(|error| BlobError::Gone(error.into()))?;
        Ok(!matches!(status, BlobStatus::NotFound))
    }

    /// The length of a blob that is here; none if it is not, or not all of it.
    pub async fn size(&self, hash: BlobHash) -> Result<Option<quantities::Bytes>, BlobError> {
        let status = self.store.status(to_hash(hash)).await;
        match status.map_err(|error| BlobError::Gone(error.into()))? {
            BlobStatus::Complete { size } => Ok(Some(quantities::Bytes::new(size))),
            BlobStatus::Partial { .. } | BlobStatus::NotFound => Ok(None),
        }
    }

    /// Whether the store holds nothing of a blob open that it has removed.
    pub(super) async fn has_let_go(&self, hash: BlobHash) -> Result<bool, BlobError> {
        let held = self.store.observe(to_hash(hash)).await;
        Ok(held.map_err(|error| BlobError::Gone(error.into()))?.ranges.is_empty())
    }

    /// Reads a blob of at most `max` bytes, verified.
    pub async fn read(&self, hash: BlobHash, max: u64) -> Result<Bytes, BlobError> {
        let size = self.size(hash).await?.ok_or(BlobError::NotHere { hash })?;
        if size.get() > max {
            return Err(BlobError::TooLong { hash, size, max: quantities::Bytes::new(max) });
        }
        self.read_verified(hash, 0..size.get(), size.get()).await
    }

    /// Reads a part of a blob of which that part at least is here, verified. It is held in memory, so the caller bounds
    /// the range.
    pub async fn read_part(&self, blob: BlobRef, range: Range<u64>) -> Result<Bytes, BlobError> {
        let BlobRef { hash, size } = blob;
        if range.start > range.end || range.end > size.get() {
            return Err(BlobError::OutOfRange { hash, start: range.start, end: range.end, size });
        }
        self.read_verified(hash, range, size.get()).await
    }

    /// Reads a part of a blob that is here, verified. It is held in memory, so the caller bounds the range.
    pub async fn read_range(&self, hash: BlobHash, range: Range<u64>) -> Result<Bytes, BlobError> {
        let size = self.size(hash).await?.ok_or(BlobError::NotHere { hash })?;
        if range.start > range.end || range.end > size.get() {
            return Err(BlobError::OutOfRange { hash, start: range.start, end: range.end, size });
        }
        self.read_verified(hash, range, size.get()).await
    }

    async fn read_verified(&self, hash: BlobHash, range: Range<u64>, size: u64) -> Result<Bytes, BlobError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let failed = |source| BlobError::Read { hash, source };
        // Whole groups, so that what comes back starts where it is known to.
        let start = range.start / GROUP_BYTES * GROUP_BYTES;
        let end = range.end.next_multiple_of(GROUP_BYTES).min(size);
        let groups = self.store.export_bao(to_hash(hash), ChunkRanges::bytes(start..end));
        let bytes = groups.data_to_bytes().await.map_err(|error| failed(error.into()))?;
        let short = || failed(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        let from = usize::try_from(range.start - start).map_err(|_| short())?;
        let to = usize::try_from(range.end - start).map_err(|_| short())?;
        if to > bytes.len() {
            return Err(short());
        }
        Ok(bytes.slice(from..to))
    }

    /// Writes a blob to a file, verified; a file that is there is replaced when all is written.
    pub async fn export(&self, hash: BlobHash, path: &Path) -> Result<(), BlobError> {
        let size = self.size(hash).await?.ok_or(BlobError::NotHere { hash })?.get();
        let failed = |source| BlobError::Export { hash, path: path.to_owned(), source };
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}.part", hash.short()));
        let temporary = PathBuf::from(temporary);
        let mut file = tokio::fs::File::create(&temporary).await.map_err(failed)?;
        let written = async {
            let mut start = 0;
            while start < size {
                let end = (start + EXPORT_BYTES).min(size);
                let bytes = self.read_verified(hash, start..end, size).await?;
                file.write_all(&bytes).await.map_err(failed)?;
                start = end;
            }
            file.flush().await.map_err(failed)?;
            tokio::fs::rename(&temporary, path).await.map_err(failed)
        };
        let written = written.await;
        if written.is_err() {
            // The error that is reported says more than one about the leftover.
            let _ = tokio::fs::remove_file(&temporary).await;
        }
        written
    }

    /// Keeps a blob, here or still to come, until [`untag`](Self::untag), over restarts too. A tag names one blob:
    /// who needs several makes tags with a common beginning, as `job/7/0`, `job/7/1`.
    pub async fn tag(&self, tag: &str, hash: BlobHash) -> Result<(), BlobError> {
        let set = self.store.tags().set(tag, HashAndFormat::raw(to_hash(hash)));
        set.await.map_err(|error| BlobError::Add(error.into()))
    }

    /// Removes every tag that starts with `prefix`; blobs that no other tag names are collected later. End it with
    /// `/`, or `job/7` takes `job/70` along.
    pub async fn untag(&self, prefix: &str) -> Result<u64, BlobError> {
        let removed = self.store.tags().delete_prefix(prefix);
        removed.await.map_err(|error| BlobError::Add(error.into()))
    }

    /// The blob that a tag names.
    pub async fn tagged(&self, tag: &str) -> Result<Option<BlobHash>, BlobError> {
        let found = self.store.tags().get(tag).await.map_err(|error| BlobError::Gone(error.into()))?;
        Ok(found.map(|info| from_hash(info.hash)))
    }

    /// Keeps a blob, here or still to come, for as long as what is returned lives.
    pub async fn hold(&self, hash: BlobHash) -> Result<Hold, BlobError> {
        let tag = self.store.tags().temp_tag(HashAndFormat::raw(to_hash(hash)));
        Ok(Hold { _tag: tag.await.map_err(|error| BlobError::Gone(error.into()))? })
    }

    /// Makes everything that was added so far durable. Call it before anybody is told that a blob is here for good.
    pub async fn sync(&self) -> Result<(), BlobError> {
        self.store.sync_db().await.map_err(|error| BlobError::Sync(error.into()))?;
        let Some(dir) = self.dir.clone() else { return Ok(()) };
        // The store syncs its index, but not the files that hold the bytes.
        let synced = tokio::task::spawn_blocking(move || sync_files(&dir)).await;
        synced.map_err(io::Error::from).flatten().map_err(|error| BlobError::Sync(error.into()))
    }

    /// Bytes sent to other peers, by peer.
    pub fn served(&self) -> &Served {
        &self.served
    }

    /// Payload bytes sent to other peers.
    pub fn served_bytes(&self) -> u64 {
        self.served.total()
    }

    /// Closes the store and waits until its files are free. Close the endpoint first: what is asked of a closed
    /// store fails.
    pub async fn shutdown(&self) {
        // It is closed already when it does not answer.
        if let Err(error) = self.store.shutdown().await {
            tracing::debug!(%error, "blob store was closed already");
        }
    }

    pub(crate) fn inner(&self) -> &Store {
        &self.store
    }

    /// The pieces of a blob that are here, and those that come from now on. It ends when the store is closed, and when the
    /// blob is discarded.
    pub(crate) async fn pieces(&self, blob: BlobRef) -> Result<BoxStream<'static, Vec<PieceNo>>, BlobError> {
        let observed = self.store.observe(to_hash(blob.hash)).stream().await;
        let bitfields = observed.map_err(|error| BlobError::Gone(error.into()))?;
        let held = Held::nothing_of(blob);
        let news = stream::unfold((Box::pin(bitfields), held), async |(mut bitfields, mut held)| {
            let bitfield = bitfields.next().await?;
            Some((held.add(&bitfield.ranges), (bitfields, held)))
        });
        Ok(news.take_until(self.discards.of(blob.hash)).boxed())
    }

    /// The request for what is missing of a range of a blob, at the granularity of verification; none when all of it
    /// is here.
    pub(crate) async fn missing(
        &self,
        hash: BlobHash,
        range: Range<u64>,
    ) -> Result<Option<GetRequest>, BlobError> {
        let wanted = GetRequest::blob_ranges(to_hash(hash), ChunkRanges::bytes(range));
        let local = self.store.remote().local_for_request(wanted).await;
        let local = local.map_err(|error| BlobError::Gone(error.into_boxed_dyn_error()))?;
        Ok((!local.is_complete()).then(|| local.missing()))
    }
}

/// Writes out everything that the system holds back of the file system under `dir`.
fn sync_files(dir: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(std::fs::File::open(dir)?)?;
    #[cfg(not(target_os = "linux"))]
    {
        let _ = dir;
        rustix::fs::sync();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn collecting(dir: &Path) -> BlobStore {
        BlobStore::open_with_gc(dir, Duration::from_millis(20)).await.expect("opened")
    }

    async fn is_collected(store: &BlobStore, hash: BlobHash) {
        let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
        while store.has(hash).await.expect("a store") {
            assert!(tokio::time::Instant::now() < deadline, "it is still there");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn counted(len: u32) -> Vec<u8> {
        (0..len).flat_map(u32::to_le_bytes).collect()
    }

    #[tokio::test]
    async fn what_went_in_comes_out_over_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let (small, large) = (counted(10), counted(300_000));
        let file = dir.path().join("file");
        std::fs::write(&file, &large).expect("written");
        let blobs = dir.path().join("blobs");

        let store = BlobStore::open(&blobs).await.expect("opened");
        let first = store.add_bytes(small.clone(), "a/0").await.expect("added");
        let second = store.add_file(&file, "a/1").await.expect("added");
        assert_eq!(second.size, quantities::Bytes::of(&large));
        assert_eq!(second.hash.as_bytes(), blake3::hash(&large).as_bytes(), "a blob is named by its hash");
        store.sync().await.expect("durable");
        store.shutdown().await;
        store.shutdown().await;
        assert!(store.has(first.hash).await.is_err(), "a closed store says so");

        let store = BlobStore::open(&blobs).await.expect("opened again");
        assert_eq!(store.read(first.hash, 1000).await.expect("here"), small);
        assert_eq!(store.read(second.hash, u64::MAX).await.expect("here"), large);
        for range in [0..0, 0..1, 16_383..16_385, 16_384..32_768, 1_199_999..1_200_000, 5..1_200_000] {
            let expected = &large
                [usize::try_from(range.start).expect("small")..usize::try_from(range.end).expect("small")];
            assert_eq!(
                store.read_range(second.hash, range.clone()).await.expect("here"),
                expected,
                "{range:?}"
            );
        }
        let out = dir.path().join("out");
        store.export(second.hash, &out).await.expect("written");
        assert_eq!(std::fs::read(&out).expect("there"), large);
        assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 3, "no part is left behind");
        store.shutdown().await;
    }

    #[tokio::test]
    async fn what_is_not_here_or_too_long_is_refused() {
        let store = BlobStore::in_memory();
        let nothing = BlobHash::new([9; 32]);
        assert_eq!(store.size(nothing).await.expect("a store"), None);
        assert!(matches!(store.read(nothing, 1).await, Err(BlobError::NotHere { .. })));
        assert!(matches!(store.export(nothing, Path::new("x")).await, Err(BlobError::NotHere { .. })));
        assert!(matches!(
            store.add_file(Path::new("/no/such/file"), "a").await,
            Err(BlobError::AddFile { .. })
        ));
        let blob = store.add_bytes(counted(100), "a").await.expect("added");
        assert!(matches!(store.read(blob.hash, 399).await, Err(BlobError::TooLong { .. })));
        for range in [0..401, 401..401, Range { start: 2, end: 1 }, 0..u64::MAX] {
            assert!(matches!(store.read_range(blob.hash, range).await, Err(BlobError::OutOfRange { .. })));
        }
        let empty = store.add_bytes(Bytes::new(), "a").await.expect("added");
        assert_eq!(store.read(empty.hash, 0).await.expect("nothing is here"), Bytes::new());
    }

    #[tokio::test]
    async fn a_blob_lives_as_long_as_something_names_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = collecting(dir.path()).await;
        let (seven, seventy) = (counted(7), counted(70));
        let first = store.add_bytes(seven, "job/7/0").await.expect("added").hash;
        let second = store.add_bytes(seventy, "job/70/0").await.expect("added").hash;
        store.tag("output/1", first).await.expect("tagged");
        assert_eq!(store.tagged("output/1").await.expect("tags"), Some(first));
        assert_eq!(store.untag("job/7/").await.expect("tags"), 1);

        let hold = store.hold(first).await.expect("held");
        assert_eq!(store.untag("output/").await.expect("tags"), 1);
        let canary = store.add_bytes(counted(8), "canary/").await.expect("added").hash;
        store.untag("canary/").await.expect("tags");
        is_collected(&store, canary).await;
        assert!(store.has(first).await.expect("a store"), "it is held");
        drop(hold);
        is_collected(&store, first).await;
        assert!(store.has(second).await.expect("a store"), "another job's tag");
        store.shutdown().await;
    }

    #[tokio::test]
    async fn a_store_is_open_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = BlobStore::open(dir.path()).await.expect("opened");
        let error = BlobStore::open(dir.path()).await.expect_err("it is open");
        assert!(error.to_string().contains(dir.path().to_str().expect("text")), "{error}");
        store.shutdown().await;
        BlobStore::open(dir.path()).await.expect("free again").shutdown().await;
    }

    #[tokio::test]
    async fn a_flipped_bit_on_disk_is_found_when_it_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = BlobStore::open(dir.path()).await.expect("opened");
        let blob = store.add_bytes(counted(100_000), "a").await.expect("added");
        store.sync().await.expect("durable");
        store.shutdown().await;
        let data = dir.path().join("data").join(format!("{}.data", blob.hash));
        let mut bytes = std::fs::read(&data).expect("there");
        bytes[200_000] ^= 1;
        std::fs::write(&data, bytes).expect("written");

        let store = BlobStore::open(dir.path()).await.expect("opened");
        assert!(matches!(store.read(blob.hash, u64::MAX).await, Err(BlobError::Read { .. })));
        assert!(matches!(store.read_range(blob.hash, 199_000..201_000).await, Err(BlobError::Read { .. })));
        store.read_range(blob.hash, 0..1000).await.expect("the rest is good");
        let out = dir.path().join("out");
        store.export(blob.hash, &out).await.expect_err("damaged");
        assert!(!out.exists(), "half a file is none");
        store.shutdown().await;
    }
}
