//! What comes back from a disk, intact or not.

use std::{
    fs,
    os::unix::fs::symlink,
    sync::{Arc, Barrier},
    thread,
};

use bytes::Bytes;

use super::*;

const BOUNDS: Bounds = Bounds { bytes: 10_000, files: 10 };
const CLASS: EngineClass = EngineClass::new([1; 32]);

fn open(data_dir: &Path) -> Disk {
    Disk::open_for(data_dir, CLASS, BOUNDS).expect("a cache")
}

fn module(number: u8) -> BlobHash {
    BlobHash::new([number; 32])
}

fn program(number: u8, bytes: usize) -> Program {
    let (transformed, compiled) = (BlobHash::new([!number; 32]), Bytes::from(vec![number; bytes]));
    Program { hash: module(number), transformed, compiled }
}

fn path(disk: &Disk, number: u8) -> PathBuf {
    let state = disk.state.lock().expect("not poisoned");
    state.shelf.dir().join(disk.file_name(module(number)).as_str())
}

fn holds(disk: &Disk, number: u8) -> bool {
    disk.load(module(number)).is_some_and(|program| {
        assert_eq!((program.hash, program.transformed), (module(number), BlobHash::new([!number; 32])));
        assert!(program.compiled.iter().all(|byte| *byte == number));
        true
    })
}

#[test]
fn another_process_finds_what_one_has_stored() {
    let home = tempfile::tempdir().expect("a directory");
    let (one, other) = (open(home.path()), open(home.path()));
    assert!(!holds(&one, 1));
    one.store(&program(1, 100));
    other.store(&program(2, 200));
    for disk in [&one, &other, &open(home.path())] {
        assert!(holds(disk, 1) && holds(disk, 2));
        assert_eq!(disk.load(module(2)).expect("there").size(), 200);
    }
    let usage = cache_usage(home.path()).expect("readable").expect("there");
    assert_eq!((usage.modules, usage.dir), (2, home.path().join("compiled")));
    assert!(usage.size > Size::new(300) && usage.max == Size::mib(1024));
}

#[test]
fn whatever_is_wrong_with_a_file_it_is_not_loaded_and_makes_way_for_a_new_one() {
    type Act = fn(&Path, &Disk);
    type Damage = Box<dyn Fn(&Path, &Disk)>;
    let flip = |path: &Path, position: usize| {
        let mut bytes = fs::read(path).expect("there");
        bytes[position] ^= 0x40;
        fs::write(path, bytes).expect("written");
    };
    let mut damages: Vec<(String, Damage)> = Vec::new();
    let (header, code, mac) = (116, 100, 32);
    let length = header + code + mac;
    for position in (0..length).step_by(9) {
        damages.push((format!("a flip at {position}"), Box::new(move |path, _| flip(path, position))));
    }
    for kept in [0, 1, header - 1, header, header + 1, mac, header + mac, header + code, length - 1] {
        let cut: Damage = Box::new(move |path, _| {
            let bytes = fs::read(path).expect("there");
            fs::write(path, &bytes[..kept]).expect("written");
        });
        damages.push((format!("cut to {kept}"), cut));
    }
    let others: [(&str, Act); 7] = [
        ("a byte more", |path, _| {
            let bytes = [&fs::read(path).expect("there")[..], b"\0"].concat();
            fs::write(path, bytes).expect("written");
        }),
        ("another module's file", |path, disk| {
            disk.store(&program(2, 100));
            fs::rename(self::path(disk, 2), path).expect("moved");
        }),
        ("another engine's file", |path, disk| {
            let other = Disk { class: EngineClass::new([2; 32]), key: disk.key.clone(), ..other(path) };
            other.store(&program(1, 100));
            fs::rename(self::path(&other, 1), path).expect("moved");
        }),
        ("a file of somebody with another key", |path, _| {
            let other = other(path);
            other.store(&program(1, 100));
            fs::rename(self::path(&other, 1), path).expect("moved");
        }),
        ("a link to a good file", |path, _| {
            let elsewhere = path.with_file_name("elsewhere");
            fs::rename(path, &elsewhere).expect("moved");
            symlink(elsewhere, path).expect("linked");
        }),
        ("a directory", |path, _| {
            fs::remove_file(path).expect("removed");
            fs::create_dir_all(path.join("deep")).expect("made");
        }),
        ("a file of the largest size and nothing in it", |path, _| {
            let file = fs::File::create(path).expect("made");
            file.set_len(artefact::FILE_BYTES_MAX + 1).expect("a sparse file");
        }),
    ];
    damages.extend(others.map(|(what, damage)| (what.to_owned(), Box::new(damage) as Damage)));
    for (what, damage) in damages {
        let home = tempfile::tempdir().expect("a directory");
        let disk = open(home.path());
        disk.store(&program(1, 100));
        assert!(holds(&disk, 1), "{what}");
        let path = path(&disk, 1);
        assert_eq!(fs::metadata(&path).expect("there").len(), length as u64);
        damage(&path, &disk);
        assert!(disk.load(module(1)).is_none(), "{what}");
        assert!(fs::symlink_metadata(&path).is_err(), "{what}: it is removed");
        disk.store(&program(1, 100));
        assert!(holds(&disk, 1) && holds(&open(home.path()), 1), "{what}: replaced");
    }
}

/// A cache below the same directory, with a key of its own.
fn other(path: &Path) -> Disk {
    let home = path.with_file_name("other");
    fs::create_dir(&home).expect("made");
    open(&home)
}

#[test]
fn without_its_key_nothing_is_believed() {
    let home = tempfile::tempdir().expect("a directory");
    for damage in [fs::remove_file as fn(PathBuf) -> io::Result<()>, |key| fs::write(key, "no key")] {
        open(home.path()).store(&program(1, 100));
        damage(home.path().join(KEY_FILE)).expect("damaged");
        let disk = open(home.path());
        assert!(!path(&disk, 1).exists(), "all files are thrown away");
        disk.store(&program(1, 100));
        assert!(holds(&open(home.path()), 1));
    }
}

#[test]
fn a_key_that_was_swapped_costs_a_compilation_and_no_more() {
    let home = tempfile::tempdir().expect("a directory");
    open(home.path()).store(&program(1, 100));
    fs::write(home.path().join(KEY_FILE), [9; 32]).expect("written");
    let disk = open(home.path());
    assert!(disk.load(module(1)).is_none());
    assert!(!path(&disk, 1).exists());
}

#[test]
fn the_bound_holds_and_what_is_in_use_stays() {
    let home = tempfile::tempdir().expect("a directory");
    let disk = open(home.path());
    for number in 0..100 {
        disk.store(&program(number, 2000));
        assert!(holds(&disk, number) && holds(&disk, 0), "{number}");
        let usage = cache_usage(home.path()).expect("readable").expect("there");
        assert!(usage.size <= Size::new(BOUNDS.bytes), "{usage:?}");
    }
    disk.store(&program(100, 10_001));
    assert!(!holds(&disk, 100) && holds(&disk, 0), "too large for the whole cache");
}

#[test]
fn processes_that_write_at_the_same_time_do_not_disturb_one_another() {
    let home = tempfile::tempdir().expect("a directory");
    let start = Arc::new(Barrier::new(4));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (home, start) = (home.path().to_owned(), start.clone());
            thread::spawn(move || {
                // As in another process: only files are shared.
                start.wait();
                let disk = open(&home);
                for round in 0..50 {
                    let number = (round + writer) % 5;
                    disk.store(&program(number, 500));
                    drop(disk.load(module(number)));
                    let state = disk.state.lock().expect("not poisoned");
                    assert!(!state.warned, "{round}");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().expect("no panic");
    }
    let disk = open(home.path());
    assert!((0..5).all(|number| holds(&disk, number)), "they had one key, and all files are whole");
}

#[test]
fn a_disk_that_can_not_be_written_is_no_failure_and_is_told_once() {
    let home = tempfile::tempdir().expect("a directory");
    let disk = open(home.path());
    fs::remove_dir_all(home.path()).expect("removed");
    fs::write(home.path(), "a file").expect("written");
    for _ in 0..2 {
        disk.store(&program(1, 100));
        assert!(disk.load(module(1)).is_none());
        assert!(disk.state.lock().expect("not poisoned").warned);
    }
    fs::remove_file(home.path()).expect("removed");
    disk.store(&program(1, 100));
    assert!(holds(&disk, 1), "it is tried again");
}

#[test]
fn where_no_directory_can_be_there_is_no_cache() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let opened = Disk::open_for(&file.path().join("below"), CLASS, BOUNDS);
    assert!(matches!(opened, Err(DiskError::Directory { .. })));
    let home = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(home.path().join(KEY_FILE).join("full")).expect("made");
    assert!(matches!(Disk::open_for(home.path(), CLASS, BOUNDS), Err(DiskError::Key { .. })));
    assert!(cache_usage(file.path()).is_err());
}
