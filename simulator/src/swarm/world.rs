//! Virtual time in small steps: messages arrive, bytes flow, peers decide.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use talka_core::{
    ids::{BlobHash, PeerId},
    limits,
    quantities::{Bytes, Timestamp},
    swarm::{Failure, Kind, PieceNo, PieceSet, Pieces, Request, RequestNo, UploadNo, Wanted},
};

use super::{
    Manner, Outcome, Swarm,
    links::{Transfer, flow},
    node::Node,
};

/// One step of time.
const STEP: Duration = Duration::from_millis(10);
/// The source.
const SOURCE: usize = 0;
const HASH: BlobHash = BlobHash::new([1; 32]);

/// What arrives somewhere.
enum Message {
    /// A peer has a piece.
    Has { to: usize, from: usize, piece: PieceNo },
    /// A peer asks another one for a piece.
    Ask { to: usize, from: usize, request: Request },
    /// A peer refuses a request.
    Refuse { to: usize, request: RequestNo, failure: Failure },
}

/// Runs a swarm until every peer that stays has the blob, or the limit is reached. The same seed gives the same run.
///
/// # Panics
///
/// When the books of a peer do not agree with each other.
pub fn run(seed: u64, swarm: &Swarm) -> Outcome {
    World::new(seed, swarm).run()
}

struct World<'a> {
    swarm: &'a Swarm,
    rng: StdRng,
    now: Timestamp,
    nodes: Vec<Node>,
    by_peer: HashMap<PeerId, usize>,
    up: Vec<f64>,
    down: Vec<f64>,
    transfers: Vec<Transfer>,
    /// Requests that wait for a slot, by who serves them.
    waiting: HashMap<(usize, UploadNo), (usize, Request)>,
    messages: BTreeMap<Timestamp, Vec<Message>>,
    /// Who leaves at half.
    leaving: Vec<bool>,
    bans: (u32, u32),
}

impl<'a> World<'a> {
    fn new(seed: u64, swarm: &'a Swarm) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = Pieces::of(Bytes::new(swarm.bytes)).count();
        let mut nodes = vec![Node::new(SOURCE, Manner::Honest, swarm.bytes, PieceSet::all(count))];
        let (mut up, mut down) = (vec![swarm.source_up], vec![f64::INFINITY]);
        for group in &swarm.groups {
            for _ in 0..group.peers {
                nodes.push(Node::new(nodes.len(), group.manner, swarm.bytes, PieceSet::none(count)));
                up.push(group.up);
                down.push(group.down);
            }
        }
        let leaving = nodes
            .iter()
            .enumerate()
            .map(|(number, node)| {
                number != SOURCE && node.manner == Manner::Honest && rng.random_bool(swarm.leave_at_half)
            })
            .collect();
        let by_peer = nodes.iter().enumerate().map(|(number, node)| (node.peer, number)).collect();
        let mut world = Self {
            swarm,
            rng,
            now: Timestamp::from_millis(0),
            nodes,
            by_peer,
            up,
            down,
            transfers: Vec::new(),
            waiting: HashMap::new(),
            messages: BTreeMap::new(),
            leaving,
            bans: (0, 0),
        };
        world.introduce(count);
        world
    }

    /// Everybody is told of the source and of as many others as a tracker names.
    fn introduce(&mut self, count: u32) {
        let all: Vec<PieceNo> = (0..count).map(PieceNo::new).collect();
        for number in 1..self.nodes.len() {
            if !self.nodes[number].manner.fetches() {
                continue;
            }
            let mut others: Vec<usize> = (1..self.nodes.len()).filter(|other| *other != number).collect();
            others.shuffle(&mut self.rng);
            others.truncate(limits::PROVIDERS_MAX);
            let source = self.nodes[SOURCE].peer;
            self.nodes[number].download.on_provider(source, Kind::Source);
            self.nodes[number].download.on_has(source, all.iter().copied());
            for other in others {
                let peer = self.nodes[other].peer;
                if self.nodes[number].download.on_provider(peer, Kind::Peer) {
                    self.nodes[other].followers.push(number);
                    if self.nodes[other].manner.boasts() {
                        self.nodes[number].download.on_has(peer, all.iter().copied());
                    }
                }
            }
        }
    }

    fn run(mut self) -> Outcome {
        let end = self.now + self.swarm.limit;
        while self.now < end && self.nodes.iter().any(is_fetching) {
            self.deliver();
            self.decide();
            self.serve();
            flow(&mut self.transfers, &self.up, &self.down, STEP.as_secs_f64());
            self.now = self.now + STEP;
            self.collect();
        }
        self.outcome()
    }

    fn send(&mut self, message: Message) {
        self.messages.entry(self.now + self.swarm.latency).or_default().push(message);
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.messages.first_entry()
            && *entry.key() <= self.now
        {
            for message in entry.remove() {
                match message {
                    Message::Has { to, from, piece } => {
                        let peer = self.nodes[from].peer;
                        self.nodes[to].download.on_has(peer, [piece]);
                    }
                    Message::Ask { to, from, request } => self.on_ask(to, from, request),
                    Message::Refuse { to, request, failure } => {
                        self.nodes[to].download.on_failed(self.now, request, failure);
                    }
                }
            }
        }
    }

    fn on_ask(&mut self, to: usize, from: usize, request: Request) {
        let asker = self.nodes[from].peer;
        let node = &mut self.nodes[to];
        let refuse = |failure| Message::Refuse { to: from, request: request.number, failure };
        if !node.here || node.manner == Manner::Boaster {
            return self.send(refuse(Failure::NotHeld));
        }
        let wanted = Wanted { hash: HASH, piece: request.piece };
        match node.uploads.on_asked(self.now, asker, wanted) {
            Some(upload) => drop(self.waiting.insert((to, upload), (from, request))),
            None => self.send(refuse(Failure::Busy)),
        }
    }

    /// Everybody drops what lapsed and asks for more.
    fn decide(&mut self) {
        for number in 1..self.nodes.len() {
            if !is_fetching(&self.nodes[number]) {
                continue;
            }
            for dropped in self.nodes[number].download.expire(self.now) {
                self.drop_request(number, dropped);
            }
            let rng = &mut self.rng;
            let mut draw = |below: u32| rng.random_range(0..below);
            let mut asked = Vec::new();
            while let Some(request) = self.nodes[number].download.next(self.now, &mut draw) {
                asked.push(request);
            }
            for request in asked {
                let to = self.by_peer[&request.peer];
                self.send(Message::Ask { to, from: number, request });
            }
        }
    }

    /// A peer does not want an answer any more.
    fn drop_request(&mut self, number: usize, request: RequestNo) {
        let is_it = |transfer: &Transfer| transfer.to == number && transfer.request == request;
        if let Some(at) = self.transfers.iter().position(is_it) {
            let transfer = self.transfers.swap_remove(at);
            self.nodes[number].wasted += transfer.came;
            self.nodes[transfer.from].uploads.on_ended(transfer.upload);
        }
        let nodes = &mut self.nodes;
        self.waiting.retain(|(from, upload), (to, waiting)| {
            let dropped = *to == number && waiting.number == request;
            if dropped {
                nodes[*from].uploads.on_ended(*upload);
            }
            !dropped
        });
    }

    /// Everybody starts what it has slots for.
    fn serve(&mut self) {
        for number in 0..self.nodes.len() {
            for upload in self.nodes[number].uploads.expire(self.now) {
                if let Some((to, request)) = self.waiting.remove(&(number, upload)) {
                    self.send(Message::Refuse { to, request: request.number, failure: Failure::Busy });
                }
            }
            let rng = &mut self.rng;
            let mut draw = |below: u32| rng.random_range(0..below);
            let mut started = Vec::new();
            while let Some(upload) = self.nodes[number].uploads.next(self.now, &mut draw) {
                started.push(upload);
            }
            for upload in started {
                let Some((to, request)) = self.waiting.remove(&(number, upload)) else {
                    self.nodes[number].uploads.on_ended(upload);
                    continue;
                };
                if self.nodes[number].manner == Manner::Staller {
                    continue;
                }
                #[expect(clippy::cast_precision_loss, reason = "bytes of a piece")]
                let left = (request.range.end - request.range.start) as f64;
                let request = request.number;
                self.transfers.push(Transfer { from: number, to, request, upload, left, came: 0.0 });
            }
        }
    }

    /// What arrived.
    fn collect(&mut self) {
        /// Of which nothing is left to come, but for rounding.
        const NOTHING: f64 = 0.5;
        /// A liar is found out at the first bad group.
        const GROUP_BYTES: f64 = 16384.0;
        let mut running = Vec::with_capacity(self.transfers.len());
        let mut ended = Vec::new();
        for transfer in std::mem::take(&mut self.transfers) {
            let lie = self.nodes[transfer.from].manner == Manner::Poisoner && transfer.came >= GROUP_BYTES;
            if lie || transfer.left < NOTHING { ended.push((transfer, lie)) } else { running.push(transfer) }
        }
        for transfer in &running {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes of a piece")]
            let came = transfer.came as u64;
            self.nodes[transfer.to].download.on_progress(self.now, transfer.request, came);
        }
        self.transfers = running;
        for (transfer, lie) in ended {
            self.nodes[transfer.from].uploads.on_ended(transfer.upload);
            self.nodes[transfer.from].sent += transfer.came;
            if lie { self.on_lie(&transfer) } else { self.on_came(&transfer) }
        }
    }

    fn on_lie(&mut self, transfer: &Transfer) {
        let node = &mut self.nodes[transfer.to];
        node.wasted += transfer.came;
        if let Some(liar) = node.download.on_failed(self.now, transfer.request, Failure::Lie) {
            node.bans.ban(self.now, liar);
            match self.nodes[self.by_peer[&liar]].manner {
                Manner::Poisoner => self.bans.0 += 1,
                _ => self.bans.1 += 1,
            }
        }
    }

    fn on_came(&mut self, transfer: &Transfer) {
        let (to, from) = (transfer.to, self.nodes[transfer.from].peer);
        let receiver = self.nodes[to].peer;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes of a piece")]
        let bytes = transfer.came as u64;
        self.nodes[transfer.from].uploads.on_sent(self.now, receiver, bytes);
        let node = &mut self.nodes[to];
        let before: Vec<PieceNo> = node.download.have().iter().collect();
        node.uploads.on_received(self.now, from, bytes);
        node.useful += transfer.came;
        let dropped = node.download.on_fetched(self.now, transfer.request);
        node.download.check_invariants();
        let fresh: Vec<PieceNo> =
            node.download.have().iter().filter(|piece| before.binary_search(piece).is_err()).collect();
        for request in dropped {
            self.drop_request(to, request);
        }
        self.tell(to, &fresh);
        let node = &mut self.nodes[to];
        if node.download.is_complete() {
            node.finished.get_or_insert(self.now);
        }
        if self.leaving[to] && node.download.have().len() * 2 > node.download.pieces().count() {
            self.leave(to);
        }
    }

    fn tell(&mut self, number: usize, pieces: &[PieceNo]) {
        if self.nodes[number].manner != Manner::Honest {
            return;
        }
        for follower in self.nodes[number].followers.clone() {
            for piece in pieces {
                self.send(Message::Has { to: follower, from: number, piece: *piece });
            }
        }
    }

    /// A peer is gone: its connections end.
    fn leave(&mut self, number: usize) {
        self.nodes[number].here = false;
        let peer = self.nodes[number].peer;
        let mut running = Vec::new();
        for transfer in std::mem::take(&mut self.transfers) {
            if transfer.from == number {
                self.nodes[transfer.to].download.on_failed(self.now, transfer.request, Failure::Failed);
            } else if transfer.to == number {
                self.nodes[transfer.from].uploads.on_ended(transfer.upload);
            } else {
                running.push(transfer);
            }
        }
        self.transfers = running;
        for follower in self.nodes[number].followers.clone() {
            self.nodes[follower].download.on_gone(peer);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "bytes of a blob")]
    fn outcome(self) -> Outcome {
        let start = Timestamp::from_millis(0);
        let fetchers = || self.nodes.iter().skip(1).filter(|node| node.manner.fetches() && node.here);
        let honest = || fetchers().filter(|node| node.manner == Manner::Honest);
        let (useful, wasted) =
            honest().fold((0.0, 0.0), |(useful, wasted), node| (useful + node.useful, wasted + node.wasted));
        Outcome {
            finished: fetchers().map(|node| (node.manner, node.finished.map(|at| at.since(start)))).collect(),
            source_ratio: self.nodes[SOURCE].sent / self.swarm.bytes as f64,
            waste: wasted / f64::max(useful + wasted, 1.0),
            bans: self.bans,
        }
    }
}

fn is_fetching(node: &Node) -> bool {
    node.here && node.manner.fetches() && !node.download.is_complete()
}
