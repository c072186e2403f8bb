//! The store of checkpoints, without a sandbox.

use std::{ops::Range, path::Path};

use talka_core::{
    ids::TaskId,
    job::{BlobRef, Inputs, RawJobSpec},
    quantities::Bytes,
    worker::Assignment,
};

use super::*;

const ME: PeerId = PeerId::new([1; 32]);

fn key(byte: u8) -> Key {
    Key([byte; 32])
}

fn open(dir: &Path) -> (Arc<Checkpoints>, Vec<Holder>) {
    Checkpoints::open(dir, Some(ME)).expect("a directory")
}

fn holder(index: u64, number: u32) -> Holder {
    let spec = RawJobSpec {
        args: vec!["{index}".into()],
        quorum: 2,
        seed: 7,
        ..RawJobSpec::plain(
            "long",
            BlobRef { hash: BlobHash::new([1; 32]), size: Bytes::new(100) },
            Inputs::Array { first: 0, count: 10 },
        )
    };
    let spec = Arc::new(spec.validate().expect("a valid job"));
    let attempt = AttemptId { task: TaskId { job: JobId::new(3), index }, number };
    Holder { coordinator: ME, assignment: Assignment { attempt, input: 5..9, inline: None }, spec }
}

fn save(store: &Checkpoints, key: Key, holder: Option<&Holder>, snapshot: &[u8]) {
    store.save(key, holder, snapshot, &AtomicBool::new(false)).expect("room");
}

/// Files of the directory, by name.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    files
}

fn damage(path: &Path, at: Range<usize>) {
    let mut bytes = fs::read(path).expect("a file");
    let at = at.start.min(bytes.len() - 1)..at.end.min(bytes.len());
    bytes[at].iter_mut().for_each(|byte| *byte ^= 0xff);
    fs::write(path, bytes).expect("writable");
}

#[test]
fn the_newest_is_found_again_and_two_are_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, holders) = open(dir.path());
    assert_eq!(holders, []);
    for content in ["one", "two", "three"] {
        save(&store, key(1), Some(&holder(4, 1)), content.as_bytes());
    }
    assert_eq!(files(dir.path()).len(), 2);
    assert_eq!(store.load(key(1), None), Some(b"three".to_vec()));
    assert_eq!(store.load(key(2), None), None);
    drop(store);

    let (store, holders) = open(dir.path());
    assert_eq!(holders, [holder(4, 1)]);
    save(&store, key(1), Some(&holder(4, 1)), b"four");
    assert_eq!(store.load(key(1), None), Some(b"four".to_vec()), "numbers go on");
    assert_eq!(files(dir.path()).len(), 2);
}

#[test]
fn a_damaged_one_gives_way_to_the_one_before_and_that_to_the_beginning() {
    // Magic, key, lengths, record, snapshot, the end.
    for at in [0..1, 20..21, 41..42, 100..101, 1_000_000..2_000_000] {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, _) = open(dir.path());
        save(&store, key(1), Some(&holder(4, 1)), b"one");
        save(&store, key(1), Some(&holder(4, 1)), b"two");
        let [older, newer] = &files(dir.path())[..] else { panic!("two files") };
        damage(newer, at.clone());
        assert_eq!(store.load(key(1), None), Some(b"one".to_vec()), "{at:?}");
        assert!(!newer.exists(), "what is damaged is of no use");
        damage(older, at.clone());
        assert_eq!(store.load(key(1), None), None, "{at:?}");
        assert_eq!(files(dir.path()), [] as [PathBuf; 0]);
        save(&store, key(1), None, b"three");
        assert_eq!(store.load(key(1), None), Some(b"three".to_vec()));
    }
}

#[test]
fn who_held_what_is_known_even_if_the_newest_is_damaged() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = open(dir.path());
    save(&store, key(1), Some(&holder(4, 1)), b"one");
    save(&store, key(1), Some(&holder(4, 1)), b"two");
    save(&store, key(2), Some(&holder(5, 2)), b"other");
    save(&store, key(3), Some(&Holder { coordinator: PeerId::new([2; 32]), ..holder(6, 1) }), b"foreign");
    save(&store, key(4), None, b"nobody's");
    drop(store);
    let mut newest =
        files(dir.path()).into_iter().filter(|path| path.to_string_lossy().contains(&key(1).to_hex()));
    damage(&newest.next_back().expect("a file"), 60..61);
    fs::write(dir.path().join("x.tmp"), b"half").expect("writable");
    fs::write(dir.path().join("note.txt"), b"not ours").expect("writable");

    let (store, mut holders) = open(dir.path());
    holders.sort_by_key(|holder| holder.assignment.attempt);
    assert_eq!(holders, [holder(4, 1), holder(5, 2)]);
    assert!(!dir.path().join("x.tmp").exists() && dir.path().join("note.txt").exists());
    assert!(store.has_attempt(holder(5, 2).assignment.attempt));
    assert!(!store.has_attempt(holder(6, 1).assignment.attempt), "that of another coordinator");
}

#[tokio::test]
async fn what_is_forgotten_goes_unless_a_later_attempt_took_it_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = open(dir.path());
    let keep = |byte, number| Keep::for_attempt(&store, key(byte), holder(byte.into(), number));
    let revoked = || Arc::new(AtomicBool::new(false));
    keep(1, 1).save(b"one".to_vec(), revoked()).await;
    keep(2, 1).save(b"two".to_vec(), revoked()).await;
    assert_eq!(keep(2, 2).load().await, Some(b"two".to_vec()));
    let attempt = |byte: u8, number| holder(byte.into(), number).assignment.attempt;
    store.forget(&[attempt(1, 1), attempt(2, 1), attempt(7, 7)]);
    // Removals come before a later save.
    keep(3, 1).save(b"three".to_vec(), revoked()).await;
    until(|| !store.lock().has(key(1))).await;
    assert_eq!(store.load(key(2), None), Some(b"two".to_vec()));
    store.forget_job(JobId::new(3));
    until(|| files(dir.path()).is_empty()).await;
    let late = revoked();
    late.store(true, Ordering::Relaxed);
    keep(1, 1).save(b"late".to_vec(), late).await;
    assert_eq!(files(dir.path()), [] as [PathBuf; 0], "nobody wants it any more");
}

async fn until(mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Duration::from_secs(20);
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(deadline, wait).await.expect("in time");
}

#[test]
fn the_oldest_make_room_and_a_full_disk_is_no_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Checkpoints::open_with(dir.path(), None, 1000).expect("a directory");
    for byte in 1..=5 {
        save(&store, key(byte), None, &[byte; 200]);
    }
    let kept: Vec<bool> = (1..=5).map(|byte| store.load(key(byte), None).is_some()).collect();
    assert_eq!(kept, [false, false, true, true, true], "three of 316 bytes each");
    let total: u64 = files(dir.path()).iter().map(|path| fs::metadata(path).expect("there").len()).sum();
    assert!(total <= 1000, "{total}");

    fs::remove_dir_all(dir.path()).expect("removed");
    fs::write(dir.path(), b"in the way").expect("writable");
    store.save(key(6), None, b"x", &AtomicBool::new(false)).expect_err("there is no directory");
    fs::remove_file(dir.path()).expect("removed");
    save(&store, key(6), None, b"x");
    assert_eq!(store.load(key(6), None), Some(b"x".to_vec()));
    assert_eq!(store.load(key(5), None), None, "what is gone is gone");
}

#[cfg(unix)]
#[test]
fn nobody_else_can_look_into_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("checkpoints");
    let (store, _) = open(&dir);
    save(&store, key(1), None, b"secret");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&files(&dir)[0])), (0o700, 0o600));
}

#[test]
fn records_of_any_bytes_are_refused_without_panic() {
    let bytes = holder(4, 1).encode();
    assert_eq!(Holder::decode(&bytes), Some(holder(4, 1)));
    for length in 0..bytes.len() {
        if let Some(other) = Holder::decode(&bytes[..length]) {
            assert_ne!(other, holder(4, 1), "{length}");
        }
    }
    for position in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[position] ^= 0x81;
        let _ = Holder::decode(&flipped);
    }
}
