//! A worker whose disk may be full for a while.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
    time::Duration,
};

use talka_core::ids::PeerId;
use tokio_util::sync::CancellationToken;

use crate::{WorkerConfig, WorkerError, run};

/// First time between two looks whether there is room again; it doubles.
const LOOK_MIN: Duration = Duration::from_secs(1);
/// Longest such time.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// Room that has to be there before it is tried again: a piece of a blob, and some for the index of the store.
const ROOM_BYTES: usize = 4 << 20;

/// Runs a worker as [`run`] does. When its disk is full it gives back what it holds, waits until there is room, and goes on:
/// what it finished before that is on the disk, and is reported when it is back.
pub async fn run_persistently(
    config: WorkerConfig,
    shutdown: CancellationToken,
    on_ready: impl FnOnce(PeerId),
) -> Result<(), WorkerError> {
    let mut on_ready = Some(on_ready);
    let mut pause = LOOK_MIN;
    loop {
        let mut was_up = false;
        let up = |peer| {
            was_up = true;
            if let Some(on_ready) = on_ready.take() {
                on_ready(peer);
            }
        };
        let ended = run(config.clone(), shutdown.clone(), up).await;
        if was_up {
            pause = LOOK_MIN;
        }
        let failed = match ended {
            Err(error) if is_of_the_disk(&error) && !shutdown.is_cancelled() => error,
            ended => return ended,
        };
        // A disk that is not full fails for another reason: whoever looks after the machine has to know.
        if has_room(&config.data_dir).is_ok() && pause > LOOK_MAX {
            return Err(failed);
        }
        tracing::error!(dir = %config.data_dir.display(), problem = %crate::disk::problem(&failed), "the disk takes nothing: waiting for room");
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            pause *= 2;
            match has_room(&config.data_dir) {
                Ok(()) => break,
                Err(error) => tracing::debug!(%error, "there is no room yet"),
            }
            pause = pause.min(LOOK_MAX);
        }
        tracing::info!("there is room on the disk again: going on");
    }
}

fn is_of_the_disk(error: &WorkerError) -> bool {
    matches!(
        error,
        WorkerError::Disk { .. }
            | WorkerError::Blobs(_)
            | WorkerError::Outputs { .. }
            | WorkerError::Checkpoints { .. }
    )
}

/// Whether some megabytes can be written and made durable.
fn has_room(dir: &Path) -> io::Result<()> {
    let path = dir.join(".room");
    let written =
        OpenOptions::new().write(true).create(true).truncate(true).open(&path).and_then(|mut file| {
            file.write_all(&vec![0; ROOM_BYTES])?;
            file.sync_all()
        });
    // What is left of it would be in the way of what comes next.
    drop(fs::remove_file(&path));
    written
}
