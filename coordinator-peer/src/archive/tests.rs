//! What a copy holds, and what is never overwritten.

use std::{fs, path::Path};

use talka_core::coordinator::Batch;
use tempfile::{TempDir, tempdir};

use super::{ArchiveError, backup, restore};
use crate::{
    serve::{BLOBS_DIR, TOKEN_FILE},
    store::{
        Store, StoreError,
        sqlite::{FILE, SqliteStore},
    },
};
use talka_peer::identity::{Identity, KEY_FILE};

/// A data directory with a key, a token, a blob and two batches, whose coordinator has ended.
fn coordinator() -> TempDir {
    let dir = tempdir().expect("a directory");
    let mut store = open(dir.path());
    for _ in 0..2 {
        store.commit(store.last_seq().next(), &Batch::default()).expect("a commit");
    }
    fs::write(dir.path().join(TOKEN_FILE), [7; 16]).expect("written");
    fs::create_dir_all(dir.path().join(BLOBS_DIR).join("data")).expect("made");
    fs::write(dir.path().join(BLOBS_DIR).join("data/one"), "a blob").expect("written");
    dir
}

fn open(dir: &Path) -> SqliteStore {
    let identity = Identity::load_or_create(dir).expect("a key");
    SqliteStore::open(dir, identity.peer_id()).expect("a store")
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_copy_of_a_coordinator_at_rest_is_complete_and_comes_back() {
    let (dir, other) = (coordinator(), tempdir().expect("a directory"));
    let to = other.path().join("deep/../copy/");
    fs::create_dir(other.path().join("deep")).expect("made");
    let copied = backup(dir.path(), &to).expect("a copy");
    assert!(copied.with_blobs && copied.check.last_seq == 2);
    assert_eq!(names(&to), ["blobs", "coordinator.db", "key", "token"]);

    let back = other.path().join("back");
    fs::create_dir(&back).expect("an empty directory");
    let restored = restore(&to, &back).expect("restored");
    assert_eq!(restored.check.last_seq, 2);
    assert!(restored.check.epoch > copied.check.epoch, "an old instance is fenced");
    for file in [KEY_FILE, TOKEN_FILE, "blobs/data/one"] {
        let read = |dir: &Path| fs::read(dir.join(file)).expect("a file");
        assert_eq!(read(&back), read(dir.path()), "{file}");
    }
    assert_eq!(open(&back).last_seq().get(), 2);
    assert_eq!(names(other.path()), ["back", "copy", "deep"], "nothing half-done is left");
}

#[test]
fn a_copy_of_a_running_coordinator_lacks_the_blobs_and_says_so() {
    let (dir, other) = (coordinator(), tempdir().expect("a directory"));
    let mut running = open(dir.path());
    let to = other.path().join("copy");
    let copied = backup(dir.path(), &to).expect("a copy");
    assert!(!copied.with_blobs);
    assert_eq!(names(&to), ["coordinator.db", "key", "token"]);
    running.commit(running.last_seq().next(), &Batch::default()).expect("it goes on");
}

#[test]
fn nothing_is_overwritten_and_nobody_is_disturbed() {
    let (dir, other) = (coordinator(), tempdir().expect("a directory"));
    let copy = other.path().join("copy");
    backup(dir.path(), &copy).expect("a copy");
    let before = names(&copy);

    let occupied = |result: Result<_, ArchiveError>| {
        assert!(matches!(result, Err(ArchiveError::Occupied { .. })), "{result:?}");
    };
    occupied(backup(dir.path(), &copy));
    occupied(restore(&copy, dir.path()));
    occupied(backup(dir.path(), &copy.join("token")));
    let mut running = open(dir.path());
    running.commit(running.last_seq().next(), &Batch::default()).expect("into its log");
    let result = restore(dir.path(), &other.path().join("x"));
    assert!(matches!(result, Err(ArchiveError::InUse { .. })), "{result:?}");
    let result = restore(&copy, dir.path());
    assert!(matches!(result, Err(ArchiveError::Store(StoreError::Locked { .. }))), "{result:?}");
    drop(running);

    let nowhere = other.path().join("nowhere");
    assert!(matches!(backup(&nowhere, &other.path().join("x")), Err(ArchiveError::Nothing { .. })));
    assert!(matches!(restore(&nowhere, &other.path().join("x")), Err(ArchiveError::Nothing { .. })));
    assert_eq!(names(&copy), before);
    assert_eq!(names(other.path()), ["copy"]);
}

#[test]
fn a_damaged_copy_is_not_put_back() {
    let (dir, other) = (coordinator(), tempdir().expect("a directory"));
    let (copy, back) = (other.path().join("copy"), other.path().join("back"));
    backup(dir.path(), &copy).expect("a copy");
    let mut bytes = fs::read(copy.join(FILE)).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0x5a);
    fs::write(copy.join(FILE), bytes).expect("written");
    restore(&copy, &back).expect_err("damaged");

    fs::remove_file(copy.join(KEY_FILE)).expect("removed");
    let error = restore(&copy, &back).expect_err("no key");
    assert!(matches!(&error, ArchiveError::Copy { path, .. } if path.ends_with(KEY_FILE)), "{error:?}");
    assert_eq!(names(other.path()), ["copy"]);
}
