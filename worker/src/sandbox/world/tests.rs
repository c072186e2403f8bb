//! The world without WebAssembly: scripts of requests and what they answer.

use talka_core::{
    limits,
    outcome::{Exit, Limit},
    quantities::Fuel,
};

use super::*;

const STDOUT: Fd = Fd(1);
const STDERR: Fd = Fd(2);
const ROOT_FD: Fd = Fd(3);

const READ: OpenHow = OpenHow {
    create: false,
    directory: false,
    exclusive: false,
    truncate: false,
    read: true,
    write: false,
    flags: NONE,
};
const CREATE: OpenHow = OpenHow { create: true, write: true, ..READ };
const NONE: OpenFlags = OpenFlags::NONE;

fn world(output_bytes: u64) -> World {
    let datasets = [("b.txt".to_owned(), Bytes::from("bee")), ("a.txt".to_owned(), Bytes::from("ay"))];
    let stdin = Bytes::from("input");
    World::new(Setting { output_bytes, stdin, datasets: &datasets, ..Setting::default() }).expect("a world")
}

fn errno<T: std::fmt::Debug>(answer: Answer<T>) -> Errno {
    match answer {
        Err(Fault::Errno(errno)) => errno,
        other => panic!("expected an error number, not {other:?}"),
    }
}

fn end<T: std::fmt::Debug>(answer: Answer<T>) -> Exit {
    match answer {
        Err(Fault::End(exit)) => exit,
        other => panic!("expected the end, not {other:?}"),
    }
}

fn write(world: &mut World, path: &str, data: &[u8]) -> Answer<()> {
    let fd = world.path_open(ROOT_FD, path.as_bytes(), OpenHow { truncate: true, ..CREATE })?;
    world.fd_write(fd, data)?;
    world.fd_close(fd)
}

fn read(world: &mut World, path: &str) -> Answer<Vec<u8>> {
    let fd = world.path_open(ROOT_FD, path.as_bytes(), READ)?;
    let mut buffer = vec![0; 1000];
    let count = world.fd_read(fd, &mut buffer)?;
    world.fd_close(fd)?;
    buffer.truncate(count);
    Ok(buffer)
}

fn list(world: &mut World, path: &str) -> Vec<String> {
    let how = OpenHow { directory: true, ..READ };
    let fd = world.path_open(ROOT_FD, path.as_bytes(), how).expect("a directory");
    let entries = world.fd_listing(fd, true).expect("entries");
    world.fd_close(fd).expect("open");
    entries.iter().map(|entry| entry.name.to_string()).collect()
}

#[test]
fn the_tree_starts_sorted_and_the_same() {
    let mut world = world(100);
    assert_eq!(list(&mut world, "."), [".", "..", "checkpoint", "data", "out", "progress"]);
    assert_eq!(list(&mut world, "data"), [".", "..", "a.txt", "b.txt"]);
    assert_eq!(read(&mut world, "data/b.txt"), Ok(b"bee".to_vec()));
    let inodes = ["data/a.txt", "data/b.txt", "out"]
        .map(|path| world.path_stat(ROOT_FD, path.as_bytes()).expect("exists").inode);
    let mut sorted = inodes;
    sorted.sort_unstable();
    assert!(sorted.windows(2).all(|pair| pair[0] != pair[1]), "{inodes:?}");
}

#[test]
fn only_out_and_checkpoint_can_be_written() {
    let mut world = world(100);
    for path in ["new", "data/new", "data/a.txt"] {
        assert_eq!(errno(write(&mut world, path, b"x")), Errno::Rofs, "{path}");
    }
    assert_eq!(errno(write(&mut world, "progress/x", b"x")), Errno::Notdir);
    for path in ["data/a.txt", "progress"] {
        assert_eq!(errno(world.path_unlink_file(ROOT_FD, path.as_bytes())), Errno::Rofs, "{path}");
    }
    assert_eq!(errno(world.path_remove_directory(ROOT_FD, b"out")), Errno::Rofs);
    assert_eq!(errno(world.path_remove_directory(ROOT_FD, b"out/.")), Errno::Rofs);
    assert_eq!(errno(world.path_rename((ROOT_FD, b"out"), (ROOT_FD, b"out2"))), Errno::Rofs);
    write(&mut world, "out/a", b"1").expect("writable");
    write(&mut world, "checkpoint/a", b"22").expect("writable");
    assert_eq!(errno(world.path_rename((ROOT_FD, b"out/a"), (ROOT_FD, b"checkpoint/b"))), Errno::Xdev);
    assert_eq!(read(&mut world, "checkpoint/a"), Ok(b"22".to_vec()));
    assert_eq!(world.finish().files, [("a".into(), b"1".to_vec())].into());
}

#[test]
fn no_path_leaves_the_directory_that_it_came_with() {
    let mut world = world(100);
    world.path_create_directory(ROOT_FD, b"out/dir").expect("made");
    let dir = world.path_open(ROOT_FD, b"out/dir", OpenHow { directory: true, ..READ }).expect("open");
    let cases: [(Fd, &[u8], Errno); 9] = [
        (ROOT_FD, b"..", Errno::Notcapable),
        (ROOT_FD, b"data/../../etc/passwd", Errno::Notcapable),
        (ROOT_FD, b"/data/a.txt", Errno::Notcapable),
        (ROOT_FD, b"", Errno::Noent),
        (ROOT_FD, b"data/a.txt/", Errno::Notdir),
        (ROOT_FD, b"data/a.txt/..", Errno::Notdir),
        (ROOT_FD, b"\xff", Errno::Ilseq),
        (dir, b"../../data/a.txt", Errno::Notcapable),
        (STDOUT, b"x", Errno::Notdir),
    ];
    for (fd, path, expected) in cases {
        assert_eq!(errno(world.path_stat(fd, path)), expected, "{}", path.escape_ascii());
    }
    let long = vec![b'a'; 5000];
    assert_eq!(errno(world.path_stat(ROOT_FD, &long)), Errno::Nametoolong);
    assert!(world.path_stat(ROOT_FD, b"./out//dir/../../data/./b.txt").is_ok());
}

#[test]
fn output_and_out_share_one_limit_that_ends_the_program() {
    let mut world = world(10);
    world.fd_write(STDOUT, b"1234").expect("within");
    write(&mut world, "out/a", b"123456").expect("exactly full");
    assert_eq!(end(world.fd_write(STDOUT, b"x")), Exit::Limit(Limit::Output));
    assert_eq!(end(write(&mut world, "out/b", b"x")), Exit::Limit(Limit::Output));
    world.path_unlink_file(ROOT_FD, b"out/a").expect("removed");
    write(&mut world, "out/b", b"x").expect("what is removed no longer counts");
    assert_eq!(world.finish().stdout, b"1234");
}

#[test]
fn a_hole_costs_as_much_as_bytes_and_is_never_allocated_beyond_the_limit() {
    let mut world = world(1000);
    let fd = world.path_open(ROOT_FD, b"out/a", CREATE).expect("open");
    assert_eq!(end(world.fd_pwrite(fd, b"x", u64::MAX - 1)), Exit::Limit(Limit::Output));
    assert_eq!(errno(world.fd_pwrite(fd, b"xy", u64::MAX)), Errno::Overflow);
    assert_eq!(end(world.fd_set_size(fd, 1 << 40)), Exit::Limit(Limit::Output));
    world.take_work();
    world.fd_pwrite(fd, b"x", 99).expect("within");
    assert_eq!(world.take_work(), 100);
    assert_eq!(world.fd_stat(fd).expect("open").size, 100);
}

#[test]
fn a_checkpoint_that_is_too_big_is_an_error_and_not_the_end() {
    let mut world = world(0);
    let fd = world.path_open(ROOT_FD, b"checkpoint/a", CREATE).expect("open");
    assert_eq!(errno(world.fd_set_size(fd, limits::TASK_CHECKPOINT_BYTES_MAX + 1)), Errno::Nospc);
    assert_eq!(world.fd_set_size(fd, 10), Ok(()));
}

/// A world that goes on where another one was.
fn gone_on(first: &World) -> World {
    let bytes = first.snapshot(Fuel::new(77)).expect("small enough");
    let snapshot = Snapshot::decode(&bytes).expect("what a world wrote");
    assert_eq!(snapshot.fuel, Fuel::new(77));
    let mut second = world(100);
    second.restore(snapshot).expect("within the same limits");
    second
}

#[test]
fn a_world_goes_on_where_another_one_was() {
    let mut first = world(100);
    first.path_create_directory(ROOT_FD, b"checkpoint/dir").expect("made");
    first.path_create_directory(ROOT_FD, b"out/empty").expect("made");
    write(&mut first, "checkpoint/dir/state", b"half").expect("written");
    write(&mut first, "out/result", b"first ").expect("written");
    write(&mut first, "progress", b"0.5").expect("written");
    first.fd_write(STDOUT, b"begun, ").expect("written");
    first.fd_write(STDERR, b"note, ").expect("written");
    first.clock_read(ClockId::Monotonic);
    first.sleep(Duration::from_secs(5)).expect("asleep");
    first.random_fill(&mut [0; 100]);

    let mut second = gone_on(&first);
    assert_eq!(read(&mut second, "checkpoint/dir/state"), Ok(b"half".to_vec()));
    assert_eq!(list(&mut second, "out"), [".", "..", "empty", "result"]);
    assert_eq!(second.progress(), Some(0.5));
    assert_eq!(second.clock_read(ClockId::Realtime), first.clock_read(ClockId::Realtime));
    let (mut expected, mut found) = ([0; 40], [0; 40]);
    first.random_fill(&mut expected);
    second.random_fill(&mut found);
    assert_eq!(found, expected);
    for world in [&mut first, &mut second] {
        world.fd_write(STDOUT, b"done").expect("written");
        world.fd_write(STDERR, b"bye").expect("written");
    }
    assert_eq!(second.sleep(limits::TASK_SLEEP_MAX), Err(Fault::limit(Limit::Sleep)), "all sleep counts");
    let (first, second) = (first.finish(), second.finish());
    assert_eq!(first, second);
    assert_eq!((first.stdout, first.stderr), (b"begun, done".to_vec(), b"note, bye".to_vec()));
}

#[test]
fn what_was_written_before_counts_against_the_same_limits() {
    let mut first = world(100);
    first.fd_write(STDOUT, &[b'x'; 60]).expect("written");
    write(&mut first, "out/a", &[b'x'; 40]).expect("written");
    assert_eq!(end(gone_on(&first).fd_write(STDOUT, b"x")), Exit::Limit(Limit::Output));
    let bytes = first.snapshot(Fuel::default()).expect("small enough");
    let mut smaller = world(99);
    assert!(smaller.restore(Snapshot::decode(&bytes).expect("valid")).is_err());
}

#[test]
fn a_world_that_is_too_large_has_no_snapshot() {
    let mut world = world(u64::MAX);
    let fd = world.path_open(ROOT_FD, b"checkpoint/a", CREATE).expect("open");
    world.fd_set_size(fd, limits::TASK_CHECKPOINT_BYTES_MAX).expect("within its own budget");
    assert_eq!(world.snapshot(Fuel::default()), None, "the rest of it needs some bytes, too");
    world.fd_set_size(fd, limits::TASK_CHECKPOINT_BYTES_MAX - 1000).expect("smaller");
    assert!(world.snapshot(Fuel::default()).is_some());
    world.fd_write(STDOUT, &[0; 1000]).expect("written");
    assert_eq!(world.snapshot(Fuel::default()), None);
}

#[test]
fn a_damaged_snapshot_is_refused_or_another_one_but_never_a_panic() {
    let mut first = world(100);
    first.path_create_directory(ROOT_FD, b"checkpoint/dir").expect("made");
    write(&mut first, "checkpoint/dir/state", b"half").expect("written");
    first.fd_write(STDOUT, b"begun").expect("written");
    let bytes = first.snapshot(Fuel::new(7)).expect("small enough");
    for length in 0..bytes.len() {
        assert_eq!(Snapshot::decode(&bytes[..length]), None, "{length}");
    }
    assert_eq!(Snapshot::decode(&[&bytes[..], b"x"].concat()), None);
    for position in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[position] ^= 1 << bit;
            if let Some(snapshot) = Snapshot::decode(&flipped) {
                let _ = world(100).restore(snapshot);
            }
        }
    }
}

#[test]
fn a_rename_and_a_synced_directory_of_checkpoint_are_its_moments() {
    let mut world = world(100);
    let open = |world: &mut World, path: &[u8], how| world.path_open(ROOT_FD, path, how).expect("open");
    let dir = OpenHow { directory: true, ..READ };
    let file = open(&mut world, b"checkpoint/state.tmp", CREATE);
    world.fd_write(file, b"1").expect("written");
    world.fd_sync(file).expect("synced");
    assert!(!world.take_mark(), "the state has not taken the place of the old one");
    world.path_rename((ROOT_FD, b"checkpoint/state.tmp"), (ROOT_FD, b"checkpoint/state")).expect("moved");
    assert!(world.take_mark());
    assert!(!world.take_mark(), "once");
    world.path_rename((ROOT_FD, b"checkpoint/state"), (ROOT_FD, b"checkpoint/state")).expect("moved");
    assert!(world.take_mark());
    let checkpoint = open(&mut world, b"checkpoint", dir);
    world.fd_sync(checkpoint).expect("synced");
    assert!(world.take_mark());

    write(&mut world, "out/a", b"1").expect("written");
    let out = open(&mut world, b"out", dir);
    world.fd_sync(out).expect("synced");
    world.path_rename((ROOT_FD, b"out/a"), (ROOT_FD, b"out/b")).expect("moved");
    errno(world.path_rename((ROOT_FD, b"checkpoint/none"), (ROOT_FD, b"checkpoint/b")));
    world.fd_sync(STDOUT).expect("nothing to wait for");
    assert_eq!(errno(world.fd_sync(Fd(99))), Errno::Badf);
    assert!(!world.take_mark(), "nothing else is one");
}

#[test]
fn an_unlinked_file_lives_until_it_is_closed() {
    let mut world = world(100);
    write(&mut world, "out/a", b"12345").expect("written");
    let fd = world.path_open(ROOT_FD, b"out/a", READ).expect("open");
    world.path_unlink_file(ROOT_FD, b"out/a").expect("removed");
    write(&mut world, "out/a", b"other").expect("a new one");
    let mut buffer = [0; 10];
    assert_eq!(world.fd_read(fd, &mut buffer), Ok(5));
    assert_eq!(&buffer[..5], b"12345");
    world.fd_close(fd).expect("open");
    assert_eq!(errno(world.fd_close(fd)), Errno::Badf);
}

#[test]
fn renaming_replaces_as_posix_has_it() {
    let mut world = world(100);
    write(&mut world, "out/a", b"new").expect("written");
    write(&mut world, "out/b", b"old").expect("written");
    world.path_rename((ROOT_FD, b"out/a"), (ROOT_FD, b"out/b")).expect("replaced");
    world.path_create_directory(ROOT_FD, b"out/d").expect("made");
    world.path_create_directory(ROOT_FD, b"out/d/e").expect("made");
    let cases: [(&[u8], &[u8], Errno); 5] = [
        (b"out/a", b"out/c", Errno::Noent),
        (b"out/b", b"out/d", Errno::Isdir),
        (b"out/d", b"out/b", Errno::Notdir),
        (b"out/d", b"out/d/e/f", Errno::Inval),
        (b"out/b", b"out/c/", Errno::Notdir),
    ];
    for (from, to, expected) in cases {
        let answer = world.path_rename((ROOT_FD, from), (ROOT_FD, to));
        assert_eq!(errno(answer), expected, "{} {}", from.escape_ascii(), to.escape_ascii());
    }
    world.path_rename((ROOT_FD, b"out/b"), (ROOT_FD, b"out/d/e/f")).expect("moved");
    world.path_rename((ROOT_FD, b"out/d/e"), (ROOT_FD, b"out/x")).expect("moved");
    assert_eq!(world.finish().files, [("x/f".into(), b"new".to_vec())].into());
}

#[test]
fn names_are_safe_on_every_host_and_bounded() {
    let mut world = world(100);
    for name in ["out/a\\b", "out/a\nb", "out/a\0b"] {
        assert_eq!(errno(write(&mut world, name, b"")), Errno::Ilseq, "{name:?}");
    }
    let long = format!("out/{}", "x".repeat(201));
    assert_eq!(end(write(&mut world, &long, b"")), Exit::Limit(Limit::Files));
    let dir = format!("out/{}", "x".repeat(200));
    world.path_create_directory(ROOT_FD, dir.as_bytes()).expect("as long as a name may be");
    let fits = format!("{dir}/{}", "y".repeat(54));
    write(&mut world, &fits, b"").expect("255 bytes");
    let over = format!("{dir}/{}", "y".repeat(55));
    assert_eq!(end(write(&mut world, &over, b"")), Exit::Limit(Limit::Files));
    world.path_create_directory(ROOT_FD, b"out/d").expect("made");
    let answer = world.path_rename((ROOT_FD, dir.as_bytes()), (ROOT_FD, b"out/d/e"));
    assert_eq!(answer, Ok(()), "a shorter way to the same file");
    let answer = world.path_rename((ROOT_FD, b"out/d/e"), (ROOT_FD, &[b"out/", &[b'z'; 201][..]].concat()));
    assert_eq!(end(answer), Exit::Limit(Limit::Files));
}

#[test]
fn files_and_descriptors_are_counted() {
    let mut world = world(100);
    for number in 0..limits::TASK_OUT_FILES_MAX {
        write(&mut world, &format!("out/{number}"), b"").expect("within");
    }
    assert_eq!(end(write(&mut world, "out/more", b"")), Exit::Limit(Limit::Files));
    world.path_unlink_file(ROOT_FD, b"out/0").expect("removed");
    write(&mut world, "out/more", b"").expect("one was freed");
    for _ in 4..limits::TASK_OPEN_FILES_MAX {
        world.path_open(ROOT_FD, b"data/a.txt", READ).expect("within");
    }
    assert_eq!(end(world.path_open(ROOT_FD, b"data/a.txt", READ)), Exit::Limit(Limit::Files));
}

#[test]
fn a_directory_can_be_emptied_while_it_is_read() {
    let mut world = world(100);
    for name in ["a", "b", "c"] {
        write(&mut world, &format!("out/{name}"), b"").expect("written");
    }
    let fd = world.path_open(ROOT_FD, b"out", OpenHow { directory: true, ..READ }).expect("open");
    let first = world.fd_listing(fd, true).expect("entries");
    world.path_unlink_file(ROOT_FD, b"out/a").expect("removed");
    assert_eq!(world.fd_listing(fd, false).expect("entries").len(), first.len());
    assert_eq!(world.fd_listing(fd, true).expect("entries").len(), first.len() - 1);
}

#[test]
fn descriptors_are_reused_lowest_first_and_renumbered() {
    let mut world = world(100);
    let first = world.path_open(ROOT_FD, b"data/a.txt", READ).expect("open");
    let second = world.path_open(ROOT_FD, b"data/b.txt", READ).expect("open");
    assert_eq!((first, second), (Fd(4), Fd(5)));
    world.fd_renumber(second, first).expect("moved");
    let mut buffer = [0; 3];
    assert_eq!(world.fd_read(first, &mut buffer), Ok(3));
    assert_eq!(&buffer, b"bee");
    assert_eq!(errno(world.fd_read(second, &mut buffer)), Errno::Badf);
    assert_eq!(world.path_open(ROOT_FD, b"data/a.txt", READ), Ok(second));
    assert_eq!(errno(world.fd_close(Fd(u32::MAX))), Errno::Badf);
}

#[test]
fn positions_move_and_streams_do_not_seek() {
    let mut world = world(100);
    let fd = world.path_open(ROOT_FD, b"out/a", CREATE).expect("open");
    world.fd_write(fd, b"hello").expect("written");
    assert_eq!(world.fd_seek(fd, -2, Whence::End), Ok(3));
    world.fd_write(fd, b"p!").expect("written");
    assert_eq!(world.fd_seek(fd, -6, Whence::Current).map_err(|_| ()), Err(()));
    assert_eq!(world.fd_seek(fd, 0, Whence::Start), Ok(0));
    let mut buffer = [0; 9];
    assert_eq!(world.fd_read(fd, &mut buffer), Ok(5));
    assert_eq!(&buffer[..5], b"help!");
    let append = OpenFlags::try_from(1).expect("append");
    let fd = world.path_open(ROOT_FD, b"out/a", OpenHow { flags: append, ..CREATE }).expect("open");
    world.fd_write(fd, b"?").expect("written");
    assert_eq!(world.fd_pread(fd, &mut buffer, 4), Ok(2));
    assert_eq!(errno(world.fd_seek(STDOUT, 0, Whence::Current)), Errno::Spipe);
    assert_eq!(errno(world.fd_write(Fd(0), b"x")), Errno::Badf);
    assert_eq!(errno(world.fd_read(STDOUT, &mut buffer)), Errno::Badf);
    assert_eq!(errno(world.fd_read(ROOT_FD, &mut buffer)), Errno::Isdir);
}

#[test]
fn opening_obeys_its_flags() {
    let mut world = world(100);
    write(&mut world, "out/a", b"1").expect("written");
    let exclusive = OpenHow { exclusive: true, ..CREATE };
    assert_eq!(errno(world.path_open(ROOT_FD, b"out/a", exclusive)), Errno::Exist);
    let directory = OpenHow { directory: true, ..READ };
    assert_eq!(errno(world.path_open(ROOT_FD, b"out/a", directory)), Errno::Notdir);
    assert_eq!(errno(world.path_open(ROOT_FD, b"out", OpenHow { write: true, ..READ })), Errno::Isdir);
    assert_eq!(errno(world.path_open(ROOT_FD, b"out/b", READ)), Errno::Noent);
    assert_eq!(errno(world.path_open(ROOT_FD, b"out/b/", CREATE)), Errno::Inval);
    assert_eq!(errno(world.path_open(ROOT_FD, b"out/b/c", CREATE)), Errno::Noent);
    let fd = world.path_open(ROOT_FD, b"out/a", READ).expect("open");
    assert_eq!(errno(world.fd_write(fd, b"x")), Errno::Badf);
}

#[test]
fn the_log_is_cut_without_a_word() {
    let mut world = world(0);
    let line = [b'x'; 1000];
    for _ in 0..100 {
        world.fd_write(STDERR, &line).expect("never an error");
    }
    assert_eq!(world.finish().stderr.len(), limits::TASK_STDERR_BYTES_MAX);
}

#[test]
fn progress_is_the_last_number_written() {
    let mut world = world(0);
    let write = |world: &mut World, text: &str| super::tests::write(world, "progress", text.as_bytes());
    assert_eq!(world.progress(), None);
    for (text, expected) in
        [("0.25", 0.25), ("0.3\n0.5\n", 0.5), ("NaN", 0.5), ("later", 0.5), ("7", 1.0), ("-1", 0.0)]
    {
        write(&mut world, text).expect("taken");
        assert_eq!(world.progress(), Some(expected), "{text}");
    }
    assert_eq!(read(&mut world, "progress"), Ok(vec![]));
}

#[test]
fn standard_input_is_read_once() {
    let mut world = world(0);
    let mut buffer = [0; 3];
    assert_eq!(world.fd_readable_bytes(Fd(0)), Ok(5));
    assert_eq!(world.fd_read(Fd(0), &mut buffer), Ok(3));
    assert_eq!(world.fd_read(Fd(0), &mut buffer), Ok(2));
    assert_eq!(world.fd_read(Fd(0), &mut buffer), Ok(0));
}
