//! The server: every limit of HTTP/2, at one place, for peers and tools alike.
//!
//! tonic's defaults are made for a friendly network: no bound on streams, on resets, on time or on
//! connections. Nothing else in this project may build a `tonic::transport::Server`.

use std::sync::Arc;

use talka_core::limits;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::{Routes, RoutesBuilder},
    transport::{Identity, Server as HttpServer, ServerTlsConfig, server::Connected},
};
use tonic_health::server::HealthReporter;

use super::{
    AccessTable, Roles,
    gate::Gate,
    quic::PeerStreams,
    stream::{Connection, GuardedStream},
    tcp,
};
use crate::connections::ConnectionLimits;

/// The server can't run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Certificate or key are of no use. Mend them.
    #[error("the TLS certificate or its key is unusable")]
    Tls(#[source] tonic::transport::Error),
    /// The HTTP server ended by itself.
    #[error("the gRPC server failed")]
    Http(#[from] tonic::transport::Error),
    /// A file descriptor set is of no use; this is a mistake in the program.
    #[error("the services cannot be described")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// How the TCP side is encrypted.
#[derive(Clone)]
pub struct Tls {
    /// The certificate chain, PEM.
    pub certificate_pem: Vec<u8>,
    /// Its private key, PEM.
    pub key_pem: Vec<u8>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls(…)")
    }
}

/// The standard services: health, and reflection over the services of these encoded `FileDescriptorSet`s. Add
/// one's own to what comes back.
pub fn standard_services(
    descriptors: &[&'static [u8]],
) -> Result<(RoutesBuilder, HealthReporter), ServeError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    for set in descriptors {
        reflection = reflection.register_encoded_file_descriptor_set(set);
    }
    let mut services = Routes::builder();
    services.add_service(health).add_service(reflection.build_v1()?);
    Ok((services, reporter))
}

/// Serves one set of services to peers and to tools. Clones share its limits.
#[derive(Clone)]
pub struct Server {
    services: Routes,
    gate: Gate,
    connections: ConnectionLimits,
}

impl Server {
    /// A server of `services`; `table` and `roles` say who may call them.
    pub fn new(
        services: Routes,
        table: AccessTable,
        roles: Arc<dyn Roles>,
        connections: ConnectionLimits,
    ) -> Self {
        Self { services: services.prepare(), gate: Gate::new(table, roles), connections }
    }

    /// Serves peers until `shutdown` is cancelled. Then requests in progress have [`limits::SHUTDOWN_GRACE`] to
    /// end; handlers of long streams watch the token themselves.
    pub async fn serve_peers(
        &self,
        incoming: PeerStreams,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError> {
        self.serve(hardened(), incoming.streams, incoming.cut, shutdown).await
    }

    /// Serves tools that connect to `listener`, likewise. Browsers may speak HTTP/1.
    pub async fn serve_tcp(
        &self,
        listener: TcpListener,
        tls: Option<Tls>,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError> {
        let cut = CancellationToken::new();
        let incoming = tcp::incoming(listener, tls.is_some(), self.connections.clone(), cut.clone());
        let mut http = hardened().accept_http1(true);
        if let Some(Tls { certificate_pem, key_pem }) = tls {
            let identity = Identity::from_pem(certificate_pem, key_pem);
            let config = ServerTlsConfig::new().identity(identity).timeout(limits::HANDSHAKE_TIMEOUT);
            http = http.tls_config(config).map_err(ServeError::Tls)?;
        }
        self.serve(http, incoming, cut, shutdown).await
    }

    async fn serve<T, K>(
        &self,
        http: HttpServer,
        incoming: impl Stream<Item = std::io::Result<GuardedStream<T, K>>>,
        cut: CancellationToken,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        K: Unpin + Send + 'static,
        GuardedStream<T, K>: Connected<ConnectInfo = Connection>,
    {
        // Whatever way this ends, no connection outlives it.
        let _cut = cut.clone().drop_guard();
        let grace = async {
            shutdown.cancelled().await;
            tokio::time::sleep(limits::SHUTDOWN_GRACE).await;
            cut.cancel();
        };
        let serving = http.layer(self.gate.clone()).serve_with_incoming_shutdown(
            self.services.clone(),
            incoming,
            shutdown.cancelled(),
        );
        let served = async {
            tokio::pin!(grace);
            tokio::pin!(serving);
            tokio::select! {
                served = &mut serving => served,
                // Connections that were cut end at once, so this does too.
                () = &mut grace => serving.await,
            }
        };
        Ok(served.await?)
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

/// An HTTP/2 server with every limit set.
///
/// The timeout runs until a handler returns its response; the stream inside a response may last as long as it
/// likes. So a handler of a long stream returns at once and works in the stream.
fn hardened() -> HttpServer {
    HttpServer::builder()
        .max_concurrent_streams(limits::HTTP2_STREAMS_MAX)
        .concurrency_limit_per_connection(limits::CONNECTION_REQUESTS_MAX)
        .load_shed(true)
        .timeout(limits::REQUEST_TIMEOUT)
        .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(limits::HTTP2_HEADER_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(limits::HTTP2_PENDING_RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(limits::HTTP2_LOCAL_RESETS_MAX))
        .http2_keepalive_interval(Some(limits::KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(limits::KEEPALIVE_TIMEOUT))
}
