//! A worker that runs nothing: it speaks the protocol of sessions as every worker does, and answers each lease at once.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use talka_core::{
    coordinator::Capacity,
    ids::{AttemptId, BlobHash, JobId},
    limits,
    quantities::Bytes,
};
use talka_peer::{
    endpoint::{EndpointConfig, PeerEndpoint},
    identity::Identity,
    rpc::Client,
    ticket::Ticket,
};
use talka_proto::{
    PROTOCOL,
    convert::{assignments, attempt_ids, attempts},
    wire::{
        self, coordinator_message::Message, grid_client::GridClient, worker_message::Message as FromWorker,
    },
};
use talka_worker::receipts::Signer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::answers::Answers;
use crate::bench::quantiles::Samples;

/// Messages of reports on their way, as real workers have.
const UNANSWERED_MAX: usize = 4;
/// Slots that it offers, as a real one on one processor.
const SLOTS: u32 = 1;

/// A session that is up.
pub(super) struct Session {
    endpoint: PeerEndpoint,
    client: Client,
    signer: Signer,
    outbound: mpsc::Sender<wire::WorkerMessage>,
    inbound: Streaming<wire::CoordinatorMessage>,
}

/// What a worker saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// From a message of reports to the lease that it made room for.
    pub(super) leases: Samples,
    /// From a message of reports to the word that they are durable.
    pub(super) reports: Samples,
    /// Bytes on the wire, both ways.
    pub(super) wire_bytes: u64,
}

impl Session {
    /// Opens a session under a key of its own.
    pub(super) async fn open(ticket: &Ticket) -> anyhow::Result<Self> {
        let identity = Identity::ephemeral();
        let endpoint = PeerEndpoint::bind(EndpointConfig::new(identity.clone()).on_loopback()).await?;
        let signer = Signer { identity, coordinator: ticket.coordinator.peer };
        let client = Client::new(endpoint.clone(), ticket);
        let mut grid = GridClient::new(client.channel()).max_decoding_message_size(limits::MESSAGE_BYTES_MAX);
        let join = wire::JoinRequest { protocol: PROTOCOL, agent: "talka-bench".into() };
        grid.join(join).await.context("cannot join")?;
        let (outbound, messages) = mpsc::channel(limits::SESSION_QUEUE_MAX);
        let capacity = Capacity { slots: SLOTS, memory: Bytes::mib(1 << 10), cpus: 1, ..Capacity::default() };
        let hello =
            wire::Hello { capacity: Some(capacity.into()), holding: vec![], ..wire::Hello::default() };
        outbound.send(message(FromWorker::Hello(hello))).await?;
        let session = grid.session(ReceiverStream::new(messages)).await;
        let mut inbound = session.context("cannot open a session")?.into_inner();
        inbound.message().await?.context("the coordinator closed the session")?;
        Ok(Self { endpoint, client, signer, outbound, inbound })
    }

    /// Answers leases until told to stop, `batch` reports to a message.
    pub(super) async fn work(
        mut self,
        answers: Arc<Answers>,
        batch: usize,
        stop: CancellationToken,
    ) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        let wire_before = self.client.wire_bytes();
        let mut queue = VecDeque::<AttemptId>::new();
        let (mut sent, mut last_settled) = (VecDeque::new(), None);
        let mut bundles = HashMap::<JobId, BlobHash>::new();
        loop {
            let message = tokio::select! {
                message = self.inbound.message() => message?.context("the coordinator closed the session")?,
                () = stop.cancelled() => break,
            };
            match message.message {
                Some(Message::Job(job)) => {
                    let bundle = job.spec.and_then(|spec| spec.bundle).context("a job without a program")?;
                    bundles.insert(JobId::new(job.job), BlobHash::try_from(&bundle.hash[..])?);
                }
                Some(Message::Lease(lease)) => {
                    let (_, items) = assignments(lease)?;
                    queue.extend(items.into_iter().map(|item| item.attempt));
                    seen.leases.extend_one(last_settled.map(|since: Instant| since.elapsed()));
                }
                Some(Message::Settled(settled)) if !settled.attempts.is_empty() => {
                    last_settled = sent.pop_front();
                    seen.reports.extend_one(last_settled.map(|since| since.elapsed()));
                }
                Some(Message::Recall(recall)) => {
                    let wanted = attempt_ids(recall.attempts);
                    let given: Vec<AttemptId> =
                        queue.iter().filter(|attempt| wanted.contains(attempt)).copied().collect();
                    queue.retain(|attempt| !given.contains(attempt));
                    let given = wire::GivenBack { attempts: attempts(&given) };
                    self.outbound.send(self::message(FromWorker::GivenBack(given))).await?;
                }
                Some(Message::Cancelled(cancelled)) => {
                    let unwanted = attempt_ids(cancelled.attempts);
                    queue.retain(|attempt| !unwanted.contains(attempt));
                }
                Some(Message::Ended(ended)) => queue.retain(|attempt| attempt.task.job.get() != ended.job),
                _ => {}
            }
            while sent.len() < UNANSWERED_MAX && !queue.is_empty() {
                let count = batch.min(queue.len());
                let reports: Vec<_> = queue.drain(..count).map(|attempt| answers.report(attempt)).collect();
                let signature = self.signer.sign(&reports, |job| bundles.get(&job).copied()).into();
                let reports = reports.iter().map(Into::into).collect();
                let reports = wire::Reports { reports, signature };
                sent.push_back(Instant::now());
                self.outbound.send(self::message(FromWorker::Reports(reports))).await?;
            }
        }
        seen.wire_bytes = self.client.wire_bytes() - wire_before;
        self.close().await;
        Ok(seen)
    }

    /// Says goodbye.
    pub(super) async fn close(self) {
        drop(self.outbound);
        self.endpoint.close().await;
    }
}

impl Samples {
    fn extend_one(&mut self, sample: Option<Duration>) {
        if let Some(sample) = sample {
            self.add(sample);
        }
    }
}

fn message(message: FromWorker) -> wire::WorkerMessage {
    wire::WorkerMessage { message: Some(message) }
}
