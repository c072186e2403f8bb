//! A process that is killed in the middle of its commits loses nothing that it acknowledged.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use tempfile::tempdir;

use super::open;
use crate::store::{
    Seq, Store,
    memory::{MemoryDisk, MemoryStore},
    tests::world::{World, numbers},
};

const DIRECTORY: &str = "TALKA_TEST_CRASH_DIRECTORY";
const ROUNDS: u64 = 3;
/// Commits that a child acknowledges before it is killed.
const ACKNOWLEDGED: u64 = 60;
/// Commits after which a child that nobody kills ends by itself.
const COMMITS_MAX: u64 = 20_000;

/// The same history in each process: what a model holds after `last`, and the world that goes on from there.
pub(super) fn history(last: Seq) -> (World, MemoryStore) {
    let (mut world, mut model) = (World::default(), MemoryDisk::default().open());
    while model.last_seq() < last {
        let seq = model.last_seq().next();
        model.commit(seq, &next_batch(&mut world, seq)).expect("a commit");
    }
    (world, model)
}

pub(super) fn next_batch(world: &mut World, seq: Seq) -> talka_core::coordinator::Batch {
    numbers(seq.get()).take(30).for_each(|number| world.step(number));
    world.batch()
}

#[test]
fn nothing_that_was_acknowledged_is_lost_by_a_kill() {
    let dir = tempdir().expect("a directory");
    let mut acknowledged = 0;
    for _ in 0..ROUNDS {
        let mut child = Command::new(env::current_exe().expect("this test"))
            .args(["--exact", "store::sqlite::tests::crash::child_that_commits", "--ignored", "--nocapture"])
            .env(DIRECTORY, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a child");
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        for (count, line) in (1u64..).zip(lines) {
            let line = line.expect("text");
            acknowledged = line.parse().unwrap_or_else(|_| panic!("the child says: {line}"));
            if count == ACKNOWLEDGED {
                child.kill().expect("killed");
            }
        }
        assert!(!child.wait().expect("ended").success(), "the child was not killed");

        let mut store = open(dir.path()).expect("a store");
        let last = store.last_seq().get();
        assert!(last == acknowledged || last == acknowledged + 1, "{last} after {acknowledged}");
        let (_, mut model) = history(store.last_seq());
        assert_eq!(store.load().expect("readable"), model.load().expect("readable"));
        let reader = store.reader();
        assert_eq!(reader.credit().expect("readable"), model.reader().credit().expect("readable"));
        assert!(reader.audit().expect("readable").is_clean());
    }
    assert!(acknowledged >= ROUNDS * ACKNOWLEDGED);
}

#[test]
#[ignore = "the other half of the test above, which starts it in a process of its own"]
fn child_that_commits() {
    let Some(dir) = env::var_os(DIRECTORY) else { return };
    let mut store = open(dir.as_ref()).expect("a store");
    let (mut world, _) = history(store.last_seq());
    for _ in 0..COMMITS_MAX {
        let seq = store.last_seq().next();
        store.commit(seq, &next_batch(&mut world, seq)).expect("a commit");
        writeln!(std::io::stderr(), "{seq}").expect("an acknowledgement");
    }
}
