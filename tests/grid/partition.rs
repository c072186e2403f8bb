//! Machines that lose each other, as network namespaces on one bridge. Only root can make those; others skip this.

use serde_json::Value;

use crate::harness::{LONG, Network, Server, Talka, number, sample, text, until};

/// Bytes of the dataset that all of them need.
const BYTES: usize = 12 << 20;
/// What those may take per second that are to be in the midst of it.
const SLOW: &str = "2MiB";

/// What a worker has fetched.
fn fetched(home: &std::path::Path, worker: usize) -> (u64, u64) {
    let dir = home.join(format!("worker-{worker}"));
    let status: Value =
        Talka::new(home, ["--json", "worker", "status", "--data-dir"]).arg(dir).run().success().json();
    let traffic = &status["fetched"];
    (number(traffic, "from_coordinator"), number(traffic, "from_peers"))
}

#[test]
fn when_the_coordinator_is_cut_off_in_the_midst_of_it_the_swarm_finishes() {
    let workers = 1..=4;
    let Some(network) = Network::of(1 + workers.clone().count()) else { return };
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let start = |machine: usize, role: &str, args: &[&str]| {
        let bind = format!("{}:0", Network::address(machine));
        let name = format!("{role}-{machine}");
        let talka = Talka::new(home, [role, "start", "--bind", &bind, "--data-dir"]);
        Server::start(talka.arg(home.join(&name)).args(args).inside(network.machine(machine)), &name)
    };
    let coordinator = start(0, "coordinator", &[]);
    let ticket = text(coordinator.ready(), "ticket");
    let join = ["--cpus", "1", "--ticket", &ticket];
    let _servers: Vec<Server> = workers
        .clone()
        .map(|number| match number {
            1 => start(number, "worker", &join),
            _ => start(number, "worker", &[&join[..], &["--download-limit", SLOW]].concat()),
        })
        .collect();

    // No task is done before all of them have the dataset.
    let mut state = 1_u32;
    let noise = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    let noise: Vec<u8> = (0..BYTES).map(noise).collect();
    std::fs::write(home.join("noise"), noise).expect("a writable home");
    let module = sample("empty");
    let submit = ["--json", "submit", "--quorum", "4", "--array", "0-3", "--data", "noise=noise", &module];
    let at_coordinator = |args: &[&str]| Talka::new(home, args).inside(network.machine(0)).run().success();
    let job = number(&at_coordinator(&submit).json(), "job");

    let all = BYTES as u64;
    let has_all = |(from_coordinator, from_peers)| from_coordinator + from_peers >= all;
    until("one of them to have all of it", LONG, || has_all(fetched(home, 1)).then_some(()));
    network.set_link(0, false);
    let (before, left) = workers.clone().skip(1).fold((0, 0), |(before, left), number| {
        let came = fetched(home, number);
        (before + came.0, left + u32::from(!has_all(came)))
    });
    assert_eq!(left, 3, "the others are in the midst of it");
    until("the others to have all of it", LONG, || {
        workers.clone().all(|number| has_all(fetched(home, number))).then_some(())
    });
    let after: u64 = workers.clone().skip(1).map(|number| fetched(home, number).0).sum();
    // What was verified and not counted when the link was cut is a few groups.
    assert!(after < before + (2 << 20), "the coordinator is cut off: {before} and then {after}");

    network.set_link(0, true);
    at_coordinator(&["job", "wait", &job.to_string()]);
    let info = at_coordinator(&["--json", "job", "info", &job.to_string()]).json();
    assert_eq!((number(&info, "done"), number(&info, "failed")), (4, 0), "{info}");
}
