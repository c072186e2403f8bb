//! One peer process, from inside.

use std::{num::NonZeroU64, process::ExitCode, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use talka_core::{job::BlobRef, limits, quantities::Bytes as Size};
use talka_peer::{
    Cause,
    blobs::{self, AdmitAll, BlobServer, BlobStore, Serving},
    connections::ConnectionLimits,
    endpoint::{EndpointConfig, PeerEndpoint},
    identity::Identity,
    swarm::{Members, Swarm},
    transfer::{IrohBlobs, Provider},
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

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
}

/// Longest order: an address for each of the peers.
const ORDER_BYTES_MAX: u64 = 64 << 10;

/// Serves until the end of standard input.
pub(crate) async fn run(config: SwarmPeerConfig, out: Out) -> anyhow::Result<ExitCode> {
    let dir = tempfile::TempDir::with_prefix("talka-bench-").context("cannot create a directory")?;
    let store = BlobStore::open(dir.path()).await?;
    let endpoint = PeerEndpoint::bind(EndpointConfig::new(Identity::ephemeral()).on_loopback()).await?;
    let connections = ConnectionLimits::default();
    let serving = Serving { upload: config.upload, is_source: config.seed_blob.is_some() };
    let server = BlobServer::with(&store, AdmitAll, serving, connections.clone());
    let router = endpoint.router(&connections).accept(blobs::ALPN, server.clone()).spawn();
    let transport =
        IrohBlobs::new(endpoint.clone(), store.clone(), None).with_download_limit(config.download);
    let swarm = Swarm::new(endpoint.peer_id(), transport, store.clone(), server);

    let blob = match config.seed_blob {
        Some(size) => Some(store.add_bytes(noise(size)?, "bench/").await?),
        None => None,
    };
    let address = *endpoint.address().direct.first().context("no address")?;
    let peer = PeerText { peer: endpoint.peer_id().to_string(), address };
    let text = |blob: BlobRef| BlobText { hash: blob.hash.to_string(), size: blob.size.get() };
    out.json(&Word::Ready { peer, blob: blob.map(text) })?;

    let mut orders = BufReader::new(tokio::io::stdin().take(ORDER_BYTES_MAX)).lines();
    let mut fetches = Vec::new();
    while let Some(line) = orders.next_line().await? {
        let Order::Fetch { blob, source, others } = serde_json::from_str(&line)?;
        let blob = BlobRef { hash: blob.hash.parse()?, size: Size::new(blob.size) };
        let others = others.iter().map(provider).collect::<anyhow::Result<_>>()?;
        let fetch = swarm.fetch(blob, Told { source: provider(&source)?, others }).await?;
        fetch.done().await?;
        out.json(&Word::Fetched)?;
        fetches.push(fetch);
    }
    settled(&store).await;
    out.json(&Word::Ended { served: store.served_bytes(), cpu_secs: cpu_secs() })?;
    drop(router.shutdown().await);
    endpoint.close().await;
    store.shutdown().await;
    Ok(ExitCode::SUCCESS)
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
