//! Tasks that are interrupted, and go on from a checkpoint.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use talka_core::outcome::{Execution, Exit};
use talka_worker::{
    checkpoints::{Keep, Key},
    sandbox::{Control, Executor, JobWorld, TaskInput},
};
use tokio::sync::mpsc;

use super::{WASI, executor, job, kill, limits, run, until};

/// Writes to everything that is kept, looks at clock and chance, then offers checkpoints for so many rounds, and writes
/// and looks again. A program that finds a checkpoint begins with the second half, and at its end does `after`.
fn in_two_halves(rounds: u32, after: &str) -> Bytes {
    let wat = format!(
        r#"(module
        (import "{WASI}" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
        (import "{WASI}" "fd_close" (func $fd_close (param i32) (result i32)))
        (import "{WASI}" "fd_filestat_set_size" (func $set_size (param i32 i64) (result i32)))
        (import "{WASI}" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
        (import "{WASI}" "random_get" (func $random (param i32 i32) (result i32)))
        (import "{WASI}" "path_open" (func $path_open
            (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "{WASI}" "path_rename" (func $path_rename
            (param i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 100) "checkpoint/tcheckpoint/sprogress0.5out/aout/bbegin\n--end\n--log\n")
        (func $put (param $fd i32) (param $at i32) (param $length i32)
            (i32.store (i32.const 8) (local.get $at)) (i32.store (i32.const 12) (local.get $length))
            (drop (call $fd_write (local.get $fd) (i32.const 8) (i32.const 1) (i32.const 16))))
        (func $create (param $at i32) (param $length i32) (result i32)
            (drop (call $path_open (i32.const 3) (i32.const 0) (local.get $at) (local.get $length) (i32.const 9)
                (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 20)))
            (i32.load (i32.const 20)))
        (func $file (param $at i32) (param $length i32) (param $data i32) (param $bytes i32) (local $fd i32)
            (local.set $fd (call $create (local.get $at) (local.get $length)))
            (call $put (local.get $fd) (local.get $data) (local.get $bytes))
            (drop (call $fd_close (local.get $fd))))
        (func $look
            (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 304)))
            (call $put (i32.const 1) (i32.const 304) (i32.const 8))
            (drop (call $random (i32.const 320) (i32.const 16)))
            (call $put (i32.const 1) (i32.const 320) (i32.const 16)))
        (func $work (local $n i32)
            (local.set $n (i32.const 100000))
            (loop (br_if 0 (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))
        (func $offer
            (drop (call $path_rename (i32.const 3) (i32.const 100) (i32.const 12)
                (i32.const 3) (i32.const 112) (i32.const 12))))
        (func $found (result i32)
            (i32.eqz (call $path_open (i32.const 3) (i32.const 0) (i32.const 112) (i32.const 12) (i32.const 0)
                (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 20))))
        (func (export "_start") (local $found i32) (local $rounds i32)
            (local.set $found (call $found))
            (if (i32.eqz (local.get $found)) (then
                (call $put (i32.const 1) (i32.const 145) (i32.const 6))
                (call $put (i32.const 2) (i32.const 159) (i32.const 4))
                (call $file (i32.const 135) (i32.const 5) (i32.const 145) (i32.const 6))
                (call $look)
                (local.set $rounds (i32.const {rounds}))
                (loop
                    (call $work)
                    (call $file (i32.const 124) (i32.const 8) (i32.const 132) (i32.const 3))
                    (call $file (i32.const 100) (i32.const 12) (i32.const 145) (i32.const 1))
                    (call $offer)
                    (br_if 0 (local.tee $rounds (i32.sub (local.get $rounds) (i32.const 1)))))))
            (call $put (i32.const 1) (i32.const 153) (i32.const 4))
            (call $put (i32.const 2) (i32.const 159) (i32.const 4))
            (call $file (i32.const 140) (i32.const 5) (i32.const 153) (i32.const 4))
            (call $look)
            {after}))"#
    );
    wat::parse_str(&wat).unwrap_or_else(|error| panic!("{error}\n{wat}")).into()
}

/// So many that only an interruption ends it.
const ENDLESS: u32 = u32::MAX;

/// A task of a program, and a directory for its checkpoints.
struct Rig {
    dir: tempfile::TempDir,
    job: Arc<JobWorld>,
    task: TaskInput,
    executor: Executor,
}

impl Rig {
    async fn new(wasm: Bytes, task: TaskInput) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { dir, job: job(wasm, limits()).await, task, executor: executor().await }
    }

    async fn keep(&self) -> Keep {
        let program = self.job.program();
        let key = Key::new(program.hash, program.transformed(), self.job.input_digest(&self.task));
        Keep::in_dir(self.dir.path().to_owned(), key).await.expect("a directory")
    }

    /// Runs the task to its end, beside `meanwhile`.
    async fn run(&mut self, meanwhile: impl AsyncFnOnce(&Control, &Path)) -> Execution {
        let (keep, control) = (self.keep().await, self.executor.control());
        let (sender, mut receiver) = mpsc::channel(1);
        let keeps = [Some(keep)];
        let run = self.executor.run_kept(&self.job, vec![self.task.clone()], &keeps, sender);
        let ((), ()) = tokio::join!(run, meanwhile(&control, self.dir.path()));
        receiver.recv().await.expect("a result").1.expect("a result")
    }

    /// Runs the task until `enough`, and kills its process for good.
    async fn run_until(&mut self, what: &str, enough: impl Fn(&[PathBuf]) -> bool) {
        let keeps = [Some(self.keep().await)];
        let (sender, mut receiver) = mpsc::channel(1);
        tokio::select! {
            () = self.executor.run_kept(&self.job, vec![self.task.clone()], &keeps, sender) => {
                panic!("it ended: {:?}", receiver.recv().await);
            }
            () = until(what, || enough(&files(self.dir.path()))) => {}
        }
    }
}

/// Checkpoints in a directory, oldest first. There is one task in it, so that their names tell.
fn files(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).expect("a directory").filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<_> = paths.filter(|path| path.extension().is_none()).collect();
    files.sort();
    files
}

fn damage(path: &Path) {
    let mut bytes = fs::read(path).expect("a file");
    let last = bytes.last_mut().expect("it is not empty");
    *last ^= 1;
    fs::write(path, bytes).expect("writable");
}

async fn uninterrupted(rounds: u32) -> Execution {
    let job = job(in_two_halves(rounds, ""), limits()).await;
    run(&mut executor().await, &job, &[""]).await.remove(0).expect("a result")
}

/// Kills the process once a checkpoint is on the disk.
async fn kill_once(control: &Control, dir: &Path) {
    until("a checkpoint", || !files(dir).is_empty()).await;
    kill(control.pid().expect("a child"));
}

pub(super) async fn an_interrupted_task_writes_what_it_would_have_written() {
    let mut rig = Rig::new(in_two_halves(ENDLESS, ""), TaskInput::default()).await;
    let execution = rig.run(kill_once).await;
    let expected = uninterrupted(1).await;
    assert!(execution.resumed && !expected.resumed);
    assert_eq!((execution.exit, &execution.output), (Exit::Ok, &expected.output));
    let stdout = &expected.output.stdout;
    assert_eq!((stdout.len(), &stdout[..6], &stdout[30..34]), (58, &b"begin\n"[..], &b"end\n"[..]));
    assert!(execution.fuel > expected.fuel, "what it did before counts");

    let again = rig.run(async |_, _| ()).await;
    assert_eq!(again, execution, "from the same checkpoint the same way");
}

pub(super) async fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let mut rig = Rig::new(in_two_halves(ENDLESS, ""), TaskInput::default()).await;
    rig.run_until("two checkpoints", |files| files.len() == 2).await;
    let [older, newer] = &files(rig.dir.path())[..] else { panic!("two files") };
    damage(newer);
    let execution = rig.run(async |_, _| ()).await;
    assert!(execution.resumed);
    assert_eq!(execution.output, uninterrupted(1).await.output);

    damage(older);
    let newest = newer.clone();
    rig.run_until("a later checkpoint", |files| files.last().is_some_and(|file| *file >= newest)).await;
}

pub(super) async fn a_task_that_fails_after_an_interruption_is_run_again() {
    let fails = "(if (local.get $found) (then unreachable))";
    let mut rig = Rig::new(in_two_halves(ENDLESS, fails), TaskInput::default()).await;
    rig.run_until("a checkpoint", |files| !files.is_empty()).await;
    let first = files(rig.dir.path()).pop().expect("a file");
    // Its failure is not reported, its checkpoint goes, and it comes by another one from its beginning.
    rig.run_until("another one", |files| files.first().is_some_and(|file| *file > first)).await;
}

pub(super) async fn checkpoints_without_end_or_measure_do_no_harm() {
    let offers = "(local.set $rounds (i32.const 3000000)) (loop (call $offer)
        (br_if 0 (local.tee $rounds (i32.sub (local.get $rounds) (i32.const 1)))))";
    // Each offer is of a file with its own name.
    let offers = offers.replace(
        "(call $offer)",
        "(drop (call $path_rename (i32.const 3) (i32.const 112) (i32.const 12)
        (i32.const 3) (i32.const 112) (i32.const 12)))",
    );
    let mut rig = Rig::new(in_two_halves(1, &offers), TaskInput::default()).await;
    let execution = rig.run(async |_, _| ()).await;
    assert_eq!(execution.exit, Exit::Ok);
    assert!(files(rig.dir.path()).len() <= 2);

    let giant = "(drop (call $set_size (call $create (i32.const 112) (i32.const 12)) (i64.const 67108864)))";
    let mut rig = Rig::new(in_two_halves(1, &format!("{giant} {offers}")), TaskInput::default()).await;
    let execution = rig.run(async |_, _| ()).await;
    assert_eq!(execution.exit, Exit::Ok);
    assert!(files(rig.dir.path()).is_empty(), "it is too large, which is no error");
}

pub(super) async fn a_sample_task_goes_on_where_it_was_killed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sample-tasks/wasm/collatz.wasm");
    let wasm: Bytes = fs::read(path).expect("built").into();
    let task = TaskInput {
        args: vec!["collatz".into(), "10000000".into()],
        env: vec![("TALKA_TASK_INDEX".into(), "0".into())],
        ..TaskInput::default()
    };
    let mut rig = Rig::new(wasm, task).await;
    let interrupted = rig
        .run(async |control, dir| {
            kill_once(control, dir).await;
            until("the end of the child", || control.progress().is_none()).await;
            until("progress", || control.progress().is_some()).await;
            assert!(control.progress() > Some(0.01), "not from the beginning: {:?}", control.progress());
        })
        .await;
    assert!(interrupted.resumed);
    assert_eq!(interrupted.output.stdout, b"8400511 685\n");

    rig.keep().await.remove().await;
    let whole = rig.run(async |_, _| ()).await;
    assert!(!whole.resumed);
    assert_eq!((whole.exit, &whole.output), (interrupted.exit, &interrupted.output));
    let (less, more) = (whole.fuel.get(), interrupted.fuel.get());
    assert!(less < more && more < less + less / 100, "{more} against {less}: nothing was done twice");
}
