//! Who is served next.
//!
//! A peer serves a few requests at a time, so that each of them is done soon and what it brought can be passed on. The
//! others wait in a queue that is served by reciprocity: first whoever sent this peer most lately. One slot is
//! *optimistic*: it goes to whoever waits longest among those that are not being served, so that a new peer gets what it
//! needs to have something to offer, and a free-rider gets what is left. Among those that gave the same, as all have to
//! a source, what was sent least often goes first, then whoever got least.
//!
//! A source sends everything once before it sends anything twice: while a piece goes out for the first time, requests
//! for those that went out a short time before wait, and are soon told to ask others: whoever got them has them.
//!
//! Whoever would wait too long is told to ask others: a queue is not a stall.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use super::{Draw, PieceNo};
use crate::{
    ids::{BlobHash, PeerId},
    limits,
    quantities::Timestamp,
};

/// Time for which a source does not send a piece again while others go out for the first time.
const HELD_BACK: Duration = Duration::from_secs(30);
/// Longest wait for a piece that is held back.
const HELD_BACK_WAIT_MAX: Duration = Duration::from_millis(500);

/// Names a request for upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UploadNo(u64);

/// What a peer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The blob.
    pub hash: BlobHash,
    /// The first piece that is asked for.
    pub piece: PieceNo,
}

#[derive(Debug, Clone)]
struct Waiting {
    number: UploadNo,
    peer: PeerId,
    wanted: Wanted,
    since: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Serving {
    peer: PeerId,
    wanted: Wanted,
    /// Whether the piece goes out for the first time.
    first: bool,
    optimistic: bool,
}

/// What went out of one piece.
#[derive(Debug, Clone, Copy, Default)]
struct Copies {
    count: u8,
    last: Timestamp,
}

/// Bytes, the older the less.
#[derive(Debug, Clone, Copy, Default)]
struct Lately {
    bytes: u64,
    at: Timestamp,
}

impl Lately {
    fn value(self, now: Timestamp) -> u64 {
        let halvings = now.since(self.at).as_secs() / limits::RECIPROCITY_HALF_LIFE.as_secs().max(1);
        self.bytes.checked_shr(u32::try_from(halvings).unwrap_or(u32::MAX)).unwrap_or_default()
    }

    fn add(&mut self, now: Timestamp, bytes: u64) {
        let halvings = now.since(self.at).as_secs() / limits::RECIPROCITY_HALF_LIFE.as_secs().max(1);
        if halvings > 0 || self.bytes == 0 {
            *self = Self { bytes: self.value(now), at: now };
        }
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Uploads {
    slots: usize,
    is_source: bool,
    waiting: Vec<Waiting>,
    serving: BTreeMap<UploadNo, Serving>,
    received: HashMap<PeerId, Lately>,
    sent: HashMap<PeerId, Lately>,
    /// How often pieces of the blobs that were served last went out.
    copies: VecDeque<(BlobHash, HashMap<PieceNo, Copies>)>,
    next: u64,
}

impl Uploads {
    /// So many requests are served at once, at least two: one of them is the optimistic one.
    pub fn new(slots: usize) -> Self {
        Self {
            slots: slots.max(2),
            is_source: false,
            waiting: Vec::new(),
            serving: BTreeMap::new(),
            received: HashMap::new(),
            sent: HashMap::new(),
            copies: VecDeque::new(),
            next: 0,
        }
    }

    /// The same for a peer where blobs come from: it sends everything once before it sends anything twice.
    pub fn of_source(slots: usize) -> Self {
        Self { is_source: true, ..Self::new(slots) }
    }

    /// A peer asks. `None` is a refusal: it has its share of requests here, or too many wait.
    pub fn on_asked(&mut self, now: Timestamp, peer: PeerId, wanted: Wanted) -> Option<UploadNo> {
        let waiting = self.waiting.iter().filter(|waiting| waiting.peer == peer).count();
        let serving = self.serving.values().filter(|serving| serving.peer == peer).count();
        if waiting + serving >= limits::UPLOADS_PER_PEER_MAX
            || self.waiting.len() >= limits::UPLOADS_WAITING_MAX
        {
            return None;
        }
        let number = UploadNo(self.next);
        self.next += 1;
        self.waiting.push(Waiting { number, peer, wanted, since: now });
        Some(number)
    }

    /// A request that may start now, if there is a slot for any.
    pub fn next(&mut self, now: Timestamp, draw: Draw<'_>) -> Option<UploadNo> {
        if self.serving.len() >= self.slots || self.waiting.is_empty() {
            return None;
        }
        let optimistic =
            !self.serving.values().any(|serving| serving.optimistic) && self.serving.len() + 1 >= self.slots;
        let position = if optimistic { self.longest_waiting(now) } else { self.most_deserving(now, draw) }?;
        let Waiting { number, peer, wanted, .. } = self.waiting.remove(position);
        let first = self.copies_of(wanted).count == 0;
        self.serving.insert(number, Serving { peer, wanted, first, optimistic });
        self.note_copy(now, wanted);
        Some(number)
    }

    /// The requests that may be served now.
    fn eligible(&self, now: Timestamp) -> impl Iterator<Item = (usize, &Waiting)> {
        self.waiting.iter().enumerate().filter(move |(_, waiting)| !self.is_held_back(now, waiting))
    }

    fn is_held_back(&self, now: Timestamp, waiting: &Waiting) -> bool {
        let (hash, copies) = (waiting.wanted.hash, self.copies_of(waiting.wanted));
        self.is_source
            && copies.count > 0
            && now.since(copies.last) < HELD_BACK
            && self.serving.values().any(|serving| serving.first && serving.wanted.hash == hash)
    }

    /// The request that waits longest of a peer that is not being served, or else of any; what was sent least first.
    fn longest_waiting(&self, now: Timestamp) -> Option<usize> {
        let is_served = |peer| self.serving.values().any(|serving| serving.peer == peer);
        let rank = |(_, waiting): &(usize, &Waiting)| {
            let copies = self.copies_of(waiting.wanted).count;
            (is_served(waiting.peer), copies, waiting.since, waiting.number)
        };
        self.eligible(now).min_by_key(rank).map(|(position, _)| position)
    }

    fn most_deserving(&self, now: Timestamp, draw: Draw<'_>) -> Option<usize> {
        let (mut best, mut ties) = (None, 0);
        for (position, waiting) in self.eligible(now) {
            let received = self.received.get(&waiting.peer).map_or(0, |lately| lately.value(now));
            let sent = self.sent.get(&waiting.peer).map_or(0, |lately| lately.value(now));
            // Whole pieces: less is no difference.
            let rank = (
                std::cmp::Reverse(received / limits::SWARM_PIECE_BYTES),
                self.copies_of(waiting.wanted).count,
                sent / limits::SWARM_PIECE_BYTES,
            );
            match &best {
                Some((known, _)) if rank > *known => {}
                Some((known, _)) if rank == *known => {
                    ties += 1;
                    if draw(ties) == 0 {
                        best = Some((rank, position));
                    }
                }
                _ => (best, ties) = (Some((rank, position)), 1),
            }
        }
        best.map(|(_, position)| position)
    }

    /// Requests that waited for too long: they are to be refused, and are forgotten here.
    pub fn expire(&mut self, now: Timestamp) -> Vec<UploadNo> {
        let is_over = |waiting: &&Waiting| {
            let held_back = self.is_held_back(now, waiting);
            let longest = if held_back { HELD_BACK_WAIT_MAX } else { limits::UPLOAD_WAIT_MAX };
            now.since(waiting.since) >= longest
        };
        let expired: Vec<UploadNo> =
            self.waiting.iter().filter(is_over).map(|waiting| waiting.number).collect();
        self.waiting.retain(|waiting| !expired.contains(&waiting.number));
        expired
    }

    /// A request has ended, served, broken or given up.
    pub fn on_ended(&mut self, number: UploadNo) {
        self.serving.remove(&number);
        self.waiting.retain(|waiting| waiting.number != number);
    }

    /// This peer got bytes from another one.
    pub fn on_received(&mut self, now: Timestamp, peer: PeerId, bytes: u64) {
        account(&mut self.received, now, peer, bytes);
    }

    /// This peer sent bytes to another one.
    pub fn on_sent(&mut self, now: Timestamp, peer: PeerId, bytes: u64) {
        account(&mut self.sent, now, peer, bytes);
    }

    /// Requests that are being served, the one that was asked for first before the others.
    pub fn serving(&self) -> impl Iterator<Item = UploadNo> + '_ {
        self.serving.keys().copied()
    }

    /// How many requests are being served, and how many wait.
    pub fn load(&self) -> (usize, usize) {
        (self.serving.len(), self.waiting.len())
    }

    fn copies_of(&self, wanted: Wanted) -> Copies {
        let copies = self.copies.iter().find(|(hash, _)| *hash == wanted.hash);
        copies.and_then(|(_, pieces)| pieces.get(&wanted.piece)).copied().unwrap_or_default()
    }

    fn note_copy(&mut self, now: Timestamp, wanted: Wanted) {
        let known = self.copies.iter().position(|(hash, _)| *hash == wanted.hash);
        let mut pieces =
            known.and_then(|at| self.copies.remove(at)).map(|(_, pieces)| pieces).unwrap_or_default();
        let copies = pieces.entry(wanted.piece).or_default();
        *copies = Copies { count: copies.count.saturating_add(1), last: now };
        self.copies.push_front((wanted.hash, pieces));
        self.copies.truncate(limits::UPLOAD_BLOBS_REMEMBERED);
    }
}

fn account(accounts: &mut HashMap<PeerId, Lately>, now: Timestamp, peer: PeerId, bytes: u64) {
    if accounts.len() >= limits::RECIPROCITY_PEERS_MAX && !accounts.contains_key(&peer) {
        accounts.retain(|_, lately| lately.value(now) > 0);
        if accounts.len() >= limits::RECIPROCITY_PEERS_MAX {
            return;
        }
    }
    accounts.entry(peer).or_default().add(now, bytes);
}
