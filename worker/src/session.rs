//! The session with the coordinator: kept up for as long as the worker runs.

use std::{sync::Arc, time::Duration};

use talka_core::{ids::PeerId, job::JobSpec, ledger::Names};
use talka_peer::rpc::Client;
use talka_proto::{
    PROTOCOL,
    convert::{InvalidMessage, assignments, attempt_ids, attempts},
    wire::{self, coordinator_message::Message, grid_client::GridClient, worker_message},
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::{shell::Event, tracker::Presence, trust::Trust};

/// What a worker's owner decided about sessions.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) trust: Trust,
    pub(crate) names: Names,
    /// What is told of where this worker is.
    pub(crate) presence: Presence,
}

/// Why a session did not come up or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// The coordinator can't be reached, or the connection broke. Worth a retry.
    #[error("{}", .0.message())]
    Connection(#[from] Status),
    /// The coordinator breaks the protocol. Worth a retry: it may be mended meanwhile.
    #[error("the coordinator sent a message that breaks the protocol: {0}")]
    Message(#[from] InvalidMessage),
    /// The worker itself stops.
    #[error("the worker stops")]
    Stopped,
}

impl SessionError {
    /// Whether no retry will help.
    pub(crate) fn is_final(&self) -> bool {
        let Self::Connection(status) = self else { return false };
        let refused = [Code::FailedPrecondition, Code::PermissionDenied, Code::Unauthenticated];
        refused.contains(&status.code())
    }
}

/// Keeps a session up until `shutdown`. Returns early only if the coordinator refuses this worker for good.
pub(crate) async fn keep(
    client: Client,
    terms: Terms,
    events: mpsc::Sender<Event>,
    up: mpsc::Sender<()>,
    shutdown: CancellationToken,
) -> Result<(), SessionError> {
    /// First wait after a broken session; it doubles up to [`PAUSE_MAX`].
    const PAUSE_MIN: Duration = Duration::from_millis(100);
    const PAUSE_MAX: Duration = Duration::from_secs(5);
    let mut pause = PAUSE_MIN;
    loop {
        let mut welcomed = false;
        let ended = session(&client, &terms, &events, &up, &mut welcomed).await;
        if welcomed {
            pause = PAUSE_MIN;
        }
        if events.send(Event::Disconnected).await.is_err() || shutdown.is_cancelled() {
            return Ok(());
        }
        match ended {
            Err(error) if error.is_final() => return Err(error),
            Err(error) => tracing::warn!(%error, retry_millis = pause.as_millis(), "session ended"),
            Ok(()) => tracing::info!("the coordinator closed the session"),
        }
        // Workers that lost the same coordinator must not all come back in the same moment.
        let jitter = rand::random_range(0.5..1.0);
        tokio::select! {
            () = tokio::time::sleep(pause.mul_f64(jitter)) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn session(
    client: &Client,
    terms: &Terms,
    events: &mpsc::Sender<Event>,
    up: &mpsc::Sender<()>,
    welcomed: &mut bool,
) -> Result<(), SessionError> {
    let mut grid =
        GridClient::new(client.channel()).max_decoding_message_size(talka_core::limits::MESSAGE_BYTES_MAX);
    let hello = wire::JoinRequest { protocol: PROTOCOL, agent: crate::AGENT.into() };
    grid.join(hello).await?;
    let (reply, answer) = oneshot::channel();
    events.send(Event::Opening(reply)).await.map_err(|_| SessionError::Stopped)?;
    let (capacity, holding) = answer.await.map_err(|_| SessionError::Stopped)?;
    let hello = wire::Hello {
        capacity: Some(capacity.into()),
        holding: attempts(&holding),
        owner: terms.names.owner().into(),
        team: terms.names.team().into(),
        addresses: terms.presence.addresses().iter().map(ToString::to_string).collect(),
        by_relay: terms.presence.by_relay(),
    };
    let (outbound, messages) = mpsc::channel(talka_core::limits::SESSION_QUEUE_MAX);
    // The shell gets the only sender: when it drops that, all that it said is sent, and the session ends.
    let mut outbound = Some(outbound);
    let first = worker_message::Message::Hello(hello);
    let first = tokio_stream::once(wire::WorkerMessage { message: Some(first) });
    let mut inbound = grid.session(first.chain(ReceiverStream::new(messages))).await?.into_inner();
    while let Some(message) = inbound.message().await? {
        let event = match message.message.ok_or_else(|| InvalidMessage::new("message", "missing"))? {
            Message::Welcome(welcome) => {
                let outbound = outbound.take().ok_or_else(|| InvalidMessage::new("welcome", "sent twice"))?;
                *welcomed = true;
                // Full means that somebody was told already.
                let _ = up.try_send(());
                Event::Welcome { unknown: attempt_ids(welcome.unknown), outbound }
            }
            other => event(client.peer(), &terms.trust, other)?,
        };
        // A worker that stops hears no more, but what it said last has to get through.
        drop(events.send(event).await);
    }
    Ok(())
}

fn event(coordinator: PeerId, trust: &Trust, message: Message) -> Result<Event, InvalidMessage> {
    Ok(match message {
        Message::Welcome(_) => return Err(InvalidMessage::new("welcome", "sent twice")),
        Message::Job(mut job) => {
            let spec = job.spec.take().ok_or_else(|| InvalidMessage::new("spec", "missing"))?;
            let (id, spec) = (talka_core::ids::JobId::new(job.job), JobSpec::try_from(spec)?);
            match trust.admits(coordinator, &job, &spec) {
                Ok(()) => Event::Job(id, Arc::new(spec)),
                Err(reason) => {
                    tracing::warn!(job = %id, %reason, "a job is not run here");
                    Event::Refused(id)
                }
            }
        }
        Message::Lease(lease) => {
            let (job, items) = assignments(lease)?;
            Event::Lease(job, items)
        }
        Message::Settled(settled) => Event::Settled {
            attempts: attempt_ids(settled.attempts),
            released: attempt_ids(settled.released),
        },
        Message::Cancelled(cancelled) => Event::Cancelled(attempt_ids(cancelled.attempts)),
        Message::Recall(recall) => Event::Recalled(attempt_ids(recall.attempts)),
        Message::Ended(ended) => Event::Ended(talka_core::ids::JobId::new(ended.job)),
    })
}
