//! Jobs on honest workers: inputs, results as files, credit.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::harness::{Grid, Guest, Server, Talka, number, sample, text};

/// How many primes lie below 100,000 and below 2,000,000.
const PRIMES: [u64; 2] = [9592, 148_933];

fn lines_of(grid: &Grid, dir: &str) -> Vec<Value> {
    let lines = fs::read_to_string(grid.path(dir).join("results.jsonl")).expect("results.jsonl");
    let mut lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    lines.sort_by_key(|line| number(line, "index"));
    lines
}

fn output(grid: &Grid, dir: &str, index: u64) -> String {
    fs::read_to_string(grid.path(dir).join(format!("{index}.out"))).expect("a result")
}

#[test]
fn an_array_is_computed_twice_agreed_on_paid_and_the_same_as_a_local_run() {
    let (grid, workers) = Grid::with_workers(2);
    let submit = ["submit", &sample("primes"), "--array", "0-19", "-o", "out", "--", "100000"];
    let summary = grid.talka(["--json"]).args(submit).run().success().json();
    assert_eq!((number(&summary, "tasks"), number(&summary, "done")), (20, 20), "{summary}");
    assert_eq!((number(&summary, "failed"), number(&summary, "attempts")), (0, 40), "{summary}");

    let counts = (0..20).map(|index| output(&grid, "out", index).trim().parse::<u64>().expect("a number"));
    let counts: Vec<u64> = counts.collect();
    assert_eq!([counts[0], counts.iter().sum()], PRIMES);

    let lines = lines_of(&grid, "out");
    assert_eq!(lines.len(), 20);
    let peers: BTreeSet<String> = workers.iter().map(Server::peer).collect();
    for line in &lines {
        let agreed = line["peers"].as_array().expect("peers").iter();
        let agreed: BTreeSet<String> = agreed.map(|peer| peer.as_str().expect("text").to_owned()).collect();
        assert_eq!((text(line, "state").as_str(), agreed), ("done", peers.clone()), "{line}");
    }

    // Both workers are paid for every task, by its fuel.
    let fuel: u64 = lines.iter().map(|line| number(line, "fuel")).sum();
    let credit = grid.credit();
    assert_eq!(credit.len(), 2);
    for row in &credit {
        assert_eq!((row.validated, row.invalid), (20, 0), "{row:?}");
        #[expect(clippy::cast_precision_loss, reason = "compared with a tolerance")]
        let expected = fuel as f64 / 1e9;
        assert!((row.amount - expected).abs() < 1e-6, "{row:?} and {fuel} fuel");
    }

    // The same task in this very process tree gives the same bytes and the same digest.
    let local = grid.talka(["run", &sample("primes"), "--index", "7", "--json", "--", "100000"]);
    let local = local.run().success();
    assert_eq!(local.text(), output(&grid, "out", 7));
    let view: Value = serde_json::from_str(&local.stderr).expect("JSON on standard error");
    assert_eq!((&view["digest"], &view["fuel"]), (&lines[7]["digest"], &lines[7]["fuel"]));
}

#[test]
fn files_lines_and_shared_data_reach_the_program() {
    let (grid, _workers) = Grid::with_workers(2);
    let texts = ["to be or not to be\n", "", "one\ntwo\nthree"];
    let files = ["a.txt", "b.txt", "c.txt"];
    for (file, text) in files.iter().zip(texts) {
        grid.file(file, text);
    }
    grid.talka(["submit", &sample("wordcount"), "-o", "each", "--each"]).args(files).run().success();
    for ((index, line), text) in lines_of(&grid, "each").iter().enumerate().zip(texts) {
        let count: Value = serde_json::from_str(&output(&grid, "each", index as u64)).expect("JSON");
        assert_eq!(number(&count, "bytes"), text.len() as u64, "{text:?}");
        assert_eq!(number(&count, "words"), text.split_whitespace().count() as u64, "{text:?}");
        assert_eq!(line["input"], files[index]);
    }

    let all = grid.file("lines.txt", "alpha\r\n\nbeta gamma");
    let submit = ["submit", &sample("wordcount"), "-o", "lines", "--each-line"];
    grid.talka(submit).arg(all).run().success();
    let words = (0..3).map(|index| {
        let count: Value = serde_json::from_str(&output(&grid, "lines", index)).expect("JSON");
        (number(&count, "bytes"), number(&count, "words"))
    });
    assert_eq!(words.collect::<Vec<_>>(), [(5, 1), (0, 0), (10, 2)]);

    grid.file("hello", "sveiki, kaimynai\n");
    let module = Guest::PrintsTheGreeting.write(&grid);
    let submit = grid.talka(["submit", "--data", "greeting=hello", "--array", "0-1", "-o", "data"]);
    submit.arg(module).run().success();
    assert_eq!([output(&grid, "data", 0), output(&grid, "data", 1)], ["sveiki, kaimynai\n"; 2]);
}

#[test]
fn submissions_of_one_user_do_not_disturb_each_other() {
    let (grid, _workers) = Grid::with_workers(1);
    // Too large for a lease, so that each submission offers blobs of its own at the same time.
    let submit = |number: usize| {
        let input = grid.file(&format!("input-{number}"), "word ".repeat(200_000 + number));
        grid.talka(["submit", "--json", "--wait", "--quorum", "1", &sample("wordcount"), "--each"]).arg(input)
    };
    let submissions: Vec<_> = (0..4).map(|number| submit(number).spawn()).collect();
    for submission in submissions {
        let ended = submission.wait().success();
        assert_eq!(number(&ended.json(), "done"), 1);
        assert_eq!(ended.stderr, "", "nothing had to be tried again");
    }
}

#[test]
fn large_outputs_are_fetched_from_those_who_agreed() {
    let (grid, _workers) = Grid::with_workers(2);
    // Four tiles of 256 × 256 pixels: 196,608 bytes each, more than a report may carry.
    let submit = ["submit", &sample("mandelbrot"), "--array", "0-3", "-o", "tiles", "--", "512", "2"];
    grid.talka(submit).run().success();
    let local = grid.talka(["run", &sample("mandelbrot"), "--index", "2", "--", "512", "2"]).run().success();
    let tile = fs::read(grid.path("tiles/2.out")).expect("a tile");
    assert_eq!(tile.len(), 256 * 256 * 3);
    assert!(tile == local.stdout, "the grid's tile differs from the local one");
    assert_eq!(lines_of(&grid, "tiles").len(), 4);
}

#[test]
fn a_coordinator_is_found_by_ticket_by_directory_and_by_itself() {
    let (grid, _workers) = Grid::with_workers(1);
    let status = |talka: Talka| {
        number(
            &talka.args(["coordinator", "status", "--json"]).run().success().json()["workers"],
            "connected",
        )
    };
    let nowhere = grid.path("nowhere");
    let none: [&str; 0] = [];
    assert_eq!(status(grid.talka(none)), 1);
    let elsewhere = || grid.talka(none).env("XDG_RUNTIME_DIR", &nowhere);
    assert_eq!(status(elsewhere().env("TALKA_TICKET", grid.ticket())), 1);
    assert_eq!(status(elsewhere().env("TALKA_DATA_DIR", grid.data_dir())), 1);
    let (code, message) = elsewhere().args(["job", "list", "--json"]).run().error();
    assert_eq!(code, "no-coordinator");
    assert!(message.contains("talka coordinator start"), "{message}");
    // A volunteer's ticket admits to donate, not to submit.
    let volunteer = grid.json(["coordinator", "ticket", "--worker"]);
    let submit = ["submit", &sample("empty"), "--json"];
    let refused = elsewhere().env("TALKA_TICKET", text(&volunteer, "ticket")).args(submit).run();
    assert_eq!(refused.error().0, "denied");
}
