//! `talka run`: every known answer, and how programs end.

use std::{fs::DirEntry, os::unix::fs::MetadataExt as _, path::Path};

use serde::Deserialize;

use crate::harness::{Grid, Guest, Talka, number, sample, sha256};

/// A case of `sample-tasks/known-answers.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    task: String,
    args: Vec<String>,
    index: u64,
    stdin: String,
    stdout: Option<String>,
    stdout_sha256: Option<String>,
}

#[test]
fn every_sample_task_gives_its_known_answers() {
    let path = format!("{}/sample-tasks/known-answers.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the known answers");
    let cases: Vec<Case> = serde_json::from_str(&text).expect("a list of cases");
    assert!(cases.len() >= 26, "{} cases", cases.len());
    let home = tempfile::tempdir().expect("a directory");
    for case in &cases {
        let Case { task, args, index, stdin, .. } = case;
        let run = ["run", &sample(task), "--quiet", "--index", &index.to_string(), "--"];
        let talka = Talka::new(home.path(), run).args(args);
        let ended = talka.stdin(stdin.as_bytes()).run().success();
        if let Some(expected) = &case.stdout {
            assert_eq!(&ended.text(), expected, "{task} {args:?} {index}");
        }
        if let Some(expected) = &case.stdout_sha256 {
            assert_eq!(&sha256(&ended.stdout), expected, "{task} {args:?} {index}");
        }
        assert!(case.stdout.is_some() != case.stdout_sha256.is_some(), "{task} {args:?} {index}");
    }
}

#[test]
fn a_local_run_tells_how_the_program_ended() {
    let grid = Grid::start();
    let run = |guest: Guest, flags: &[&str], code: i32| {
        let ended = grid.talka(["run", "--json"]).args(flags).arg(guest.write(&grid)).run().exits(code);
        let line = ended.stderr.lines().last().expect("a line").to_owned();
        serde_json::from_str::<serde_json::Value>(&line).expect("JSON on the last line")
    };
    assert_eq!(number(&run(Guest::ExitsWith3, &[], 3), "exit_code"), 3);
    assert_eq!(run(Guest::Traps, &[], 70)["status"], "trap");
    assert_eq!(run(Guest::LoopsForever, &["--fuel", "1M"], 71)["status"], "limit");
    assert_eq!(run(Guest::LoopsForever, &["--deadline", "200ms"], 75)["status"], "no-result");
}

#[test]
fn a_program_is_compiled_at_its_first_run_only() {
    let home = tempfile::tempdir().expect("a directory");
    let run = |cache: &Path| {
        let talka = Talka::new(home.path(), ["run", "--log", "warn", &sample("empty")]);
        let ended = talka.env("XDG_CACHE_HOME", cache).run().success();
        assert_eq!(ended.stderr.contains("WARN"), !cache.is_dir(), "{}", ended.stderr);
        assert!(ended.stderr.contains("digest"), "{}", ended.stderr);
    };
    let compiled = || {
        let files = std::fs::read_dir(home.path().join("cache/talka/compiled")).expect("a directory");
        let of = |file: DirEntry| (file.file_name(), file.metadata().expect("a file").ino());
        files.map(|file| of(file.expect("a file"))).collect::<Vec<_>>()
    };
    let cache = home.path().join("cache");
    std::fs::create_dir(&cache).expect("made");
    run(&cache);
    let first = compiled();
    assert_eq!(first.len(), 1);
    run(&cache);
    assert_eq!(compiled(), first, "a file that is written again is another file");
    std::fs::write(home.path().join("no directory"), "").expect("written");
    run(&home.path().join("no directory"));
}
