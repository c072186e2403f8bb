//! Text of programs: what they all import, and what most of them need.

use std::fmt::Write as _;

use talka_profile::{WASI_MODULE, wasi_functions};

/// Memory of a [`program`], in pages.
const PAGES: u32 = 2;

/// Turns text into a module.
pub(crate) fn parse(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A module that imports each function of WASI under its own name; `fields` is the rest of it.
pub(crate) fn module(fields: &str) -> Vec<u8> {
    let mut text = String::from("(module ");
    for function in wasi_functions() {
        let name = function.name;
        write!(text, "(import \"{WASI_MODULE}\" \"{name}\" (func ${name}").expect("a string");
        for param in function.params {
            write!(text, " (param {param})").expect("a string");
        }
        for result in function.results {
            write!(text, " (result {result})").expect("a string");
        }
        text.push_str("))\n");
    }
    text.push_str(fields);
    text.push(')');
    parse(&text)
}

/// A module whose `_start` is `start`, with a memory of two pages, of which the first 128 bytes belong to these
/// helpers:
///
/// * `$is got want` ends the program with code 1000 + `got` if they differ, `$ok got` if it is not 0;
/// * `$put fd at length` writes; `$read at length` reads standard input and gives the number of bytes;
/// * `$open path length how` opens below the root, for reading and writing, and gives the descriptor;
/// * `$numbered n` puts `out/` and four digits at 100, a path of 8 bytes.
pub(crate) fn program(fields: &str, start: &str) -> Vec<u8> {
    program_of(&format!("(memory (export \"memory\") {PAGES})"), fields, start)
}

/// The same with another memory.
pub(crate) fn program_of(memory: &str, fields: &str, start: &str) -> Vec<u8> {
    module(&format!(
        r#"{memory}
        (data (i32.const 100) "out/0000")
        (func $is (param $got i32) (param $want i32)
            (if (i32.ne (local.get $got) (local.get $want)) (then
                (call $proc_exit (i32.add (i32.const 1000) (local.get $got))))))
        (func $ok (param $errno i32) (call $is (local.get $errno) (i32.const 0)))
        (func $buffer (param $at i32) (param $length i32)
            (i32.store (i32.const 8) (local.get $at)) (i32.store (i32.const 12) (local.get $length)))
        (func $put (param $fd i32) (param $at i32) (param $length i32)
            (call $buffer (local.get $at) (local.get $length))
            (call $ok (call $fd_write (local.get $fd) (i32.const 8) (i32.const 1) (i32.const 16))))
        (func $read (param $at i32) (param $length i32) (result i32)
            (call $buffer (local.get $at) (local.get $length))
            (call $ok (call $fd_read (i32.const 0) (i32.const 8) (i32.const 1) (i32.const 16)))
            (i32.load (i32.const 16)))
        (func $open (param $path i32) (param $length i32) (param $how i32) (result i32)
            (call $ok (call $path_open (i32.const 3) (i32.const 0) (local.get $path) (local.get $length)
                (local.get $how) (i64.const 66) (i64.const 0) (i32.const 0) (i32.const 20)))
            (i32.load (i32.const 20)))
        (func $numbered (param $n i32)
            (i32.store8 (i32.const 107) (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10))))
            (local.set $n (i32.div_u (local.get $n) (i32.const 10)))
            (i32.store8 (i32.const 106) (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10))))
            (local.set $n (i32.div_u (local.get $n) (i32.const 10)))
            (i32.store8 (i32.const 105) (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10))))
            (local.set $n (i32.div_u (local.get $n) (i32.const 10)))
            (i32.store8 (i32.const 104) (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10)))))
        {fields}
        (func (export "_start") {start})"#
    ))
}

/// Text that is run for `$i` from 0 to below `turns`; `$i` must be a local.
pub(crate) fn repeat(turns: u32, body: &str) -> String {
    format!(
        "(local.set $i (i32.const 0))
        (loop $again
            {body}
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $i) (i32.const {turns}))))"
    )
}

/// An honest program: what it reads comes out.
pub(crate) fn echo() -> Vec<u8> {
    program(
        "",
        "(local $n i32)
        (loop $more
            (local.set $n (call $read (i32.const 4096) (i32.const 65536)))
            (if (local.get $n) (then
                (call $put (i32.const 1) (i32.const 4096) (local.get $n))
                (br $more))))",
    )
}
