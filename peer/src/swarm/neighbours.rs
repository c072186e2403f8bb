//! Who has pieces of a blob: told by somebody, connected, and followed.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::StreamExt;
use rand::seq::IteratorRandom;
use talka_core::{ids::PeerId, job::BlobRef, limits, quantities::Timestamp, swarm::PieceNo};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

use super::{Members, Shared};
use crate::transfer::{ChunkTransport, Provider};

/// What is heard of others.
#[derive(Debug)]
pub(super) enum News {
    /// These may have the blob, says somebody who should know.
    Named(Vec<Provider>),
    /// These may, says another peer.
    Heard(Vec<Provider>),
    /// A peer has these pieces, too.
    Has(PeerId, Vec<PieceNo>),
    /// A peer can't be reached, or not any more.
    Gone(PeerId),
}

/// Time between two questions for members.
const ASK_INTERVAL: Duration = Duration::from_secs(2);
/// The same at the beginning, when others may be about to join.
const ASK_INTERVAL_FIRST: Duration = Duration::from_millis(250);
/// Questions until the longer interval holds.
const ASKED_OFTEN: u32 = 8;
/// Time until other peers are asked for the first time whom they know: by then a small blob is here.
const EXCHANGE_FIRST: Duration = Duration::from_secs(1);
/// Time between two such questions.
const EXCHANGE_INTERVAL: Duration = Duration::from_secs(5);
/// First pause before a peer that went away is followed again; it doubles.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// A peer that was named.
struct Neighbour {
    provider: Provider,
    /// Whether only other peers named it: what they say of it can be anything.
    hearsay: bool,
    follow: Option<AbortOnDropHandle<()>>,
    losses: u32,
    not_before: Timestamp,
}

/// See the [module](self).
pub(super) struct Neighbours {
    shared: Arc<Shared>,
    blob: BlobRef,
    known: HashMap<PeerId, Neighbour>,
    news: mpsc::Sender<News>,
    _asking: AbortOnDropHandle<()>,
    /// Questions to other peers whom they know.
    exchanging: JoinSet<()>,
    exchange_at: Timestamp,
}

impl Neighbours {
    /// Starts to ask for members. What is heard comes out of the channel.
    pub(super) fn start(
        shared: Arc<Shared>,
        blob: BlobRef,
        members: Arc<impl Members>,
    ) -> (Self, mpsc::Receiver<News>) {
        let (news, heard) = mpsc::channel(limits::SWARM_PROVIDERS_MAX * 2);
        let asking = AbortOnDropHandle::new(tokio::spawn(ask(members, blob, news.clone())));
        let this = Self {
            exchange_at: shared.clock.now() + EXCHANGE_FIRST,
            shared,
            blob,
            known: HashMap::new(),
            news,
            _asking: asking,
            exchanging: JoinSet::new(),
        };
        (this, heard)
    }

    /// How a peer is reached.
    pub(super) fn provider(&self, peer: PeerId) -> Option<&Provider> {
        self.known.get(&peer).map(|neighbour| &neighbour.provider)
    }

    /// Somebody named a peer: `hearsay` is what another peer says. Returns whether it may be followed now.
    pub(super) fn on_named(&mut self, now: Timestamp, provider: &Provider, hearsay: bool) -> bool {
        let peer = provider.peer();
        if peer == self.shared.me || self.shared.is_banned(peer) {
            return false;
        }
        match self.known.get_mut(&peer) {
            Some(neighbour) if neighbour.follow.is_some() || neighbour.not_before > now => false,
            Some(neighbour) => {
                // Nobody can make a peer unreachable by telling others that it is elsewhere.
                if neighbour.hearsay || !hearsay {
                    (neighbour.provider, neighbour.hearsay) = (provider.clone(), hearsay);
                }
                true
            }
            None => {
                // Whoever names peers without end makes others forget how often they failed, no more.
                if self.known.len() >= limits::SWARM_MEMBERS_MAX {
                    self.known.retain(|_, neighbour| neighbour.follow.is_some());
                }
                let provider = provider.clone();
                let neighbour = Neighbour {
                    provider,
                    hearsay,
                    follow: None,
                    losses: 0,
                    not_before: Timestamp::default(),
                };
                self.known.insert(peer, neighbour);
                true
            }
        }
    }

    /// Follows what a peer has.
    pub(super) fn follow(&mut self, peer: PeerId) {
        let Some(neighbour) = self.known.get_mut(&peer) else { return };
        let (shared, blob, news) = (self.shared.clone(), self.blob, self.news.clone());
        let provider = neighbour.provider.clone();
        let follow = tokio::spawn(async move {
            match shared.transport.follow(&provider, blob).await {
                Ok(mut pieces) => {
                    while let Some(pieces) = pieces.next().await {
                        if !pieces.is_empty() && news.send(News::Has(peer, pieces)).await.is_err() {
                            return;
                        }
                    }
                }
                Err(error) => tracing::debug!(peer = %peer.short(), %error, "a peer can't be followed"),
            }
            // An error means that nobody wants to know.
            drop(news.send(News::Gone(peer)).await);
        });
        neighbour.follow = Some(AbortOnDropHandle::new(follow));
    }

    /// Asks a few of those who are followed whom else they know, if it is time for that. `source` has another way to tell.
    /// Returns whom this peer knows itself: some of those who asked it lately.
    pub(super) fn exchange(&mut self, now: Timestamp, source: Option<PeerId>) -> Vec<Provider> {
        while self.exchanging.try_join_next().is_some() {}
        let Some(second) = self.shared.transport.second().filter(|_| now >= self.exchange_at) else {
            return Vec::new();
        };
        self.exchange_at = now + EXCHANGE_INTERVAL.mul_f64(rand::random_range(0.75..1.25));
        let followed = self
            .known
            .iter()
            .filter(|(peer, neighbour)| neighbour.follow.is_some() && Some(**peer) != source);
        let asked = followed.map(|(_, neighbour)| neighbour.provider.clone());
        for provider in asked.sample(&mut rand::rng(), limits::EXCHANGE_WITH_MAX) {
            let (second, blob, news) = (second.clone(), self.blob, self.news.clone());
            self.exchanging.spawn(async move {
                match second.members(&provider, blob).await {
                    // An error means that nobody wants to know.
                    Ok(named) => drop(news.send(News::Heard(named)).await),
                    Err(error) => {
                        tracing::debug!(peer = %provider.peer().short(), %error, "a peer names nobody");
                    }
                }
            });
        }
        let known = self.shared.known.named(self.blob.hash, self.shared.me);
        known.into_iter().map(|known| Provider::dial(known.peer, known.addresses)).collect()
    }

    /// A peer is gone: it is not followed for a while.
    pub(super) fn on_gone(&mut self, now: Timestamp, peer: PeerId) {
        let Some(neighbour) = self.known.get_mut(&peer) else { return };
        neighbour.follow = None;
        neighbour.not_before = now + (PAUSE_MIN * (1 << neighbour.losses.min(6))).min(PAUSE_MAX);
        neighbour.losses += 1;
    }
}

async fn ask(members: Arc<impl Members>, blob: BlobRef, news: mpsc::Sender<News>) {
    let mut asked = 0;
    loop {
        let mut named: Vec<Provider> = members.source().into_iter().collect();
        match members.others(blob).await {
            Ok(others) => named.extend(others),
            Err(error) => tracing::debug!(%error, "nobody tells who has the blob"),
        }
        if news.send(News::Named(named)).await.is_err() {
            return;
        }
        asked += 1;
        let interval = if asked < ASKED_OFTEN { ASK_INTERVAL_FIRST } else { ASK_INTERVAL };
        // Peers that began together must not ask together.
        tokio::time::sleep(interval.mul_f64(rand::random_range(0.75..1.25))).await;
    }
}
