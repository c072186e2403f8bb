//! `talka bench swarm`: real peer processes on loopback fetch one blob from each other.
//!
//! The first process makes the blob and serves it; the others are told of it and of each other by lines on their
//! standard input, and say on standard output what came of it. Upload limits are those that an owner sets.

mod peer;
mod process;

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub(crate) use self::peer::{SwarmPeerConfig, run as peer};
use self::process::PeerProcess;
use crate::{output::Out, paths, progress};

/// What is to be measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SwarmConfig {
    /// Peers that fetch.
    pub(crate) peers: u32,
    /// Size of the blob.
    pub(crate) mib: u64,
    /// What each peer and the source can send, in 10⁶ bytes per second.
    pub(crate) uplink_mb_s: Option<f64>,
    /// What each peer can take, likewise.
    pub(crate) downlink_mb_s: Option<f64>,
    /// Whether peers know nobody but the source.
    pub(crate) seed_only: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Report {
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
}

/// What a peer is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Order {
    /// Fetch this from the source and from each other.
    Fetch { blob: BlobText, source: PeerText, others: Vec<PeerText> },
}

/// What a peer says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    /// It serves, and where.
    Ready { peer: PeerText, blob: Option<BlobText> },
    /// It has the blob.
    Fetched,
    /// It ends.
    Ended { served: u64, cpu_secs: f64 },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct BlobText {
    hash: String,
    size: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct PeerText {
    peer: String,
    address: std::net::SocketAddr,
}

/// Longest time for the whole of it beyond what the uplinks need.
const PATIENCE: Duration = Duration::from_mins(5);

/// Measures and prints what came out.
pub(crate) async fn run(config: SwarmConfig, out: Out) -> anyhow::Result<ExitCode> {
    let bound = fluid_bound_secs(&config);
    // A source alone takes longer than the bound by as many times as there are peers.
    let longest = Duration::from_secs_f64(bound.unwrap_or(0.0) * f64::from(config.peers)) + PATIENCE;
    let bar = progress::steps_bar(out, 3);
    bar.set_message("peers fetch");
    let report = tokio::time::timeout(longest, measure(config, bound)).await;
    let report = report.with_context(|| format!("the peers did not have the blob after {longest:?}"))??;
    bar.finish_and_clear();
    report.print(out)?;
    Ok(ExitCode::SUCCESS)
}

async fn measure(config: SwarmConfig, bound: Option<f64>) -> anyhow::Result<Report> {
    let exe = paths::own_executable().context("cannot find this program's own file")?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes per second, checked")]
    let bytes_per_sec = |mb_s: Option<f64>| mb_s.map(|mb_s| (mb_s * 1e6) as u64);
    let (uplink, downlink) = (bytes_per_sec(config.uplink_mb_s), bytes_per_sec(config.downlink_mb_s));
    let bytes = config.mib << 20;
    let mut source = PeerProcess::start(&exe, (uplink, None), Some(bytes)).context("the source")?;
    let mut peers = Vec::new();
    for number in 0..config.peers {
        peers.push(
            PeerProcess::start(&exe, (uplink, downlink), None).with_context(|| format!("peer {number}"))?,
        );
    }
    let (at_source, blob) = source.ready().await.context("the source")?;
    let blob = blob.context("the source made no blob")?;
    let everybody: Vec<PeerText> = try_join_all(peers.iter_mut().map(PeerProcess::ready))
        .await?
        .into_iter()
        .map(|(peer, _)| peer)
        .collect();
    let begun = Instant::now();
    for (number, peer) in peers.iter_mut().enumerate() {
        let others = everybody.iter().enumerate().filter(|(other, _)| *other != number && !config.seed_only);
        let others = others.map(|(_, other)| other.clone()).collect();
        peer.tell(&Order::Fetch { blob: blob.clone(), source: at_source.clone(), others }).await?;
    }
    // Whoever says that it has fetched has all of it, verified.
    try_join_all(peers.iter_mut().map(PeerProcess::fetched)).await?;
    let wall_secs = begun.elapsed().as_secs_f64();
    let mut cpu_secs = 0.0;
    for peer in peers {
        cpu_secs += peer.end().await?.1;
    }
    let (served, cpu) = source.end().await.context("the source")?;
    #[expect(clippy::cast_precision_loss, reason = "bytes of a blob")]
    let seed_upload_ratio = served as f64 / bytes as f64;
    Ok(Report {
        peers: config.peers,
        mib: config.mib,
        uplink_mb_s: config.uplink_mb_s,
        downlink_mb_s: config.downlink_mb_s,
        seed_upload_ratio,
        wall_secs,
        fluid_bound_secs: bound,
        cpu_secs: cpu_secs + cpu,
        seed_only: config.seed_only,
    })
}

/// With equal uplinks u and downlinks d: the largest of F/u, as the source has to send everything once, F/d, as each peer has
/// to take all of it, and N·F/(u + N·u), as all of them together have to send it N times.
#[expect(clippy::cast_precision_loss, reason = "bytes of a blob")]
fn fluid_bound_secs(config: &SwarmConfig) -> Option<f64> {
    let (bytes, peers) = ((config.mib << 20) as f64, f64::from(config.peers));
    let sent = config.uplink_mb_s.map(|uplink| {
        let uplink = uplink * 1e6;
        (bytes / uplink).max(peers * bytes / (uplink + peers * uplink))
    });
    let taken = config.downlink_mb_s.map(|downlink| bytes / (downlink * 1e6));
    match (sent, taken) {
        (Some(sent), Some(taken)) => Some(sent.max(taken)),
        (sent, taken) => sent.or(taken),
    }
}

impl Report {
    fn print(&self, out: Out) -> anyhow::Result<()> {
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
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_source_or_all_uplinks_together() {
        let config = |peers, uplink_mb_s, downlink_mb_s| SwarmConfig {
            peers,
            mib: 64,
            uplink_mb_s,
            downlink_mb_s,
            seed_only: false,
        };
        assert_eq!(fluid_bound_secs(&config(8, None, None)), None);
        let caps = [(Some(1.048_576), None), (None, Some(1.048_576)), (Some(2.097_152), Some(1.048_576))];
        for (uplink, downlink) in caps {
            let bound = fluid_bound_secs(&config(8, uplink, downlink)).expect("capped");
            assert!((bound - 64.0).abs() < 1e-9, "{bound}");
        }
    }
}
