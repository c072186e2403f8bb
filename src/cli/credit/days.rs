//! `talka credit days`.

use std::{collections::BTreeMap, process::ExitCode};

use clap::Args;
use serde::Serialize;
use talka_core::quantities::Credit;
use talka_proto::wire;

use crate::{
    cli::CoordinatorFlags,
    client::{self, Client},
    format::{iso8601, peer_text},
    output::Out,
    view,
};

/// `talka credit days`.
#[derive(Debug, Args)]
pub(crate) struct DaysFlags {
    /// How many days, today included.
    #[arg(long, value_name = "NUMBER", default_value_t = 30, env = "TALKA_DAYS",
        value_parser = clap::value_parser!(u64).range(1..=3650))]
    days: u64,
    #[command(flatten)]
    coordinator: CoordinatorFlags,
}

#[derive(Debug, Serialize)]
struct DayView {
    day: String,
    peer: String,
    credit: f64,
}

impl DaysFlags {
    pub(super) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let client = Client::connect(&self.coordinator).await?;
        let reply = client::unary(client.ledger().credit(wire::CreditRequest { days: self.days })).await;
        client.close().await;
        let days = reply?.days;
        if out.is_json() {
            let view = |row: &wire::DayCredit| DayView {
                day: date(row.day),
                peer: peer_text(&row.peer),
                credit: view::credit(&row.credit_nanos).as_f64(),
            };
            out.json(&days.iter().map(view).collect::<Vec<_>>())?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut sums = BTreeMap::<u64, (Credit, u64)>::new();
        for row in &days {
            let sum = sums.entry(row.day).or_default();
            sum.0 += view::credit(&row.credit_nanos);
            sum.1 += 1;
        }
        let row =
            |(day, (credit, peers)): (u64, (Credit, u64))| [date(day), credit.to_string(), peers.to_string()];
        out.table(["day", "credit", "peers"], sums.into_iter().map(row))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A day as in `2026-01-31`.
fn date(day: u64) -> String {
    let text = iso8601(day.saturating_mul(86_400_000));
    text.get(..10).unwrap_or(&text).to_owned()
}
