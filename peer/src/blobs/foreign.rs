//! Serving requests that came by another protocol than that of `iroh-blobs`, under the same rules: the same task admits
//! them, gives them their turn, holds them to the same limit and counts what they got.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use iroh_blobs::{
    protocol::{GetRequest, ObserveRequest},
    provider::{
        StreamPair,
        events::{ClientConnected, ConnectionClosed},
        handle_get,
    },
    util::SendStream,
};
use talka_core::ids::{BlobHash, PeerId};

use super::{BlobServer, from_hash, to_hash};
use crate::identity::endpoint_id;

/// This peer does not serve that one, or not this blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused;

/// Numbers of connections that are none: those of real ones are addresses in memory, of which none is in the upper half.
static NEXT: AtomicU64 = AtomicU64::new(1 << 63);

/// What stands for a connection while a request is served.
struct Guest<'a> {
    server: &'a BlobServer,
    number: u64,
}

impl<'a> Guest<'a> {
    async fn new(server: &'a BlobServer, peer: PeerId) -> Result<Self, Refused> {
        let endpoint_id = Some(endpoint_id(peer).map_err(|_| Refused)?);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let connected = || ClientConnected { connection_id: number, endpoint_id };
        server.events.client_connected(connected).await.map_err(|_| Refused)?;
        Ok(Self { server, number })
    }

    fn streams<W: SendStream>(&self, writer: W) -> StreamPair<Bytes, W> {
        // The request was read already.
        StreamPair::new(self.number, Bytes::new(), writer, self.server.events.clone())
    }

    async fn end(self) {
        let closed = || ConnectionClosed { connection_id: self.number };
        // An error means that nobody counts any more.
        self.server.events.connection_closed(closed).await.ok();
    }
}

impl BlobServer {
    /// Writes the answer to a request of `peer`. A failure is told to the writer, by a reset. Run it to its end: the books
    /// are closed there.
    pub(crate) async fn answer(
        &self,
        peer: PeerId,
        request: GetRequest,
        writer: impl SendStream,
    ) -> Result<(), Refused> {
        let guest = Guest::new(self, peer).await?;
        let discarded = self.discards.of(from_hash(request.hash));
        tokio::select! {
            served = handle_get(guest.streams(writer), self.store.clone(), request) => {
                if let Err(error) = served {
                    tracing::debug!(peer = %peer.short(), %error, "a request was not served");
                }
            }
            () = discarded => {}
        }
        guest.end().await;
        Ok(())
    }

    /// Whether `peer` may learn how much of a blob is here.
    pub(crate) async fn admits(&self, peer: PeerId, hash: BlobHash) -> Result<(), Refused> {
        let guest = Guest::new(self, peer).await?;
        let request = || ObserveRequest::new(to_hash(hash));
        let admitted = guest.streams(Nowhere).observe_request(request).await;
        guest.end().await;
        admitted.map(drop).map_err(|_| Refused)
    }
}

/// Takes everything and keeps nothing.
pub(crate) struct Nowhere;

impl SendStream for Nowhere {
    async fn send_bytes(&mut self, _bytes: Bytes) -> std::io::Result<()> {
        Ok(())
    }

    async fn send(&mut self, _buffer: &[u8]) -> std::io::Result<()> {
        Ok(())
    }

    async fn sync(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    fn reset(&mut self, _code: iroh::endpoint::VarInt) -> std::io::Result<()> {
        Ok(())
    }

    async fn stopped(&mut self) -> std::io::Result<Option<iroh::endpoint::VarInt>> {
        std::future::pending().await
    }

    fn id(&self) -> u64 {
        0
    }
}
