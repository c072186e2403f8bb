//! Long tasks that outlive the processes in which they run.

use std::{fs, path::Path};

use serde_json::Value;

use crate::harness::{Grid, LONG, number, sample, text, until};

/// Whose answer is known, and takes some seconds.
const WIDTH: &str = "10000000";
const ANSWER: &str = "8400511 685\n";

/// Checkpoints in a directory that may not be there yet, without one that is being written.
fn files(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries.filter(|entry| entry.path().extension().is_none()).count()
}

/// The same task, here and without an interruption.
fn run_alone(grid: &Grid) -> (String, u64) {
    let run = grid.talka(["run", "--json", "--index", "0", &sample("collatz"), "--", WIDTH]).run().success();
    assert_eq!(run.text(), ANSWER);
    let line = run.stderr.lines().last().expect("a line");
    let told: Value = serde_json::from_str(line).expect("JSON on the last line");
    (text(&told, "digest"), number(&told, "fuel"))
}

/// Submits one task and returns its job.
fn submit(grid: &Grid, quorum: &str, width: &str) -> u64 {
    let job = ["submit", "--array", "0-0", "--quorum", quorum, &sample("collatz"), "--", width];
    number(&grid.json(job), "job")
}

/// Its result, when it is there.
fn wait(grid: &Grid, job: u64) -> Value {
    grid.talka(["job", "wait", &job.to_string()]).run().success();
    let results = grid.results(job);
    let [result] = &results[..] else { panic!("{results:?}") };
    result.clone()
}

#[test]
fn a_task_outlives_the_worker_that_runs_it() {
    // Whoever only disconnects keeps its work for as long as this test may take: what is done is done by it.
    let mut grid = Grid::start_with(&["--reconnect-grace", "1h"]);
    let mut doomed = grid.start_worker();
    let kept = grid.path("worker-1/checkpoints");

    // Alone: its count differs from that of a whole run, and its digest leaves it out.
    let alone = submit(&grid, "1", WIDTH);
    until("a checkpoint", LONG, || (files(&kept) > 0).then_some(()));
    doomed.kill();
    let mut doomed = grid.restart_worker(1);
    let result = wait(&grid, alone);
    let (digest, fuel) = run_alone(&grid);
    assert_ne!(text(&result, "digest"), digest);
    let counted = number(&result, "fuel");
    assert!(
        fuel < counted && counted < fuel + fuel / 100,
        "{counted} against {fuel}: nothing was done twice"
    );
    assert_eq!((number(&result, "attempts"), &result["peers"]), (1, &Value::from(vec![doomed.peer()])));
    until("the checkpoints to go", LONG, || (files(&kept) == 0).then_some(()));

    // With another one that is not interrupted: then it is as if nobody had been.
    let both = submit(&grid, "2", WIDTH);
    until("a checkpoint", LONG, || (files(&kept) > 0).then_some(()));
    doomed.kill();
    let doomed = grid.restart_worker(1);
    let other = grid.start_worker();
    let result = wait(&grid, both);
    assert_eq!((text(&result, "digest"), number(&result, "fuel")), (digest, fuel));
    assert_eq!(number(&result, "attempts"), 2);
    let credit = grid.credit();
    let earned =
        |peer: &str| credit.iter().find(|row| row.peer == peer).map(|row| (row.validated, row.invalid));
    assert_eq!((earned(&doomed.peer()), earned(&other.peer())), (Some((2, 0)), Some((1, 0))), "{credit:?}");
}

#[test]
fn a_worker_that_is_asked_to_stop_goes_on_when_it_is_started_again() {
    let mut grid = Grid::start_with(&["--reconnect-grace", "1h"]);
    let mut leaving = grid.start_worker();
    let kept = grid.path("worker-1/checkpoints");
    // Longer than a worker waits for what it runs when it is asked to stop.
    let job = submit(&grid, "1", "40000000");
    until("a checkpoint", LONG, || (files(&kept) > 0).then_some(()));
    assert!(leaving.stop().success());
    assert_eq!(number(&grid.job(job), "done"), 0, "it takes longer");
    let _again = grid.restart_worker(1);
    grid.talka(["job", "cancel", &job.to_string()]).run().success();
    until("the checkpoints to go", LONG, || (files(&kept) == 0).then_some(()));
}

#[test]
fn a_local_run_goes_on_from_its_checkpoint() {
    let grid = Grid::start();
    let kept = grid.path("kept");
    let run = || {
        let run = ["run", "--json", "--index", "0", "--checkpoint", "kept", &sample("collatz"), "--", WIDTH];
        grid.talka(run)
    };
    let interrupted = run().spawn();
    until("a checkpoint", LONG, || (files(&kept) > 0).then_some(()));
    drop(interrupted);
    let ended = run().run().success();
    assert_eq!(ended.text(), ANSWER);
    let line = ended.stderr.lines().last().expect("a line");
    let told: Value = serde_json::from_str(line).expect("JSON on the last line");
    assert_eq!(told["resumed"], true, "{told}");
    assert_eq!(files(&kept), 0, "it is done");
}
