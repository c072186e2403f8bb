//! Carrying the packets of peers that can't reach each other.
//!
//! A relay sees which keys talk to each other, from which addresses and how much, and nothing of what they say: packets
//! are encrypted from peer to peer. It passes them on within memory and keeps nothing. Whoever connects has shown that
//! the key is its own.
//!
//! With TLS it also tells peers their public addresses, by QUIC on [`limits::RELAY_QUIC_PORT`]; that is how two peers
//! behind NAT find a direct way.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use iroh::{EndpointId, RelayUrl};
use iroh_relay::server::{
    Access, AccessControl, CertConfig, ClientRateLimit, ClientRequest, ConnectionId, QuicConfig, RelayConfig,
    Server, ServerConfig, TlsConfig,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use talka_core::{ids::PeerId, limits};

use crate::{Cause, identity::peer_id, rpc::Tls};

/// What a relay's owner decides.
#[derive(Debug, Clone)]
pub struct RelayServerConfig {
    /// Where to listen (TCP).
    pub listen: SocketAddr,
    /// Certificate and key; without them the relay speaks HTTP and does not tell public addresses.
    pub tls: Option<Tls>,
    /// Host name or address by which peers find it; that of `listen` unless set.
    pub host: Option<String>,
    /// Whose packets it carries.
    pub guests: Guests,
    /// Most bytes per second that it takes from one connection.
    pub bytes_per_second: NonZeroU32,
}

/// Whose packets a relay carries.
#[derive(Clone, Default)]
pub enum Guests {
    /// Everybody's.
    #[default]
    Anybody,
    /// Of who knows this word; it is a part of the relay's URL, and so of tickets.
    Token(String),
    /// Of these peers.
    Peers(BTreeSet<PeerId>),
}

impl std::fmt::Debug for Guests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anybody => f.write_str("Anybody"),
            Self::Token(_) => f.write_str("Token(…)"),
            Self::Peers(peers) => f.debug_tuple("Peers").field(&peers.len()).finish(),
        }
    }
}

/// A relay can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Nobody would know where to find it.
    #[error("the relay listens on every address: say by which name or address peers reach it (--host)")]
    NoHost,
    /// The host does not make a URL.
    #[error("{host:?} is no host name and no address")]
    Host {
        /// What was given.
        host: String,
    },
    /// The token can't stand in a URL, or can be guessed.
    #[error(
        "a relay's token has {} to {} letters, digits, `-` and `_`",
        limits::RELAY_TOKEN_CHARS_MIN,
        limits::RELAY_TOKEN_CHARS_MAX
    )]
    Token,
    /// The certificate or its key is of no use.
    #[error("the relay's certificate or its key can't be used")]
    Certificate(#[source] Cause),
    /// It can't listen.
    #[error("the relay can't listen on {address}, or for QUIC on port {}", limits::RELAY_QUIC_PORT)]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: Cause,
    },
}

/// A relay at work, until it is dropped.
#[derive(Debug)]
pub struct RelayServer {
    server: Server,
    url: RelayUrl,
}

impl RelayServer {
    /// Starts it.
    pub async fn start(config: RelayServerConfig) -> Result<Self, RelayError> {
        let RelayServerConfig { listen, tls, host, guests, bytes_per_second } = config;
        if let Guests::Token(token) = &guests {
            check_token(token)?;
        }
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut rate = ClientRateLimit::new(bytes_per_second);
        rate.max_burst_bytes = Some(bytes_per_second);
        let mut relay = RelayConfig::new(listen);
        relay.limits.client_rx = Some(rate);
        relay.key_cache_capacity = Some(limits::RELAY_CONNECTIONS_MAX);
        relay.access = Arc::new(Door { guests: guests.clone(), inside: Mutex::default() });
        let mut settings = ServerConfig::default();
        if let Some(tls) = tls {
            // The library answers a question of browsers in the clear, too. No peer asks it, so nobody has to get there.
            relay.http_bind_addr = (Ipv4Addr::LOCALHOST, 0).into();
            let cert = CertConfig::Manual { server_config: server_config(&tls)? };
            relay.tls = Some(TlsConfig::new(listen, cert));
            settings.quic = Some(QuicConfig::new((listen.ip(), limits::RELAY_QUIC_PORT)));
        }
        settings.relay = Some(relay);
        let failed = |source: Cause| RelayError::Listen { address: listen, source };
        // Before it listens: a relay that nobody can name is of no use.
        let host = host_of(listen.ip(), host)?;
        let server = Server::spawn(settings).await.map_err(|error| failed(error.into()))?;
        let bound = server.https_addr().or(server.http_addr()).unwrap_or(listen);
        let url = url(scheme, &host, bound.port(), &guests)?;
        Ok(Self { server, url })
    }

    /// What peers are told, the token included.
    pub fn url(&self) -> &RelayUrl {
        &self.url
    }

    /// Says goodbye to everybody and stops listening.
    pub async fn stop(self) {
        if let Err(error) = self.server.shutdown().await {
            tracing::debug!(%error, "the relay did not stop in order");
        }
    }
}

fn check_token(token: &str) -> Result<(), RelayError> {
    let lengths = limits::RELAY_TOKEN_CHARS_MIN..=limits::RELAY_TOKEN_CHARS_MAX;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if lengths.contains(&token.len()) && token.bytes().all(plain) { Ok(()) } else { Err(RelayError::Token) }
}

fn host_of(listen: IpAddr, host: Option<String>) -> Result<String, RelayError> {
    match host {
        Some(host) => match host.parse::<IpAddr>() {
            Ok(IpAddr::V6(v6)) => Ok(format!("[{v6}]")),
            _ => Ok(host),
        },
        None if listen.is_unspecified() => Err(RelayError::NoHost),
        None => match listen {
            IpAddr::V4(v4) => Ok(v4.to_string()),
            IpAddr::V6(v6) => Ok(format!("[{v6}]")),
        },
    }
}

fn url(scheme: &str, host: &str, port: u16, guests: &Guests) -> Result<RelayUrl, RelayError> {
    let wrong = || RelayError::Host { host: host.chars().take(80).collect() };
    if host.contains(['/', '?', '#', '@', ' ']) {
        return Err(wrong());
    }
    let token = match guests {
        Guests::Token(token) => format!("?token={token}"),
        Guests::Anybody | Guests::Peers(_) => String::new(),
    };
    let url: RelayUrl = format!("{scheme}://{host}:{port}/{token}").parse().map_err(|_| wrong())?;
    if url.has_host() { Ok(url) } else { Err(wrong()) }
}

fn server_config(tls: &Tls) -> Result<rustls::ServerConfig, RelayError> {
    let wrong = |error: Cause| RelayError::Certificate(error);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&tls.certificate_pem).collect();
    let chain = chain.map_err(|error| wrong(error.into()))?;
    let key = PrivateKeyDer::from_pem_slice(&tls.key_pem).map_err(|error| wrong(error.into()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| wrong(error.into()))
}

/// Lets guests in, as many as there is room for.
#[derive(Debug)]
struct Door {
    guests: Guests,
    /// Connections of each key.
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    all: usize,
    peers: HashMap<PeerId, usize>,
}

impl Door {
    fn admit(&self, peer: PeerId, token: Option<&str>) -> Result<(), &'static str> {
        let known = match &self.guests {
            Guests::Anybody => true,
            Guests::Peers(peers) => peers.contains(&peer),
            // Hashes compare in constant time.
            Guests::Token(word) => {
                token.is_some_and(|token| blake3::hash(token.as_bytes()) == blake3::hash(word.as_bytes()))
            }
        };
        if !known {
            return Err("this relay does not know you");
        }
        let mut inside = self.inside();
        if inside.all >= limits::RELAY_CONNECTIONS_MAX {
            return Err("this relay is full: try again later");
        }
        let own = inside.peers.entry(peer).or_default();
        if *own >= limits::RELAY_CONNECTIONS_PER_KEY_MAX {
            return Err("too many connections of one peer");
        }
        *own += 1;
        inside.all += 1;
        Ok(())
    }

    fn leave(&self, peer: PeerId) {
        let mut inside = self.inside();
        inside.all = inside.all.saturating_sub(1);
        if let Some(own) = inside.peers.get_mut(&peer) {
            *own -= 1;
            if *own == 0 {
                inside.peers.remove(&peer);
            }
        }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // Changed by whole statements, so it holds even after a panic elsewhere.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AccessControl for Door {
    async fn on_connect(&self, request: &ClientRequest) -> Access {
        let peer = peer_id(request.endpoint_id());
        match self.admit(peer, request.auth_token().as_deref()) {
            Ok(()) => Access::Allow,
            Err(reason) => {
                tracing::debug!(peer = %peer.short(), reason, "a peer was turned away");
                Access::Deny { reason: Some(reason.to_owned()) }
            }
        }
    }

    fn on_disconnect(&self, endpoint: EndpointId, _connection: ConnectionId) {
        self.leave(peer_id(endpoint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(guests: Guests) -> Door {
        Door { guests, inside: Mutex::default() }
    }

    fn peer(number: usize) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        PeerId::new(bytes)
    }

    #[test]
    fn only_guests_are_let_in() {
        assert_eq!(door(Guests::Anybody).admit(peer(1), None), Ok(()));
        let listed = door(Guests::Peers([peer(1)].into()));
        assert!(listed.admit(peer(1), None).is_ok() && listed.admit(peer(2), None).is_err());
        let secret = door(Guests::Token("open-sesame-1".into()));
        assert!(secret.admit(peer(1), Some("open-sesame-1")).is_ok());
        for wrong in [None, Some(""), Some("open"), Some("open-sesame-1 ")] {
            assert!(secret.admit(peer(1), wrong).is_err(), "{wrong:?}");
        }
        assert!(!format!("{secret:?}").contains("sesame"));
    }

    #[test]
    fn a_full_relay_turns_away_and_who_leaves_makes_room() {
        let door = door(Guests::Anybody);
        for _ in 0..limits::RELAY_CONNECTIONS_PER_KEY_MAX {
            door.admit(peer(0), None).expect("its share");
        }
        door.admit(peer(0), None).expect_err("more than its share");
        let rest = limits::RELAY_CONNECTIONS_MAX - limits::RELAY_CONNECTIONS_PER_KEY_MAX;
        for number in 1..=rest {
            door.admit(peer(number), None).expect("room");
        }
        door.admit(peer(rest + 1), None).expect_err("full");
        door.leave(peer(1));
        door.admit(peer(rest + 1), None).expect("room again");
        for _ in 0..limits::RELAY_CONNECTIONS_PER_KEY_MAX {
            door.leave(peer(0));
        }
        assert!(!door.inside().peers.contains_key(&peer(0)), "nothing is remembered of who left");
    }

    #[test]
    fn a_relay_has_a_name_that_makes_a_url() {
        let any: IpAddr = Ipv4Addr::UNSPECIFIED.into();
        assert!(matches!(host_of(any, None), Err(RelayError::NoHost)));
        for (listen, host, expected) in [
            ("127.0.0.1", None, "http://127.0.0.1:80/"),
            ("::1", None, "http://[::1]/"),
            ("0.0.0.0", Some("relay.example.org"), "http://relay.example.org/"),
            ("0.0.0.0", Some("2001:db8::7"), "http://[2001:db8::7]/"),
        ] {
            let host = host_of(listen.parse().expect("an address"), host.map(str::to_owned)).expect("a host");
            let url = url("http", &host, 80, &Guests::Anybody).expect(expected);
            assert_eq!(url.to_string().replace(":80/", "/"), expected.replace(":80/", "/"));
        }
        for host in ["", "a b", "a/b", "user@host", "host?x"] {
            assert!(url("http", host, 80, &Guests::Anybody).is_err(), "{host}");
        }
        let with_token =
            url("https", "r.example", 443, &Guests::Token("open-sesame-1".into())).expect("a url");
        assert!(with_token.to_string().ends_with("?token=open-sesame-1"), "{with_token}");
    }

    #[test]
    fn a_token_can_stand_in_a_url_and_can_not_be_guessed() {
        check_token("open-sesame_42").expect("fine");
        for token in ["", "short", "open sesame 42", "open&sesame&42", &"a".repeat(200)] {
            assert!(matches!(check_token(token), Err(RelayError::Token)), "{token}");
        }
    }
}
