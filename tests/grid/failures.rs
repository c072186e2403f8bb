//! Programs that fail, never end, or are not wanted any more.

use serde_json::Value;

use crate::harness::{Ended, Grid, Guest, LONG, number, sample, text, until};

/// Submits one task of a guest that fails and waits for it.
#[track_caller]
fn fails(grid: &Grid, guest: Guest, flags: &[&str]) -> (Ended, Value) {
    let ended = grid.talka(["submit", "--wait"]).args(flags).arg(guest.write(grid)).run().exits(1);
    let job = number(&grid.json(["job", "info", "last"]), "job");
    let results = grid.results(job);
    let [result] = &results[..] else { panic!("one result: {results:?}") };
    assert_eq!(text(result, "state"), "failed", "{result}");
    (ended, result.clone())
}

#[test]
fn a_program_that_fails_everywhere_fails_once_and_shows_why() {
    let (grid, _workers) = Grid::with_workers(2);
    let (ended, result) = fails(&grid, Guest::ExitsWith3, &[]);
    assert!(ended.stderr.contains("exit code 3") && ended.stderr.contains("it broke"), "{}", ended.stderr);
    assert_eq!(number(&result, "attempts"), 2, "agreed on, so not tried again: {result}");
    assert!(result["digest"].is_string(), "{result}");

    let (ended, result) = fails(&grid, Guest::Traps, &[]);
    assert!(text(&result, "reason").contains("unreachable"), "{result}");
    assert!(ended.stderr.contains("unreachable"), "{}", ended.stderr);

    // Out of fuel at the same instruction everywhere, so it is agreed on, too.
    let (_, result) = fails(&grid, Guest::LoopsForever, &["--fuel", "10M"]);
    assert!(text(&result, "reason").contains("fuel"), "{result}");
    assert_eq!((number(&result, "attempts"), result["digest"].is_string()), (2, true), "{result}");

    // Out of time says nothing about the program: tried again, and given up in the end.
    let (_, result) = fails(&grid, Guest::LoopsForever, &["--deadline", "300ms"]);
    assert!(text(&result, "reason").contains("deadline"), "{result}");
    assert!(number(&result, "attempts") > 2 && result["digest"].is_null(), "{result}");

    assert!(grid.credit().iter().all(|row| row.invalid == 0), "nobody lied: {:?}", grid.credit());
}

#[test]
fn a_cancelled_job_frees_its_workers_at_once() {
    let (grid, _workers) = Grid::with_workers(2);
    let submit = ["submit", "--array", "0-9", "--json"];
    let endless = grid.talka(submit).arg(Guest::LoopsForever.write(&grid)).run().success().json();
    let job = number(&endless, "job");
    let running = || (number(&grid.job(job), "running") > 0).then_some(());
    until("the job to run", LONG, running);

    let cancelled = grid.json(["job", "cancel", &job.to_string()]);
    assert_eq!((number(&cancelled, "cancelled"), text(&cancelled, "state")), (10, "cancelled".into()));
    grid.talka(["job", "wait", &job.to_string()]).run().exits(1);

    // Both workers are needed for this, so both are free.
    let summary = grid.json(["submit", "--wait", &sample("empty")]);
    assert_eq!(number(&summary, "done"), 1);
    let info = grid.job(job);
    assert_eq!((number(&info, "cancelled"), number(&info, "done")), (10, 0), "{info}");
}
