//! `Peers`: who is there, and who has what.

use std::time::Duration;

use talka_core::{
    coordinator::{InviteRow, WorkerView},
    limits,
    placement::{Admission, InviteId},
};
use talka_peer::rpc::{Role, peer, role};
use talka_proto::{
    convert::{InvalidMessage, blob_hash, peer_id},
    wire::{self, peers_server::Peers},
};
use tonic::{Request, Response, Status};

use super::{Context, refused, views};
use crate::{clock, places::Place, reactor::Event};

/// See the [module](self).
pub(crate) struct PeersService(pub(crate) Context);

#[tonic::async_trait]
impl Peers for PeersService {
    async fn list(
        &self,
        request: Request<wire::ListPeersRequest>,
    ) -> Result<Response<wire::ListPeersReply>, Status> {
        let for_operator = role(&request) >= Role::Operator;
        let question = move |coordinator: &talka_core::coordinator::Coordinator| -> (Vec<_>, Vec<_>) {
            let said = coordinator.admissions().filter(|_| for_operator);
            (coordinator.workers().collect(), said.take(limits::ADMISSIONS_LISTED_MAX).collect())
        };
        let (workers, absent) = self.0.reactor.ask(question).await?;
        let served = self.0.submissions.served();
        let by_peer = served.by_peer();
        let sent = |worker: &WorkerView| by_peer.get(&worker.peer).copied().unwrap_or_default();
        let workers = workers.iter().map(|worker| views::peer_info(worker, sent(worker), for_operator));
        let absent = absent.into_iter().map(|(peer, admission)| views::absent_peer(peer, admission));
        let peers = workers.chain(absent).collect();
        let (served_bytes, served_requests) = (served.total(), served.requests());
        Ok(Response::new(wire::ListPeersReply { peers, served_bytes, served_requests }))
    }

    async fn admit(
        &self,
        request: Request<wire::AdmitRequest>,
    ) -> Result<Response<wire::AdmitReply>, Status> {
        let request = request.into_inner();
        let peer = peer_id(&request.peer)?;
        let admission = u8::try_from(request.admission).ok().and_then(Admission::from_code);
        let admission = admission
            .filter(|admission| *admission != Admission::Invited)
            .ok_or_else(|| InvalidMessage::new("admission", "is none that can be said"))?;
        self.0.reactor.call(|reply| Event::Admit(peer, admission, reply)).await?;
        tracing::info!(%peer, admission = admission.name(), "the owner said what becomes of a peer");
        Ok(Response::new(wire::AdmitReply {}))
    }

    async fn invite(
        &self,
        request: Request<wire::InviteRequest>,
    ) -> Result<Response<wire::InviteReply>, Status> {
        let wire::InviteRequest { uses, valid_secs } = request.into_inner();
        if !(1..=limits::INVITE_USES_MAX).contains(&uses) {
            let problem = format!("{uses} is not 1 to {}", limits::INVITE_USES_MAX);
            return Err(InvalidMessage::new("uses", problem).into());
        }
        let valid = Duration::from_secs(valid_secs);
        if valid.is_zero() || valid > limits::INVITE_TIME_MAX {
            let problem = format!("{valid_secs} s is not 1 to {} s", limits::INVITE_TIME_MAX.as_secs());
            return Err(InvalidMessage::new("valid_secs", problem).into());
        }
        let token: [u8; 16] = rand::random();
        let row = InviteRow { uses, expires: clock::now() + valid };
        let made = self.0.reactor.call(|reply| Event::Invite(InviteId::of(&token), row, reply)).await?;
        made.map_err(|refusal| refused(&refusal))?;
        let (token, expires_millis) = (token.to_vec().into(), row.expires.millis());
        Ok(Response::new(wire::InviteReply { token, expires_millis }))
    }

    async fn providers(
        &self,
        request: Request<wire::ProvidersRequest>,
    ) -> Result<Response<wire::ProvidersReply>, Status> {
        let asker = peer(&request)?;
        let wire::ProvidersRequest { hash, addresses, by_relay, .. } = request.into_inner();
        let hash = blob_hash(&hash)?;
        let places = self.0.submissions.places();
        let takes_part = places.learn(asker, Place::new(&addresses, by_relay));
        let members = self.0.reactor.call(|reply| Event::Members { asker, hash, takes_part, reply }).await?;
        let members = members
            .ok_or_else(|| Status::not_found("no unfinished job of this coordinator needs this blob"))?;
        let providers = members.into_iter().filter_map(|peer| places.provider(peer)).collect();
        Ok(Response::new(wire::ProvidersReply { providers }))
    }
}
