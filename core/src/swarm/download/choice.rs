//! The next piece, and whom to ask for it.

use std::time::Duration;

use super::{Download, Flight, HEAD_START, Kind, Provider};
use crate::{
    ids::PeerId,
    limits,
    quantities::Timestamp,
    swarm::{Draw, PieceNo, PieceSet},
};

/// Age of a request from which its piece is asked of a second provider in the endgame, if twice the time that requests
/// usually take is less.
const ENDGAME_AGE_MIN: Duration = Duration::from_millis(500);

impl Download {
    /// Whether no more requests to peers may run; the source is not counted, or slow peers would keep it idle.
    pub(super) fn is_full(&self) -> bool {
        let is_peer = |peer| self.providers.get(peer).is_some_and(|provider| provider.kind == Kind::Peer);
        self.flights.values().filter(|flight| is_peer(&flight.peer)).count() >= limits::SWARM_REQUESTS_MAX
    }

    /// Whether a peer may say in a moment what it has.
    fn is_about_to_hear(&self, now: Timestamp) -> bool {
        self.met.is_some_and(|met| now.since(met) < HEAD_START)
            && self.peers().any(|peer| peer.has.is_empty() && peer.failures == 0)
    }

    /// The rarest of the missing pieces that can be asked for, the wanted ones first, and whom to ask for it.
    pub(super) fn choose(
        &self,
        now: Timestamp,
        use_source: bool,
        draw: Draw<'_>,
    ) -> Option<(PieceNo, PeerId)> {
        let mut out_of_reach = self.have.clone();
        out_of_reach.union_with(&self.asked);
        let mut offered = PieceSet::none(self.pieces.count());
        let no_more = self.is_full();
        // What peers have that proved to be of use, busy or not.
        let mut at_peers = PieceSet::none(self.pieces.count());
        for provider in self.providers.values().filter(|provider| provider.kind == Kind::Peer) {
            if provider.is_free(now) && !no_more {
                offered.union_with(&provider.has);
            }
            if provider.rests_until <= now && provider.proved {
                at_peers.union_with(&provider.has);
            }
        }
        for source in self.providers.values().filter(|provider| provider.kind == Kind::Source) {
            if source.is_free(now) && use_source {
                offered.union_with(&source.has);
            } else if source.is_free(now) && !self.is_about_to_hear(now) {
                // What nobody else has is asked of the source in any case.
                for piece in at_peers.missing_of(&source.has) {
                    offered.insert(piece);
                }
            }
        }
        let (mut best, mut ties): (Option<(bool, u16, PieceNo)>, u32) = (None, 0);
        for piece in out_of_reach.missing_of(&offered) {
            let rank = (!self.wanted.contains(piece), self.holders[piece.get() as usize]);
            let known = best.map(|(unwanted, holders, _)| (unwanted, holders));
            if known.is_none_or(|known| rank < known) {
                (best, ties) = (Some((rank.0, rank.1, piece)), 1);
            } else if known == Some(rank) {
                ties += 1;
                if draw(ties) == 0 {
                    best = Some((rank.0, rank.1, piece));
                }
            }
        }
        let (_, _, piece) = best?;
        Some((piece, self.least_busy(now, piece, draw, |_, _| true)?))
    }

    /// The free provider of a piece with the fewest requests, a source only if there is no other.
    fn least_busy(
        &self,
        now: Timestamp,
        piece: PieceNo,
        draw: Draw<'_>,
        eligible: impl Fn(PeerId, &Provider) -> bool,
    ) -> Option<PeerId> {
        let (mut best, mut ties): (Option<(bool, usize, PeerId)>, u32) = (None, 0);
        for (peer, provider) in &self.providers {
            let full = provider.kind == Kind::Peer && self.is_full();
            if full || !provider.is_free(now) || !provider.has.contains(piece) || !eligible(*peer, provider) {
                continue;
            }
            let rank = (provider.kind == Kind::Source, provider.requests);
            let known = best.map(|(source, requests, _)| (source, requests));
            if known.is_none_or(|known| rank < known) {
                (best, ties) = (Some((rank.0, rank.1, *peer)), 1);
            } else if known == Some(rank) {
                ties += 1;
                if draw(ties) == 0 {
                    best = Some((rank.0, rank.1, *peer));
                }
            }
        }
        best.map(|(_, _, peer)| peer)
    }

    /// In the endgame, or for a wanted piece: the oldest request that takes long, of which there is no second one, and
    /// another provider of its piece.
    pub(super) fn choose_again(&self, now: Timestamp, draw: Draw<'_>) -> Option<(PieceNo, PeerId)> {
        let all_asked = self.have.len() + self.asked.len() >= self.pieces.count();
        let age = ENDGAME_AGE_MIN.max(self.usual * 2);
        let mut slow: Vec<&Flight> = self
            .flights
            .values()
            .filter(|flight| now.since(flight.since) >= age)
            .filter(|flight| all_asked || self.wanted.contains(flight.piece))
            .filter(|flight| self.flights.values().filter(|other| other.piece == flight.piece).count() == 1)
            .collect();
        slow.sort_by_key(|flight| flight.since);
        slow.into_iter().find_map(|flight| {
            let rescuer = self.rescuer(now, flight, draw)?;
            Some((flight.piece, rescuer))
        })
    }

    /// Who is asked for a piece that takes long. There is no third request, so the second one is not for somebody of whom
    /// nothing ever came, unless nobody else has the piece.
    fn rescuer(&self, now: Timestamp, flight: &Flight, draw: Draw<'_>) -> Option<PeerId> {
        let is_other = |peer: PeerId| peer != flight.peer;
        let has_it = |provider: &Provider| provider.rests_until <= now && provider.has.contains(flight.piece);
        let is_in_reach = self
            .providers
            .iter()
            .any(|(peer, provider)| is_other(*peer) && provider.is_proved() && has_it(provider));
        self.least_busy(now, flight.piece, draw, |peer, provider| {
            is_other(peer) && (!is_in_reach || provider.is_proved())
        })
    }
}
