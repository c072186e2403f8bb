//! Blobs that are being discarded: whoever observes or reads one is to let go of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use talka_core::ids::BlobHash;
use tokio::sync::watch;

/// See the [module](self). Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Discards {
    /// How many times each of them, at once.
    now: Arc<Mutex<HashMap<BlobHash, usize>>>,
    /// How many were begun.
    begun: watch::Sender<u64>,
}

/// A blob is discarded until this is dropped.
#[derive(Debug)]
pub(super) struct Discarding {
    discards: Discards,
    hash: BlobHash,
}

impl Default for Discards {
    fn default() -> Self {
        Self { now: Arc::default(), begun: watch::Sender::new(0) }
    }
}

impl Discards {
    /// From now on nobody may observe or read this blob.
    pub(super) fn begin(&self, hash: BlobHash) -> Discarding {
        *self.now().entry(hash).or_default() += 1;
        self.begun.send_modify(|begun| *begun += 1);
        Discarding { discards: self.clone(), hash }
    }

    /// Whether this blob is being discarded.
    pub(super) fn is_one(&self, hash: BlobHash) -> bool {
        self.now().contains_key(&hash)
    }

    /// Waits until this blob is discarded.
    pub(super) fn of(&self, hash: BlobHash) -> impl Future<Output = ()> + Send + 'static {
        let (mut begun, now) = (self.begun.subscribe(), self.now.clone());
        async move {
            let is_one = |_: &u64| now.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&hash);
            if begun.wait_for(is_one).await.is_err() {
                // There is no store any more that could discard anything.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until any blob is discarded that is not yet.
    pub(super) fn any(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut begun = self.begun.subscribe();
        async move {
            if begun.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn now(&self) -> MutexGuard<'_, HashMap<BlobHash, usize>> {
        // Changed by whole statements, so it holds even after a panic elsewhere.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Discarding {
    fn drop(&mut self) {
        let mut now = self.discards.now();
        match now.get_mut(&self.hash) {
            Some(times) if *times > 1 => *times -= 1,
            _ => drop(now.remove(&self.hash)),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn who_waits_for_the_end_of_a_blob_hears_of_that_one() {
        let (one, two) = (BlobHash::new([1; 32]), BlobHash::new([2; 32]));
        let discards = Discards::default();
        let (of_one, of_two, any) = (discards.of(one), discards.of(two), discards.any());
        let discarding = discards.begin(one);
        assert!(discards.is_one(one) && !discards.is_one(two));
        assert_eq!(of_one.now_or_never(), Some(()));
        assert_eq!(of_two.now_or_never(), None);
        assert_eq!(any.now_or_never(), Some(()));
        assert_eq!(discards.of(one).now_or_never(), Some(()), "it still is");
        assert_eq!(discards.any().now_or_never(), None, "that one is known");
        let again = discards.begin(one);
        drop(discarding);
        assert!(discards.is_one(one), "somebody else still discards it");
        drop(again);
        assert!(!discards.is_one(one));
        assert_eq!(discards.of(one).now_or_never(), None);
    }
}
