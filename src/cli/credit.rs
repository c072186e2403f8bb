//! `talka credit …`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use talka_proto::wire;

use super::CoordinatorFlags;
use crate::{
    client::{self, Client},
    format::{peer_short, peer_text},
    output::Out,
    view::{self, CreditView},
};

/// Commands about credit: 1 credit is 10⁹ fuel that a quorum agreed on.
#[derive(Debug, Subcommand)]
pub(crate) enum CreditCommand {
    /// List what each peer earned, most first.
    #[command(after_help = "Example:\n  talka credit list --json | jq 'map(.credit) | add'")]
    List(ListFlags),
}

/// `talka credit list`.
#[derive(Debug, Args)]
pub(crate) struct ListFlags {
    #[command(flatten)]
    coordinator: CoordinatorFlags,
}

impl CreditCommand {
    pub(crate) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let Self::List(flags) = self;
        let client = Client::connect(&flags.coordinator).await?;
        let reply = client::unary(client.ledger().credit(wire::CreditRequest {})).await;
        client.close().await;
        let peers = reply?.peers;
        if out.is_json() {
            out.json(&peers.iter().map(CreditView::from).collect::<Vec<_>>())?;
            return Ok(ExitCode::SUCCESS);
        }
        let row = |row: &wire::PeerCredit| {
            [
                if out.is_quiet() { peer_text(&row.peer) } else { peer_short(&row.peer) },
                view::credit(&row.credit_nanos).to_string(),
                row.validated.to_string(),
                row.invalid.to_string(),
            ]
        };
        out.table(["peer", "credit", "validated", "invalid"], peers.iter().map(row))?;
        Ok(ExitCode::SUCCESS)
    }
}
