//! Binding, tickets, and who answers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use iroh::{
    endpoint::Connection,
    protocol::{AcceptError, ProtocolHandler},
};
use talka_core::limits;
use talka_peer::{
    address::PeerAddr,
    connections::ConnectionLimits,
    endpoint::{BindError, ConnectError, EndpointConfig, PORT_FILE, PeerEndpoint},
    identity::Identity,
    ticket::Ticket,
};

use crate::peers::{endpoint, eventually, health, noise};

#[tokio::test]
async fn a_port_is_kept_over_a_restart_and_a_taken_one_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let identity = Identity::load_or_create(dir.path()).expect("a key");
    let config = || EndpointConfig::new(identity.clone()).on_loopback();

    let first = PeerEndpoint::bind_same_port(config(), dir.path()).await.expect("bound");
    let bound = first.bound();
    let error = PeerEndpoint::bind_same_port(config(), dir.path()).await.expect_err("taken");
    let text = error.to_string();
    assert!(matches!(error, BindError::OwnPortTaken { .. }), "{error:?}");
    assert!(text.contains(&bound[0].port().to_string()) && text.contains(PORT_FILE), "{text}");

    let asked = EndpointConfig { listen: bound[0], ..config() };
    let error = PeerEndpoint::bind(asked).await.expect_err("taken");
    assert!(matches!(error, BindError::PortTaken { .. }), "{error:?}");

    first.close().await;
    drop(first);
    let second = eventually("the port is free again", || async {
        PeerEndpoint::bind_same_port(config(), dir.path()).await.ok()
    });
    assert_eq!(second.await.bound(), bound);
}

#[tokio::test]
async fn a_ticket_names_the_bound_address_or_every_interface_with_loopback() {
    let loopback = endpoint().await;
    assert_eq!(loopback.address().direct, loopback.bound());

    let everywhere = PeerEndpoint::bind(EndpointConfig::new(Identity::ephemeral())).await.expect("bound");
    let port = everywhere.bound()[0].port();
    let address = everywhere.address();
    assert!(address.direct.contains(&SocketAddr::from((Ipv4Addr::LOCALHOST, port))), "{address}");
    assert!(address.direct.iter().all(|address| !address.ip().is_unspecified() && address.port() != 0));
    // Its own addresses, as the system lists them, without those of other families or of the link only.
    let v4 = address.direct.iter().filter(|address| address.ip().is_ipv4());
    assert!(v4.clone().all(|address| address.port() == port), "{address}");
    assert!(address.direct.len() == 1 || v4.count() > 1 || address.direct.iter().any(|a| a.ip().is_ipv6()));

    let ticket = Ticket { coordinator: address, invite: None };
    assert_eq!(ticket.to_string().parse(), Ok(ticket));
}

#[tokio::test]
async fn a_peer_with_another_key_is_refused() {
    let health = health(&[]).await;
    let served = health.serve(&endpoint().await);
    let client = endpoint().await;
    client.connect(&served.address, talka_peer::rpc::ALPN).await.expect("the right key");

    let someone_else = PeerAddr { peer: Identity::ephemeral().peer_id(), ..served.address.clone() };
    let error = client.connect(&someone_else, talka_peer::rpc::ALPN).await.expect_err("the wrong key");
    assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn a_peer_without_address_is_found_by_what_was_learned() {
    let health = health(&[]).await;
    let served = health.serve(&endpoint().await);
    let client = endpoint().await;
    let by_name = PeerAddr::new(served.address.peer, []);
    let error = client.connect(&by_name, talka_peer::rpc::ALPN).await.expect_err("nobody told");
    assert!(matches!(error, ConnectError::NoAddress { .. }), "{error:?}");
    client.learn(&served.address);
    client.connect(&by_name, talka_peer::rpc::ALPN).await.expect("learned");
    assert!(served.address.direct.iter().all(|address| address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST)));
}

/// Sends more than any window on the first stream.
#[derive(Debug)]
struct Gusher;

const GUSH_BYTES: usize = 4 * limits::QUIC_STREAM_WINDOW_BYTES as usize;

impl ProtocolHandler for Gusher {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let (mut send, _) = connection.accept_bi().await?;
        send.write_all(&noise(GUSH_BYTES as u64)).await.map_err(AcceptError::from_err)?;
        send.finish()?;
        connection.closed().await;
        Ok(())
    }
}

// The library breaks a connection when more packets of a stream are buffered than it can count, so the window must
// be smaller than that.
#[tokio::test]
async fn a_reader_that_lags_keeps_its_connection() {
    let gusher = endpoint().await;
    let _router = gusher.router(&ConnectionLimits::default()).accept(b"gush", Gusher).spawn();
    let reader = endpoint().await;
    let connection = reader.connect(&gusher.address(), b"gush").await.expect("connected");
    let (mut send, mut receive) = connection.open_bi().await.expect("open");
    send.write_all(b"go").await.expect("open");
    eventually("a full window", || async {
        let received = connection.stats().udp_rx.bytes;
        (received >= u64::from(limits::QUIC_STREAM_WINDOW_BYTES)).then_some(())
    })
    .await;
    assert_eq!(connection.close_reason(), None);
    assert_eq!(receive.read_to_end(GUSH_BYTES).await.expect("all of it"), noise(GUSH_BYTES as u64));
}
