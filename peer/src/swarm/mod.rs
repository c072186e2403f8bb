//! Getting a blob from many others at once, while others get it from here.
//!
//! A [`Swarm`] fetches pieces of a blob from everybody who has any, and whoever asks this peer's
//! [`BlobServer`] gets what has come so far. What is asked of whom is decided by [`talka_core::swarm::Download`], which one task owns for
//! each blob; who is served, by [`talka_core::swarm::Uploads`] behind the server. Every byte is verified before it is
//! stored, so a peer that lies is known at its first bad group of 16 KiB: it is banned, and nothing of it is kept.
//!
//! | module | subject |
//! |---|---|
//! | `fetching` | the task that fetches one blob |
//! | `neighbours` | who has it: asked for, connected, followed |
//! | `known` | whom this peer can name to others |
//! | `exchange` | what others are answered over gRPC |
//! | `parts` | an answer of the blob protocol, cut into messages |

mod exchange;
mod fetching;
mod known;
mod neighbours;
mod parts;

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use talka_core::{
    ids::PeerId,
    job::BlobRef,
    limits,
    swarm::{Bans, PieceNo, PieceSet, Pieces},
};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

pub use self::exchange::{EXCHANGE_ROWS, ExchangeService};
use self::{fetching::Fetching, known::Known};
use crate::{
    Cause,
    blobs::{BlobServer, BlobStore, Hold},
    clock::Monotonic,
    transfer::{FetchBlobError, Provider, Transports},
};

/// Tells who takes part in the exchange of a blob.
pub trait Members: Send + Sync + 'static {
    /// Where blobs come from, if it is to be spared. It is asked for what no other peer has.
    fn source(&self) -> Option<Provider>;

    /// Others who have pieces of it, or will. It is asked again and again, and may fail: who is known stays known.
    fn others(&self, blob: BlobRef) -> BoxFuture<'_, Result<Vec<Provider>, Cause>>;
}

/// Fetches blobs into a store, each from many. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Swarm(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    me: PeerId,
    transport: Transports,
    store: BlobStore,
    server: BlobServer,
    bans: Mutex<Bans>,
    known: Known,
    clock: Monotonic,
    give_up: Duration,
    from_sources: AtomicU64,
    from_peers: AtomicU64,
}

impl Swarm {
    /// Fetches by `transport`, which must fetch into `store`, from which `server` serves.
    pub fn new(me: PeerId, transport: impl Into<Transports>, store: BlobStore, server: BlobServer) -> Self {
        Self::with_patience(me, transport, store, server, limits::SWARM_GIVE_UP_AFTER)
    }

    /// The same where somebody waits: a fetch is given up after so long without a piece.
    pub fn with_patience(
        me: PeerId,
        transport: impl Into<Transports>,
        store: BlobStore,
        server: BlobServer,
        give_up: Duration,
    ) -> Self {
        let transport = transport.into();
        let (bans, clock) = (Mutex::default(), Monotonic::start());
        let (from_sources, from_peers) = (AtomicU64::new(0), AtomicU64::new(0));
        let known = Known::new(clock);
        let shared =
            Shared { me, transport, store, server, bans, known, clock, give_up, from_sources, from_peers };
        Self(Arc::new(shared))
    }

    /// Starts to fetch what is missing of a blob, and holds it as long as what is returned lives. Who needs it for
    /// longer tags it before.
    pub async fn fetch(&self, blob: BlobRef, members: impl Members) -> Result<Fetch, FetchBlobError> {
        self.start(blob, None, members).await
    }

    /// Fetches the pieces that hold these bytes and no others, and waits until they are here. Returns what came from each
    /// provider. The caller holds or tags the blob.
    pub async fn fetch_part(
        &self,
        blob: BlobRef,
        bytes: Range<u64>,
        members: impl Members,
    ) -> Result<BTreeMap<PeerId, u64>, Arc<FetchBlobError>> {
        let part = self.start(blob, Some(bytes), members).await.map_err(Arc::new)?;
        part.done().await?;
        Ok(part.bytes_by_provider())
    }

    async fn start(
        &self,
        blob: BlobRef,
        part: Option<Range<u64>>,
        members: impl Members,
    ) -> Result<Fetch, FetchBlobError> {
        let hold = self.0.store.hold(blob.hash).await?;
        let count = Pieces::of(blob.size).count();
        let (state, watched) = watch::channel(State::new(PieceSet::none(count)));
        let (wants, wanted) = mpsc::channel(WANTS_MAX);
        let fetching = Fetching::new(self.0.clone(), blob, part, Arc::new(members), state, wanted).await?;
        let task = AbortOnDropHandle::new(tokio::spawn(fetching.run()));
        Ok(Fetch { blob, state: watched, wants, _task: task, _hold: hold })
    }

    /// What this peer answers to others over gRPC.
    pub fn exchange(&self) -> ExchangeService {
        ExchangeService::new(self.0.store.clone(), self.0.server.clone(), self.0.known.clone())
    }

    /// Tells a few of those whom this peer knows that it still has a blob, or a part of it, as they would soon forget.
    pub async fn tell(&self, blob: BlobRef) {
        let Some(second) = self.0.transport.second() else { return };
        let known = self.0.known.named(blob.hash, self.0.me);
        let told = known.into_iter().take(limits::EXCHANGE_WITH_MAX).map(|named| async move {
            let provider = Provider::dial(named.peer, named.addresses);
            // Whom it names is of no use now.
            if let Err(error) = second.members(&provider, blob).await {
                tracing::debug!(peer = %named.peer.short(), %error, "a peer can't be told");
            }
        });
        futures_util::future::join_all(told).await;
    }

    /// Payload that came from sources, and from other peers, since the start.
    pub fn received(&self) -> (u64, u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (load(&self.0.from_sources), load(&self.0.from_peers))
    }

    /// Whether a peer is banned for a lie.
    pub fn is_banned(&self, peer: PeerId) -> bool {
        self.0.is_banned(peer)
    }
}

/// Ranges that somebody waits for and that the task has not heard of yet.
const WANTS_MAX: usize = 64;

impl Shared {
    fn is_banned(&self, peer: PeerId) -> bool {
        self.bans.lock().unwrap_or_else(PoisonError::into_inner).is_banned(self.clock.now(), peer)
    }

    fn ban(&self, peer: PeerId) {
        self.bans.lock().unwrap_or_else(PoisonError::into_inner).ban(self.clock.now(), peer);
    }
}

/// Where a fetch stands.
#[derive(Debug, Clone)]
struct State {
    have: PieceSet,
    from: BTreeMap<PeerId, u64>,
    ended: Option<Result<(), Arc<FetchBlobError>>>,
}

impl State {
    fn new(have: PieceSet) -> Self {
        Self { have, from: BTreeMap::new(), ended: None }
    }
}

/// A blob that is being fetched, until this is dropped. What came stays as long as something names the blob.
#[derive(Debug)]
pub struct Fetch {
    blob: BlobRef,
    state: watch::Receiver<State>,
    wants: mpsc::Sender<Range<u64>>,
    _task: AbortOnDropHandle<()>,
    _hold: Hold,
}

impl Fetch {
    /// The blob.
    pub fn blob(&self) -> BlobRef {
        self.blob
    }

    /// Waits until these bytes are here; they go before what nobody waits for.
    pub async fn range(&self, bytes: Range<u64>) -> Result<(), Arc<FetchBlobError>> {
        let pieces = Pieces::of(self.blob.size).covering(&bytes);
        let is_here = |state: &State| pieces.clone().all(|piece| state.have.contains(PieceNo::new(piece)));
        if !is_here(&self.state.borrow()) {
            // An error means that the task has ended, and so will the wait.
            drop(self.wants.send(bytes.clone()).await);
        }
        self.wait(is_here).await
    }

    /// Waits until all of it is here.
    pub async fn done(&self) -> Result<(), Arc<FetchBlobError>> {
        self.wait(|_| false).await
    }

    async fn wait(&self, enough: impl Fn(&State) -> bool) -> Result<(), Arc<FetchBlobError>> {
        let mut state = self.state.clone();
        let reached = state.wait_for(|state| enough(state) || state.ended.is_some()).await;
        match reached.ok().and_then(|state| state.ended.clone()) {
            Some(Err(error)) if !enough(&self.state.borrow()) => Err(error),
            Some(_) => Ok(()),
            None if enough(&self.state.borrow()) => Ok(()),
            // Without an end the task was aborted, with its runtime.
            None => Err(Arc::new(FetchBlobError::Cancelled)),
        }
    }

    /// The pieces that are here.
    pub fn have(&self) -> PieceSet {
        self.state.borrow().have.clone()
    }

    /// Whether it ended without the blob.
    pub fn has_failed(&self) -> bool {
        matches!(self.state.borrow().ended, Some(Err(_)))
    }

    /// Payload that came from each provider so far.
    pub fn bytes_by_provider(&self) -> BTreeMap<PeerId, u64> {
        self.state.borrow().from.clone()
    }
}
