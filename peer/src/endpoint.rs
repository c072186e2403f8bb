//! The peer's place on the network: one UDP socket, one key, every protocol on it.
//!
//! It contacts nobody by itself: no relay unless one is named, no DNS, no address publishing, no port mapping.
//! A [private](Privacy) one shows its address to its relay or its coordinator only.
//! A grid has to work on a LAN without any host outside it. The only addresses it dials are those of the
//! [`PeerAddr`]s it is given.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use iroh::{
    Endpoint, EndpointAddr,
    address_lookup::MemoryLookup,
    endpoint::{
        BindOpts, Connection, NetReportConfig, PortmapperConfig, QuicTransportConfig, VarInt, presets,
    },
    protocol::{IncomingFilterOutcome, Router, RouterBuilder},
};
use talka_core::{ids::PeerId, limits};

use crate::{
    Cause,
    address::PeerAddr,
    connections::ConnectionLimits,
    identity::{Identity, endpoint_id, peer_id},
    port,
};
pub use crate::{
    port::{PORT_FILE, PortError},
    reach::{ParseRelayError, Privacy, Relay},
};

/// What an endpoint is made from.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// The peer's key.
    pub identity: Identity,
    /// UDP address to listen on; port 0 picks a free one. `0.0.0.0` stands for every interface, IPv6 included
    /// where there is any.
    pub listen: SocketAddr,
    /// The relay.
    pub relay: Relay,
    /// Who may learn where it is.
    pub privacy: Privacy,
}

impl EndpointConfig {
    /// Every interface, any port, no relay.
    pub fn new(identity: Identity) -> Self {
        let listen = (Ipv4Addr::UNSPECIFIED, 0).into();
        Self { identity, listen, relay: Relay::Disabled, privacy: Privacy::Open }
    }

    /// This machine only.
    #[must_use]
    pub fn on_loopback(mut self) -> Self {
        self.listen = (Ipv4Addr::LOCALHOST, 0).into();
        self
    }
}

/// The endpoint can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there. Stop that, or choose another port.
    #[error("UDP port {} of {} is taken: stop the program that uses it, or choose another port", address.port(), address.ip())]
    PortTaken {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The port that this peer's tickets name is taken.
    #[error(
        "UDP port {port}, which this peer's tickets name, is taken: is the peer running already? If not, stop the \
         program that uses the port, or remove {file} to use another one (old tickets then stop working)"
    )]
    OwnPortTaken {
        /// The port.
        port: u16,
        /// Where it is written.
        file: String,
    },
    /// The file that keeps the port is of no use.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The socket can't be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        source: Cause,
    },
}

/// A connection to a peer could not be made. Worth a retry, except when the peer is not who it should be.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The connection would show this peer's address.
    #[error("this peer is private and deals with its coordinator alone, not with {}", peer.short())]
    Private {
        /// The other peer.
        peer: PeerId,
    },
    /// Nothing says where the peer is.
    #[error("no address of peer {} is known", peer.short())]
    NoAddress {
        /// The peer.
        peer: PeerId,
    },
    /// No answer in time.
    #[error("{address} did not answer within {} s", limits::CONNECT_TIMEOUT.as_secs())]
    Timeout {
        /// The peer.
        address: PeerAddr,
    },
    /// The peer refused, or somebody else answered.
    #[error("cannot connect to {address}")]
    Refused {
        /// The peer.
        address: PeerAddr,
        /// Why.
        source: Cause,
    },
}

/// A bound endpoint. Clones share the socket, which is free again when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct PeerEndpoint {
    endpoint: Endpoint,
    lookup: MemoryLookup,
    relay: Relay,
    privacy: Privacy,
}

impl PeerEndpoint {
    /// Binds the socket.
    pub async fn bind(config: EndpointConfig) -> Result<Self, BindError> {
        let lookup = MemoryLookup::new();
        let listen = config.listen;
        let failed = |source: Cause| BindError::Listen { address: listen, source };
        // Which relay is nearest is found out by asking it for an empty page.
        let mut net_report = NetReportConfig::minimal();
        net_report.https_probes = config.relay.url().is_some();
        let mut builder = Endpoint::builder(presets::Minimal)
            .secret_key(config.identity.secret_key())
            .transport_config(transport())
            .relay_mode(config.relay.mode())
            .clear_address_lookup()
            .address_lookup(lookup.clone())
            .portmapper_config(PortmapperConfig::Disabled)
            .net_report_config(net_report)
            .clear_ip_transports();
        if config.privacy != Privacy::RelayOnly {
            builder = builder.bind_addr(listen).map_err(|error| failed(error.into()))?;
            if listen.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
                // A host without IPv6 is no reason to fail.
                let every_ipv6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, listen.port()));
                builder = builder
                    .bind_addr_with_opts(every_ipv6, BindOpts::default().set_is_required(false))
                    .map_err(|error| failed(error.into()))?;
            }
        }
        let endpoint = builder.bind().await.map_err(|error| {
            if is_taken(&error) { BindError::PortTaken { address: listen } } else { failed(error.into()) }
        })?;
        Ok(Self { endpoint, lookup, relay: config.relay, privacy: config.privacy })
    }

    /// Binds the port that `data_dir` remembers, unless `config` asks for a certain one, and remembers the port
    /// that it got. A coordinator does this, so that its tickets outlive a restart.
    pub async fn bind_same_port(mut config: EndpointConfig, data_dir: &Path) -> Result<Self, BindError> {
        let remembered = port::load(data_dir)?;
        let own = remembered.filter(|_| config.listen.port() == 0);
        if let Some(port) = own {
            config.listen.set_port(port);
        }
        let endpoint = Self::bind(config).await.map_err(|error| match (error, own) {
            (BindError::PortTaken { .. }, Some(port)) => {
                let file = data_dir.join(PORT_FILE).display().to_string();
                BindError::OwnPortTaken { port, file }
            }
            (error, _) => error,
        })?;
        let bound = endpoint.bound().first().map(SocketAddr::port);
        if let Some(port) = bound.filter(|_| bound != remembered) {
            port::store(data_dir, port)?;
        }
        Ok(endpoint)
    }

    /// Who may learn where this peer is.
    pub fn privacy(&self) -> Privacy {
        self.privacy
    }

    /// This peer.
    pub fn peer_id(&self) -> PeerId {
        peer_id(self.endpoint.id())
    }

    /// The addresses of its sockets; the first is the one asked for.
    pub fn bound(&self) -> Vec<SocketAddr> {
        self.endpoint.bound_sockets()
    }

    /// Where others reach it: the address that it listens on, or those of all interfaces, loopback last, for
    /// peers on the same machine. At most [`limits::TICKET_ADDRESSES_MAX`].
    pub fn address(&self) -> PeerAddr {
        let bound = self.bound();
        let loopback = bound.iter().filter_map(|address| match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Some((Ipv4Addr::LOCALHOST, address.port()).into()),
            IpAddr::V6(ip) if ip.is_unspecified() => Some((Ipv6Addr::LOCALHOST, address.port()).into()),
            _ => None,
        });
        let loopback: BTreeSet<SocketAddr> = loopback.collect();
        let room = limits::TICKET_ADDRESSES_MAX.saturating_sub(loopback.len());
        let direct = self.endpoint.addr().ip_addrs().copied().collect::<BTreeSet<_>>();
        let direct =
            direct.difference(&loopback).copied().take(room).chain(loopback.iter().copied()).collect();
        PeerAddr { peer: self.peer_id(), direct, relay: self.relay.url().cloned() }
    }

    /// Waits until the relay is reached, at most so long; returns whether it is. Without a relay nothing is waited for.
    pub async fn reaches_relay(&self, at_most: Duration) -> bool {
        self.relay == Relay::Disabled || tokio::time::timeout(at_most, self.endpoint.online()).await.is_ok()
    }

    /// Remembers where a peer is, for those who name it without addresses. Replaces what was known. The caller
    /// bounds how many it [`forget`](Self::forget)s.
    pub fn learn(&self, address: &PeerAddr) {
        // A name that is no key can't be dialed, so nothing is lost.
        if let Ok(address) = EndpointAddr::try_from(address) {
            self.lookup.set_endpoint_info(address);
        }
    }

    /// Forgets what [`learn`](Self::learn) remembered.
    pub fn forget(&self, peer: PeerId) {
        if let Ok(id) = endpoint_id(peer) {
            self.lookup.remove_endpoint_info(id);
        }
    }

    /// Connects to a peer. Both sides are authenticated: it is that peer, or an error.
    pub async fn connect(&self, address: &PeerAddr, alpn: &[u8]) -> Result<Connection, ConnectError> {
        if matches!(self.privacy, Privacy::Only(peer) if peer != address.peer) {
            return Err(ConnectError::Private { peer: address.peer });
        }
        let refused = |source: Cause| ConnectError::Refused { address: address.clone(), source };
        let target = EndpointAddr::try_from(address).map_err(|error| refused(error.into()))?;
        if !address.is_dialable() && self.lookup.get_endpoint_info(target.id).is_none() {
            return Err(ConnectError::NoAddress { peer: address.peer });
        }
        match tokio::time::timeout(limits::CONNECT_TIMEOUT, self.endpoint.connect(target, alpn)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(refused(error.into())),
            Err(_) => Err(ConnectError::Timeout { address: address.clone() }),
        }
    }

    /// Starts to accept connections: add the protocols with `accept`, then `spawn`, and keep what it returns:
    /// dropping it stops the protocols.
    ///
    /// Above half of [`limits::CONNECTIONS_MAX`], strangers must show that their address is real before any
    /// cryptography is done for them; above all of it, or above an address's share, they are turned away. A peer that
    /// deals with one other alone answers nobody, that one neither: it dials.
    pub fn router(&self, connections: &ConnectionLimits) -> RouterBuilder {
        let connections = connections.clone();
        let answers_nobody = matches!(self.privacy, Privacy::Only(_));
        Router::builder(self.endpoint.clone()).incoming_filter(Arc::new(move |incoming| {
            let address = match incoming.remote_addr() {
                iroh::endpoint::IncomingAddr::Ip(address) => Some(address.ip()),
                _ => None,
            };
            if answers_nobody {
                IncomingFilterOutcome::Ignore
            } else if connections.is_full_for(address) {
                IncomingFilterOutcome::Reject
            } else if connections.is_busy() && !incoming.remote_addr_validated() {
                IncomingFilterOutcome::Retry
            } else {
                IncomingFilterOutcome::Accept
            }
        }))
    }

    /// Says goodbye to every connection and closes the socket when the last clone is gone.
    pub async fn close(&self) {
        self.endpoint.close().await;
    }
}

/// Bounds of one QUIC connection. The library's own allow unlimited buffering for a peer that sends on many
/// streams which nobody reads yet.
fn transport() -> QuicTransportConfig {
    let idle_millis = u32::try_from(limits::CONNECTION_IDLE_MAX.as_millis()).unwrap_or(u32::MAX);
    QuicTransportConfig::builder()
        .max_concurrent_bidi_streams(VarInt::from_u32(limits::QUIC_STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(limits::QUIC_STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(limits::QUIC_CONNECTION_WINDOW_BYTES))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(VarInt::from_u32(idle_millis).into()))
        .keep_alive_interval(limits::CONNECTION_HEARTBEAT)
        .default_path_keep_alive_interval(limits::CONNECTION_HEARTBEAT)
        .build()
}

fn is_taken(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
            return true;
        }
        cause = error.source();
    }
    false
}
