//! The transport over `iroh-blobs`: one QUIC stream per range.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroU64,
    ops::Range,
    sync::{Arc, PoisonError},
};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use iroh::endpoint::Connection;
use iroh_blobs::{
    get::StreamPair,
    protocol::{GetRequest, ObserveRequest},
};
use talka_core::{ids::PeerId, job::BlobRef, limits, swarm::PieceNo};
use tokio::{sync::Mutex, time::Instant};

use super::{
    ChunkTransport, FetchError, Fetched, Provider, check_range,
    follow::Reports,
    intake::{Patience, take_in},
    sized::{Pace, SizedStream},
};
use crate::{
    blobs::{ALPN, BlobStore, ReverseProviders, to_hash},
    endpoint::PeerEndpoint,
};

/// One for each provider, so that two requests don't dial it twice.
type Slot = Arc<Mutex<Option<Connection>>>;

/// Fetches ranges by the protocol of `iroh-blobs`, over a connection that the provider made, or one that is made to it
/// and kept. Clones share the connections.
#[derive(Debug, Clone)]
pub struct IrohBlobs {
    endpoint: PeerEndpoint,
    store: BlobStore,
    reverse: Option<ReverseProviders>,
    pub(super) patience: Patience,
    pub(super) pace: Pace,
    dialed: Arc<std::sync::Mutex<HashMap<PeerId, Slot>>>,
}

impl IrohBlobs {
    /// Fetches into `store`; `reverse` are the peers that made a connection themselves, if any may.
    pub fn new(endpoint: PeerEndpoint, store: BlobStore, reverse: Option<ReverseProviders>) -> Self {
        Self {
            endpoint,
            store,
            reverse,
            patience: Patience::default(),
            pace: Pace::default(),
            dialed: Arc::default(),
        }
    }

    /// Waits longer or shorter for providers.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Takes at most so many bytes per second, all transfers of this transport together.
    #[must_use]
    pub fn with_download_limit(mut self, bytes_per_second: Option<NonZeroU64>) -> Self {
        self.pace = bytes_per_second.map(Pace::at).unwrap_or_default();
        self
    }

    /// Fetches on the connections that a peer made itself, the newest first, until one brings the range. `None` if
    /// there is none and the peer can be dialed instead.
    async fn fetch_offered(
        &self,
        provider: &Provider,
        blob: BlobRef,
        request: &GetRequest,
        progress: &(impl Fn(u64) + Send + Sync),
    ) -> Option<Result<Fetched, FetchError>> {
        let (peer, reverse) = (provider.peer(), self.reverse.as_ref()?);
        let deadline = Instant::now() + limits::CONNECT_TIMEOUT;
        let mut tried = HashSet::new();
        let mut last = FetchError::NotOffered(peer);
        loop {
            let is_new = |offer: &Connection| !tried.contains(&offer.stable_id());
            let offer = match reverse.offers(peer).into_iter().find(is_new) {
                Some(offer) => offer,
                None if provider.address().is_dialable() => return None,
                // The peer may hold the blob in a store that it is about to offer.
                None => match reverse.wait_for(peer, deadline, is_new).await {
                    Some(offer) => offer,
                    None => return Some(Err(last)),
                },
            };
            tried.insert(offer.stable_id());
            match self.transfer(&offer, blob, request.clone(), progress).await {
                Err(error @ (FetchError::NotHeld | FetchError::Broken(_))) => last = error,
                fetched => return Some(fetched),
            }
        }
    }

    /// A connection to a provider that can be dialed, and the slot in which it is kept.
    async fn dial(&self, provider: &Provider) -> Result<(Connection, Slot), FetchError> {
        let peer = provider.peer();
        if !provider.address().is_dialable() {
            return Err(FetchError::NotOffered(peer));
        }
        let slot = self.slot(peer);
        let mut kept = slot.lock().await;
        let alive = kept.as_ref().filter(|connection| connection.close_reason().is_none()).cloned();
        let connection = match alive {
            Some(connection) => connection,
            None => self.endpoint.connect(provider.address(), ALPN).await?,
        };
        *kept = Some(connection.clone());
        drop(kept);
        Ok((connection, slot))
    }

    fn slot(&self, peer: PeerId) -> Slot {
        let mut dialed = self.dialed.lock().unwrap_or_else(PoisonError::into_inner);
        if dialed.len() >= limits::PROVIDER_CONNECTIONS_MAX && !dialed.contains_key(&peer) {
            // Those in use have another owner.
            dialed.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(dialed.entry(peer).or_default())
    }

    async fn transfer(
        &self,
        connection: &Connection,
        blob: BlobRef,
        request: GetRequest,
        told: &(impl Fn(u64) + Send + Sync),
    ) -> Result<Fetched, FetchError> {
        let stall = self.patience.stall;
        let stalled = |_| FetchError::Stalled(stall);
        let opened = tokio::time::timeout(stall, connection.open_bi()).await.map_err(stalled)?;
        let (send, receive) = opened.map_err(|error| FetchError::Broken(error.into()))?;
        let receive = SizedStream::new(receive, blob.size.get(), self.pace.clone());
        let streams = StreamPair::new(connection.stable_id() as u64, receive, send);
        take_in(&self.store, streams, blob, request, self.patience, told).await
    }
}

impl ChunkTransport for IrohBlobs {
    async fn fetch_range(
        &self,
        provider: &Provider,
        blob: BlobRef,
        range: Range<u64>,
        progress: impl Fn(u64) + Send + Sync,
    ) -> Result<Fetched, FetchError> {
        check_range(blob, &range)?;
        if range.is_empty() {
            return Ok(Fetched { bytes: 0 });
        }
        let Some(request) = self.store.missing(blob.hash, range).await? else {
            return Ok(Fetched { bytes: 0 });
        };
        if let Some(fetched) = self.fetch_offered(provider, blob, &request, &progress).await {
            return fetched;
        }
        let (connection, slot) = self.dial(provider).await?;
        let fetched = self.transfer(&connection, blob, request, &progress).await;
        let usable =
            matches!(&fetched, Ok(_) | Err(FetchError::NotHeld | FetchError::Busy | FetchError::Refused));
        if !usable {
            // Another try starts with a new connection; requests that run on this one go on.
            slot.lock().await.take_if(|kept| kept.stable_id() == connection.stable_id());
        }
        fetched
    }

    async fn follow(
        &self,
        provider: &Provider,
        blob: BlobRef,
    ) -> Result<BoxStream<'static, Vec<PieceNo>>, FetchError> {
        let offered =
            self.reverse.as_ref().and_then(|reverse| reverse.offers(provider.peer()).into_iter().next());
        let connection = match offered {
            Some(connection) => connection,
            None => self.dial(provider).await?.0,
        };
        let request = ObserveRequest::new(to_hash(blob.hash));
        let bitfields = self.store.inner().remote().observe(connection, request);
        let state = (Box::pin(bitfields), Reports::of(blob));
        let news = stream::unfold(state, async |(mut bitfields, mut reports)| {
            let bitfield = bitfields.next().await?.ok()?;
            Some((reports.ranges(&bitfield.ranges)?, (bitfields, reports)))
        });
        Ok(news.boxed())
    }
}
