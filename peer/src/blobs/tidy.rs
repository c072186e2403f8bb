//! Getting rid of blobs: of what nobody names, when its room is needed, and of what is damaged.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use iroh_blobs::store::{GcConfig, ProtectCb, ProtectOutcome};
use talka_core::ids::BlobHash;
use tokio::sync::{Notify, watch};

use super::{BlobError, BlobStore, from_hash};

/// Between a collection and the look whether another one was asked for.
const BREATH: Duration = Duration::from_millis(1);
/// What a collection may take: it looks at all blobs, and removes files.
const COLLECTION_MAX: Duration = Duration::from_secs(30);
/// Times that a damaged blob is to be collected while somebody still reads it.
const DISCARD_TRIES: u32 = 3;
/// What the store may take to let go of a blob that nobody observes any more: transfers that were cut off have to end.
const LET_GO_MAX: Duration = Duration::from_secs(2);
/// How often that is looked at.
const LET_GO_LOOK: Duration = Duration::from_millis(10);

/// When blobs that nobody names are collected: in an interval, and when somebody needs their room.
#[derive(Debug)]
pub(super) struct Collections {
    asked: Notify,
    /// Collections that have begun.
    begun: AtomicU64,
    /// How many of them have ended.
    ended: watch::Sender<u64>,
}

impl Collections {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { asked: Notify::new(), begun: AtomicU64::new(0), ended: watch::Sender::new(0) })
    }

    /// The store calls back before each collection, and begins it when the answer comes.
    pub(super) fn config(self: &Arc<Self>, interval: Duration) -> GcConfig {
        let this = self.clone();
        let before: ProtectCb = Arc::new(move |_live| {
            let this = this.clone();
            Box::pin(async move {
                this.ended.send_replace(this.begun.load(Ordering::SeqCst));
                drop(tokio::time::timeout(interval, this.asked.notified()).await);
                this.begun.fetch_add(1, Ordering::SeqCst);
                ProtectOutcome::Continue
            })
        });
        GcConfig { interval: BREATH.min(interval), add_protected: Some(before) }
    }

    /// Waits for a collection that begins from now on. Returns whether one came to its end.
    async fn collect(&self) -> bool {
        let next = self.begun.load(Ordering::SeqCst) + 1;
        let mut ended = self.ended.subscribe();
        self.asked.notify_one();
        tokio::time::timeout(COLLECTION_MAX, ended.wait_for(|ended| *ended >= next)).await.is_ok()
    }
}

impl BlobStore {
    /// Frees the room of all blobs that nobody names now.
    pub async fn collect(&self) {
        if !self.collections.collect().await {
            tracing::warn!("what nobody needs of the blob store was not removed in time");
        }
    }

    /// The tags that start with `prefix`, in their order, with the blobs that they name.
    pub async fn tags(&self, prefix: &str) -> Result<Vec<(String, BlobHash)>, BlobError> {
        let gone = |error| BlobError::Gone(Box::new(error));
        let mut found = self.inner().tags().list_prefix(prefix).await.map_err(gone)?;
        let mut tags = Vec::new();
        while let Some(tag) = found.next().await {
            let tag = tag.map_err(|error| BlobError::Gone(error.into()))?;
            // Only text was ever made a tag of.
            if let Ok(name) = std::str::from_utf8(&tag.name.0) {
                tags.push((name.to_owned(), from_hash(tag.hash)));
            }
        }
        Ok(tags)
    }

    /// Removes a damaged blob, so that it can be fetched again; what named it names it still. Nobody may
    /// [hold](Self::hold) it, or it stays and this fails.
    ///
    /// What `iroh-blobs` knows of a blob stays in memory, the damaged file open in it, as long as anybody observes the blob
    /// or reads it, and what is written meanwhile is thrown away because all of it seems to be there. So other peers that
    /// do are cut off, and let in again afterwards.
    pub async fn discard(&self, hash: BlobHash) -> Result<(), BlobError> {
        let _cut_off = self.discards.begin(hash);
        let named: Vec<String> =
            self.tags("").await?.into_iter().filter(|(_, of)| *of == hash).map(|(name, _)| name).collect();
        for name in &named {
            let removed = self.inner().tags().delete(name).await;
            removed.map_err(|error| BlobError::Add(error.into()))?;
        }
        for _ in 0..DISCARD_TRIES {
            self.collect().await;
            if !self.has(hash).await? {
                break;
            }
        }
        for name in &named {
            self.tag(name, hash).await?;
        }
        if self.has(hash).await? {
            return Err(BlobError::InUse { hash });
        }
        let until = tokio::time::Instant::now() + LET_GO_MAX;
        while !self.has_let_go(hash).await? {
            if tokio::time::Instant::now() >= until {
                return Err(BlobError::InUse { hash });
            }
            // To look is to observe: the store lets go in between.
            tokio::time::sleep(LET_GO_LOOK).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(len: u32) -> Vec<u8> {
        (0..len).flat_map(u32::to_le_bytes).collect()
    }

    #[tokio::test]
    async fn room_is_free_when_it_is_needed_and_not_some_time_later() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = BlobStore::open(dir.path()).await.expect("opened");
        for round in 1..5 {
            let here = store.add_bytes(counted(100_000 + round), "a/").await.expect("added");
            store.collect().await;
            assert!(store.has(here.hash).await.expect("a store"), "it is named");
            store.untag("a/").await.expect("tags");
            store.collect().await;
            assert!(!store.has(here.hash).await.expect("a store"), "round {round}");
            assert!(!dir.path().join("data").join(format!("{}.data", here.hash)).exists());
        }
        store.shutdown().await;
    }

    #[tokio::test]
    async fn tags_are_told_in_their_order() {
        let store = BlobStore::in_memory();
        let (one, two) = (BlobHash::new([1; 32]), BlobHash::new([2; 32]));
        for (tag, hash) in [("b/2", one), ("a/1", one), ("b/1", two)] {
            store.tag(tag, hash).await.expect("tagged");
        }
        assert_eq!(store.tags("b/").await.expect("tags"), [("b/1".into(), two), ("b/2".into(), one)]);
    }

    #[tokio::test]
    async fn a_damaged_blob_can_be_had_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = BlobStore::open(dir.path()).await.expect("opened");
        let bytes = counted(100_000);
        let blob = store.add_bytes(bytes.clone(), "job/1/").await.expect("added");
        store.tag("job/2/", blob.hash).await.expect("tagged");
        store.sync().await.expect("durable");
        let data = dir.path().join("data").join(format!("{}.data", blob.hash));
        let mut damaged = bytes.clone();
        damaged[200_000] ^= 1;
        // In place, as a disk does it.
        std::io::Write::write_all(
            &mut std::fs::File::options().write(true).open(&data).expect("there"),
            &damaged,
        )
        .expect("written");
        assert!(matches!(store.read(blob.hash, u64::MAX).await, Err(BlobError::Read { .. })));

        let hold = store.hold(blob.hash).await.expect("held");
        assert!(matches!(store.discard(blob.hash).await, Err(BlobError::InUse { .. })));
        drop(hold);
        store.discard(blob.hash).await.expect("removed");
        assert_eq!(store.tagged("job/2/").await.expect("tags"), Some(blob.hash), "it is wanted still");
        assert!(store.read(blob.hash, u64::MAX).await.is_err());
        store.add_bytes(bytes.clone(), "job/3/").await.expect("added");
        assert_eq!(store.read(blob.hash, u64::MAX).await.expect("whole"), bytes);
        store.shutdown().await;
    }
}
