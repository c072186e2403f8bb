//! One blob and hundreds of peers in virtual time, over the production [`Download`] and [`Uploads`].
//!
//! Links are modelled as a fluid: each peer's uplink is shared evenly among what it serves, each downlink bounds what
//! arrives, and messages take a fixed time. What peers do with it, whom they ask, whom they serve, whom they ban, is
//! decided by the code that runs for real.
//!
//! The yardstick is the *fluid bound* (Kumar and Ross 2006, "Peer-assisted file distribution: the minimum distribution
//! time"): nobody can have the blob before the source has sent it once, before the slowest downlink has taken it, or
//! before all uplinks together have carried it to all.
//!
//! [`Download`]: talka_core::swarm::Download
//! [`Uploads`]: talka_core::swarm::Uploads

mod links;
mod node;
#[cfg(test)]
mod tests;
mod world;

use std::time::Duration;

pub use self::{node::Manner, world::run};

/// Peers of one kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group {
    /// How many.
    pub peers: u32,
    /// How they behave.
    pub manner: Manner,
    /// What each can send, in bytes per second.
    pub up: f64,
    /// What each can take, in bytes per second.
    pub down: f64,
}

/// What is to be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Swarm {
    /// Size of the blob, in bytes.
    pub bytes: u64,
    /// Uplink of the source, in bytes per second.
    pub source_up: f64,
    /// Who fetches.
    pub groups: Vec<Group>,
    /// Time of a message from one peer to another.
    pub latency: Duration,
    /// Share of the honest peers that leave for good when they have half of the blob.
    pub leave_at_half: f64,
    /// When it is given up.
    pub limit: Duration,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// When each peer that stayed had the blob, counted from the start, by manner. A peer that never had it has none.
    pub finished: Vec<(Manner, Option<Duration>)>,
    /// What the source sent, as a multiple of the blob.
    pub source_ratio: f64,
    /// What arrived at honest peers and was of no use, as a share of what they fetched.
    pub waste: f64,
    /// How often an honest peer banned a liar, and how often an honest one.
    pub bans: (u32, u32),
}

impl Outcome {
    /// When the last peer of this manner had the blob; `None` if one of them never had it.
    pub fn last(&self, manner: Manner) -> Option<Duration> {
        self.of(manner).try_fold(Duration::ZERO, |last, time| Some(last.max(time?)))
    }

    /// The mean over the peers of this manner, those that never had it left out.
    pub fn mean(&self, manner: Manner) -> Duration {
        let times: Vec<Duration> = self.of(manner).flatten().collect();
        times.iter().sum::<Duration>() / u32::try_from(times.len()).unwrap_or(u32::MAX).max(1)
    }

    fn of(&self, manner: Manner) -> impl Iterator<Item = Option<Duration>> + '_ {
        self.finished.iter().filter(move |(other, _)| *other == manner).map(|(_, time)| *time)
    }
}

impl Swarm {
    /// Peers of one kind, a source with the same uplink, and messages that take 20 ms.
    pub fn even(peers: u32, bytes: u64, up: f64) -> Self {
        let group = Group { peers, manner: Manner::Honest, up, down: up * 100.0 };
        Self {
            bytes,
            source_up: up,
            groups: vec![group],
            latency: Duration::from_millis(20),
            leave_at_half: 0.0,
            limit: Duration::from_mins(30),
        }
    }

    /// The shortest time in which every honest peer can have the blob: see the [module](self).
    #[expect(clippy::cast_precision_loss, reason = "bytes of a blob")]
    pub fn fluid_bound(&self) -> Duration {
        let bytes = self.bytes as f64;
        let honest = || self.groups.iter().filter(|group| group.manner == Manner::Honest);
        let peers: f64 = honest().map(|group| f64::from(group.peers)).sum();
        let up: f64 = honest().map(|group| f64::from(group.peers) * group.up).sum();
        let slowest = honest().map(|group| group.down).fold(f64::INFINITY, f64::min);
        let bound = (bytes / self.source_up).max(bytes / slowest).max(peers * bytes / (self.source_up + up));
        Duration::from_secs_f64(bound)
    }
}
