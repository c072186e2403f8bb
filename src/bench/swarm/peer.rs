//! One peer process, from inside.

use std::{num::NonZeroU64, process::ExitCode, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use talka_core::{
    ids::{BlobHash, PeerId},
    job::BlobRef,
    limits,
    quantities::Bytes as Size,
};
use talka_peer::{
    Cause,
    blobs::{self, Admit, AdmitAll, BlobServer, BlobStore, Serving},
    connections::ConnectionLimits,
    endpoint::{EndpointConfig, PeerEndpoint},
    faults::Poisoner,
    identity::Identity,
    rpc::{self, PeerHandler},
    swarm::{Members, Swarm},
    transfer::{GrpcBlobs, IrohBlobs, Provider, Transports},
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{BlobText, Order, PeerText, Word};
use crate::output::Out;

/// What one peer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SwarmPeerConfig {
    /// What it can send, in bytes per second.
    pub(crate) upload: Option<NonZeroU64>,
    /// What it can take, in bytes per second.
    pub(crate) download: Option<NonZeroU64>,
    /// Size of the blob that it makes.
    pub(crate) seed_blob: Option<Size>,
    /// Size of the blob of which it sends wrong bytes.
    pub(crate) poison: Option<Size>,
}

/// Longest order: an address for each of the peers.
const ORDER_BYTES_MAX: u64 = 64 << 10;

/// Serves until the end of standard input.
pub(crate) async fn run(config: SwarmPeerConfig, out: Out) -> anyhow::Result<ExitCode> {
    if let Some(size) = config.poison {
        return poison(size, config.download, out).await;
    }
    let dir = tempfile::TempDir::with_prefix("talka-bench-").context("cannot create a directory")?;
    let store = BlobStore::open(dir.path()).await?;
    let endpoint = PeerEndpoint::bind(EndpointConfig::new(Identity::ephemeral()).on_loopback()).await?;
    let connections = ConnectionLimits::default();
    let serving = Serving { upload: config.upload, is_source: config.seed_blob.is_some() };
    let server = BlobServer::with(&store, AdmitAll, serving, connections.clone());
    let (peers, streams) = PeerHandler::new(connections.clone());
    let router = endpoint.router(&connections).accept(blobs::ALPN, server.clone());
    let router = router.accept(rpc::ALPN, peers).spawn();
    let first = IrohBlobs::new(endpoint.clone(), store.clone(), None).with_download_limit(config.download);
    let second = GrpcBlobs::new(endpoint.clone(), store.clone(), endpoint.address().direct);
    let transport = Transports::both(first, second);
    let swarm = Swarm::new(endpoint.peer_id(), transport, store.clone(), server);
    let stopping = CancellationToken::new();
    let _stop = stopping.clone().drop_guard();
    let exchange =
        AbortOnDropHandle::new(tokio::spawn(swarm.exchange().serve(connections, streams, stopping)));

    let blob = match config.seed_blob {
        Some(size) => Some(store.add_bytes(noise(size)?, "bench/").await?),
        None => None,
    };
    let address = *endpoint.address().direct.first().context("no address")?;
    let peer = PeerText { peer: endpoint.peer_id().to_string(), address };
    let text = |blob: BlobRef| BlobText { hash: blob.hash.to_string(), size: blob.size.get() };
    out.json(&Word::Ready { peer, blob: blob.map(text) })?;

    let mut orders = BufReader::new(tokio::io::stdin().take(ORDER_BYTES_MAX)).lines();
    let (mut fetches, mut known) = (Vec::new(), Vec::new());
    while let Some(line) = orders.next_line().await? {
        match serde_json::from_str(&line)? {
            Order::Fetch { blob, source, others } => {
                let (blob, told, named) = told(&blob, &source, &others)?;
                known.extend(named);
                let fetch = swarm.fetch(blob, told).await?;
                fetch.done().await?;
                out.json(&Word::Fetched)?;
                fetches.push(fetch);
            }
            Order::Check => {
                let mut wrong_bytes = 0;
                for fetch in &fetches {
                    wrong_bytes += wrong(&store, fetch.blob()).await?;
                }
                let banned = known.iter().filter(|peer| swarm.is_banned(**peer));
                out.json(&Word::Checked { wrong_bytes, banned: banned.map(ToString::to_string).collect() })?;
            }
        }
    }
    settled(&store).await;
    let (from_source, from_peers) = swarm.received();
    let ended =
        Word::Ended { served: store.served_bytes(), fetched: from_source + from_peers, cpu_secs: cpu_secs() };
    out.json(&ended)?;
    drop(exchange);
    drop(router.shutdown().await);
    endpoint.close().await;
    store.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

/// Serves nobody right bytes.
struct Nobody;

impl Admit for Nobody {
    fn blob(&self, _peer: PeerId, _blob: BlobHash) -> bool {
        false
    }
}

/// Serves wrong bytes until the end of standard input, and fetches as others do when it is told to.
async fn poison(size: Size, download: Option<NonZeroU64>, out: Out) -> anyhow::Result<ExitCode> {
    let dir = tempfile::TempDir::with_prefix("talka-bench-").context("cannot create a directory")?;
    let store = BlobStore::open(dir.path()).await?;
    let endpoint = PeerEndpoint::bind(EndpointConfig::new(Identity::ephemeral()).on_loopback()).await?;
    let router = endpoint.router(&ConnectionLimits::default());
    let router = router.accept(blobs::ALPN, Poisoner::new(size)).spawn();
    let address = *endpoint.address().direct.first().context("no address")?;
    let first = IrohBlobs::new(endpoint.clone(), store.clone(), None).with_download_limit(download);
    let second = GrpcBlobs::new(endpoint.clone(), store.clone(), []);
    let server = BlobServer::with(&store, Nobody, Serving::default(), ConnectionLimits::default());
    let swarm = Swarm::new(endpoint.peer_id(), Transports::both(first, second), store.clone(), server);
    out.json(&Word::Ready { peer: PeerText { peer: endpoint.peer_id().to_string(), address }, blob: None })?;
    let mut orders = BufReader::new(tokio::io::stdin().take(ORDER_BYTES_MAX)).lines();
    let mut fetches = Vec::new();
    while let Some(line) = orders.next_line().await? {
        if let Order::Fetch { blob, source, others } = serde_json::from_str(&line)? {
            let (blob, told, _) = told(&blob, &source, &others)?;
            // Nobody waits for it.
            fetches.push(swarm.fetch(blob, told).await?);
        }
    }
    let (from_source, from_peers) = swarm.received();
    out.json(&Word::Ended { served: 0, fetched: from_source + from_peers, cpu_secs: cpu_secs() })?;
    drop(fetches);
    drop(router.shutdown().await);
    endpoint.close().await;
    store.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

/// How many bytes of a blob that was fetched are not those that the source made.
async fn wrong(store: &BlobStore, blob: BlobRef) -> anyhow::Result<u64> {
    /// What is compared at once.
    const BYTES: u64 = 4 << 20;
    let right = noise(blob.size)?;
    let (mut wrong, mut start) = (0, 0);
    while start < blob.size.get() {
        let end = (start + BYTES).min(blob.size.get());
        let found = store.read_range(blob.hash, start..end).await?;
        let expected = right.slice(usize::try_from(start)?..usize::try_from(end)?);
        wrong += found.iter().zip(&expected).filter(|(found, expected)| found != expected).count() as u64;
        wrong += expected.len().abs_diff(found.len()) as u64;
        start = end;
    }
    Ok(wrong)
}

/// Waits until transfers that have just ended are counted.
async fn settled(store: &BlobStore) {
    /// Nothing takes longer from the last byte to the books.
    const QUIET: Duration = Duration::from_millis(200);
    let mut served = store.served_bytes();
    loop {
        tokio::time::sleep(QUIET).await;
        let now = store.served_bytes();
        if now == served {
            return;
        }
        served = now;
    }
}

fn provider(text: &PeerText) -> anyhow::Result<Provider> {
    Ok(Provider::dial(text.peer.parse()?, vec![text.address]))
}

/// What an order to fetch means: the blob, whom to ask, and all who are named.
fn told(
    blob: &BlobText,
    source: &PeerText,
    others: &[PeerText],
) -> anyhow::Result<(BlobRef, Told, Vec<PeerId>)> {
    let blob = BlobRef { hash: blob.hash.parse()?, size: Size::new(blob.size) };
    let source = provider(source)?;
    let others = others.iter().map(provider).collect::<anyhow::Result<Vec<_>>>()?;
    let named = others.iter().chain([&source]).map(Provider::peer).collect();
    Ok((blob, Told { source, others }, named))
}

/// Whom this peer was told of, once and for all.
struct Told {
    source: Provider,
    others: Vec<Provider>,
}

impl Members for Told {
    fn source(&self) -> Option<Provider> {
        Some(self.source.clone())
    }

    fn others(&self, _blob: BlobRef) -> BoxFuture<'_, Result<Vec<Provider>, Cause>> {
        // As many as a tracker names.
        let named = self.others.iter().take(limits::PROVIDERS_MAX).cloned().collect();
        std::future::ready(Ok(named)).boxed()
    }
}

/// Bytes without pattern.
fn noise(size: Size) -> anyhow::Result<Bytes> {
    let len = usize::try_from(size.get()).context("the blob does not fit memory")?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    Ok(bytes.into())
}

/// Processor time of this process.
fn cpu_secs() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_the_length_that_was_asked_for() {
        for len in [0, 1, 7, 8, 1000] {
            assert_eq!(noise(Size::new(len)).expect("small").len() as u64, len);
        }
    }
}
