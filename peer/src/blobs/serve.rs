//! Letting others fetch: who may, how fast, and how much they got.

use std::{
    collections::HashMap,
    num::NonZeroU64,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt, Stream, StreamExt,
    future::{self, BoxFuture},
    stream::{self, FuturesUnordered},
};
use iroh::{
    endpoint::Connection,
    protocol::{AcceptError, ProtocolHandler},
};
use iroh_blobs::{
    Hash,
    api::Store,
    provider::{
        TransferStats,
        events::{
            AbortReason, ConnectMode, EventMask, EventSender, ObserveMode, ProviderMessage, RequestMode,
            RequestUpdate, ThrottleMode,
        },
    },
};
use talka_core::{
    ids::{BlobHash, PeerId},
    limits,
};
use tokio::sync::mpsc;

use super::{BlobStore, from_hash};
use crate::{bucket::TokenBucket, connections::ConnectionLimits, identity::peer_id};

/// Decides what a peer may fetch. It is asked for each request, so it must not wait.
pub trait Admit: Send + Sync + 'static {
    /// Whether this peer may connect at all.
    fn peer(&self, peer: PeerId) -> bool {
        let _ = peer;
        true
    }

    /// Whether this peer may have this blob, or learn how much of it is here.
    fn blob(&self, peer: PeerId, blob: BlobHash) -> bool;
}

/// Everybody may fetch whatever they can name: the hash is the secret.
#[derive(Debug, Clone, Copy)]
pub struct AdmitAll;

impl Admit for AdmitAll {
    fn blob(&self, _peer: PeerId, _blob: BlobHash) -> bool {
        true
    }
}

/// How many payload bytes went to whom.
#[derive(Debug, Clone, Default)]
pub struct Served(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    total: AtomicU64,
    by_peer: Mutex<HashMap<PeerId, u64>>,
}

impl Served {
    /// To all peers, since the start.
    pub fn total(&self) -> u64 {
        self.0.total.load(Ordering::Relaxed)
    }

    /// To this peer, since the start.
    pub fn to(&self, peer: PeerId) -> u64 {
        let by_peer = self.0.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        by_peer.get(&peer).copied().unwrap_or_default()
    }

    /// To each peer, since the start; the first [`limits::WORKERS_MAX`] that fetched anything.
    pub fn by_peer(&self) -> HashMap<PeerId, u64> {
        self.0.by_peer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, peer: PeerId, bytes: u64) {
        self.0.total.fetch_add(bytes, Ordering::Relaxed);
        let mut by_peer = self.0.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        if by_peer.len() < limits::WORKERS_MAX || by_peer.contains_key(&peer) {
            *by_peer.entry(peer).or_default() += bytes;
        }
    }
}

/// Serves a store: register it for [`ALPN`](super::ALPN), or [`offer`](super::offer) it.
#[derive(Debug, Clone)]
pub struct BlobServer {
    store: Store,
    events: EventSender,
    connections: ConnectionLimits,
}

impl BlobServer {
    /// Serves `blobs` to whom `admit` lets, all together at most `upload_per_second` bytes. Must be called in a tokio
    /// runtime, where it starts the task that answers for `admit`; the task ends with the last clone.
    pub fn new(
        blobs: &BlobStore,
        admit: impl Admit,
        upload_per_second: Option<NonZeroU64>,
        connections: ConnectionLimits,
    ) -> Self {
        let mask = EventMask {
            connected: ConnectMode::Intercept,
            get: RequestMode::InterceptLog,
            get_many: RequestMode::InterceptLog,
            observe: ObserveMode::Intercept,
            push: RequestMode::Disabled,
            throttle: upload_per_second.map_or(ThrottleMode::None, |_| ThrottleMode::Intercept),
        };
        let (events, messages) = EventSender::channel(limits::BLOB_EVENTS_MAX, mask);
        let doorman = Doorman {
            admit,
            served: blobs.served().clone(),
            peers: HashMap::new(),
            uploads: upload_per_second.map(|rate| TokenBucket::new(rate.get(), UPLOAD_BURST_BYTES)),
            running: FuturesUnordered::new(),
        };
        tokio::spawn(doorman.run(messages));
        Self { store: blobs.inner().clone(), events, connections }
    }

    /// Serves one connection until it ends, whoever made it.
    pub(crate) async fn serve(&self, connection: Connection) {
        iroh_blobs::provider::handle_connection(connection, self.store.clone(), self.events.clone()).await;
    }
}

impl ProtocolHandler for BlobServer {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        if let Ok(_permit) = self.connections.admit_or_close(&connection) {
            self.serve(connection).await;
        }
        Ok(())
    }
}

/// Upload that may leave at once after a pause: one group of each of a few streams.
const UPLOAD_BURST_BYTES: u64 = 64 << 10;

/// Shorter waits than this are not slept: the timer ticks each millisecond, and a debt adds up until it is due.
const WAIT_MIN: Duration = Duration::from_millis(4);

/// Answers the provider's questions, one after the other, and follows its transfers.
struct Doorman<A> {
    admit: A,
    served: Served,
    /// Who is behind a connection; requests carry only its number.
    peers: HashMap<u64, PeerId>,
    uploads: Option<TokenBucket>,
    /// Transfers that are followed and answers that wait; one each per open stream at most.
    running: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl<A: Admit> Doorman<A> {
    async fn run(mut self, mut messages: mpsc::Receiver<ProviderMessage>) {
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.answer(message).await,
                    None => break,
                },
                Some(()) = self.running.next(), if !self.running.is_empty() => {}
            }
        }
        // Transfers that still run are counted to their end.
        while self.running.next().await.is_some() {}
    }

    async fn answer(&mut self, message: ProviderMessage) {
        match message {
            ProviderMessage::ClientConnected(message) => {
                let peer = message.endpoint_id.map(peer_id).filter(|peer| self.admit.peer(*peer));
                if let Some(peer) = peer {
                    self.peers.insert(message.connection_id, peer);
                }
                let answer = peer.map(drop).ok_or(AbortReason::Permission);
                // Who asked may be gone; that is not our concern, here and below.
                message.tx.send(answer).await.ok();
            }
            ProviderMessage::ConnectionClosed(message) => {
                self.peers.remove(&message.connection_id);
            }
            ProviderMessage::GetRequestReceived(message) => {
                // A sequence of hashes would hand out blobs that were asked for by none of their names.
                let is_blob = message.request.ranges.is_blob();
                let peer = self.allow(message.connection_id, &[message.request.hash]).filter(|_| is_blob);
                message.tx.send(peer.map(drop).ok_or(AbortReason::Permission)).await.ok();
                if let Some(peer) = peer {
                    let updates = stream::unfold(message.rx, async |mut updates| {
                        updates.recv().await.ok().flatten().map(|update| (update, updates))
                    });
                    self.follow(peer, updates);
                }
            }
            ProviderMessage::GetManyRequestReceived(message) => {
                let peer = self.allow(message.connection_id, &message.request.hashes);
                message.tx.send(peer.map(drop).ok_or(AbortReason::Permission)).await.ok();
                if let Some(peer) = peer {
                    let updates = stream::unfold(message.rx, async |mut updates| {
                        updates.recv().await.ok().flatten().map(|update| (update, updates))
                    });
                    self.follow(peer, updates);
                }
            }
            ProviderMessage::ObserveRequestReceived(message) => {
                let allowed = self.allow(message.connection_id, &[message.request.hash]);
                message.tx.send(allowed.map(drop).ok_or(AbortReason::Permission)).await.ok();
            }
            ProviderMessage::Throttle(message) => {
                let wait = self.uploads.as_mut().map(|uploads| uploads.reserve(Instant::now(), message.size));
                match wait.filter(|wait| *wait >= WAIT_MIN) {
                    None => drop(message.tx.send(Ok(())).await),
                    Some(wait) => self.running.push(
                        async move {
                            tokio::time::sleep(wait).await;
                            message.tx.send(Ok(())).await.ok();
                        }
                        .boxed(),
                    ),
                }
            }
            // Notices that were not asked for, and pushes, which are disabled.
            _ => {}
        }
    }

    /// The peer behind a connection, if it may have all of these.
    fn allow(&self, connection: u64, hashes: &[Hash]) -> Option<PeerId> {
        let peer = *self.peers.get(&connection)?;
        hashes.iter().all(|hash| self.admit.blob(peer, from_hash(*hash))).then_some(peer)
    }

    /// Counts what a transfer sends.
    fn follow(&mut self, peer: PeerId, updates: impl Stream<Item = RequestUpdate> + Send + 'static) {
        let served = self.served.clone();
        let follow = updates.for_each(move |update| {
            let stats = match update {
                RequestUpdate::Completed(completed) => Some(completed.stats),
                RequestUpdate::Aborted(aborted) => Some(aborted.stats),
                RequestUpdate::Started(_) | RequestUpdate::Progress(_) => None,
            };
            if let Some(TransferStats { payload_bytes_sent, .. }) = stats.as_deref() {
                served.add(peer, *payload_bytes_sent);
            }
            future::ready(())
        });
        self.running.push(follow.boxed());
    }
}
