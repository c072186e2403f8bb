//! Peers that lie about what they have and whom they know, send what they should not, or nothing, and floods: nothing
//! wrong is kept, honest peers are never banned, and the blob comes.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use talka_core::{job::BlobRef, limits, swarm::Pieces};
use talka_peer::{
    Router,
    blobs::Serving,
    connections::ConnectionLimits,
    endpoint::PeerEndpoint,
    identity::Identity,
    rpc::{self, AccessTable, PeerHandler, Server, server::standard_services},
    swarm::EXCHANGE_ROWS,
    transfer::Provider,
};
use talka_proto::{
    convert::id_bytes,
    wire::{
        self,
        exchange_server::{Exchange, ExchangeServer},
    },
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Request, Response, Status};

use crate::{
    evil::{Flood, Trick, evil},
    exchange::{Both, First, done},
    peers::{Callers, DEADLINE, endpoint, eventually, noise},
    swarm::{MIB, Peer, Told, fetch_all, seeded},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nine_in_ten_may_lie_about_what_they_have() {
    let bytes = noise(6 * MIB);
    let (honest, blob) = seeded(&bytes).await;
    let (mut told, mut routers) = (vec![honest.provider()], Vec::new());
    for _ in 0..9 {
        let (liar, router) = evil(honest.endpoint.address(), Trick::Lack).await;
        told.push(liar);
        routers.push(router);
    }
    let peer = Peer::new(Serving::default()).await;
    let fetch = peer.swarm.fetch(blob, Told { source: None, others: told }).await.expect("it starts");
    done(&fetch).await;
    assert_eq!(peer.store.read(blob.hash, u64::MAX).await.expect("here"), bytes);
    assert_eq!(fetch.bytes_by_provider().into_keys().collect::<Vec<_>>(), [honest.endpoint.peer_id()]);
    assert!(!peer.swarm.is_banned(honest.endpoint.peer_id()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_drips_holds_nobody_up() {
    let bytes = noise(8 * MIB);
    let (honest, blob) = seeded(&bytes).await;
    let (mut drips, mut routers) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let (drip, router) = evil(honest.endpoint.address(), Trick::Drip(1024)).await;
        drips.push(drip);
        routers.push(router);
    }
    let peers = [Peer::new(Serving::default()).await, Peer::new(Serving::default()).await];
    let fetches = fetch_all(&peers, blob, &honest.provider(), &drips).await;
    for (peer, fetch) in peers.iter().zip(&fetches) {
        assert_eq!(peer.store.read(blob.hash, u64::MAX).await.expect("here"), bytes);
        let from = fetch.bytes_by_provider();
        let dripped: u64 = drips.iter().filter_map(|drip| from.get(&drip.peer())).sum();
        assert!(dripped < MIB, "{dripped} bytes were waited for");
        assert!(!peer.swarm.is_banned(honest.endpoint.peer_id()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_requests_and_readers_that_do_not_read_keep_nobody_waiting() {
    let bytes = noise(6 * MIB);
    let seed = Both::new(Serving { upload: None, is_source: true }, First::Works).await;
    let blob = seed.store.add_bytes(bytes.clone(), "data").await.expect("added");
    let (address, mut kept) = (seed.endpoint.address(), Vec::new());
    for _ in 0..4 {
        let attacker = endpoint().await;
        let connection = attacker.connect(&address, talka_peer::blobs::ALPN).await.expect("connected");
        for _ in 0..8 {
            let (mut question, answer) = connection.open_bi().await.expect("a stream");
            // The first byte of a request for bytes, and never the next one.
            question.write_all(&[0]).await.expect("sent");
            kept.push((question, answer));
        }
        let channel = rpc::channel(attacker.clone(), address.clone());
        let mut client = wire::exchange_client::ExchangeClient::new(channel);
        let all = vec![0, blob.size.get().div_ceil(1024)];
        let request = wire::FetchRequest { hash: id_bytes(blob.hash.as_bytes()), bounds: all };
        let unread = client.fetch(request).await.expect("answered");
        let attack = (attacker, connection, client, unread);
        // It lasts as long as the test.
        std::mem::forget(attack);
    }
    let peer = Both::new(Serving::default(), First::Works).await;
    let fetch = peer.fetch(blob, Told { source: Some(seed.provider()), others: vec![] }).await;
    done(&fetch).await;
    assert_eq!(peer.store.read(blob.hash, u64::MAX).await.expect("here"), bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_without_end_what_it_has_is_not_listened_to() {
    let bytes = noise(6 * MIB);
    let serving = Serving { upload: std::num::NonZeroU64::new(4 << 20), is_source: false };
    let honest = Peer::new(serving).await;
    let blob = honest.store.add_bytes(bytes.clone(), "data").await.expect("added");
    let (flood, mut told, mut routers) = (Flood::default(), vec![honest.provider()], Vec::new());
    for _ in 0..3 {
        let (liar, router) = evil(honest.endpoint.address(), Trick::Flood(flood.clone())).await;
        told.push(liar);
        routers.push(router);
    }
    let peer = Peer::new(Serving::default()).await;
    let fetch = peer.swarm.fetch(blob, Told { source: None, others: told }).await.expect("it starts");
    let is_over = || async { (flood.ended.load(Ordering::Relaxed) >= 3).then_some(()) };
    eventually("all floods to be cut off", is_over).await;
    done(&fetch).await;
    assert_eq!(peer.store.read(blob.hash, u64::MAX).await.expect("here"), bytes);
    assert!(!peer.swarm.is_banned(honest.endpoint.peer_id()));
    // Those that were listened to, and those that were on their way: windows are far smaller than all of them.
    let groups = blob.size.get().div_ceil(16 << 10);
    let heard = limits::FOLLOW_REPORTS_MIN + groups * limits::FOLLOW_REPORTS_PER_GROUP;
    let most = flood.most.load(Ordering::Relaxed);
    assert!((heard..heard + 4000).contains(&most), "{most} reports of which {heard} may be heard");
}

/// What a peer that speaks gRPC alone does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// Other bytes.
    Bytes,
    /// Another length.
    Length,
    /// A message that is too long.
    LongMessage,
    /// Nothing.
    Silence,
    /// Endless reports of what it has.
    Reports,
    /// Long lists of peers that are not there.
    Names,
}

/// It has everything, it says.
#[derive(Debug, Clone)]
struct EvilExchange {
    lie: Lie,
    size: u64,
    /// Where those are whom it names.
    trap: SocketAddr,
    named: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl Exchange for EvilExchange {
    async fn members(
        &self,
        _request: Request<wire::MembersRequest>,
    ) -> Result<Response<wire::MembersReply>, Status> {
        let count = if self.lie == Lie::Names { 5000 } else { 0 };
        self.named.fetch_add(count, Ordering::Relaxed);
        let member = |_| wire::Provider {
            peer: id_bytes(Identity::ephemeral().peer_id().as_bytes()),
            addresses: vec![self.trap.to_string(); 3],
            by_relay: false,
        };
        Ok(Response::new(wire::MembersReply { members: (0..count).map(member).collect() }))
    }

    type PiecesStream = BoxStream<'static, Result<wire::PiecesReply, Status>>;

    async fn pieces(
        &self,
        _request: Request<wire::PiecesRequest>,
    ) -> Result<Response<Self::PiecesStream>, Status> {
        let count = Pieces::of(talka_core::quantities::Bytes::new(self.size)).count();
        let everything = wire::PiecesReply { bounds: vec![0, count] };
        let more = match self.lie {
            // With gaps, overlaps, and what lies far beyond the blob.
            Lie::Reports => {
                stream::repeat_with(|| Ok(wire::PiecesReply { bounds: (0..60_000).rev().collect() })).boxed()
            }
            _ => stream::pending().boxed(),
        };
        Ok(Response::new(stream::iter([Ok(everything)]).chain(more).boxed()))
    }

    type FetchStream = BoxStream<'static, Result<wire::FetchPart, Status>>;

    async fn fetch(
        &self,
        _request: Request<wire::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        if matches!(self.lie, Lie::Names | Lie::Reports) {
            // Who sends nothing can't be caught at it.
            return Err(Status::resource_exhausted("others are served"));
        }
        let claimed = if self.lie == Lie::Length { 1 << 40 } else { self.size };
        let length = Bytes::copy_from_slice(&claimed.to_le_bytes());
        let len = if self.lie == Lie::LongMessage { limits::MESSAGE_BYTES_MAX + 1 } else { 60_000 };
        let noise = Bytes::from(vec![0x5a; len]);
        let parts = match self.lie {
            Lie::Silence => stream::pending().boxed(),
            _ => stream::iter([length]).chain(stream::repeat(noise)).boxed(),
        };
        Ok(Response::new(parts.map(|data| Ok(wire::FetchPart { data })).boxed()))
    }
}

/// A liar that is there until this is dropped.
struct Liar {
    provider: Provider,
    named: Arc<AtomicU64>,
    _endpoint: PeerEndpoint,
    _router: Router,
    _serving: AbortOnDropHandle<()>,
}

impl Liar {
    async fn new(lie: Lie, blob: BlobRef, trap: SocketAddr) -> Self {
        let (endpoint, connections) = (endpoint().await, ConnectionLimits::default());
        let named = Arc::new(AtomicU64::new(0));
        let evil = EvilExchange { lie, size: blob.size.get(), trap, named: named.clone() };
        let (mut services, _) = standard_services(&[]).expect("described");
        services.add_service(ExchangeServer::new(evil));
        let table = AccessTable::new(EXCHANGE_ROWS);
        let server = Server::new(services.routes(), table, Arc::new(Callers::default()), connections.clone());
        let (handler, streams) = PeerHandler::new(connections.clone());
        let router = endpoint.router(&connections).accept(rpc::ALPN, handler).spawn();
        let serving = tokio::spawn(async move {
            server.serve_peers(streams, CancellationToken::new()).await.expect("it serves");
        });
        let provider = Provider::from(endpoint.address());
        Self {
            provider,
            named,
            _endpoint: endpoint,
            _router: router,
            _serving: AbortOnDropHandle::new(serving),
        }
    }
}

fn nowhere() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 9).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_by_the_second_transport_are_found_out_as_by_the_first() {
    let bytes = noise(3 * MIB);
    let (honest, blob) = seeded(&bytes).await;
    for lie in [Lie::Bytes, Lie::Length] {
        let liar = Liar::new(lie, blob, nowhere()).await;
        let peer = Both::new(Serving::default(), First::Works).await;
        let fetch = peer.fetch(blob, Told { source: None, others: vec![liar.provider.clone()] }).await;
        let is_banned = || async { peer.swarm.is_banned(liar.provider.peer()).then_some(()) };
        eventually("the liar is banned", is_banned).await;
        assert!(fetch.have().is_empty() && !peer.store.has(blob.hash).await.expect("a store"), "{lie:?}");
    }
    // What can't be proved costs the others nothing: they are there, and the blob comes.
    for lie in [Lie::LongMessage, Lie::Silence] {
        let liar = Liar::new(lie, blob, nowhere()).await;
        let peer = Both::new(Serving::default(), First::Works).await;
        let others = vec![liar.provider.clone(), honest.provider()];
        let fetch = peer.fetch(blob, Told { source: None, others }).await;
        tokio::time::timeout(DEADLINE, fetch.done()).await.expect("in time").expect("the blob");
        assert_eq!(peer.store.read(blob.hash, u64::MAX).await.expect("here"), bytes, "{lie:?}");
        assert!(!peer.swarm.is_banned(honest.endpoint.peer_id()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_names_and_claims_finds_its_bounds_and_the_honest_are_found() {
    let bytes = noise(12 * MIB);
    let serving = Serving { upload: std::num::NonZeroU64::new(3 << 20), is_source: false };
    let honest = Both::new(serving, First::Works).await;
    let blob = honest.store.add_bytes(bytes.clone(), "data").await.expect("added");
    // Whoever is dialed on behalf of the liars knocks here, and gets no answer.
    let trap = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    trap.set_nonblocking(true).expect("a socket");
    let mut liars = Vec::new();
    for lie in [Lie::Names, Lie::Reports, Lie::Names, Lie::Reports] {
        liars.push(Liar::new(lie, blob, trap.local_addr().expect("bound")).await);
    }
    let peer = Both::new(Serving::default(), First::Works).await;
    let mut others: Vec<Provider> = liars.iter().map(|liar| liar.provider.clone()).collect();
    others.push(honest.provider());
    let fetch = peer.fetch(blob, Told { source: None, others }).await;
    done(&fetch).await;
    assert_eq!(peer.store.read(blob.hash, u64::MAX).await.expect("here"), bytes);
    assert!(!peer.swarm.is_banned(honest.endpoint.peer_id()));
    let named: u64 = liars.iter().map(|liar| liar.named.load(Ordering::Relaxed)).sum();
    assert!(named >= 5000, "{named} names: nobody was asked");
    // QUIC connections begin with packets of 1,200 bytes and more; each has its own number, at the same place.
    let (mut packet, mut dialed) = ([0; 2048], std::collections::BTreeSet::new());
    while let Ok(len) = trap.recv(&mut packet) {
        if len >= 1200 {
            dialed.insert(packet[6..14].to_vec());
        }
    }
    // All seats of hearsay once for each time that a dial may take, and as often as that fits into the test.
    let most = limits::SWARM_HEARSAY_MAX * 13;
    assert!((1..=most).contains(&dialed.len()), "{} of {named} were dialed", dialed.len());
}
