//! The task that fetches one blob: it owns the [`Download`] and does what that says.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use talka_core::{
    ids::PeerId,
    job::BlobRef,
    limits,
    quantities::Timestamp,
    swarm::{Download, Failure, Kind, PieceSet, Pieces, Request, RequestNo},
};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};

use super::{
    Members, Shared, State,
    neighbours::{Neighbours, News},
};
use crate::transfer::{ChunkTransport, FetchBlobError, FetchError, Fetched};

/// How often requests are looked at.
const TICK: Duration = Duration::from_millis(50);

/// A request that runs.
struct Flight {
    peer: PeerId,
    bytes: Arc<AtomicU64>,
    abort: AbortHandle,
}

/// What came of a request.
type Landed = (RequestNo, Result<Fetched, FetchError>);

/// See the [module](self).
pub(super) struct Fetching<M> {
    shared: Arc<Shared>,
    blob: BlobRef,
    download: Download,
    members: Arc<M>,
    neighbours: Neighbours,
    news: mpsc::Receiver<News>,
    wants: mpsc::Receiver<Range<u64>>,
    state: watch::Sender<State>,
    flights: HashMap<RequestNo, Flight>,
    running: JoinSet<Landed>,
    /// When a piece came last.
    moved: Timestamp,
    failures: Vec<(PeerId, FetchError)>,
    /// Whether only a part of the blob is fetched.
    is_part: bool,
}

impl<M: Members> Fetching<M> {
    pub(super) async fn new(
        shared: Arc<Shared>,
        blob: BlobRef,
        part: Option<Range<u64>>,
        members: Arc<M>,
        state: watch::Sender<State>,
        wants: mpsc::Receiver<Range<u64>>,
    ) -> Result<Self, FetchBlobError> {
        let size = blob.size;
        if size.get() > limits::BLOB_BYTES_MAX {
            return Err(FetchBlobError::Local(FetchError::OutOfRange { start: 0, end: size.get(), size }));
        }
        let mut have = PieceSet::none(Pieces::of(size).count());
        if let Some(pieces) = shared.store.pieces(blob).await?.next().await {
            for piece in pieces {
                have.insert(piece);
            }
        }
        state.send_replace(State::new(have.clone()));
        let is_part = part.is_some();
        if let Some(bytes) = part {
            // What is not wanted is not missing.
            let (wanted, count) = (Pieces::of(size).covering(&bytes), Pieces::of(size).count());
            have.insert_range(0..wanted.start);
            have.insert_range(wanted.end..count);
        }
        let (neighbours, news) = Neighbours::start(shared.clone(), blob, members.clone());
        Ok(Self {
            moved: shared.clock.now(),
            shared,
            blob,
            download: Download::new(size, have),
            members,
            neighbours,
            news,
            wants,
            state,
            flights: HashMap::new(),
            running: JoinSet::new(),
            failures: Vec::new(),
            is_part,
        })
    }

    pub(super) async fn run(mut self) {
        let ended = self.fetch().await;
        if let Err(error) = &ended {
            tracing::debug!(blob = %self.blob.hash.short(), %error, "a blob did not come");
        }
        self.state.send_modify(|state| state.ended = Some(ended.map_err(Arc::new)));
    }

    async fn fetch(&mut self) -> Result<(), FetchBlobError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut wanted = true;
        while !self.download.is_complete() {
            self.ask_more();
            tokio::select! {
                Some(landed) = self.running.join_next(), if !self.running.is_empty() => {
                    // Those that were dropped come to nothing.
                    if let Ok((number, result)) = landed {
                        self.on_landed(number, result)?;
                    }
                }
                Some(news) = self.news.recv() => self.on_news(news),
                want = self.wants.recv(), if wanted => match want {
                    Some(range) => self.download.want(&range),
                    None => wanted = false,
                },
                _ = ticks.tick() => self.on_tick()?,
            }
        }
        if self.is_part {
            return Ok(());
        }
        match self.shared.store.size(self.blob.hash).await? {
            Some(size) if size == self.blob.size => Ok(()),
            Some(claimed) => {
                Err(FetchBlobError::Local(FetchError::WrongSize { claimed, expected: self.blob.size }))
            }
            None => Err(FetchBlobError::Local(FetchError::NotHeld)),
        }
    }

    /// Makes the requests that there are to be made.
    fn ask_more(&mut self) {
        let mut draw = |below: u32| rand::random_range(0..below);
        while let Some(request) = self.download.next(self.shared.clock.now(), &mut draw) {
            let Request { number, peer, range, .. } = request;
            let Some(provider) = self.neighbours.provider(peer).cloned() else {
                self.download.on_gone(peer);
                continue;
            };
            let bytes = Arc::new(AtomicU64::new(0));
            let (shared, blob, counter) = (self.shared.clone(), self.blob, bytes.clone());
            let abort = self.running.spawn(async move {
                let progress = |bytes| counter.store(bytes, Ordering::Relaxed);
                (number, shared.transport.fetch_range(&provider, blob, range, progress).await)
            });
            self.flights.insert(number, Flight { peer, bytes, abort });
        }
    }

    fn on_landed(
        &mut self,
        number: RequestNo,
        result: Result<Fetched, FetchError>,
    ) -> Result<(), FetchBlobError> {
        let Some(flight) = self.flights.remove(&number) else { return Ok(()) };
        let (now, peer) = (self.shared.clock.now(), flight.peer);
        let came = flight.bytes.load(Ordering::Relaxed);
        match result {
            Ok(Fetched { bytes }) => {
                self.shared.server.note_received(peer, bytes);
                if let Some(provider) = self.neighbours.provider(peer).filter(|_| self.source() != Some(peer))
                {
                    self.shared.known.on_received(self.blob.hash, provider);
                }
                self.count(peer, bytes);
                self.moved = now;
                for dropped in self.download.on_fetched(now, number) {
                    self.drop_request(dropped);
                }
                let have = self.download.have().clone();
                self.state.send_modify(|state| state.have = have);
            }
            Err(error) if error.is_local() => return Err(FetchBlobError::Local(error)),
            Err(error) => {
                self.count(peer, came);
                if let Some(liar) = self.download.on_failed(now, number, failure(&error)) {
                    tracing::warn!(peer = %liar, %error, "a peer lied and is banned");
                    self.shared.ban(liar);
                    self.neighbours.on_gone(now, liar);
                } else {
                    tracing::debug!(peer = %peer.short(), %error, "a request failed");
                }
                if !matches!(error, FetchError::Busy) && self.failures.len() < limits::PROVIDERS_MAX {
                    self.failures.push((peer, error));
                }
            }
        }
        Ok(())
    }

    fn source(&self) -> Option<PeerId> {
        self.members.source().map(|source| source.peer())
    }

    fn count(&self, peer: PeerId, bytes: u64) {
        if bytes > 0 {
            let is_source = self.source() == Some(peer);
            let counter = if is_source { &self.shared.from_sources } else { &self.shared.from_peers };
            counter.fetch_add(bytes, Ordering::Relaxed);
            self.state.send_modify(|state| *state.from.entry(peer).or_default() += bytes);
        }
    }

    fn drop_request(&mut self, number: RequestNo) {
        if let Some(flight) = self.flights.remove(&number) {
            flight.abort.abort();
            self.count(flight.peer, flight.bytes.load(Ordering::Relaxed));
        }
    }

    fn on_news(&mut self, news: News) {
        let now = self.shared.clock.now();
        match news {
            News::Named(providers) => {
                let source = self.source();
                for provider in providers {
                    let peer = provider.peer();
                    let kind = if source == Some(peer) { Kind::Source } else { Kind::Peer };
                    if self.neighbours.on_named(now, &provider, false)
                        && self.download.on_provider(peer, kind)
                    {
                        self.neighbours.follow(peer);
                    }
                }
            }
            News::Heard(providers) => {
                let source = self.source();
                for provider in providers.iter().filter(|provider| Some(provider.peer()) != source) {
                    let peer = provider.peer();
                    if self.neighbours.on_named(now, provider, true) && self.download.on_hearsay(peer) {
                        self.neighbours.follow(peer);
                    }
                }
            }
            News::Has(peer, pieces) => self.download.on_has(peer, pieces),
            News::Gone(peer) => {
                self.download.on_gone(peer);
                self.neighbours.on_gone(now, peer);
            }
        }
    }

    fn on_tick(&mut self) -> Result<(), FetchBlobError> {
        let now = self.shared.clock.now();
        for (number, flight) in &self.flights {
            self.download.on_progress(now, *number, flight.bytes.load(Ordering::Relaxed));
        }
        for dropped in self.download.expire(now) {
            self.drop_request(dropped);
        }
        for leaver in self.download.leavers(now) {
            self.neighbours.on_gone(now, leaver);
        }
        let source = self.source();
        let known = self.neighbours.exchange(now, source);
        if !known.is_empty() {
            self.on_news(News::Heard(known));
        }
        if now.since(self.moved) < self.shared.give_up {
            return Ok(());
        }
        let failures = std::mem::take(&mut self.failures);
        Err(FetchBlobError::NoProvider { blob: self.blob, failures })
    }
}

/// What an error says about the provider.
fn failure(error: &FetchError) -> Failure {
    match error {
        FetchError::Corrupt | FetchError::WrongSize { .. } => Failure::Lie,
        FetchError::NotHeld => Failure::NotHeld,
        FetchError::Busy => Failure::Busy,
        _ => Failure::Failed,
    }
}
