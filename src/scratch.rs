//! What a task needs, fetched as workers fetch it: from peers that have it, and from the coordinator last.

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context;
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use talka_core::{
    ids::{BlobHash, PeerId},
    job::BlobRef,
    limits, quantities,
    swarm::acquaintances::is_worth_a_dial,
};
use talka_peer::{
    Cause,
    address::PeerAddr,
    blobs::{Admit, BlobServer, BlobStore, Serving},
    connections::ConnectionLimits,
    rpc::AuthorizedChannel,
    swarm::{Members, Swarm},
    transfer::{FetchBlobError, GrpcBlobs, IrohBlobs, Provider, Transports},
};
use talka_proto::{
    convert::{id_bytes, peer_id},
    wire::{self, peers_client::PeersClient},
};
use tempfile::TempDir;

use crate::{
    client::Client,
    error::{Code, Failure},
};

/// A place on the disk for blobs of a job, and the swarm that they come from. It goes away with this value.
pub(crate) struct Scratch {
    blobs: BlobStore,
    swarm: Swarm,
    tracker: Tracker,
    _dir: TempDir,
}

/// A command fetches, and serves nobody.
struct Nobody;

impl Admit for Nobody {
    fn peer(&self, _peer: PeerId) -> bool {
        false
    }

    fn blob(&self, _peer: PeerId, _blob: BlobHash) -> bool {
        false
    }
}

impl Scratch {
    /// `had_by` are workers that had the blobs once: they are looked for first.
    pub(crate) async fn open(client: &Client, had_by: Vec<PeerId>) -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("talka-fetch-").context("cannot create a temporary directory")?;
        let blobs = BlobStore::open(dir.path()).await?;
        let endpoint = client.endpoint();
        let first = IrohBlobs::new(endpoint.clone(), blobs.clone(), None);
        let second = GrpcBlobs::new(endpoint.clone(), blobs.clone(), []);
        let server = BlobServer::with(&blobs, Nobody, Serving::default(), ConnectionLimits::default());
        let swarm = Swarm::with_patience(
            endpoint.peer_id(),
            Transports::both(first, second),
            blobs.clone(),
            server,
            limits::SWARM_PATIENCE_OF_A_COMMAND,
        );
        let tracker = Tracker {
            peers: client.peers(),
            coordinator: client.address().clone(),
            had_by: had_by.into(),
            named: Arc::default(),
        };
        Ok(Self { blobs, swarm, tracker, _dir: dir })
    }

    /// Fetches a blob and reads it; `max` is what it may weigh, and `what` says in an error what is missing.
    pub(crate) async fn read(&self, blob: BlobRef, max: u64, what: &str) -> anyhow::Result<Bytes> {
        if blob.size.get() > max {
            let max = quantities::Bytes::new(max);
            let problem = format!("{what} of {} is above the limit of {max}", blob.size);
            return Err(Failure::new(Code::Limit, problem).into());
        }
        self.fetch(blob, 0..blob.size.get(), what).await?;
        Ok(self.blobs.read(blob.hash, max).await?)
    }

    /// Fetches a part of a blob, verified by itself, and reads it: one input out of those of a million tasks.
    pub(crate) async fn read_range(
        &self,
        blob: BlobRef,
        range: Range<u64>,
        what: &str,
    ) -> anyhow::Result<Bytes> {
        self.fetch(blob, range.clone(), what).await?;
        Ok(self.blobs.read_part(blob, range).await?)
    }

    async fn fetch(&self, blob: BlobRef, range: Range<u64>, what: &str) -> anyhow::Result<()> {
        self.blobs.tag(&blob.hash.to_string(), blob.hash).await?;
        let fetched = self.swarm.fetch_part(blob, range.clone(), self.tracker.clone()).await;
        match fetched {
            Ok(_) => Ok(()),
            Err(error) => match &*error {
                FetchBlobError::NoProvider { .. } => Err(self.missing(blob, &range, what).into()),
                _ => Err(anyhow::Error::new(error).context(format!("cannot fetch {what}"))),
            },
        }
    }

    /// Nobody has it, or nobody who has it is there.
    fn missing(&self, blob: BlobRef, range: &Range<u64>, what: &str) -> Failure {
        let asked = match self.tracker.named().len() {
            0 => "the coordinator does not have it, and names no worker that may".to_owned(),
            1 => "neither the coordinator nor the one worker that it names sends it".to_owned(),
            count => format!("neither the coordinator nor any of the {count} workers that it names sends it"),
        };
        let Range { start, end } = range;
        let problem =
            format!("{what} can't be had: bytes {start} to {end} of blob {} are missing; {asked}", blob.hash);
        Failure::new(Code::NotFound, problem)
    }

    /// Lets go of the directory.
    pub(crate) async fn close(self) {
        self.blobs.shutdown().await;
    }
}

/// Who may have a blob: the coordinator tells. Clones share whom it named.
#[derive(Clone)]
struct Tracker {
    peers: PeersClient<AuthorizedChannel>,
    coordinator: PeerAddr,
    had_by: Arc<[PeerId]>,
    named: Arc<Mutex<BTreeSet<PeerId>>>,
}

impl Tracker {
    async fn ask(&self, blob: BlobRef) -> Result<Vec<Provider>, Cause> {
        let request = wire::ProvidersRequest {
            hash: id_bytes(blob.hash.as_bytes()),
            of_ended: true,
            had_by: self.had_by.iter().map(|peer| id_bytes(peer.as_bytes())).collect(),
            ..wire::ProvidersRequest::default()
        };
        let reply = self.peers.clone().providers(request).await?.into_inner();
        let providers = reply.providers.iter().take(limits::PROVIDERS_MAX);
        let providers: Vec<Provider> =
            providers.filter_map(|named| provider(named, &self.coordinator)).collect();
        self.named().extend(providers.iter().map(Provider::peer));
        Ok(providers)
    }

    fn named(&self) -> MutexGuard<'_, BTreeSet<PeerId>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ways to a worker that was named; the only relay is the coordinator's.
fn provider(named: &wire::Provider, coordinator: &PeerAddr) -> Option<Provider> {
    let addresses = named.addresses.iter().take(limits::TICKET_ADDRESSES_MAX);
    let direct = addresses.filter_map(|text| text.parse().ok()).filter(is_worth_a_dial).collect();
    let relay = coordinator.relay.clone().filter(|_| named.by_relay);
    let address = PeerAddr { peer: peer_id(&named.peer).ok()?, direct, relay };
    address.is_dialable().then(|| address.into())
}

impl Members for Tracker {
    fn source(&self) -> Option<Provider> {
        Some(self.coordinator.clone().into())
    }

    fn others(&self, blob: BlobRef) -> BoxFuture<'_, Result<Vec<Provider>, Cause>> {
        self.ask(blob).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_dialed_where_it_says_and_through_no_relay_but_the_coordinators() {
        let without = PeerAddr::new(PeerId::new([1; 32]), [([127, 0, 0, 1], 7).into()]);
        let relay = Some("https://relay.example".parse().expect("a URL"));
        let with = PeerAddr { relay, ..without.clone() };
        let ways = |addresses: &[&str], by_relay, coordinator| {
            let addresses = addresses.iter().map(ToString::to_string).collect();
            let named = wire::Provider { peer: vec![2; 32].into(), addresses, by_relay };
            let provider = provider(&named, coordinator);
            provider.map(|it| (it.address().direct.len(), it.address().relay.is_some()))
        };
        let both = ["127.0.0.1:8", "[::1]:8", "0.0.0.0:8", "nonsense"];
        for (addresses, by_relay, coordinator, expected) in [
            (&both[..], false, &with, Some((2, false))),
            (&both[..], true, &with, Some((2, true))),
            (&both[..], true, &without, Some((2, false))),
            (&[], true, &with, Some((0, true))),
            (&[], true, &without, None),
            (&["nonsense"], false, &with, None),
        ] {
            assert_eq!(ways(addresses, by_relay, coordinator), expected, "{addresses:?} {by_relay}");
        }
        let nobody = wire::Provider { peer: vec![2; 5].into(), ..wire::Provider::default() };
        assert!(provider(&nobody, &with).is_none());
    }
}
