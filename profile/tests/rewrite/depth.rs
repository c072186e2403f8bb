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
