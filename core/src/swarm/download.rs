//! One blob that is being fetched: which piece next, and from whom.
//!
//! * **Rarest first**, ties by lot: a piece that only the source has is spread before one that many have, and no two
//!   peers ask for the same pieces in the same order. Pieces that somebody waits for go before all others.
//! * **Least busy provider**, at most [`limits::SWARM_REQUESTS_PER_PROVIDER`] requests to each. The *source* is spared:
//!   it is asked for what nobody else has, and for other pieces only when nobody can be asked and nothing has come from
//!   others for [`SOURCE_SPARED`]. Whoever begins when others are there waits [`HEAD_START`] for what they have to say: a
//!   blob of one piece would come from the source every time, because it is known to have it.
//! * **Nobody is believed.** A request has a time and a minimum rate; who lets it lapse, or lacks what it said it has,
//!   rests, each time longer. Who sends bytes that do not belong to the blob is out at once.
//! * **Endgame**: when everything that is missing is on its way, what takes long is asked of a second provider as well.

mod seats;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use super::{Draw, PieceNo, PieceSet, Pieces};
use crate::{
    ids::PeerId,
    limits,
    quantities::{Bytes, Timestamp},
};

/// Time without a piece from others, after which the source is asked for what others have too.
pub const SOURCE_SPARED: Duration = Duration::from_millis(500);
/// Time that peers get to say what they have before the source is asked: a connection and a question.
pub const HEAD_START: Duration = Duration::from_millis(50);
/// Age of a request from which its piece is asked of a second provider in the endgame, if twice the time that requests
/// usually take is less.
const ENDGAME_AGE_MIN: Duration = Duration::from_millis(500);
/// Age at which a request that waits at the source is given up for a provider that has got the piece meanwhile.
const RECONSIDERED_AGE: Duration = Duration::from_millis(100);
/// First rest of a provider that has no upload slot now; it doubles with each such answer in a row, up to
/// [`REST_BUSY_MAX`].
const REST_BUSY_MIN: Duration = Duration::from_millis(200);
const REST_BUSY_MAX: Duration = Duration::from_secs(5);
/// First rest of a provider that failed; it doubles with each failure in a row, up to [`REST_MAX`].
const REST_MIN: Duration = Duration::from_millis(500);
const REST_MAX: Duration = Duration::from_secs(30);
/// Failures in a row after which a provider is dropped. It can be found again.
const FAILURES_MAX: u32 = 8;

/// What a provider is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It has the blob because it is where it comes from; sparing it is the purpose of the swarm.
    Source,
    /// It fetches the blob too, or has fetched it.
    Peer,
}

/// Names a request of one [`Download`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestNo(u64);

/// A request that is to be made now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its name, for what becomes of it.
    pub number: RequestNo,
    /// Whom to ask.
    pub peer: PeerId,
    /// For which piece.
    pub piece: PieceNo,
    /// The bytes of the piece.
    pub range: Range<u64>,
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The provider sent bytes that do not belong to the blob, or claims another length.
    Lie,
    /// It does not have what it said it has.
    NotHeld,
    /// It has no slot for this peer now.
    Busy,
    /// It can't be reached, the connection broke, it sent nothing or too little.
    Failed,
}

#[derive(Debug)]
struct Provider {
    kind: Kind,
    has: PieceSet,
    requests: usize,
    rests_until: Timestamp,
    failures: u32,
    /// How often in a row it had no slot.
    refusals: u32,
    /// Whether it ever sent a piece: what others say that they have counts less.
    proved: bool,
    /// Whether only other peers named it.
    hearsay: bool,
    /// When it was looked at for the first time.
    seated: Option<Timestamp>,
}

impl Provider {
    fn is_free(&self, now: Timestamp) -> bool {
        self.requests < limits::SWARM_REQUESTS_PER_PROVIDER && self.rests_until <= now
    }

    /// Whether it is known to have what it says: a source is taken at its word.
    fn is_proved(&self) -> bool {
        self.proved || self.kind == Kind::Source
    }
}

#[derive(Debug)]
struct Flight {
    peer: PeerId,
    piece: PieceNo,
    since: Timestamp,
    bytes: u64,
    moved: Timestamp,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Download {
    pieces: Pieces,
    have: PieceSet,
    wanted: PieceSet,
    /// Pieces with a request.
    asked: PieceSet,
    /// How many providers have each piece.
    holders: Vec<u16>,
    providers: BTreeMap<PeerId, Provider>,
    flights: BTreeMap<RequestNo, Flight>,
    /// Providers that lied: never again for this blob.
    liars: BTreeSet<PeerId>,
    /// Providers that failed too often, until somebody asks.
    dropped: Vec<PeerId>,
    next: u64,
    /// When a piece came from a peer, or the first request was to be made.
    flowing: Option<Timestamp>,
    /// When there was a peer to ask for the first time.
    met: Option<Timestamp>,
    /// How long requests took that brought their piece: a moving mean.
    usual: Duration,
}

impl Download {
    /// A blob of this size, of which the pieces in `have` are on disk.
    pub fn new(size: Bytes, have: PieceSet) -> Self {
        let pieces = Pieces::of(size);
        let count = pieces.count();
        Self {
            pieces,
            have,
            wanted: PieceSet::none(count),
            asked: PieceSet::none(count),
            holders: vec![0; count as usize],
            providers: BTreeMap::new(),
            flights: BTreeMap::new(),
            liars: BTreeSet::new(),
            dropped: Vec::new(),
            next: 0,
            flowing: None,
            met: None,
            usual: Duration::ZERO,
        }
    }

    /// How the blob is cut.
    pub fn pieces(&self) -> Pieces {
        self.pieces
    }

    /// The pieces that are here.
    pub fn have(&self) -> &PieceSet {
        &self.have
    }

    /// Whether every piece is here.
    pub fn is_complete(&self) -> bool {
        self.have.is_all()
    }

    /// Whether all of these bytes are here.
    pub fn has_range(&self, bytes: &Range<u64>) -> bool {
        self.pieces.covering(bytes).all(|piece| self.have.contains(PieceNo::new(piece)))
    }

    /// Somebody waits for these bytes: they go before the rest.
    pub fn want(&mut self, bytes: &Range<u64>) {
        self.wanted.insert_range(self.pieces.covering(bytes));
    }

    /// A piece turned out to be damaged on disk, and is missing again.
    pub fn lost(&mut self, piece: PieceNo) {
        self.have.remove(piece);
    }

    /// A piece came by another way.
    pub fn found(&mut self, piece: PieceNo) {
        self.have.insert(piece);
    }

    /// Somebody may have pieces. Returns whether it is new and there is room for it: then its pieces are to be learnt.
    pub fn on_provider(&mut self, peer: PeerId, kind: Kind) -> bool {
        if self.providers.contains_key(&peer) || self.liars.contains(&peer) {
            return false;
        }
        if kind == Kind::Peer && self.peers().count() >= limits::SWARM_PROVIDERS_MAX {
            return false;
        }
        let provider = Provider {
            kind,
            has: PieceSet::none(self.pieces.count()),
            requests: 0,
            rests_until: Timestamp::default(),
            failures: 0,
            refusals: 0,
            proved: false,
            hearsay: false,
            seated: None,
        };
        self.providers.insert(peer, provider);
        true
    }

    /// A provider says that it has these pieces, too.
    pub fn on_has(&mut self, peer: PeerId, pieces: impl IntoIterator<Item = PieceNo>) {
        let Some(provider) = self.providers.get_mut(&peer) else { return };
        for piece in pieces {
            if provider.has.insert(piece) {
                self.holders[piece.get() as usize] += 1;
            }
        }
    }

    /// A provider is gone. Its requests end by themselves.
    pub fn on_gone(&mut self, peer: PeerId) {
        let Some(provider) = self.providers.remove(&peer) else { return };
        for piece in provider.has.iter() {
            self.holders[piece.get() as usize] -= 1;
        }
    }

    /// The providers that there are.
    pub fn providers(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.providers.keys().copied()
    }

    /// Whether this peer was proved to lie.
    pub fn is_liar(&self, peer: PeerId) -> bool {
        self.liars.contains(&peer)
    }

    /// Requests that run.
    pub fn requests(&self) -> usize {
        self.flights.len()
    }

    /// The next request to make, if there is any to be made now.
    pub fn next(&mut self, now: Timestamp, draw: Draw<'_>) -> Option<Request> {
        if self.is_complete() {
            return None;
        }
        if self.met.is_none() && self.peers().next().is_some() {
            self.met = Some(now);
        }
        let chosen = self.choose(now, false, draw);
        let spared = now.since(*self.flowing.get_or_insert(now)) < SOURCE_SPARED;
        let chosen = chosen
            .or_else(|| if spared { None } else { self.choose(now, true, draw) })
            .or_else(|| self.choose_again(now, draw));
        let (piece, peer) = chosen?;
        Some(self.ask(now, piece, peer))
    }

    /// Whether no more requests to peers may run; the source is not counted, or slow peers would keep it idle.
    fn is_full(&self) -> bool {
        let is_peer = |peer| self.providers.get(peer).is_some_and(|provider| provider.kind == Kind::Peer);
        self.flights.values().filter(|flight| is_peer(&flight.peer)).count() >= limits::SWARM_REQUESTS_MAX
    }

    fn peers(&self) -> impl Iterator<Item = &Provider> {
        self.providers.values().filter(|provider| provider.kind == Kind::Peer)
    }

    /// Whether a peer may say in a moment what it has.
    fn is_about_to_hear(&self, now: Timestamp) -> bool {
        self.met.is_some_and(|met| now.since(met) < HEAD_START)
            && self.peers().any(|peer| peer.has.is_empty() && peer.failures == 0)
    }

    /// The rarest of the missing pieces that can be asked for, the wanted ones first, and whom to ask for it.
    fn choose(&self, now: Timestamp, use_source: bool, draw: Draw<'_>) -> Option<(PieceNo, PeerId)> {
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
    fn choose_again(&self, now: Timestamp, draw: Draw<'_>) -> Option<(PieceNo, PeerId)> {
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

    fn ask(&mut self, now: Timestamp, piece: PieceNo, peer: PeerId) -> Request {
        let number = RequestNo(self.next);
        self.next += 1;
        self.asked.insert(piece);
        if let Some(provider) = self.providers.get_mut(&peer) {
            provider.requests += 1;
        }
        self.flights.insert(number, Flight { peer, piece, since: now, bytes: 0, moved: now });
        Request { number, peer, piece, range: self.pieces.range(piece) }
    }

    /// So many bytes of a request have come so far.
    pub fn on_progress(&mut self, now: Timestamp, number: RequestNo, bytes: u64) {
        if let Some(flight) = self.flights.get_mut(&number)
            && bytes > flight.bytes
        {
            (flight.bytes, flight.moved) = (bytes, now);
        }
    }

    /// A request brought its piece. Returns other requests for it, which are to be dropped.
    pub fn on_fetched(&mut self, now: Timestamp, number: RequestNo) -> Vec<RequestNo> {
        let Some(flight) = self.flights.get(&number) else { return Vec::new() };
        let (piece, peer, took) = (flight.piece, flight.peer, now.since(flight.since));
        self.usual = if self.usual.is_zero() { took } else { (self.usual * 7 + took) / 8 };
        let all: Vec<RequestNo> = self
            .flights
            .iter()
            .filter(|(_, flight)| flight.piece == piece)
            .map(|(number, _)| *number)
            .collect();
        for number in &all {
            self.land(*number);
        }
        self.have.insert(piece);
        if let Some(provider) = self.providers.get_mut(&peer) {
            (provider.failures, provider.refusals, provider.proved) = (0, 0, true);
            if provider.kind == Kind::Peer {
                self.flowing = Some(now);
            }
        }
        all.into_iter().filter(|other| *other != number).collect()
    }

    /// A request failed. Returns the peer if it is to be banned.
    pub fn on_failed(&mut self, now: Timestamp, number: RequestNo, failure: Failure) -> Option<PeerId> {
        let flight = self.land(number)?;
        let peer = flight.peer;
        let provider = self.providers.get_mut(&peer)?;
        match failure {
            Failure::Lie => {
                self.liars.insert(peer);
                self.on_gone(peer);
                return Some(peer);
            }
            Failure::Busy => {
                let doublings = provider.refusals.min(16);
                provider.refusals += 1;
                provider.rests_until = now + (REST_BUSY_MIN * (1 << doublings)).min(REST_BUSY_MAX);
            }
            Failure::NotHeld | Failure::Failed => {
                if failure == Failure::NotHeld && provider.has.remove(flight.piece) {
                    self.holders[flight.piece.get() as usize] -= 1;
                }
                provider.failures += 1;
                let doublings = provider.failures.saturating_sub(1).min(16);
                provider.rests_until = now + (REST_MIN * (1 << doublings)).min(REST_MAX);
                // A source is never dropped: it is the one that has everything for certain.
                if provider.failures >= FAILURES_MAX && provider.kind == Kind::Peer {
                    self.on_gone(peer);
                    self.dropped.push(peer);
                }
            }
        }
        None
    }

    /// Requests that are to be dropped: those that stall or crawl, which count as failed, and those that wait at the
    /// source for a piece that somebody else offers now.
    pub fn expire(&mut self, now: Timestamp) -> Vec<RequestNo> {
        let lapsed: Vec<RequestNo> = self
            .flights
            .iter()
            .filter(|(_, flight)| is_lapsed(now, flight))
            .map(|(number, _)| *number)
            .collect();
        for number in &lapsed {
            let peer = self.flights.get(number).map(|flight| flight.peer);
            // Each lapse costs a piece a long time: who begins with one has had its chance.
            if let Some(provider) = peer.and_then(|peer| self.providers.get_mut(&peer))
                && !provider.is_proved()
            {
                provider.failures = FAILURES_MAX;
            }
            self.on_failed(now, *number, Failure::Failed);
        }
        let mut dropped = lapsed;
        let waiting: Vec<RequestNo> = self
            .flights
            .iter()
            .filter(|(_, flight)| self.is_better_elsewhere(now, flight))
            .map(|(number, _)| *number)
            .collect();
        for number in &waiting {
            self.land(*number);
        }
        dropped.extend(waiting);
        dropped
    }

    fn is_better_elsewhere(&self, now: Timestamp, flight: &Flight) -> bool {
        let asked = self.providers.get(&flight.peer);
        flight.bytes == 0
            && now.since(flight.since) >= RECONSIDERED_AGE
            && !self.is_full()
            && asked.is_some_and(|provider| provider.kind == Kind::Source)
            && self.providers.values().any(|other| {
                other.kind == Kind::Peer
                    && other.proved
                    && other.is_free(now)
                    && other.has.contains(flight.piece)
            })
    }

    /// Takes a request off the books.
    fn land(&mut self, number: RequestNo) -> Option<Flight> {
        let flight = self.flights.remove(&number)?;
        if let Some(provider) = self.providers.get_mut(&flight.peer) {
            provider.requests = provider.requests.saturating_sub(1);
        }
        if !self.flights.values().any(|other| other.piece == flight.piece) {
            self.asked.remove(flight.piece);
        }
        Some(flight)
    }

    /// Checks that the books agree with each other; for tests.
    ///
    /// # Panics
    ///
    /// If they do not.
    pub fn check_invariants(&self) {
        for (piece, holders) in (0..).map(PieceNo::new).zip(&self.holders) {
            let counted = self.providers.values().filter(|provider| provider.has.contains(piece)).count();
            assert_eq!(counted, usize::from(*holders), "{piece}");
            let requests = self.flights.values().filter(|flight| flight.piece == piece).count();
            assert_eq!(requests > 0, self.asked.contains(piece), "{piece}");
            assert!(requests <= 2, "{piece} is asked for {requests} times");
        }
        for (peer, provider) in &self.providers {
            let requests = self.flights.values().filter(|flight| flight.peer == *peer).count();
            assert!(requests <= limits::SWARM_REQUESTS_PER_PROVIDER, "{requests} requests to {peer}");
            assert!(!self.liars.contains(peer), "{peer} lied");
            assert!(provider.requests <= limits::SWARM_REQUESTS_PER_PROVIDER);
        }
        let sources = self.providers.values().filter(|provider| provider.kind == Kind::Source).count();
        let bound = limits::SWARM_REQUESTS_MAX + (sources + 1) * limits::SWARM_REQUESTS_PER_PROVIDER;
        assert!(self.flights.len() <= bound, "{} requests", self.flights.len());
    }
}

fn is_lapsed(now: Timestamp, flight: &Flight) -> bool {
    let age = now.since(flight.since);
    now.since(flight.moved) > limits::PROVIDER_STALL_MAX
        || (age > limits::PROVIDER_STALL_MAX
            && flight.bytes < limits::PROVIDER_RATE_MIN.saturating_mul(age.as_secs()))
}
