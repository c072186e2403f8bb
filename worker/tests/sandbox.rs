//! The sandbox with real processes: this program starts itself as executor and compile process.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::process::Signal;
use talka_core::{
    duty::CpuPercent,
    ids::BlobHash,
    job::TaskLimits,
    outcome::{Execution, Exit, Limit, NoResult, Trap},
    quantities::{Bytes as Size, Fuel},
};
use talka_worker::sandbox::{
    Activity, CompileError, Compiler, Executor, ExecutorConfig, JobParts, JobWorld, Place, TaskInput,
    TaskResult, child, run_one, throttle,
    walls::{self, Wall},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _},
    sync::{mpsc, watch},
};

#[path = "sandbox/compiled.rs"]
mod compiled;
#[path = "sandbox/drill.rs"]
mod drill;
#[path = "sandbox/resumed.rs"]
mod resumed;

/// Starts an executor, tells its process number, and waits to be killed.
const PARENT_ARG: &str = "parent";

fn main() -> ExitCode {
    if let Some(code) = child::dispatch() {
        return code;
    }
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some(drill::DRILL_ARG) => return drill::run(args),
        Some(PARENT_ARG) => return parent(),
        _ => {}
    }
    let tests = vec![
        test("hello_comes_back", hello_comes_back),
        test("a_batch_comes_back_in_order", a_batch_comes_back_in_order),
        test("large_inputs_and_outputs_pass_through", large_inputs_and_outputs_pass_through),
        test("a_deadline_costs_one_task", a_deadline_costs_one_task),
        test("a_killed_child_costs_one_task", a_killed_child_costs_one_task),
        test("a_child_that_dies_between_batches_costs_nothing", a_child_that_dies_between_batches),
        test("results_do_not_wait_behind_a_long_task", results_do_not_wait_behind_a_long_task),
        test("dropping_a_run_kills_the_child", dropping_a_run_kills_the_child),
        test("a_pause_stops_the_deadline_too", a_pause_stops_the_deadline_too),
        test("a_throttled_executor_keeps_to_its_share", a_throttled_executor_keeps_to_its_share),
        test("progress_can_be_seen", progress_can_be_seen),
        test("many_jobs_take_turns_in_one_child", many_jobs_take_turns_in_one_child),
        test("deep_recursion_does_not_kill_the_child", deep_recursion),
        test("one_compilation_serves_all_who_wait", one_compilation_serves_all_who_wait),
        test("a_compile_bomb_is_stopped", a_compile_bomb_is_stopped),
        test("a_module_is_compiled_once", compiled::a_module_is_compiled_once_for_all_processes),
        test("a_damaged_file_is_compiled_again", compiled::a_damaged_file_is_compiled_again),
        test(
            "without_a_disk_modules_are_still_compiled",
            compiled::without_a_disk_modules_are_still_compiled,
        ),
        test("a_refusal_leaves_nothing_behind", compiled::a_refusal_leaves_nothing_behind),
        test(
            "an_interrupted_task_writes_what_it_would_have_written",
            resumed::an_interrupted_task_writes_what_it_would_have_written,
        ),
        test(
            "a_damaged_checkpoint_gives_way_to_the_one_before",
            resumed::a_damaged_checkpoint_gives_way_to_the_one_before,
        ),
        test(
            "a_task_that_fails_after_an_interruption_is_run_again",
            resumed::a_task_that_fails_after_an_interruption_is_run_again,
        ),
        test(
            "checkpoints_without_end_or_measure_do_no_harm",
            resumed::checkpoints_without_end_or_measure_do_no_harm,
        ),
        test("a_sample_task_goes_on_where_it_was_killed", resumed::a_sample_task_goes_on_where_it_was_killed),
        test("what_is_not_a_module_is_refused", what_is_not_a_module_is_refused),
        test("a_missing_program_is_an_error", a_missing_program_is_an_error),
        test("a_program_that_does_not_greet_is_an_error", a_program_that_does_not_greet_is_an_error),
        test("the_walls_are_told", the_walls_are_told),
        test("children_die_with_their_parent", children_die_with_their_parent),
        test("sample_tasks_give_their_known_answers", sample_tasks_give_their_known_answers),
        test("a_local_run_has_the_same_digests_each_time", local_runs_agree),
        Trial::test("nothing_gets_through_the_walls", || {
            drill::nothing_gets_through_the_walls();
            Ok(())
        }),
        Trial::test("without_walls_the_same_attempts_work", || {
            drill::without_walls_the_same_attempts_work();
            Ok(())
        }),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

/// A test that is a future; a panic is its failure.
fn test<F: Future<Output = ()>>(name: &str, body: impl FnOnce() -> F + Send + 'static) -> Trial {
    Trial::test(name, || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let limit = Duration::from_mins(2);
        let ended = runtime.block_on(async { tokio::time::timeout(limit, body()).await });
        ended.map_err(|_| Failed::from("no end after two minutes"))
    })
}

fn exe() -> PathBuf {
    std::env::current_exe().expect("this program")
}

const WASI: &str = "wasi_snapshot_preview1";

/// Reads all of standard input in pieces of 64 KiB and hands each to `body`, as `$at` and `$length`.
fn guest(body: &str) -> Bytes {
    let wat = format!(
        r#"(module
        (import "{WASI}" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
        (import "{WASI}" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
        (import "{WASI}" "path_open" (func $path_open
            (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "{WASI}" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 4)
        (data (i32.const 500) "progress")
        (data (i32.const 600) "0.25")
        (func $put (param $fd i32) (param $at i32) (param $length i32)
            (i32.store (i32.const 8) (local.get $at)) (i32.store (i32.const 12) (local.get $length))
            (drop (call $fd_write (local.get $fd) (i32.const 8) (i32.const 1) (i32.const 16))))
        (func $read (result i32)
            (i32.store (i32.const 8) (i32.const 65536)) (i32.store (i32.const 12) (i32.const 65536))
            (drop (call $fd_read (i32.const 0) (i32.const 8) (i32.const 1) (i32.const 16)))
            (i32.load (i32.const 16)))
        (func $echo (local $n i32)
            (loop
                (local.set $n (call $read))
                (if (local.get $n) (then
                    (call $put (i32.const 1) (i32.const 65536) (local.get $n)) (br 1)))))
        (func $forever (loop (br 0)))
        (func $deep (call $deep) (call $deep))
        (func (export "_start") {body}))"#
    );
    wat::parse_str(&wat).unwrap_or_else(|error| panic!("{error}\n{wat}")).into()
}

/// Its input comes out; when that begins with `!`, it never ends; with `?`, it tells its progress first.
fn echo_or_hang() -> Bytes {
    guest(
        "(local $n i32) (local $first i32)
        (local.set $n (call $read))
        (local.set $first (i32.load8_u (i32.const 65536)))
        (if (i32.eq (local.get $first) (i32.const 63)) (then
            (drop (call $path_open (i32.const 3) (i32.const 0) (i32.const 500) (i32.const 8) (i32.const 0)
                (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 20)))
            (call $put (i32.load (i32.const 20)) (i32.const 600) (i32.const 4))
            (call $forever)))
        (if (i32.eq (local.get $first) (i32.const 33)) (then (call $forever)))
        (call $put (i32.const 1) (i32.const 65536) (local.get $n))",
    )
}

fn limits() -> TaskLimits {
    TaskLimits { fuel: Fuel::new(1 << 50), deadline: Duration::from_mins(1), ..TaskLimits::default() }
}

fn hash_of(bytes: &[u8]) -> BlobHash {
    BlobHash::new(*blake3::hash(bytes).as_bytes())
}

async fn job(wasm: Bytes, limits: TaskLimits) -> Arc<JobWorld> {
    let program = Compiler::new(exe()).compile(hash_of(&wasm), wasm).await.expect("compiled");
    Arc::new(JobWorld::new(program, vec![], limits, 0, 0))
}

async fn executor() -> Executor {
    Executor::spawn(ExecutorConfig { exe: exe() }).await.expect("an executor")
}

fn task(stdin: &str) -> TaskInput {
    TaskInput { stdin: Bytes::copy_from_slice(stdin.as_bytes()), ..TaskInput::default() }
}

/// Runs a batch to its end.
async fn run(
    executor: &mut Executor,
    job: &Arc<JobWorld>,
    inputs: &[&str],
) -> Vec<Result<Execution, NoResult>> {
    let tasks = inputs.iter().map(|input| task(input)).collect();
    let (sender, mut receiver) = mpsc::channel(inputs.len().max(1));
    executor.run(job, tasks, sender).await;
    let mut results = Vec::new();
    while let Some((position, result)) = receiver.recv().await {
        assert_eq!(position, results.len(), "results come in order");
        results.push(result);
    }
    assert_eq!(results.len(), inputs.len(), "every task has a result");
    results
}

/// What each task wrote, or why it has no result.
fn stdouts(results: Vec<Result<Execution, NoResult>>) -> Vec<String> {
    let text = |execution: Execution| String::from_utf8(execution.output.stdout).expect("text");
    results.into_iter().map(|result| result.map_or_else(|reason| format!("{reason:?}"), text)).collect()
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or_default().starts_with('Z'))
}

fn kill(pid: u32) {
    send(pid, Signal::KILL);
}

fn send(pid: u32, signal: Signal) {
    let raw = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
    rustix::process::kill_process(raw, signal).expect("own child");
}

async fn hello_comes_back() {
    let job = job(guest("(call $echo)"), limits()).await;
    assert_eq!(stdouts(run(&mut executor().await, &job, &["hello"]).await), ["hello"]);
}

async fn a_batch_comes_back_in_order() {
    let job = job(guest("(call $echo)"), limits()).await;
    let inputs: Vec<_> = (0..5000).map(|number| number.to_string()).collect();
    let inputs: Vec<_> = inputs.iter().map(String::as_str).collect();
    let mut executor = executor().await;
    for _ in 0..2 {
        assert_eq!(stdouts(run(&mut executor, &job, &inputs).await), inputs);
    }
    assert!(run(&mut executor, &job, &[]).await.is_empty());
}

async fn large_inputs_and_outputs_pass_through() {
    let limits = TaskLimits { output: Size::mib(64), ..limits() };
    let job = job(guest("(call $echo)"), limits).await;
    let large = "0123456789abcdef".repeat(3 << 20);
    let results = stdouts(run(&mut executor().await, &job, &["small", &large, "small", &large]).await);
    assert!(results == ["small", &large, "small", &large]);
}

async fn a_deadline_costs_one_task() {
    let limits = TaskLimits { deadline: Duration::from_millis(300), ..limits() };
    let job = job(echo_or_hang(), limits).await;
    let mut executor = executor().await;
    let first = executor.pid();
    let results = stdouts(run(&mut executor, &job, &["a", "b", "!", "c", "!", "d"]).await);
    assert_eq!(results, ["a", "b", "Deadline", "c", "Deadline", "d"]);
    assert_ne!(executor.pid(), first);
}

async fn a_killed_child_costs_one_task() {
    let job = job(echo_or_hang(), limits()).await;
    let mut executor = executor().await;
    let control = executor.control();
    let pid = control.pid().expect("a child");
    let killer = async {
        until("progress", || control.progress() == Some(0.25)).await;
        kill(pid);
    };
    let (results, ()) = tokio::join!(run(&mut executor, &job, &["a", "?", "b"]), killer);
    assert_eq!(stdouts(results), ["a", "ChildDied", "b"]);
}

async fn a_child_that_dies_between_batches() {
    let (one, other) = tokio::join!(job(echo_or_hang(), limits()), job(guest("(call $echo)"), limits()));
    let mut executor = executor().await;
    for (number, job) in [&one, &one, &other, &one].into_iter().cycle().take(20).enumerate() {
        let pid = executor.pid().expect("a child");
        kill(pid);
        if number % 2 == 0 {
            until("the end of the child", || !is_alive(pid)).await;
        }
        assert_eq!(stdouts(run(&mut executor, job, &["a"]).await), ["a"]);
    }
}

async fn results_do_not_wait_behind_a_long_task() {
    let job = job(echo_or_hang(), limits()).await;
    let mut executor = executor().await;
    let (sender, mut receiver) = mpsc::channel::<TaskResult>(10);
    let tasks = ["a", "b", "!"].map(task).to_vec();
    let run = executor.run(&job, tasks, sender);
    tokio::pin!(run);
    for position in 0..2 {
        tokio::select! {
            () = &mut run => panic!("the last task never ends"),
            result = receiver.recv() => assert_eq!(result.expect("a result").0, position),
        }
    }
}

async fn dropping_a_run_kills_the_child() {
    let job = job(echo_or_hang(), limits()).await;
    let mut executor = executor().await;
    let control = executor.control();
    let pid = control.pid().expect("a child");
    let (sender, _receiver) = mpsc::channel(1);
    let started = tokio::select! {
        () = executor.run(&job, vec![task("?")], sender) => false,
        () = until("progress", || control.progress().is_some()) => true,
    };
    assert!(started);
    assert_eq!((control.pid(), control.progress()), (None, None));
    until("the end of the child", || !is_alive(pid)).await;
    assert_eq!(stdouts(run(&mut executor, &job, &["again"]).await), ["again"]);

    let pid = executor.pid().expect("a child");
    let (sender, receiver) = mpsc::channel(1);
    drop(receiver);
    executor.run(&job, vec![task("unwanted")], sender).await;
    until("the end of the child", || !is_alive(pid)).await;
    let pid = { self::executor().await.pid().expect("a child") };
    until("the end of the child", || !is_alive(pid)).await;
}

async fn a_pause_stops_the_deadline_too() {
    let limits = TaskLimits { deadline: Duration::from_secs(1), ..limits() };
    let job = job(echo_or_hang(), limits).await;
    let mut executor = executor().await;
    let control = executor.control();
    let start = Instant::now();
    let pause = async {
        until("progress", || control.progress().is_some()).await;
        control.pause();
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", control.pid().expect("a child")));
        until("the stop", || state().is_ok_and(|stat| stat.contains(") T "))).await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        control.resume();
    };
    let (results, ()) = tokio::join!(run(&mut executor, &job, &["?"]), pause);
    assert_eq!(stdouts(results), ["Deadline"]);
    assert!(start.elapsed() > Duration::from_millis(2200), "{:?}", start.elapsed());
}

/// State and user time in ticks of a hundredth of a second, as the kernel tells them.
fn process_stat(pid: u32) -> (char, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
    (fields[0].chars().next().expect("a state"), fields[11].parse().expect("a number"))
}

async fn a_throttled_executor_keeps_to_its_share() {
    const TICK: Duration = Duration::from_millis(10);
    /// Enough to tell a quarter of the time from all of it.
    const TICKS: u64 = 15;
    let job = job(echo_or_hang(), limits()).await;
    let (mut free, mut held) = (executor().await, executor().await);
    let (free_control, control) = (free.control(), held.control());
    let share = watch::Sender::new(CpuPercent::new(25).expect("valid"));
    let place = Place { slot: 0, slots: 1, epoch: tokio::time::Instant::now() };
    tokio::spawn(throttle(control.clone(), share.subscribe(), place));
    let (sender, _results) = mpsc::channel(2);
    let watched = async {
        until("progress", || free_control.progress().is_some() && control.progress().is_some()).await;
        let (free_pid, pid) = (free_control.pid().expect("a child"), control.pid().expect("a child"));
        let (began, (_, ticks)) = (Instant::now(), process_stat(pid));
        let (mut stopped, mut ran) = (0, 0);
        until("some work", || {
            assert_ne!(process_stat(free_pid).0, 'T', "the other one is let alone");
            let (state, now) = process_stat(pid);
            *(if state == 'T' { &mut stopped } else { &mut ran }) += 1;
            now >= ticks + TICKS
        })
        .await;
        // However busy the machine is, a process that is stopped gets nothing.
        let most = began.elapsed().mul_f64(0.4) + 3 * TICK;
        assert!(TICK * u32::try_from(TICKS).expect("small") < most, "{:?}", began.elapsed());
        assert!(stopped > 0 && ran > 0, "stopped {stopped} times, not so {ran} times");

        control.pause();
        until("the stop", || process_stat(pid).0 == 'T').await;
        let ticks = process_stat(pid).1;
        let others = process_stat(free_pid).1 + TICKS;
        until("the other one's work", || process_stat(free_pid).1 >= others).await;
        let (state, now) = process_stat(pid);
        // One of its threads may have been a moment behind the other.
        assert!(
            state == 'T' && now <= ticks + 1,
            "the share does not end a pause: {state}, {now} of {ticks}"
        );
        control.resume();
        until("more work", || process_stat(pid).1 > ticks).await;
        share.send_replace(CpuPercent::ALL);
    };
    tokio::select! {
        () = free.run(&job, vec![task("?")], sender.clone()) => panic!("it never ends"),
        () = held.run(&job, vec![task("?")], sender) => panic!("it never ends"),
        () = watched => {}
    }
    assert_eq!(control.activity(), Activity::Idle);
}

async fn progress_can_be_seen() {
    let job = job(echo_or_hang(), limits()).await;
    let mut executor = executor().await;
    let control = executor.control();
    assert_eq!(control.progress(), None);
    let (sender, _receiver) = mpsc::channel(1);
    tokio::select! {
        () = executor.run(&job, vec![task("?")], sender) => panic!("it never ends"),
        () = until("progress", || control.progress() == Some(0.25)) => {}
    }
}

async fn many_jobs_take_turns_in_one_child() {
    let program = Compiler::new(exe());
    let wasm = guest("(call $echo)");
    let program = program.compile(hash_of(&wasm), wasm).await.expect("compiled");
    let jobs: Vec<_> =
        (0..40).map(|seed| Arc::new(JobWorld::new(program.clone(), vec![], limits(), seed, 0))).collect();
    let mut executor = executor().await;
    let pid = executor.pid();
    for round in 0..3 {
        for (number, job) in jobs.iter().enumerate() {
            let input = format!("{round} {number}");
            assert_eq!(stdouts(run(&mut executor, job, &[&input]).await), [input]);
        }
    }
    assert_eq!(executor.pid(), pid);
}

async fn deep_recursion() {
    let job = job(guest("(call $deep)"), limits()).await;
    let mut executor = executor().await;
    let pid = executor.pid();
    for result in run(&mut executor, &job, &["", ""]).await {
        assert_eq!(result.map(|execution| execution.exit), Ok(Exit::Limit(Limit::CallDepth)));
    }
    assert_eq!(executor.pid(), pid);
}

async fn one_compilation_serves_all_who_wait() {
    let compiler = Compiler::new(exe());
    let wasm = guest("(call $echo)");
    let hash = hash_of(&wasm);
    let (a, b) = tokio::join!(compiler.compile(hash, wasm.clone()), compiler.compile(hash, wasm.clone()));
    let (a, b) = (a.expect("compiled"), b.expect("compiled"));
    let c = compiler.compile(hash, wasm).await.expect("compiled");
    assert!(Arc::ptr_eq(&a, &b) && Arc::ptr_eq(&a, &c));
    assert!(a.size() > 0);
}

async fn a_compile_bomb_is_stopped() {
    // The profile allows it: one function with as many locals as there may be, most of them alive
    // everywhere in a loop of thousands of branches, which multiplies for the compiler.
    const LOCALS: u32 = talka_core::limits::MODULE_LOCALS_MAX - 1;
    let mut body = String::new();
    for number in 0..24_000 {
        let (from, to, at) = (number * 13 % LOCALS, number * 7 % LOCALS, number % 100 * 4);
        write!(body, "(if (i32.load offset={at} (local.get {from})) (then (local.set {to} (i32.const 1))))")
            .expect("a string");
    }
    let locals = "i32 ".repeat(LOCALS as usize);
    let wat = format!(
        "(module (memory (export \"memory\") 1)
        (func (export \"_start\") (local {locals}) (loop {body} (br_if 0 (local.get 0)))))"
    );
    let wasm: Bytes = wat::parse_str(&wat).expect("valid").into();
    drop(wat);
    let compiler = Compiler::new(exe());
    let start = Instant::now();
    let result = compiler.compile(hash_of(&wasm), wasm.clone()).await;
    assert!(matches!(result, Err(CompileError::TooExpensive)), "{result:?}");
    let again = Instant::now();
    assert!(compiler.compile(hash_of(&wasm), wasm).await.is_err());
    assert!(again.elapsed() < start.elapsed() / 10, "the refusal is remembered");
}

async fn what_is_not_a_module_is_refused() {
    let compiler = Compiler::new(exe());
    for bytes in [&b""[..], b"#!/bin/sh", b"\0asm\x01\0\0\0\x01"] {
        let result = compiler.compile(hash_of(bytes), Bytes::from_static(bytes)).await;
        assert!(matches!(result, Err(CompileError::Refused { .. })), "{result:?}");
    }
    let wrong = compiler.compile(hash_of(b"a"), Bytes::from_static(b"b")).await;
    assert!(matches!(wrong, Err(CompileError::WrongHash)), "{wrong:?}");
}

async fn a_missing_program_is_an_error() {
    let exe = PathBuf::from("/nonexistent/talka");
    assert!(Executor::spawn(ExecutorConfig { exe: exe.clone() }).await.is_err());
    let wasm = guest("");
    let result = Compiler::new(exe).compile(hash_of(&wasm), wasm).await;
    assert!(matches!(result, Err(CompileError::Start(_))), "{result:?}");
}

async fn a_program_that_does_not_greet_is_an_error() {
    for exe in ["/bin/true", "/bin/echo"] {
        assert!(Executor::spawn(ExecutorConfig { exe: exe.into() }).await.is_err(), "{exe}");
    }
}

async fn the_walls_are_told() {
    let walls = walls::inspect(&exe()).await.expect("a child");
    let stated: Vec<_> = walls.iter().map(|(wall, _)| wall).collect();
    for wall in [Wall::Session, Wall::LowestPriority, Wall::ResourceLimits, Wall::Landlock, Wall::Seccomp] {
        assert!(stated.contains(&wall), "{wall}");
    }
    #[cfg(target_os = "linux")]
    for wall in [Wall::Session, Wall::ParentDeath, Wall::NoNewPrivileges, Wall::ResourceLimits] {
        assert!(walls.has(wall), "{wall}: {walls:?}");
    }
}

async fn local_runs_agree() {
    let run = || async {
        let parts = JobParts {
            datasets: vec![("words".into(), hash_of(b"abc"), Bytes::from_static(b"abc"))],
            limits: limits(),
            ..JobParts::default()
        };
        run_one(exe(), guest("(call $echo) (unreachable)"), parts, task("input")).await.expect("a result")
    };
    let (first, second) = tokio::join!(run(), run());
    assert_eq!(first, second);
    assert_eq!(first.execution.exit, Exit::Trap(Trap::Unreachable));
    assert_eq!(first.execution.output.stdout, b"input");
}

fn parent() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let job = job(guest("(call $forever)"), limits()).await;
        let mut executor = executor().await;
        let mut stdout = tokio::io::stdout();
        let line = format!("{}\n", executor.pid().expect("a child"));
        stdout.write_all(line.as_bytes()).await.expect("standard output");
        stdout.flush().await.expect("standard output");
        run(&mut executor, &job, &[""]).await;
    });
    ExitCode::FAILURE
}

async fn children_die_with_their_parent() {
    for stopped in [false, true] {
        a_child_dies_with_its_parent(stopped).await;
    }
}

async fn a_child_dies_with_its_parent(stopped: bool) {
    let mut command = tokio::process::Command::new(exe());
    let command = command.arg(PARENT_ARG).stdout(Stdio::piped()).kill_on_drop(true);
    let mut parent = command.spawn().expect("a parent");
    let mut lines = tokio::io::BufReader::new(parent.stdout.take().expect("piped")).lines();
    let child: u32 = lines.next_line().await.expect("a line").expect("a line").parse().expect("a number");
    assert!(is_alive(child));
    if stopped {
        send(child, Signal::STOP);
        until("the stop", || process_stat(child).0 == 'T').await;
    }
    parent.kill().await.expect("killed");
    until("the end of the child", || !is_alive(child)).await;
}

/// One of the known answers of the sample tasks.
#[derive(serde::Deserialize)]
struct KnownAnswer {
    task: String,
    args: Vec<String>,
    index: u64,
    stdin: String,
    stdout: Option<String>,
}

async fn sample_tasks_give_their_known_answers() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sample-tasks");
    let text = std::fs::read_to_string(samples.join("known-answers.json")).expect("known answers");
    let answers: Vec<KnownAnswer> = serde_json::from_str(&text).expect("valid");
    let compiler = Compiler::new(exe());
    let mut executor = executor().await;
    for answer in answers {
        let Some(expected) = answer.stdout else { continue };
        let wasm =
            std::fs::read(samples.join("wasm").join(&answer.task).with_extension("wasm")).expect("built");
        let program = compiler.compile(hash_of(&wasm), wasm.into()).await.expect("compiled");
        let job = Arc::new(JobWorld::new(program, vec![], limits(), 0, 0));
        let task = TaskInput {
            index: answer.index,
            args: [answer.task].into_iter().chain(answer.args.clone()).collect(),
            env: vec![("TALKA_TASK_INDEX".into(), answer.index.to_string())],
            stdin: answer.stdin.into(),
        };
        let (sender, mut receiver) = mpsc::channel(1);
        executor.run(&job, vec![task.clone()], sender).await;
        let (_, result) = receiver.recv().await.expect("a result");
        let execution = result.expect("a result");
        let log = String::from_utf8_lossy(&execution.output.stderr);
        assert_eq!(execution.exit, Exit::Ok, "{:?}: {log}", task.args);
        assert_eq!(String::from_utf8_lossy(&execution.output.stdout), expected, "{:?}", task.args);
    }
}
