//! The second transport: answers of the blob protocol in messages of gRPC, for when the first one fails.

use std::{
    collections::HashMap,
    io,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Bytes, BytesMut};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use iroh::endpoint::VarInt;
use iroh_blobs::{get::StreamPair, protocol::GetRequest, util::RecvStream};
use talka_core::{
    ids::PeerId,
    job::BlobRef,
    limits,
    swarm::{PieceNo, acquaintances::is_worth_a_dial},
};
use talka_proto::{
    convert::{id_bytes, peer_id},
    wire::{self, exchange_client::ExchangeClient},
};
use tonic::{Streaming, transport::Channel};

use super::{
    ChunkTransport, FetchError, Fetched, Provider, check_range,
    follow::Reports,
    intake::{Patience, refusal, take_in},
    sized::{Pace, SizedStream},
};
use crate::{
    address::PeerAddr,
    blobs::{BlobStore, Nowhere},
    endpoint::PeerEndpoint,
    rpc,
};

/// Fetches by the service `Exchange`. Clones share the connections.
#[derive(Debug, Clone)]
pub struct GrpcBlobs {
    endpoint: PeerEndpoint,
    store: BlobStore,
    /// Where this peer can be dialed; empty if it serves nobody.
    addresses: Arc<[String]>,
    pub(super) patience: Patience,
    pub(super) pace: Pace,
    channels: Arc<Mutex<HashMap<PeerId, (PeerAddr, Channel)>>>,
}

impl GrpcBlobs {
    /// Fetches into `store`. Others are told of `addresses` as those where this peer serves.
    pub fn new(
        endpoint: PeerEndpoint,
        store: BlobStore,
        addresses: impl IntoIterator<Item = std::net::SocketAddr>,
    ) -> Self {
        let addresses = addresses.into_iter().map(|address| address.to_string()).collect();
        let (patience, pace) = (Patience::default(), Pace::default());
        Self { endpoint, store, addresses, patience, pace, channels: Arc::default() }
    }

    /// Others who take part in the exchange of a blob, as far as `provider` knows, which knows of this peer from now on.
    pub(crate) async fn members(
        &self,
        provider: &Provider,
        blob: BlobRef,
    ) -> Result<Vec<Provider>, FetchError> {
        let request =
            wire::MembersRequest { hash: id_bytes(blob.hash.as_bytes()), addresses: self.addresses.to_vec() };
        let mut client = self.client(provider)?;
        let reply = self.in_time(client.members(request)).await?.into_inner();
        Ok(reply.members.iter().take(limits::PROVIDERS_MAX).filter_map(named).collect())
    }

    fn client(&self, provider: &Provider) -> Result<ExchangeClient<Channel>, FetchError> {
        let (peer, address) = (provider.peer(), provider.address());
        if !address.is_dialable() {
            return Err(FetchError::NotOffered(peer));
        }
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if channels.len() >= limits::PROVIDER_CONNECTIONS_MAX && !channels.contains_key(&peer) {
            // Calls that run keep theirs.
            channels.clear();
        }
        let connect = || (address.clone(), rpc::channel(self.endpoint.clone(), address.clone()));
        let kept = channels.entry(peer).or_insert_with(connect);
        if kept.0 != *address {
            *kept = connect();
        }
        Ok(ExchangeClient::new(kept.1.clone()).max_decoding_message_size(limits::MESSAGE_BYTES_MAX))
    }

    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<tonic::Response<T>, FetchError> {
        let stall = self.patience.stall;
        let answered = tokio::time::timeout(stall, call).await;
        answered.map_err(|_| FetchError::Stalled(stall))?.map_err(refusal)
    }
}

/// A peer that somebody named: a hint, whatever it says.
fn named(provider: &wire::Provider) -> Option<Provider> {
    let addresses = provider.addresses.iter().take(limits::TICKET_ADDRESSES_MAX);
    let addresses: Vec<_> = addresses.filter_map(|text| text.parse().ok()).filter(is_worth_a_dial).collect();
    (!addresses.is_empty()).then_some(Provider::dial(peer_id(&provider.peer).ok()?, addresses))
}

/// Where the ranges of a request begin and end, by turns.
fn bounds(request: &GetRequest) -> Vec<u64> {
    let mut bounds: Vec<u64> = request.ranges[0].boundaries().iter().map(|chunk| chunk.0).collect();
    if !bounds.len().is_multiple_of(2) {
        bounds.push(u64::MAX);
    }
    bounds
}

impl ChunkTransport for GrpcBlobs {
    async fn fetch_range(
        &self,
        provider: &Provider,
        blob: BlobRef,
        range: Range<u64>,
        progress: impl Fn(u64) + Send + Sync,
    ) -> Result<Fetched, FetchError> {
        check_range(blob, &range)?;
        if range.is_empty() {
            return Ok(Fetched { bytes: 0 });
        }
        let Some(request) = self.store.missing(blob.hash, range).await? else {
            return Ok(Fetched { bytes: 0 });
        };
        let asked = wire::FetchRequest { hash: id_bytes(blob.hash.as_bytes()), bounds: bounds(&request) };
        let mut client = self.client(provider)?;
        let parts = self.in_time(client.fetch(asked)).await?.into_inner();
        let receive = SizedStream::new(Parts::new(parts), blob.size.get(), self.pace.clone());
        // The request is on its way already.
        let streams = StreamPair::new(0, receive, Nowhere);
        take_in(&self.store, streams, blob, request, self.patience, &progress).await
    }

    async fn follow(
        &self,
        provider: &Provider,
        blob: BlobRef,
    ) -> Result<BoxStream<'static, Vec<PieceNo>>, FetchError> {
        let asked = wire::PiecesRequest { hash: id_bytes(blob.hash.as_bytes()), size: blob.size.get() };
        let mut client = self.client(provider)?;
        let replies = self.in_time(client.pieces(asked)).await?.into_inner();
        let state = (replies, Reports::of(blob));
        let news = stream::unfold(state, async |(mut replies, mut reports)| {
            let reply = replies.message().await.ok().flatten()?;
            Some((reports.runs(&reply.bounds)?, (replies, reports)))
        });
        Ok(news.boxed())
    }
}

/// The parts of an answer, as one stream of bytes.
struct Parts {
    parts: Streaming<wire::FetchPart>,
    buffer: BytesMut,
}

impl Parts {
    fn new(parts: Streaming<wire::FetchPart>) -> Self {
        Self { parts, buffer: BytesMut::new() }
    }

    /// Reads until so many bytes are there, or the answer ends. The caller asks for little, and a message is bounded.
    async fn fill(&mut self, len: usize) -> io::Result<()> {
        while self.buffer.len() < len {
            // The status is what says why.
            let Some(part) = self.parts.message().await.map_err(io::Error::other)? else { break };
            self.buffer.extend_from_slice(&part.data);
        }
        Ok(())
    }
}

impl RecvStream for Parts {
    async fn recv_bytes(&mut self, len: usize) -> io::Result<Bytes> {
        self.fill(len).await?;
        Ok(self.buffer.split_to(len.min(self.buffer.len())).freeze())
    }

    async fn recv_bytes_exact(&mut self, len: usize) -> io::Result<Bytes> {
        self.fill(len).await?;
        if self.buffer.len() < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(self.buffer.split_to(len).freeze())
    }

    async fn recv_exact(&mut self, target: &mut [u8]) -> io::Result<()> {
        let bytes = self.recv_bytes_exact(target.len()).await?;
        target.copy_from_slice(&bytes);
        Ok(())
    }

    fn stop(&mut self, _code: VarInt) -> io::Result<()> {
        Ok(())
    }

    fn id(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_named_without_a_key_or_an_address_is_nobody() {
        let key = crate::identity::Identity::ephemeral().peer_id();
        let name = |peer: &[u8], addresses: &[&str]| {
            let addresses = addresses.iter().map(|text| (*text).to_owned()).collect();
            named(&wire::Provider { peer: Bytes::copy_from_slice(peer), addresses, by_relay: false })
        };
        for (peer, addresses) in [
            (&[1_u8; 31][..], &["192.0.2.1:1"][..]),
            (key.as_bytes(), &[]),
            (key.as_bytes(), &["nowhere", "0.0.0.0:1", "192.0.2.1:0", "239.1.1.1:1"]),
        ] {
            assert_eq!(name(peer, addresses), None, "{addresses:?}");
        }
        let many = vec!["192.0.2.1:1"; 1000];
        let provider = name(key.as_bytes(), &many).expect("a peer");
        assert_eq!((provider.peer(), provider.address().direct.len()), (key, limits::TICKET_ADDRESSES_MAX));
    }
}
