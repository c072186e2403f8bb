//! gRPC over iroh.

use std::time::{Duration, Instant};

use talka_core::limits;
use talka_peer::{
    endpoint::{EndpointConfig, PeerEndpoint},
    identity::Identity,
    rpc::{Access, Caller, channel},
};
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::peers::{endpoint, eventually, health};

fn ask(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

async fn is_up(client: &mut HealthClient<Channel>) -> bool {
    client.check(ask("talka")).await.is_ok()
}

#[tokio::test]
async fn a_handler_knows_which_peer_calls() {
    let health = health(&[]).await;
    let served = health.serve(&endpoint().await);
    let (alice, bob) = (endpoint().await, endpoint().await);
    for peer in [&alice, &bob, &alice] {
        let mut client = HealthClient::new(channel(peer.clone(), served.address.clone()));
        let answer = client.check(ask("talka")).await.expect("served").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
        assert_eq!(health.callers.last(), Some(Caller::Peer(peer.peer_id())));
    }
}

#[tokio::test]
async fn a_method_without_a_row_is_refused_and_so_is_one_for_others() {
    let health = health(&[("/grpc.health.v1.Health/Watch", Access::Submitter)]).await;
    let served = health.serve(&endpoint().await);
    let channel = channel(endpoint().await, served.address.clone());
    let status = HealthClient::new(channel.clone()).watch(ask("talka")).await.expect_err("for submitters");
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("is for a submitter and above; this caller is a peer"), "{status}");

    // The same service under a name that no row has.
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.expect("connected");
    let path = "/grpc.health.v1.Health/New".parse().expect("a path");
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckRequest>::default();
    let status = grpc.unary(tonic::Request::new(ask("")), path, codec).await.expect_err("no row");
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("nobody may call /grpc.health.v1.Health/New"), "{status}");
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused_and_the_connection_lives_on() {
    let health = health(&[]).await;
    let served = health.serve(&endpoint().await);
    let mut client = HealthClient::new(channel(endpoint().await, served.address.clone()));
    // Five bytes are the field's own.
    let fits =
        client.check(ask(&"x".repeat(limits::MESSAGE_BYTES_MAX - 5))).await.expect_err("no such service");
    assert_eq!(fits.code(), Code::NotFound, "{fits}");
    let status = client.check(ask(&"x".repeat(limits::MESSAGE_BYTES_MAX))).await.expect_err("too long");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains(&limits::MESSAGE_BYTES_MAX.to_string()), "{status}");
    assert!(is_up(&mut client).await);
}

#[tokio::test]
async fn too_many_headers_are_refused() {
    let health = health(&[]).await;
    let served = health.serve(&endpoint().await);
    let mut client = HealthClient::new(channel(endpoint().await, served.address.clone()));
    let mut request = tonic::Request::new(ask("talka"));
    let long = "x".repeat(limits::HTTP2_HEADER_BYTES_MAX as usize);
    request.metadata_mut().insert("long", long.parse().expect("text"));
    client.check(request).await.expect_err("above the limit");
    assert!(health.callers.last().is_none(), "no handler saw it");
    assert!(is_up(&mut client).await);
}

#[tokio::test]
async fn a_channel_reconnects_when_the_peer_is_back_with_its_key_and_port() {
    let health = health(&[]).await;
    let identity = Identity::ephemeral();
    let first = PeerEndpoint::bind(EndpointConfig::new(identity.clone()).on_loopback()).await.expect("bound");
    let listen = first.bound()[0];
    let served = health.serve(&first);
    drop(first);
    let mut client = HealthClient::new(channel(endpoint().await, served.address.clone()));
    assert!(is_up(&mut client).await);

    served.router.shutdown().await.expect("clean");
    drop(served);
    let down = Instant::now();
    let status = client.check(ask("talka")).await.expect_err("it is down");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(down.elapsed() < limits::CONNECT_TIMEOUT * 2, "{:?}", down.elapsed());

    let config = EndpointConfig { listen, ..EndpointConfig::new(identity) };
    let again = eventually("the port is free", || async { PeerEndpoint::bind(config.clone()).await.ok() });
    let _served = health.serve(&again.await);
    eventually("an answer", || {
        let mut client = client.clone();
        async move { is_up(&mut client).await.then_some(()) }
    })
    .await;
}

#[tokio::test]
async fn connections_of_one_key_are_bounded() {
    let health = health(&[]).await;
    let served = health.serve(&endpoint().await);
    let greedy = endpoint().await;
    let mut clients = Vec::new();
    for _ in 0..limits::CONNECTIONS_PER_KEY_MAX {
        let mut client = HealthClient::new(channel(greedy.clone(), served.address.clone()));
        assert!(is_up(&mut client).await);
        clients.push(client);
    }
    assert_eq!(health.connections.open(), limits::CONNECTIONS_PER_KEY_MAX);
    let mut one_more = HealthClient::new(channel(greedy, served.address.clone()));
    assert!(!is_up(&mut one_more).await);
    let mut other = HealthClient::new(channel(endpoint().await, served.address.clone()));
    assert!(is_up(&mut other).await);
    assert!(is_up(&mut clients[0]).await);
}

#[tokio::test]
async fn a_connection_without_a_stream_is_closed() {
    let health = health(&[]).await;
    let served = health.serve(&endpoint().await);
    let client = endpoint().await;
    let idle = client.connect(&served.address, talka_peer::rpc::ALPN).await.expect("connected");
    let closed = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT * 3, idle.closed()).await;
    let reason = closed.expect("closed in time").to_string();
    assert!(reason.contains("no request came"), "{reason}");
}

#[tokio::test]
async fn shutdown_waits_for_a_stream_no_longer_than_the_grace() {
    let health = health(&[]).await;
    let served = health.serve(&endpoint().await);
    let mut client = HealthClient::new(channel(endpoint().await, served.address.clone()));
    let mut endless = client.watch(ask("talka")).await.expect("served").into_inner();
    endless.message().await.expect("open").expect("the state now");

    let start = Instant::now();
    served.shutdown.cancel();
    served.serving.await.expect("it ended");
    let took = start.elapsed();
    assert!(took >= limits::SHUTDOWN_GRACE, "{took:?}");
    assert!(took < limits::SHUTDOWN_GRACE + Duration::from_secs(5), "{took:?}");
    assert!(endless.message().await.is_err(), "the stream was cut");
    drop(health.reporter);
}
