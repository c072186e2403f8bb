//! `Peers`: who is there, and who has what.

use std::time::Duration;

use rand::seq::IteratorRandom;
use talka_core::{
    coordinator::{Coordinator, InviteRow, WorkerView},
    ids::PeerId,
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

impl PeersService {
    /// Workers that may have a blob of a job that has ended: those that had it once, and others that are connected, by lot.
    async fn who_may_have(&self, had_by: &[bytes::Bytes]) -> Result<Vec<PeerId>, Status> {
        let connected = |coordinator: &Coordinator| -> Vec<PeerId> {
            let workers = coordinator.workers().filter(|worker| worker.connected);
            workers.map(|worker| worker.peer).collect()
        };
        let connected = self.0.reactor.ask(connected).await?;
        let had_by: Vec<PeerId> =
            had_by.iter().take(limits::PROVIDERS_MAX).filter_map(|peer| peer_id(peer).ok()).collect();
        let (had, others): (Vec<PeerId>, Vec<PeerId>) =
            connected.into_iter().partition(|peer| had_by.contains(peer));
        let mut named = had;
        let more = limits::PROVIDERS_MAX.saturating_sub(named.len());
        named.extend(others.into_iter().sample(&mut rand::rng(), more));
        Ok(named)
    }
}

#[tonic::async_trait]
impl Peers for PeersService {
    async fn list(
        &self,
        request: Request<wire::ListPeersRequest>,
    ) -> Result<Response<wire::ListPeersReply>, Status> {
        let for_operator = role(&request) >= Role::Operator;
        let question = move |coordinator: &Coordinator| -> (Vec<_>, Vec<_>) {
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
        let is_submitter = role(&request) >= Role::Submitter;
        let wire::ProvidersRequest { hash, addresses, by_relay, of_ended, had_by } = request.into_inner();
        let hash = blob_hash(&hash)?;
        let places = self.0.submissions.places();
        let takes_part = places.learn(asker, Place::new(&addresses, by_relay));
        let members = self.0.reactor.call(|reply| Event::Members { asker, hash, takes_part, reply }).await?;
        let members = match members {
            Some(members) => members,
            None if of_ended && is_submitter => self.who_may_have(&had_by).await?,
            None => return Err(Status::not_found("no unfinished job of this coordinator needs this blob")),
        };
        let providers = members.into_iter().filter_map(|peer| places.provider(peer)).collect();
        Ok(Response::new(wire::ProvidersReply { providers }))
    }
}
