//! Blobs from peer to peer.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use iroh_blobs::{
    Hash,
    protocol::{ChunkRangesSeq, GetManyRequest, GetRequest},
};
use talka_core::{
    ids::{BlobHash, PeerId},
    job::BlobRef,
    quantities::Bytes,
};
use talka_peer::{
    address::PeerAddr,
    blobs::{self, Admit, AdmitAll, BlobStore},
    transfer::{ChunkTransport, FetchBlobError, FetchError, Fetcher, Provider, Providers, fetch_blob},
};
use tokio_util::sync::CancellationToken;

use crate::{
    evil::{Trick, evil},
    peers::{Node, endpoint, eventually, noise},
};

const MIB: u64 = 1 << 20;

impl Node {
    fn provider(&self) -> Provider {
        self.endpoint.address().into()
    }

    async fn fetch(
        &self,
        blob: BlobRef,
        providers: impl Providers,
    ) -> Result<talka_peer::transfer::FetchReport, FetchBlobError> {
        fetch_blob(&self.transport, &self.store, blob, providers, &CancellationToken::new()).await
    }
}

fn those<const N: usize>(providers: [Provider; N]) -> VecDeque<Provider> {
    providers.into()
}

fn failures(error: FetchBlobError) -> Vec<(PeerId, FetchError)> {
    match error {
        FetchBlobError::NoProvider { failures, .. } => failures,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_blob_is_fetched_in_pieces_and_counted_to_the_peer() {
    let (seed, leech) = (Node::new().await, Node::new().await);
    let bytes = noise(20 * MIB + 12_345);
    let blob = seed.store.add_bytes(bytes.clone(), "data").await.expect("added");
    let report = leech.fetch(blob, those([seed.provider()])).await.expect("fetched");
    assert_eq!(
        report.bytes_by_provider.into_iter().collect::<Vec<_>>(),
        [(seed.endpoint.peer_id(), blob.size.get())]
    );
    assert_eq!(leech.store.read(blob.hash, u64::MAX).await.expect("here"), bytes);
    eventually("the upload is counted", || async {
        (seed.store.served().to(leech.endpoint.peer_id()) == blob.size.get()).then_some(())
    })
    .await;
    assert_eq!(seed.store.served_bytes(), blob.size.get());

    let again = leech.fetch(blob, those([])).await.expect("here already");
    assert!(again.bytes_by_provider.is_empty());
}

#[tokio::test]
async fn small_and_empty_blobs_arrive_too() {
    let (seed, leech) = (Node::new().await, Node::new().await);
    for len in [0, 1, 1023, 1024, 1025, 16_384, 16_385] {
        let bytes = noise(len);
        let blob = seed.store.add_bytes(bytes.clone(), &format!("data/{len}")).await.expect("added");
        leech.fetch(blob, those([seed.provider()])).await.expect("fetched");
        assert_eq!(leech.store.read(blob.hash, MIB).await.expect("here"), bytes, "{len} bytes");
    }
}

#[tokio::test]
async fn a_peer_that_cannot_be_dialed_offers_its_blobs_itself() {
    let (coordinator, submitter) = (Node::new().await, Node::new().await);
    let blob = submitter.store.add_bytes(noise(3 * MIB), "data").await.expect("added");
    let shutdown = CancellationToken::new();
    let offer = blobs::offer(
        submitter.endpoint.clone(),
        coordinator.endpoint.address(),
        submitter.server.clone(),
        shutdown.clone(),
    );
    let offer = tokio::spawn(offer);
    // At once: the fetch waits for the offer.
    let provider = Provider::reverse(submitter.endpoint.peer_id());
    let fetcher = Fetcher::new(
        coordinator.endpoint.clone(),
        coordinator.store.clone(),
        Some(coordinator.reverse.clone()),
    );
    let mut seen = 0;
    let came = fetcher.fetch(&provider, blob, "request/1/0", |bytes| seen = bytes).await.expect("fetched");
    assert_eq!((came, seen), (blob.size.get(), blob.size.get()));
    assert_eq!(coordinator.store.tagged("request/1/0").await.expect("tags"), Some(blob.hash));
    assert!(coordinator.reverse.contains(submitter.endpoint.peer_id()));

    shutdown.cancel();
    offer.await.expect("it ended");
    eventually("the offer is withdrawn", || async {
        (!coordinator.reverse.contains(submitter.endpoint.peer_id())).then_some(())
    })
    .await;
    let other = BlobRef { hash: BlobHash::new([7; 32]), size: Bytes::new(1) };
    let error = fetcher.fetch(&provider, other, "request/2/0", |_| ()).await.expect_err("nobody offers it");
    assert!(matches!(error, FetchError::NotOffered(_)), "{error:?}");
}

#[tokio::test]
async fn a_flipped_bit_is_found_and_the_rest_comes_from_the_next_provider() {
    let (seed, leech) = (Node::new().await, Node::new().await);
    let bytes = noise(8 * MIB);
    let blob = seed.store.add_bytes(bytes.clone(), "data").await.expect("added");
    let (liar, _router) = evil(seed.endpoint.address(), Trick::Flip(5 << 20)).await;

    let failures =
        failures(leech.fetch(blob, those([liar.clone()])).await.expect_err("one provider, and it lies"));
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].0, liar.peer(), "the lie is attributed");
    assert!(failures[0].1.is_lie(), "{:?}", failures[0].1);

    let report = leech.fetch(blob, those([seed.provider()])).await.expect("an honest one");
    assert_eq!(leech.store.read(blob.hash, u64::MAX).await.expect("here"), bytes);
    let honest = report.bytes_by_provider[&seed.endpoint.peer_id()];
    assert!(honest < 4 * MIB, "what was verified before the lie was kept: {honest}");
}

#[tokio::test]
async fn a_stalling_provider_is_given_up() {
    let stall = Duration::from_millis(300);
    let (seed, leech) = (Node::new().await, Node::new().await.with_patience(stall, 0));
    let blob = seed.store.add_bytes(noise(4 * MIB), "data").await.expect("added");
    for bytes in [0, 100, 2 << 20] {
        let (stalling, _router) = evil(seed.endpoint.address(), Trick::Stall(bytes)).await;
        let start = Instant::now();
        let failures = failures(leech.fetch(blob, those([stalling])).await.expect_err("it stalls"));
        assert!(matches!(failures[0].1, FetchError::Stalled(_)), "{failures:?}");
        assert!(start.elapsed() >= stall, "{:?}", start.elapsed());
    }
    leech.fetch(blob, those([seed.provider()])).await.expect("the next one serves");
}

#[tokio::test]
async fn a_crawling_provider_is_given_up_and_an_upload_cap_holds() {
    let seed = Node::at_rate(BlobStore::in_memory(), AdmitAll, Some(512 << 10)).await;
    let blob = seed.store.add_bytes(noise(MIB), "data").await.expect("added");
    let hasty = Node::new().await.with_patience(Duration::from_millis(500), 100 * MIB);
    let failures = failures(hasty.fetch(blob, those([seed.provider()])).await.expect_err("too slow for it"));
    assert!(matches!(failures[0].1, FetchError::TooSlow { .. }), "{failures:?}");

    let start = Instant::now();
    let patient = Node::new().await;
    patient.fetch(blob, those([seed.provider()])).await.expect("in its time");
    assert!(start.elapsed() > Duration::from_millis(1500), "1 MiB at 512 KiB/s took {:?}", start.elapsed());
}

#[tokio::test]
async fn another_length_than_expected_is_refused_before_the_first_byte() {
    let (seed, leech) = (Node::new().await, Node::new().await);
    let blob = seed.store.add_bytes(noise(MIB), "data").await.expect("added");
    for claim in [0, 1, blob.size.get() + 1, 1 << 40, u64::MAX] {
        let (liar, _router) = evil(seed.endpoint.address(), Trick::Claim(claim)).await;
        let failures = failures(leech.fetch(blob, those([liar])).await.expect_err("a wrong claim"));
        let claimed = Bytes::new(claim);
        assert!(
            matches!(&failures[0].1, FetchError::WrongSize { claimed: c, .. } if *c == claimed),
            "{failures:?}"
        );
    }
    let named_wrong = BlobRef { size: Bytes::new(1000), ..blob };
    let failures =
        failures(leech.fetch(named_wrong, those([seed.provider()])).await.expect_err("a wrong name"));
    assert!(matches!(failures[0].1, FetchError::WrongSize { .. }), "{failures:?}");

    let too_long = BlobRef { size: Bytes::new(u64::MAX), ..blob };
    let error = leech.fetch(too_long, those([seed.provider()])).await.expect_err("nobody has so much disk");
    assert!(matches!(error, FetchBlobError::Local(FetchError::OutOfRange { .. })), "{error:?}");
}

#[tokio::test]
async fn providers_are_tried_in_their_order() {
    let (empty, seed, leech) = (Node::new().await, Node::new().await, Node::new().await);
    let blob = seed.store.add_bytes(noise(100_000), "data").await.expect("added");
    let gone = Provider::from(PeerAddr { peer: endpoint().await.peer_id(), ..seed.endpoint.address() });
    let unknown =
        failures(leech.fetch(blob, those([empty.provider(), gone.clone()])).await.expect_err("nobody"));
    assert!(
        matches!(unknown[0], (peer, FetchError::NotHeld) if peer == empty.endpoint.peer_id()),
        "{unknown:?}"
    );
    assert!(matches!(unknown[1], (peer, FetchError::Connect(_)) if peer == gone.peer()), "{unknown:?}");
    let report =
        leech.fetch(blob, those([empty.provider(), gone, seed.provider()])).await.expect("the third");
    assert_eq!(report.bytes_by_provider.len(), 1);
}

#[tokio::test]
async fn a_fetch_goes_on_after_a_restart_where_it_was() {
    let seed = Node::new().await;
    let bytes = noise(6 * MIB);
    let blob = seed.store.add_bytes(bytes.clone(), "data").await.expect("added");
    let dir = tempfile::tempdir().expect("a directory");

    let store = BlobStore::open(dir.path()).await.expect("opened");
    let first = Node::with(store.clone(), AdmitAll).await;
    store.tag("job/1/0", blob.hash).await.expect("tagged");
    let fetched =
        first.transport.fetch_range(&seed.provider(), blob, 0..4 * MIB, |_| ()).await.expect("a part");
    assert_eq!(fetched.bytes, 4 * MIB);
    let again =
        first.transport.fetch_range(&seed.provider(), blob, MIB..3 * MIB, |_| ()).await.expect("it is here");
    assert_eq!(again.bytes, 0);
    assert!(!store.has(blob.hash).await.expect("a store"));
    store.sync().await.expect("durable");
    store.shutdown().await;

    let store = BlobStore::open(dir.path()).await.expect("opened again");
    let second = Node::with(store.clone(), AdmitAll).await;
    let report = second.fetch(blob, those([seed.provider()])).await.expect("the rest");
    assert_eq!(report.bytes_by_provider[&seed.endpoint.peer_id()], 2 * MIB);
    assert_eq!(store.read(blob.hash, u64::MAX).await.expect("here"), bytes);
    store.shutdown().await;
}

#[tokio::test]
async fn a_cancelled_fetch_ends_at_once() {
    let seed = Node::at_rate(BlobStore::in_memory(), AdmitAll, Some(1 << 10)).await;
    let leech = Node::new().await;
    let blob = seed.store.add_bytes(noise(MIB), "data").await.expect("added");
    let cancel = CancellationToken::new();
    let fetch = fetch_blob(&leech.transport, &leech.store, blob, those([seed.provider()]), &cancel);
    let cancelled = async {
        eventually("a connection", || async { (leech.store.served_bytes() == 0).then_some(()) }).await;
        cancel.cancel();
    };
    let (fetched, ()) = tokio::join!(fetch, cancelled);
    assert!(matches!(fetched, Err(FetchBlobError::Cancelled)), "{fetched:?}");
}

/// Lets everybody have one blob.
struct Only(BlobHash);

impl Admit for Only {
    fn blob(&self, _peer: PeerId, blob: BlobHash) -> bool {
        blob == self.0
    }
}

/// Lets nobody in.
struct Nobody;

impl Admit for Nobody {
    fn peer(&self, _peer: PeerId) -> bool {
        false
    }

    fn blob(&self, _peer: PeerId, _blob: BlobHash) -> bool {
        true
    }
}

#[tokio::test]
async fn only_admitted_blobs_leave_by_whatever_request() {
    let store = BlobStore::in_memory();
    let secret = store.add_bytes(noise(50_000), "secret").await.expect("added");
    // A public blob that names the secret one, as a sequence of hashes does.
    let public = store.add_bytes(secret.hash.as_bytes().to_vec(), "public").await.expect("added");
    let seed = Node::with(store, Only(public.hash)).await;
    let leech = Node::new().await;
    leech.fetch(public, those([seed.provider()])).await.expect("it is public");
    let refused = failures(leech.fetch(secret, those([seed.provider()])).await.expect_err("it is secret"));
    assert!(matches!(refused[0].1, FetchError::Refused), "{refused:?}");

    let hash = |blob: BlobRef| Hash::from_bytes(*blob.hash.as_bytes());
    let thief = iroh_blobs::store::mem::MemStore::new();
    let connection = leech.endpoint.connect(&seed.endpoint.address(), blobs::ALPN).await.expect("connected");
    let sequence = GetRequest::all(hash(public));
    thief.remote().execute_get(connection.clone(), sequence).await.expect_err("no sequences");
    let many = GetManyRequest::new(vec![hash(public), hash(secret)], ChunkRangesSeq::all());
    thief.remote().execute_get_many(connection, many).await.expect_err("one of them is secret");
    assert!(!thief.has(hash(secret)).await.expect("a store"));
}

#[tokio::test]
async fn a_peer_that_is_not_admitted_gets_nothing() {
    let store = BlobStore::in_memory();
    let blob = store.add_bytes(noise(50_000), "data").await.expect("added");
    let seed = Node::with(store, Nobody).await;
    let refused =
        failures(Node::new().await.fetch(blob, those([seed.provider()])).await.expect_err("not admitted"));
    assert!(matches!(refused[0].1, FetchError::Refused | FetchError::Broken(_)), "{refused:?}");
}
