//! Who the short numbers in rows stand for.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use talka_core::{
    coordinator::Coordinator,
    ids::{PeerId, PeerNo},
};

use crate::reactor::{Handle, Stopped};

/// A number stands for the same peer for ever, so each is asked for once. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct PeerNames(Arc<Mutex<BTreeMap<PeerNo, PeerId>>>);

impl PeerNames {
    /// The peers of these numbers. A function, because most rows name few.
    pub(super) async fn of(
        &self,
        reactor: &Handle,
        numbers: Vec<PeerNo>,
    ) -> Result<impl Fn(PeerNo) -> Option<PeerId> + use<>, Stopped> {
        let (mut found, missing) = self.known(numbers);
        if !missing.is_empty() {
            let question = move |coordinator: &Coordinator| -> Vec<(PeerNo, PeerId)> {
                missing.into_iter().filter_map(|no| Some((no, coordinator.peer_id(no)?))).collect()
            };
            let answer = reactor.ask(question).await?;
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(answer.iter().copied());
            found.extend(answer);
        }
        Ok(move |no| found.get(&no).copied())
    }

    fn known(&self, numbers: Vec<PeerNo>) -> (BTreeMap<PeerNo, PeerId>, Vec<PeerNo>) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut found, mut missing) = (BTreeMap::new(), vec![]);
        for no in numbers {
            match known.get(&no) {
                Some(peer) => drop(found.insert(no, *peer)),
                None => missing.push(no),
            }
        }
        (found, missing)
    }
}
