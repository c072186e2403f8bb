//! Coordinators that are found on the local network. Loopback is one: what is bound there looks around there.

use serde_json::Value;

use crate::harness::{Grid, LONG, Talka, number, sample, text, until};

#[test]
fn a_worker_without_ticket_works_for_the_coordinator_whose_key_its_owner_names() {
    let mut grid = Grid::start_with(&["--lan"]);
    let key = text(grid.ready(), "peer");
    let _worker = grid.start_worker_without_ticket(&["--lan", &key]);
    let args = ["submit", &sample("primes"), "--array", "0-3", "--quorum", "1", "--wait", "--", "1000"];
    assert_eq!(number(&grid.json(args), "done"), 4);
}

#[test]
fn without_a_key_nothing_is_run_and_those_that_were_found_are_listed() {
    let grids = [Grid::start_with(&["--lan"]), Grid::start_with(&["--lan"])];
    let elsewhere = tempfile::tempdir().expect("a directory");
    // A packet may get lost on a busy machine. Others may be announced here at the same time, so there are two at least.
    until("both coordinators to be listed", LONG, || {
        let args = ["worker", "start", "--json", "--bind", "127.0.0.1:0"];
        let error: Value = Talka::new(elsewhere.path(), args).run().exits(1).json();
        let message = text(&error["error"], "message");
        let listed = |grid: &Grid| message.contains(&format!("start --lan {}", text(grid.ready(), "peer")));
        let both = grids.iter().all(listed);
        (both && text(&error["error"], "code") == "many-coordinators").then_some(())
    });
}

#[test]
fn a_coordinator_that_does_not_want_to_be_found_is_not() {
    let grid = Grid::start();
    let key = text(grid.ready(), "peer");
    let elsewhere = tempfile::tempdir().expect("a directory");
    for (flags, says) in
        [(["--lan", key.as_str()], "does not answer"), (["--lan", "off"], "no ticket was given")]
    {
        let args = ["worker", "start", "--bind", "127.0.0.1:0"];
        let ended = Talka::new(elsewhere.path(), args).args(flags).run().exits(1);
        assert!(ended.stderr.contains(says), "{}", ended.stderr);
    }
}
