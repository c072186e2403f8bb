//! Getting a blob from other peers, though some of them are gone, slow, or lie.
//!
//! A [`ChunkTransport`] fetches one range from one [`Provider`], verified: whatever it returns `Ok` for lies in the store
//! and belongs to the hash. [`IrohBlobs`] is the first one; [`GrpcBlobs`] carries the same answers over gRPC, and [`Transports`] takes
//! it for peers with which the first one fails. [`fetch_blob`] goes over the providers that it is told, piece
//! by piece, and leaves one at the first stall or lie; what was verified before stays, so nothing is fetched twice,
//! not even after a restart.
//!
//! Nothing is allocated or reserved for a length that a provider claims: a claim other than [`BlobRef::size`] ends the
//! transfer before its first byte.

mod both;
mod fetch;
mod follow;
mod grpc;
mod intake;
mod sized;
mod transport;

use std::{ops::Range, time::Duration};

use futures_util::stream::BoxStream;
use talka_core::{ids::PeerId, job::BlobRef, limits, quantities::Bytes, swarm::PieceNo};

pub use self::{
    both::Transports,
    fetch::{FetchBlobError, FetchReport, Fetcher, Providers, fetch_blob, fetch_from},
    grpc::GrpcBlobs,
    intake::Patience,
    transport::IrohBlobs,
};
use crate::{Cause, address::PeerAddr, blobs::BlobError, endpoint::ConnectError};

/// A peer to fetch from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider(PeerAddr);

impl Provider {
    /// A peer at these addresses.
    pub fn dial(peer: PeerId, direct: Vec<std::net::SocketAddr>) -> Self {
        Self(PeerAddr::new(peer, direct))
    }

    /// A peer that offers its blobs on a connection that it made.
    pub fn reverse(peer: PeerId) -> Self {
        Self(PeerAddr::new(peer, []))
    }

    /// Who it is.
    pub fn peer(&self) -> PeerId {
        self.0.peer
    }

    /// Where it can be dialed.
    pub fn address(&self) -> &PeerAddr {
        &self.0
    }
}

impl From<PeerAddr> for Provider {
    fn from(address: PeerAddr) -> Self {
        Self(address)
    }
}

/// What a transport brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    /// Payload that came over the network; less than the range if a part of it was here.
    pub bytes: u64,
}

/// Why a range did not come. Worth a retry with another provider, unless [`is_local`](Self::is_local).
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The provider can't be reached.
    #[error("cannot reach the provider")]
    Connect(#[from] ConnectError),
    /// The provider can't be dialed and does not offer its blobs either.
    #[error("peer {} offers no blobs and has no address", .0.short())]
    NotOffered(PeerId),
    /// The provider lacks a part of it.
    #[error("the provider does not have all of the range")]
    NotHeld,
    /// The provider has no slot for this peer now.
    #[error("the provider serves others now")]
    Busy,
    /// The provider does not let this peer have it.
    #[error("the provider refuses to send the blob")]
    Refused,
    /// Nothing came for too long.
    #[error("the provider sent nothing for {} ms", .0.as_millis())]
    Stalled(Duration),
    /// Too little came.
    #[error("the provider sent {bytes} in {} s", elapsed.as_secs())]
    TooSlow {
        /// What came.
        bytes: Bytes,
        /// In this time.
        elapsed: Duration,
    },
    /// The bytes do not belong to the hash: the provider lies, or its disk does.
    #[error("the provider sent bytes that do not belong to the blob")]
    Corrupt,
    /// The provider has a blob of another length under this name. Either it lies, or whoever named the blob does.
    #[error("the provider claims {claimed} for a blob of {expected}")]
    WrongSize {
        /// By the provider.
        claimed: Bytes,
        /// By whoever named the blob.
        expected: Bytes,
    },
    /// The connection broke, or the provider breaks the protocol.
    #[error("the transfer broke")]
    Broken(#[source] Cause),
    /// The blob or the range is one that nobody should ask for.
    #[error(
        "bytes {start} to {end} of a blob of {size} cannot be fetched: the limit is {}",
        Bytes::new(limits::BLOB_BYTES_MAX)
    )]
    OutOfRange {
        /// First byte.
        start: u64,
        /// First byte that is not wanted.
        end: u64,
        /// Length of the blob.
        size: Bytes,
    },
    /// This peer's own store failed. No other provider will help.
    #[error(transparent)]
    Store(#[from] BlobError),
}

impl FetchError {
    /// Whether this peer is at fault, and not the provider.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Store(_) | Self::OutOfRange { .. })
    }

    /// Whether the provider is proved to have sent what it should not: it should not be asked again.
    pub fn is_lie(&self) -> bool {
        matches!(self, Self::Corrupt)
    }
}

/// Refuses what nobody should ask for.
fn check_range(blob: BlobRef, range: &Range<u64>) -> Result<(), FetchError> {
    let size = blob.size.get();
    if range.start > range.end || range.end > size || size > limits::BLOB_BYTES_MAX {
        return Err(FetchError::OutOfRange { start: range.start, end: range.end, size: blob.size });
    }
    Ok(())
}

/// Fetches ranges into the store that it was made with.
pub trait ChunkTransport: Send + Sync {
    /// Fetches what is missing of `range` of `blob` from `provider`. `progress` is told the bytes that came so far.
    /// Dropping the future ends the transfer; what was verified until then stays.
    fn fetch_range(
        &self,
        provider: &Provider,
        blob: BlobRef,
        range: Range<u64>,
        progress: impl Fn(u64) + Send + Sync,
    ) -> impl Future<Output = Result<Fetched, FetchError>> + Send;

    /// Follows what a provider has of a blob: each item are pieces that are new. It ends, or fails, when the provider
    /// is gone.
    fn follow(
        &self,
        provider: &Provider,
        blob: BlobRef,
    ) -> impl Future<Output = Result<BoxStream<'static, Vec<PieceNo>>, FetchError>> + Send;
}
