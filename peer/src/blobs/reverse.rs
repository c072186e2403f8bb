//! Fetching from peers that can't be dialed: they make the connection, and serve on it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use iroh::{
    endpoint::{Connection, VarInt},
    protocol::{AcceptError, ProtocolHandler},
};
use talka_core::{ids::PeerId, limits};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::BlobServer;
use crate::{address::PeerAddr, connections::ConnectionLimits, endpoint::PeerEndpoint, identity::peer_id};

/// Names the protocol by which a peer offers its blobs on a connection that it made. Who accepts it opens streams,
/// as the dialing side does in [`ALPN`](super::ALPN).
pub const REVERSE_ALPN: &[u8] = b"talka/blobs-reverse/1";

/// Peers that offer their blobs on connections which they made: register it for [`REVERSE_ALPN`]. Clones share them.
///
/// One key may make several offers, each of another store: a person who submits two jobs at once does. Their number is
/// bounded as that of all connections of a key is.
#[derive(Debug, Clone, Default)]
pub struct ReverseProviders {
    providers: Arc<Mutex<HashMap<PeerId, Vec<Connection>>>>,
    arrived: Arc<Notify>,
    connections: ConnectionLimits,
}

impl ReverseProviders {
    /// None yet; their connections are counted in `connections`.
    pub fn new(connections: ConnectionLimits) -> Self {
        Self { connections, ..Self::default() }
    }

    /// Whether a peer offers its blobs now.
    pub fn contains(&self, peer: PeerId) -> bool {
        !self.offers(peer).is_empty()
    }

    /// The connections on which a peer offers its blobs now, the newest first.
    pub(crate) fn offers(&self, peer: PeerId) -> Vec<Connection> {
        let providers = self.providers();
        let offers = providers.get(&peer).into_iter().flatten().rev();
        offers.filter(|connection| connection.close_reason().is_none()).cloned().collect()
    }

    /// Waits until `deadline` for an offer that `is_new` has not seen: what a peer said on another connection may have
    /// been faster than its offer.
    pub(crate) async fn wait_for(
        &self,
        peer: PeerId,
        deadline: Instant,
        is_new: impl Fn(&Connection) -> bool,
    ) -> Option<Connection> {
        loop {
            // Listen before looking, so that an arrival in between is not missed.
            let arrived = self.arrived.notified();
            if let Some(connection) = self.offers(peer).into_iter().find(&is_new) {
                return Some(connection);
            }
            tokio::time::timeout_at(deadline, arrived).await.ok()?;
        }
    }

    fn insert(&self, peer: PeerId, connection: Connection) -> bool {
        let mut providers = self.providers();
        if providers.len() >= limits::REVERSE_PROVIDERS_MAX && !providers.contains_key(&peer) {
            return false;
        }
        providers.entry(peer).or_default().push(connection);
        drop(providers);
        self.arrived.notify_waiters();
        true
    }

    fn remove(&self, peer: PeerId, connection: &Connection) {
        let mut providers = self.providers();
        let Some(offers) = providers.get_mut(&peer) else { return };
        offers.retain(|offer| offer.stable_id() != connection.stable_id());
        if offers.is_empty() {
            providers.remove(&peer);
        }
    }

    fn providers(&self) -> MutexGuard<'_, HashMap<PeerId, Vec<Connection>>> {
        // Changed by whole statements, so it holds even after a panic elsewhere.
        self.providers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProtocolHandler for ReverseProviders {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let Ok(_permit) = self.connections.admit_or_close(&connection) else { return Ok(()) };
        let peer = peer_id(connection.remote_id());
        if self.insert(peer, connection.clone()) {
            tracing::debug!(peer = %peer.short(), "peer offers its blobs");
            connection.closed().await;
            self.remove(peer, &connection);
        } else {
            connection.close(VarInt::from_u32(2), b"too many peers offer their blobs: try again later");
        }
        Ok(())
    }
}

/// Offers the blobs of `server` to the peer at `to`, on a connection that it keeps up until `shutdown`.
pub async fn offer(endpoint: PeerEndpoint, to: PeerAddr, server: BlobServer, shutdown: CancellationToken) {
    let keep_up = async {
        let mut pause = limits::OFFER_PAUSE_MIN;
        loop {
            match endpoint.connect(&to, REVERSE_ALPN).await {
                Ok(connection) => {
                    let since = Instant::now();
                    server.serve(connection.clone()).await;
                    tracing::debug!(reason = ?connection.close_reason(), "offer of blobs ended");
                    // Who closes at once does not want the offer: that is no reason to hurry.
                    if since.elapsed() > limits::OFFER_PAUSE_MAX {
                        pause = limits::OFFER_PAUSE_MIN;
                    }
                }
                Err(error) => tracing::debug!(%error, "blobs cannot be offered"),
            }
            // Peers that lost the same coordinator must not all come back in the same moment.
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(limits::OFFER_PAUSE_MAX);
        }
    };
    tokio::select! {
        () = keep_up => {}
        () = shutdown.cancelled() => {}
    }
}
