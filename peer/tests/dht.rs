//! A coordinator that is found by its key alone, in a DHT of this machine's own.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use talka_peer::{
    address::PeerAddr,
    dht::{DhtError, Nodes, Publication, Testnet, find},
    endpoint::{EndpointConfig, PeerEndpoint},
    identity::Identity,
};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_mins(2);

async fn endpoint(identity: &Identity) -> PeerEndpoint {
    let config = EndpointConfig::new(identity.clone()).on_loopback();
    PeerEndpoint::bind(config).await.expect("a free port")
}

/// Looks until the DHT says that the coordinator is there.
async fn until_found(expected: &PeerAddr, nodes: &Nodes) {
    let looking = async {
        while find(expected.peer, nodes, HERE).await.ok().as_ref() != Some(expected) {
            // A search takes seconds by itself.
        }
    };
    tokio::time::timeout(DEADLINE, looking).await.expect("the DHT knows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_is_found_by_its_key_alone_wherever_it_moves() {
    let starting = || Testnet::builder(10).bind_address(Ipv4Addr::LOCALHOST).build();
    let testnet = tokio::task::spawn_blocking(starting).await.expect("no panic").expect("a DHT");
    let nodes = Nodes(testnet.bootstrap.clone());

    let identity = Identity::ephemeral();
    let first = endpoint(&identity).await;
    let publication = Publication::start(first.clone(), identity.clone(), &nodes).expect("published");
    until_found(&first.address(), &nodes).await;

    // Its note is replaced by what it signs later.
    drop(publication);
    let second = endpoint(&identity).await;
    let _publication = Publication::start(second.clone(), identity, &nodes).expect("published");
    until_found(&second.address(), &nodes).await;

    let stranger = Identity::ephemeral().peer_id();
    let error = find(stranger, &nodes, HERE).await.expect_err("nobody");
    assert!(matches!(error, DhtError::Unknown(peer) if peer == stranger), "{error:?}");
}

#[tokio::test]
async fn what_is_no_node_is_named() {
    let nodes = Nodes(vec!["127.0.0.1:1".into(), "nowhere".into()]);
    let error = find(Identity::ephemeral().peer_id(), &nodes, HERE).await.expect_err("no node");
    assert!(matches!(&error, DhtError::Node(node) if node == "nowhere"), "{error:?}");
}
