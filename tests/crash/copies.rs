//! Backup and restore beside a coordinator that works.

use std::fs;

use crate::harness::{Grid, LONG, number, sample, until};

#[test]
fn a_copy_of_a_working_coordinator_comes_back_as_it_was() {
    let (mut grid, _workers) = Grid::with_workers(1);
    let module = sample("primes");
    let submit = ["submit", &module, "--array", "0-99", "--quorum", "1", "--", "200000"];
    let job = number(&grid.json(submit), "job");
    until("a part to be done", LONG, || (number(&grid.job(job), "done") >= 10).then_some(()));

    let (data_dir, copy) = (grid.data_dir(), grid.path("copy"));
    let (data_dir, copy) = (data_dir.to_str().expect("UTF-8"), copy.to_str().expect("UTF-8"));
    let before = grid.results(job);
    let made = grid.json(["coordinator", "backup", copy, "--data-dir", data_dir]);
    assert!(number(&made, "finals") >= before.len() as u64, "{made}");
    assert_eq!(made["blobs"], false, "{made}");
    // It goes on meanwhile.
    grid.talka(["job", "wait", &job.to_string()]).run().success();

    let taken = grid.talka(["--json", "coordinator", "backup", copy, "--data-dir", data_dir]).run().exits(1);
    assert!(taken.error().1.contains("nothing is overwritten"), "{:?}", taken.error());
    let busy = grid.talka(["--json", "coordinator", "restore", copy, "--data-dir", data_dir]).run().exits(1);
    assert!(busy.error().1.contains("another coordinator is running"), "{:?}", busy.error());

    // The machine burns down; what is left is the copy, and the blobs.
    grid.kill_coordinator();
    let saved = grid.path("blobs");
    fs::rename(grid.data_dir().join("blobs"), &saved).expect("moved");
    fs::remove_dir_all(grid.data_dir()).expect("removed");
    let restored = grid.json(["coordinator", "restore", copy, "--data-dir", data_dir]);
    assert_eq!(restored["finals"], made["finals"]);
    assert!(number(&restored, "epoch") > number(&made, "epoch"));
    fs::rename(saved, grid.data_dir().join("blobs")).expect("moved");

    let key = grid.ready()["peer"].clone();
    grid.start_coordinator_again();
    assert_eq!(grid.ready()["peer"], key, "the same coordinator");
    // Workers come back by themselves and do again what the copy does not know.
    grid.talka(["job", "wait", &job.to_string()]).run().success();
    let after = grid.results(job);
    assert_eq!(after.len(), 100);
    assert!(before.iter().all(|result| after.contains(result)), "what was in the copy is as it was");
    let check = grid.talka(["coordinator", "check", "--data-dir", data_dir]).run().success();
    assert!(check.text().contains("credit adds up"), "{}", check.text());
}
