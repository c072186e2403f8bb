//! Flags of the Mainline DHT. This is a part of builds with `--features dht` alone.

use std::net::{Ipv4Addr, SocketAddr};

use clap::{Args, builder::FalseyValueParser};
use talka_core::ids::PeerId;
use talka_peer::{
    dht::{self, Nodes},
    ticket::Ticket,
};

use crate::problems::Problems;

/// How a worker finds its coordinator in the DHT.
#[derive(Debug, Default, Args)]
pub(super) struct FindFlags {
    /// Find the coordinator with this key through the Mainline DHT of BitTorrent, without a ticket.
    #[arg(long, value_name = "KEY", env = "TALKA_DHT", conflicts_with_all = ["ticket", "lan", "private"])]
    dht: Option<String>,
    /// Nodes of the DHT to begin with, HOST:PORT separated by commas [default: public ones].
    #[arg(long, value_name = "NODES", env = "TALKA_DHT_NODES", requires = "dht")]
    dht_nodes: Option<String>,
}

/// Whether a coordinator is to be found in the DHT.
#[derive(Debug, Default, Args)]
pub(super) struct PublishFlags {
    /// Let workers that know this coordinator's key find it through the Mainline DHT of BitTorrent.
    #[arg(long, env = "TALKA_DHT", value_parser = FalseyValueParser::new())]
    dht: bool,
    /// Nodes of the DHT to begin with, HOST:PORT separated by commas [default: public ones].
    #[arg(long, value_name = "NODES", env = "TALKA_DHT_NODES", requires = "dht")]
    dht_nodes: Option<String>,
}

/// The coordinator to look for, if one is, and where to begin.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Search(Option<(PeerId, Nodes)>);

impl FindFlags {
    pub(super) fn search(&self, problems: &mut Problems) -> Search {
        let key = problems.optional("--dht", self.dht.as_deref());
        Search(key.map(|key| (key, nodes(self.dht_nodes.as_deref()))))
    }
}

impl PublishFlags {
    /// Where to begin, if it is to be found.
    pub(super) fn nodes(&self) -> Option<Nodes> {
        self.dht.then(|| nodes(self.dht_nodes.as_deref()))
    }
}

impl Search {
    /// The ticket of the coordinator that was looked for, if one was. It is asked for from the address `bind`.
    pub(super) async fn ticket(self, bind: Option<SocketAddr>) -> anyhow::Result<Option<Ticket>> {
        let Some((key, nodes)) = self.0 else { return Ok(None) };
        let from = bind.map_or(Ipv4Addr::UNSPECIFIED.into(), |bind| bind.ip());
        let coordinator = dht::find(key, &nodes, from).await?;
        Ok(Some(Ticket { coordinator, invite: None }))
    }
}

fn nodes(text: Option<&str>) -> Nodes {
    let texts = text.unwrap_or_default().split(',').map(str::trim);
    Nodes(texts.filter(|text| !text.is_empty()).map(str::to_owned).collect())
}
