//! `talka bench swarm`: real peer processes on loopback fetch one blob from each other.
//!
//! The first process makes the blob and serves it; the others are told of it and of each other by lines on their
//! standard input, and say on standard output what came of it. Upload limits are those that an owner sets.

mod peer;
mod process;
mod report;

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub(crate) use self::peer::{SwarmPeerConfig, run as peer};
use self::{
    process::{Ended, Part, PeerProcess},
    report::{Poisoned, Report},
};
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
    /// How many of the peers send wrong bytes when it is done once more, if it is.
    pub(crate) poisoners: Option<u32>,
}

/// What a peer is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Order {
    /// Fetch this from the source and from each other.
    Fetch { blob: BlobText, source: PeerText, others: Vec<PeerText> },
    /// Compare what was fetched with what was made.
    Check,
}

/// What a peer says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    /// It serves, and where.
    Ready { peer: PeerText, blob: Option<BlobText> },
    /// It has the blob.
    Fetched,
    /// It has compared.
    Checked { wrong_bytes: u64, banned: Vec<String> },
    /// It ends.
    Ended { served: u64, fetched: u64, cpu_secs: f64 },
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
    let late = || format!("the peers did not have the blob after {longest:?}");
    let clean = tokio::time::timeout(longest, measure(config, 0)).await.with_context(late)??;
    let poisoned = match config.poisoners {
        Some(poisoners) => {
            bar.set_message("peers fetch, and some send wrong bytes");
            let measured = tokio::time::timeout(longest, measure(config, poisoners)).await;
            Some(Poisoned::new(&config, poisoners, &clean, measured.with_context(late)??))
        }
        None => None,
    };
    bar.finish_and_clear();
    Report::new(config, bound, &clean, poisoned).print(out)?;
    Ok(ExitCode::SUCCESS)
}

/// What came of one run.
#[derive(Debug, Clone, Copy)]
struct Measured {
    wall_secs: f64,
    seed_upload_ratio: f64,
    cpu_secs: f64,
    wrong_bytes: u64,
    /// Bans of poisoners, and of others, by all peers together.
    banned: (usize, usize),
    /// What those who send wrong bytes took themselves until the others were done.
    liars_fetched: u64,
}

/// Lets the peers fetch, so many of which send wrong bytes.
async fn measure(config: SwarmConfig, poisoners: u32) -> anyhow::Result<Measured> {
    let exe = paths::own_executable().context("cannot find this program's own file")?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes per second, checked")]
    let bytes_per_sec = |mb_s: Option<f64>| mb_s.map(|mb_s| (mb_s * 1e6) as u64);
    let (uplink, downlink) = (bytes_per_sec(config.uplink_mb_s), bytes_per_sec(config.downlink_mb_s));
    let bytes = config.mib << 20;
    let limits = (uplink, downlink);
    let mut source = PeerProcess::start(&exe, (uplink, None), Part::Source(bytes)).context("the source")?;
    let start = |count, part| -> anyhow::Result<Vec<PeerProcess>> {
        (0..count).map(|_| PeerProcess::start(&exe, limits, part)).collect()
    };
    let mut liars = start(poisoners, Part::Poisoner(bytes)).context("a poisoner")?;
    let mut peers = start(config.peers - poisoners, Part::Fetches).context("a peer")?;
    let (at_source, blob) = source.ready().await.context("the source")?;
    let blob = blob.context("the source made no blob")?;
    // Liars first: they are as well known as anybody.
    let everybody = try_join_all(liars.iter_mut().chain(&mut peers).map(PeerProcess::ready)).await?;
    let everybody: Vec<PeerText> = everybody.into_iter().map(|(peer, _)| peer).collect();
    let begun = Instant::now();
    // The liars fetch as well, so that there are as many who do as without them.
    for (itself, peer) in liars.iter_mut().chain(&mut peers).enumerate() {
        let others = everybody.iter().enumerate().filter(|(other, _)| *other != itself && !config.seed_only);
        let others = others.map(|(_, other)| other.clone()).collect();
        peer.tell(&Order::Fetch { blob: blob.clone(), source: at_source.clone(), others }).await?;
    }
    // Whoever says that it has fetched has all of it, verified.
    try_join_all(peers.iter_mut().map(PeerProcess::fetched)).await?;
    let wall_secs = begun.elapsed().as_secs_f64();
    let (mut wrong_bytes, mut banned) = (0, (0, 0));
    if poisoners > 0 {
        let is_liar = |peer: &String| everybody.iter().take(liars.len()).any(|liar| liar.peer == *peer);
        for peer in &mut peers {
            let (wrong, bans) = peer.check().await?;
            wrong_bytes += wrong;
            let of_liars = bans.iter().filter(|peer| is_liar(peer)).count();
            banned = (banned.0 + of_liars, banned.1 + bans.len() - of_liars);
        }
    }
    let (mut cpu_secs, mut liars_fetched) = (0.0, 0);
    for peer in peers {
        cpu_secs += peer.end().await?.cpu_secs;
    }
    for liar in liars {
        let ended = liar.end().await.context("a poisoner")?;
        (cpu_secs, liars_fetched) = (cpu_secs + ended.cpu_secs, liars_fetched + ended.fetched);
    }
    let Ended { served, cpu_secs: cpu, .. } = source.end().await.context("the source")?;
    #[expect(clippy::cast_precision_loss, reason = "bytes of a blob")]
    let seed_upload_ratio = served as f64 / bytes as f64;
    Ok(Measured {
        wall_secs,
        seed_upload_ratio,
        cpu_secs: cpu_secs + cpu,
        wrong_bytes,
        banned,
        liars_fetched,
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
            poisoners: None,
        };
        assert_eq!(fluid_bound_secs(&config(8, None, None)), None);
        let caps = [(Some(1.048_576), None), (None, Some(1.048_576)), (Some(2.097_152), Some(1.048_576))];
        for (uplink, downlink) in caps {
            let bound = fluid_bound_secs(&config(8, uplink, downlink)).expect("capped");
            assert!((bound - 64.0).abs() < 1e-9, "{bound}");
        }
    }
}
