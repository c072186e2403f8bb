//! Programs that want all the memory, and those that look for what others left in it.

use talka_core::{
    outcome::{Limit, Trap},
    quantities::Bytes as Size,
};

use super::super::{
    guest,
    row::{Expected, OK, Row, limit, trap},
};

pub(super) fn rows() -> Vec<Row> {
    let with_memory = |name, memory: &'static str, start: &'static str, expected| {
        Row::new(name, move || guest::program_of(memory, "", start), expected)
    };
    // Each page is written to as soon as it is there. Ends with the number of pages as 4 bytes.
    let grow = "(local $page i32)
        (block $full
            (loop
                (local.set $page (memory.grow (i32.const 1)))
                (br_if $full (i32.eq (local.get $page) (i32.const -1)))
                (memory.fill (i32.mul (local.get $page) (i32.const 65536)) (i32.const 1) (i32.const 65536))
                (br 0)))
        (i32.store (i32.const 0) (memory.size))
        (call $put (i32.const 1) (i32.const 0) (i32.const 4))";
    let pages = |count: u32| Expected::Writes(count.to_le_bytes().to_vec());
    vec![
        with_memory("growing to the limit", "(memory (export \"memory\") 2)", grow, pages(1024))
            .memory(Size::mib(64)),
        with_memory(
            "growing to the declared maximum",
            "(memory (export \"memory\") 2 100)",
            grow,
            pages(100),
        ),
        with_memory(
            "growing at once",
            "(memory (export \"memory\") 2)",
            "(call $is (memory.grow (i32.const 65534)) (i32.const -1))
            (call $is (memory.grow (i32.const 0x7fffffff)) (i32.const -1))
            (call $is (memory.grow (i32.const -1)) (i32.const -1))
            (call $is (memory.grow (i32.const 254)) (i32.const 2))
            (call $is (memory.grow (i32.const 1)) (i32.const -1))
            (memory.fill (i32.const 0) (i32.const 1) (i32.const 16777216))",
            OK,
        ),
        with_memory("1 GiB declared", "(memory (export \"memory\") 16384)", "", limit(Limit::Memory)),
        with_memory("4 GiB declared", "(memory (export \"memory\") 65536)", "", limit(Limit::Memory)),
        // What a task may have, it need not use: the two pages that are touched are all that is taken.
        with_memory(
            "4 GiB allowed",
            "(memory (export \"memory\") 65536)",
            "(i32.store (i32.const 4) (i32.const 1)) (i32.store (i32.const -4) (i32.const 1))",
            OK,
        )
        .memory(Size::mib(4096)),
        with_memory(
            "a load at 8 GiB",
            "(memory (export \"memory\") 2)",
            "(drop (i64.load offset=4294967295 (i32.const -1)))",
            trap(Trap::MemoryOutOfBounds),
        ),
        with_memory(
            "a store behind the end",
            "(memory (export \"memory\") 2)",
            "(i64.store (i32.const 131065) (i64.const -1))",
            trap(Trap::MemoryOutOfBounds),
        ),
        with_memory(
            "a fill that wraps around",
            "(memory (export \"memory\") 2)",
            "(memory.fill (i32.const -8) (i32.const 1) (i32.const 16))",
            trap(Trap::MemoryOutOfBounds),
        ),
        with_memory(
            "a copy that wraps around",
            "(memory (export \"memory\") 2)",
            "(memory.copy (i32.const 0) (i32.const -8) (i32.const 16))",
            trap(Trap::MemoryOutOfBounds),
        ),
        Row::text(
            "data behind the end",
            "(data (i32.const 131065) \"12345678\")",
            "",
            trap(Trap::MemoryOutOfBounds),
        ),
        Row::text(
            "data that wraps around",
            "(data (i32.const -1) \"12345678\")",
            "",
            trap(Trap::MemoryOutOfBounds),
        ),
        leftovers(),
    ]
}

/// The first task fills memory, table and globals; the next one looks whether anything of it is left, in old
/// pages and in new ones; and so on.
fn leftovers() -> Row {
    let fields = "(type $t (func)) (table $t 1000 funcref) (elem declare func $f) (func $f)
        (global $g (mut i64) (i64.const 0)) (global $v (mut v128) (v128.const i64x2 0 0))";
    let start = "(local $i i32)
        (drop (memory.grow (i32.const 100)))
        (if (call $read (i32.const 2048) (i32.const 1))
            (then
                (memory.fill (i32.const 0) (i32.const 0xaa) (i32.const 6684672))
                (table.fill $t (i32.const 0) (ref.func $f) (i32.const 1000))
                (global.set $g (i64.const -1)) (global.set $v (v128.const i64x2 -1 -1)))
            (else
                (local.set $i (i32.const 128))
                (loop $again
                    (if (i64.ne (i64.load (local.get $i)) (i64.const 0)) (then unreachable))
                    (local.set $i (i32.add (local.get $i) (i32.const 8)))
                    (br_if $again (i32.lt_u (local.get $i) (i32.const 6684672))))
                (if (i64.ne (global.get $g) (i64.const 0)) (then unreachable))
                (if (v128.any_true (global.get $v)) (then unreachable))
                (local.set $i (i32.const 0))
                (loop $again
                    (if (i32.eqz (ref.is_null (table.get $t (local.get $i)))) (then unreachable))
                    (local.set $i (i32.add (local.get $i) (i32.const 1)))
                    (br_if $again (i32.lt_u (local.get $i) (i32.const 1000))))
                (call $proc_exit (i32.const 0))))";
    Row::text(
        "what another task left in memory",
        fields,
        start,
        super::super::row::checked(|outcomes| {
            let exits: Vec<_> =
                outcomes.iter().map(|outcome| outcome.as_ref().map(|run| run.exit.is_ok())).collect();
            if exits.iter().all(|exit| *exit == Ok(true)) {
                Ok(())
            } else {
                Err(format!("ended with {outcomes:?}"))
            }
        }),
    )
    .inputs(&["w", "", "w", "", ""])
}
