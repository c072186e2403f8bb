//! Taking an answer in, verified, whatever carries it.

use std::{io, pin::pin, time::Duration};

use futures_util::StreamExt;
use iroh_blobs::{
    api::remote::GetProgressItem,
    get::{
        GetError, StreamPair,
        fsm::{AtBlobHeaderNextError, DecodeError},
    },
    protocol::{ERR_INTERNAL, ERR_LIMIT, ERR_PERMISSION, GetRequest},
    util::{RecvStream, SendStream},
};
use talka_core::{job::BlobRef, limits, quantities::Bytes};
use tokio::time::Instant;

use super::{FetchError, Fetched, sized::WrongSize};
use crate::blobs::{BlobError, BlobStore};

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

/// Stores what comes of `request` as it is verified. `told` hears the bytes that came so far.
pub(super) async fn take_in<R, W>(
    store: &BlobStore,
    streams: StreamPair<R, W>,
    blob: BlobRef,
    request: GetRequest,
    patience: Patience,
    told: &(impl Fn(u64) + Send + Sync),
) -> Result<Fetched, FetchError>
where
    R: RecvStream + 'static,
    W: SendStream + 'static,
{
    let Patience { stall, rate_min } = patience;
    let mut progress = pin!(store.inner().remote().execute_get(streams, request).stream());
    let started = Instant::now();
    loop {
        let item = tokio::time::timeout(stall, progress.next()).await;
        match item.map_err(|_| FetchError::Stalled(stall))? {
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

/// What a status says about the provider that sent it.
pub(super) fn refusal(status: tonic::Status) -> FetchError {
    match status.code() {
        tonic::Code::ResourceExhausted => FetchError::Busy,
        tonic::Code::PermissionDenied => FetchError::Refused,
        tonic::Code::NotFound => FetchError::NotHeld,
        _ => FetchError::Broken(status.into()),
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
    let status = error
        .remote_read()
        .and_then(io::Error::get_ref)
        .and_then(|inner| inner.downcast_ref::<tonic::Status>());
    if let Some(status) = status {
        return refusal(status.clone());
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
