//! What a disk or a clock may do to a coordinator. Each time: a clear refusal that names the file and the remedy,
//! nothing is acknowledged, and when the fault is mended the coordinator goes on.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::harness::{Ended, Grid, LONG, number, sample, until};

/// A grid whose coordinator has a disk and a clock that the test rules.
struct Ruled {
    grid: Grid,
    control: PathBuf,
}

/// See `disk.c`.
#[derive(Default)]
pub(crate) struct Control {
    pub(crate) ahead_secs: i64,
    pub(crate) full: bool,
    pub(crate) read_only: bool,
}

/// Builds the shim in a directory; returns it and the file by which it is ruled.
pub(crate) fn shim(dir: &Path) -> (PathBuf, PathBuf) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("coordinator-peer/src/store/sqlite/tests/disk.c");
    let (library, control) = (dir.join("disk.so"), dir.join("control"));
    let cc = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let built = Command::new(cc).args(["-O1", "-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(built.expect("a C compiler").success());
    write(&control, &Control::default());
    (library, control)
}

impl Ruled {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory").keep();
        let (library, control) = shim(&dir);
        let variables = [("LD_PRELOAD", library), ("TALKA_TEST_DISK_CONTROL", control.clone())];
        Self { grid: Grid::start_in(&[], &variables), control }
    }

    fn set(&self, control: &Control) {
        write(&self.control, control);
    }

    fn submit(&self) -> Ended {
        let module = sample("empty");
        let submit = ["submit", "--json", "--array", "0-19", "--quorum", "1", module.as_str()];
        self.grid.talka(submit).run()
    }

    fn jobs(&self) -> usize {
        self.grid.json(["job", "list"]).as_array().map_or(0, Vec::len)
    }
}

impl Drop for Ruled {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(self.control.parent().expect("a directory")));
    }
}

/// In place, because the coordinator has it mapped.
pub(crate) fn write(path: &Path, control: &Control) {
    use std::io::Write;
    let numbers = [control.ahead_secs, control.full.into(), control.read_only.into()];
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
    let file = fs::File::options().create(true).truncate(false).write(true).open(path);
    file.and_then(|mut file| file.write_all(&bytes)).expect("writable");
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn a_full_disk_stops_the_coordinator_before_it_acknowledges_anything() {
    let mut ruled = Ruled::start();
    let first = number(&ruled.submit().success().json(), "job");
    ruled.set(&Control { full: true, ..Control::default() });
    // Its own patience would outlast the test's.
    let submit = ["submit", "--array", "0-19", "--quorum", "1", &sample("empty")].map(str::to_owned);
    let waiting = ruled.grid.talka(&submit).spawn();
    let log = ruled.grid.until_coordinator_fails();
    says(&log, &["coordinator.db", "disk of the store is full", "make room and start again"]);
    let again = ruled.grid.coordinator_refuses_to_start();
    says(&again, &["coordinator.db"]);

    ruled.set(&Control::default());
    ruled.grid.start_coordinator_again();
    // The submitter that waited comes through now, once.
    waiting.wait().success();
    assert_eq!(ruled.jobs(), 2);
    let _worker = ruled.grid.start_worker();
    ruled.grid.talka(["job", "wait", &format!("{first}-{}", first + 1)]).run().success();
}

#[test]
fn a_disk_that_turned_read_only_is_named_and_changes_nothing() {
    let mut ruled = Ruled::start();
    ruled.submit().success();
    ruled.grid.kill_coordinator();
    ruled.set(&Control { read_only: true, ..Control::default() });
    let log = ruled.grid.coordinator_refuses_to_start();
    says(&log, &["coordinator.db", "writable"]);

    ruled.set(&Control::default());
    ruled.grid.start_coordinator_again();
    assert_eq!(ruled.jobs(), 1);
}

#[test]
fn damage_is_named_and_a_backup_mends_it() {
    let (mut grid, _workers) = Grid::with_workers(1);
    let module = sample("primes");
    let submit = ["submit", &module, "--array", "0-299", "--quorum", "1", "--", "1000"];
    let job = number(&grid.json(submit), "job");
    grid.talka(["job", "wait", "last"]).run().success();
    let results = grid.results(job);
    grid.kill_coordinator();
    let data_dir = grid.data_dir();
    let copy = grid.path("copy");
    let (dir, copy) = (data_dir.to_str().expect("UTF-8"), copy.to_str().expect("UTF-8"));
    assert_eq!(grid.json(["coordinator", "backup", copy, "--data-dir", dir])["blobs"], true);

    let path = data_dir.join("coordinator.db");
    let mut bytes = fs::read(&path).expect("a file");
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 8192].iter_mut().for_each(|byte| *byte ^= 0xff);
    fs::write(&path, &bytes).expect("written");
    let check = grid.talka(["coordinator", "check", "--data-dir", dir]).run().exits(1);
    says(&(check.text() + &check.stderr), &["damaged"]);
    // The first page says what the tables are: without it nothing can be read.
    bytes[100..4096].fill(0xff);
    fs::write(&path, &bytes).expect("written");
    says(&grid.coordinator_refuses_to_start(), &["coordinator.db", "damaged", "restore it from a backup"]);

    fs::rename(&data_dir, grid.path("broken")).expect("moved");
    grid.json(["coordinator", "restore", copy, "--data-dir", dir]);
    grid.start_coordinator_again();
    assert_eq!(grid.results(job), results);
}

#[test]
fn a_clock_that_jumps_an_hour_either_way_loses_and_doubles_nothing() {
    const HOUR: i64 = 3600;
    let mut ruled = Ruled::start();
    let _workers: Vec<_> = (0..2).map(|_| ruled.grid.start_worker()).collect();
    let module = sample("primes");
    let submit = ["submit", &module, "--array", "0-399", "--", "300000"];
    let job = number(&ruled.grid.json(submit), "job");
    let mut done = 0;
    for ahead_secs in [HOUR, -HOUR, 0] {
        let more = |info: Value| (number(&info, "done") > done).then(|| number(&info, "done"));
        done = until("progress before a jump", LONG, || more(ruled.grid.job(job)));
        ruled.set(&Control { ahead_secs, ..Control::default() });
    }
    // Back in the past, and through a restart.
    ruled.set(&Control { ahead_secs: -HOUR, ..Control::default() });
    ruled.grid.restart_coordinator();
    ruled.grid.talka(["job", "wait", &job.to_string()]).run().success();
    let results = ruled.grid.results(job);
    assert_eq!(results.len(), 400);
    for row in ruled.grid.credit() {
        assert_eq!((row.validated, row.invalid), (400, 0), "paid once each: {row:?}");
    }
    let dir = ruled.grid.data_dir();
    let check = ruled.grid.json(["coordinator", "check", "--data-dir", &dir.to_string_lossy()]);
    assert_eq!(check["ok"], true, "{check}");
}
