//! Modules, and the rules that they break.

use super::{Problem, Rule, check};

fn rules(wasm: &[u8]) -> Vec<&'static str> {
    check(wasm).iter().map(|problem| problem.rule.name()).collect()
}

/// A command, and `extra` before its function.
fn command(extra: &str) -> Vec<u8> {
    let text = format!(r#"(module {extra} (memory (export "memory") 1) (func (export "_start")))"#);
    wat::parse_str(&text).expect(extra)
}

fn only_problem(wasm: &[u8]) -> Problem {
    let [problem] = check(wasm).try_into().expect("one problem");
    problem
}

#[test]
fn each_rule_is_named() {
    let (max_tables, max_globals) =
        ("(table 0 funcref)".repeat(5), "(global i32 (i32.const 0))".repeat(10_001));
    let functions = "(func)".repeat(50_001);
    let segments = r#"(data "")"#.repeat(90_001);
    let body = format!("(func {})", "(drop (i64.const 0x7fffffffffffffff))".repeat(50_000));
    let locals = format!("(func (local {}))", "i32 ".repeat(10_001));
    let wasi = |name_and_type: &str| format!(r#"(import "wasi_snapshot_preview1" {name_and_type})"#);
    let types = "(type (func))".repeat(25_001);
    let wide = format!("(type (func (param {})))", "i32 ".repeat(1000)).repeat(201);
    let imports = wasi(r#""sched_yield" (func (result i32))"#).repeat(1001);
    let names: Vec<_> = (0..50_000).map(|number| format!("(export \"{number}\")")).collect();
    let exports = format!("(func {})", names.concat());
    let switch = format!("(func (br_table {} (i32.const 0)))", "0 ".repeat(50_002));
    let fd_write = r#""fd_write" (func (param i32 i32 i32 i32) (result i32))"#;
    #[rustfmt::skip]
    let table: &[(&str, &[&str])] = &[
        ("", &[]),
        (&wasi(fd_write), &[]),
        (&wasi(r#""proc_exit" (func (param i32))"#), &[]),
        (&wasi(r#""fd_write" (func (param i32 i32 i32 i64) (result i32))"#), &["import"]),
        (&wasi(r#""fd_write" (func (param i32 i32 i32 i32))"#), &["import"]),
        (&wasi(r#""fd_wrote" (func)"#), &["import"]),
        (&wasi(r#""fd_write" (global i32)"#), &["import"]),
        (r#"(import "env" "a" (func)) (import "env" "t" (table 1 funcref))"#, &["import", "import"]),
        (r#"(import "env" "memory" (memory 1))"#, &["import", "multi-memory"]),
        (r#"(import "wasi" "thread-spawn" (func (param i32) (result i32)))"#, &["threads"]),
        ("(func (drop (i32.atomic.load (i32.const 0))))", &["threads"]),
        ("(memory 1 1 shared)", &["threads", "multi-memory"]),
        ("(table i64 1 funcref)", &["memory64"]),
        ("(func (param v128 v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 1)))", &["relaxed-simd"]),
        ("(func (param v128 v128) (result v128) (i8x16.swizzle (local.get 0) (local.get 1)))", &[]),
        ("(tag (param i32))", &["exceptions"]),
        ("(tag $t) (func try catch_all end)", &["exceptions"]),
        ("(type (struct (field i32)))", &["gc"]),
        ("(func (param externref))", &["gc"]),
        ("(type $f (func)) (func (param (ref null $f)))", &["gc"]),
        ("(table 1 funcref) (func (result funcref) (table.get (i32.const 0)))", &[]),
        ("(memory 1)", &["multi-memory"]),
        ("(func $f return_call $f)", &["tail-calls"]),
        ("(func (param i64 i64) (result i64 i64) (i64.mul_wide_s (local.get 0) (local.get 1)))", &["wide-arithmetic"]),
        ("(type $f (func)) (type $c (cont $f))", &["gc", "stack-switching"]),
        ("(memory 1 1 (pagesize 1))", &["multi-memory", "custom-page-sizes"]),
        ("(global i32 (i32.add (i32.const 1) (i32.const 2)))", &[]),
        ("(func (result i32) (i64.const 0))", &["invalid"]),
        (r#"(global (export "talka_fuel") i64 (i64.const 0))"#, &["reserved-export"]),
        (&functions, &["functions"]),
        (&body, &["body-bytes"]),
        (&locals, &["locals"]),
        (&max_tables, &["tables"]),
        ("(table 200001 funcref)", &["table-elements"]),
        (&segments, &["data-segments"]),
        (&max_globals, &["globals"]),
        (&types, &["types"]),
        (&wide, &["types"]),
        (&imports, &["imports"]),
        (&exports, &["exports"]),
        (&switch, &["branch-targets"]),
    ];
    for (extra, expected) in table {
        let shown: String = extra.chars().take(100).collect();
        let mut found = rules(&command(extra));
        let mut expected = expected.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{shown}");
    }
}

#[test]
fn start_and_memory_must_be_exported_with_their_types() {
    #[rustfmt::skip]
    let table: &[(&str, &[&str])] = &[
        ("(module)", &["start-missing", "memory-missing"]),
        (r#"(module (memory 1) (func (export "_start")))"#, &["memory-missing"]),
        (r#"(module (memory (export "memory") 1) (func (export "_start") (param i32)))"#, &["start-missing"]),
        (r#"(module (memory (export "memory") 1) (func (export "_start") (result i32) (i32.const 0)))"#, &["start-missing"]),
        (r#"(module (memory (export "memory") 1) (global (export "_start") i32 (i32.const 0)))"#, &["start-missing"]),
        (r#"(module (func (export "memory")) (func (export "_start")))"#, &["memory-missing"]),
        (r#"(module (memory (export "memory") i64 1) (func (export "_start")))"#, &["memory64"]),
        (r#"(module (memory (export "memory") 1) (func (export "_start") (export "again")) (start 0))"#, &[]),
    ];
    for (text, expected) in table {
        assert_eq!(rules(&wat::parse_str(text).expect(text)), *expected, "{text}");
    }
    let library = wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "_initialize")))"#);
    assert!(only_problem(&library.expect("a module")).detail.contains("library"));
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = r#"(module
        (import "env" "emscripten_resize_heap" (func (param i32) (result i32)))
        (import "wasi_snapshot_preview1" "random_get" (func (param i64) (result i32)))
        (memory (export "talka_memory") i64 1 1 shared)
        (tag)
        (func $f (param v128 v128 v128) (result v128)
          (f32x4.relaxed_madd (local.get 0) (local.get 1) (local.get 2)))
        (func $g return_call $g))"#;
    let mut found = rules(&wat::parse_str(text).expect("a module"));
    found.sort_unstable();
    let mut expected =
        vec!["import", "import", "threads", "memory64", "exceptions", "relaxed-simd", "tail-calls"];
    expected.extend(["reserved-export", "start-missing", "memory-missing"]);
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn other_files_are_told_apart() {
    #[rustfmt::skip]
    let table: &[(&[u8], Rule, &str)] = &[
        (b"", Rule::NotWasm, "empty"),
        (b"\0as", Rule::NotWasm, "header"),
        (b"\0asm\x01\0", Rule::NotWasm, "ends within its header"),
        (b"\0asm\x02\0\0\0", Rule::NotWasm, "version"),
        (b"\0asm\x0d\0\x01\0", Rule::Component, "component"),
        (b"\x7fELF\x02", Rule::NotWasm, "Linux"),
        (b"#!/usr/bin/env python3", Rule::NotWasm, "script"),
        (b"\n;; a comment\n  (module)", Rule::NotWasm, "wat2wasm"),
        (b"hello", Rule::NotWasm, "header"),
        (b"\x1f\x8b\x08", Rule::NotWasm, "compressed"),
    ];
    for (bytes, rule, part) in table {
        let problem = only_problem(bytes);
        assert_eq!(problem.rule, *rule, "{bytes:?}");
        assert!(problem.detail.contains(part), "{problem}");
    }
    let mut large = command("");
    large.resize((32 << 20) + 1, 0);
    assert_eq!(only_problem(&large).rule, Rule::ModuleBytes);
}

#[test]
fn a_problem_names_the_import_and_stays_short() {
    let text = r#"(module (import "env" "\1b[31m\00evil" (func)))"#;
    let problems = check(&wat::parse_str(text).expect("a module"));
    assert!(problems[0].detail.contains(r#""env"."\u{1b}[31m\0evil""#), "{}", problems[0]);
    let long = format!(r#"(module (import "env" "{}" (func)))"#, "x".repeat(90_000));
    assert!(check(&wat::parse_str(long).expect("a module"))[0].detail.len() < 400);
    let many = format!("(module {})", r#"(import "env" "f" (func))"#.repeat(1000));
    let problems = check(&wat::parse_str(many).expect("a module"));
    assert_eq!(problems.len(), 65);
    assert_eq!(problems[64].rule, Rule::More);
}

#[test]
fn a_module_that_is_cut_short_is_refused() {
    let wasm = command(
        r#"(import "wasi_snapshot_preview1" "proc_exit" (func (param i32))) (data (i32.const 0) "hello")"#,
    );
    assert_eq!(rules(&wasm), [""; 0]);
    // Between the code and the data nothing tells that a section is missing: that is a module, too.
    let without_data = wasm.len() - b"\x0b\x0b\x01\0\x41\0\x0b\x05hello".len();
    for length in (0..wasm.len()).filter(|&length| length != without_data) {
        let problems = check(&wasm[..length]);
        assert!(!problems.is_empty(), "{length} of {} bytes", wasm.len());
    }
    let problem = only_problem(&wasm[..wasm.len() - 1]);
    assert!(problem.detail.contains("cut short"), "{problem}");
}

#[test]
fn every_rule_has_its_own_kebab_case_name() {
    let mut names: Vec<_> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    names.sort_unstable();
    assert!(names.is_sorted_by(|a, b| a < b));
    assert!(
        names
            .iter()
            .all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'))
    );
}
