//! Whom this peer knows, shared by those who find out and those who tell.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use talka_core::{
    ids::{BlobHash, PeerId},
    swarm::{Acquaintance, Acquaintances},
};

use crate::{clock::Monotonic, transfer::Provider};

/// See the [module](self). Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Known {
    acquaintances: Arc<Mutex<Acquaintances>>,
    clock: Monotonic,
}

impl Known {
    pub(super) fn new(clock: Monotonic) -> Self {
        Self { acquaintances: Arc::default(), clock }
    }

    pub(super) fn on_asked(&self, hash: BlobHash, peer: PeerId, addresses: Vec<SocketAddr>) {
        self.lock().on_asked(self.clock.now(), hash, peer, addresses);
    }

    pub(super) fn on_received(&self, hash: BlobHash, provider: &Provider) {
        let direct = &provider.address().direct;
        self.lock().on_received(self.clock.now(), hash, provider.peer(), direct);
    }

    /// Nothing of a blob is here any more.
    pub(super) fn forget(&self, hash: BlobHash) {
        self.lock().forget(hash);
    }

    pub(super) fn named(&self, hash: BlobHash, asker: PeerId) -> Vec<Acquaintance> {
        let mut draw = |below: u32| rand::random_range(0..below);
        self.lock().named(self.clock.now(), hash, asker, &mut draw)
    }

    fn lock(&self) -> MutexGuard<'_, Acquaintances> {
        // Changed by whole statements, so it holds even after a panic elsewhere.
        self.acquaintances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
