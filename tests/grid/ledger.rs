//! Credit that anybody can recompute, tasks that anybody can execute again, and whom workers trust.

use serde_json::{Value, json};

use crate::harness::{Grid, LONG, number, sample, text, until};

/// Peer and exact credit of each row.
fn totals(rows: &Value, field: &str) -> Vec<(String, String)> {
    let rows = rows.as_array().expect("a list");
    let mut totals: Vec<_> = rows.iter().map(|row| (text(row, "peer"), row[field].to_string())).collect();
    totals.sort();
    totals
}

#[test]
fn credit_is_recomputed_from_an_exported_ledger_and_a_task_is_executed_again() {
    // Both workers are one owner's.
    let mut grid = Grid::start_with(&["--apart", "peers"]);
    let _workers = [
        grid.start_worker_with(&["--owner", "Ada", "--team", "Žemė"]),
        grid.start_worker_with(&["--owner", "Ada"]),
    ];
    for (name, content) in [("a", "one two\n"), ("b", "two three\n"), ("c", "three\n")] {
        grid.file(name, content);
    }
    let module = sample("wordcount");
    let submit = ["submit", "--each", "a", "b", "c", "--wait", "-o", "counts", &module];
    let job =
        number(&grid.talka(submit).arg("--json").run().success().json_lines().pop().expect("a line"), "job");

    // The ledger says what the coordinator says.
    grid.json(["credit", "export", "old.tlk"]);
    let old = grid.json(["credit", "verify", "old.tlk"]);
    assert_eq!((old["ok"].as_bool(), &old["first_bad"]), (Some(true), &Value::Null), "{old}");
    assert_eq!(number(&old, "tasks"), 3, "{old}");
    let listed = grid.json(["credit", "list"]);
    assert_eq!(totals(&old["peers"], "credit"), totals(&listed, "credit"));
    assert_eq!(totals(&old["peers"], "validated"), totals(&listed, "validated"));
    assert!(listed.as_array().is_some_and(|rows| rows.len() == 2 && rows[0]["average"].as_f64() > Some(0.0)));

    // Boards, days and the export for statistics sites say the same.
    let owners = grid.json(["credit", "list", "--by", "owner"]);
    assert_eq!((text(&owners[0], "owner"), number(&owners[0], "peers")), ("Ada".into(), 2), "{owners}");
    let teams = grid.json(["credit", "list", "--by", "team"]);
    assert_eq!(teams.as_array().map(Vec::len), Some(2), "{teams}");
    let days = grid.json(["credit", "days"]);
    let sum: f64 = days.as_array().expect("days").iter().filter_map(|row| row["credit"].as_f64()).sum();
    assert!((sum - owners[0]["credit"].as_f64().expect("credit")).abs() < 1e-9, "{days} {owners}");
    grid.json(["credit", "export-xml", "stats"]);
    let users = std::fs::read_to_string(grid.path("stats/user.xml")).expect("written");
    assert!(users.contains("<name>Ada</name>"), "{users}");

    // Over a restart the log goes on where it was.
    grid.restart_coordinator();
    grid.talka(["submit", "--array", "0-4", "--wait", &sample("empty")]).run().success();
    grid.json(["credit", "export", "new.tlk"]);
    let new =
        grid.json(["credit", "verify", "new.tlk", "--since", "old.tlk", "--key", &text(&old, "coordinator")]);
    assert_eq!((new["ok"].as_bool(), number(&new, "tasks")), (Some(true), 8), "{new}");
    assert_eq!(grid.json(["coordinator", "check", "--data-dir", "coordinator"])["ok"].as_bool(), Some(true));

    // One changed byte is found, and its entry named.
    let mut bytes = std::fs::read(grid.path("new.tlk")).expect("exported");
    let last = bytes.len() - 60;
    bytes[last] ^= 1;
    grid.file("bad.tlk", &bytes);
    let bad = grid.talka(["credit", "verify", "bad.tlk", "--json"]).run().exits(1).json();
    assert_eq!(bad["ok"].as_bool(), Some(false), "{bad}");
    assert!(bad["first_bad"].as_u64().is_some_and(|place| place + 2 >= number(&new, "entries")), "{bad}");

    // A receipt holds by itself, and the task gives the same again.
    let task = format!("{job}/1");
    grid.json(["receipt", "get", &task, "-o", "task.receipt"]);
    let receipt = grid.json(["receipt", "verify", "task.receipt", "--rerun"]);
    assert_eq!(receipt["ok"].as_bool(), Some(true), "{receipt}");
    assert_eq!(receipt["rerun"]["digest"], receipt["digest"], "{receipt}");
    assert_eq!(receipt["rerun"]["fuel"], receipt["fuel"], "{receipt}");
    assert_eq!((receipt["workers"].as_array().map(Vec::len), &receipt["unsigned"]), (Some(2), &json!([])));
    let shown = grid.talka(["receipt", "show", "task.receipt"]).run().success().text();
    assert!(shown.contains(&text(&receipt, "digest")), "{shown}");
    grid.kill_coordinator();
    let offline = grid.json(["receipt", "verify", "task.receipt"]);
    assert_eq!(offline["ok"].as_bool(), Some(true), "{offline}");
    let mut bytes = std::fs::read(grid.path("task.receipt")).expect("saved");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    grid.file("bad.receipt", &bytes);
    grid.talka(["receipt", "verify", "bad.receipt"]).run().exits(1);
}

#[test]
fn a_task_is_executed_again_with_what_a_worker_has_when_the_coordinator_has_it_no_more() {
    let mut grid = Grid::start();
    let worker = grid.start_worker();
    // Too long to travel in a lease.
    for (name, word) in [("a", "two "), ("b", "three ")] {
        grid.file(name, word.repeat(10_000));
    }
    grid.talka(["submit", "--quorum", "1", "--each", "a", "b", "--wait", &sample("wordcount")])
        .run()
        .success();
    let before = grid.json(["receipt", "get", "last/1", "-o", "task.receipt"]);
    assert_eq!(text(&before, "task"), "1/1");
    let rerun = ["receipt", "verify", "task.receipt", "--rerun", "--json"];
    assert_eq!(grid.talka(rerun).run().success().json()["rerun"]["ok"].as_bool(), Some(true));

    grid.kill_coordinator();
    std::fs::remove_dir_all(grid.data_dir().join("blobs")).expect("there");
    grid.start_coordinator_again();
    let is_there = || grid.json(["peer", "list"])[0]["connected"].as_bool().filter(|connected| *connected);
    until("the worker to be back", LONG, is_there);
    let again = grid.talka(rerun).run().success().json();
    assert_eq!(again["rerun"]["digest"], again["digest"], "{again}");

    drop(worker);
    let (code, message) = grid.talka(rerun).run().exits(1).error();
    assert_eq!(code, "not-found", "{message}");
    assert!(message.starts_with("the program can't be had: bytes 0 to "), "{message}");
}

#[test]
fn a_worker_runs_only_what_submitters_signed_whom_its_owner_trusts() {
    let mut grid = Grid::start();
    let nobody = "ab".repeat(32);
    let wary = grid.start_worker_with(&["--trust", &nobody]);
    let submit = ["submit", "--quorum", "1", "--array", "0-3", &sample("empty")];
    let job = number(&grid.json(submit), "job").to_string();
    let explained = until("the worker to refuse the job", LONG, || {
        let explained = grid.json(["job", "explain", &job]);
        (explained["passed_over"][0]["reason"] == "distrusts").then_some(explained)
    });
    assert_eq!(explained["passed_over"][0]["peers"], json!([wary.peer()]), "{explained}");
    assert_eq!(number(&grid.job(job.parse().expect("a number")), "attempts"), 0);

    // The submitter's key was stolen: nothing of it is run, although the coordinator lets it submit.
    let submitter = text(&grid.job(job.parse().expect("a number")), "submitter");
    let _warned = grid.start_worker_with(&["--distrust", &submitter]);
    until("the second worker to refuse the job", LONG, || {
        let explained = grid.json(["job", "explain", &job]);
        let refused = &explained["passed_over"][0];
        (refused["reason"] == "distrusts" && refused["workers"] == 2).then_some(())
    });
    let trusting = grid.start_worker_with(&["--trust", &submitter]);
    grid.talka(["job", "wait", &job]).run().success();
    for result in grid.results(job.parse().expect("a number")) {
        assert_eq!(result["peers"], json!([trusting.peer()]), "{result}");
    }
}
