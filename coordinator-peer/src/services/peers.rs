//! `Peers`: who is there, and who has what.

use talka_core::{
    ids::{BlobHash, PeerId},
    swarm::Answer,
};
use talka_peer::rpc::peer;
use talka_proto::{
    convert::blob_hash,
    wire::{self, peers_server::Peers},
};
use tonic::{Request, Response, Status};

use super::{Context, views};
use crate::{
    places::Place,
    reactor::{Announcement, Event},
};

/// See the [module](self).
pub(crate) struct PeersService(pub(crate) Context);

impl PeersService {
    /// Those who exchange pieces of a blob; whoever says where it can be reached is one of them.
    async fn members(
        &self,
        asker: PeerId,
        hash: BlobHash,
        place: Place,
    ) -> Result<Response<wire::ProvidersReply>, Status> {
        let places = self.0.submissions.places();
        let takes_part = places.learn(asker, place);
        let members = self.0.reactor.call(|reply| Event::Members { asker, hash, takes_part, reply }).await?;
        let members = members.ok_or_else(unknown)?;
        let providers = members.into_iter().filter_map(|peer| places.provider(peer)).collect();
        Ok(Response::new(wire::ProvidersReply { providers, retry_millis: 0 }))
    }
}

fn unknown() -> Status {
    Status::not_found("no unfinished job of this coordinator needs this blob")
}

#[tonic::async_trait]
impl Peers for PeersService {
    async fn list(
        &self,
        _request: Request<wire::ListPeersRequest>,
    ) -> Result<Response<wire::ListPeersReply>, Status> {
        let question = |coordinator: &talka_core::coordinator::Coordinator| {
            coordinator.workers().map(|worker| views::peer_info(&worker)).collect()
        };
        let peers = self.0.reactor.ask(question).await?;
        let served_bytes = self.0.submissions.served_bytes();
        Ok(Response::new(wire::ListPeersReply { peers, served_bytes }))
    }

    async fn providers(
        &self,
        request: Request<wire::ProvidersRequest>,
    ) -> Result<Response<wire::ProvidersReply>, Status> {
        let asker = peer(&request)?;
        let hash = blob_hash(&request.get_ref().hash)?;
        if request.get_ref().pieces {
            let wire::ProvidersRequest { addresses, by_relay, .. } = request.get_ref();
            return self.members(asker, hash, Place::new(addresses, *by_relay)).await;
        }
        let answer = self.0.reactor.call(|reply| Event::Providers(asker, hash, reply)).await?;
        let reply = match answer {
            Answer::From(peer) => wire::ProvidersReply {
                providers: self.0.submissions.places().provider(peer).into_iter().collect(),
                retry_millis: 0,
            },
            Answer::Later(wait) => wire::ProvidersReply {
                providers: vec![],
                retry_millis: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
            },
            Answer::Unknown => return Err(unknown()),
        };
        Ok(Response::new(reply))
    }

    async fn announce(
        &self,
        request: Request<wire::AnnounceRequest>,
    ) -> Result<Response<wire::AnnounceReply>, Status> {
        let peer = talka_peer::rpc::peer(&request)?;
        let request = request.into_inner();
        let hash = blob_hash(&request.hash)?;
        let announcement = match (request.have, request.failed) {
            (true, _) => Announcement::Have,
            (false, true) => Announcement::FetchFailed,
            (false, false) => Announcement::Lost,
        };
        if announcement == Announcement::Have {
            self.0.submissions.places().learn(peer, Place::new(&request.addresses, false));
        }
        self.0.reactor.send(Event::Announce(peer, hash, announcement)).await?;
        Ok(Response::new(wire::AnnounceReply {}))
    }
}
