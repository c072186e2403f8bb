//! Letting others fetch: who may, in which order, how fast, and how much they got.

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
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream, FuturesUnordered},
};
use iroh::{
    endpoint::Connection,
    protocol::{AcceptError, ProtocolHandler},
};
use iroh_blobs::{
    Hash,
    api::Store,
    protocol::GetRequest,
    provider::{
        events::{
            AbortReason, ConnectMode, EventMask, EventResult, EventSender, ObserveMode, ProviderMessage,
            RequestMode, RequestUpdate, ThrottleMode,
        },
        handle_connection,
    },
};
use talka_core::{
    ids::{BlobHash, PeerId},
    limits,
    swarm::{PieceNo, UploadNo, Uploads, Wanted},
};
use tokio::sync::mpsc;

use super::{BlobStore, discards::Discards, from_hash};
use crate::{bucket::TokenBucket, clock::Monotonic, connections::ConnectionLimits, identity::peer_id};

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
    requests: AtomicU64,
    by_peer: Mutex<HashMap<PeerId, u64>>,
    by_blob: Mutex<HashMap<BlobHash, u64>>,
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

    /// Of this blob, to all peers, since the start; of the first [`limits::SWARM_BLOBS_MAX`] of which anything was sent.
    pub fn of(&self, blob: BlobHash) -> u64 {
        let by_blob = self.0.by_blob.lock().unwrap_or_else(PoisonError::into_inner);
        by_blob.get(&blob).copied().unwrap_or_default()
    }

    /// Requests that were served, or begun to be, since the start.
    pub fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, peer: PeerId, blob: BlobHash, bytes: u64) {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        self.0.total.fetch_add(bytes, Ordering::Relaxed);
        let mut by_blob = self.0.by_blob.lock().unwrap_or_else(PoisonError::into_inner);
        if by_blob.len() < limits::SWARM_BLOBS_MAX || by_blob.contains_key(&blob) {
            *by_blob.entry(blob).or_default() += bytes;
        }
        drop(by_blob);
        let mut by_peer = self.0.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        if by_peer.len() < limits::WORKERS_MAX || by_peer.contains_key(&peer) {
            *by_peer.entry(peer).or_default() += bytes;
        }
    }
}

/// What a peer gives to others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Serving {
    /// Bytes per second to all peers together; no limit unless set.
    pub upload: Option<NonZeroU64>,
    /// Whether this is where blobs come from: then everything goes out once before anything goes out twice.
    pub is_source: bool,
}

/// Serves a store: register it for [`ALPN`](super::ALPN), or [`offer`](super::offer) it.
#[derive(Debug, Clone)]
pub struct BlobServer {
    pub(super) store: Store,
    pub(super) events: EventSender,
    connections: ConnectionLimits,
    received: mpsc::Sender<(PeerId, u64)>,
    pub(super) discards: Discards,
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
        let serving = Serving { upload: upload_per_second, is_source: false };
        Self::with(blobs, admit, serving, connections)
    }

    /// The same with everything that may differ.
    pub fn with(
        blobs: &BlobStore,
        admit: impl Admit,
        serving: Serving,
        connections: ConnectionLimits,
    ) -> Self {
        let mask = EventMask {
            connected: ConnectMode::Intercept,
            get: RequestMode::InterceptLog,
            get_many: RequestMode::Disabled,
            observe: ObserveMode::Intercept,
            push: RequestMode::Disabled,
            throttle: serving.upload.map_or(ThrottleMode::None, |_| ThrottleMode::Intercept),
        };
        let (events, messages) = EventSender::channel(limits::BLOB_EVENTS_MAX, mask);
        let (received, incoming) = mpsc::channel(limits::BLOB_EVENTS_MAX);
        let slots = limits::UPLOAD_SLOTS;
        let doorman = Doorman {
            admit,
            served: blobs.served().clone(),
            peers: HashMap::new(),
            bucket: serving.upload.map(TokenBucket::shaping),
            clock: Monotonic::start(),
            uploads: if serving.is_source { Uploads::of_source(slots) } else { Uploads::new(slots) },
            waiting: HashMap::new(),
            freed: HashMap::new(),
            running: FuturesUnordered::new(),
            discards: blobs.discards.clone(),
        };
        tokio::spawn(doorman.run(messages, incoming));
        Self { store: blobs.inner().clone(), events, connections, received, discards: blobs.discards.clone() }
    }

    /// Serves one connection until it ends, whoever made it.
    pub(crate) async fn serve(&self, connection: Connection) {
        let discarded = self.discards.any();
        let (store, events) = (self.store.clone(), self.events.clone());
        let mut serving = std::pin::pin!(handle_connection(connection.clone(), store, events));
        tokio::select! {
            () = &mut serving => {}
            // Who of them observes the blob is not known here. It is rare, and who fetches comes again.
            () = discarded => {
                connection.close(0_u32.into(), b"a blob is discarded");
                serving.await;
            }
        }
    }

    /// Tells that this peer got bytes from another one, which is served the sooner for it.
    pub(crate) fn note_received(&self, peer: PeerId, bytes: u64) {
        // A note that finds no room is worth less than the wait for it.
        let _ = self.received.try_send((peer, bytes));
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

/// How often requests that wait for a slot are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A request that waits for a slot.
struct Waiting {
    peer: PeerId,
    blob: BlobHash,
    reply: Reply,
    updates: BoxStream<'static, RequestUpdate>,
}

/// Answers a request; says whether anybody still waited for that.
type Reply = Box<dyn FnOnce(EventResult) -> BoxFuture<'static, bool> + Send>;

/// What became of something that ran.
#[derive(Clone, Copy)]
enum Ran {
    /// An upload ended, and so many bytes went out.
    Upload(UploadNo, PeerId, BlobHash, u64),
    /// An upload stands still: whoever fetches does not read.
    Stuck(UploadNo, PeerId),
    Other,
}

/// Answers the provider's questions, one after the other, and follows its transfers.
struct Doorman<A> {
    admit: A,
    served: Served,
    /// Who is behind a connection; requests carry only its number.
    peers: HashMap<u64, PeerId>,
    bucket: Option<TokenBucket>,
    clock: Monotonic,
    uploads: Uploads,
    waiting: HashMap<UploadNo, Waiting>,
    /// Uploads that stand still and have no slot any more.
    freed: HashMap<UploadNo, PeerId>,
    /// Transfers that are followed and answers that wait; one each per open stream at most.
    running: FuturesUnordered<BoxFuture<'static, (Ran, Option<Upload>)>>,
    /// Blobs of which nothing is told or sent now.
    discards: Discards,
}

/// A transfer that is followed.
struct Upload {
    number: UploadNo,
    peer: PeerId,
    blob: BlobHash,
    updates: BoxStream<'static, RequestUpdate>,
}

impl<A: Admit> Doorman<A> {
    async fn run(
        mut self,
        mut messages: mpsc::Receiver<ProviderMessage>,
        mut received: mpsc::Receiver<(PeerId, u64)>,
    ) {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.answer(message).await,
                    None => break,
                },
                Some((peer, bytes)) = received.recv() => {
                    self.uploads.on_received(self.clock.now(), peer, bytes);
                }
                Some((ran, upload)) = self.running.next(), if !self.running.is_empty() => {
                    self.on_ran(ran);
                    self.running.extend(upload.map(|upload| upload.follow().boxed()));
                }
                _ = looks.tick(), if !self.waiting.is_empty() => self.refuse_old().await,
            }
            self.start_waiting().await;
        }
        // Transfers that still run are counted to their end.
        while let Some((ran, upload)) = self.running.next().await {
            self.on_ran(ran);
            self.running.extend(upload.map(|upload| upload.follow().boxed()));
        }
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
                let peer = self.allow(message.connection_id, message.request.hash).filter(|_| is_blob);
                let Some(peer) = peer else {
                    message.tx.send(Err(AbortReason::Permission)).await.ok();
                    return;
                };
                let (wanted, blob) = (wanted(&message.request), from_hash(message.request.hash));
                let reads = !self.freed.values().any(|stuck| *stuck == peer);
                let asked = reads.then(|| self.uploads.on_asked(self.clock.now(), peer, wanted)).flatten();
                match asked {
                    Some(number) => {
                        let reply: Reply =
                            Box::new(|answer| async move { message.tx.send(answer).await.is_ok() }.boxed());
                        let updates = stream::unfold(message.rx, async |mut updates| {
                            updates.recv().await.ok().flatten().map(|update| (update, updates))
                        });
                        self.waiting.insert(number, Waiting { peer, blob, reply, updates: updates.boxed() });
                    }
                    None => drop(message.tx.send(Err(AbortReason::RateLimited)).await),
                }
            }
            ProviderMessage::ObserveRequestReceived(message) => {
                let allowed = self.allow(message.connection_id, message.request.hash);
                message.tx.send(allowed.map(drop).ok_or(AbortReason::Permission)).await.ok();
            }
            ProviderMessage::Throttle(message) => {
                let wait = self.bucket.as_mut().and_then(|bucket| bucket.pause(Instant::now(), message.size));
                match wait {
                    None => drop(message.tx.send(Ok(())).await),
                    Some(wait) => self.running.push(
                        async move {
                            tokio::time::sleep(wait).await;
                            message.tx.send(Ok(())).await.ok();
                            (Ran::Other, None)
                        }
                        .boxed(),
                    ),
                }
            }
            // Notices that were not asked for, and what is disabled.
            _ => {}
        }
    }

    /// The peer behind a connection, if it may have this.
    fn allow(&self, connection: u64, hash: Hash) -> Option<PeerId> {
        let peer = *self.peers.get(&connection)?;
        let hash = from_hash(hash);
        (self.admit.blob(peer, hash) && !self.discards.is_one(hash)).then_some(peer)
    }

    /// Starts what waits, as far as there are slots.
    async fn start_waiting(&mut self) {
        let mut draw = |below: u32| rand::random_range(0..below);
        while let Some(number) = self.uploads.next(self.clock.now(), &mut draw) {
            let Some(Waiting { peer, blob, reply, updates }) = self.waiting.remove(&number) else { continue };
            if !reply(Ok(())).await {
                self.uploads.on_ended(number);
                continue;
            }
            self.running.push(Upload { number, peer, blob, updates }.follow().boxed());
        }
    }

    async fn refuse_old(&mut self) {
        for number in self.uploads.expire(self.clock.now()) {
            if let Some(waiting) = self.waiting.remove(&number) {
                (waiting.reply)(Err(AbortReason::RateLimited)).await;
            }
        }
    }

    fn on_ran(&mut self, ran: Ran) {
        match ran {
            Ran::Upload(number, peer, blob, bytes) => {
                self.served.add(peer, blob, bytes);
                self.uploads.on_sent(self.clock.now(), peer, bytes);
                if self.freed.remove(&number).is_none() {
                    self.uploads.on_ended(number);
                }
            }
            Ran::Stuck(number, peer) => {
                if self.freed.insert(number, peer).is_none() {
                    self.uploads.on_ended(number);
                }
            }
            Ran::Other => {}
        }
    }
}

impl Upload {
    /// Waits until the transfer ends, or stands still for too long: then it goes on without a slot.
    async fn follow(mut self) -> (Ran, Option<Self>) {
        loop {
            let update = tokio::time::timeout(limits::UPLOAD_STUCK_AFTER, self.updates.next()).await;
            let sent = match update {
                Err(_) => return (Ran::Stuck(self.number, self.peer), Some(self)),
                Ok(Some(RequestUpdate::Completed(completed))) => completed.stats.payload_bytes_sent,
                Ok(Some(RequestUpdate::Aborted(aborted))) => aborted.stats.payload_bytes_sent,
                Ok(Some(RequestUpdate::Started(_) | RequestUpdate::Progress(_))) => continue,
                Ok(None) => 0,
            };
            return (Ran::Upload(self.number, self.peer, self.blob, sent), None);
        }
    }
}

/// What a request is for, as the first piece of it.
fn wanted(request: &GetRequest) -> Wanted {
    /// Chunks of BLAKE3 in a piece.
    const CHUNKS: u64 = limits::SWARM_PIECE_BYTES >> 10;
    let hash = from_hash(request.hash);
    let first = request.ranges[0].boundaries().first().map_or(0, |chunk| chunk.0);
    Wanted { hash, piece: PieceNo::new(u32::try_from(first / CHUNKS).unwrap_or(u32::MAX)) }
}
