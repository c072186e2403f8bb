//! `talka credit export-xml`.

use std::{collections::HashMap, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use talka_core::ids::PeerId;
use talka_peer::files::{Existing, write_durably};
use talka_proto::wire;

use crate::{
    cli::CoordinatorFlags,
    client::{self, Client},
    output::Out,
    statistics::{self, Host},
    view,
};

/// `talka credit export-xml`.
#[derive(Debug, Args)]
pub(crate) struct StatisticsFlags {
    /// Directory for the files; made if there is none. Older files in it are replaced.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    coordinator: CoordinatorFlags,
}

#[derive(Debug, Serialize)]
struct StatisticsView {
    directory: PathBuf,
    files: Vec<&'static str>,
    hosts: usize,
}

impl StatisticsFlags {
    pub(super) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let client = Client::connect(&self.coordinator).await?;
        let credit = client::unary(client.ledger().credit(wire::CreditRequest { days: 0 })).await;
        let connected = client::unary(client.peers().list(wire::ListPeersRequest {})).await;
        client.close().await;
        let (credit, connected) = (credit?, connected?);
        let cpus = connected.peers.iter().filter(|peer| peer.connected);
        let cpus: HashMap<&[u8], u32> =
            cpus.map(|peer| (&peer.peer[..], peer.capacity.as_ref().map_or(0, |known| known.cpus))).collect();
        let now_secs = credit.now_millis / 1000;
        let hosts: Vec<Host> = credit.peers.iter().filter_map(|peer| host(peer, now_secs, &cpus)).collect();
        let files = statistics::files(&hosts, now_secs);
        std::fs::create_dir_all(&self.dir)
            .with_context(|| format!("cannot create {}", self.dir.display()))?;
        for (name, text) in &files {
            let path = self.dir.join(name);
            write_durably(&path, text.as_bytes(), Existing::Replace)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        let view = StatisticsView {
            directory: self.dir,
            files: files.iter().map(|(name, _)| *name).collect(),
            hosts: hosts.len(),
        };
        if out.is_json() {
            out.json(&view)?;
        } else {
            out.line(format!("{} in {}", view.files.join(", "), view.directory.display()))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn host(peer: &wire::PeerCredit, now_secs: u64, cpus: &HashMap<&[u8], u32>) -> Option<Host> {
    Some(Host {
        number: peer.number,
        peer: PeerId::try_from(&peer.peer[..]).ok()?,
        owner: peer.owner.clone(),
        team: peer.team.clone(),
        credit: view::credit(&peer.credit_nanos).as_f64(),
        average: peer.average,
        // Brought to the moment of the export, so that all of them add up.
        average_secs: now_secs,
        cpus: cpus.get(&peer.peer[..]).copied().unwrap_or(0),
    })
}
