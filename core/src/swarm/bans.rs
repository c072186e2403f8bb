//! Peers that were proved to lie.
//!
//! Bytes are verified in groups of 16 KiB, so a lie is known at once, and so is who told it: there is nothing to vote
//! on, and nobody can make an honest peer look like a liar.

use std::collections::{BTreeMap, VecDeque};

use crate::{ids::PeerId, limits, quantities::Timestamp};

/// Peers that are neither asked nor served for [`limits::BAN_TIME`]. Keys are free, so only the last
/// [`limits::BANS_MAX`] are remembered: a liar that makes new ones pays a connection for each.
#[derive(Debug, Default)]
pub struct Bans {
    until: BTreeMap<PeerId, Timestamp>,
    order: VecDeque<PeerId>,
}

impl Bans {
    /// Bans a peer.
    pub fn ban(&mut self, now: Timestamp, peer: PeerId) {
        if self.until.insert(peer, now + limits::BAN_TIME).is_none() {
            self.order.push_back(peer);
        }
        if self.order.len() > limits::BANS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.until.remove(&oldest);
        }
    }

    /// Whether a peer is banned now.
    pub fn is_banned(&self, now: Timestamp, peer: PeerId) -> bool {
        self.until.get(&peer).is_some_and(|until| now < *until)
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.until.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.until.is_empty()
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
    fn a_ban_ends_and_the_table_is_bounded() {
        let mut bans = Bans::default();
        let now = Timestamp::from_millis(1000);
        bans.ban(now, peer(0));
        assert!(bans.is_banned(now, peer(0)) && !bans.is_banned(now, peer(1)));
        assert!(!bans.is_banned(now + limits::BAN_TIME, peer(0)));
        for number in 0..limits::BANS_MAX + 10 {
            bans.ban(now, peer(number));
        }
        assert_eq!(bans.len(), limits::BANS_MAX);
        assert!(bans.is_banned(now, peer(limits::BANS_MAX)), "the last ones are remembered");
    }
}
