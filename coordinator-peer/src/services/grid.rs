//! `Grid`: the sessions of workers.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use talka_core::{
    coordinator::{Report, ToWorker},
    ids::{JobId, SessionId},
    ledger::Names,
    limits,
};
use talka_proto::{
    PROTOCOL,
    convert::{InvalidMessage, attempt_ids, id_bytes, to_worker},
    wire::{self, grid_server::Grid, worker_message::Message},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Context, refused};
use crate::{
    clock,
    reactor::{Event, Handle},
    receipts::{Checker, Unsigned},
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
        let (outbound, messages) = mpsc::channel(limits::SESSION_QUEUE_MAX);
        let reactor = self.0.reactor.clone();
        let opened = reactor.call(|reply| Event::Opened { peer, capacity, holding, outbound, reply }).await?;
        let session = opened.map_err(|refusal| refused(&refusal))?;
        tracing::info!(%peer, session = session.get(), "worker connected");
        if names != Names::default() {
            reactor.send(Event::Named(session, names)).await?;
        }
        let checker = Checker::new(self.0.identity.peer_id(), peer);
        tokio::spawn(read_session(reactor, checker, session, inbound));
        Ok(Response::new(self.outbound(messages)))
    }
}

impl GridService {
    fn outbound(&self, messages: mpsc::Receiver<ToWorker>) -> Outbound {
        let inputs = self.0.inputs.clone();
        let messages = ReceiverStream::new(messages).filter_map(move |message| {
            let message = to_worker(message, |job, position| inputs.range(job, position));
            std::future::ready(message.map(|message| Ok(wire::CoordinatorMessage { message: Some(message) })))
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
) {
    let peer = checker.worker;
    let end = loop {
        match inbound.message().await {
            Ok(Some(message)) => match event(&reactor, &mut checker, session, message).await {
                Ok(event) => {
                    if reactor.send(event).await.is_err() {
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

async fn event(
    reactor: &Handle,
    checker: &mut Checker,
    session: SessionId,
    message: wire::WorkerMessage,
) -> Result<Event, Unsigned> {
    Ok(match message.message {
        Some(Message::Capacity(capacity)) => Event::Capacity(session, capacity.try_into()?),
        Some(Message::Reports(reports)) if reports.reports.len() <= limits::REPORTS_MAX => {
            let wire::Reports { reports, signature } = reports;
            let reports: Vec<Report> = reports.into_iter().map(Report::try_from).collect::<Result<_, _>>()?;
            let signed = checker.check(reactor, &reports, &signature).await?;
            Event::Reports(session, reports, signed)
        }
        Some(Message::Reports(_)) => {
            return Err(InvalidMessage::new("reports", "too many in one message").into());
        }
        Some(Message::Leaving(leaving)) => Event::Leaving(session, attempt_ids(leaving.keeping)),
        Some(Message::Refused(refused)) => {
            Event::Refused(session, refused.jobs.into_iter().map(JobId::new).collect())
        }
        Some(Message::Hello(_)) => return Err(InvalidMessage::new("hello", "sent twice").into()),
        None => return Err(InvalidMessage::new("message", "missing").into()),
    })
}
