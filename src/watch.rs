//! Follows a job until it ends, through restarts of its coordinator.

use std::time::Duration;

use anyhow::Context;
use talka_proto::wire;
use tonic::Status;

use crate::{
    client::Client,
    error::{Failure, is_transient},
    output::{Out, printable},
    view,
};

/// First pause before a broken stream is asked for again.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// Longest pause: a restarted coordinator is noticed soon, and one that stays away costs nothing.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Retries of one stream: pauses that grow, and a word to the user when the connection breaks and when it is
/// back, however many streams it carried.
#[derive(Debug)]
pub(crate) struct Retry<'a> {
    client: &'a Client,
    out: Out,
    pause: Duration,
}

impl<'a> Retry<'a> {
    pub(crate) fn new(client: &'a Client, out: Out) -> Self {
        Self { client, out, pause: PAUSE_MIN }
    }

    /// Something arrived.
    pub(crate) fn succeeded(&mut self) {
        if self.client.note_lost(false) {
            self.out.warn("the coordinator is back");
        }
        self.pause = PAUSE_MIN;
    }

    /// Waits before the next try; an error that will not pass is returned instead.
    pub(crate) async fn failed(&mut self, status: Status) -> Result<(), Failure> {
        if !is_transient(&status) {
            return Err(status.into());
        }
        if !self.client.note_lost(true) {
            let reason = printable(status.message());
            self.out.warn(format!(
                "the connection to the coordinator broke ({reason}); trying again until it is back"
            ));
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}

/// The status that stands for a stream which ended too early.
pub(crate) fn ended_early() -> Status {
    Status::unavailable("the coordinator closed the stream")
}

/// Calls `on_change` with the job as it is now and whenever it changes; returns it when it has ended.
pub(crate) async fn until_final(
    client: &Client,
    job: u64,
    out: Out,
    mut on_change: impl FnMut(&wire::JobInfo) -> anyhow::Result<()>,
) -> anyhow::Result<wire::JobInfo> {
    let mut retry = Retry::new(client, out);
    loop {
        let broken = match client.jobs().watch(wire::JobRequest { job }).await {
            Err(status) => status,
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(info)) => {
                            retry.succeeded();
                            on_change(&info)?;
                            if view::is_final(&info) {
                                return Ok(info);
                            }
                        }
                        Ok(None) => break ended_early(),
                        Err(status) => break status,
                    }
                }
            }
        };
        retry.failed(broken).await.with_context(|| format!("cannot watch job {job}"))?;
    }
}
