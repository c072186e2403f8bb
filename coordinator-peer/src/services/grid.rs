//! `Grid`: the sessions of workers.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt};
use prost::Message as _;
use talka_core::{
    coordinator::{Examined, Fetched, JobRefusal, Report, ToWorker},
    ids::{JobId, SessionId},
    ledger::Names,
    limits,
    placement::{InviteId, Origin, OwnerKey},
    quantities::Bytes,
};
use talka_peer::rpc::Role;
use talka_proto::{
    PROTOCOL,
    convert::{InvalidMessage, attempt_ids, id_bytes, to_worker},
    wire::{self, coordinator_message::Message as ToMessage, grid_server::Grid, worker_message::Message},
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Context, refused};
use crate::{
    clock,
    places::Place,
    reactor::{Event, Handle, Opened, Stopped},
    receipts::{Bundles, Checker, Signed, Unsigned},
};

/// See the [module](self).
pub(crate) struct GridService(pub(crate) Context);

/// Messages to a worker.
type Outbound = Pin<Box<dyn Stream<Item = Result<wire::CoordinatorMessage, Status>> + Send>>;

#[tonic::async_trait]
impl Grid for GridService {
    async fn join(&self, request: Request<wire::JoinRequest>) -> Result<Response<wire::JoinReply>, Status> {
        let peer = talka_peer::rpc::peer(&request)?;
        let theirs = request.get_ref().protocol;
        if theirs != PROTOCOL {
            let newer = if theirs > PROTOCOL { "coordinator" } else { "worker" };
            let text = format!(
                "this coordinator speaks protocol {PROTOCOL}, the worker speaks {theirs}: update the {newer}"
            );
            return Err(Status::failed_precondition(text));
        }
        Ok(Response::new(wire::JoinReply {
            protocol: PROTOCOL,
            agent: crate::AGENT.into(),
            now_millis: clock::now().millis(),
            peer: id_bytes(peer.as_bytes()),
        }))
    }

    type SessionStream = Outbound;

    async fn session(
        &self,
        request: Request<Streaming<wire::WorkerMessage>>,
    ) -> Result<Response<Outbound>, Status> {
        let peer = talka_peer::rpc::peer(&request)?;
        let address = talka_peer::rpc::address(&request);
        let has_token = talka_peer::rpc::role(&request) >= Role::Submitter;
        let invite = talka_peer::rpc::token(&request).filter(|_| !has_token);
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, inbound.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("the session began without a hello"))??;
        let Some(Message::Hello(hello)) = first.and_then(|message| message.message) else {
            return Err(Status::invalid_argument("the first message of a session is a hello"));
        };
        let capacity = hello.capacity.ok_or_else(|| InvalidMessage::new("capacity", "missing"))?;
        let capacity = capacity.try_into()?;
        let names = Names::new(&hello.owner, &hello.team)
            .map_err(|error| InvalidMessage::new("owner", error.to_string()))?;
        let holding = attempt_ids(hello.holding);
        let place = Place::new(&hello.addresses, hello.by_relay);
        let (outbound, messages) = mpsc::channel(limits::SESSION_QUEUE_MAX);
        let reactor = self.0.reactor.clone();
        let invite = invite.map(|token| InviteId::of(&token));
        let origin = Origin { address, owner: OwnerKey::of(names.owner()), invite, has_token };
        let opened = Opened { peer, origin, capacity, holding, outbound };
        let opened = reactor.call(|reply| Event::Opened(Box::new(opened), reply)).await?;
        let session = opened.map_err(|refusal| refused(&refusal))?;
        tracing::info!(%peer, session = session.get(), "worker connected");
        self.0.submissions.places().learn(peer, place);
        if names != Names::default() {
            reactor.send(Event::Named(session, names)).await?;
        }
        let bundles = Bundles::default();
        let checker = Checker::new(self.0.identity.peer_id(), peer, bundles.clone());
        let unanswered = Arc::new(Semaphore::new(limits::SESSION_UNANSWERED_MAX));
        tokio::spawn(read_session(reactor, checker, session, inbound, unanswered.clone()));
        Ok(Response::new(self.outbound(messages, unanswered, bundles)))
    }
}

impl GridService {
    /// Messages as the worker takes them. With each answer to a message of reports there is room for another one.
    fn outbound(
        &self,
        messages: mpsc::Receiver<ToWorker>,
        unanswered: Arc<Semaphore>,
        bundles: Bundles,
    ) -> Outbound {
        let (inputs, blobs) = (self.0.inputs.clone(), self.0.submissions.blobs().clone());
        // Inputs are read when the worker takes their lease, so that they wait on the disk and not in memory.
        let messages = ReceiverStream::new(messages).filter_map(move |message| {
            if matches!(&message, ToWorker::Settled { attempts, .. } if !attempts.is_empty()) {
                unanswered.add_permits(1);
            }
            if let ToWorker::Job { job, spec, .. } = &message {
                bundles.note(*job, spec.bundle.hash);
            }
            let (inputs, blobs) = (inputs.clone(), blobs.clone());
            async move {
                let message = match message {
                    ToWorker::Lease(row) => Some(ToMessage::Lease(inputs.lease(&row, &blobs).await)),
                    other => to_worker(other),
                };
                message.map(|message| Ok(wire::CoordinatorMessage { message: Some(message) }))
            }
        });
        Box::pin(messages)
    }
}

/// Reads a session until it ends or breaks a rule.
async fn read_session(
    reactor: Handle,
    mut checker: Checker,
    session: SessionId,
    mut inbound: Streaming<wire::WorkerMessage>,
    unanswered: Arc<Semaphore>,
) {
    let peer = checker.worker();
    let end = loop {
        match inbound.message().await {
            Ok(Some(message)) => match incoming(&reactor, &mut checker, session, message).await {
                Ok(incoming) => {
                    if hand_in(&reactor, session, incoming, &unanswered).await.is_err() {
                        break "the coordinator stops".into();
                    }
                }
                Err(error) => break error.to_string(),
            },
            Ok(None) => break "the worker left".to_owned(),
            Err(status) => break status.message().to_owned(),
        }
    };
    tracing::info!(%peer, session = session.get(), %end, "worker disconnected");
    // The reactor may be gone already, and with it the session.
    let _ = reactor.send(Event::Closed(session)).await;
}

/// What a worker says.
enum Incoming {
    Event(Event),
    /// Reports, and the bytes as which they came.
    Reports(Vec<Examined>, Option<Signed>, usize),
}

/// Hands in what a worker says. Who does not take the answers to its reports is not read from either: it waits for
/// itself, and nothing piles up here.
async fn hand_in(
    reactor: &Handle,
    session: SessionId,
    incoming: Incoming,
    unanswered: &Semaphore,
) -> Result<(), Stopped> {
    match incoming {
        Incoming::Event(event) => reactor.send(event).await,
        Incoming::Reports(reports, signed, bytes) => {
            // The answer gives it back.
            unanswered.acquire().await.map_err(|_| Stopped)?.forget();
            reactor.report(session, reports, signed, bytes).await
        }
    }
}

async fn incoming(
    reactor: &Handle,
    checker: &mut Checker,
    session: SessionId,
    message: wire::WorkerMessage,
) -> Result<Incoming, Unsigned> {
    Ok(Incoming::Event(match message.message {
        Some(Message::Capacity(capacity)) => Event::Capacity(session, capacity.try_into()?),
        Some(Message::Reports(reports)) => {
            let (bytes, signature) = (reports.encoded_len(), reports.signature.clone());
            let reports = reports_of(reports)?;
            let (reports, signed) = checker.check(reactor, reports, &signature).await?;
            return Ok(Incoming::Reports(reports, signed, bytes));
        }
        Some(Message::JobFetched(said)) => {
            let fetched = Fetched {
                from_coordinator: Bytes::new(said.from_coordinator_bytes),
                from_peers: Bytes::new(said.from_peers_bytes),
            };
            Event::JobFetched(session, JobId::new(said.job), fetched)
        }
        Some(Message::GivenBack(given)) => Event::GivenBack(session, attempt_ids(given.attempts)),
        Some(Message::Leaving(leaving)) => Event::Leaving(session, attempt_ids(leaving.keeping)),
        Some(Message::Refused(refused)) => {
            let why = if refused.no_room { JobRefusal::NoRoom } else { JobRefusal::Distrusts };
            Event::Refused(session, refused.jobs.into_iter().map(JobId::new).collect(), why)
        }
        Some(Message::HasRoom(said)) => {
            Event::HasRoom(session, said.jobs.into_iter().map(JobId::new).collect())
        }
        Some(Message::Hello(_)) => return Err(InvalidMessage::new("hello", "sent twice").into()),
        None => return Err(InvalidMessage::new("message", "missing").into()),
    }))
}

fn reports_of(
    message: wire::Reports,
) -> Result<impl ExactSizeIterator<Item = Result<Report, InvalidMessage>>, InvalidMessage> {
    let count = message.reports.len();
    if !(1..=limits::REPORTS_MAX).contains(&count) {
        let problem = format!("{count} in one message, not 1 to {}", limits::REPORTS_MAX);
        return Err(InvalidMessage::new("reports", problem));
    }
    Ok(message.reports.into_iter().map(Report::try_from))
}
