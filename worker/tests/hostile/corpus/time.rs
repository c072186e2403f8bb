//! Time, chance, ends, signals and sockets.

use std::fmt::Write as _;

use talka_core::outcome::{Exit, Limit};
use talka_worker::sandbox::TaskInput;

use super::super::{
    guest,
    row::{Expected, OK, Row, checked, limit},
};

const INVAL: u32 = 28;
const NOTSOCK: u32 = 57;
const NOTSUP: u32 = 58;
const BADF: u32 = 8;

/// A subscription at 1024 to a clock.
fn subscription(clock: u32, timeout: i64, flags: u32) -> String {
    format!(
        "(i32.store (i32.const 1040) (i32.const {clock})) (i64.store (i32.const 1048) (i64.const {timeout}))
        (i32.store (i32.const 1064) (i32.const {flags}))"
    )
}

fn poll(count: i64, errno: u32) -> String {
    format!(
        "(call $is (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const {count}) (i32.const 16))
            (i32.const {errno}))"
    )
}

pub(super) fn rows() -> Vec<Row> {
    const DAY: i64 = 86_400_000_000_000;
    let asleep = |name, start: String| Row::text(name, "", start, limit(Limit::Sleep));
    vec![
        asleep("sleeping for ever", subscription(1, -1, 0) + &poll(1, 0)),
        asleep("sleeping until the end of time", subscription(0, -1, 1) + &poll(1, 0)),
        asleep("sleeping day after day", format!("{} (loop {} (br 0))", subscription(1, DAY, 0), poll(1, 0))),
        Row::text(
            "strange subscriptions",
            "",
            [
                poll(0, INVAL),
                poll(1025, INVAL),
                poll(-1, INVAL),
                poll(i64::from(i32::MIN), INVAL),
                subscription(9, 0, 0) + &poll(1, INVAL),
                "(i32.store8 (i32.const 1032) (i32.const 7))".into(),
                poll(1, INVAL),
            ]
            .concat(),
            OK,
        ),
        Row::text(
            "strange clocks",
            "",
            "(local $i i32) (local $last i64)
            (call $is (call $clock_time_get (i32.const 4) (i64.const 0) (i32.const 16)) (i32.const 28))
            (call $is (call $clock_time_get (i32.const -1) (i64.const -1) (i32.const 16)) (i32.const 28))
            (call $is (call $clock_res_get (i32.const 4) (i32.const 16)) (i32.const 28))"
                .to_owned()
                + &guest::repeat(
                    10_000,
                    "(call $ok (call $clock_time_get (i32.const 1) (i64.const -1) (i32.const 16)))
                    (if (i64.le_u (i64.load (i32.const 16)) (local.get $last)) (then unreachable))
                    (local.set $last (i64.load (i32.const 16)))",
                ),
            OK,
        ),
        Row::text(
            "random bytes are the same each time",
            "",
            "(call $ok (call $random_get (i32.const 1024) (i32.const 64)))
            (call $put (i32.const 1) (i32.const 1024) (i32.const 64))",
            checked(|outcomes| {
                let first = outcomes.first().and_then(|outcome| outcome.as_ref().ok());
                let drawn = first.is_some_and(|run| run.output.stdout.iter().any(|byte| *byte != 0));
                let same = outcomes.iter().all(|outcome| outcome == &outcomes[0]);
                if drawn && same { Ok(()) } else { Err(format!("drew {outcomes:?}")) }
            }),
        ),
        exit_codes(),
        Row::text(
            "an exit before the start",
            "(func $init (call $proc_exit (i32.const 3))) (start $init)",
            "unreachable",
            Expected::Ends(Exit::Code(3)),
        ),
        Row::text(
            "signals",
            "",
            "(local $i i32)".to_owned()
                + &guest::repeat(
                    70,
                    &format!("(call $is (call $proc_raise (local.get $i)) (i32.const {NOTSUP}))"),
                ),
            OK,
        ),
        sockets(),
    ]
}

/// A program ends with the four bytes that it reads.
fn exit_codes() -> Row {
    const CODES: [u32; 8] = [0, 1, 2, 127, 255, 256, 1 << 31, u32::MAX];
    let start = "(drop (call $read (i32.const 1024) (i32.const 4)))
        (call $proc_exit (i32.load (i32.const 1024)))";
    Row::text(
        "codes of exits",
        "",
        start,
        checked(|outcomes| {
            let expected = |code| if code == 0 { Exit::Ok } else { Exit::Code(code) };
            let ends: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().map(|run| run.exit)).collect();
            let all = ends.iter().zip(CODES).all(|(end, code)| *end == Ok(expected(code)));
            if all { Ok(()) } else { Err(format!("ended with {ends:?}")) }
        }),
    )
    .batches(|| {
        let task =
            |code: u32| TaskInput { stdin: code.to_le_bytes().to_vec().into(), ..TaskInput::default() };
        vec![CODES.map(task).to_vec()]
    })
}

fn sockets() -> Row {
    let calls = [
        "$sock_accept (i32.const FD) (i32.const 0) (i32.const -1)",
        "$sock_recv (i32.const FD) (i32.const -1) (i32.const -1) (i32.const 0) (i32.const -1) (i32.const -1)",
        "$sock_send (i32.const FD) (i32.const -1) (i32.const -1) (i32.const 0) (i32.const -1)",
        "$sock_shutdown (i32.const FD) (i32.const 3)",
    ];
    let mut start = String::new();
    for call in calls {
        for (fd, errno) in [("0", NOTSOCK), ("3", NOTSOCK), ("4", BADF), ("-1", BADF)] {
            let call = call.replace("FD", fd);
            write!(start, "(call $is (call {call}) (i32.const {errno}))").expect("a string");
        }
    }
    Row::text("sockets", "", start, OK)
}
