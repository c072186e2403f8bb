//! Floods: standard output, standard error, files, progress, checkpoints.

use talka_core::{
    limits,
    outcome::{Exit, Limit},
    quantities::Bytes as Size,
};

use super::super::{
    guest,
    row::{Expected, OK, Row, checked, limit},
};

/// Opens the path at 200.
fn open(length: u32) -> String {
    format!(
        "(local $fd i32) (local $i i32) (local.set $fd (call $open (i32.const 200) (i32.const {length}) (i32.const 1)))"
    )
}

fn path(text: &str) -> String {
    format!("(data (i32.const 200) \"{text}\")")
}

pub(super) fn rows() -> Vec<Row> {
    let flood = "(loop (call $put (local.get $fd) (i32.const 4096) (i32.const 65536)) (br 0))";
    let vectors = "(local $i i32) (memory.fill (i32.const 4096) (i32.const 0) (i32.const 16384))".to_owned()
        + &guest::repeat(
            1024,
            "(i32.store (i32.add (i32.const 4100) (i32.mul (local.get $i) (i32.const 8))) (i32.const 131072))",
        );
    vec![
        Row::text(
            "standard output without end",
            "",
            "(loop (call $put (i32.const 1) (i32.const 4096) (i32.const 65536)) (br 0))",
            limit(Limit::Output),
        ),
        Row::text(
            "standard output byte by byte",
            "",
            "(loop (call $put (i32.const 1) (i32.const 4096) (i32.const 1)) (br 0))",
            limit(Limit::Output),
        )
        .output(Size::kib(64)),
        Row::text(
            "standard output in one call",
            "",
            vectors.clone()
                + "(drop (call $fd_write (i32.const 1) (i32.const 4096) (i32.const 1024) (i32.const 16)))",
            limit(Limit::Output),
        ),
        Row::text(
            "output to its limit",
            "",
            "(call $put (i32.const 1) (i32.const 4096) (i32.const 4096))",
            Expected::Writes(vec![0; 4096]),
        )
        .output(Size::new(4096)),
        Row::text(
            "standard error without end",
            "",
            "(loop (call $put (i32.const 2) (i32.const 4096) (i32.const 65536)) (br 0))",
            checked(|outcomes| {
                let kept = |run: &talka_core::outcome::Execution| (run.exit, run.output.stderr.len());
                let expected = (Exit::Limit(Limit::Fuel), limits::TASK_STDERR_BYTES_MAX);
                let surprise = outcomes.iter().find(|outcome| outcome.as_ref().map(kept) != Ok(expected));
                surprise.map_or(Ok(()), |outcome| Err(format!("ended with {:?}", outcome.as_ref().map(kept))))
            }),
        ),
        Row::text(
            "standard error in one call",
            "",
            vectors + "(loop (drop (call $fd_write (i32.const 2) (i32.const 4096) (i32.const 1024) (i32.const 16))) (br 0))",
            limit(Limit::Fuel),
        ),
        Row::text("a file without end", path("out/f"), open(5) + flood, limit(Limit::Output)),
        Row::text(
            "output and files together",
            path("out/f"),
            open(5)
                + "(call $put (i32.const 1) (i32.const 0) (i32.const 60000))
                (call $put (local.get $fd) (i32.const 0) (i32.const 60000))",
            limit(Limit::Output),
        )
        .output(Size::new(119_999)),
        Row::text(
            "files without end",
            "",
            "(local $i i32)
            (loop
                (call $numbered (local.get $i))
                (call $ok (call $fd_close (call $open (i32.const 100) (i32.const 8) (i32.const 1))))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br 0))",
            limit(Limit::Files),
        ),
        Row::text(
            "folders in folders",
            path("out"),
            "(local $length i32) (local.set $length (i32.const 203))
            (loop
                (i32.store16 (local.get $length) (i32.const 0x612f))
                (local.set $length (i32.add (local.get $length) (i32.const 2)))
                (call $ok (call $path_create_directory (i32.const 3) (i32.const 200)
                    (i32.sub (local.get $length) (i32.const 200))))
                (br 0))",
            limit(Limit::Files),
        ),
        Row::text(
            "a name of 201 bytes",
            path(&format!("out/{}", "n".repeat(201))),
            "(drop (call $open (i32.const 200) (i32.const 205) (i32.const 1)))",
            limit(Limit::Files),
        ),
        Row::text(
            "a path of 100000 bytes",
            path("out/f"),
            "(memory.fill (i32.const 200) (i32.const 97) (i32.const 100000))
            (call $is (call $path_create_directory (i32.const 3) (i32.const 200) (i32.const 100000)) (i32.const 37))",
            OK,
        ),
        Row::text(
            "open files without end",
            path("out/f"),
            "(loop (drop (call $open (i32.const 200) (i32.const 5) (i32.const 1))) (br 0))",
            limit(Limit::Files),
        ),
        Row::text(
            "progress without end",
            path("progress"),
            open(8)
                + "(loop
                (call $numbered (local.get $i))
                (i32.store16 (i32.const 102) (i32.const 0x2e30))
                (call $put (local.get $fd) (i32.const 102) (i32.const 6))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br 0))",
            limit(Limit::Fuel),
        ),
        Row::text(
            "nonsense as progress",
            path("progress") + "(data (i32.const 300) \"nan inf -1e999 1e999 0x1p4 ,,, \\ff\\00 99999999999999999999\")",
            open(8) + "(loop (call $put (local.get $fd) (i32.const 300) (i32.const 60)) (br 0))",
            limit(Limit::Fuel),
        )
        .fuel(20_000_000),
        // A checkpoint has a budget of its own beside the memory limit: that is what it takes.
        Row::text(
            "a checkpoint without end",
            path("checkpoint/f"),
            open(12)
                + "(call $buffer (i32.const 0) (i32.const 131072))
                (loop (br_if 0 (i32.eqz
                    (call $fd_write (local.get $fd) (i32.const 8) (i32.const 1) (i32.const 16)))))
                (call $is (call $fd_write (local.get $fd) (i32.const 8) (i32.const 1) (i32.const 16)) (i32.const 51))",
            OK,
        )
        .extra(Size::new(limits::TASK_CHECKPOINT_BYTES_MAX)),
        Row::text(
            "memory, output and checkpoint, all full",
            path("checkpoint/f"),
            open(12)
                + "(drop (memory.grow (i32.const 254)))
                (memory.fill (i32.const 4096) (i32.const 1) (i32.const 16773120))
                (call $ok (call $fd_filestat_set_size (local.get $fd) (i64.const 67108864)))
                (call $put (i32.const 1) (i32.const 0) (i32.const 8388608))
                (call $put (i32.const 1) (i32.const 0) (i32.const 8388608))",
            checked(|outcomes| {
                let whole = |run: &talka_core::outcome::Execution| {
                    run.exit == Exit::Ok && run.output.stdout.len() as u64 == limits::TASK_OUTPUT_BYTES_DEFAULT
                };
                let all = outcomes.iter().all(|outcome| outcome.as_ref().is_ok_and(whole));
                if all { Ok(()) } else { Err("output is missing".into()) }
            }),
        )
        .output(Size::new(limits::TASK_OUTPUT_BYTES_DEFAULT))
        .extra(Size::new(limits::TASK_CHECKPOINT_BYTES_MAX)),
    ]
}
