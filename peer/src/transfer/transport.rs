//! The transport over `iroh-blobs`: one QUIC stream per range.

use std::{
    collections::{HashMap, HashSet},
    io,
    num::NonZeroU64,
    ops::Range,
    pin::pin,
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use iroh::endpoint::Connection;
use iroh_blobs::{
    Hash,
    api::remote::GetProgressItem,
    get::{
        GetError, StreamPair,
        fsm::{AtBlobHeaderNextError, DecodeError},
    },
    protocol::{ERR_INTERNAL, ERR_LIMIT, ERR_PERMISSION, GetRequest, ObserveRequest},
};
use talka_core::{ids::PeerId, job::BlobRef, limits, quantities::Bytes, swarm::PieceNo};
use tokio::{sync::Mutex, time::Instant};

use super::{
    ChunkTransport, FetchError, Fetched, Provider,
    sized::{Pace, SizedStream, WrongSize},
};
use crate::{
    blobs::{ALPN, BlobError, BlobStore, Held, ReverseProviders},
    endpoint::PeerEndpoint,
};

/// How long a provider is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Silence after which it is given up.
    pub stall: Duration,
    /// Bytes per second below which it is given up, once it had the time of a stall to get going.
    pub rate_min: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { stall: limits::PROVIDER_STALL_MAX, rate_min: limits::PROVIDER_RATE_MIN }
    }
}

/// One for each provider, so that two requests don't dial it twice.
type Slot = Arc<Mutex<Option<Connection>>>;

/// Fetches ranges by the protocol of `iroh-blobs`, over a connection that the provider made, or one that is made to it
/// and kept. Clones share the connections.
#[derive(Debug, Clone)]
pub struct IrohBlobs {
    endpoint: PeerEndpoint,
    store: BlobStore,
    reverse: Option<ReverseProviders>,
    patience: Patience,
    pace: Pace,
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
        let Patience { stall, rate_min } = self.patience;
        let stalled = |_| FetchError::Stalled(stall);
        let opened = tokio::time::timeout(stall, connection.open_bi()).await.map_err(stalled)?;
        let (send, receive) = opened.map_err(|error| FetchError::Broken(error.into()))?;
        let receive = SizedStream::new(receive, blob.size.get(), self.pace.clone());
        let streams = StreamPair::new(connection.stable_id() as u64, receive, send);
        let mut progress = pin!(self.store.inner().remote().execute_get(streams, request).stream());
        let started = Instant::now();
        loop {
            match tokio::time::timeout(stall, progress.next()).await.map_err(stalled)? {
                Some(GetProgressItem::Progress(bytes)) => {
                    told(bytes);
                    let elapsed = started.elapsed();
                    if elapsed > stall && bytes < rate_min.saturating_mul(elapsed.as_secs()) {
                        return Err(FetchError::TooSlow { bytes: Bytes::new(bytes), elapsed });
                    }
                }
                Some(GetProgressItem::Done(stats)) => return Ok(Fetched { bytes: stats.payload_bytes_read }),
                Some(GetProgressItem::Error(error)) => return Err(why(error, blob)),
                None => return Err(FetchError::Broken(io::Error::from(io::ErrorKind::UnexpectedEof).into())),
            }
        }
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
        let size = blob.size.get();
        if range.start > range.end || range.end > size || size > limits::BLOB_BYTES_MAX {
            return Err(FetchError::OutOfRange { start: range.start, end: range.end, size: blob.size });
        }
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
        let request = ObserveRequest::new(Hash::from_bytes(*blob.hash.as_bytes()));
        let bitfields = self.store.inner().remote().observe(connection, request);
        let held = Held::nothing_of(blob);
        let news = stream::unfold((Box::pin(bitfields), held), async |(mut bitfields, mut held)| {
            let bitfield = bitfields.next().await?.ok()?;
            Some((held.add(&bitfield.ranges), (bitfields, held)))
        });
        Ok(news.boxed())
    }
}

/// What an error of `iroh-blobs` says about the provider.
fn why(error: GetError, blob: BlobRef) -> FetchError {
    use AtBlobHeaderNextError as Header;
    use DecodeError as Decode;

    let claimed =
        error.remote_read().and_then(io::Error::get_ref).and_then(|inner| inner.downcast_ref::<WrongSize>());
    if let Some(WrongSize { claimed }) = claimed {
        return FetchError::WrongSize { claimed: *claimed, expected: blob.size };
    }
    match error.iroh_error_code() {
        Some(ERR_LIMIT) => return FetchError::Busy,
        Some(ERR_PERMISSION) => return FetchError::Refused,
        // What a provider says that does not know the blob.
        Some(ERR_INTERNAL) => return FetchError::NotHeld,
        _ => {}
    }
    match error {
        GetError::AtBlobHeaderNext { source: Header::NotFound { .. }, .. }
        | GetError::Decode {
            source: Decode::ChunkNotFound { .. } | Decode::ParentNotFound { .. } | Decode::LeafNotFound { .. },
            ..
        } => FetchError::NotHeld,
        GetError::Decode {
            source: Decode::ParentHashMismatch { .. } | Decode::LeafHashMismatch { .. },
            ..
        } => FetchError::Corrupt,
        error @ (GetError::LocalFailure { .. }
        | GetError::IrpcSend { .. }
        | GetError::Decode { source: Decode::Write { .. }, .. }) => {
            FetchError::Store(BlobError::Add(error.into()))
        }
        error => FetchError::Broken(error.into()),
    }
}
