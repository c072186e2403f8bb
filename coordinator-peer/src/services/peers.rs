//! `Peers`: who is there, and who has what.

use talka_core::ids::PeerId;
use talka_peer::rpc::peer;
use talka_proto::{
    convert::{blob_hash, id_bytes},
    wire::{self, peers_server::Peers},
};
use tonic::{Request, Response, Status};

use super::{Context, views};
use crate::reactor::Event;

/// See the [module](self).
pub(crate) struct PeersService(pub(crate) Context);

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
        let wire::ProvidersRequest { hash, addresses, .. } = request.into_inner();
        let hash = blob_hash(&hash)?;
        let takes_part = !addresses.is_empty();
        if takes_part {
            self.0.submissions.learn_addresses(asker, &addresses);
        }
        let members = self.0.reactor.call(|reply| Event::Members { asker, hash, takes_part, reply }).await?;
        let members = members
            .ok_or_else(|| Status::not_found("no unfinished job of this coordinator needs this blob"))?;
        let provider = |peer: PeerId| wire::Provider {
            peer: id_bytes(peer.as_bytes()),
            addresses: self.0.submissions.addresses(peer),
        };
        let providers = members.into_iter().map(provider).collect();
        Ok(Response::new(wire::ProvidersReply { providers }))
    }
}
