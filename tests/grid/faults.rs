//! Workers that lie or die, and coordinators that die.

use std::{collections::BTreeMap, fs};

use serde_json::Value;

use crate::harness::{Grid, Guest, LONG, number, sample, text, until};

/// Submits without waiting; returns the job's number.
#[track_caller]
fn submit(grid: &Grid, args: &[&str]) -> u64 {
    number(&grid.json(["submit"].iter().chain(args)), "job")
}

#[track_caller]
fn until_job(grid: &Grid, job: u64, what: &str, check: impl Fn(&Value) -> bool) -> Value {
    until(what, LONG, || Some(grid.job(job)).filter(&check))
}

#[test]
fn a_liar_earns_nothing_and_spoils_nothing() {
    let mut grid = Grid::start();
    let liar = grid.start_liar();
    let _honest = grid.start_worker();
    let job = submit(&grid, &[&sample("primes"), "--array", "0-9", "--", "1000000"]);
    // One vote against one: nothing can be decided until somebody else comes.
    let undecided = until_job(&grid, job, "both to report", |info| number(info, "attempts") >= 20);
    assert_eq!(number(&undecided, "done"), 0, "{undecided}");

    let _third = grid.start_worker();
    let results = grid.talka(["job", "results", "--follow", "-o", "out", &job.to_string()]);
    results.run().success();
    let count = |index: u64| fs::read_to_string(grid.path(&format!("out/{index}.out"))).expect("a result");
    let sum: u64 = (0..10).map(|index| count(index).trim().parse::<u64>().expect("a number")).sum();
    assert_eq!(sum, 664_579, "primes below 10,000,000");

    let credit = grid.credit();
    let (lies, truths): (Vec<_>, Vec<_>) = credit.iter().partition(|row| row.peer == liar.peer());
    let [liar] = lies[..] else { panic!("{credit:?}") };
    assert!(liar.amount == 0.0 && liar.validated == 0 && liar.invalid == 10, "{credit:?}");
    assert!(truths.iter().all(|row| (row.validated, row.invalid) == (10, 0)), "{credit:?}");
}

#[test]
fn the_work_of_a_worker_that_dies_goes_to_others() {
    let mut grid = Grid::start_with(&["--reconnect-grace", "500ms"]);
    let mut doomed = grid.start_worker();
    let module = Guest::TakesASecond.write(&grid);
    let job = submit(&grid, &["--array", "0-2", "--quorum", "1", module.to_str().expect("UTF-8")]);
    until_job(&grid, job, "a task to run", |info| number(info, "running") > 0);
    doomed.kill();

    let heir = grid.start_worker();
    grid.talka(["job", "wait", "last"]).run().success();
    let last = grid.results(job).pop().expect("results");
    assert_eq!(last["peers"], Value::from(vec![heir.peer()]));
}

#[test]
fn a_worker_that_is_asked_to_stop_finishes_what_runs_and_gives_back_the_rest() {
    // Whoever only disconnects would keep its work for an hour.
    let mut grid = Grid::start_with(&["--reconnect-grace", "1h"]);
    let mut leaving = grid.start_worker();
    let module = Guest::TakesASecond.write(&grid);
    let job = submit(&grid, &["--array", "0-2", "--quorum", "1", module.to_str().expect("UTF-8")]);
    let busy = || {
        let peers = grid.json(["peer", "list"]);
        (number(&peers[0], "running") > 0).then_some(())
    };
    until("a task to run", LONG, busy);
    assert!(leaving.stop().success());
    assert!(number(&grid.job(job), "done") >= 1, "what ran was finished: {}", grid.job(job));

    let _next = grid.start_worker();
    grid.talka(["job", "wait", "last"]).run().success();
    assert_eq!(number(&grid.job(job), "attempts"), 3, "nothing was done twice: {}", grid.job(job));
}

#[test]
fn a_coordinator_that_is_killed_goes_on_where_it_was() {
    let (mut grid, _workers) = Grid::with_workers(2);
    let args = ["submit", &sample("primes"), "--array", "0-199", "-o", "out", "--json", "--", "5000000"];
    let waiting = grid.talka(args).spawn();
    let listed = || grid.json(["job", "list"]).as_array().map_or(0, Vec::len);
    until("the job to be accepted", LONG, || (listed() == 1).then_some(()));
    until_job(&grid, 1, "a part to be done", |info| number(info, "done") >= 20);
    let acknowledged = grid.results(1);
    assert!((20..200).contains(&acknowledged.len()), "killed in the middle: {}", acknowledged.len());

    let ticket = grid.ticket().to_owned();
    grid.restart_coordinator();
    assert_eq!(text(grid.ready(), "ticket"), ticket, "the same key at the same address");

    // Submitter and workers come back by themselves.
    let summary = waiting.wait().success().json();
    assert_eq!((number(&summary, "done"), number(&summary, "failed")), (200, 0), "{summary}");

    let results: BTreeMap<u64, Value> =
        grid.results(1).into_iter().map(|result| (number(&result, "index"), result)).collect();
    assert_eq!(results.len(), 200);
    for before in &acknowledged {
        assert_eq!(&results[&number(before, "index")], before, "acknowledged before the crash");
    }
    // Below 1,000,000,000, by the tables of π(x).
    let count = |index: u64| fs::read_to_string(grid.path(&format!("out/{index}.out"))).expect("a result");
    let sum: u64 = (0..200).map(|index| count(index).trim().parse::<u64>().expect("a number")).sum();
    assert_eq!(sum, 50_847_534);

    // Each task is paid once to each who agreed, however often it was reported.
    let fuel: u64 = results.values().map(|result| number(result, "fuel")).sum();
    for row in grid.credit() {
        assert_eq!((row.validated, row.invalid), (200, 0), "{row:?}");
        #[expect(clippy::cast_precision_loss, reason = "compared with a tolerance")]
        let expected = fuel as f64 / 1e9;
        assert!((row.amount - expected).abs() < 1e-6, "{row:?} and {fuel} fuel");
    }
}
