//! Who may stand beside whom, who begins with little, and what the coordinator's owner says.

use std::{net::IpAddr, time::Duration};

use super::grid::{A, B, C, D, Grid, job, peer};
use crate::{
    coordinator::{Config, Coordinator, InviteRow, JobRefusal, PassedOver, Refusal, TaskState},
    job::JobState,
    limits,
    placement::{Admission, Admit, InviteId, Origin, OwnerKey},
};

impl Grid {
    fn admit(&mut self, worker: u8, origin: Origin) -> Result<(), Refusal> {
        self.event(|coordinator, now, fx| coordinator.on_origin(now, peer(worker), origin, fx))
    }

    /// A worker of one slot connects from an address.
    fn connects_from(&mut self, worker: u8, address: &str) {
        self.admit(worker, from(address)).expect("admitted");
        self.worker(worker).connects(1);
    }

    fn says(&mut self, worker: u8, admission: Admission) {
        self.expelled.insert(worker);
        self.event(|coordinator, now, fx| coordinator.on_admission(now, peer(worker), admission, fx));
    }

    fn holds(&mut self, worker: u8) -> Vec<u64> {
        self.worker(worker).holds()
    }

    fn why_not(&self, worker: u8) -> Option<PassedOver> {
        let groups = self.explain(0).passed_over;
        groups.iter().find(|group| group.peers.contains(&peer(worker))).map(|group| group.reason)
    }
}

fn from(address: &str) -> Origin {
    Origin { address: Some(address.parse::<IpAddr>().expect("an address")), ..Origin::default() }
}

#[test]
fn attempts_of_one_task_never_share_a_public_network() {
    for (one, same, other) in
        [("192.0.2.1", "192.0.2.77", "198.51.100.1"), ("2001:db8:1::1", "2001:db8:1:5::9", "2001:db8:2::1")]
    {
        let mut grid = Grid::default();
        grid.connects_from(A, one);
        grid.submit(job(1).quorum(2));
        assert_eq!(grid.holds(A), [0]);
        grid.connects_from(B, same);
        assert!(grid.holds(B).is_empty(), "{same} is where {one} is");
        grid.worker(A).reports(0, "right");
        assert_eq!(grid.why_not(B), Some(PassedOver::SameNetwork));
        grid.connects_from(C, other);
        assert_eq!(grid.holds(C), [0]);
        grid.worker(C).reports(0, "right");
        grid.expect_done(0, "right", &[A, C]);
    }
}

#[test]
fn one_machine_and_one_lan_are_no_network() {
    for address in ["127.0.0.1", "192.168.1.7", "10.0.0.1", "::1", "fd00::1"] {
        let mut grid = Grid::default();
        for worker in [A, B] {
            grid.connects_from(worker, address);
        }
        grid.submit(job(1).quorum(2));
        for worker in [A, B] {
            grid.worker(worker).reports(0, "right");
        }
        assert_eq!(grid.state(), JobState::Finished, "{address}");
    }
}

#[test]
fn attempts_of_one_task_never_share_an_owner() {
    let mut grid = Grid::default();
    let of = |name: &str| Origin { owner: OwnerKey::of(name), ..from("127.0.0.1") };
    for (worker, owner) in [(A, "ada"), (B, "ada")] {
        grid.admit(worker, of(owner)).expect("admitted");
        grid.worker(worker).connects(1);
    }
    grid.submit(job(1).quorum(2));
    assert_eq!((grid.holds(A).len(), grid.holds(B).len()), (1, 0));
    grid.worker(A).reports(0, "right");
    assert_eq!(grid.why_not(B), Some(PassedOver::SameOwner));
    grid.admit(C, of("")).expect("admitted");
    grid.worker(C).connects(1).reports(0, "right");
    grid.expect_done(0, "right", &[A, C]);
}

#[test]
fn a_stranger_begins_with_two_attempts_and_earns_more() {
    let mut grid = Grid::default();
    for (worker, address) in [(A, "192.0.2.1"), (B, "198.51.100.1")] {
        grid.admit(worker, from(address)).expect("admitted");
        grid.worker(worker).connects(32);
    }
    grid.submit(job(1000).quorum(2));
    assert_eq!(
        (grid.holds(A).len(), grid.holds(B).len()),
        (limits::NEWCOMER_IN_FLIGHT, limits::NEWCOMER_IN_FLIGHT)
    );
    let before = grid.holds(A);
    for index in before {
        for worker in [A, B] {
            if grid.holds(worker).contains(&index) {
                grid.worker(worker).reports(index, "right");
            }
        }
    }
    assert!(grid.holds(A).len() + grid.holds(B).len() > 2 * limits::NEWCOMER_IN_FLIGHT);
    grid.admit(C, from("127.0.0.1")).expect("admitted");
    grid.worker(C).connects(32);
    assert!(grid.holds(C).len() >= 32, "who is of this machine is no stranger");
}

#[test]
fn the_last_vote_of_newcomers_waits_for_one_that_is_none_while_there_is_one() {
    let mut grid = Grid::default();
    grid.says(D, Admission::Approved);
    grid.connects_from(D, "127.0.0.1");
    // Its only slot is taken by another job.
    let other = grid.submit(job(200).quorum(1).on(&[D]));
    grid.connects_from(A, "192.0.2.1");
    grid.submit(job(1).quorum(2));
    assert_eq!(grid.holds(A), [0]);
    grid.connects_from(B, "198.51.100.1");
    assert!(grid.holds(B).is_empty());
    grid.worker(A).reports(0, "right");
    assert_eq!(grid.explain(0).state, TaskState::Validating);
    assert_eq!(grid.why_not(B), Some(PassedOver::Newcomer));
    grid.cancel(other).expect("a job");
    assert_eq!(grid.holds(D), [0]);
    grid.worker(D).reports(0, "right");
    grid.expect_done(0, "right", &[A, D]);
}

#[test]
fn newcomers_decide_where_nobody_else_can() {
    // The one that is none goes away, stops, or does not trust the submitter.
    for why in ["dies", "pauses", "refuses", "is banned"] {
        let mut grid = Grid::default();
        grid.says(D, Admission::Approved);
        grid.connects_from(D, "127.0.0.1");
        grid.connects_from(A, "192.0.2.1");
        grid.submit(job(1).quorum(2));
        grid.worker(A).reports(0, "right");
        assert_eq!(grid.holds(D), [0]);
        grid.connects_from(B, "198.51.100.1");
        assert!(grid.holds(B).is_empty(), "{why}");
        match why {
            "dies" => drop(grid.worker(D).dies()),
            "pauses" => drop(grid.worker(D).pauses(&[])),
            "is banned" => grid.says(D, Admission::Banned),
            _ => {
                let (session, job) = (grid.worker(D).session(), grid.job);
                grid.event(|coordinator, now, fx| {
                    coordinator.on_refused(now, session, &[job], JobRefusal::Distrusts, fx);
                });
            }
        }
        grid.passes(limits::RECONNECT_GRACE);
        grid.passes(Duration::from_secs(1));
        assert_eq!(grid.holds(B), [0], "{why}");
        grid.worker(B).reports(0, "right");
        grid.expect_done(0, "right", &[A, B]);
    }
}

#[test]
fn newcomers_that_agree_against_an_established_worker_need_another_one() {
    let mut grid = Grid::default();
    for worker in [C, D] {
        grid.says(worker, Admission::Approved);
    }
    grid.connects_from(D, "127.0.0.1");
    grid.submit(job(1).quorum(2));
    grid.worker(D).reports(0, "right");
    grid.connects_from(A, "192.0.2.1");
    grid.worker(A).reports(0, "wrong");
    grid.connects_from(C, "127.0.0.1");
    assert_eq!(grid.holds(C), [0]);
    grid.worker(C).reports(0, "right");
    grid.expect_done(0, "right", &[C, D]);
}

#[test]
fn newcomers_that_were_more_at_first_are_outvoted_by_established_workers() {
    let mut grid = Grid::default();
    for worker in [C, D] {
        grid.says(worker, Admission::Approved);
        grid.connects_from(worker, "127.0.0.1");
    }
    // Its only slot is taken by another job.
    let other = grid.submit(job(200).quorum(1).on(&[C]));
    grid.submit(job(1).quorum(2));
    grid.worker(D).reports(0, "right");
    for (worker, address) in [(A, "192.0.2.1"), (B, "198.51.100.1")] {
        grid.connects_from(worker, address);
        assert_eq!(grid.holds(worker), [0]);
        grid.worker(worker).reports(0, "wrong");
    }
    grid.expect_open(0);
    grid.cancel(other).expect("a job");
    assert_eq!(grid.holds(C), [0]);
    grid.worker(C).reports(0, "right");
    grid.expect_done(0, "right", &[C, D]);
}

#[test]
fn whoever_takes_an_owners_name_shuts_nobody_out_who_is_established() {
    let mut grid = Grid::default();
    let of_ada = |address| Origin { owner: OwnerKey::of("ada"), ..from(address) };
    grid.says(D, Admission::Approved);
    grid.admit(D, of_ada("203.0.113.1")).expect("admitted");
    // The liar is there first, and has the task.
    grid.admit(A, of_ada("192.0.2.1")).expect("admitted");
    grid.worker(A).connects(1);
    grid.submit(job(1).quorum(2));
    assert_eq!(grid.holds(A), [0]);
    grid.worker(D).connects(1);
    assert_eq!(grid.holds(D), [0], "a newcomer's claim binds the newcomer alone");
    // Both agree, and count as one.
    grid.worker(A).reports(0, "right");
    grid.worker(D).reports(0, "right");
    grid.expect_open(0);
    // The other way round the newcomer keeps away.
    grid.admit(B, of_ada("198.51.100.1")).expect("admitted");
    grid.worker(B).connects(1);
    assert!(grid.holds(B).is_empty());
    assert_eq!(grid.why_not(B), Some(PassedOver::SameOwner));
    grid.connects_from(C, "203.0.114.1");
    grid.worker(C).reports(0, "right");
    grid.expect_done(0, "right", &[A, C, D]);
}

#[test]
fn newcomers_behind_a_relay_are_one_network_until_somebody_vouches_for_them() {
    let relayed = Origin::default();
    let mut grid = Grid::default();
    for worker in [A, B] {
        grid.admit(worker, relayed).expect("admitted");
        grid.worker(worker).connects(1);
    }
    grid.submit(job(1).quorum(2));
    assert_eq!((grid.holds(A).len(), grid.holds(B).len()), (1, 0));
    grid.worker(A).reports(0, "right");
    assert_eq!(grid.why_not(B), Some(PassedOver::SameNetwork));
    grid.says(B, Admission::Approved);
    grid.passes(Duration::from_secs(1));
    assert_eq!(grid.holds(B), [0]);
    // Who shows the coordinator's own token is no stranger.
    let mut grid = Grid::default();
    for worker in [A, B] {
        grid.admit(worker, Origin { has_token: true, ..relayed }).expect("admitted");
        grid.worker(worker).connects(1);
    }
    grid.submit(job(1).quorum(2));
    assert_eq!((grid.holds(A).len(), grid.holds(B).len()), (1, 1));
}

#[test]
fn where_a_vote_came_from_survives_a_restart() {
    let mut grid = Grid::default();
    grid.connects_from(A, "192.0.2.1");
    grid.submit(job(1).quorum(2));
    grid.worker(A).reports(0, "right").dies();
    grid.coordinator_restarts();
    grid.connects_from(B, "192.0.2.9");
    assert!(grid.holds(B).is_empty());
    assert_eq!(grid.why_not(B), Some(PassedOver::SameNetwork));
}

#[test]
fn no_vote_of_a_banned_worker_counts() {
    let mut grid = Grid::default();
    for (worker, address) in [(A, "192.0.2.1"), (B, "198.51.100.1")] {
        grid.connects_from(worker, address);
    }
    grid.submit(job(1).quorum(3));
    grid.worker(A).reports(0, "wrong");
    grid.worker(B).reports(0, "wrong");
    grid.says(A, Admission::Banned);
    grid.connects_from(C, "203.0.113.1");
    grid.worker(C).reports(0, "wrong");
    grid.expect_open(0);
    // Whoever is let in again is heard again.
    grid.says(A, Admission::Open);
    grid.expect_done(0, "wrong", &[A, B, C]);
}

#[test]
fn a_coordinator_lets_in_whom_its_owner_wants() {
    let invite = InviteId::of(b"token");
    let with_invite = Origin { invite: Some(invite), ..from("192.0.2.1") };
    let with_token = Origin { has_token: true, ..from("192.0.2.1") };
    for (admit, stranger, token, invited, approved) in [
        (Admit::Anyone, Ok(()), Ok(()), Ok(()), Ok(())),
        (Admit::Invited, Err(Refusal::NotInvited), Ok(()), Ok(()), Ok(())),
        (
            Admit::Approved,
            Err(Refusal::NotApproved(peer(A))),
            Err(Refusal::NotApproved(peer(B))),
            Err(Refusal::NotApproved(peer(C))),
            Ok(()),
        ),
    ] {
        let mut grid = Grid::default();
        grid.coordinator = Coordinator::new(Config { admit, ..Config::default() });
        let row = InviteRow { uses: 2, expires: grid.now + Duration::from_mins(1) };
        grid.event(|coordinator, now, fx| coordinator.on_invite(now, invite, row, fx)).expect("room");
        grid.says(D, Admission::Approved);
        assert_eq!(grid.admit(A, from("192.0.2.1")), stranger, "{admit:?}");
        assert_eq!(grid.admit(B, with_token), token, "{admit:?}");
        assert_eq!(grid.admit(C, with_invite), invited, "{admit:?}");
        assert_eq!(grid.admit(D, from("192.0.2.1")), approved, "{admit:?}");
        // Who was refused is not remembered, or strangers could fill the table.
        assert_eq!(grid.coordinator.knows(peer(A)), stranger.is_ok(), "{admit:?}");
    }
}

#[test]
fn open_invites_are_bounded_and_old_ones_make_room() {
    let mut grid = Grid::default();
    let expires = grid.now + Duration::from_mins(1);
    let invite = |grid: &mut Grid, number: usize| {
        let invite = InviteId::of(&number.to_le_bytes());
        let row = InviteRow { uses: u32::MAX, expires };
        grid.event(|coordinator, now, fx| coordinator.on_invite(now, invite, row, fx))
    };
    for number in 0..limits::INVITES_MAX {
        invite(&mut grid, number).expect("room");
    }
    let refused = Err(Refusal::TooManyInvites(limits::INVITES_MAX));
    assert_eq!(invite(&mut grid, limits::INVITES_MAX), refused);
    assert!(grid.store.invites.values().all(|row| row.uses == limits::INVITE_USES_MAX));
    grid.passes(Duration::from_mins(1));
    let row = InviteRow { uses: 1, expires: grid.now + Duration::from_mins(1) };
    let id = InviteId::of(b"new");
    grid.event(|coordinator, now, fx| coordinator.on_invite(now, id, row, fx)).expect("room again");
    assert_eq!(grid.store.invites.len(), 1);
}

#[test]
fn an_invite_makes_a_worker_known_as_often_as_it_says_and_as_long() {
    let mut grid = Grid::default();
    let invite = InviteId::of(b"token");
    let row = InviteRow { uses: 1, expires: grid.now + Duration::from_mins(1) };
    grid.event(|coordinator, now, fx| coordinator.on_invite(now, invite, row, fx)).expect("an invite");
    let with = |address| Origin { invite: Some(invite), ..from(address) };
    grid.submit(job(1000).quorum(1));
    for (worker, address, held) in [(A, "192.0.2.1", 32), (B, "198.51.100.1", 2)] {
        grid.admit(worker, with(address)).expect("admitted");
        grid.worker(worker).connects(32);
        let holds = grid.holds(worker).len();
        assert!(if held > 2 { holds >= held } else { holds == held }, "worker {worker} holds {holds}");
    }
    assert!(grid.store.invites.is_empty(), "it is used up");
    // An invite that is over is worth nothing.
    let late = InviteId::of(b"late");
    let row = InviteRow { uses: 5, expires: grid.now };
    grid.event(|coordinator, now, fx| coordinator.on_invite(now, late, row, fx)).expect("an invite");
    grid.admit(C, Origin { invite: Some(late), ..from("203.0.113.1") }).expect("admitted");
    grid.worker(C).connects(32);
    assert_eq!(grid.holds(C).len(), 2);
}

#[test]
fn the_owner_approves_rejects_and_bans_and_a_restart_remembers() {
    let mut grid = Grid::default();
    grid.submit(job(1000).quorum(1));
    grid.says(A, Admission::Approved);
    grid.admit(A, from("192.0.2.1")).expect("admitted");
    grid.worker(A).connects(32);
    assert!(grid.holds(A).len() >= 32, "it need not prove itself");
    for word in [Admission::Rejected, Admission::Banned] {
        grid.says(A, word);
        assert!(grid.coordinator.workers().all(|worker| !worker.connected), "its session is over");
        assert_eq!(grid.admit(A, from("192.0.2.1")), Err(Refusal::NotAdmitted(word)));
        grid.coordinator_restarts();
        assert_eq!(grid.admit(A, from("192.0.2.1")), Err(Refusal::NotAdmitted(word)));
    }
    grid.says(A, Admission::Open);
    grid.admit(A, from("192.0.2.1")).expect("admitted again");
}

#[test]
fn who_was_approved_and_is_not_any_more_stays_where_anybody_may_work_and_only_there() {
    for (admit, stays, again) in [
        (Admit::Anyone, true, Ok(())),
        (Admit::Invited, false, Err(Refusal::NotInvited)),
        (Admit::Approved, false, Err(Refusal::NotApproved(peer(A)))),
    ] {
        let mut grid = Grid::default();
        grid.coordinator = Coordinator::new(Config { admit, ..Config::default() });
        grid.says(A, Admission::Approved);
        grid.connects_from(A, "192.0.2.1");
        grid.submit(job(1).quorum(1));
        assert_eq!(grid.holds(A), [0]);
        grid.says(A, Admission::Open);
        assert_eq!(grid.coordinator.workers().any(|worker| worker.connected), stays, "{admit:?}");
        assert_eq!(grid.admit(A, from("192.0.2.1")), again, "{admit:?}");
        assert!(grid.coordinator.admissions().next().is_none(), "nothing is said of it");
    }
}
