//! One peer of the modelled swarm.

use talka_core::{
    ids::PeerId,
    limits::UPLOAD_SLOTS,
    quantities::{Bytes, Timestamp},
    swarm::{Bans, Download, PieceSet, Uploads},
};

/// How a peer behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manner {
    /// Says what it has, and serves it.
    Honest,
    /// Fetches and serves nothing.
    FreeRider,
    /// Says that it has everything, and sends bytes that do not belong to the blob.
    Poisoner,
    /// Says that it has everything, takes requests, and sends nothing.
    Staller,
    /// Says that it has everything, and has nothing.
    Boaster,
}

impl Manner {
    /// Whether it wants the blob.
    pub(super) fn fetches(self) -> bool {
        matches!(self, Self::Honest | Self::FreeRider)
    }

    /// Whether it says that it has everything.
    pub(super) fn boasts(self) -> bool {
        matches!(self, Self::Poisoner | Self::Staller | Self::Boaster)
    }
}

/// A peer.
pub(super) struct Node {
    pub(super) peer: PeerId,
    pub(super) manner: Manner,
    pub(super) download: Download,
    pub(super) uploads: Uploads,
    pub(super) bans: Bans,
    /// Whether it is there.
    pub(super) here: bool,
    pub(super) finished: Option<Timestamp>,
    /// Who follows what it has.
    pub(super) followers: Vec<usize>,
    pub(super) sent: f64,
    pub(super) useful: f64,
    pub(super) wasted: f64,
}

impl Node {
    pub(super) fn new(number: usize, manner: Manner, bytes: u64, have: PieceSet) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        Self {
            peer: PeerId::new(key),
            manner,
            uploads: if have.is_all() {
                Uploads::of_source(UPLOAD_SLOTS)
            } else {
                Uploads::new(UPLOAD_SLOTS)
            },
            download: Download::new(Bytes::new(bytes), have),
            bans: Bans::default(),
            here: true,
            finished: None,
            followers: Vec::new(),
            sent: 0.0,
            useful: 0.0,
            wasted: 0.0,
        }
    }
}
