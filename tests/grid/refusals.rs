//! What is not accepted, and what is said about it.

use std::{
    fs::File,
    time::{Duration, Instant},
};

use talka_core::ids::PeerId;
use talka_peer::ticket::Ticket;

use crate::harness::{Grid, Guest, sample};

/// Whoever mistyped something must not wait long to be told.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn a_wrong_ticket_is_told_from_a_damaged_one_and_neither_takes_long() {
    let grid = Grid::start();
    let error = |ticket: &str| {
        let asked = Instant::now();
        let ended = grid.talka(["job", "list", "--json", "--ticket", ticket]).run().exits(1);
        assert!(asked.elapsed() < SOON, "{:?} for {ticket}", asked.elapsed());
        ended.error()
    };
    let mut damaged = grid.ticket().to_owned();
    let last = damaged.pop().expect("a letter");
    damaged.push(if last == 'a' { 'b' } else { 'a' });
    let (code, message) = error(&damaged);
    assert!(code == "usage" && message.contains("damaged"), "{code}: {message}");
    let (code, message) = error("hello");
    assert!(code == "usage" && message.contains("not a ticket"), "{code}: {message}");

    // The right address, but nobody there has that key.
    let mut other: Ticket = grid.ticket().parse().expect("a ticket");
    let stranger = PeerId::new(*stranger().as_bytes());
    other.coordinator.peer = stranger;
    let (code, message) = error(&other.to_string());
    assert!(code == "unreachable" && message.contains("talka coordinator ticket"), "{code}: {message}");
}

/// A valid key whose owner is not here: the example of RFC 8032, section 7.1, test 1.
fn stranger() -> PeerId {
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a".parse().expect("a key")
}

#[test]
fn a_coordinator_that_is_gone_is_unreachable_within_seconds() {
    let mut grid = Grid::start();
    grid.kill_coordinator();
    let asked = Instant::now();
    let ended = grid.talka(["job", "list", "--json", "--ticket", grid.ticket()]).run().exits(1);
    assert_eq!(ended.error().0, "unreachable");
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
}

#[test]
fn programs_and_inputs_that_break_rules_are_refused_with_the_reason() {
    let grid = Grid::start();
    let refused = |args: &[&str]| grid.talka(["submit", "--json"]).args(args).run().exits(1).error();

    grid.file("notes.wasm", "this is no program\n");
    let (code, message) = refused(&["notes.wasm"]);
    assert!(code == "bundle-refused" && message.contains("WebAssembly"), "{code}: {message}");

    let unknown = Guest::ImportsTheUnknown.write(&grid);
    let (code, message) = refused(&[unknown.to_str().expect("UTF-8")]);
    assert!(code == "bundle-refused" && message.contains("open_door"), "{code}: {message}");

    // A hole of 257 MiB takes no room on the disk.
    let input = File::create(grid.path("huge")).expect("a file");
    input.set_len(257 << 20).expect("a sparse file");
    let (code, message) = refused(&[&sample("wordcount"), "--each", "huge"]);
    assert!(message.contains("256 MiB") && message.contains("huge"), "{code}: {message}");

    let (code, message) = refused(&[&sample("empty"), "--memory", "5GiB"]);
    assert!(code == "usage" && message.contains("limit"), "{code}: {message}");
    let (code, message) = refused(&["missing.wasm"]);
    assert!(code == "io" && message.contains("missing.wasm"), "{code}: {message}");
    let (code, message) = grid.talka(["job", "info", "77", "--json"]).run().exits(1).error();
    assert!(code == "not-found" && message.contains("77"), "{code}: {message}");

    assert_eq!(grid.json(["job", "list"]), serde_json::json!([]), "nothing was taken on");
}

#[test]
fn wrong_flags_are_json_errors_too() {
    let grid = Grid::start();
    let (code, message) = grid.talka(["submit", "--json", "--quorum"]).run().error();
    assert!(code == "usage" && message.contains("--quorum"), "{code}: {message}");
    let plain = grid.talka(["submit", &sample("empty"), "--array", "9-1"]).run().exits(2);
    assert!(plain.stdout.is_empty() && plain.stderr.contains("--array 9-1"), "{}", plain.stderr);
}
