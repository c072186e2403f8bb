//! Peers that speak gRPC with each other: a second way to the bytes, and to those who have them.

use std::num::NonZeroU64;

use iroh::{
    endpoint::Connection,
    protocol::{AcceptError, ProtocolHandler},
};
use talka_core::{ids::BlobHash, job::BlobRef, swarm::PieceSet};
use talka_peer::{
    Router,
    blobs::{self, Admit, AdmitAll, BlobServer, BlobStore, Serving},
    connections::ConnectionLimits,
    endpoint::PeerEndpoint,
    rpc::{self, PeerHandler},
    swarm::{Fetch, Swarm},
    transfer::{ChunkTransport, FetchError, Fetcher, GrpcBlobs, IrohBlobs, Provider, Transports},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    peers::{DEADLINE, endpoint, eventually, noise},
    swarm::{MIB, Told},
};

/// What a peer makes of requests by the first transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// It serves them.
    Works,
    /// It does not know the protocol.
    Unknown,
    /// It takes them and breaks off.
    Breaks,
}

/// A peer that fetches and serves as a worker does, over both transports.
pub(crate) struct Both {
    pub(crate) endpoint: PeerEndpoint,
    pub(crate) store: BlobStore,
    pub(crate) swarm: Swarm,
    pub(crate) second: GrpcBlobs,
    router: Router,
    _serving: AbortOnDropHandle<()>,
}

impl Both {
    pub(crate) async fn new(serving: Serving, first: First) -> Self {
        Self::with(serving, first, AdmitAll).await
    }

    pub(crate) async fn with(serving: Serving, first: First, admit: impl Admit) -> Self {
        Self::of(BlobStore::in_memory(), serving, first, admit).await
    }

    pub(crate) async fn of(store: BlobStore, serving: Serving, first: First, admit: impl Admit) -> Self {
        let endpoint = endpoint().await;
        let connections = ConnectionLimits::default();
        let server = BlobServer::with(&store, admit, serving, connections.clone());
        let transport = IrohBlobs::new(endpoint.clone(), store.clone(), None);
        let second = GrpcBlobs::new(endpoint.clone(), store.clone(), endpoint.address().direct);
        let both = Transports::both(transport, second.clone());
        let swarm = Swarm::new(endpoint.peer_id(), both, store.clone(), server.clone());
        let (handler, streams) = PeerHandler::new(connections.clone());
        let router = endpoint.router(&connections).accept(rpc::ALPN, handler);
        let router = match first {
            First::Works => router.accept(blobs::ALPN, server),
            First::Unknown => router,
            First::Breaks => router.accept(blobs::ALPN, Breaks),
        };
        let exchange = swarm.exchange();
        let serving = tokio::spawn(async move {
            exchange.serve(connections, streams, CancellationToken::new()).await.expect("it serves");
        });
        Self {
            endpoint,
            store,
            swarm,
            second,
            router: router.spawn(),
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    pub(crate) fn provider(&self) -> Provider {
        self.endpoint.address().into()
    }

    pub(crate) async fn fetch(&self, blob: BlobRef, told: Told) -> Fetch {
        self.swarm.fetch(blob, told).await.expect("it starts")
    }

    async fn seed(serving: Serving, first: First, bytes: &bytes::Bytes) -> (Self, BlobRef) {
        let seed = Self::new(serving, first).await;
        let blob = seed.store.add_bytes(bytes.clone(), "data").await.expect("added");
        (seed, blob)
    }
}

/// Resets each stream with a code that stands for nothing.
#[derive(Debug, Clone)]
struct Breaks;

impl ProtocolHandler for Breaks {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        loop {
            let (mut answer, _question) = connection.accept_bi().await?;
            answer.reset(99_u32.into())?;
        }
    }
}

pub(crate) async fn done(fetch: &Fetch) {
    tokio::time::timeout(DEADLINE, fetch.done()).await.expect("in time").expect("the blob");
}

fn limited(mib_per_second: u64, is_source: bool) -> Serving {
    Serving { upload: NonZeroU64::new(mib_per_second << 20), is_source }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_transport_brings_a_blob_where_the_first_one_fails() {
    let bytes = noise(5 * MIB + 77);
    for first in [First::Unknown, First::Breaks] {
        let (seed, blob) = Both::seed(Serving::default(), first, &bytes).await;
        let leech = Both::new(Serving::default(), First::Works).await;
        let fetch = leech.fetch(blob, Told { source: Some(seed.provider()), others: vec![] }).await;
        done(&fetch).await;
        assert_eq!(leech.store.read(blob.hash, u64::MAX).await.expect("here"), bytes, "{first:?}");
        assert_eq!(fetch.bytes_by_provider()[&seed.endpoint.peer_id()], blob.size.get());
        eventually("the upload is counted", || async {
            (seed.store.served().to(leech.endpoint.peer_id()) == blob.size.get()).then_some(())
        })
        .await;
        assert!(!leech.swarm.is_banned(seed.endpoint.peer_id()), "what breaks is no lie");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_fetches_from_one_that_was_named_has_both_ways_too() {
    let bytes = noise(3 * MIB + 77);
    for first in [First::Works, First::Unknown, First::Breaks] {
        let (seed, blob) = Both::seed(Serving::default(), first, &bytes).await;
        let store = BlobStore::in_memory();
        let fetcher = Fetcher::new(endpoint().await, store.clone(), None);
        let came = fetcher.fetch(&seed.provider(), blob, "result/1/", |_| ()).await.expect("fetched");
        assert_eq!(came, blob.size.get(), "{first:?}");
        assert_eq!(store.read(blob.hash, u64::MAX).await.expect("here"), bytes, "{first:?}");
        let nowhere = BlobRef { hash: BlobHash::new([7; 32]), ..blob };
        let error = fetcher.fetch(&seed.provider(), nowhere, "result/2/", |_| ()).await;
        assert!(matches!(error, Err(FetchError::NotHeld)), "{first:?}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_a_part_passes_it_on_by_the_second_transport_too() {
    let bytes = noise(4 * MIB);
    let (seed, blob) = Both::seed(limited(4, true), First::Unknown, &bytes).await;
    let told = |others: Vec<Provider>| Told { source: Some(seed.provider()), others };
    let (first, second) = (
        Both::new(Serving::default(), First::Unknown).await,
        Both::new(Serving::default(), First::Unknown).await,
    );
    let fetches = [
        first.fetch(blob, told(vec![second.provider()])).await,
        second.fetch(blob, told(vec![first.provider()])).await,
    ];
    for fetch in &fetches {
        done(fetch).await;
    }
    let between: u64 = [(&fetches[0], &second), (&fetches[1], &first)]
        .iter()
        .map(|(fetch, other)| fetch.bytes_by_provider().get(&other.endpoint.peer_id()).copied().unwrap_or(0))
        .sum();
    assert!(between >= MIB, "{between} bytes went between peers");
}

/// Serves nobody.
struct Nobody;

impl Admit for Nobody {
    fn peer(&self, _peer: talka_core::ids::PeerId) -> bool {
        false
    }

    fn blob(&self, _peer: talka_core::ids::PeerId, _blob: BlobHash) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_transport_keeps_the_rules_of_the_first_one() {
    let bytes = noise(4 * MIB);
    let (seed, blob) = Both::seed(limited(2, false), First::Unknown, &bytes).await;
    let asks = Both::new(Serving::default(), First::Works).await;
    let (grpc, provider) = (&asks.second, seed.provider());

    let unknown = BlobRef { hash: BlobHash::new([7; 32]), ..blob };
    let error = grpc.fetch_range(&provider, unknown, 0..MIB, |_| ()).await.expect_err("not there");
    assert!(matches!(error, FetchError::NotHeld), "{error:?}");
    let error = grpc.fetch_range(&provider, blob, 0..5 * MIB, |_| ()).await.expect_err("beyond it");
    assert!(matches!(error, FetchError::OutOfRange { .. }), "{error:?}");
    let longer = BlobRef { size: talka_core::quantities::Bytes::mib(5), ..blob };
    let error = grpc.fetch_range(&provider, longer, 0..MIB, |_| ()).await.expect_err("another length");
    assert!(matches!(error, FetchError::WrongSize { .. }), "{error:?}");

    let stranger = Both::with(Serving::default(), First::Unknown, Nobody).await;
    stranger.store.add_bytes(bytes.clone(), "data").await.expect("added");
    let error = grpc.fetch_range(&stranger.provider(), blob, 0..MIB, |_| ()).await.expect_err("refused");
    assert!(matches!(error, FetchError::Refused), "{error:?}");
    let error = grpc.follow(&stranger.provider(), blob).await.err().expect("refused");
    assert!(matches!(error, FetchError::Refused), "{error:?}");

    // The limit of uploads holds, and one peer has its share of requests and no more.
    let begun = std::time::Instant::now();
    let mut flood = tokio::task::JoinSet::new();
    for request in 0..100_u64 {
        let (grpc, provider, at) = (grpc.clone(), provider.clone(), request % 4 * MIB);
        flood.spawn(async move { grpc.fetch_range(&provider, blob, at..at + MIB, |_| ()).await });
    }
    let mut busy = 0;
    while let Some(result) = flood.join_next().await {
        busy += u32::from(matches!(result.expect("no panic"), Err(FetchError::Busy)));
    }
    assert!(busy > 0, "nothing of the flood was refused");
    #[expect(clippy::cast_precision_loss, reason = "some MiB")]
    let least = (seed.store.served_bytes().saturating_sub(MIB / 16)) as f64 / (2.0 * 1_048_576.0) * 0.95;
    assert!(
        begun.elapsed().as_secs_f64() >= least,
        "{} bytes left in {:?}",
        seed.store.served_bytes(),
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knows_one_member_finds_the_others() {
    let bytes = noise(12 * MIB);
    let (known, blob) = Both::seed(limited(4, false), First::Works, &bytes).await;
    let told = || Told { source: None, others: vec![known.provider()] };
    let peers = [
        Both::new(limited(16, false), First::Works).await,
        Both::new(limited(16, false), First::Works).await,
        Both::new(limited(16, false), First::Works).await,
    ];
    let mut fetches = Vec::new();
    for peer in &peers {
        fetches.push(peer.fetch(blob, told()).await);
    }
    for (peer, fetch) in peers.iter().zip(&fetches) {
        done(fetch).await;
        assert_eq!(peer.store.read(blob.hash, u64::MAX).await.expect("here"), bytes);
    }
    let met = fetches.iter().any(|fetch| fetch.bytes_by_provider().len() > 1);
    assert!(met, "nobody was found: all came from the one that was named");
}

/// The pieces that any of them has.
fn union(fetches: &[Fetch]) -> PieceSet {
    let mut all = fetches[0].have();
    for fetch in fetches {
        all.union_with(&fetch.have());
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swarm_goes_on_when_its_source_is_gone() {
    let bytes = noise(12 * MIB);
    let (source, blob) = Both::seed(limited(6, true), First::Works, &bytes).await;
    let mut peers = Vec::new();
    for _ in 0..4 {
        peers.push(Both::new(limited(2, false), First::Works).await);
    }
    // Nobody is named but the source and one of them.
    let one = peers[0].provider();
    let mut fetches = Vec::new();
    for peer in &peers {
        let told = Told { source: Some(source.provider()), others: vec![one.clone()] };
        fetches.push(peer.fetch(blob, told).await);
    }
    eventually("all pieces are out", || async { union(&fetches).is_all().then_some(()) }).await;
    let open = fetches.iter().filter(|fetch| !fetch.have().is_all()).count();
    assert!(open >= 2, "{open} peers still fetch");
    drop(source.router);
    source.endpoint.close().await;
    for (peer, fetch) in peers.iter().zip(&fetches) {
        done(fetch).await;
        assert_eq!(peer.store.read(blob.hash, u64::MAX).await.expect("here"), bytes);
    }
    let strangers = fetches[1..].iter().any(|fetch| {
        let from = fetch.bytes_by_provider();
        peers[1..].iter().any(|peer| from.contains_key(&peer.endpoint.peer_id()))
    });
    assert!(strangers, "those whom nobody named found each other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_all_of_it_stays_known_by_telling() {
    let bytes = noise(2 * MIB);
    let (seed, blob) = Both::seed(Serving::default(), First::Works, &bytes).await;
    let first = Both::new(Serving::default(), First::Works).await;
    done(&first.fetch(blob, Told { source: None, others: vec![seed.provider()] }).await).await;
    first.swarm.tell(blob).await;

    let named = members(&seed.provider(), blob).await;
    assert_eq!(
        named,
        [first.endpoint.peer_id()],
        "it told that it is there, and whoever only looks is not named"
    );
    let unknown = BlobRef { hash: BlobHash::new([7; 32]), ..blob };
    assert!(first.second.follow(&seed.provider(), unknown).await.is_ok(), "it may come");

    // Who has nothing of it any more names nobody, not even when it comes again.
    seed.store.untag("data").await.expect("tags");
    seed.store.collect().await;
    first.swarm.tell(blob).await;
    seed.store.add_bytes(bytes, "data").await.expect("added");
    assert!(members(&seed.provider(), blob).await.is_empty());
}

/// Whom a peer names, by the wire alone.
async fn members(provider: &Provider, blob: BlobRef) -> Vec<talka_core::ids::PeerId> {
    use talka_proto::{
        convert::{id_bytes, peer_id},
        wire::{MembersRequest, exchange_client::ExchangeClient},
    };
    let channel = rpc::channel(endpoint().await, provider.address().clone());
    let request = MembersRequest { hash: id_bytes(blob.hash.as_bytes()), addresses: vec![] };
    let reply = ExchangeClient::new(channel).members(request).await.expect("answered").into_inner();
    reply.members.iter().map(|member| peer_id(&member.peer).expect("a key")).collect()
}
