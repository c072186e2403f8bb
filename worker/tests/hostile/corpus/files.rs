//! Ways out of the world's files, and games with descriptors and sizes.

use std::fmt::Write as _;

use talka_core::{
    outcome::{Limit, Trap},
    quantities::Bytes as Size,
};

use super::super::{
    guest,
    row::{Expected, OK, Row, limit, trap},
};

/// Error numbers of WASI.
mod errno {
    pub(super) const BADF: u32 = 8;
    pub(super) const ILSEQ: u32 = 25;
    pub(super) const INVAL: u32 = 28;
    pub(super) const NOENT: u32 = 44;
    pub(super) const NOTDIR: u32 = 54;
    pub(super) const NOTEMPTY: u32 = 55;
    pub(super) const OVERFLOW: u32 = 61;
    pub(super) const PERM: u32 = 63;
    pub(super) const ROFS: u32 = 69;
    pub(super) const SPIPE: u32 = 70;
    pub(super) const XDEV: u32 = 75;
    pub(super) const NOTCAPABLE: u32 = 76;
}

use errno::{BADF, ILSEQ, INVAL, NOENT, NOTCAPABLE, NOTDIR, NOTEMPTY, OVERFLOW, PERM, ROFS, SPIPE, XDEV};

/// Calls and what each must answer.
fn answers(calls: &[(String, u32)]) -> String {
    calls
        .iter()
        .map(|(call, errno)| format!("(call $is (call {call}) (i32.const {errno}))\n"))
        .collect::<Vec<_>>()
        .concat()
}

/// A call with these arguments.
fn call(name: &str, arguments: &[i64]) -> String {
    let function = talka_profile::wasi_function(name).expect(name);
    let mut text = format!("${name}");
    for (word, argument) in function.params.iter().zip(arguments) {
        write!(text, " ({word}.const {argument})").expect("a string");
    }
    text
}

/// Opens `out/f`, which is then descriptor 4.
const OPEN: &str = "(call $is (call $open (i32.const 200) (i32.const 5) (i32.const 1)) (i32.const 4))";
const PATHS: &str = "(data (i32.const 200) \"out/f\") (data (i32.const 208) \"out/g\")
    (data (i32.const 216) \"/etc/passwd\") (data (i32.const 232) \"out/d\") (data (i32.const 240) \"out/d/e\")
    (data (i32.const 248) \"checkpoint/f\") (data (i32.const 264) \"progress\") (data (i32.const 272) \"data/f\")";

pub(super) fn rows() -> Vec<Row> {
    let mut rows = vec![paths(), links()];
    rows.extend(descriptors());
    rows.extend(sizes());
    rows.extend(vectors());
    rows
}

/// Whatever is opened is below the root, however it is named.
fn paths() -> Row {
    let table: &[(&str, u32)] = &[
        ("../etc/passwd", NOTCAPABLE),
        ("..", NOTCAPABLE),
        ("/etc/passwd", NOTCAPABLE),
        ("/", NOTCAPABLE),
        ("//etc", NOTCAPABLE),
        ("out/../../etc/passwd", NOTCAPABLE),
        ("out/./.././../etc", NOTCAPABLE),
        ("data/../..", NOTCAPABLE),
        ("etc/passwd", NOENT),
        ("proc/self/environ", NOENT),
        ("dev/null", NOENT),
        ("", NOENT),
        ("etc", ROFS),
        ("data/f", ROFS),
        ("progress/x", NOTDIR),
        ("out/\\00", ILSEQ),
        ("out/\\ff\\fe", ILSEQ),
        ("out/a\\00b", ILSEQ),
        ("..\\00", ROFS),
    ];
    let (mut fields, mut start, mut at) = (String::new(), String::new(), 1024);
    for (path, errno) in table {
        let length = path.len() - 2 * path.matches('\\').count();
        write!(fields, "(data (i32.const {at}) \"{path}\")").expect("a string");
        let open = call("path_open", &[3, 0, at, i64::try_from(length).expect("short"), 1, 66, 0, 0, 20]);
        start.push_str(&answers(&[(open, *errno)]));
        at += 64;
    }
    Row::text("paths that lead out", fields, start, OK)
}

fn links() -> Row {
    let start = answers(&[
        (call("path_symlink", &[216, 11, 3, 208, 5]), PERM),
        (call("path_link", &[3, 0, 200, 5, 3, 208, 5]), PERM),
        (call("path_link", &[3, 1, 216, 11, 3, 208, 5]), NOTCAPABLE),
        (call("path_readlink", &[3, 200, 5, 4096, 64, 20]), INVAL),
        (call("path_readlink", &[3, 216, 11, 4096, 64, 20]), NOTCAPABLE),
        (call("path_unlink_file", &[3, 264, 8]), ROFS),
        (call("path_remove_directory", &[3, 200, 3]), NOTEMPTY),
        (call("path_rename", &[3, 200, 3, 3, 208, 5]), ROFS),
        (call("path_rename", &[3, 200, 5, 3, 272, 6]), XDEV),
        (call("path_rename", &[3, 200, 5, 3, 248, 12]), XDEV),
        (call("path_rename", &[3, 200, 5, 3, 216, 11]), NOTCAPABLE),
        (call("path_create_directory", &[3, 232, 5]), 0),
        (call("path_rename", &[3, 232, 5, 3, 240, 7]), INVAL),
    ]);
    Row::text("links and renames that lead out", PATHS, format!("{OPEN} {start}"), OK)
}

fn descriptors() -> Vec<Row> {
    let renumbering = answers(&[
        (call("fd_renumber", &[4, 99_999]), BADF),
        (call("fd_renumber", &[99_999, 4]), BADF),
        (call("fd_renumber", &[4, -1]), BADF),
        (call("fd_renumber", &[4, 4]), 0),
        // The root as standard output: nothing can be written to it.
        (call("fd_renumber", &[3, 1]), 0),
        (call("fd_write", &[1, 8, 1, 16]), BADF),
        (call("fd_close", &[3]), BADF),
        (call("fd_renumber", &[4, 0]), 0),
        (call("fd_read", &[0, 8, 1, 16]), 0),
        (call("fd_close", &[0]), 0),
        (call("fd_close", &[0]), BADF),
        (call("fd_close", &[1]), 0),
        (call("fd_close", &[2]), 0),
        (call("path_open", &[3, 0, 200, 5, 1, 66, 0, 0, 20]), BADF),
        (call("path_open", &[1, 0, 200, 5, 1, 66, 0, 0, 20]), BADF),
    ]);
    let streams = answers(&[
        (call("fd_seek", &[0, 0, 0, 16]), SPIPE),
        (call("fd_tell", &[0, 16]), SPIPE),
        (call("fd_pread", &[0, 8, 1, 0, 16]), SPIPE),
        (call("fd_pwrite", &[1, 8, 1, 0, 16]), SPIPE),
        (call("fd_read", &[1, 8, 1, 16]), BADF),
        (call("fd_write", &[0, 8, 1, 16]), BADF),
        (call("fd_filestat_set_size", &[1, 0]), INVAL),
        (call("fd_allocate", &[1, 0, 1]), INVAL),
        (call("fd_readdir", &[0, 4096, 64, 0, 16]), NOTDIR),
        (call("path_open", &[0, 0, 200, 5, 1, 66, 0, 0, 20]), NOTDIR),
        (call("fd_prestat_get", &[4, 16]), BADF),
        (call("fd_readdir", &[3, 4096, 64, -1, 16]), 0),
    ]);
    vec![
        Row::text("games with descriptors", PATHS, format!("{OPEN} {renumbering}"), OK),
        Row::text("streams as files", PATHS, format!("{OPEN} {streams}"), OK),
    ]
}

fn sizes() -> Vec<Row> {
    const HUGE: i64 = 1 << 62;
    let file = |name, calls: &[(String, u32)], expected| {
        Row::text(
            name,
            PATHS,
            format!("{OPEN} (call $buffer (i32.const 0) (i32.const 1)) {}", answers(calls)),
            expected,
        )
    };
    let far = &[
        (call("fd_seek", &[4, i64::MAX, 0, 16]), 0),
        (call("fd_seek", &[4, i64::MAX, 1, 16]), 0),
        (call("fd_seek", &[4, i64::MAX, 1, 16]), INVAL),
        (call("fd_seek", &[4, -1, 0, 16]), INVAL),
        (call("fd_seek", &[4, i64::MIN, 2, 16]), INVAL),
        (call("fd_seek", &[4, 0, 3, 16]), INVAL),
        (call("fd_seek", &[4, 0, -1, 16]), INVAL),
        (call("fd_read", &[4, 8, 1, 16]), 0),
        (call("fd_pread", &[4, 8, 1, -1, 16]), 0),
        (call("fd_pwrite", &[4, 8, 1, -1, 16]), OVERFLOW),
        (call("fd_allocate", &[4, -1, 2]), INVAL),
        (call("fd_allocate", &[4, -1, -1]), INVAL),
    ];
    let huge = |name, calls: &[(String, u32)]| file(name, calls, limit(Limit::Output));
    vec![
        file("positions behind the end", far, OK),
        huge("a write at 2^62", &[(call("fd_pwrite", &[4, 8, 1, HUGE, 16]), 0)]),
        huge(
            "a seek and a write at 2^62",
            &[(call("fd_seek", &[4, HUGE, 0, 16]), 0), (call("fd_write", &[4, 8, 1, 16]), 0)],
        ),
        huge("a size of 2^62", &[(call("fd_filestat_set_size", &[4, HUGE]), 0)]),
        huge("a size of 2^64 - 1", &[(call("fd_filestat_set_size", &[4, -1]), 0)]),
        huge("an allocation of 2^40", &[(call("fd_allocate", &[4, 0, 1 << 40]), 0)]),
        truncated(),
        holes(),
        Row::text(
            "removed files that stay open",
            PATHS,
            format!(
                "(local $i i32) {}",
                guest::repeat(
                    100,
                    "(call $put (call $open (i32.const 200) (i32.const 5) (i32.const 1)) (i32.const 0) (i32.const 65536))
                    (call $ok (call $path_unlink_file (i32.const 3) (i32.const 200) (i32.const 5)))"
                )
            ),
            limit(Limit::Output),
        ),
        Row::text(
            "files made and removed",
            PATHS,
            format!(
                "(local $i i32) (local $fd i32) {}",
                guest::repeat(
                    2000,
                    "(local.set $fd (call $open (i32.const 200) (i32.const 5) (i32.const 1)))
                    (call $put (local.get $fd) (i32.const 0) (i32.const 65536))
                    (call $ok (call $path_unlink_file (i32.const 3) (i32.const 200) (i32.const 5)))
                    (call $ok (call $fd_close (local.get $fd)))"
                )
            ),
            OK,
        ),
    ]
}

/// Each of 300 files is made large and then empty, so that their sizes never add up to more than the limit.
fn truncated() -> Row {
    let one = "(call $numbered (local.get $i))
        (local.set $fd (call $open (i32.const 100) (i32.const 8) (i32.const 1)))
        (call $ok (call $fd_filestat_set_size (local.get $fd) (i64.const 15728640)))
        (call $ok (call $fd_filestat_set_size (local.get $fd) (i64.const 0)))
        (call $ok (call $fd_close (local.get $fd)))";
    let start = format!("(local $i i32) (local $fd i32) {}", guest::repeat(300, one));
    Row::text("files made large and empty", "", start, OK).output(Size::mib(16)).fuel(10_000_000_000)
}

/// Each of 500 files is made a little larger than the one before, and then small, with something kept behind it: if
/// all came from one heap, none would fit a hole that an earlier one left.
fn holes() -> Row {
    let one = "(call $numbered (local.get $i))
        (local.set $fd (call $open (i32.const 100) (i32.const 8) (i32.const 1)))
        (call $ok (call $fd_filestat_set_size (local.get $fd)
            (i64.add (i64.const 262144) (i64.mul (i64.const 8192) (i64.extend_i32_u (local.get $i))))))
        (call $numbered (i32.add (local.get $i) (i32.const 500)))
        (local.set $other (call $open (i32.const 100) (i32.const 8) (i32.const 1)))
        (call $put (local.get $other) (i32.const 0) (i32.const 256))
        (call $ok (call $fd_filestat_set_size (local.get $fd) (i64.const 16)))
        (call $ok (call $fd_close (local.get $fd)))
        (call $ok (call $fd_close (local.get $other)))";
    // Freeing something large first teaches some allocators to serve the large from the heap, too.
    let start = format!(
        "(local $i i32) (local $fd i32) (local $other i32)
        (local.set $fd (call $open (i32.const 200) (i32.const 5) (i32.const 1)))
        (call $ok (call $fd_filestat_set_size (local.get $fd) (i64.const 15728640)))
        (call $ok (call $fd_close (local.get $fd)))
        (call $ok (call $path_unlink_file (i32.const 3) (i32.const 200) (i32.const 5)))
        {}",
        guest::repeat(450, one)
    );
    Row::text("files that leave holes", PATHS, start, OK).output(Size::mib(16)).fuel(10_000_000_000)
}

fn vectors() -> Vec<Row> {
    let pair = |at: u32, pointer: u32, length: u32| {
        format!(
            "(i32.store (i32.const {at}) (i32.const {pointer})) (i32.store (i32.const {}) (i32.const {length}))",
            at + 4
        )
    };
    vec![
        Row::text(
            "vectors that overlap",
            "",
            pair(2048, 4096, 4)
                + &pair(2056, 4098, 4)
                + &answers(&[(call("fd_read", &[0, 2048, 2, 16]), 0)])
                + "(call $put (i32.const 1) (i32.const 4096) (i32.const 6))",
            Expected::Writes(b"abefgh".to_vec()),
        )
        .inputs(&["abcdefgh", "abcdefgh"]),
        Row::text(
            "vectors that are read over",
            "",
            pair(2048, 2048, 16)
                + &pair(2056, 4096, 4)
                + &answers(&[(call("fd_read", &[0, 2048, 2, 16]), 0)]),
            trap(Trap::BadPointer),
        )
        .inputs(&["zzzzzzzzzzzzzzzzzzzzzzzz", "zzzzzzzzzzzzzzzzzzzzzzzz"]),
        Row::text(
            "4 G vectors",
            "",
            answers(&[
                (call("fd_read", &[0, 2048, -1, 16]), INVAL),
                (call("fd_write", &[1, 2048, -1, 16]), INVAL),
                (call("fd_write", &[1, 2048, 1025, 16]), INVAL),
                (call("fd_write", &[1, 2048, i64::from(i32::MIN), 16]), INVAL),
            ]),
            OK,
        ),
        Row::text(
            "vectors at the end of memory",
            "",
            answers(&[(call("fd_write", &[1, 131_068, 1, 16]), 0)]),
            trap(Trap::BadPointer),
        ),
        Row::text(
            "1024 vectors of 4 GiB",
            "",
            "(memory.fill (i32.const 2048) (i32.const 0xff) (i32.const 8192))".to_owned()
                + &answers(&[(call("fd_write", &[1, 2048, 1024, 16]), 0)]),
            trap(Trap::BadPointer),
        ),
    ]
}
