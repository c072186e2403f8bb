//! Who has pieces of a blob: told by somebody, connected, and followed.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::StreamExt;
use talka_core::{ids::PeerId, job::BlobRef, limits, quantities::Timestamp, swarm::PieceNo};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{Members, Shared};
use crate::transfer::{ChunkTransport, Provider};

/// What is heard of others.
#[derive(Debug)]
pub(super) enum News {
    /// These may have the blob.
    Named(Vec<Provider>),
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
/// First pause before a peer that went away is followed again; it doubles.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// A peer that was named.
struct Neighbour {
    provider: Provider,
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
        (Self { shared, blob, known: HashMap::new(), news, _asking: asking }, heard)
    }

    /// How a peer is reached.
    pub(super) fn provider(&self, peer: PeerId) -> Option<&Provider> {
        self.known.get(&peer).map(|neighbour| &neighbour.provider)
    }

    /// Somebody named a peer. Returns whether it may be followed now.
    pub(super) fn on_named(&mut self, now: Timestamp, provider: &Provider) -> bool {
        let peer = provider.peer();
        if peer == self.shared.me || self.shared.is_banned(peer) {
            return false;
        }
        match self.known.get_mut(&peer) {
            Some(neighbour) if neighbour.follow.is_some() || neighbour.not_before > now => false,
            Some(neighbour) => {
                neighbour.provider = provider.clone();
                true
            }
            None => {
                // Whoever names peers without end makes others forget how often they failed, no more.
                if self.known.len() >= limits::SWARM_MEMBERS_MAX {
                    self.known.retain(|_, neighbour| neighbour.follow.is_some());
                }
                let provider = provider.clone();
                let neighbour =
                    Neighbour { provider, follow: None, losses: 0, not_before: Timestamp::default() };
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
