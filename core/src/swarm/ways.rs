//! By which of two transports a peer is asked.
//!
//! The first one is tried until it fails with a peer; then the second one has its turn for a while, with that peer alone.
//! When that fails as well, the first one is as good as it.

use std::collections::HashMap;

use crate::{ids::PeerId, limits, quantities::Timestamp};

/// A transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The one that is made for it.
    First,
    /// The one for when that fails.
    Second,
}

/// See the [module](self). Of at most [`limits::PROVIDER_CONNECTIONS_MAX`] peers it is remembered that the first
/// transport failed; more cost them a try of the first one.
#[derive(Debug, Default)]
pub struct Ways {
    /// Until when the first one is not tried.
    second_until: HashMap<PeerId, Timestamp>,
}

impl Ways {
    /// How to ask a peer now.
    pub fn of(&self, now: Timestamp, peer: PeerId) -> Way {
        if self.second_until.get(&peer).is_some_and(|until| now < *until) { Way::Second } else { Way::First }
    }

    /// A transport failed with a peer, whatever the peer has.
    pub fn on_failed(&mut self, now: Timestamp, peer: PeerId, way: Way) {
        match way {
            Way::First => {
                if self.second_until.len() >= limits::PROVIDER_CONNECTIONS_MAX {
                    self.second_until.retain(|_, until| now < *until);
                }
                if self.second_until.len() < limits::PROVIDER_CONNECTIONS_MAX {
                    self.second_until.insert(peer, now + limits::TRANSPORT_RETRY_AFTER);
                }
            }
            Way::Second => drop(self.second_until.remove(&peer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: usize) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        PeerId::new(bytes)
    }

    #[test]
    fn the_other_way_is_taken_with_whom_one_failed_and_the_first_one_is_tried_again() {
        let mut ways = Ways::default();
        let now = Timestamp::from_millis(1000);
        assert_eq!(ways.of(now, peer(1)), Way::First);
        ways.on_failed(now, peer(1), Way::First);
        assert_eq!([ways.of(now, peer(1)), ways.of(now, peer(2))], [Way::Second, Way::First]);
        assert_eq!(ways.of(now + limits::TRANSPORT_RETRY_AFTER, peer(1)), Way::First);
        ways.on_failed(now, peer(1), Way::Second);
        assert_eq!(ways.of(now, peer(1)), Way::First, "neither is better");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_old_makes_room() {
        let mut ways = Ways::default();
        let now = Timestamp::from_millis(1000);
        for number in 0..limits::PROVIDER_CONNECTIONS_MAX + 10 {
            ways.on_failed(now, peer(number), Way::First);
        }
        assert_eq!(ways.second_until.len(), limits::PROVIDER_CONNECTIONS_MAX);
        let later = now + limits::TRANSPORT_RETRY_AFTER;
        ways.on_failed(later, peer(9999), Way::First);
        assert_eq!((ways.of(later, peer(9999)), ways.second_until.len()), (Way::Second, 1));
    }
}
