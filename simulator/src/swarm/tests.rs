//! What a swarm has to reach, and what it has to survive.

use std::time::Duration;

use super::{Group, Manner, Outcome, Swarm, run};

const MIB: u64 = 1 << 20;
/// 8 MB/s, a good home uplink.
const UP: f64 = 8e6;

#[expect(clippy::print_stderr, reason = "figures for whoever runs it with --nocapture")]
fn show(name: &str, swarm: &Swarm, outcome: &Outcome) -> f64 {
    let last = outcome.last(Manner::Honest).expect("every honest peer has the blob");
    let ratio = last.as_secs_f64() / swarm.fluid_bound().as_secs_f64();
    eprintln!(
        "{name}: {:.2} s, {ratio:.2} of the bound, source {:.2}, waste {:.3}, bans {:?}",
        last.as_secs_f64(),
        outcome.source_ratio,
        outcome.waste,
        outcome.bans
    );
    ratio
}

fn with(manner: Manner, honest: u32, others: u32) -> Swarm {
    let mut swarm = Swarm::even(honest, 64 * MIB, UP);
    swarm.groups.push(Group { peers: others, manner, up: UP, down: UP * 100.0 });
    swarm
}

#[test]
fn eight_equal_peers_are_near_the_fluid_bound() {
    for seed in 0..3 {
        let swarm = Swarm::even(8, 128 * MIB, UP);
        let outcome = run(seed, &swarm);
        assert!(show("8 equal peers", &swarm, &outcome) <= 1.2);
        assert!(outcome.source_ratio <= 1.15, "{}", outcome.source_ratio);
        assert_eq!(outcome, run(seed, &swarm), "the same seed gives the same run");
    }
}

#[test]
fn a_hundred_peers_take_little_longer_than_eight() {
    let swarm = Swarm::even(100, 64 * MIB, UP);
    let outcome = run(1, &swarm);
    assert!(show("100 equal peers", &swarm, &outcome) <= 1.7);
    assert!(outcome.source_ratio <= 1.5, "{}", outcome.source_ratio);
}

#[test]
fn hundreds_of_peers_behind_slow_uplinks_use_all_of_a_strong_source() {
    let mut swarm = Swarm::even(200, 24 * MIB, UP);
    swarm.source_up = 30.0 * UP;
    swarm.groups[0].up = UP / 8.0;
    let outcome = run(2, &swarm);
    assert!(show("200 slow uplinks", &swarm, &outcome) <= 2.5);
}

#[test]
fn who_stays_gets_the_blob_though_half_of_the_others_leave() {
    for seed in 0..3 {
        let mut swarm = Swarm::even(40, 64 * MIB, UP);
        swarm.leave_at_half = 0.5;
        let outcome = run(seed, &swarm);
        assert!(show("half of 40 leave", &swarm, &outcome) <= 2.0);
    }
}

#[test]
fn free_riders_wait_longer_and_hold_nobody_up() {
    let clean = run(3, &Swarm::even(30, 64 * MIB, UP)).last(Manner::Honest).expect("finished");
    let swarm = with(Manner::FreeRider, 30, 15);
    let outcome = run(3, &swarm);
    show("15 free-riders beside 30", &swarm, &outcome);
    let honest = outcome.last(Manner::Honest).expect("finished");
    assert!(honest <= clean * 2, "{honest:?} instead of {clean:?}");
    let (giving, taking) = (outcome.mean(Manner::Honest), outcome.mean(Manner::FreeRider));
    assert!(taking > giving, "free-riders {taking:?}, honest peers {giving:?}");
    assert!(outcome.last(Manner::FreeRider).is_some(), "they get what is left");
}

#[test]
fn poisoners_are_banned_and_nobody_else() {
    for seed in 0..3 {
        let clean = run(seed, &Swarm::even(14, 64 * MIB, UP)).last(Manner::Honest).expect("finished");
        let swarm = with(Manner::Poisoner, 14, 6);
        let outcome = run(seed, &swarm);
        show("6 poisoners of 20", &swarm, &outcome);
        assert!(outcome.last(Manner::Honest).expect("finished") <= clean * 2);
        assert!(outcome.bans.0 > 0);
        assert_eq!(outcome.bans.1, 0, "an honest peer was banned");
        assert!(outcome.waste <= 0.02, "{}", outcome.waste);
    }
}

#[test]
fn stallers_cost_time_but_not_the_blob() {
    let clean = run(4, &Swarm::even(10, 64 * MIB, UP)).last(Manner::Honest).expect("finished");
    let swarm = with(Manner::Staller, 10, 10);
    let outcome = run(4, &swarm);
    show("10 stallers of 20", &swarm, &outcome);
    assert!(outcome.last(Manner::Honest).expect("finished") <= clean * 3);
}

#[test]
fn boasters_cost_time_but_not_the_blob() {
    let swarm = with(Manner::Boaster, 2, 18);
    let outcome = run(5, &swarm);
    show("18 boasters of 20", &swarm, &outcome);
    let last = outcome.last(Manner::Honest).expect("finished");
    assert!(last <= swarm.fluid_bound() * 3 + Duration::from_secs(5), "{last:?}");
}
