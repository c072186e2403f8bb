//! The checkpoint of a running task that is on its way to the disk.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use talka_core::limits;
use tokio::{task::JoinHandle, time::Instant};

use crate::checkpoints::Keep;

/// One write at a time. Dropped in the middle, it sees to it that what has not begun never does: its attempt is not wanted
/// any more, and what it kept may have been removed already.
#[derive(Debug, Default)]
pub(super) struct Saving {
    writing: Option<JoinHandle<()>>,
    /// Before that, no honest executor has another one.
    next: Option<Instant>,
    revoked: Arc<AtomicBool>,
}

impl Saving {
    /// Writes a checkpoint, unless the one before is not written yet: then the disk is slower than the program, and this one
    /// is passed over. So is one that comes too soon.
    pub(super) fn save(&mut self, keep: &Keep, snapshot: Vec<u8>) {
        let now = Instant::now();
        let too_soon = self.next.is_some_and(|next| now < next);
        if too_soon || self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        self.next = Some(now + pause_after(snapshot.len() as u64));
        let (keep, revoked) = (keep.clone(), self.revoked.clone());
        self.writing = Some(tokio::spawn(async move { keep.save(snapshot, revoked).await }));
    }

    /// Waits until what was taken is written.
    pub(super) async fn finish(&mut self) {
        if let Some(writing) = &mut self.writing {
            // It never panics, and nobody aborts it.
            drop(writing.await);
            self.writing = None;
        }
    }
}

impl Drop for Saving {
    fn drop(&mut self) {
        self.revoked.store(true, Ordering::Relaxed);
    }
}

/// Half of what an executor keeps to by itself: frames may be late on their way.
fn pause_after(bytes: u64) -> Duration {
    let paid = Duration::from_secs(bytes / limits::CHECKPOINT_BYTES_PER_SEC);
    paid.max(limits::CHECKPOINT_INTERVAL_MIN) / 2
}

/// What to go on from, if a task has anything.
pub(super) async fn load(keep: Option<&Keep>) -> Option<Vec<u8>> {
    match keep {
        Some(keep) => keep.load().await,
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use talka_core::ids::{BlobHash, InputDigest};

    use super::*;
    use crate::checkpoints::Key;

    #[tokio::test]
    async fn a_flood_of_checkpoints_is_written_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let hash = BlobHash::new([1; 32]);
        let key = Key::new(hash, hash, InputDigest::new([2; 32]));
        let keep = Keep::in_dir(dir.path().to_owned(), key).await.expect("a directory");
        let mut saving = Saving::default();
        for number in 0..100 {
            saving.save(&keep, vec![number; 100]);
            saving.finish().await;
        }
        assert_eq!(keep.load().await, Some(vec![0; 100]));
        drop(saving);
        keep.remove().await;
        assert_eq!(load(Some(&keep)).await, None);
    }

    #[test]
    fn large_ones_are_paid_for() {
        assert_eq!(pause_after(0), limits::CHECKPOINT_INTERVAL_MIN / 2);
        assert_eq!(pause_after(limits::TASK_CHECKPOINT_BYTES_MAX), Duration::from_secs(32));
    }
}
