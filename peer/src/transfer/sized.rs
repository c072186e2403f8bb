//! A stream that checks the length which a provider claims, before anybody acts on it, and keeps to a rate.

use std::{
    fmt, io,
    num::NonZeroU64,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use iroh::endpoint::VarInt;
use iroh_blobs::util::RecvStream as BlobStream;
use talka_core::quantities;

use crate::bucket::TokenBucket;

/// A response starts with the length of the blob: 8 bytes, little endian.
const HEADER_BYTES: usize = 8;

/// A provider claims another length.
#[derive(Debug, Clone, Copy)]
pub(super) struct WrongSize {
    pub(super) claimed: quantities::Bytes,
}

impl fmt::Display for WrongSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "another length is claimed: {}", self.claimed)
    }
}

impl std::error::Error for WrongSize {}

/// What a provider sends, as long as it is of a blob with the expected length.
pub(super) struct SizedStream<S> {
    stream: S,
    expected: u64,
    checked: bool,
    pace: Pace,
}

/// Bytes per second of all downloads together, if there is a limit. Who reads slowly is sent to slowly: what waits in
/// the network is bounded by the window of the stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace(Option<Arc<Mutex<TokenBucket>>>);

impl Pace {
    pub(super) fn at(rate: NonZeroU64) -> Self {
        Self(Some(Arc::new(Mutex::new(TokenBucket::shaping(rate)))))
    }

    async fn keep(&self, bytes: usize) {
        let Some(bucket) = &self.0 else { return };
        let wait = {
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.pause(Instant::now(), bytes as u64)
        };
        if let Some(wait) = wait {
            tokio::time::sleep(wait).await;
        }
    }
}

impl<S> SizedStream<S> {
    pub(super) fn new(stream: S, expected: u64, pace: Pace) -> Self {
        Self { stream, expected, checked: false, pace }
    }

    fn check(&mut self, header: &[u8]) -> io::Result<()> {
        if self.checked {
            return Ok(());
        }
        self.checked = true;
        // The header is the first thing that is read, at once. Should that ever change, nothing passes.
        let claimed = <[u8; HEADER_BYTES]>::try_from(header).map_err(io::Error::other)?;
        let claimed = u64::from_le_bytes(claimed);
        if claimed == self.expected {
            return Ok(());
        }
        Err(io::Error::other(WrongSize { claimed: quantities::Bytes::new(claimed) }))
    }
}

impl<S: BlobStream> BlobStream for SizedStream<S> {
    async fn recv_bytes(&mut self, len: usize) -> io::Result<Bytes> {
        let bytes = self.stream.recv_bytes(len).await?;
        self.check(&bytes)?;
        self.pace.keep(bytes.len()).await;
        Ok(bytes)
    }

    async fn recv_bytes_exact(&mut self, len: usize) -> io::Result<Bytes> {
        let bytes = self.stream.recv_bytes_exact(len).await?;
        self.check(&bytes)?;
        self.pace.keep(bytes.len()).await;
        Ok(bytes)
    }

    async fn recv_exact(&mut self, target: &mut [u8]) -> io::Result<()> {
        self.stream.recv_exact(target).await?;
        self.check(target)?;
        self.pace.keep(target.len()).await;
        Ok(())
    }

    fn stop(&mut self, code: VarInt) -> io::Result<()> {
        self.stream.stop(code)
    }

    fn id(&self) -> u64 {
        self.stream.id()
    }
}
