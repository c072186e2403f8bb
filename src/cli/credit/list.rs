//! `talka credit list`: the leader board.

use std::{cmp::Reverse, collections::BTreeMap, process::ExitCode};

use clap::{Args, ValueEnum};
use serde::Serialize;
use talka_core::quantities::Credit;
use talka_proto::wire;

use crate::{
    cli::CoordinatorFlags,
    client::{self, Client},
    format::{peer_short, peer_text},
    output::{Out, printable},
    view,
};

/// `talka credit list`.
#[derive(Debug, Args)]
pub(crate) struct ListFlags {
    /// Whose credit is added up.
    #[arg(long, value_enum, value_name = "WHAT", default_value = "peer", env = "TALKA_BY")]
    by: By,
    #[command(flatten)]
    coordinator: CoordinatorFlags,
}

/// What a row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Peer,
    Owner,
    Team,
}

/// A row of a leader board.
#[derive(Debug, PartialEq, Serialize)]
struct CreditView {
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    /// Empty when the peer did not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    team: Option<String>,
    credit: f64,
    /// Credits per day.
    average: f64,
    today: f64,
    validated: u64,
    invalid: u64,
    /// Peers that are added up.
    peers: u64,
}

#[derive(Debug, Default)]
struct Sum {
    credit: Credit,
    today: Credit,
    average: f64,
    validated: u64,
    invalid: u64,
    peers: u64,
    key: Option<bytes::Bytes>,
    names: (String, String),
}

impl ListFlags {
    pub(super) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let client = Client::connect(&self.coordinator).await?;
        let reply = client::unary(client.ledger().credit(wire::CreditRequest { days: 0 })).await;
        client.close().await;
        let sums = sums(&reply?.peers, self.by);
        if out.is_json() {
            out.json(&sums.iter().map(|sum| sum.view(self.by)).collect::<Vec<_>>())?;
            return Ok(ExitCode::SUCCESS);
        }
        let row = |sum: &Sum| {
            let name = match (self.by, &sum.key) {
                (By::Peer, Some(key)) if out.is_quiet() => peer_text(key),
                (By::Peer, Some(key)) => peer_short(key),
                (By::Team, _) => shown(&sum.names.1),
                _ => shown(&sum.names.0),
            };
            let about = match self.by {
                By::Peer => [printable(&sum.names.0), printable(&sum.names.1)].join(" "),
                By::Owner | By::Team => sum.peers.to_string(),
            };
            [
                name,
                sum.credit.to_string(),
                format!("{:.3}", sum.average),
                sum.today.to_string(),
                sum.validated.to_string(),
                sum.invalid.to_string(),
                about.trim().to_owned(),
            ]
        };
        let (first, last) = match self.by {
            By::Peer => ("peer", "owner, team"),
            By::Owner => ("owner", "peers"),
            By::Team => ("team", "peers"),
        };
        let titles = [first, "credit", "average/day", "today", "validated", "invalid", last];
        out.table(titles, sums.iter().map(row))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn shown(name: &str) -> String {
    if name.is_empty() { "(no name)".to_owned() } else { printable(name) }
}

/// Rows, most credit first. Peers without a name are one row at the board of owners, and so are those without a
/// team at that of teams.
fn sums(peers: &[wire::PeerCredit], by: By) -> Vec<Sum> {
    let mut sums = BTreeMap::<Vec<u8>, Sum>::new();
    for peer in peers {
        let group = match by {
            By::Peer => peer.peer.to_vec(),
            By::Owner => peer.owner.clone().into_bytes(),
            By::Team => peer.team.clone().into_bytes(),
        };
        let sum = sums.entry(group).or_default();
        sum.credit += view::credit(&peer.credit_nanos);
        sum.today += view::credit(&peer.today_nanos);
        sum.average += peer.average;
        sum.validated += peer.validated;
        sum.invalid += peer.invalid;
        sum.peers += 1;
        sum.key = Some(peer.peer.clone());
        sum.names = (peer.owner.clone(), peer.team.clone());
    }
    let mut sums: Vec<Sum> = sums.into_values().collect();
    sums.sort_by_key(|sum| Reverse(sum.credit));
    sums
}

impl Sum {
    fn view(&self, by: By) -> CreditView {
        let key = self.key.as_ref().filter(|_| by == By::Peer);
        CreditView {
            peer: key.map(|key| peer_text(key)),
            owner: (by != By::Team).then(|| self.names.0.clone()),
            team: (by != By::Owner).then(|| self.names.1.clone()),
            credit: self.credit.as_f64(),
            average: self.average,
            today: self.today.as_f64(),
            validated: self.validated,
            invalid: self.invalid,
            peers: self.peers,
        }
    }
}

#[cfg(test)]
mod tests {
    use talka_proto::convert::credit_bytes;

    use super::*;

    fn peer(key: u8, owner: &str, team: &str, nanos: i128) -> wire::PeerCredit {
        wire::PeerCredit {
            peer: vec![key; 32].into(),
            credit_nanos: credit_bytes(Credit::from_nanos(nanos)),
            today_nanos: credit_bytes(Credit::ZERO),
            validated: 1,
            owner: owner.into(),
            team: team.into(),
            average: 0.5,
            ..wire::PeerCredit::default()
        }
    }

    #[test]
    fn a_board_adds_up_and_begins_with_the_most() {
        let peers =
            [peer(1, "Ada", "A", 5), peer(2, "Eve", "A", 7), peer(3, "Ada", "B", 4), peer(4, "", "", 1)];
        let board = |by| -> Vec<(String, String, i128, u64)> {
            let row = |sum: Sum| (sum.names.0.clone(), sum.names.1.clone(), sum.credit.nanos(), sum.peers);
            sums(&peers, by).into_iter().map(row).collect()
        };
        let text = |rows: &[(&str, &str, i128, u64)]| -> Vec<(String, String, i128, u64)> {
            rows.iter().map(|row| (row.0.into(), row.1.into(), row.2, row.3)).collect()
        };
        assert_eq!(
            board(By::Peer),
            text(&[("Eve", "A", 7, 1), ("Ada", "A", 5, 1), ("Ada", "B", 4, 1), ("", "", 1, 1)])
        );
        assert_eq!(board(By::Owner), text(&[("Ada", "B", 9, 2), ("Eve", "A", 7, 1), ("", "", 1, 1)]));
        assert_eq!(board(By::Team), text(&[("Eve", "A", 12, 2), ("Ada", "B", 4, 1), ("", "", 1, 1)]));
    }
}
