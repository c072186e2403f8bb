//! The same services for tools that are no peers.

use std::{net::SocketAddr, time::Duration};

use talka_core::limits;
use talka_peer::rpc::{Caller, Tls};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::peers::{DEADLINE, Health, health};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const EMPTY_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

async fn listen(health: &Health, tls: Option<Tls>) -> (SocketAddr, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let server = health.server.clone();
    let serving =
        async move { server.serve_tcp(listener, tls, CancellationToken::new()).await.expect("it serves") };
    (addr, AbortOnDropHandle::new(tokio::spawn(serving)))
}

async fn frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let mut body = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
    stream.read_exact(&mut body).await.ok()?;
    Some((head[3], body))
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} took too long"))
}

#[tokio::test]
async fn the_settings_frame_announces_the_limits() {
    let health = health(&[]).await;
    let (addr, _serving) = listen(&health, None).await;
    let mut stream = TcpStream::connect(addr).await.expect("listening");
    stream.write_all(PREFACE).await.expect("open");
    stream.write_all(EMPTY_SETTINGS).await.expect("open");
    let (kind, body) = in_time("settings", frame(&mut stream)).await.expect("a frame");
    assert_eq!(kind, SETTINGS);
    let setting = |id: u16| {
        let found = body.chunks_exact(6).find(|setting| setting[..2] == id.to_be_bytes())?;
        Some(u32::from_be_bytes([found[2], found[3], found[4], found[5]]))
    };
    assert_eq!(setting(3), Some(limits::HTTP2_STREAMS_MAX), "MAX_CONCURRENT_STREAMS");
    const { assert!(limits::HTTP2_STREAMS_MAX <= 32) };
    assert_eq!(setting(4), Some(limits::HTTP2_STREAM_WINDOW_BYTES), "INITIAL_WINDOW_SIZE");
    assert_eq!(setting(6), Some(limits::HTTP2_HEADER_BYTES_MAX), "MAX_HEADER_LIST_SIZE");
}

#[tokio::test]
async fn a_flood_of_resets_is_answered_with_goodbye() {
    let health = health(&[]).await;
    let (addr, _serving) = listen(&health, None).await;
    let stream = TcpStream::connect(addr).await.expect("listening");
    let (mut read, mut write) = stream.into_split();
    let flood = tokio::spawn(async move {
        write.write_all(PREFACE).await.expect("open");
        write.write_all(EMPTY_SETTINGS).await.expect("open");
        for number in 0..10_000_u32 {
            let id = (2 * number + 1).to_be_bytes();
            // POST / by http, three entries of the static table; then the reset of the same stream.
            let open = [&[0, 0, 3, HEADERS, 4], &id[..], &[0x83, 0x84, 0x86]].concat();
            let reset = [&[0, 0, 4, RST_STREAM, 0], &id[..], &[0, 0, 0, 8]].concat();
            if write.write_all(&[open, reset].concat()).await.is_err() {
                return number;
            }
        }
        10_000
    });
    let mut seen = Vec::new();
    in_time("the end", read.read_to_end(&mut seen)).await.ok();
    let mut frames = seen.as_slice();
    let mut goodbye = false;
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = frames {
        goodbye |= *kind == GOAWAY;
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        frames = rest.get(length..).unwrap_or_default();
    }
    assert!(goodbye, "no GOAWAY among {} bytes", seen.len());
    in_time("the flood", flood).await.expect("it ended");
    assert!(health.callers.0.lock().expect("no panic").len() < 300, "few of the requests were begun");
}

#[tokio::test]
async fn a_tool_is_known_by_its_address_and_finds_the_services() {
    let health = health(&[]).await;
    let (addr, _serving) = listen(&health, None).await;
    let channel = Channel::from_shared(format!("http://{addr}")).expect("a URL").connect_lazy();
    HealthClient::new(channel.clone())
        .check(HealthCheckRequest { service: "talka".into() })
        .await
        .expect("served");
    let caller = health.callers.last().expect("it called");
    assert!(matches!(caller, Caller::Tcp { addr, tls: false } if addr.ip().is_loopback()), "{caller:?}");
    assert!(caller.is_local());

    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let answers = reflection.server_reflection_info(tokio_stream::iter([list])).await.expect("served");
    let answer = answers.into_inner().message().await.expect("open").expect("an answer").message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    assert!(list.service.iter().any(|service| service.name == "grpc.health.v1.Health"), "{list:?}");
}

#[tokio::test]
async fn a_tool_may_encrypt() {
    let health = health(&[]).await;
    let tls = Tls {
        certificate_pem: include_bytes!("tls-cert.pem").to_vec(),
        key_pem: include_bytes!("tls-key.pem").to_vec(),
    };
    let (addr, _serving) = listen(&health, Some(tls)).await;
    let trust = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(include_bytes!("tls-cert.pem")))
        .domain_name("localhost");
    let endpoint = Channel::from_shared(format!("https://{addr}")).expect("a URL").tls_config(trust);
    let mut client = HealthClient::new(endpoint.expect("a certificate").connect_lazy());
    client.check(HealthCheckRequest { service: "talka".into() }).await.expect("served");
    assert!(matches!(health.callers.last(), Some(Caller::Tcp { tls: true, .. })));

    let mut plain = TcpStream::connect(addr).await.expect("listening");
    plain.write_all(PREFACE).await.expect("open");
    let mut answer = Vec::new();
    in_time("the end", plain.read_to_end(&mut answer)).await.ok();
    assert!(answer.len() < 9, "no HTTP/2 without TLS: {answer:?}");
}

#[tokio::test]
async fn a_useless_certificate_is_an_error_and_no_panic() {
    let health = health(&[]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let tls = Tls { certificate_pem: b"nonsense".to_vec(), key_pem: Vec::new() };
    let error =
        health.server.serve_tcp(listener, Some(tls), CancellationToken::new()).await.expect_err("nonsense");
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_browser_is_told_in_words_that_there_is_nothing() {
    let health = health(&[]).await;
    let (addr, _serving) = listen(&health, None).await;
    let mut stream = TcpStream::connect(addr).await.expect("listening");
    stream.write_all(b"GET /secret HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("open");
    let mut answer = String::new();
    in_time("the page", stream.read_to_string(&mut answer)).await.expect("text");
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("nobody may call /secret"), "{answer}");
}

#[tokio::test]
async fn silent_connections_are_closed_and_counted_off() {
    let health = health(&[]).await;
    let (addr, _serving) = listen(&health, None).await;
    let mut silent = TcpStream::connect(addr).await.expect("listening");
    let mut half = TcpStream::connect(addr).await.expect("listening");
    half.write_all(PREFACE).await.expect("open");
    half.write_all(EMPTY_SETTINGS).await.expect("open");
    let start = tokio::time::Instant::now();
    let mut rest = Vec::new();
    in_time("closing", silent.read_to_end(&mut rest)).await.ok();
    in_time("closing", half.read_to_end(&mut rest)).await.ok();
    assert!(start.elapsed() + Duration::from_millis(200) > limits::HANDSHAKE_TIMEOUT);
    crate::peers::eventually("nothing is open", || async { (health.connections.open() == 0).then_some(()) })
        .await;
}
