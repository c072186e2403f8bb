//! A relay of our own, and what others see of a peer that is private.

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use iroh::{
    TransportAddr,
    endpoint::Connection,
    protocol::{AcceptError, ProtocolHandler},
};
use talka_core::ids::PeerId;
use talka_peer::{
    Router,
    address::PeerAddr,
    connections::ConnectionLimits,
    endpoint::{ConnectError, EndpointConfig, PeerEndpoint, Privacy, Relay},
    identity::Identity,
    relay::{Guests, RelayServer, RelayServerConfig},
};

use crate::peers::{DEADLINE, endpoint, eventually, noise};

const ALPN: &[u8] = b"mirror";
/// Some hundred packets.
const SENT_BYTES: u64 = 256 << 10;

async fn relay(guests: Guests) -> RelayServer {
    let bytes_per_second = NonZeroU32::new(64 << 20).expect("more than none");
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = RelayServerConfig { listen, tls: None, host: None, guests, bytes_per_second };
    RelayServer::start(config).await.expect("a free port")
}

async fn peer_at(relay: &RelayServer, privacy: Privacy) -> PeerEndpoint {
    let relay = Relay::Url(relay.url().clone());
    let config =
        EndpointConfig { relay, privacy, ..EndpointConfig::new(Identity::ephemeral()).on_loopback() };
    let peer = PeerEndpoint::bind(config).await.expect("bound");
    assert!(peer.reaches_relay(DEADLINE).await, "the relay answers");
    peer
}

/// Sends back what comes, and remembers who connected.
#[derive(Debug, Clone, Default)]
struct Mirror(Arc<Mutex<Vec<Connection>>>);

impl ProtocolHandler for Mirror {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        self.0.lock().expect("no panic").push(connection.clone());
        while let Ok((mut send, mut receive)) = connection.accept_bi().await {
            tokio::io::copy(&mut receive, &mut send).await?;
            send.finish()?;
        }
        Ok(())
    }
}

impl Mirror {
    fn at(&self, endpoint: &PeerEndpoint) -> Router {
        endpoint.router(&ConnectionLimits::default()).accept(ALPN, self.clone()).spawn()
    }

    /// The connection of a peer.
    fn seen(&self, peer: &PeerEndpoint) -> Connection {
        let connections = self.0.lock().expect("no panic");
        let of = |connection: &&Connection| PeerId::new(*connection.remote_id().as_bytes()) == peer.peer_id();
        connections.iter().find(of).expect("it connected").clone()
    }
}

async fn exchange(connection: &Connection) {
    let (mut send, mut receive) = connection.open_bi().await.expect("open");
    let payload = noise(SENT_BYTES);
    let (written, back) = tokio::join!(
        async {
            send.write_all(&payload).await.expect("open");
            send.finish().expect("open");
        },
        receive.read_to_end(usize::try_from(SENT_BYTES).expect("small"))
    );
    let () = written;
    assert_eq!(back.expect("all of it"), payload);
}

/// Whether the other side is seen at an address of its own.
fn is_seen(connection: &Connection) -> bool {
    let paths = connection.paths();
    assert!(!paths.is_empty(), "connected somehow");
    paths.iter().any(|path| !matches!(path.remote_addr(), TransportAddr::Relay(_)))
}

fn by_relay(peer: &PeerEndpoint) -> PeerAddr {
    PeerAddr { direct: vec![], ..peer.address() }
}

#[tokio::test]
async fn others_see_a_private_peer_at_the_relay_alone_and_an_open_one_at_its_address() {
    let relay = relay(Guests::Anybody).await;
    let (server, private) = tokio::join!(peer_at(&relay, Privacy::Open), peer_at(&relay, Privacy::RelayOnly));
    let mirror = Mirror::default();
    let _router = mirror.at(&server);
    assert_eq!((private.bound(), private.address().direct), (vec![], vec![]), "it has no socket");

    // It may know where the other one is.
    let dialed = private.connect(&server.address(), ALPN).await.expect("connected");
    exchange(&dialed).await;

    // An open peer that begins at the relay finds the direct way, and so the server had time to find that of the private
    // one, which was there before.
    let open = peer_at(&relay, Privacy::Open).await;
    let connection = open.connect(&by_relay(&server), ALPN).await.expect("connected");
    eventually("a direct way to the open peer", || async {
        exchange(&connection).await;
        exchange(&dialed).await;
        (is_seen(&mirror.seen(&open)) && is_seen(&connection)).then_some(())
    })
    .await;
    assert!(!is_seen(&mirror.seen(&private)) && !is_seen(&dialed));
}

#[tokio::test]
async fn a_private_peer_is_reached_through_the_relay() {
    let relay = relay(Guests::Anybody).await;
    let (private, other) = tokio::join!(peer_at(&relay, Privacy::RelayOnly), peer_at(&relay, Privacy::Open));
    let mirror = Mirror::default();
    let _router = mirror.at(&private);
    let connection = other.connect(&private.address(), ALPN).await.expect("connected");
    for _ in 0..8 {
        exchange(&connection).await;
    }
    assert!(!is_seen(&connection) && !is_seen(&mirror.seen(&other)));
}

#[tokio::test]
async fn a_peer_that_deals_with_one_other_dials_nobody_else_and_answers_nobody() {
    let (coordinator, stranger) = tokio::join!(endpoint(), endpoint());
    let mirror = Mirror::default();
    let _routers = (mirror.at(&coordinator), mirror.at(&stranger));
    let privacy = Privacy::Only(coordinator.peer_id());
    let config = EndpointConfig { privacy, ..EndpointConfig::new(Identity::ephemeral()).on_loopback() };
    let private = PeerEndpoint::bind(config).await.expect("bound");
    let _router = mirror.at(&private);

    exchange(&private.connect(&coordinator.address(), ALPN).await.expect("connected")).await;
    let error = private.connect(&stranger.address(), ALPN).await.expect_err("a stranger");
    assert!(matches!(error, ConnectError::Private { .. }), "{error:?}");
    let error = stranger.connect(&private.address(), ALPN).await.expect_err("no answer");
    assert!(matches!(error, ConnectError::Timeout { .. }), "{error:?}");
}

#[tokio::test]
async fn a_relay_with_a_token_carries_only_for_who_knows_it() {
    let relay = relay(Guests::Token("open-sesame-1".into())).await;
    let guest = peer_at(&relay, Privacy::RelayOnly).await;
    let url = relay.url().to_string();
    assert!(!format!("{}", guest.address()).contains("sesame"), "a token is not shown");

    let without = Relay::Url(url.split('?').next().expect("a part").parse().expect("a URL"));
    let config = EndpointConfig {
        relay: without,
        privacy: Privacy::RelayOnly,
        ..EndpointConfig::new(Identity::ephemeral())
    };
    let stranger = PeerEndpoint::bind(config).await.expect("bound");
    assert!(!stranger.reaches_relay(Duration::from_secs(1)).await);
    relay.stop().await;
}
