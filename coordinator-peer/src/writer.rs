//! The thread that makes batches durable.
//!
//! One batch at a time: while a commit waits for the disk, the reactor gathers the effects of whatever
//! happens meanwhile into the next batch. Under load that is group commit; an idle coordinator commits at
//! once.

use std::thread::JoinHandle;

use talka_core::coordinator::{Batch, FinalRow};
use tokio::sync::mpsc;

use crate::store::{Store, StoreError};

/// The room that the final tasks of a batch took, with none in it, to be used again: it is large, and one round is much
/// like the next.
pub(crate) type Room = Vec<FinalRow>;

/// Final tasks for which room is kept, some 200 bytes each: what a busy coordinator commits at once.
const ROOM_MAX: usize = 16_384;

/// The writer thread, from the reactor's side.
#[derive(Debug)]
pub(crate) struct Writer {
    batches: Option<mpsc::Sender<Batch>>,
    done: mpsc::Receiver<Result<Room, StoreError>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. It owns the store until the writer is dropped.
    pub(crate) fn start(mut store: Box<dyn Store>) -> std::io::Result<Self> {
        // One batch in work: the reactor sends the next only after the answer.
        let (batches, mut requests) = mpsc::channel::<Batch>(1);
        let (answers, done) = mpsc::channel(1);
        let thread = std::thread::Builder::new().name("store-writer".into()).spawn(move || {
            while let Some(mut batch) = requests.blocking_recv() {
                let seq = store.last_seq().next();
                let committed = store.commit(seq, &batch);
                let mut room = std::mem::take(&mut batch.finals);
                room.clear();
                room.shrink_to(ROOM_MAX);
                if answers.blocking_send(committed.map(|()| room)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { batches: Some(batches), done, thread: Some(thread) })
    }

    /// Hands a batch over. The one before has to be done.
    pub(crate) fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let batches = self.batches.as_ref().ok_or(StoreError::Busy)?;
        batches.try_send(batch).map_err(|_| StoreError::Busy)
    }

    /// The answer to the batch in work.
    pub(crate) async fn done(&mut self) -> Result<Room, StoreError> {
        self.done.recv().await.unwrap_or(Err(StoreError::Busy))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.batches = None;
        self.done.close();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by its last answer.
            drop(thread.join());
        }
    }
}
