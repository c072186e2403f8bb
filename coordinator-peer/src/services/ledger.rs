//! `Ledger`: who has earned what.

use talka_proto::{
    convert::{credit_bytes, id_bytes},
    wire::{self, ledger_server::Ledger},
};
use tonic::{Request, Response, Status};

use super::Context;

/// See the [module](self).
pub(crate) struct LedgerService(pub(crate) Context);

#[tonic::async_trait]
impl Ledger for LedgerService {
    async fn credit(
        &self,
        _request: Request<wire::CreditRequest>,
    ) -> Result<Response<wire::CreditReply>, Status> {
        let mut credit = self.0.read(|reader| reader.credit()).await?;
        credit.sort_by_key(|(peer, total)| (std::cmp::Reverse(total.credit), *peer));
        let peers = credit.into_iter().map(|(peer, total)| wire::PeerCredit {
            peer: id_bytes(peer.as_bytes()),
            credit_nanos: credit_bytes(total.credit),
            validated: u64::try_from(total.validated).unwrap_or(0),
            invalid: u64::try_from(total.invalid).unwrap_or(0),
        });
        Ok(Response::new(wire::CreditReply { peers: peers.collect() }))
    }
}
