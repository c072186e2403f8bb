//! Jobs that are paused, moved, or meant for some peers only.

use serde_json::Value;

use crate::harness::{Grid, Guest, LONG, number, sample, text, until};

/// The first reason for which workers get nothing of a job.
fn passed_over(explained: &Value) -> &Value {
    &explained["passed_over"][0]
}

#[test]
fn a_paused_job_hands_out_nothing_until_it_is_resumed_also_over_a_restart() {
    let mut grid = Grid::start();
    let submit = ["submit", "--quorum", "1", "--array", "0-4", &sample("empty")];
    let paused = number(&grid.json(submit), "job");
    let other = number(&grid.json(submit), "job");
    let (job, selector) = (paused.to_string(), format!("{paused},{other}"));

    let changed = grid.json(["job", "pause", &job]);
    assert_eq!((changed["paused"].as_bool(), text(&changed, "state")), (Some(true), "running".into()));
    let moved = grid.json(["job", "priority", &selector, "-5"]);
    assert_eq!((moved[0]["priority"].as_i64(), moved[1]["priority"].as_i64()), (Some(-5), Some(-5)));
    grid.restart_coordinator();

    let _worker = grid.start_worker();
    grid.talka(["job", "wait", &other.to_string()]).run().success();
    let info = grid.job(paused);
    assert_eq!((number(&info, "attempts"), number(&info, "running")), (0, 0), "{info}");
    assert_eq!((info["paused"].as_bool(), info["priority"].as_i64()), (Some(true), Some(-5)), "{info}");
    let table = grid.talka(["job", "list"]).run().success().text();
    assert!(table.contains("paused") && table.contains("finished"), "{table}");
    let explained = grid.json(["job", "explain", &job]);
    assert!(text(&explained, "waits_for").contains("resumed"), "{explained}");

    let resumed = grid.json(["job", "resume", &job]);
    assert_eq!(resumed["paused"].as_bool(), Some(false), "{resumed}");
    grid.talka(["job", "wait", &job]).run().success();
    assert_eq!(number(&grid.job(paused), "done"), 5);
    assert!(grid.json(["job", "explain", &job])["waits_for"].is_null());

    let late = grid.talka(["job", "pause", &job]).run().success().text();
    assert_eq!(late, format!("job {job} was finished already: nothing to change\n"));
}

#[test]
fn a_job_goes_only_to_the_peers_that_it_is_meant_for() {
    let (grid, workers) = Grid::with_workers(2);
    let meant = workers[1].peer();
    let submit = ["submit", "--quorum", "1", "--array", "0-19", "--on", &meant, "--wait", &sample("empty")];
    let job = number(&grid.json(submit), "job");
    for result in grid.results(job) {
        assert_eq!(result["peers"], serde_json::json!([meant]), "{result}");
    }
    assert_eq!(grid.job(job)["spec"]["on"], serde_json::json!([meant]));

    // While it runs, the other worker is idle, and it is said why.
    let module = Guest::LoopsForever.write(&grid);
    let endless =
        ["submit", "--quorum", "1", "--array", "0-9", "--on", &meant, module.to_str().expect("UTF-8")];
    let job = number(&grid.json(endless), "job").to_string();
    let explained = until("the other worker to be passed over", LONG, || {
        let explained = grid.json(["job", "explain", &job]);
        (passed_over(&explained)["reason"] == "not-targeted").then_some(explained)
    });
    assert_eq!(passed_over(&explained)["peers"], serde_json::json!([workers[0].peer()]), "{explained}");
    grid.talka(["job", "cancel", &job]).run().success();
}

#[test]
fn a_job_for_peers_that_are_too_few_or_never_were_here_is_refused() {
    let (grid, workers) = Grid::with_workers(1);
    let refused = |flags: &[&str]| {
        grid.talka(["submit", "--json"]).args(flags).arg(sample("empty")).run().exits(1).error()
    };
    let (code, message) = refused(&["--on", &workers[0].peer()]);
    assert!(
        code == "usage" && message.contains("quorum 2 can't be reached by the 1 peer(s)"),
        "{code}: {message}"
    );
    let (code, message) = refused(&["--on", "bob", "--priority", "500"]);
    assert!(code == "usage" && message.contains("--on bob") && message.contains("priority 500"), "{message}");
    let stranger = "ab".repeat(32);
    let (code, message) = refused(&["--quorum", "1", "--on", &stranger]);
    assert!(code == "not-found" && message.contains(&stranger), "{code}: {message}");
    assert!(message.contains("talka peer list"), "{message}");
    assert_eq!(grid.json(["job", "list"]), serde_json::json!([]), "nothing was taken on");
}
