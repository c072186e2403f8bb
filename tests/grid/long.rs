//! A job of a million tasks: it costs what is touched of it, and nothing more.

use std::fs;

use serde_json::Value;

use crate::harness::{Grid, LONG, number, sample, text, until};

const TASKS: u64 = 1_000_000;

/// Bytes of the coordinator's store.
fn store_bytes(grid: &Grid) -> u64 {
    let length = |name: &str| fs::metadata(grid.data_dir().join(name)).map_or(0, |file| file.len());
    length("coordinator.db") + length("coordinator.db-wal")
}

/// The job once so many of its tasks are done.
fn until_done(grid: &Grid, job: u64, done: u64) -> Value {
    until("progress", LONG, || Some(grid.job(job)).filter(|info| number(info, "done") >= done))
}

#[test]
fn a_million_tasks_go_on_after_a_restart_in_the_middle_and_can_be_cancelled() {
    let mut grid = Grid::start();
    let before = store_bytes(&grid);
    let submit = ["submit", &sample("empty"), "--array", &format!("0-{}", TASKS - 1), "--quorum", "1"];
    let job = number(&grid.json(submit), "job");
    let info = grid.job(job);
    assert_eq!((number(&info, "tasks"), number(&info, "running")), (TASKS, 0), "{info}");
    let grown = store_bytes(&grid) - before;
    assert!(grown < 1 << 20, "a million tasks that nobody touched take {grown} bytes");

    let _worker = grid.start_worker();
    let told = number(&until_done(&grid, job, 2000), "done");
    // It is killed while reports are on their way; what was told before is on the disk.
    grid.restart_coordinator();
    let info = grid.job(job);
    assert_eq!(text(&info, "state"), "running");
    assert!(number(&info, "done") >= told, "{told} were done before: {info}");
    let info = until_done(&grid, job, told + 2000);
    assert!(number(&info, "done") < TASKS, "it is still in the middle");

    let cancelled = grid.json(["job", "cancel", &job.to_string()]);
    let info = grid.job(job);
    assert_eq!(text(&info, "state"), "cancelled", "{cancelled}");
    let (done, failed) = (number(&info, "done"), number(&info, "failed"));
    assert_eq!((done + number(&info, "cancelled"), failed), (TASKS, 0), "every task has one end");
    assert_eq!(number(&info, "attempts"), done, "each was computed once");
    let paid: u64 = grid.credit().iter().map(|row| row.validated).sum();
    assert_eq!(paid, done, "and paid once");
    let result =
        grid.talka(["submit", &sample("empty"), "--array", "0-9", "--quorum", "1", "--wait", "--json"]);
    assert_eq!(number(&result.run().success().json(), "done"), 10, "the worker is free for others");
}
