//! Peers that can't be dialed, and peers that don't want to be seen.

use std::{collections::BTreeSet, fs};

use talka_core::ids::PeerId;
use talka_peer::{
    endpoint::{EndpointConfig, PeerEndpoint},
    identity::Identity,
    rpc,
    ticket::Ticket,
};
use talka_proto::wire::{self, peers_client::PeersClient};

use crate::harness::{Grid, LONG, Relay, Server, number, sample, text, until};

/// A dataset of some pieces, so that workers exchange them.
const DATA_BYTES: u32 = 3 << 20;

/// Submits two tasks that three workers must agree on, with a dataset; returns the job and the dataset's hash.
fn submit(grid: &Grid) -> (u64, blake3::Hash) {
    let data: Vec<u8> = (0..DATA_BYTES / 4).flat_map(u32::to_le_bytes).collect();
    let flag = format!("table={}", grid.file("table", &data).display());
    let module = sample("primes");
    let args = ["submit", &module, "--array", "0-1", "--quorum", "3", "--data", &flag, "--", "1000"];
    (number(&grid.json(args), "job"), blake3::hash(&data))
}

/// Whom the coordinator names to a peer that asks who has a blob, and the ways to them.
fn named(grid: &Grid, blob: blake3::Hash) -> Vec<wire::Provider> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let ticket: Ticket = grid.ticket().parse().expect("a ticket");
    runtime.block_on(async {
        let config = EndpointConfig::new(Identity::ephemeral()).on_loopback();
        let endpoint = PeerEndpoint::bind(config).await.expect("bound");
        let client = rpc::Client::new(endpoint.clone(), &ticket);
        let hash = blob.as_bytes().to_vec().into();
        let request = wire::ProvidersRequest { hash, ..Default::default() };
        let reply = PeersClient::new(client.channel()).providers(request).await;
        endpoint.close().await;
        reply.map(|reply| reply.into_inner().providers).unwrap_or_default()
    })
}

/// What the coordinator says of one worker: how many addresses, and whether through the relay.
fn ways(named: &[wire::Provider], worker: &Server) -> Option<(usize, bool)> {
    let id: PeerId = worker.peer().parse().expect("a key");
    let it = named.iter().find(|provider| *provider.peer == *id.as_bytes())?;
    Some((it.addresses.len(), it.by_relay))
}

/// Numbers of the UDP sockets that a process has open.
fn udp_sockets(process: u32) -> BTreeSet<String> {
    let tables = ["udp", "udp6"].map(|name| format!("/proc/{process}/net/{name}"));
    let tables = tables.map(|path| fs::read_to_string(path).unwrap_or_default()).join("\n");
    let udp: BTreeSet<&str> = tables.lines().filter_map(|line| line.split_whitespace().nth(9)).collect();
    let open = fs::read_dir(format!("/proc/{process}/fd")).expect("a running process");
    let targets = open.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    let inodes = targets.filter_map(|target| {
        let target = target.to_string_lossy().into_owned();
        Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    });
    inodes.filter(|inode| udp.contains(inode.as_str())).collect()
}

#[test]
fn a_private_worker_does_its_share_through_the_relay_and_nobody_learns_where_it_is() {
    let relay = Relay::start();
    let mut grid = Grid::start_with(&["--relay", &relay.url]);
    let private = grid.start_worker_with(&["--private"]);
    let open = grid.start_worker();
    let (job, data) = submit(&grid);
    let named = until("both workers to be named", LONG, || {
        let named = named(&grid, data);
        (named.len() == 2).then_some(named)
    });
    assert_eq!(ways(&named, &private), Some((0, true)), "{named:?}");
    assert_eq!(ways(&named, &open), Some((1, true)), "{named:?}");
    // What sends no packet by itself is seen by nobody. (For a moment it may ask the system for its routes by one.)
    until("a process without UDP sockets", LONG, || udp_sockets(private.process()).is_empty().then_some(()));
    assert!(!udp_sockets(open.process()).is_empty(), "others have one");

    // The third vote is another private worker's, which fetches what those two have.
    let last = grid.start_worker_with(&["--private"]);
    grid.talka(["job", "wait", &job.to_string()]).run().success();
    let paid: BTreeSet<String> = grid.credit().iter().map(|row| row.peer.clone()).collect();
    assert_eq!(paid, [&private, &open, &last].map(Server::peer).into());

    // Who can't dial the coordinator at all still gets there.
    let mut ticket: Ticket = grid.ticket().parse().expect("a ticket");
    ticket.coordinator.direct.clear();
    let info = grid.json(["job", "info", &job.to_string(), "--ticket", &ticket.to_string()]);
    assert_eq!(text(&info, "state"), "finished", "{info}");
}

#[test]
fn a_private_worker_without_relay_deals_with_its_coordinator_alone() {
    let mut grid = Grid::start();
    let private = grid.start_worker_with(&["--private"]);
    let open = grid.start_worker();
    let (job, data) = submit(&grid);
    let named = until("the open worker to be named", LONG, || {
        let named = named(&grid, data);
        (!named.is_empty()).then_some(named)
    });
    assert_eq!((ways(&named, &private), ways(&named, &open)), (None, Some((1, false))), "{named:?}");
    let third = grid.start_worker();
    grid.talka(["job", "wait", &job.to_string()]).run().success();
    let paid: BTreeSet<String> = grid.credit().iter().map(|row| row.peer.clone()).collect();
    assert_eq!(paid, [&private, &open, &third].map(Server::peer).into());
}
