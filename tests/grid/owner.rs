//! The owner of a worker pauses it, throttles it, and lets it finish.

use std::{fs, path::PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{Ended, Grid, Guest, LONG, Talka, number, sample, text, until};

/// A command to the first worker.
fn worker(grid: &Grid, args: &[&str]) -> Talka {
    let data_dir = grid.path("worker-1");
    grid.talka(["--json", "worker"]).args(args).arg("--data-dir").arg(data_dir)
}

fn ask(grid: &Grid, args: &[&str]) -> Value {
    worker(grid, args).run().success().json()
}

fn slot(status: &Value) -> &Value {
    &status["slots"][0]
}

/// The letter that the kernel has for a process' state; `None` when it is gone.
fn process_state(pid: u64) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// Submits tasks that take some time.
fn submit_long(grid: &Grid, tasks: u64) -> u64 {
    let module: PathBuf = Guest::TakesASecond.write(grid);
    let array = format!("0-{}", tasks - 1);
    let args = ["submit", "--quorum", "1", "--array", &array, module.to_str().expect("UTF-8")];
    number(&grid.json(args), "job")
}

fn until_slot_is(grid: &Grid, state: &str) -> Value {
    let look = || Some(ask(grid, &["status"])).filter(|status| slot(status)["state"] == state);
    until(&format!("a slot to be {state}"), LONG, look)
}

#[test]
fn a_pause_stops_what_runs_gives_back_what_waits_and_loses_nothing() {
    let (mut grid, _first) = Grid::with_workers(1);
    // Long enough not to end between a look at it and the pause.
    let long = ["submit", "--quorum", "1", &sample("primes"), "--", "500000000"];
    let long = number(&grid.json(long), "job");
    until_slot_is(&grid, "running");
    let short = number(&grid.json(["submit", "--quorum", "1", "--array", "0-9", &sample("empty")]), "job");

    let paused = ask(&grid, &["pause"]);
    assert_eq!((text(&paused, "state"), text(slot(&paused), "state")), ("paused".into(), "paused".into()));
    assert!(paused["pause"]["until_millis"].is_null(), "{paused}");
    assert_eq!((number(&paused, "queued"), number(&paused, "fetching")), (0, 0), "{paused}");
    let pid = number(slot(&paused), "pid");
    until("the process to stop", LONG, || (process_state(pid) == Some('T')).then_some(()));

    // The others need not wait for this owner.
    let _second = grid.start_worker();
    grid.talka(["job", "wait", &short.to_string()]).run().success();
    let still = ask(&grid, &["status"]);
    assert_eq!((number(&still, "attempts_done"), process_state(pid)), (0, Some('T')), "{still}");
    assert_eq!(
        (&slot(&still)["task"], &slot(&still)["pid"]),
        (&slot(&paused)["task"], &pid.into()),
        "in memory"
    );
    assert_eq!(number(&grid.job(long), "done"), 0);

    let resumed = ask(&grid, &["resume"]);
    assert!(resumed["pause"].is_null(), "{resumed}");
    grid.talka(["job", "wait", &long.to_string()]).run().success();
    for (job, tasks) in [(long, 1), (short, 10)] {
        assert_eq!(number(&grid.job(job), "attempts"), tasks, "nothing was done twice: {}", grid.job(job));
    }

    // It takes work again.
    let job = submit_long(&grid, 30);
    until_slot_is(&grid, "running");
    grid.talka(["job", "wait", &job.to_string()]).run().success();
}

#[test]
fn a_pause_outlives_its_worker_and_may_end_by_itself() {
    let (grid, mut workers) = Grid::with_workers(1);
    ask(&grid, &["pause"]);
    workers[0].kill();
    assert_eq!(worker(&grid, &["status"]).run().error().0, "no-worker");

    let _again = grid.restart_worker(1);
    let status = ask(&grid, &["status"]);
    assert_eq!((text(&status, "state"), number(slot(&status), "slot")), ("paused".into(), 0));
    let submit = ["submit", "--quorum", "1", &sample("empty")];
    let job = number(&grid.json(submit), "job");
    let offered = || grid.json(["peer", "list"])[0]["slots"].as_u64();
    until("the coordinator to know that there is nobody", LONG, || (offered() == Some(0)).then_some(()));
    assert_eq!(number(&grid.job(job), "done"), 0);

    let short = ask(&grid, &["pause", "--for", "1s"]);
    let (since, until) = (number(&short["pause"], "since_millis"), number(&short["pause"], "until_millis"));
    assert!(until > since, "{short}");
    grid.talka(["job", "wait", &job.to_string()]).run().success();
    assert!(ask(&grid, &["status"])["pause"].is_null());
}

#[test]
fn a_share_holds_from_the_moment_it_is_set() {
    let (grid, _workers) = Grid::with_workers(1);
    let job = submit_long(&grid, 5);
    let status = ask(&grid, &["set", "--cpu-percent", "5"]);
    assert_eq!(number(&status, "cpu_percent"), 5);
    let throttled = until_slot_is(&grid, "throttled");
    let pid = number(slot(&throttled), "pid");
    until("the process to be stopped", LONG, || (process_state(pid) == Some('T')).then_some(()));
    until("the process to go on", LONG, || process_state(pid).filter(|state| *state != 'T'));
    ask(&grid, &["set", "--cpu-percent", "100%"]);
    grid.talka(["job", "wait", &job.to_string()]).run().success();
}

#[test]
fn a_worker_that_finishes_ends_by_itself_and_leaves_the_rest_to_others() {
    let (mut grid, mut workers) = Grid::with_workers(1);
    let job = submit_long(&grid, 30);
    until_slot_is(&grid, "running");
    let status = ask(&grid, &["finish"]);
    assert_eq!((text(&status, "state"), status["finishing"].as_bool()), ("finishing".into(), Some(true)));
    assert!(workers[0].ends().success());
    let done = number(&grid.job(job), "done");
    assert!((1..30).contains(&done), "what ran is done, and no more: {done}");
    assert!(!grid.path("worker-1/control.sock").exists());

    let _next = grid.start_worker();
    grid.talka(["job", "wait", &job.to_string()]).run().success();
    assert_eq!(number(&grid.job(job), "attempts"), 30, "nothing was done twice: {}", grid.job(job));
}

#[test]
fn an_owner_who_errs_is_told_how() {
    let (grid, _workers) = Grid::with_workers(1);
    let check = |ended: Ended, code: &str, part: &str| {
        let (found, message) = ended.error();
        assert_eq!(found, code, "{message}");
        assert!(message.contains(part), "{part} is not in {message}");
    };
    let elsewhere = ["--json", "worker", "status", "--data-dir", "elsewhere"];
    check(grid.talka(elsewhere).run(), "no-worker", "talka worker start");
    check(worker(&grid, &["pause", "--for", "0s"]).run(), "usage", "--for");
    check(worker(&grid, &["pause", "--for", "40d"]).run(), "usage", "31d");
    check(worker(&grid, &["set", "--cpu-percent", "0"]).run(), "usage", "--cpu-percent");
    check(worker(&grid, &["set"]).run(), "usage", "--cpu-percent");
    let second = worker(&grid, &["start", "--ticket", grid.ticket()]);
    check(second.run(), "already-runs", "worker-1");
    assert_eq!(text(&ask(&grid, &["status"]), "state"), "idle", "the first one is not disturbed");
}

#[test]
fn a_program_that_kills_its_process_again_and_again_fails_and_no_worker_dies() {
    let (grid, workers) = Grid::with_workers(1);
    let module = Guest::LoopsForever.write(&grid);
    let args = ["submit", "--quorum", "1", module.to_str().expect("UTF-8")];
    let job = number(&grid.json(args), "job");
    let fine = number(&grid.json(["submit", "--quorum", "1", "--array", "0-9", &sample("empty")]), "job");

    let mut killed = 0;
    until("the task to be given up", LONG, || {
        let status = ask(&grid, &["status"]);
        let running = slot(&status)["task"]["task"] == format!("{job}/0");
        if let (true, Some(pid)) = (running, slot(&status)["pid"].as_i64()) {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process");
            // It may have been replaced in this moment.
            killed += u32::from(kill_process(pid, Signal::KILL).is_ok());
        }
        (number(&grid.job(job), "failed") == 1).then_some(())
    });
    let results = grid.results(job);
    assert!(text(&results[0], "reason").contains("process that ran the program died"), "{results:?}");
    assert_eq!(number(&results[0], "attempts"), 4, "{results:?}");
    assert!(killed >= 4, "{killed}");

    grid.talka(["job", "wait", &fine.to_string()]).run().success();
    let status = ask(&grid, &["status"]);
    assert_eq!((text(&status, "peer"), number(&status, "no_results")), (workers[0].peer(), 4), "{status}");
}
