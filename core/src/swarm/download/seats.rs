//! Who has a seat among the providers: they are few, and there may be many who want one and have nothing.

use super::{Download, Kind, Provider};
use crate::{ids::PeerId, limits, quantities::Timestamp};

impl Download {
    /// The same as [`on_provider`](Self::on_provider) for a peer that another one named, of whom nobody knows whether it is there at all: such ones take
    /// [`limits::SWARM_HEARSAY_MAX`] seats at most until they send something.
    pub fn on_hearsay(&mut self, peer: PeerId) -> bool {
        let unproved = self.peers().filter(|provider| provider.hearsay && !provider.proved).count();
        if unproved >= limits::SWARM_HEARSAY_MAX || !self.on_provider(peer, Kind::Peer) {
            return false;
        }
        if let Some(provider) = self.providers.get_mut(&peer) {
            provider.hearsay = true;
        }
        true
    }

    /// Peers that lost their seats since the last look, because they failed too often, or because they never sent anything
    /// in [`limits::SWARM_USELESS_AFTER`] and there is no other seat left. Somebody may name them again.
    pub fn leavers(&mut self, now: Timestamp) -> Vec<PeerId> {
        let (mut peers, mut hearsay) = (0, 0);
        for provider in self.providers.values_mut().filter(|provider| provider.kind == Kind::Peer) {
            provider.seated.get_or_insert(now);
            peers += 1;
            hearsay += usize::from(provider.hearsay && !provider.proved);
        }
        let (all_full, hearsay_full) =
            (peers >= limits::SWARM_PROVIDERS_MAX, hearsay >= limits::SWARM_HEARSAY_MAX);
        let is_useless = |provider: &Provider| {
            provider.kind == Kind::Peer
                && (all_full || (hearsay_full && provider.hearsay))
                && !provider.proved
                && provider.requests == 0
                && provider.seated.is_some_and(|seated| now.since(seated) >= limits::SWARM_USELESS_AFTER)
        };
        let mut useless: Vec<PeerId> = self
            .providers
            .iter()
            .filter(|(_, provider)| is_useless(provider))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in &useless {
            self.on_gone(*peer);
        }
        useless.extend(std::mem::take(&mut self.dropped));
        useless
    }
}
