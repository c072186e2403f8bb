//! The simple picker: one provider after the other, piece after piece.

use std::collections::{BTreeMap, VecDeque};

use talka_core::{ids::PeerId, job::BlobRef, limits};
use tokio_util::sync::CancellationToken;

use super::{ChunkTransport, FetchError, GrpcBlobs, IrohBlobs, Provider, Transports};
use crate::{
    blobs::{BlobError, BlobStore, Hold, ReverseProviders},
    endpoint::PeerEndpoint,
};

/// Names providers, the best first.
pub trait Providers: Send {
    /// The next one to ask; none when there are no more. It may wait, for a tracker's answer.
    fn next(&mut self) -> impl Future<Output = Option<Provider>> + Send;

    /// The provider named last did not bring the rest of the blob, and why.
    fn failed(&mut self, provider: &Provider, error: &FetchError) -> impl Future<Output = ()> + Send {
        let _ = (provider, error);
        std::future::ready(())
    }
}

impl Providers for VecDeque<Provider> {
    async fn next(&mut self) -> Option<Provider> {
        self.pop_front()
    }
}

/// A blob is here.
#[derive(Debug)]
pub struct FetchReport {
    /// Payload that came from each provider.
    pub bytes_by_provider: BTreeMap<PeerId, u64>,
    /// Keeps the blob until the caller has tagged it.
    pub hold: Hold,
}

/// A blob did not come.
#[derive(Debug, thiserror::Error)]
pub enum FetchBlobError {
    /// The caller no longer wants it. What came stays until it is collected.
    #[error("the fetch was cancelled")]
    Cancelled,
    /// Every provider failed. Worth a retry when there are others.
    #[error("no provider has blob {}{}", blob.hash.short(), last(failures))]
    NoProvider {
        /// The blob.
        blob: BlobRef,
        /// Who was asked, and why that did not help; the first [`limits::PROVIDERS_MAX`].
        failures: Vec<(PeerId, FetchError)>,
    },
    /// This peer can't take it.
    #[error(transparent)]
    Local(FetchError),
}

impl From<BlobError> for FetchBlobError {
    fn from(error: BlobError) -> Self {
        Self::Local(error.into())
    }
}

fn last(failures: &[(PeerId, FetchError)]) -> String {
    let Some((peer, error)) = failures.last() else { return ": none was named".into() };
    let others = failures.len() - 1;
    let others = if others == 0 { String::new() } else { format!(", and {others} more") };
    format!(": {} failed ({error}){others}", peer.short())
}

/// Fetches a blob from the first providers that have it. `transport` must fetch into `store`.
pub async fn fetch_blob<T: ChunkTransport>(
    transport: &T,
    store: &BlobStore,
    blob: BlobRef,
    mut providers: impl Providers,
    cancel: &CancellationToken,
) -> Result<FetchReport, FetchBlobError> {
    let hold = store.hold(blob.hash).await?;
    let fetched = cancel.run_until_cancelled(from_any(transport, store, blob, &mut providers)).await;
    let bytes_by_provider = fetched.ok_or(FetchBlobError::Cancelled)??;
    Ok(FetchReport { bytes_by_provider, hold })
}

async fn from_any<T: ChunkTransport>(
    transport: &T,
    store: &BlobStore,
    blob: BlobRef,
    providers: &mut impl Providers,
) -> Result<BTreeMap<PeerId, u64>, FetchBlobError> {
    let mut bytes_by_provider = BTreeMap::new();
    let mut failures = Vec::new();
    while !store.has(blob.hash).await? {
        let Some(provider) = providers.next().await else {
            return Err(FetchBlobError::NoProvider { blob, failures });
        };
        let mut came = 0;
        let fetched = fetch_from(transport, store, &provider, blob, |bytes| came = bytes).await;
        if came > 0 {
            *bytes_by_provider.entry(provider.peer()).or_default() += came;
        }
        match fetched {
            Ok(_) => break,
            Err(error) if error.is_local() => return Err(FetchBlobError::Local(error)),
            Err(error) => {
                tracing::debug!(peer = %provider.peer().short(), %error, "provider failed");
                providers.failed(&provider, &error).await;
                if failures.len() < limits::PROVIDERS_MAX {
                    failures.push((provider.peer(), error));
                }
            }
        }
    }
    Ok(bytes_by_provider)
}

/// Fetches what is missing of a blob from one provider, in pieces of [`limits::PIECE_BYTES_MAX`]. `progress` is told the
/// bytes that came so far. Returns their sum. The caller holds or tags the blob.
pub async fn fetch_from<T: ChunkTransport>(
    transport: &T,
    store: &BlobStore,
    provider: &Provider,
    blob: BlobRef,
    mut progress: impl FnMut(u64) + Send,
) -> Result<u64, FetchError> {
    let size = blob.size.get();
    if size > limits::BLOB_BYTES_MAX {
        return Err(FetchError::OutOfRange { start: 0, end: size, size: blob.size });
    }
    let mut came = 0;
    let mut start = 0;
    while start < size {
        let end = (start + limits::PIECE_BYTES_MAX).min(size);
        came += transport.fetch_range(provider, blob, start..end, |_| ()).await?.bytes;
        progress(came);
        start = end;
    }
    match store.size(blob.hash).await? {
        Some(found) if found == blob.size => Ok(came),
        // The bytes of the range were all here before, but of a longer or shorter blob.
        Some(found) => Err(FetchError::WrongSize { claimed: found, expected: blob.size }),
        None => Err(FetchError::NotHeld),
    }
}

/// Fetches blobs into a store, each from one provider that somebody named, by both transports. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fetcher {
    transport: Transports,
    store: BlobStore,
}

impl Fetcher {
    /// Fetches into `store`; `reverse` are the peers that offer their blobs, if any may.
    pub fn new(endpoint: PeerEndpoint, store: BlobStore, reverse: Option<ReverseProviders>) -> Self {
        let first = IrohBlobs::new(endpoint.clone(), store.clone(), reverse);
        // It serves nobody, so there is nowhere to be asked.
        let second = GrpcBlobs::new(endpoint, store.clone(), []);
        Self { transport: Transports::both(first, second), store }
    }

    /// Fetches what is missing of a blob from `provider` and keeps it under `tag`, over a restart in the middle of it too.
    /// `progress` is told the bytes that came so far. Returns their sum.
    pub async fn fetch(
        &self,
        provider: &Provider,
        blob: BlobRef,
        tag: &str,
        progress: impl FnMut(u64) + Send,
    ) -> Result<u64, FetchError> {
        self.store.tag(tag, blob.hash).await?;
        fetch_from(&self.transport, &self.store, provider, blob, progress).await
    }

    /// The transport, for those who pick pieces and providers themselves.
    pub fn transport(&self) -> &Transports {
        &self.transport
    }
}
