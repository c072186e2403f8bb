//! Coordinators that are announced, and found, on the loopback interface, which is a network like others.

use std::net::{Ipv4Addr, SocketAddr};

use talka_peer::{identity::Identity, lan};

use crate::peers::{endpoint, eventually};

const HERE: Option<SocketAddr> = Some(SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0));

#[tokio::test]
async fn a_coordinator_that_is_announced_is_found_at_its_address_until_it_is_gone() {
    let coordinator = endpoint().await;
    let announcement = lan::Announcement::start(coordinator.clone());
    assert_eq!(announcement.interfaces(), &[Ipv4Addr::LOCALHOST].into());
    // The socket that answers is opened a moment later.
    let found = eventually("the coordinator", || async {
        let found = lan::find(HERE, Some(coordinator.peer_id())).await.expect("asked");
        found.into_iter().find(|found| found.peer == coordinator.peer_id())
    });
    assert_eq!(found.await, coordinator.address());

    drop(announcement);
    eventually("silence", || async {
        let found = lan::find(HERE, Some(coordinator.peer_id())).await.expect("asked");
        found.iter().all(|found| found.peer != coordinator.peer_id()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn two_coordinators_are_both_found_and_a_stranger_is_not() {
    let (one, other) = tokio::join!(endpoint(), endpoint());
    let _announcements = [&one, &other].map(|endpoint| lan::Announcement::start(endpoint.clone()));
    let stranger = Identity::ephemeral().peer_id();
    eventually("both", || async {
        let found = lan::find(HERE, Some(stranger)).await.expect("asked");
        assert!(found.iter().all(|found| found.peer != stranger));
        let has = |peer| found.iter().any(|found| found.peer == peer);
        (has(one.peer_id()) && has(other.peer_id())).then_some(())
    })
    .await;
}
