//! A provider between a peer and an honest provider, which passes the honest one's answers on, almost.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use iroh::{
    endpoint::{Connection, RecvStream, SendStream},
    protocol::{AcceptError, ProtocolHandler},
};
use iroh_blobs::protocol::{ChunkRanges, ChunkRangesExt, ObserveItem};
use talka_peer::{
    Router, address::PeerAddr, blobs, connections::ConnectionLimits, endpoint::PeerEndpoint,
    transfer::Provider,
};

use crate::peers::endpoint;

/// What it does to an answer.
#[derive(Debug, Clone)]
pub(crate) enum Trick {
    /// Flips one bit of this byte.
    Flip(usize),
    /// Sends this many bytes and then nothing, for ever.
    Stall(usize),
    /// Claims this length.
    Claim(u64),
    /// Sends so many bytes each second, for ever.
    Drip(usize),
    /// Says that it does not have what it says that it has.
    Lack,
    /// The same, and says without end what it has.
    Flood(Flood),
}

/// How a flood of reports went: clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flood {
    /// Questions that were answered so until nobody listened any more.
    pub(crate) ended: Arc<AtomicU64>,
    /// The most reports that one of them took.
    pub(crate) most: Arc<AtomicU64>,
}

impl Flood {
    /// Says that it has everything, and then runs with gaps, far beyond the blob as well.
    async fn pour(&self, answer: &mut SendStream, size: u64) -> Result<(), AcceptError> {
        let gaps = (0..1000_u64).map(|run| ChunkRanges::chunks(run * 3..run * 3 + 2));
        let gaps = gaps.fold(ChunkRanges::chunks(1 << 40..1 << 41), |all, run| all | run);
        let (all, gaps) = (report(size, ChunkRanges::all())?, report(u64::MAX, gaps)?);
        answer.write_all(&all).await.map_err(AcceptError::from_err)?;
        let mut reports = 1;
        while answer.write_all(&gaps).await.is_ok() {
            reports += 1;
        }
        self.most.fetch_max(reports, Ordering::Relaxed);
        self.ended.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// What a peer has, as it says on the wire.
fn report(size: u64, ranges: ChunkRanges) -> Result<Vec<u8>, AcceptError> {
    let item = postcard::to_extend(&ObserveItem { size, ranges }, Vec::new());
    let item = item.map_err(AcceptError::from_err)?;
    let mut message = postcard::to_extend(&item.len(), Vec::new()).map_err(AcceptError::from_err)?;
    message.extend(item);
    Ok(message)
}

#[derive(Debug, Clone)]
struct Evil {
    upstream: PeerAddr,
    endpoint: PeerEndpoint,
    trick: Trick,
}

/// Starts one. It works until the router is dropped.
pub(crate) async fn evil(upstream: PeerAddr, trick: Trick) -> (Provider, Router) {
    let endpoint = endpoint().await;
    let provider = Provider::from(endpoint.address());
    let handler = Evil { upstream, endpoint: endpoint.clone(), trick };
    let router = endpoint.router(&ConnectionLimits::default()).accept(blobs::ALPN, handler).spawn();
    (provider, router)
}

impl ProtocolHandler for Evil {
    async fn accept(&self, victim: Connection) -> Result<(), AcceptError> {
        let upstream =
            self.endpoint.connect(&self.upstream, blobs::ALPN).await.map_err(AcceptError::from_err)?;
        loop {
            let (answer, question) = victim.accept_bi().await?;
            let (ask, honest) = upstream.open_bi().await?;
            let (victim, trick) = (victim.clone(), self.trick.clone());
            // The victim may have had enough of it at any time.
            tokio::spawn(
                async move { drop(pass_on(victim, trick, (question, ask), (honest, answer)).await) },
            );
        }
    }
}

/// Passes one request on, and its answer back, almost.
async fn pass_on(
    victim: Connection,
    trick: Trick,
    (mut question, mut ask): (RecvStream, SendStream),
    (mut honest, mut answer): (RecvStream, SendStream),
) -> Result<(), AcceptError> {
    /// A request for bytes begins with it; others, as those for what is held, are answered in truth.
    const GET: u8 = 0;
    let request = question.read_to_end(1 << 20).await.map_err(AcceptError::from_err)?;
    let is_get = request.first() == Some(&GET);
    if let (Trick::Flood(flood), false) = (&trick, is_get) {
        let size = 1 << 30;
        return flood.pour(&mut answer, size).await;
    }
    let trick = is_get.then_some(trick);
    ask.write_all(&request).await.map_err(AcceptError::from_err)?;
    ask.finish()?;
    let mut sent = 0;
    let mut buffer = vec![0; 1 << 16];
    while let Some(read) = honest.read(&mut buffer).await.map_err(AcceptError::from_err)? {
        let bytes = &mut buffer[..read];
        match &trick {
            Some(Trick::Flip(at)) if (sent..sent + read).contains(at) => bytes[*at - sent] ^= 1,
            Some(Trick::Stall(at)) if sent + read > *at => {
                answer.write_all(&bytes[..at - sent]).await.map_err(AcceptError::from_err)?;
                // It keeps nobody else waiting.
                honest.stop(0_u32.into()).ok();
                victim.closed().await;
                return Ok(());
            }
            Some(Trick::Lack | Trick::Flood(_)) => {
                /// What an honest provider says then.
                const INTERNAL: u32 = 3;
                honest.stop(0_u32.into()).ok();
                return Ok(answer.reset(INTERNAL.into())?);
            }
            Some(Trick::Drip(rate)) => {
                for drop in bytes.chunks(*rate) {
                    answer.write_all(drop).await.map_err(AcceptError::from_err)?;
                    // That is the trick.
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            }
            Some(Trick::Claim(size)) if sent == 0 => bytes[..8].copy_from_slice(&size.to_le_bytes()),
            _ => {}
        }
        sent += read;
        if !matches!(trick, Some(Trick::Drip(_))) {
            answer.write_all(bytes).await.map_err(AcceptError::from_err)?;
        }
    }
    answer.finish().ok();
    Ok(())
}
