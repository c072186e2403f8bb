//! A power cut loses what was written and not synced. With `synchronous=FULL` nothing that was acknowledged is
//! among it; with `NORMAL` something is, which shows that this test can fail.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::tempdir;

use super::{
    super::{Durability, check},
    OWNER, SqliteStore, crash, open,
};
use crate::store::{Store, tests::world::World};

const DIRECTORY: &str = "TALKA_TEST_POWER_CUT_DIRECTORY";
const DURABILITY: &str = "TALKA_TEST_POWER_CUT_DURABILITY";
/// Commits that a child acknowledges before the power fails.
const ACKNOWLEDGED: u64 = 120;

/// Builds the shim that keeps what a power cut would leave. A C compiler is needed to build this crate anyway.
fn shim(dir: &Path) -> PathBuf {
    let (source, library) = (dir.join("disk.c"), dir.join("disk.so"));
    fs::write(&source, include_str!("disk.c")).expect("written");
    let cc = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let built = Command::new(cc).args(["-O1", "-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(built.expect("a C compiler").success());
    library
}

/// Lets a child commit until the power fails; returns the last batch that it acknowledged and the last one that
/// survived.
fn cut(durability: &str) -> (u64, u64) {
    let (dir, survivors) = (tempdir().expect("a directory"), tempdir().expect("a directory"));
    let mut child = Command::new(env::current_exe().expect("this test"))
        .args(["--exact", "store::sqlite::tests::power_cut::child_that_commits", "--ignored", "--nocapture"])
        .env("LD_PRELOAD", shim(dir.path()))
        .env("TALKA_TEST_DISK_SURVIVORS", survivors.path())
        .env(DIRECTORY, dir.path().join("data"))
        .env(DURABILITY, durability)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a child");
    let mut acknowledged = 0;
    for line in BufReader::new(child.stderr.take().expect("piped")).lines() {
        let line = line.expect("text");
        acknowledged = line.parse().unwrap_or_else(|_| panic!("the child says: {line}"));
        if acknowledged == ACKNOWLEDGED {
            child.kill().expect("killed");
        }
    }
    assert!(!child.wait().expect("ended").success(), "the child was not killed");
    assert!(acknowledged >= ACKNOWLEDGED);

    let mut store = open(survivors.path()).expect("what is left is a store");
    let (_, mut model) = crash::history(store.last_seq());
    assert_eq!(store.load().expect("readable"), model.load().expect("readable"));
    assert_eq!(check(survivors.path()).expect("readable").problems, [""; 0]);
    (acknowledged, store.last_seq().get())
}

#[test]
fn nothing_that_was_acknowledged_is_lost_by_a_power_cut() {
    let (acknowledged, survived) = cut("full");
    assert!(survived >= acknowledged, "{acknowledged} acknowledged, {survived} survived");
}

#[test]
fn a_store_that_does_not_sync_each_commit_would_lose_some() {
    let (acknowledged, survived) = cut("normal");
    assert!(survived < acknowledged, "{survived} of {acknowledged} survived: the power cut cuts nothing");
}

#[test]
#[ignore = "the other half of the tests above, which start it in a process of its own"]
fn child_that_commits() {
    let Some(dir) = env::var_os(DIRECTORY) else { return };
    let durability = match env::var(DURABILITY).as_deref() {
        Ok("full") => Durability::Full,
        Ok("normal") => Durability::Normal,
        other => panic!("{other:?}"),
    };
    let mut store = SqliteStore::open_with(dir.as_ref(), OWNER, durability).expect("a store");
    let mut world = World::default();
    // The power fails before.
    for _ in 0..20 * ACKNOWLEDGED {
        let seq = store.last_seq().next();
        store.commit(seq, &crash::next_batch(&mut world, seq)).expect("a commit");
        writeln!(std::io::stderr(), "{seq}").expect("an acknowledgement");
    }
}
