//! Modules that are meant to keep the compiler busy.

use talka_core::limits;
use talka_profile::Rule;
use wasm_encoder::ValType;

use super::super::{
    row::{Expected, OK, Row},
    sections::{Sections, raw_function},
};

/// A body just below the limit: `body` as often as it fits, then `end`.
fn full_of(body: &[u8]) -> Vec<u8> {
    let room = limits::MODULE_BODY_BYTES_MAX as usize - 64;
    let mut bytes = body.repeat(room / body.len());
    bytes.push(0x0b);
    bytes
}

/// A program whose `_start` has that body.
fn start(
    name: &'static str,
    locals: &'static [(u32, ValType)],
    body: fn() -> Vec<u8>,
    expected: Expected,
) -> Row {
    Row::new(name, move || Sections::new(&raw_function(locals, &body())).finish(), expected)
}

/// `if (i32.const 1) (then return)`: what follows is compiled, and never runs.
const RETURNS: &[u8] = &[0x41, 1, 0x04, 0x40, 0x0f, 0x0b];

/// `count` blocks that begin with `open`, one in the other.
fn nested(open: &[u8], count: usize) -> Vec<u8> {
    [open.repeat(count), vec![0x0b; count + 1]].concat()
}

/// A `br_table` with that many targets, all of them the innermost label.
fn br_table(targets: u32) -> Vec<u8> {
    let mut bytes = vec![0x02, 0x40, 0x20, 0, 0x0e];
    let mut number = targets;
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
    bytes.resize(bytes.len() + targets as usize + 1, 0);
    bytes.extend([0x0b, 0x0b]);
    bytes
}

pub(super) fn rows() -> Vec<Row> {
    const ONE: &[(u32, ValType)] = &[(1, ValType::I32)];
    const ALL: &[(u32, ValType)] = &[(limits::MODULE_LOCALS_MAX, ValType::I64)];
    const TOO_MANY: &[(u32, ValType)] = &[(limits::MODULE_LOCALS_MAX + 1, ValType::I64)];
    const HALF_OF_ALL: &[(u32, ValType)] = &[(25_000, ValType::I64), (25_000, ValType::F64)];
    vec![
        start("100000 nested blocks", &[], || nested(&[0x02, 0x40], 100_000), OK),
        start("100000 nested loops", &[], || nested(&[0x03, 0x40], 100_000), OK),
        start("10000 nested ifs", &[], || nested(&[0x41, 1, 0x04, 0x40], 10_000), OK),
        // `local.set 0 (if (i32.load (local.get 0)) 1 else (i32.load8_u offset=7 (local.get 0)))`
        start(
            "a function full of ifs",
            ONE,
            || {
                let body =
                    [0x20, 0, 0x28, 2, 0, 0x04, 0x7f, 0x41, 1, 0x05, 0x20, 0, 0x2d, 0, 7, 0x0b, 0x21, 0];
                full_of(&body)
            },
            Expected::TooExpensive,
        ),
        // `i32.const 1` and later `i32.add`, 170,000 times each.
        start(
            "170000 operands",
            &[],
            || [[0x41, 1].repeat(170_000), vec![0x6a; 169_999], vec![0x1a, 0x0b]].concat(),
            OK,
        ),
        start("a br_table of 50000", ONE, || br_table(50_000), OK),
        start("a br_table of 500000", ONE, || br_table(500_000), Expected::Refused(Rule::BranchTargets)),
        start("a br_table of a million", ONE, || br_table(1_000_000), Expected::Refused(Rule::BodyBytes)),
        Row::new("a br_table with 1000 results", wide_br_table, OK),
        start("a body above the limit", &[], || vec![0x01; 600_000], Expected::Refused(Rule::BodyBytes)),
        start(
            "a body of 20 MB",
            &[],
            || [vec![0x01; 20_000_000], vec![0x0b]].concat(),
            Expected::Refused(Rule::BodyBytes),
        ),
        start("10000 locals", ALL, || vec![0x0b], OK),
        start("one local too many", TOO_MANY, || vec![0x0b], Expected::Refused(Rule::Locals)),
        many_locals("10000 locals in 200 functions", ALL, 200, OK),
        many_locals("50000 locals in 10000 functions", HALF_OF_ALL, 10_000, Expected::Refused(Rule::Locals)),
        // Counting makes each `call 0` longer, so that the function grows beyond what the engine reads.
        start(
            "a function full of calls",
            &[],
            || [RETURNS, &full_of(&[0x10, 0])].concat(),
            Expected::NotCompiled,
        ),
        start("10000 calls", &[], || [RETURNS, &[0x10, 0].repeat(10_000), &[0x0b]].concat(), OK),
    ]
}

fn many_locals(
    name: &'static str,
    locals: &'static [(u32, ValType)],
    functions: u32,
    expected: Expected,
) -> Row {
    Row::new(
        name,
        move || {
            let mut sections = Sections::idle();
            let body = raw_function(locals, &[0x20, 7, 0x21, 9, 0x0b]);
            for _ in 0..functions {
                sections.functions.function(0);
                sections.code.function(&body);
            }
            sections.finish()
        },
        expected,
    )
}

/// Each of 20,000 targets passes on 1000 values.
fn wide_br_table() -> Vec<u8> {
    let values = || std::iter::repeat_n(ValType::I32, 1000);
    let mut body = vec![0x02, 1];
    body.extend([0x41, 0].repeat(1001));
    body.extend([0x0e, 0xa0, 0x9c, 0x01]);
    body.resize(body.len() + 20_001, 0);
    body.push(0x0b);
    body.extend([0x1a].repeat(1000));
    body.push(0x0b);
    let mut sections = Sections::new(&raw_function(&[], &body));
    sections.types.ty().function([], values());
    sections.finish()
}
