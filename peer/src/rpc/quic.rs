//! HTTP/2 connections of peers: one per QUIC bidirectional stream.

use std::io;

use iroh::{
    endpoint::{Connection, RecvStream, SendStream, VarInt},
    protocol::{AcceptError, ProtocolHandler},
};
use talka_core::limits;
use tokio::{
    io::Join,
    sync::mpsc::{self, Receiver, Sender},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{
    Caller,
    stream::{GuardedStream, Remote},
};
use crate::{
    connections::{ConnectionLimits, remote_ip},
    identity::peer_id,
};

/// A QUIC stream, both ways, as one.
pub(super) type QuicStream = Join<RecvStream, SendStream>;

/// What the server gets; it keeps nothing beside the stream, as the connection's task holds its permit.
type Incoming = Result<GuardedStream<QuicStream, ()>, io::Error>;

/// Accepts gRPC connections of peers: register it for [`ALPN`](super::ALPN), and give the other half to
/// [`Server::serve_peers`](super::Server::serve_peers).
#[derive(Debug, Clone)]
pub struct PeerHandler {
    streams: Sender<Incoming>,
    connections: ConnectionLimits,
    cut: CancellationToken,
}

/// The streams that a [`PeerHandler`] accepted, for the server.
pub struct PeerStreams {
    pub(super) streams: ReceiverStream<Incoming>,
    pub(super) cut: CancellationToken,
}

impl std::fmt::Debug for PeerStreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PeerStreams")
    }
}

impl PeerHandler {
    /// A handler that counts its connections in `connections`, and the streams that it will accept.
    pub fn new(connections: ConnectionLimits) -> (Self, PeerStreams) {
        let (streams, accepted): (_, Receiver<Incoming>) = mpsc::channel(limits::ACCEPT_QUEUE_MAX);
        let cut = CancellationToken::new();
        let handler = Self { streams, connections, cut: cut.clone() };
        (handler, PeerStreams { streams: ReceiverStream::new(accepted), cut })
    }
}

impl ProtocolHandler for PeerHandler {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let Ok(_permit) = self.connections.admit_or_close(&connection) else { return Ok(()) };
        let peer = peer_id(connection.remote_id());
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(limits::GRPC_STREAMS_MAX));
        let mut next = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, connection.accept_bi()).await;
        loop {
            let Ok(accepted) = next else {
                connection.close(VarInt::from_u32(1), b"no request came");
                break;
            };
            // An error here is how a connection ends.
            let Ok((send, receive)) = accepted else { break };
            let stream = tokio::io::join(receive, send);
            let path = connection.clone();
            let remote = Remote::new(move || remote_ip(&path));
            let stream = GuardedStream::new(stream, (Caller::Peer(peer), remote), self.cut.clone(), ());
            if self.streams.send(Ok(stream)).await.is_err() {
                break;
            }
            next = Ok(connection.accept_bi().await);
        }
        Ok(())
    }
}
