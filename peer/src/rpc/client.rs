//! A gRPC channel to a peer.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use http::Uri;
use hyper_util::rt::TokioIo;
use iroh::endpoint::Connection;
use talka_core::limits;
use tonic::transport::{Channel, Endpoint};

use super::{ALPN, quic::QuicStream};
use crate::{address::PeerAddr, endpoint::PeerEndpoint};

/// Every channel names this host; it is never resolved.
const AUTHORITY: &str = "http://peer.talka.invalid";

/// A channel to the peer at `address`. It connects when it is first used, and again after the connection broke;
/// while the peer is away a call fails as `Unavailable` within [`limits::CONNECT_TIMEOUT`].
///
/// Calls share one QUIC stream, so bulk and control want a channel each.
pub fn channel(endpoint: PeerEndpoint, address: PeerAddr) -> Channel {
    dial(endpoint, address).0
}

/// Such a channel, and what tells of the connection below it.
pub(super) fn dial(endpoint: PeerEndpoint, address: PeerAddr) -> (Channel, Arc<Dialer>) {
    let dialer = Arc::new(Dialer { endpoint, address, last: Mutex::default() });
    (channel_of(dialer.clone()), dialer)
}

fn channel_of(dialer: Arc<Dialer>) -> Channel {
    Endpoint::from_static(AUTHORITY)
        .timeout(limits::REQUEST_TIMEOUT)
        .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(limits::HTTP2_HEADER_BYTES_MAX)
        .http2_keep_alive_interval(limits::KEEPALIVE_INTERVAL)
        .keep_alive_timeout(limits::KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let dialer = Arc::clone(&dialer);
            async move { dialer.open().await.map(TokioIo::new) }
        }))
}

/// Opens streams on one connection as long as it lasts.
#[derive(Debug)]
pub(super) struct Dialer {
    endpoint: PeerEndpoint,
    address: PeerAddr,
    last: Mutex<Option<Connection>>,
}

impl Dialer {
    /// Bytes of the datagrams that the newest connection has sent and received.
    pub(super) fn wire_bytes(&self) -> u64 {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let stats = last.as_ref().map(Connection::stats);
        stats.map_or(0, |stats| stats.udp_tx.bytes + stats.udp_rx.bytes)
    }

    async fn open(&self) -> io::Result<QuicStream> {
        let opened = tokio::time::timeout(limits::CONNECT_TIMEOUT, async {
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(connection) = last.filter(|connection| connection.close_reason().is_none())
                && let Ok(stream) = open_on(&connection).await
            {
                return Ok((connection, stream));
            }
            let connection = self.endpoint.connect(&self.address, ALPN).await.map_err(io::Error::other)?;
            let stream = open_on(&connection).await?;
            Ok::<_, io::Error>((connection, stream))
        });
        let (connection, stream) = opened.await??;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        Ok(stream)
    }
}

async fn open_on(connection: &Connection) -> io::Result<QuicStream> {
    let (send, receive) = connection.open_bi().await?;
    Ok(tokio::io::join(receive, send))
}
