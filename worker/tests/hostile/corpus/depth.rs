//! Calls nested without end. The count of the depth must strike before any native stack is full.

use std::fmt::Write as _;

use talka_core::{
    outcome::{Exit, Limit, NoResult},
    quantities::Bytes as Size,
};

use super::super::{
    guest,
    row::{Expected, OK, Row, checked, limit},
};

pub(super) fn rows() -> Vec<Row> {
    let deep = |name, fields: String, start: &str| {
        // Of the native stack, as much as is used: by the limits, at most 32 MiB.
        Row::text(name, fields, start, limit(Limit::CallDepth)).fuel(1_000_000_000)
    };
    vec![
        deep("recursion", "(func $f (call $f) (call $f))".into(), "(call $f)"),
        deep(
            "recursion of three",
            "(func $f (call $g)) (func $g (call $h)) (func $h (call $f))".into(),
            "(call $f)",
        ),
        deep(
            "recursion through a table",
            "(type $t (func)) (table funcref (elem $f)) (func $f (call_indirect (type $t) (i32.const 0)))"
                .into(),
            "(call $f)",
        ),
        deep("recursion in the start function", "(func $f (call $f)) (start $f)".into(), ""),
        deep(
            "recursion of the entry",
            "(func $f (call $main)) (func $main (call $f))".into(),
            "(call $main)",
        ),
        deep(
            "recursion that calls the host each time",
            "(func $f (drop (call $sched_yield)) (call $f) (drop (call $sched_yield)))".into(),
            "(call $f)",
        ),
        deep("recursion with 9000 vectors", vectors(9000), "(call $f)"),
        deep("recursion with 1000 parameters", parameters(1000), "(call $f)"),
        deep("recursion with 1000 results", results(1000), "(call $f)"),
        deep("recursion with parameters and results", both(1000), "(call $f)"),
        Row::new("recursion with a frame of scraps", scraps, checked_scraps()).fuel(1_000_000_000),
        Row::text(
            "calls nested as deep as may be",
            "(func $f (param $n i32)
                (if (local.get $n)
                    (then (call $f (i32.sub (local.get $n) (i32.const 1))))
                    (else (call $put (i32.const 1) (i32.const 100) (i32.const 8)))))",
            "(call $f (i32.const 80000))",
            Expected::Writes(b"out/0000".to_vec()),
        ),
        Row::text(
            "depth is given back",
            "(func $f (param $n i32)
                (if (local.get $n) (then (call $f (i32.sub (local.get $n) (i32.const 1))))))",
            format!("(local $i i32) {}", guest::repeat(50, "(call $f (i32.const 80000))")),
            OK,
        )
        .memory(Size::mib(1)),
    ]
}

/// That many vectors live across the call.
fn vectors(count: u32) -> String {
    let mut text = format!("(func $f (param $at i32) (local {})", "v128 ".repeat(count as usize));
    for index in 1..=count {
        write!(text, "(local.set {index} (v128.load (local.get $at)))").expect("a string");
    }
    text.push_str("(call $f (i32.add (local.get $at) (i32.const 16)))");
    for index in 1..=count {
        write!(text, "(v128.store (local.get $at) (local.get {index}))").expect("a string");
    }
    text.push(')');
    text.replace("$f (param", "$g (param").replace("call $f", "call $g") + "(func $f (call $g (i32.const 0)))"
}

fn parameters(count: usize) -> String {
    let zeros = "(v128.load (i32.const 0))".repeat(count);
    let own = (0..count).map(|index| format!("(local.get {index})")).collect::<Vec<_>>().concat();
    let later = (0..count)
        .map(|index| format!("(v128.store (i32.const 0) (local.get {index}))"))
        .collect::<Vec<_>>()
        .concat();
    let types = "v128 ".repeat(count);
    format!("(func $g (param {types}) (call $g {own}) {later}) (func $f (call $g {zeros}))")
}

fn results(count: usize) -> String {
    let types = "v128 ".repeat(count);
    format!("(func $g (result {types}) (call $g)) (func $f (call $g) {})", "drop ".repeat(count))
}

fn both(count: usize) -> String {
    let types = "v128 ".repeat(count);
    let zeros = "(v128.load (i32.const 0))".repeat(count);
    let own = (0..count).map(|index| format!("(local.get {index})")).collect::<Vec<_>>().concat();
    format!(
        "(func $g (param {types}) (result {types}) (call $g {own}))
        (func $f (call $g {zeros}) {})",
        "drop ".repeat(count)
    )
}

/// A function whose frame is far larger than what it has at any one time: its many short-lived values overlap in
/// such a way that the compiler's search for a free place in the frame gives up and makes a new one.
fn scraps() -> Vec<u8> {
    const LASTING: usize = 12;
    const PASSING: usize = 6000;
    let mut text = format!("(func $g (param $at i32) (local {})", "v128 ".repeat(LASTING + 2));
    for index in 1..=LASTING {
        write!(text, "(local.set {index} (v128.load (local.get $at)))(call $nop)").expect("a string");
    }
    let (one, other) = (LASTING + 1, LASTING + 2);
    write!(text, "(local.set {one} (v128.load (local.get $at)))").expect("a string");
    for _ in 0..PASSING {
        write!(
            text,
            "(call $nop)
            (local.set {other} (v128.load (local.get $at)))
            (call $nop)
            (v128.store (local.get $at) (local.get {one}))
            (local.set {one} (local.get {other}))"
        )
        .expect("a string");
    }
    text.push_str("(call $g (local.get $at))");
    for index in 1..=one {
        write!(text, "(v128.store (local.get $at) (local.get {index}))").expect("a string");
    }
    text.push_str(") (func $nop)");
    guest::program(&text, "(call $g (i32.const 1024))")
}

/// The weight of a function is not the size of its frame, so its native stack may be full first: that is no result,
/// and costs nobody but the one who wrote it.
fn checked_scraps() -> Expected {
    checked(|outcomes| {
        let ends = outcomes.iter().map(|outcome| outcome.as_ref().map(|execution| execution.exit));
        let known = [Ok(Exit::Limit(Limit::CallDepth)), Err(&NoResult::NativeStack)];
        let surprise = ends.into_iter().find(|end| !known.contains(end));
        surprise.map_or(Ok(()), |end| Err(format!("ended with {end:?}")))
    })
}
