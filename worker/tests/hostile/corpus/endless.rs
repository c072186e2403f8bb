//! Programs that never end by themselves: whatever they do meanwhile must cost fuel.

use std::time::Duration;

use talka_core::{
    outcome::{Limit, NoResult},
    quantities::Bytes as Size,
};

use super::super::{
    guest,
    row::{Expected, Row, limit},
};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = loops();
    rows.extend(bulk());
    rows.extend(host_calls());
    rows.push(
        Row::text("a deadline", "", "(loop (br 0))", Expected::NoResult(NoResult::Deadline))
            .fuel(1 << 50)
            .deadline(Duration::from_millis(200)),
    );
    rows
}

fn out_of_fuel(name: &'static str, fields: &str, start: &str) -> Row {
    Row::text(name, fields, start, limit(Limit::Fuel))
}

fn loops() -> Vec<Row> {
    let nop = "(func $f) (type $t (func)) (table funcref (elem $f))";
    vec![
        out_of_fuel("loop", "", "(loop (br 0))"),
        out_of_fuel("loop in the start function", "(func $init (loop (br 0))) (start $init)", ""),
        out_of_fuel("loop of one block", "", "(loop (nop) (br_if 0 (i32.const 1)))"),
        out_of_fuel("loop through calls", nop, "(loop (call $f) (br 0))"),
        out_of_fuel("loop through a table", nop, "(loop (call_indirect (type $t) (i32.const 0)) (br 0))"),
        out_of_fuel(
            "loop through br_table",
            "",
            "(local $i i32)
            (loop
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_table 0 0 0 (local.get $i)))",
        ),
        out_of_fuel(
            "loop around a call never made",
            nop,
            "(local $no i32) (loop (if (local.get $no) (then (call $f))) (br 0))",
        ),
        out_of_fuel(
            "loop around a br_table past a call",
            nop,
            "(local $no i32) (loop $again (block $past (br_table $past $again (local.get $no)) (call $f)) (br $again))",
        ),
        out_of_fuel(
            "loop around a loop that never turns",
            "",
            "(local $no i32)
            (loop $outer
                (loop $inner
                    (br_if $outer (i32.eqz (local.get $no)))
                    (br $inner)))",
        ),
        out_of_fuel(
            "two loops that take turns",
            "",
            "(local $i i32)
            (loop $outer
                (loop $inner
                    (local.set $i (i32.add (local.get $i) (i32.const 1)))
                    (br_if $inner (i32.and (local.get $i) (i32.const 1))))
                (br $outer))",
        ),
        out_of_fuel("loop that carries values", "", "(i32.const 0) (loop (param i32) (br 0))"),
        out_of_fuel(
            "loop in 10000 calls",
            "(func $f (param $n i32)
                (if (local.get $n) (then (call $f (i32.sub (local.get $n) (i32.const 1)))) (else (loop (br 0)))))",
            "(call $f (i32.const 10000))",
        ),
        out_of_fuel(
            "tree of calls",
            "(func $f (param $n i32)
                (if (local.get $n) (then
                    (call $f (i32.sub (local.get $n) (i32.const 1)))
                    (call $f (i32.sub (local.get $n) (i32.const 1))))))",
            "(call $f (i32.const 60))",
        ),
    ]
}

/// Operators that do much for their length: over the whole memory, again and again.
fn bulk() -> Vec<Row> {
    let whole = Size::mib(64);
    let of_64_mib = |name, fields: &'static str, start: String| {
        let module = move || guest::program_of("(memory (export \"memory\") 1024)", fields, &start);
        Row::new(name, module, limit(Limit::Fuel)).memory(whole).fuel(200_000_000)
    };
    let fill = "(memory.fill (i32.const 0) (i32.const 0) (i32.const 67108864))";
    let table =
        "(type $t (func)) (table $a 200000 funcref) (table $b 200000 funcref) (elem $e func $f) (func $f)";
    vec![
        of_64_mib("fill in a loop", "", format!("(loop {fill} (br 0))")),
        of_64_mib(
            "copy in a loop",
            "",
            "(loop (memory.copy (i32.const 0) (i32.const 1) (i32.const 67108863)) (br 0))".into(),
        ),
        of_64_mib("fill in a straight line", "", fill.repeat(8000)),
        out_of_fuel(
            "init in a loop",
            "(data $d \"0123456789abcdef0123456789abcdef\")",
            "(loop (memory.init $d (i32.const 0) (i32.const 0) (i32.const 32)) (br 0))",
        ),
        out_of_fuel(
            "table fill in a loop",
            table,
            "(loop (table.fill $a (i32.const 0) (ref.func $f) (i32.const 200000)) (br 0))",
        ),
        out_of_fuel(
            "table copy in a loop",
            table,
            "(loop (table.copy $a $b (i32.const 0) (i32.const 0) (i32.const 200000)) (br 0))",
        ),
        out_of_fuel(
            "table init in a loop",
            table,
            "(loop (table.init $a $e (i32.const 0) (i32.const 0) (i32.const 1)) (br 0))",
        ),
        out_of_fuel("growing by nothing", "", "(loop (drop (memory.grow (i32.const 0))) (br 0))")
            .fuel(20_000_000),
        out_of_fuel("growing in vain", "", "(loop (drop (memory.grow (i32.const -1))) (br 0))")
            .fuel(20_000_000),
        out_of_fuel(
            "growing a table by nothing",
            table,
            "(loop (drop (table.grow $a (ref.null func) (i32.const 0))) (br 0))",
        )
        .fuel(20_000_000),
        out_of_fuel(
            "growing a table in vain",
            table,
            "(loop (drop (table.grow $a (ref.null func) (i32.const -1))) (br 0))",
        ),
    ]
}

/// Calls of the host that make it work for as little as they can.
fn host_calls() -> Vec<Row> {
    let storm = |name, setup: String, call: &str| {
        let start = format!("(local $i i32) (local $fd i32) {setup} (loop {call} (br 0))");
        out_of_fuel(name, "(data (i32.const 200) \"out/dout/e\") (data (i32.const 300) \"a/../\")", &start)
    };
    let plain = |name, call| storm(name, String::new(), call);
    // 900 files below `dir`.
    let full = |dir: &str| {
        let make =
            "(call $numbered (local.get $i))
            (call $ok (call $path_open (local.get $fd) (i32.const 0) (i32.const 104) (i32.const 4) (i32.const 1)
                (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 24)))
            (call $ok (call $fd_close (i32.load (i32.const 24))))";
        format!("{dir} {}", guest::repeat(900, make))
    };
    // The helper wants rights to write, which a directory does not give: this one only reads.
    let open_dir = |path: u32, length: u32| {
        format!(
            "(call $ok (call $path_open (i32.const 3) (i32.const 0) (i32.const {path}) (i32.const {length})
                (i32.const 2) (i64.const 16386) (i64.const 0) (i32.const 0) (i32.const 24)))
            (local.set $fd (i32.load (i32.const 24)))"
        )
    };
    let make_dir = "(call $ok (call $path_create_directory (i32.const 3) (i32.const 200) (i32.const 5)))";
    vec![
        plain("yielding", "(drop (call $sched_yield))"),
        plain(
            "writing nothing",
            "(drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 16)))",
        ),
        plain(
            "writing 1024 times nothing",
            "(drop (call $fd_write (i32.const 1) (i32.const 4096) (i32.const 1024) (i32.const 16)))",
        ),
        plain("reading at the end", "(drop (call $read (i32.const 4096) (i32.const 65536)))"),
        plain("looking at the clock", "(drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 16)))"),
        plain(
            "waiting for nothing",
            "(drop (call $poll_oneoff (i32.const 4096) (i32.const 60000) (i32.const 1024) (i32.const 16)))",
        ),
        plain("random bytes for the whole memory", "(drop (call $random_get (i32.const 0) (i32.const 131072)))"),
        plain("asking for no socket", "(drop (call $sock_shutdown (i32.const 3) (i32.const 0)))"),
        storm(
            "a path of 4096 bytes",
            format!(
                "{make_dir} {}",
                guest::repeat(
                    819,
                    "(memory.copy (i32.add (i32.const 4096) (i32.mul (local.get $i) (i32.const 5))) (i32.const 204) (i32.const 1))
                    (memory.copy (i32.add (i32.const 4097) (i32.mul (local.get $i) (i32.const 5))) (i32.const 301) (i32.const 4))"
                )
            ) + &open_dir(200, 3),
            "(call $ok (call $path_filestat_get (local.get $fd) (i32.const 0) (i32.const 4096) (i32.const 4095)
                (i32.const 300)))",
        ),
        storm(
            "listing 900 files",
            full(&open_dir(200, 3)),
            "(call $ok (call $fd_readdir (local.get $fd) (i32.const 4096) (i32.const 1) (i64.const 0)
                (i32.const 16)))",
        ),
        storm(
            "renaming 900 files at once",
            full(&format!("{make_dir} {}", open_dir(200, 5))),
            "(call $ok (call $path_rename (i32.const 3) (i32.const 200) (i32.const 5)
                (i32.const 3) (i32.const 205) (i32.const 5)))
            (call $ok (call $path_rename (i32.const 3) (i32.const 205) (i32.const 5)
                (i32.const 3) (i32.const 200) (i32.const 5)))",
        ),
    ]
}
