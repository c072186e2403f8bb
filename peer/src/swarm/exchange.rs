//! What a peer answers to others over gRPC: who takes part in the exchange of a blob, which pieces of it are here, and
//! parts of it for who can't get them by the blob protocol.
//!
//! It gives nothing that the blob protocol would not give: the same admission, the same slots, the same limit.

use std::sync::Arc;

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use iroh_blobs::protocol::{ChunkRanges, ChunkRangesExt, GetRequest};
use talka_core::{
    ids::{BlobHash, PeerId},
    job::BlobRef,
    limits,
    quantities::Bytes,
    swarm::{PieceNo, acquaintances::is_worth_a_dial},
};
use talka_proto::{
    convert::{blob_hash, id_bytes},
    wire::{
        self,
        exchange_server::{Exchange, ExchangeServer},
    },
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{known::Known, parts::PartsWriter};
use crate::{
    blobs::{BlobServer, BlobStore, Refused, to_hash},
    connections::ConnectionLimits,
    rpc::{Access, AccessTable, Caller, PeerStreams, Role, Roles, Row, Server, peer, server},
};

/// Who may call it, for an access table.
pub const EXCHANGE_ROWS: &[Row] = &[
    ("/talka.v1.Exchange/Members", Access::Peer),
    ("/talka.v1.Exchange/Pieces", Access::Peer),
    ("/talka.v1.Exchange/Fetch", Access::Peer),
];

/// What a peer answers to others over gRPC. Clones share what they know.
#[derive(Debug, Clone)]
pub struct ExchangeService {
    store: BlobStore,
    server: BlobServer,
    known: Option<Known>,
    followers: Arc<Semaphore>,
}

impl ExchangeService {
    pub(super) fn new(store: BlobStore, server: BlobServer, known: Known) -> Self {
        Self { known: Some(known), ..Self::of_source(store, server) }
    }

    /// One that names nobody: of a peer that has another service for that.
    pub fn of_source(store: BlobStore, server: BlobServer) -> Self {
        let followers = Arc::new(Semaphore::new(limits::EXCHANGE_FOLLOWERS_MAX));
        Self { store, server, known: None, followers }
    }

    /// For a set of services.
    pub fn into_server(self) -> ExchangeServer<Self> {
        ExchangeServer::new(self).max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
    }

    /// Answers to peers, with nothing else, until `shutdown`.
    pub async fn serve(
        self,
        connections: ConnectionLimits,
        streams: PeerStreams,
        shutdown: CancellationToken,
    ) -> Result<(), server::ServeError> {
        let (mut services, _health) = server::standard_services(&[talka_proto::DESCRIPTORS])?;
        services.add_service(self.into_server());
        let table = AccessTable::new(EXCHANGE_ROWS);
        let server = Server::new(services.routes(), table, Arc::new(PeersAlone), connections);
        server.serve_peers(streams, shutdown).await
    }

    /// Refuses what is asked about blobs of which nothing is here: a table of those would be somebody else's.
    async fn check_begun(&self, hash: BlobHash) -> Result<(), Status> {
        match self.store.is_begun(hash).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Status::not_found("this peer has nothing of the blob")),
            Err(_) => Err(Status::unavailable("this peer can't read its store now")),
        }
    }
}

/// Whoever has a key is a peer, and nobody is more.
struct PeersAlone;

impl Roles for PeersAlone {
    fn role(&self, caller: &Caller, _token: Option<&[u8]>) -> Role {
        match caller {
            Caller::Peer(_) => Role::Peer,
            Caller::Tcp { .. } => Role::Anyone,
        }
    }
}

fn refused(Refused: Refused) -> Status {
    Status::permission_denied("this peer does not serve you, or not this blob")
}

/// The ranges that are asked for: not empty, ascending, and few.
fn ranges(bounds: &[u64]) -> Result<ChunkRanges, Status> {
    let is_ascending = bounds.windows(2).all(|pair| pair[0] < pair[1]);
    let is_even = bounds.len().is_multiple_of(2) && !bounds.is_empty();
    if !is_ascending || !is_even || bounds.len() > limits::FETCH_RANGES_MAX * 2 {
        return Err(Status::invalid_argument(format!(
            "bounds: must be an even number of ascending ones, at most {}",
            limits::FETCH_RANGES_MAX * 2
        )));
    }
    let mut ranges = ChunkRanges::empty();
    for run in bounds.chunks_exact(2) {
        ranges |= ChunkRanges::chunks(run[0]..run[1]);
    }
    Ok(ranges)
}

/// Where runs of pieces begin and end, by turns. `pieces` ascend.
fn runs(pieces: &[PieceNo]) -> Vec<u32> {
    let mut bounds: Vec<u32> = Vec::new();
    for piece in pieces {
        match bounds.last_mut() {
            Some(end) if *end == piece.get() => *end += 1,
            _ => bounds.extend([piece.get(), piece.get() + 1]),
        }
    }
    bounds
}

#[tonic::async_trait]
impl Exchange for ExchangeService {
    async fn members(
        &self,
        request: Request<wire::MembersRequest>,
    ) -> Result<Response<wire::MembersReply>, Status> {
        let asker = peer(&request)?;
        let Some(known) = &self.known else {
            return Err(Status::unimplemented("ask the service Peers of this peer"));
        };
        let wire::MembersRequest { hash, addresses } = request.into_inner();
        let hash = blob_hash(&hash)?;
        self.check_begun(hash).await.inspect_err(|_| known.forget(hash))?;
        self.server.admits(asker, hash).await.map_err(refused)?;
        let addresses = addresses.iter().take(limits::TICKET_ADDRESSES_MAX);
        let addresses = addresses.filter_map(|text| text.parse().ok()).filter(is_worth_a_dial);
        known.on_asked(hash, asker, addresses.collect());
        let named = known.named(hash, asker).into_iter().map(|named| wire::Provider {
            peer: id_bytes(named.peer.as_bytes()),
            addresses: named.addresses.iter().map(ToString::to_string).collect(),
            // Who can be reached through a relay is the coordinator's to say: it is its relay.
            by_relay: false,
        });
        Ok(Response::new(wire::MembersReply { members: named.collect() }))
    }

    type PiecesStream = BoxStream<'static, Result<wire::PiecesReply, Status>>;

    async fn pieces(
        &self,
        request: Request<wire::PiecesRequest>,
    ) -> Result<Response<Self::PiecesStream>, Status> {
        let asker = peer(&request)?;
        let wire::PiecesRequest { hash, size } = request.into_inner();
        let hash = blob_hash(&hash)?;
        if size > limits::BLOB_BYTES_MAX {
            return Err(Status::invalid_argument("size: there is no blob of this size"));
        }
        self.server.admits(asker, hash).await.map_err(refused)?;
        let seat = self.followers.clone().try_acquire_owned();
        let seat =
            seat.map_err(|_| Status::resource_exhausted("too many follow this peer: ask again later"))?;
        let blob = BlobRef { hash, size: Bytes::new(size) };
        let unreadable = |_| Status::unavailable("this peer can't read its store now");
        let news = self.store.pieces(blob).await.map_err(unreadable)?;
        // The first one leaves even if it is empty: then this peer was heard.
        let replies = news.enumerate().filter_map(move |(number, pieces)| {
            let _held = &seat;
            let is_news = number == 0 || !pieces.is_empty();
            let reply = is_news.then(|| Ok(wire::PiecesReply { bounds: runs(&pieces) }));
            std::future::ready(reply)
        });
        Ok(Response::new(replies.boxed()))
    }

    type FetchStream = BoxStream<'static, Result<wire::FetchPart, Status>>;

    async fn fetch(
        &self,
        request: Request<wire::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let asker = peer(&request)?;
        let wire::FetchRequest { hash, bounds } = request.into_inner();
        let request = GetRequest::blob_ranges(to_hash(blob_hash(&hash)?), ranges(&bounds)?);
        // One part waits while one is on its way: who reads slowly is written to slowly.
        let (parts, outbound) = mpsc::channel(1);
        let server = self.server.clone();
        tokio::spawn(answer(server, asker, request, parts));
        let outbound = ReceiverStream::new(outbound);
        Ok(Response::new(stream::StreamExt::boxed(outbound)))
    }
}

/// Sends the answer, and at its end why there is no more.
async fn answer(
    server: BlobServer,
    asker: PeerId,
    request: GetRequest,
    parts: mpsc::Sender<Result<wire::FetchPart, Status>>,
) {
    let (writer, ended) = PartsWriter::new(parts.clone());
    let refusal = match server.answer(asker, request, writer).await {
        Ok(()) => ended.refusal(),
        Err(error) => Some(refused(error)),
    };
    if let Some(refusal) = refusal {
        // An error means that nobody listens.
        drop(parts.send(Err(refusal)).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_told_as_runs() {
        let runs_of = |numbers: &[u32]| runs(&numbers.iter().copied().map(PieceNo::new).collect::<Vec<_>>());
        assert_eq!(runs_of(&[]), Vec::<u32>::new());
        assert_eq!(runs_of(&[0, 1, 2, 7, 9, 10]), [0, 3, 7, 8, 9, 11]);
    }

    #[test]
    fn ranges_are_few_ascending_and_not_empty() {
        assert_eq!(ranges(&[0, 16, 32, 64]).expect("two").boundaries().len(), 4);
        let many: Vec<u64> = (0..).take(limits::FETCH_RANGES_MAX * 2 + 2).collect();
        for nonsense in [&[][..], &[1], &[5, 5], &[5, 4], &[0, 2, 1, 3], &many] {
            ranges(nonsense).expect_err("refused");
        }
    }
}
