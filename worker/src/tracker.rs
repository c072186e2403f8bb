//! Who else has the blobs of a job: the coordinator tells.

use futures_util::{FutureExt, future::BoxFuture};
use talka_core::{job::BlobRef, limits};
use talka_peer::{Cause, rpc::Client, swarm::Members, transfer::Provider};
use talka_proto::{
    convert::{id_bytes, peer_id},
    wire::{self, peers_client::PeersClient},
};

/// See the [module](self). Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tracker {
    client: Client,
    coordinator: Provider,
    /// Where this peer can be dialed; empty if it serves nobody.
    addresses: Vec<String>,
}

impl Tracker {
    pub(crate) fn new(client: Client, addresses: &[std::net::SocketAddr]) -> Self {
        let coordinator = Provider::from(client.address().clone());
        Self { client, coordinator, addresses: addresses.iter().map(ToString::to_string).collect() }
    }

    async fn ask(&self, blob: BlobRef) -> Result<Vec<Provider>, Cause> {
        let request = wire::ProvidersRequest {
            hash: id_bytes(blob.hash.as_bytes()),
            addresses: self.addresses.clone(),
        };
        let mut peers = PeersClient::new(self.client.channel());
        let reply = peers.providers(request).await?.into_inner();
        let providers = reply.providers.into_iter().take(limits::PROVIDERS_MAX).filter_map(|named| {
            let addresses = named.addresses.iter().take(limits::TICKET_ADDRESSES_MAX);
            let addresses = addresses.filter_map(|text| text.parse().ok()).collect();
            Some(Provider::dial(peer_id(&named.peer).ok()?, addresses))
        });
        Ok(providers.collect())
    }
}

impl Members for Tracker {
    fn source(&self) -> Option<Provider> {
        Some(self.coordinator.clone())
    }

    fn others(&self, blob: BlobRef) -> BoxFuture<'_, Result<Vec<Provider>, Cause>> {
        self.ask(blob).boxed()
    }
}
