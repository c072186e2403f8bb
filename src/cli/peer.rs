//! `talka peer …`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use talka_core::{ids::PeerId, placement::Admission, quantities::Bytes};
use talka_proto::wire;

use super::CoordinatorFlags;
use crate::{
    client::{self, Client},
    error::{Code, Failure},
    format::{ago, peer_short, peer_text},
    output::Out,
    view::PeerView,
};

/// Commands about the peers of a coordinator.
#[derive(Debug, Subcommand)]
pub(crate) enum PeerCommand {
    /// List the workers that a coordinator knows.
    #[command(after_help = "Example:\n  talka peer list --json | jq 'map(.slots) | add'")]
    List(ListFlags),
    /// Show everything about one worker.
    #[command(after_help = "Example:\n  talka peer info 3f9a")]
    Info(InfoFlags),
    /// Let a worker in, and trust it from the start as much as one that passed checks.
    #[command(after_help = "Example:\n  talka peer approve KEY\n\n\
        The peer need not be known yet. This and the next three are for the coordinator's owner, hold for good, and \
        the last word counts.")]
    Approve(AdmitFlags),
    /// Give a worker nothing more. What it did counts.
    #[command(after_help = "Example:\n  talka peer reject 3f9a")]
    Reject(AdmitFlags),
    /// Give a worker nothing more, count no vote of it, and do again what rests on its word alone.
    #[command(after_help = "Example:\n  talka peer ban 3f9a")]
    Ban(AdmitFlags),
    /// Take back what was said of a worker: it is as any other that nothing was said of.
    #[command(after_help = "Example:\n  talka peer reset 3f9a\n\n\
        What checks have shown of it stays. One that was turned away is let in again when it is started again; where only \
        invited or approved workers may work, one that was approved is not.")]
    Reset(AdmitFlags),
}

/// `talka peer approve`, `reject`, `ban` and `reset`.
#[derive(Debug, Args)]
pub(crate) struct AdmitFlags {
    /// The worker's key, or how it begins if the coordinator knows it.
    #[arg(value_name = "PEER")]
    peer: String,
    #[command(flatten)]
    coordinator: CoordinatorFlags,
}

/// `talka peer list`.
#[derive(Debug, Args)]
pub(crate) struct ListFlags {
    #[command(flatten)]
    coordinator: CoordinatorFlags,
}

/// `talka peer info`.
#[derive(Debug, Args)]
pub(crate) struct InfoFlags {
    /// The worker's key, or how it begins.
    #[arg(value_name = "PEER")]
    peer: String,
    #[command(flatten)]
    coordinator: CoordinatorFlags,
}

impl PeerCommand {
    pub(crate) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let coordinator = match &self {
            Self::List(ListFlags { coordinator }) | Self::Info(InfoFlags { coordinator, .. }) => coordinator,
            Self::Approve(flags) => return flags.run(Admission::Approved, out).await,
            Self::Reject(flags) => return flags.run(Admission::Rejected, out).await,
            Self::Ban(flags) => return flags.run(Admission::Banned, out).await,
            Self::Reset(flags) => return flags.run(Admission::Open, out).await,
        };
        let client = Client::connect_as_owner_or_not(coordinator).await?;
        let reply = client::unary(client.peers().list(wire::ListPeersRequest {})).await;
        client.close().await;
        let peers = reply?.peers;
        match &self {
            Self::Info(flags) => info(out, find(&peers, &flags.peer)?)?,
            _ => list(out, &peers)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl AdmitFlags {
    async fn run(&self, admission: Admission, out: Out) -> anyhow::Result<ExitCode> {
        let client = Client::connect_as_owner(&self.coordinator).await?;
        let said = self.say(&client, admission).await;
        client.close().await;
        let peer = said?;
        if out.is_json() {
            out.json(&serde_json::json!({ "peer": peer.to_string(), "admission": admission.name() }))?;
        } else if out.is_quiet() {
            out.line(peer)?;
        } else if admission == Admission::Open {
            out.line(format!("{} is as any other worker from now on", peer.short()))?;
        } else {
            out.line(format!("{} is {} from now on", peer.short(), admission.name()))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn say(&self, client: &Client, admission: Admission) -> anyhow::Result<PeerId> {
        let peer = if let Ok(peer) = self.peer.parse::<PeerId>() {
            peer
        } else {
            let known = client::unary(client.peers().list(wire::ListPeersRequest {})).await?.peers;
            peer_text(&find(&known, &self.peer)?.peer).parse()?
        };
        let request = wire::AdmitRequest {
            peer: peer.as_bytes().to_vec().into(),
            admission: u32::from(admission as u8),
        };
        client::unary(client.peers().admit(request)).await?;
        Ok(peer)
    }
}

fn list(out: Out, peers: &[wire::PeerInfo]) -> anyhow::Result<()> {
    if out.is_json() {
        return out.json(&peers.iter().map(PeerView::from).collect::<Vec<_>>());
    }
    let now = client::now_millis();
    let row = |info: &wire::PeerInfo| {
        let view = PeerView::from(info);
        [
            if out.is_quiet() { view.peer } else { peer_short(&info.peer) },
            if view.connected { "connected" } else { "away" }.to_owned(),
            view.slots.to_string(),
            view.running.to_string(),
            view.in_flight.to_string(),
            format!("{}%", view.load_percent),
            Bytes::new(view.memory_bytes).to_string(),
            Bytes::new(view.fetched_from_coordinator_bytes).to_string(),
            Bytes::new(view.fetched_from_peers_bytes).to_string(),
            Bytes::new(view.served_bytes).to_string(),
            match info.last_seen_millis {
                _ if view.connected => "now".into(),
                0 => "never".into(),
                last_seen => ago(now, last_seen),
            },
            view.admission,
        ]
    };
    out.table(
        [
            "peer",
            "state",
            "slots",
            "running",
            "in flight",
            "load",
            "memory",
            "from coordinator",
            "from peers",
            "sent to it",
            "last seen",
            "admission",
        ],
        peers.iter().map(row),
    )
}

fn info(out: Out, peer: &wire::PeerInfo) -> anyhow::Result<()> {
    let view = PeerView::from(peer);
    if out.is_json() {
        return out.json(&view);
    }
    if out.is_quiet() {
        return out.line(view.peer);
    }
    let reputation = view.reputation.map_or("shown to the coordinator's owner alone".into(), |known| {
        let standing = if known.established { "established" } else { "a newcomer" };
        format!(
            "{standing}: {} check(s) passed in a row, caught {} time(s), up to {} attempt(s) in flight",
            known.checks, known.caught, known.in_flight_max
        )
    });
    out.fields([
        ("peer", view.peer),
        ("state", if view.connected { "connected" } else { "away" }.to_owned()),
        ("admission", view.admission),
        ("reputation", reputation),
        ("last seen", view.last_seen),
        ("slots", view.slots.to_string()),
        ("cpus", format!("{}, {}% busy", view.cpus, view.load_percent)),
        ("memory", format!("{} for tasks", Bytes::new(view.memory_bytes))),
        ("free", Bytes::new(view.free_memory_bytes).to_string()),
        ("speed", format!("{:.3} G fuel/s per slot", giga(view.fuel_per_sec))),
        ("in flight", view.in_flight.to_string()),
        ("queued", view.queued.to_string()),
        ("fetching", view.fetching.to_string()),
        ("running", view.running.to_string()),
        (
            "fetched",
            format!(
                "{} from the coordinator, {} from peers, as it says; the coordinator sent {}",
                Bytes::new(view.fetched_from_coordinator_bytes),
                Bytes::new(view.fetched_from_peers_bytes),
                Bytes::new(view.served_bytes)
            ),
        ),
    ])
}

#[expect(clippy::cast_precision_loss, reason = "display only")]
fn giga(number: u64) -> f64 {
    number as f64 / 1e9
}

fn find<'a>(peers: &'a [wire::PeerInfo], prefix: &str) -> Result<&'a wire::PeerInfo, Failure> {
    let prefix = prefix.to_ascii_lowercase();
    let mut matching = peers.iter().filter(|info| peer_text(&info.peer).starts_with(&prefix));
    match (matching.next(), matching.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(Failure::new(Code::NotFound, format!("no worker {prefix}…; see: talka peer list"))),
        (Some(_), Some(_)) => Err(Failure::new(
            Code::Usage,
            format!("several workers begin with {prefix}; give more of the key"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_found_by_how_its_key_begins() {
        let peer = |first: u8| {
            let mut key = [0xab; 32];
            key[0] = first;
            wire::PeerInfo { peer: key.to_vec().into(), ..Default::default() }
        };
        let peers = [peer(0x10), peer(0x11), peer(0x20)];
        assert_eq!(find(&peers, "2").expect("one"), &peers[2]);
        assert_eq!(find(&peers, "11AB").expect("one"), &peers[1]);
        assert_eq!(find(&peers, "1").expect_err("two").code(), Code::Usage);
        assert_eq!(find(&peers, "3").expect_err("none").code(), Code::NotFound);
    }
}
