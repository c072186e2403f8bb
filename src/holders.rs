//! Outputs from those who have them: workers first, the coordinator last, which has them for certain.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use talka_core::{ids::PeerId, limits};
use talka_peer::{
    address::PeerAddr,
    transfer::{FetchBlobError, FetchError, Provider, Providers},
};
use talka_proto::{convert::peer_id, wire};

/// Workers that did not deliver something: they are not asked again by this command. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spared(Arc<Mutex<HashSet<PeerId>>>);

/// Whom to ask for one output, the best first.
#[derive(Debug)]
pub(crate) struct Holders {
    providers: VecDeque<Provider>,
    spared: Spared,
    coordinator: PeerId,
}

impl Holders {
    /// Those of `holders` that can be dialed and were not in vain so far, in the order that starts at `turn` so that not
    /// everybody asks the same one first; then the coordinator.
    pub(crate) fn new(
        holders: &[wire::Provider],
        coordinator: &PeerAddr,
        turn: usize,
        spared: &Spared,
    ) -> Self {
        let mut providers: VecDeque<Provider> = holders
            .iter()
            .take(limits::PROVIDERS_MAX)
            .filter_map(|holder| {
                let peer = peer_id(&holder.peer).ok().filter(|peer| !spared.contains(*peer))?;
                let addresses = holder.addresses.iter().take(limits::TICKET_ADDRESSES_MAX);
                Some(Provider::dial(peer, addresses.filter_map(|text| text.parse().ok()).collect()))
            })
            .filter(|provider| provider.address().is_dialable())
            .collect();
        if !providers.is_empty() {
            let turn = turn % providers.len();
            providers.rotate_left(turn);
        }
        providers.push_back(Provider::from(coordinator.clone()));
        Self { providers, spared: spared.clone(), coordinator: coordinator.peer }
    }
}

impl Providers for Holders {
    async fn next(&mut self) -> Option<Provider> {
        self.providers.pop_front()
    }

    async fn failed(&mut self, provider: &Provider, error: &FetchError) {
        // Who lacks one output, or serves others, may do better with the next.
        let for_now = matches!(error, FetchError::NotHeld | FetchError::Busy);
        if provider.peer() != self.coordinator && !for_now {
            self.spared.add(provider.peer());
        }
    }
}

impl Spared {
    fn contains(&self, peer: PeerId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&peer)
    }

    fn add(&self, peer: PeerId) {
        let mut spared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spared.len() < limits::WORKERS_MAX {
            spared.insert(peer);
        }
    }
}

/// Whether an output is nowhere any more: the coordinator was asked, too, and does not have it.
pub(crate) fn is_lost(error: &FetchBlobError, coordinator: PeerId) -> bool {
    match error {
        FetchBlobError::NoProvider { failures, .. } => failures.iter().any(|(peer, error)| {
            *peer == coordinator && matches!(error, FetchError::NotHeld | FetchError::Corrupt)
        }),
        FetchBlobError::Cancelled | FetchBlobError::Local(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(number: u8, address: &str) -> wire::Provider {
        wire::Provider { peer: vec![number; 32].into(), addresses: vec![address.into()], by_relay: false }
    }

    #[tokio::test]
    async fn workers_come_first_in_turns_and_those_that_failed_not_again() {
        let coordinator = PeerAddr::new(PeerId::new([9; 32]), ["127.0.0.1:9".parse().expect("an address")]);
        let all = [
            holder(1, "127.0.0.1:1"),
            holder(2, "nowhere"),
            holder(3, "127.0.0.1:3"),
            wire::Provider { peer: vec![4; 3].into(), ..holder(4, "127.0.0.1:4") },
        ];
        let spared = Spared::default();
        let asked = async |turn: usize, failing: u8| {
            let mut holders = Holders::new(&all, &coordinator, turn, &spared);
            let mut asked = Vec::new();
            while let Some(provider) = holders.next().await {
                let number = provider.peer().as_bytes()[0];
                let error = if number == failing { FetchError::Refused } else { FetchError::NotHeld };
                holders.failed(&provider, &error).await;
                asked.push(number);
            }
            asked
        };
        assert_eq!(asked(0, 0).await, [1, 3, 9]);
        assert_eq!(asked(1, 9).await, [3, 1, 9]);
        assert_eq!(asked(2, 1).await, [1, 3, 9]);
        assert_eq!(asked(5, 0).await, [3, 9], "the first one failed, the coordinator is always asked");
    }
}
