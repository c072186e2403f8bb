//! What `talka bench swarm` says.

use serde::Serialize;
use talka_core::quantities::Bytes;

use super::{Measured, SwarmConfig};
use crate::output::Out;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Report {
    peers: u32,
    mib: u64,
    uplink_mb_s: Option<f64>,
    downlink_mb_s: Option<f64>,
    /// What the source sent, as a multiple of the blob.
    seed_upload_ratio: f64,
    /// From the start to the last peer that had all of it.
    wall_secs: f64,
    /// The shortest time that any way of spreading it could take.
    fluid_bound_secs: Option<f64>,
    /// Processor time of all processes together.
    cpu_secs: f64,
    seed_only: bool,
    /// The same when some send wrong bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    poisoned: Option<Poisoned>,
}

/// What came of it when some of the peers sent wrong bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Poisoned {
    poisoners: u32,
    /// Peers that fetch, the poisoners among them: as many as in the clean run.
    fetchers: u32,
    /// What the poisoners took of the others until those were done.
    poisoners_fetched_bytes: u64,
    wall_secs: f64,
    /// The time as a multiple of that without them, in the same run.
    times_clean: f64,
    seed_upload_ratio: f64,
    /// Bytes that peers kept and that are not those of the blob.
    wrong_bytes: u64,
    /// Bans of those who sent wrong bytes, by all others together.
    poisoners_banned: usize,
    /// Bans of those who did not.
    honest_banned: usize,
    cpu_secs: f64,
}

impl Poisoned {
    pub(super) fn new(config: &SwarmConfig, poisoners: u32, clean: &Measured, poisoned: Measured) -> Self {
        let Measured { wall_secs, seed_upload_ratio, cpu_secs, wrong_bytes, banned, liars_fetched } =
            poisoned;
        let (poisoners_banned, honest_banned) = banned;
        Self {
            poisoners,
            fetchers: config.peers,
            poisoners_fetched_bytes: liars_fetched,
            wall_secs,
            times_clean: wall_secs / clean.wall_secs,
            seed_upload_ratio,
            wrong_bytes,
            poisoners_banned,
            honest_banned,
            cpu_secs,
        }
    }
}

impl Report {
    pub(super) fn new(
        config: SwarmConfig,
        bound: Option<f64>,
        clean: &Measured,
        poisoned: Option<Poisoned>,
    ) -> Self {
        Self {
            peers: config.peers,
            mib: config.mib,
            uplink_mb_s: config.uplink_mb_s,
            downlink_mb_s: config.downlink_mb_s,
            seed_upload_ratio: clean.seed_upload_ratio,
            wall_secs: clean.wall_secs,
            fluid_bound_secs: bound,
            cpu_secs: clean.cpu_secs,
            seed_only: config.seed_only,
            poisoned,
        }
    }

    pub(super) fn print(&self, out: Out) -> anyhow::Result<()> {
        if out.is_json() {
            return out.json(self);
        }
        if out.is_quiet() {
            return out.line(format!("{:.3} {:.3}", self.wall_secs, self.seed_upload_ratio));
        }
        let none = || "-".to_owned();
        out.fields([
            ("peers", self.peers.to_string()),
            ("blob", format!("{} MiB", self.mib)),
            ("uplink", self.uplink_mb_s.map_or_else(none, |uplink| format!("{uplink} MB/s each"))),
            ("downlink", self.downlink_mb_s.map_or_else(none, |downlink| format!("{downlink} MB/s each"))),
            ("time", format!("{:.2} s", self.wall_secs)),
            ("bound", self.fluid_bound_secs.map_or_else(none, |bound| format!("{bound:.2} s"))),
            (
                "of the bound",
                self.fluid_bound_secs
                    .map_or_else(none, |bound| format!("{:.2} times", self.wall_secs / bound)),
            ),
            ("source sent", format!("{:.2} times the blob", self.seed_upload_ratio)),
            ("processor", format!("{:.2} s in all", self.cpu_secs)),
        ])?;
        let Some(poisoned) = &self.poisoned else { return Ok(()) };
        out.fields([
            (
                "poisoners",
                format!(
                    "{} of the {} peers; they fetch, too, as in the clean run, and took {}",
                    poisoned.poisoners,
                    poisoned.fetchers,
                    Bytes::new(poisoned.poisoners_fetched_bytes)
                ),
            ),
            ("time", format!("{:.2} s, {:.2} times the clean one", poisoned.wall_secs, poisoned.times_clean)),
            ("source sent", format!("{:.2} times the blob", poisoned.seed_upload_ratio)),
            ("wrong bytes", poisoned.wrong_bytes.to_string()),
            (
                "bans",
                format!("{} of poisoners, {} of others", poisoned.poisoners_banned, poisoned.honest_banned),
            ),
            ("processor", format!("{:.2} s in all", poisoned.cpu_secs)),
        ])
    }
}
