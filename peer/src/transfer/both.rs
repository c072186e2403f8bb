//! The first transport, and the second one where that fails.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use talka_core::{
    ids::PeerId,
    job::BlobRef,
    limits,
    swarm::{PieceNo, Way, Ways},
};
use tokio::time::Instant;

use super::{ChunkTransport, FetchError, Fetched, GrpcBlobs, IrohBlobs, Provider};
use crate::{clock::Monotonic, endpoint::ConnectError};

/// Both transports, and which one a peer is asked by. Clones share what was found out about peers.
#[derive(Debug, Clone)]
pub struct Transports {
    first: IrohBlobs,
    second: Option<GrpcBlobs>,
    ways: Arc<Mutex<Ways>>,
    clock: Monotonic,
}

impl From<IrohBlobs> for Transports {
    fn from(first: IrohBlobs) -> Self {
        Self { first, second: None, ways: Arc::default(), clock: Monotonic::start() }
    }
}

impl Transports {
    /// Both. They must fetch into the same store; the second one keeps to the limit of the first one and is as patient.
    pub fn both(first: IrohBlobs, mut second: GrpcBlobs) -> Self {
        second.pace = first.pace.clone();
        second.patience = first.patience;
        Self { second: Some(second), ..first.into() }
    }

    pub(crate) fn second(&self) -> Option<&GrpcBlobs> {
        self.second.as_ref()
    }

    fn way(&self, peer: PeerId) -> Way {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner).of(self.clock.now(), peer)
    }

    fn failed(&self, peer: PeerId, way: Way) {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner).on_failed(self.clock.now(), peer, way);
    }

    async fn fetch_by(
        &self,
        way: Way,
        provider: &Provider,
        blob: BlobRef,
        range: Range<u64>,
        progress: &(impl Fn(u64) + Send + Sync),
    ) -> Result<Fetched, FetchError> {
        let mut watch = Watch::new(self, provider.peer(), way);
        let told = |bytes| {
            watch.came.store(bytes, Ordering::Relaxed);
            progress(bytes);
        };
        let fetched = match (&self.second, way) {
            (Some(second), Way::Second) => second.fetch_range(provider, blob, range, told).await,
            _ => self.first.fetch_range(provider, blob, range, told).await,
        };
        watch.is_over = true;
        if fetched.as_ref().is_err_and(is_of_the_way) {
            self.failed(provider.peer(), way);
        }
        fetched
    }
}

/// Whether another way to the same provider may help.
fn is_of_the_way(error: &FetchError) -> bool {
    matches!(
        error,
        FetchError::Connect(ConnectError::Refused { .. }) | FetchError::Broken(_) | FetchError::Stalled(_)
    )
}

/// Whether it may help at once: who let so much time pass is not waited for again.
fn is_worth_another(error: &FetchError) -> bool {
    is_of_the_way(error) && !matches!(error, FetchError::Stalled(_))
}

impl ChunkTransport for Transports {
    async fn fetch_range(
        &self,
        provider: &Provider,
        blob: BlobRef,
        range: Range<u64>,
        progress: impl Fn(u64) + Send + Sync,
    ) -> Result<Fetched, FetchError> {
        if self.second.is_none() || !provider.address().is_dialable() {
            return self.first.fetch_range(provider, blob, range, progress).await;
        }
        let way = self.way(provider.peer());
        let fetched = self.fetch_by(way, provider, blob, range.clone(), &progress).await;
        match fetched {
            Err(error) if way == Way::First && is_worth_another(&error) => {
                tracing::debug!(peer = %provider.peer().short(), %error, "asked by the second transport");
                self.fetch_by(Way::Second, provider, blob, range, &progress).await
            }
            fetched => fetched,
        }
    }

    async fn follow(
        &self,
        provider: &Provider,
        blob: BlobRef,
    ) -> Result<BoxStream<'static, Vec<PieceNo>>, FetchError> {
        let peer = provider.peer();
        let Some(second) = self.second.as_ref().filter(|_| provider.address().is_dialable()) else {
            return self.first.follow(provider, blob).await;
        };
        let (way, news) = match self.way(peer) {
            Way::Second => (Way::Second, second.follow(provider, blob).await),
            Way::First => match self.first.follow(provider, blob).await {
                Err(error) if is_worth_another(&error) => {
                    self.failed(peer, Way::First);
                    (Way::Second, second.follow(provider, blob).await)
                }
                news => (Way::First, news),
            },
        };
        let news = news.inspect_err(|error| {
            if is_of_the_way(error) {
                self.failed(peer, way);
            }
        })?;
        // Who says nothing at all, not even that it has nothing, was not heard.
        let state = (news, false, self.clone());
        let news = stream::unfold(state, move |(mut news, heard, this)| async move {
            let item = news.next().await;
            if item.is_none() && !heard {
                this.failed(peer, way);
            }
            Some((item?, (news, true, this)))
        });
        Ok(news.boxed())
    }
}

/// Notices when a request is dropped that nothing came of for too long.
struct Watch<'a> {
    transports: &'a Transports,
    peer: PeerId,
    way: Way,
    since: Instant,
    came: AtomicU64,
    is_over: bool,
}

impl<'a> Watch<'a> {
    fn new(transports: &'a Transports, peer: PeerId, way: Way) -> Self {
        let (since, came) = (Instant::now(), AtomicU64::new(0));
        Self { transports, peer, way, since, came, is_over: false }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let is_silent = self.came.load(Ordering::Relaxed) == 0;
        if !self.is_over && is_silent && self.since.elapsed() >= limits::PROVIDER_STALL_MAX {
            self.transports.failed(self.peer, self.way);
        }
    }
}
