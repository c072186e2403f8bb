//! The owner's end of the socket.

use std::{
    io,
    path::{Path, PathBuf},
};

use talka_core::limits;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{Answer, Refused, Request, Status, socket};

/// A worker could not be asked, or did not obey.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No worker has this directory. Worth a retry when one was started.
    #[error("no worker runs with the data directory {}", .0.display())]
    NotRunning(PathBuf),
    /// The socket can't be used. Not worth a retry before that is mended.
    #[error("the worker with the data directory {} can't be reached", data_dir.display())]
    Connect {
        /// The data directory.
        data_dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It does not answer in time, or ended meanwhile. Worth a retry.
    #[error("the worker does not answer")]
    Silent,
    /// It says something that this program does not understand. Not worth a retry.
    #[error("the worker's answer makes no sense; is it of another version?")]
    Answer(#[source] serde_json::Error),
    /// It does not obey.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Asks the worker that has this data directory, and tells how it is afterwards.
pub async fn ask(data_dir: &Path, request: Request) -> Result<Status, AskError> {
    let asked = timeout(limits::CONTROL_TIMEOUT, exchange(data_dir, request)).await;
    asked.map_err(|_| AskError::Silent)?
}

async fn exchange(data_dir: &Path, request: Request) -> Result<Status, AskError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            AskError::NotRunning(data_dir.to_owned())
        }
        _ => AskError::Connect { data_dir: data_dir.to_owned(), source },
    };
    let mut stream = socket::connect(data_dir).await.map_err(failed)?;
    let mut line = serde_json::to_vec(&request).map_err(AskError::Answer)?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(|_| AskError::Silent)?;
    let mut answer = Vec::new();
    let max = limits::CONTROL_ANSWER_BYTES_MAX as u64;
    stream.take(max).read_to_end(&mut answer).await.map_err(|_| AskError::Silent)?;
    if answer.is_empty() {
        return Err(AskError::Silent);
    }
    match serde_json::from_slice(&answer).map_err(AskError::Answer)? {
        Answer::Status(status) => Ok(*status),
        Answer::Error(refused) => Err(refused.into()),
    }
}
