//! A worker whose disk fills up.

use serde_json::Value;

use crate::{
    faults::{Control, shim, write},
    harness::{Grid, LONG, number, sample, until},
};

#[test]
fn a_worker_whose_disk_is_full_says_so_waits_and_goes_on_and_nothing_is_lost() {
    let mut grid = Grid::start();
    let dir = tempfile::tempdir().expect("a directory");
    let (library, control) = shim(dir.path());
    let under = grid.worker_data(1);
    let variables = [
        ("LD_PRELOAD", library),
        ("TALKA_TEST_DISK_CONTROL", control.clone()),
        ("TALKA_TEST_DISK_UNDER", under),
    ];
    let worker = grid.start_worker_in(&[], &variables);
    let tiles = ["--quorum", "1", "--", "512", "2"];
    let submit = |range: &str| {
        let module = sample("mandelbrot");
        let args = ["submit", "--array", range, &module].into_iter().chain(tiles);
        number(&grid.json(args.collect::<Vec<_>>()), "job")
    };
    let first = submit("0-1");
    grid.talka(["job", "wait", &first.to_string()]).run().success();
    let before = grid.results(first);

    write(&control, &Control { full: true, ..Control::default() });
    // Large outputs, which it has to keep.
    let second = submit("0-3");
    until("the worker to say that its disk is full", LONG, || {
        let log = grid.worker_log(1);
        assert!(!log.contains("panicked"), "{log}");
        (log.contains("the disk takes nothing") && log.contains("No space left")).then_some(())
    });
    let waiting = grid.job(second);
    assert_eq!((number(&waiting, "failed"), &waiting["state"]), (0, &Value::from("running")), "{waiting}");

    write(&control, &Control::default());
    grid.talka(["job", "wait", &second.to_string()]).run().success();
    assert!(grid.worker_log(1).contains("there is room on the disk again"));
    assert_eq!(grid.results(first), before, "what was there is there");
    assert_eq!(grid.results(second).len(), 4);
    drop(worker);
}
