//! A blob from many peers at once, some of which are not what they should be.

use std::{sync::Arc, time::Instant};

use futures_util::{FutureExt, future::BoxFuture};
use talka_core::{ids::PeerId, job::BlobRef};
use talka_peer::{
    Cause, Router,
    blobs::{self, AdmitAll, BlobServer, BlobStore, Serving},
    connections::ConnectionLimits,
    endpoint::PeerEndpoint,
    swarm::{Fetch, Members, Swarm},
    transfer::{ChunkTransport, FetchBlobError, FetchError, IrohBlobs, Provider},
};

use crate::{
    evil::{Trick, evil},
    peers::{Node, endpoint, eventually, noise},
};

pub(crate) const MIB: u64 = 1 << 20;

/// A peer that fetches as a worker does.
pub(crate) struct Peer {
    pub(crate) endpoint: PeerEndpoint,
    pub(crate) store: BlobStore,
    pub(crate) swarm: Swarm,
    transport: IrohBlobs,
    _router: Router,
}

impl Peer {
    pub(crate) async fn new(serving: Serving) -> Self {
        Self::with(BlobStore::in_memory(), serving, None).await
    }

    async fn with(store: BlobStore, serving: Serving, download: Option<u64>) -> Self {
        let endpoint = endpoint().await;
        let connections = ConnectionLimits::default();
        let server = BlobServer::with(&store, AdmitAll, serving, connections.clone());
        let router = endpoint.router(&connections).accept(blobs::ALPN, server.clone()).spawn();
        let download = download.and_then(std::num::NonZeroU64::new);
        let transport = IrohBlobs::new(endpoint.clone(), store.clone(), None).with_download_limit(download);
        let swarm = Swarm::new(endpoint.peer_id(), transport.clone(), store.clone(), server);
        Self { endpoint, store, swarm, transport, _router: router }
    }

    pub(crate) fn provider(&self) -> Provider {
        self.endpoint.address().into()
    }

    pub(crate) async fn fetch(&self, blob: BlobRef, source: &Provider, others: &[Provider]) -> Fetch {
        let told = Told { source: Some(source.clone()), others: others.to_vec() };
        self.swarm.fetch(blob, told).await.expect("it starts")
    }
}

pub(crate) fn source() -> Serving {
    Serving { is_source: true, upload: None }
}

/// Whom a peer is told of.
#[derive(Clone)]
pub(crate) struct Told {
    pub(crate) source: Option<Provider>,
    pub(crate) others: Vec<Provider>,
}

impl Members for Told {
    fn source(&self) -> Option<Provider> {
        self.source.clone()
    }

    fn others(&self, _blob: BlobRef) -> BoxFuture<'_, Result<Vec<Provider>, Cause>> {
        std::future::ready(Ok(self.others.clone())).boxed()
    }
}

/// Lets all of them fetch at once, each knowing all others and `more`.
pub(crate) async fn fetch_all(
    peers: &[Peer],
    blob: BlobRef,
    source: &Provider,
    more: &[Provider],
) -> Vec<Fetch> {
    let mut fetches = Vec::new();
    for peer in peers {
        let others = peers.iter().map(Peer::provider).filter(|other| other.peer() != peer.endpoint.peer_id());
        let others: Vec<Provider> = others.chain(more.iter().cloned()).collect();
        fetches.push(peer.fetch(blob, source, &others).await);
    }
    for fetch in &fetches {
        let done = tokio::time::timeout(crate::peers::DEADLINE, fetch.done()).await;
        done.expect("in time").expect("the blob");
    }
    fetches
}

pub(crate) async fn seeded(bytes: &bytes::Bytes) -> (Peer, BlobRef) {
    let seed = Peer::new(source()).await;
    let blob = seed.store.add_bytes(bytes.clone(), "data").await.expect("added");
    (seed, blob)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_peers_cost_the_source_little_more_than_one_copy() {
    let bytes = noise(64 * MIB + 4321);
    let (seed, blob) = seeded(&bytes).await;
    let mut peers = Vec::new();
    for _ in 0..4 {
        peers.push(Peer::new(Serving::default()).await);
    }
    let fetches = fetch_all(&peers, blob, &seed.provider(), &[]).await;
    for (peer, fetch) in peers.iter().zip(&fetches) {
        assert_eq!(peer.store.read(blob.hash, u64::MAX).await.expect("here"), bytes);
        let came: u64 = fetch.bytes_by_provider().values().sum();
        // What came of a request that was dropped is known but for its last moments.
        assert!((blob.size.get() * 9 / 10..blob.size.get() * 11 / 10).contains(&came), "{came}");
    }
    let from_source: u64 = fetches
        .iter()
        .map(|fetch| fetch.bytes_by_provider().get(&seed.endpoint.peer_id()).copied().unwrap_or_default())
        .sum();
    assert!(from_source < blob.size.get() * 3 / 2, "the source sent {from_source} of {}", blob.size);
}

#[tokio::test]
async fn what_a_task_waits_for_comes_first_and_before_the_rest() {
    let bytes = noise(32 * MIB);
    let seed = Peer::new(Serving { upload: std::num::NonZeroU64::new(8 << 20), is_source: true }).await;
    let blob = seed.store.add_bytes(bytes.clone(), "data").await.expect("added");
    let peer = Peer::new(Serving::default()).await;
    let fetch = peer.fetch(blob, &seed.provider(), &[]).await;
    let range = 20 * MIB + 5..20 * MIB + 1000;
    fetch.range(range.clone()).await.expect("it comes");
    let part = peer.store.read_part(blob, range).await.expect("here");
    assert_eq!(part, bytes.slice(20 * (1 << 20) + 5..20 * (1 << 20) + 1000));
    assert!(!peer.store.has(blob.hash).await.expect("a store"), "the rest is still on its way");
    assert!(peer.store.read_part(blob, 0..blob.size.get()).await.is_err(), "and can't be read");
}

#[tokio::test]
async fn of_a_part_no_more_comes_than_the_pieces_that_hold_it() {
    let bytes = noise(32 * MIB);
    let (holder, blob) = seeded(&bytes).await;
    // The source has lost it.
    let empty = Peer::new(source()).await;
    let told = Told { source: Some(empty.provider()), others: vec![holder.provider()] };
    let peer = Peer::new(Serving::default()).await;
    peer.store.tag("part", blob.hash).await.expect("tagged");
    let range = 20 * MIB - 5..20 * MIB + 1000;
    let came = peer.swarm.fetch_part(blob, range.clone(), told.clone()).await.expect("it comes");
    assert_eq!(came.into_iter().collect::<Vec<_>>(), [(holder.endpoint.peer_id(), 2 * MIB)]);
    let part = peer.store.read_part(blob, range.clone()).await.expect("here");
    assert_eq!(part, bytes.slice(20 * (1 << 20) - 5..20 * (1 << 20) + 1000));
    assert!(!peer.store.has(blob.hash).await.expect("a store"));
    let again = peer.swarm.fetch_part(blob, range, told.clone()).await.expect("it is here");
    assert!(again.is_empty());
    peer.swarm.fetch_part(blob, 7..7, told).await.expect("nothing is always here");
}

#[tokio::test]
async fn what_nobody_has_is_given_up_as_soon_as_was_asked_for() {
    let (empty, store) = (Peer::new(source()).await, BlobStore::in_memory());
    let endpoint = endpoint().await;
    let server = BlobServer::with(&store, AdmitAll, Serving::default(), ConnectionLimits::default());
    let transport = IrohBlobs::new(endpoint.clone(), store.clone(), None);
    let patience = std::time::Duration::from_millis(200);
    let swarm = Swarm::with_patience(endpoint.peer_id(), transport, store, server, patience);
    let told = Told { source: Some(empty.provider()), others: vec![] };
    let blob = BlobRef {
        hash: talka_core::ids::BlobHash::new([7; 32]),
        size: talka_core::quantities::Bytes::mib(4),
    };
    let error = swarm.fetch_part(blob, 0..MIB, told).await.expect_err("nobody has it");
    assert!(matches!(*error, FetchBlobError::NoProvider { .. }), "{error:?}");
}

#[tokio::test]
async fn a_fetch_goes_on_with_what_is_on_disk() {
    let bytes = noise(6 * MIB);
    let (seed, blob) = seeded(&bytes).await;
    let dir = tempfile::tempdir().expect("a directory");
    let store = BlobStore::open(dir.path()).await.expect("opened");
    let first = Peer::with(store.clone(), Serving::default(), None).await;
    store.tag("job/1/0", blob.hash).await.expect("tagged");
    first.transport.fetch_range(&seed.provider(), blob, 0..4 * MIB, |_| ()).await.expect("a part");
    store.sync().await.expect("durable");
    store.shutdown().await;

    let store = BlobStore::open(dir.path()).await.expect("opened again");
    let second = Peer::with(store.clone(), Serving::default(), None).await;
    let fetch = second.fetch(blob, &seed.provider(), &[]).await;
    fetch.done().await.expect("the rest");
    assert_eq!(fetch.bytes_by_provider().values().sum::<u64>(), 2 * MIB);
    assert_eq!(store.read(blob.hash, u64::MAX).await.expect("here"), bytes);
    store.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poisoners_are_banned_at_the_first_bad_group_and_honest_peers_never() {
    let bytes = noise(16 * MIB);
    let (seed, blob) = seeded(&bytes).await;
    let (mut liars, mut routers) = (Vec::new(), Vec::new());
    for number in 0..3 {
        // Somewhere in the first groups of an answer, behind its header.
        let (liar, router) = evil(seed.endpoint.address(), Trick::Flip(20_000 + number * 40_000)).await;
        liars.push(liar);
        routers.push(router);
    }
    let mut peers = Vec::new();
    for _ in 0..4 {
        peers.push(Peer::new(Serving::default()).await);
    }
    // The liars look like peers, and the source is slow to be asked.
    fetch_all(&peers, blob, &seed.provider(), &liars).await;
    let mut bans = 0;
    for peer in &peers {
        assert_eq!(peer.store.read(blob.hash, u64::MAX).await.expect("here"), bytes, "nothing wrong is kept");
        bans += liars.iter().filter(|liar| peer.swarm.is_banned(liar.peer())).count();
        let honest = peers.iter().map(|other| other.endpoint.peer_id()).chain([seed.endpoint.peer_id()]);
        assert!(honest.into_iter().all(|honest| !peer.swarm.is_banned(honest)), "an honest peer is banned");
    }
    assert!(bans > 0, "nobody was found out");
}

#[tokio::test]
async fn a_wrong_length_is_a_lie_too() {
    let bytes = noise(2 * MIB);
    let (seed, blob) = seeded(&bytes).await;
    for claim in [0, 1, blob.size.get() + 1, 1 << 40, u64::MAX] {
        let (liar, _router) = evil(seed.endpoint.address(), Trick::Claim(claim)).await;
        let peer = Peer::new(Serving::default()).await;
        let told = Told { source: None, others: vec![liar.clone()] };
        let _fetch = peer.swarm.fetch(blob, told).await.expect("it starts");
        eventually("the liar is banned", || async { peer.swarm.is_banned(liar.peer()).then_some(()) }).await;
        assert!(!peer.store.has(blob.hash).await.expect("a store"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stalls_holds_nobody_up_for_long() {
    let bytes = noise(8 * MIB);
    let (seed, blob) = seeded(&bytes).await;
    let (mut stallers, mut routers) = (Vec::new(), Vec::new());
    for bytes in [0, 9, 100_000] {
        let (staller, router) = evil(seed.endpoint.address(), Trick::Stall(bytes)).await;
        stallers.push(staller);
        routers.push(router);
    }
    let peers = [Peer::new(Serving::default()).await];
    fetch_all(&peers, blob, &seed.provider(), &stallers).await;
    assert_eq!(peers[0].store.read(blob.hash, u64::MAX).await.expect("here"), bytes);
}

#[tokio::test]
async fn who_has_nothing_or_is_not_there_is_passed_over() {
    let bytes = noise(3 * MIB);
    let (seed, blob) = seeded(&bytes).await;
    let empty = Peer::new(Serving::default()).await;
    let gone = Provider::from(talka_peer::address::PeerAddr {
        peer: endpoint().await.peer_id(),
        ..seed.endpoint.address()
    });
    let peer = Peer::new(Serving::default()).await;
    let fetch = peer.fetch(blob, &seed.provider(), &[empty.provider(), gone, peer.provider()]).await;
    fetch.done().await.expect("from the source");
    let from: Vec<PeerId> = fetch.bytes_by_provider().into_keys().collect();
    assert_eq!(from, [seed.endpoint.peer_id()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_requests_gets_its_share_and_no_more() {
    let bytes = noise(8 * MIB);
    let serving = Serving { upload: std::num::NonZeroU64::new(4 << 20), is_source: true };
    let seed = Peer::new(serving).await;
    let blob = seed.store.add_bytes(bytes.clone(), "data").await.expect("added");
    let flooder = Node::new().await;
    let transport = Arc::new(flooder.transport.clone());
    let provider = seed.provider();
    let mut flood = tokio::task::JoinSet::new();
    for request in 0..200_u64 {
        let (transport, provider) = (transport.clone(), provider.clone());
        let at = request % 8 * MIB;
        flood.spawn(async move { transport.fetch_range(&provider, blob, at..at + MIB, |_| ()).await });
    }
    let honest = Peer::new(Serving::default()).await;
    let fetch = honest.fetch(blob, &seed.provider(), &[]).await;
    tokio::time::timeout(crate::peers::DEADLINE, fetch.done()).await.expect("in time").expect("the blob");
    let [to_flooder, to_honest] =
        [&flooder.endpoint, &honest.endpoint].map(|endpoint| seed.store.served().to(endpoint.peer_id()));
    assert!(to_flooder < to_honest * 2, "{to_flooder} bytes to the flood, {to_honest} to the honest peer");
    let mut refused = 0;
    while let Some(result) = flood.join_next().await {
        refused += u32::from(matches!(result.expect("no panic"), Err(FetchError::Busy)));
    }
    assert!(refused > 0, "nothing of the flood was refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caps_of_uploads_and_downloads_hold() {
    const RATE: u64 = 8 << 20;
    let bytes = noise(16 * MIB);
    for (upload, download) in [(Some(RATE), None), (None, Some(RATE))] {
        let serving = Serving { upload: upload.and_then(std::num::NonZeroU64::new), is_source: true };
        let seed = Peer::new(serving).await;
        let blob = seed.store.add_bytes(bytes.clone(), "data").await.expect("added");
        let peer = Peer::with(BlobStore::in_memory(), Serving::default(), download).await;
        let begun = Instant::now();
        let fetch = peer.fetch(blob, &seed.provider(), &[]).await;
        fetch.done().await.expect("the blob");
        // What may leave at once after a pause is a sixteenth of a MiB.
        let least = (16.0 - 0.0625) / 8.0 * 0.95;
        assert!(begun.elapsed().as_secs_f64() >= least, "{:?} at {upload:?}, {download:?}", begun.elapsed());
    }
}
