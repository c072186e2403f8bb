//! The worker's end of the socket.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use talka_core::limits;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    sync::{Mutex, Semaphore, mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Answer, Pause, Refused, Request, Socket, Status};

/// A request, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) reply: oneshot::Sender<Result<Status, Refused>>,
}

#[derive(Debug)]
struct Server {
    data_dir: PathBuf,
    /// Leads to whoever owns the worker's state. One request at a time, so that what the worker was told last is what
    /// outlives it.
    shell: Mutex<mpsc::Sender<Asked>>,
}

/// Answers requests for ever.
pub(crate) async fn serve(socket: Socket, data_dir: PathBuf, shell: mpsc::Sender<Asked>) {
    /// After an error of the socket, such as too many open files.
    const PAUSE: Duration = Duration::from_millis(100);
    let server = Arc::new(Server { data_dir, shell: Mutex::new(shell) });
    let room = Arc::new(Semaphore::new(limits::CONTROL_CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // It is never closed.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match socket.accept().await {
            Ok(Some(stream)) => {
                let server = server.clone();
                connections.spawn(async move {
                    let answered = timeout(limits::CONTROL_TIMEOUT, server.connection(stream)).await;
                    if !matches!(answered, Ok(Ok(()))) {
                        tracing::debug!("a request on the control socket came to nothing");
                    }
                    drop(permit);
                });
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "the control socket has a problem");
                sleep(PAUSE).await;
            }
        }
    }
}

impl Server {
    async fn connection(&self, stream: UnixStream) -> io::Result<()> {
        let (reading, mut writing) = stream.into_split();
        // One byte more than fits, so that a longer request is seen to be one.
        let mut reading = BufReader::new(reading.take(limits::CONTROL_REQUEST_BYTES_MAX as u64 + 1));
        let mut line = Vec::new();
        reading.read_until(b'\n', &mut line).await?;
        let answer = match self.answer(&line).await {
            Ok(status) => Answer::Status(Box::new(status)),
            Err(refused) => Answer::Error(refused),
        };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        writing.write_all(&text).await?;
        writing.shutdown().await
    }

    async fn answer(&self, line: &[u8]) -> Result<Status, Refused> {
        if line.len() > limits::CONTROL_REQUEST_BYTES_MAX {
            let max = limits::CONTROL_REQUEST_BYTES_MAX;
            return Err(Refused::new("limit", format!("a request has {max} bytes at most")));
        }
        let request: Request = serde_json::from_slice(line).map_err(|error| {
            let text =
                format!("this worker does not understand the request: {error}; is it of another version?");
            Refused::new("unknown-request", text)
        })?;
        let shell = self.shell.lock().await;
        let (reply, answer) = oneshot::channel();
        let stopping = || Refused::new("stopping", "the worker is about to end");
        shell.send(Asked { request, reply }).await.map_err(|_| stopping())?;
        let status = answer.await.map_err(|_| stopping())??;
        if request.is_about_pause() {
            save(status.pause, &self.data_dir).await?;
        }
        Ok(status)
    }
}

/// Nothing is acknowledged that would not outlive a power cut.
async fn save(pause: Option<Pause>, data_dir: &Path) -> Result<(), Refused> {
    let dir = data_dir.to_owned();
    let saved = tokio::task::spawn_blocking(move || Pause::save(pause, &dir)).await;
    let error = match saved {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    let dir = data_dir.display();
    Err(Refused::new(
        "io",
        format!("done, but it will not outlive this worker: {dir} can't be written: {error}"),
    ))
}
