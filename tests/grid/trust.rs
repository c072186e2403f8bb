//! Workers that lie, in a grid that weighs answers by what is known of those who gave them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::{Grid, LONG, number, sample, text, until};

/// Tasks of one job here: short, and enough for a worker to be believed and caught.
const TASKS: u64 = 120;

/// One word suffices after two checks.
const POLICY: [&str; 4] = ["--error-rate", "0.01", "--liars", "0.02"];
/// Nobody is believed alone before it has passed as many checks as no liar of these tests ever does: one of four workers is
/// far above any share for which a policy promises anything, and what is left to chance may go wrong.
const STRICT: [&str; 4] = ["--error-rate", "0.001", "--liars", "0.02"];

/// Runs the job of these tests to its end and returns what `job info` says of it.
#[track_caller]
fn run(grid: &Grid, policy: &[&str]) -> Value {
    let array = format!("0-{}", TASKS - 1);
    let module = sample("primes");
    let fixed = ["submit", &module, "--wait", "--array", &array];
    let args: Vec<&str> = fixed.iter().chain(policy).chain(&["--", "1000"]).copied().collect();
    let job = number(&grid.json(args), "job");
    grid.job(job)
}

/// Digest and fuel of each result.
fn results(grid: &Grid, info: &Value) -> BTreeMap<u64, (String, u64)> {
    let line = |line: &Value| (number(line, "index"), (text(line, "digest"), number(line, "fuel")));
    grid.results(number(info, "job")).iter().map(line).collect()
}

/// Fuel that a peer agreed on, over all results of these jobs.
fn earned(grid: &Grid, jobs: &[u64], peer: &str) -> u64 {
    let lines = jobs.iter().flat_map(|job| grid.results(*job));
    let agreed =
        |line: &Value| line["peers"].as_array().is_some_and(|peers| peers.iter().any(|other| other == peer));
    lines.filter(agreed).map(|line| number(&line, "fuel")).sum()
}

#[test]
fn whoever_lies_is_caught_whatever_its_habit_and_nothing_of_it_is_left() {
    let (mut grid, _honest) = Grid::with_workers(3);
    let truth = run(&grid, &["--quorum", "2"]);
    let right = results(&grid, &truth);
    assert_eq!(right.len() as u64, TASKS);
    let mut jobs = vec![number(&truth, "job")];
    for habit in ["always", "turns:15:15", "sometimes:20", "odd", "inflate", "stale"] {
        let liar = grid.start_liar_who(habit);
        let info = run(&grid, &STRICT);
        assert_eq!(results(&grid, &info), right, "{habit}");
        assert_eq!((number(&info, "final"), number(&info, "provisional")), (TASKS, 0), "{habit}: {info}");
        jobs.push(number(&info, "job"));
        // What everybody has is what the results say, the liar included: nothing that was taken back.
        for row in grid.credit() {
            let fuel = earned(&grid, &jobs, &row.peer);
            #[expect(clippy::cast_precision_loss, reason = "compared with a rounded number")]
            let expected = fuel as f64 / 1e9;
            assert!((row.amount - expected).abs() < 1e-6, "{habit}: {row:?} for {expected}");
            if row.peer == liar.peer() && habit == "always" {
                assert!(row.amount == 0.0 && row.invalid > 0, "{habit}: {row:?}");
            }
        }
    }
}

#[test]
fn a_ring_that_shares_its_answers_gets_nothing_through_and_earns_less_than_honesty() {
    let (mut grid, honest) = Grid::with_workers(4);
    // Of whom something is known: five rounds of checks each at least.
    let mut jobs = vec![];
    let truth = loop {
        let truth = run(&grid, &["--quorum", "2"]);
        jobs.push(number(&truth, "job"));
        let known = |worker: &crate::harness::Server| {
            let info = grid.json(["peer", "info", &worker.peer()]);
            info["reputation"]["established"].as_bool() == Some(true)
        };
        if honest.iter().all(known) {
            break truth;
        }
    };
    let right = results(&grid, &truth);
    let earned_before: BTreeMap<String, f64> =
        grid.credit().into_iter().map(|row| (row.peer, row.amount)).collect();
    let ring = grid.path("ring");
    std::fs::create_dir(&ring).expect("a writable home");
    let habit = format!("ring:{}", ring.display());
    let liars = [grid.start_liar_who(&habit), grid.start_liar_who(&habit)];
    for policy in [&POLICY[..], &["--quorum", "2"]] {
        let info = run(&grid, policy);
        assert_eq!(results(&grid, &info), right, "{policy:?}");
        jobs.push(number(&info, "job"));
    }
    let told = std::fs::read_dir(&ring).expect("a directory").count();
    assert!(told > 0, "they never had anything to tell one another");
    let rows = grid.credit();
    let gained = |peer: &str| {
        let now = rows.iter().find(|row| row.peer == peer).map_or(0.0, |row| row.amount);
        now - earned_before.get(peer).copied().unwrap_or(0.0)
    };
    for liar in &liars {
        assert!(gained(&liar.peer()).abs() < 1e-12, "{rows:?}");
        assert!(honest.iter().all(|worker| gained(&worker.peer()) > 0.0), "{rows:?}");
    }
}

#[test]
fn whoever_vanishes_or_flaps_holds_nobody_up_and_earns_what_it_did() {
    let mut grid = Grid::start_with(&["--reconnect-grace", "500ms"]);
    let honest: Vec<_> = (0..2).map(|_| grid.start_worker()).collect();
    let right = results(&grid, &run(&grid, &["--quorum", "2"]));
    for habit in ["vanishes:5", "flaps:7"] {
        let liar = grid.start_liar_who(habit);
        let info = run(&grid, &["--quorum", "2"]);
        assert_eq!(results(&grid, &info), right, "{habit}");
        let rows = grid.credit();
        let of = |peer: &str| rows.iter().find(|row| row.peer == peer);
        let validated = of(&liar.peer()).map_or(0, |row| row.validated);
        let least = honest.iter().filter_map(|worker| of(&worker.peer())).map(|row| row.validated).min();
        assert!(least > Some(validated), "{habit}: {rows:?}");
        assert!(of(&liar.peer()).is_none_or(|row| row.invalid == 0), "{habit}: it told no lie: {rows:?}");
        if habit == "vanishes:5" {
            assert!(validated <= 5, "{rows:?}");
        }
    }
}

#[test]
fn whoever_returns_late_finds_its_tasks_done_by_others_and_changes_nothing() {
    let mut grid = Grid::start_with(&["--reconnect-grace", "500ms"]);
    let _honest: Vec<_> = (0..2).map(|_| grid.start_worker()).collect();
    let truth = run(&grid, &["--quorum", "2"]);
    let (right, mut jobs) = (results(&grid, &truth), vec![number(&truth, "job")]);
    for lost in [false, true] {
        let file = grid.path(&format!("back-{lost}"));
        let late = grid.start_liar_who(&format!("late:5:{}", file.display()));
        let own = |program: &[&str]| {
            let fixed =
                ["submit", "--quorum", "1", "--array", "0-4", "--wait", "--json", "--on", &late.peer()];
            let lines = grid.talka(fixed.iter().chain(program)).run().success().json_lines();
            number(lines.last().expect("a summary"), "job")
        };
        // So that it has the program when the others have it, and five results.
        jobs.push(own(&[&sample("primes"), "--", "1000"]));
        let info = run(&grid, &["--quorum", "2"]);
        let job = number(&info, "job");
        let before = grid.results(job);
        // All of its leases are over when its session is.
        let is_gone = || (!grid.json(["peer", "info", &late.peer()])["connected"].as_bool()?).then_some(());
        if lost {
            until("its session to be lost", LONG, is_gone);
        }
        std::fs::write(&file, "").expect("a writable home");
        // What it does next comes after what it was late with.
        jobs.extend([job, own(&[&sample("empty")])]);
        assert_eq!(grid.results(job), before, "what was final stays as it was");
        assert_eq!(results(&grid, &info), right);
        for row in grid.credit() {
            let fuel = earned(&grid, &jobs, &row.peer);
            #[expect(clippy::cast_precision_loss, reason = "compared with a rounded number")]
            let expected = fuel as f64 / 1e9;
            assert!((row.amount - expected).abs() < 1e-6, "{row:?} for {expected}");
            assert_eq!(row.invalid, 0, "to be late is no lie: {row:?}");
        }
    }
}

#[test]
fn what_rests_on_a_liar_is_taken_back_and_job_info_tells() {
    let (mut grid, _honest) = Grid::with_workers(3);
    let right = results(&grid, &run(&grid, &["--quorum", "2"]));
    let lies = grid.path("lies");
    let _liar = grid.start_liar_who(&format!("while:{}", lies.display()));
    let checked = |grid: &Grid| {
        let info = run(grid, &POLICY);
        assert_eq!(results(grid, &info), right);
        assert_eq!((number(&info, "final"), number(&info, "provisional")), (TASKS, 0), "{info}");
        number(&info, "revoked")
    };
    // Whether it is believed when it begins to lie is a matter of chance: until it was. It lies through whole jobs, so that
    // whichever of its results is looked at shows it.
    let revoked = (0..30).any(|_| {
        assert_eq!(checked(&grid), 0);
        std::fs::write(&lies, "").expect("a writable home");
        let revoked = checked(&grid);
        std::fs::remove_file(&lies).expect("it is there");
        revoked > 0
    });
    assert!(revoked, "in thirty jobs none of its lies was ever believed for a moment");
    let shown = grid.talka(["job", "info", "last"]).run().success().text();
    assert!(shown.contains("taken back and done again"), "{shown}");
}

#[test]
fn a_job_says_what_is_provisional_and_final_and_can_be_asked_for_final_results_alone() {
    let (grid, _honest) = Grid::with_workers(3);
    let info = run(&grid, &POLICY);
    let job = number(&info, "job").to_string();
    let rate = &info["spec"]["error_rate"];
    assert_eq!((rate.as_f64(), info["spec"]["liars"].as_f64()), (Some(0.01), Some(0.02)), "{info}");
    let lines = grid.talka(["job", "results", "--final", "--quiet", &job]).run().success().text();
    assert_eq!(lines.lines().count() as u64, TASKS);
    assert!(lines.lines().all(|line| line.ends_with(" done")), "{lines}");
}
