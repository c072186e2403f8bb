//! What is special about files: locks, damage, a full disk, copies.

mod crash;
mod power_cut;

use std::{fs, path::Path};

use talka_core::{coordinator::Batch, ids::PeerId};
use tempfile::{TempDir, tempdir};

use super::{FILE, SqliteStore, lock};
use crate::store::{Store, StoreError, tests::world};

const OWNER: PeerId = PeerId::new([1; 32]);

/// What an operator does who believes that a lock was left over.
pub(in crate::store) fn remove_lock(dir: &Path) {
    fs::remove_file(dir.join(lock::FILE)).expect("a lock file");
}

/// A store that was closed a moment ago may still be locked: what another test starts as a process holds copies of all
/// files until it runs its own program.
fn open(dir: &Path) -> Result<SqliteStore, StoreError> {
    let begun = std::time::Instant::now();
    loop {
        match SqliteStore::open(dir, OWNER) {
            Err(StoreError::Locked { .. }) if begun.elapsed() < std::time::Duration::from_secs(5) => {
                std::thread::yield_now();
            }
            opened => return opened,
        }
    }
}

/// A directory with a store of some hundred rows, and what it holds.
fn filled() -> (TempDir, talka_core::coordinator::Snapshot) {
    let dir = tempdir().expect("a directory");
    let mut store = open(dir.path()).expect("a store");
    let mut world = world::World::default();
    for seed in 0..5 {
        world::numbers(seed).take(200).for_each(|number| world.step(number));
        store.commit(store.last_seq().next(), &world.batch()).expect("a commit");
    }
    let snapshot = store.load().expect("readable");
    (dir, snapshot)
}

#[test]
fn a_second_coordinator_on_the_directory_is_refused() {
    let dir = tempdir().expect("a directory");
    let first = open(dir.path()).expect("a store");
    let error = SqliteStore::open(dir.path(), OWNER).expect_err("it is taken");
    assert!(matches!(error, StoreError::Locked { .. }), "{error:?}");
    assert!(error.to_string().contains("another coordinator is running on this data directory"));
    drop(first);
    open(dir.path()).expect("free again");
}

#[test]
fn a_store_of_a_newer_version_is_refused_and_untouched() {
    let (dir, _) = filled();
    let path = dir.path().join(FILE);
    let conn = rusqlite::Connection::open(&path).expect("a database");
    conn.pragma_update(None, "user_version", 99).expect("a version");
    drop(conn);
    let before = fs::read(&path).expect("a file");
    let error = open(dir.path()).expect_err("too new");
    assert!(matches!(error, StoreError::NewerSchema { found: 99, known: 7, .. }), "{error:?}");
    assert_eq!(fs::read(&path).expect("a file"), before);
}

#[test]
fn damage_gives_an_error_or_the_truth_and_never_a_panic() {
    let (source, _) = filled();
    let good = fs::read(source.path().join(FILE)).expect("a file");
    let header = (0..28).chain((28..100).step_by(8));
    for offset in header.chain((100..good.len()).step_by(good.len() / 40)) {
        let dir = tempdir().expect("a directory");
        let mut bad = good.clone();
        bad[offset] ^= 0xff;
        fs::write(dir.path().join(FILE), bad).expect("written");
        let result = open(dir.path()).and_then(|mut store| {
            let jobs = store.load()?.jobs;
            let reader = store.reader();
            reader.audit()?;
            jobs.iter().try_for_each(|job| reader.results(job.row.job, 0, 1000, true).map(drop))
        });
        if offset < 16 {
            assert!(matches!(result, Err(StoreError::Damaged { .. })), "byte {offset}: {result:?}");
        }
    }
}

#[test]
fn a_row_that_no_version_wrote_is_named() {
    let check = |sql: &str, expected: &str| {
        let (dir, _) = filled();
        let mut store = open(dir.path()).expect("a store");
        assert!(store.conn.execute(sql, []).expect("valid") > 0, "{sql}");
        let result = store.load().and_then(|_| store.reader().audit());
        let error = result.expect_err("damaged");
        assert!(
            matches!(&error, StoreError::Damaged { what, .. } if what.starts_with(expected)),
            "{error:?}"
        );
    };
    check("UPDATE lease SET items = x'80'", "the items of lease");
    check("UPDATE pending SET report = x'09'", "the report of");
    check("UPDATE task_final SET entry = x'ff'", "the ledger entry of task");
    check("UPDATE job SET state = 77", "the state of job");
    check("UPDATE job SET spec = '{}'", "the spec of job");
    check("UPDATE lease SET shard_id = 99", "a row of job 99, which does not exist");
    check("UPDATE shard SET cursor = -1", "a row");
    check("UPDATE shard SET low = cursor + 1 WHERE job_id > 0", "the progress of job");
}

#[test]
fn a_spec_that_a_later_version_wrote_is_read() {
    let (dir, before) = filled();
    let mut store = open(dir.path()).expect("a store");
    let sql = "UPDATE job SET spec = json_set(spec, '$.not_yet_invented', 1)";
    assert!(store.conn.execute(sql, []).expect("valid") > 0);
    assert_eq!(store.load().expect("readable"), before);
}

#[test]
fn a_commit_that_found_the_disk_full_is_repeated_after_making_room() {
    let (dir, before) = filled();
    let mut store = open(dir.path()).expect("a store");
    let pages: i64 = store.conn.pragma_query_value(None, "page_count", |row| row.get(0)).expect("a number");
    store.conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).expect("a limit");
    let peers = (1000..4000u32).map(|no| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&no.to_le_bytes());
        talka_core::coordinator::PeerRow { no: talka_core::ids::PeerNo::new(no), id: PeerId::new(id) }
    });
    let batch = Batch { peers: peers.collect(), ..Batch::default() };
    let seq = store.last_seq().next();
    let error = store.commit(seq, &batch).expect_err("full");
    assert!(matches!(error, StoreError::Full { .. }) && error.is_retryable(), "{error:?}");
    assert!(matches!(store.commit(seq, &batch), Err(StoreError::Poisoned)));
    drop(store);

    let mut store = open(dir.path()).expect("a store");
    assert_eq!(store.load().expect("readable"), before);
    store.commit(seq, &batch).expect("there is room now");
    assert_eq!(store.load().expect("readable").peers.len(), before.peers.len() + 3000);
}

#[test]
fn a_backup_is_a_store_of_its_moment() {
    let (dir, before) = filled();
    let mut store = open(dir.path()).expect("a store");
    let copy = tempdir().expect("a directory");
    let to = copy.path().join(FILE);
    let backup = store.reader().backup(&to).expect("a backup");
    assert!(backup.audit.is_clean() && backup.audit.finals > 0);
    assert_eq!(backup.bytes, to.metadata().expect("a file").len());
    let files: Vec<_> = fs::read_dir(copy.path()).expect("a directory").collect();
    assert_eq!(files.len(), 1, "{files:?}");

    store.commit(store.last_seq().next(), &Batch::default()).expect("a commit");
    let error = store.reader().backup(&to).expect_err("it exists");
    assert!(matches!(error, StoreError::WriteBackup { .. }), "{error:?}");
    let error = store.reader().backup(&copy.path().join("no/such/place")).expect_err("no directory");
    assert!(matches!(error, StoreError::WriteBackup { .. }), "{error:?}");

    let mut restored = open(copy.path()).expect("a store");
    assert_eq!(restored.load().expect("readable"), before);
    assert_eq!(restored.last_seq().next(), store.last_seq());
}

#[test]
fn a_check_names_what_is_wrong_between_the_tables() {
    let (dir, _) = filled();
    let sound = super::check(dir.path()).expect("readable");
    assert_eq!(sound.problems, [""; 0]);
    assert!(sound.audit.finals > 0 && sound.jobs > 0 && sound.last_seq == 5);
    let check = |sql: &str, expected: &str| {
        let (dir, _) = filled();
        let store = open(dir.path()).expect("a store");
        assert!(store.conn.execute(sql, []).expect("valid") > 0, "{sql}");
        // Beside the store that is open.
        let problems = super::check(dir.path()).expect("readable").problems;
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{sql}: {problems:?}");
    };
    check("UPDATE credit SET nanos = (nanos + 1) % 1000000000", "but was granted");
    check("UPDATE shard SET nanos = (nanos + 1) % 1000000000 WHERE job_id > 0", "were granted");
    check("UPDATE shard SET low = cursor + 1 WHERE job_id > 0", "contradict each other");
    check("UPDATE shard SET done = done + 1 WHERE job_id > 0", "counts other than its final tasks");
    check("UPDATE shard SET cursor = 0 WHERE job_id > 0", "that was never handed out");
    check("UPDATE final_block SET finals = finals + 1", "block");
    check("DELETE FROM final_block", "block");
    check("UPDATE lease SET peer = 99999", "unknown peer");
    check("UPDATE pending SET peer = 99999", "unknown peer");
    check("UPDATE job SET ended = 1 WHERE ended IS NULL", "of a job that has ended");
    check("INSERT INTO output SELECT 1 << 32 | 0xfffffff, x'00'", "of no final task");
    check(
        "UPDATE task_final SET digest = zeroblob(32) WHERE digest IS NOT NULL",
        "the ledger is said to have",
    );
    check("UPDATE ledger SET at = at + 1", "the ledger is said to have");
    check("INSERT INTO ledger_tile VALUES(0, zeroblob(32))", "tile 0 of the ledger");
    check(
        "DELETE FROM ledger WHERE first = (SELECT max(first) FROM ledger)",
        "but the ledger has entries of",
    );
    check("DELETE FROM shard WHERE job_id IN (SELECT task_id >> 32 FROM task_final)", "there is no such job");
}

#[test]
fn what_was_final_before_there_was_a_ledger_joins_it_at_the_next_start() {
    let (dir, _) = filled();
    let store = open(dir.path()).expect("a store");
    store
        .conn
        .execute_batch(
            "DELETE FROM ledger; DELETE FROM ledger_block; DELETE FROM ledger_tile; \
             UPDATE ledger_state SET size = 0, peaks = NULL",
        )
        .expect("valid");
    drop(store);
    let problems = super::check(dir.path()).expect("readable").problems;
    assert_eq!(problems, ["the final tasks are not in the ledger yet: start the coordinator once"]);
    let mut store = open(dir.path()).expect("a store");
    let sound = super::check(dir.path()).expect("readable");
    assert_eq!(sound.problems, [""; 0]);
    let adopted = store.reader().ledger().expect("readable");
    assert!(adopted.size() > sound.audit.finals && sound.audit.finals > 0, "{adopted:?}");
    let peer =
        talka_core::coordinator::PeerRow { no: talka_core::ids::PeerNo::new(900), id: PeerId::new([9; 32]) };
    let batch = Batch { peers: vec![peer], ..Batch::default() };
    store.commit(store.last_seq().next(), &batch).expect("a commit");
    drop(store);
    let store = open(dir.path()).expect("a store");
    assert_eq!(store.reader().ledger().expect("readable").size(), adopted.size() + 1);
    assert_eq!(super::check(dir.path()).expect("readable").problems, [""; 0]);
}

#[test]
fn old_receipts_go_when_there_are_too_many() {
    let (dir, _) = filled();
    let mut store = open(dir.path()).expect("a store");
    // As many as are kept, in messages of the usual size.
    let per_message = 1 << 10;
    let receipt = |message: u64, place: u64| {
        let index = message * per_message + place;
        let task = talka_core::ids::TaskId { job: talka_core::ids::JobId::new(9), index };
        talka_core::signing::Receipt {
            attempt: talka_core::ids::AttemptId { task, number: 1 },
            outcome: talka_core::ids::OutcomeDigest::new([1; 32]),
            fuel: talka_core::quantities::Fuel::new(5),
            resumed: false,
        }
    };
    let messages = talka_core::limits::RECEIPTS_KEPT / per_message;
    for part in 0..=messages / 64 {
        let signed = |message| talka_core::coordinator::SignedReceipts {
            peer: talka_core::ids::PeerNo::new(0),
            signature: [7; 64],
            receipts: (0..per_message).map(|place| receipt(message, place)).collect(),
        };
        let receipts = (part * 64..(part + 1) * 64).map(signed).collect();
        store.commit(store.last_seq().next(), &Batch { receipts, ..Batch::default() }).expect("a commit");
    }
    let count = |sql: &str| store.conn.query_row(sql, [], |row| row.get::<_, u64>(0)).expect("a number");
    let kept = count("SELECT count(*) FROM receipt");
    assert!((messages - 1..=messages + 1).contains(&kept), "{kept} of {messages}");
    assert_eq!(count("SELECT count(*) FROM receipt_block WHERE first NOT IN (SELECT first FROM receipt)"), 0);
    let task = receipt(messages, 5).attempt.task;
    let reader = store.reader();
    assert_eq!(reader.receipts(task).expect("readable")[0].receipts.len() as u64, per_message);
    assert!(reader.receipts(receipt(0, 5).attempt.task).expect("readable").is_empty());
}

#[test]
fn a_question_makes_no_store_where_none_is() {
    let dir = tempdir().expect("a directory");
    let error = super::check(dir.path()).expect_err("nothing there");
    assert!(matches!(error, StoreError::Missing { .. }) && error.to_string().contains(FILE), "{error}");
    assert!(super::reader(dir.path()).is_err());
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
}

#[test]
fn a_sqlite_that_corrupts_stores_is_refused() {
    let error = super::must_be_new_enough(3_051_002, "3.51.2").expect_err("too old");
    assert!(error.to_string().contains("3.51.2") && error.to_string().contains("3.51.3"), "{error}");
    super::must_be_new_enough(3_051_003, "3.51.3").expect("good");
    super::must_be_new_enough(rusqlite::version_number(), rusqlite::version()).expect("what is linked");
}

#[test]
fn readers_can_not_write() {
    let (dir, _) = filled();
    let conn = super::read::connect(&dir.path().join(FILE)).expect("a reader");
    conn.execute("DELETE FROM task_final", []).expect_err("query only");
}
