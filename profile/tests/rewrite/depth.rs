//! Call depth: the same everywhere, and before any native stack is full.

use talka_core::outcome::Limit;

use crate::machine::{COMPILERS, End, Exit, Machine, PLENTY};

fn program(functions: &str, start: &str) -> String {
    format!(
        r#"(module
            (memory (export "memory") 1)
            (table 2 funcref)
            (type $t (func))
            {functions}
            (func (export "_start") {start}))"#
    )
}

/// Runs on every compiler, on a thread with the stack that a program is promised.
fn run(functions: &str, start: &str) -> End {
    let text = program(functions, start);
    let ends = COMPILERS.map(|compiler| {
        let text = text.clone();
        let stack = talka_core::limits::TASK_STACK_BYTES + (2 << 20);
        let run = move || Machine::new(compiler).run_wat(&text, PLENTY);
        std::thread::Builder::new().stack_size(stack).spawn(run).expect("a thread").join().expect("no panic")
    });
    for (end, compiler) in ends.iter().zip(COMPILERS) {
        assert_eq!(*end, ends[0], "{compiler:?}\n{text}");
    }
    let [end, ..] = ends;
    end
}

#[test]
fn endless_recursion_stops_at_the_same_call_everywhere() {
    let many = |ty: &str, count: usize| format!("{ty} ").repeat(count);
    let lives = |ty: &str, count: u32| -> String {
        (0..count).map(|index| format!("({ty}.load (i32.const {}))", 16 * index)).collect()
    };
    for function in [
        "(func $f call $f)".to_owned(),
        "(func $f (call_indirect (type $t) (i32.const 0))) (elem (i32.const 0) $f)".to_owned(),
        "(func $f call $g) (func $g (local i64 i64 i64) call $f)".to_owned(),
        format!("(func $f (local {}) call $f)", many("i64", 500)),
        format!("(func $f (call $g {})) (func $g (param {}) call $f)", lives("i64", 100), many("i64", 100)),
        format!("(func $f {} call $f {})", lives("v128", 200), many("drop", 200)),
        format!("(func $f {} call $f {} drop)", lives("f64", 50), many("f64.add", 49)),
    ] {
        let end = run(&function, "call $f");
        assert_eq!(end.exit, Exit::Limit(Limit::CallDepth), "{function}");
    }
}

/// Frames that an optimising engine makes far larger than what the function holds at once.
#[test]
fn values_that_an_engine_keeps_for_later_do_not_fill_the_native_stack_first() {
    const COUNT: usize = 3000;
    let scalar = |index: usize| {
        let [a, b] = [3 * index + 1, 7 * index + 3];
        format!("(i32.mul (i32.xor (local.get 0) (i32.const {a})) (i32.const {b}))")
    };
    let vector =
        |index: usize| format!("(i32x4.mul (local.get 0) (v128.const i32x4 {} 1 2 {index}))", 3 * index + 1);
    let times = |one: &dyn Fn(usize) -> String| -> String { (0..COUNT).map(one).collect() };
    let sum = times(&|index| format!("(local.set 1 (i32.xor (local.get 1) {}))", scalar(index)));
    let store = times(&|index| format!("(i32.store (i32.const {}) {})", 4 * index, scalar(index)));
    let vector_sum = times(&|index| format!("(local.set 1 (v128.xor (local.get 1) {}))", vector(index)));
    let load = times(&|index| {
        format!("(local.set 1 (i32.add (local.get 1) (i32.load offset={} (local.get 0))))", 4 * index)
    });
    let leaf = format!(
        "(func $leaf (param i32) (local i32) {} (i32.store (i32.const 0) (local.get 1)))",
        sum.repeat(4)
    );
    for (name, function, start) in [
        (
            "computed once before a loop",
            format!("(func $f (param i32) (local i32) loop {sum} (call $f (local.get 1)) br 0 end)"),
            "(call $f (i32.const 1))",
        ),
        (
            "computed once for two uses",
            format!("(func $f (param i32) (local i32) {sum} (call $f (local.get 1)) {store})"),
            "(call $f (i32.const 1))",
        ),
        (
            "vectors computed once for two uses",
            format!(
                "(func $f (param v128) (local v128) {vector_sum} (call $f (local.get 1)) {vector_sum}
                    (v128.store (i32.const 0) (local.get 1)))"
            ),
            "(call $f (v128.const i64x2 1 2))",
        ),
        (
            "added up when the sum is needed",
            format!(
                "(func $f (param i32) (local i32) {load} (if (i32.load (i32.const 60000)) (then return))
                (call $f (local.get 0)) (i32.store (i32.const 0) (local.get 1)))"
            ),
            "(call $f (i32.const 1))",
        ),
        (
            "in a function that calls no other, at the bottom",
            format!("(func $f (param i32) (call $f (local.get 0)) (call $leaf (local.get 0))) {leaf}"),
            "(call $f (i32.const 1))",
        ),
    ] {
        assert_eq!(run(&function, start).exit, Exit::Limit(Limit::CallDepth), "{name}");
    }
}

/// Functions that hand over as much as the engine's format allows.
#[test]
fn many_parameters_and_results_do_not_fill_the_native_stack_first() {
    let types = |count: usize| "v128 ".repeat(count);
    let gets: String = (0..1000).map(|index| format!("local.get {index} ")).collect();
    let loads: String = (0..1000).map(|index| format!("(v128.load (i32.const {}))", 16 * index)).collect();
    let constants = "(v128.const i64x2 1 2) ".repeat(1000);
    let call = format!("{constants} call $f");
    let drop = |count: usize| "drop ".repeat(count);
    for (function, start) in [
        (format!("(func $f (param {}) {gets} call $f)", types(1000)), call.clone()),
        (format!("(func $f (param {}) {loads} call $f)", types(1000)), call),
        (
            format!("(func $f (result {}) call $f {} call $f)", types(500), drop(500)),
            format!("call $f {}", drop(500)),
        ),
        (
            format!(
                "(func $f {} call $f {})",
                format!("block (result {}) ", types(300)).repeat(20),
                format!("unreachable end {}", drop(300)).repeat(20)
            ),
            "call $f".to_owned(),
        ),
    ] {
        let shown: String = function.chars().take(80).collect();
        assert_eq!(run(&function, &start).exit, Exit::Limit(Limit::CallDepth), "{shown}");
    }
}

#[test]
fn depth_is_given_back() {
    let down = "(func $f (param i32)
        (if (local.get 0) (then (call $f (i32.sub (local.get 0) (i32.const 1))))))
        (func $g (param i32) (call $f (local.get 0)))";
    let often = "(local i32)
        loop
            (call $g (i32.const 20000))
            (br_if 0 (i32.ne (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 20)))
        end";
    assert_eq!(run(down, often).exit, Exit::Returned);
    assert_eq!(run(down, "(call $f (i32.const 200000))").exit, Exit::Limit(Limit::CallDepth));
}
