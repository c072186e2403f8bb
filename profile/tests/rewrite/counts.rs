//! Fuel, to the unit.

use talka_core::outcome::Limit;
use talka_profile::{CALL_CHUNK, CHUNK, Options, PASS_VERSION, RewriteError, rewrite};
use wasmtime::Trap;

use crate::machine::{COMPILERS, Compiler, End, Exit, Machine, PLENTY, rewritten};

/// A program whose `_start` has that text, with `functions` beside it.
fn program(functions: &str, start: &str) -> String {
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
            (import "wasi_snapshot_preview1" "sched_yield" (func $sched_yield (result i32)))
            (memory (export "memory") 1)
            (table 10 funcref)
            {functions}
            (func (export "_start") {start}))"#
    )
}

/// Runs on every compiler, which must agree.
fn run(text: &str, fuel: u64) -> End {
    let ends = COMPILERS.map(|compiler| Machine::new(compiler).run_wat(text, fuel));
    for (end, compiler) in ends.iter().zip(COMPILERS) {
        assert_eq!(*end, ends[0], "{compiler:?}\n{text}");
    }
    let [end, ..] = ends;
    end
}

fn check(functions: &str, start: &str, fuel: u64) {
    let text = program(functions, start);
    let end = run(&text, PLENTY);
    assert_eq!((end.exit, end.fuel), (Exit::Returned, fuel), "{start}");
    // With just that much it still runs; with one less, the limit is hit.
    assert_eq!(run(&text, fuel).exit, Exit::Returned, "{start}");
    assert_eq!(run(&text, fuel - 1).exit, Exit::Limit(Limit::Fuel), "{start}");
}

#[test]
fn operators_are_counted_by_hand() {
    check("", "", 1);
    check("", "nop nop (drop (i32.const 1))", 2);
    check("", "block block end end", 1);
    check("", "(if (i32.const 1) (then nop) (else (drop (i32.const 1)) (drop (i32.const 1))))", 3);
    check("", "(if (i32.const 0) (then nop) (else (drop (i32.const 1)) (drop (i32.const 1))))", 5);
    check("", "block (br_if 0 (i32.const 1)) (drop (i32.const 1)) end (drop (i32.const 1))", 4);
    check("", "block (br_if 0 (i32.const 0)) (drop (i32.const 1)) end (drop (i32.const 1))", 5);
    check("", "block br 0 (drop (i32.const 1)) end", 2);
    check("", "(drop (i32.const 1)) return", 2);
    check("", "(drop (block (result i32) (br 0 (i32.const 1))))", 3);
    check("", "block block block (br_table 0 1 2 (i32.const 1)) end return end (drop (i32.const 1)) end", 4);
}

#[test]
fn ways_out_are_counted_by_hand() {
    // Each case of the table in turn, and what is beyond it: br_table, the drops of its case, nothing behind.
    for (case, fuel) in [(0, 1 + 2 + 3), (1, 1 + 2 + 2), (2, 1 + 2 + 1), (7, 1 + 2 + 1)] {
        let text = format!(
            "block block block (br_table 0 1 2 (i32.const {case})) end
                (drop (i32.const 1)) end
                (drop (i32.const 1)) end
                (drop (i32.const 1))"
        );
        check("", &text, fuel);
    }
    // Out of two loops at once: three operators in the first turn of each.
    check("", "block loop loop (br_if 2 (i32.const 1)) (drop (i32.const 1)) br 0 end br 0 end end", 1 + 2);
    check("", "loop loop (br_if 1 (i32.const 0)) end end", 1 + 2);
    check("(func $f loop (if (i32.const 1) (then return)) br 0 end)", "call $f", 1 + 1 + (1 + 2));
    // A block and an `if` that take a value and give two.
    let pair = "(type $pair (func (param i32) (result i32 i32)))";
    check(pair, "i32.const 1 block (type $pair) i32.const 2 end drop drop", 1 + 2);
    check(
        pair,
        "i32.const 1 i32.const 0 if (type $pair) i32.const 2 else i32.const 3 i32.const 4 drop end drop drop",
        1 + 3 + 2,
    );
    check("", "(drop (select (i32.const 1) (i32.const 2) (i32.const 0)))", 1 + 4);
    check("", "(drop (memory.grow (i32.const 0))) (drop (memory.size))", 1 + 2 + 1);
}

#[test]
fn a_guarded_loop_may_turn_no_time_at_all() {
    for turns in 0..10 {
        let text = format!(
            "(local $left i32) (local.set $left (i32.const {turns}))
            block (br_if 0 (i32.eqz (local.get $left)))
                loop (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1)))) end
            end"
        );
        check("", &text, 1 + 2 + 3 + 5 * turns);
    }
}

#[test]
fn a_host_function_behind_a_table_is_counted_like_any_other() {
    let table = "(elem (i32.const 3) $sched_yield $proc_exit)
        (type $host (func (result i32))) (type $exit (func (param i32)))";
    check(table, "(drop (call_indirect (type $host) (i32.const 3)))", 1 + 2 + 1000);
    let end = run(&program(table, "(call_indirect (type $exit) (i32.const 9) (i32.const 4))"), PLENTY);
    assert_eq!(end.exit, Exit::Code(9));
    assert!(end.fuel <= 1 + 3, "{}", end.fuel);
}

#[test]
fn loops_are_counted_whatever_the_number_of_turns() {
    for turns in (1..=25).chain([1000, 250_000]) {
        // Eight operators a turn, in one block: this one is unrolled.
        let text = format!(
            "(local i32)
            loop
                (local.set 0 (i32.add (local.get 0) (i32.const 1)))
                (br_if 0 (i32.ne (local.get 0) (i32.const {turns})))
            end"
        );
        check("", &text, 1 + 8 * turns);
        // Five, and six in all but the last turn.
        let text = format!(
            "(local i32)
            block loop
                (local.set 0 (i32.add (local.get 0) (i32.const 1)))
                (br_if 1 (i32.eq (local.get 0) (i32.const {turns})))
                br 0
            end end"
        );
        check("", &text, 9 * turns);
    }
}

#[test]
fn calls_are_counted_in_the_function_that_executes_them() {
    check("(func $f)", "call $f call $f", 1 + 2 + 2);
    check("(func $f (result i32) (i32.const 1))", "(drop (call $f))", 1 + 1 + 2);
    let countdown = "(func $f (param i32)
        (if (local.get 0) (then (call $f (i32.sub (local.get 0) (i32.const 1))))))";
    // local.get, if; and local.get, const, sub, call, and the entry of the callee.
    check(countdown, "(call $f (i32.const 1000))", 1 + 2 + (1 + 2) + 1000 * 7);
    let table = "(func $f) (elem (i32.const 3) $f) (type $t (func))";
    check(table, "(call_indirect (type $t) (i32.const 3))", 1 + 2 + 1);
    let several = "(func $f (param i32) (result i32 i64)
        (br_if 0 (i32.const 1) (i64.const 2) (local.get 0)) drop drop
        (if (result i32 i64) (i32.const 1) (then (i32.const 3) (i64.const 4) return)
            (else (i32.const 5) (i64.const 6))))";
    check(several, "(call $f (i32.const 1)) drop drop", 1 + 2 + 1 + 4);
    check(several, "(call $f (i32.const 0)) drop drop", 1 + 2 + 1 + 4 + 2 + 2);
}

#[test]
fn what_works_through_a_length_costs_its_length() {
    let fill = |length: u32| format!("(memory.fill (i32.const 0) (i32.const 7) (i32.const {length}))");
    check("", &fill(0), 1 + 4);
    check("", &fill(7), 1 + 4);
    check("", &fill(8), 1 + 4 + 1);
    check("", &fill(65_536), 1 + 4 + 8192);
    check("", "(memory.copy (i32.const 0) (i32.const 8) (i32.const 80))", 1 + 4 + 10);
    check(
        "(data $d \"0123456789abcdef\")",
        "(memory.init $d (i32.const 0) (i32.const 0) (i32.const 16))",
        1 + 4 + 2,
    );
    check("", "(table.fill (i32.const 0) (ref.null func) (i32.const 7))", 1 + 4 + 7);
    check("", "(drop (table.grow (ref.null func) (i32.const 5)))", 1 + 3 + 5);
    check("", "(table.copy (i32.const 1) (i32.const 0) (i32.const 3))", 1 + 4 + 3);
    let segments = "(func $f) (elem $e func $f $f) (data $d \"\")";
    check(segments, "(table.init $e (i32.const 0) (i32.const 0) (i32.const 2))", 1 + 4 + 2);
    check(segments, "(elem.drop $e) (data.drop $d)", 1 + 1 + 1);
    let end = run(&program("", &fill(u32::MAX)), PLENTY);
    assert_eq!(end.exit, Exit::Trap(Trap::MemoryOutOfBounds));
}

#[test]
fn a_start_function_runs_within_the_limit_and_before_the_program() {
    let functions = "(global $g (mut i32) (i32.const 1))
        (func $init (global.set $g (i32.const 2)))
        (start $init)";
    let start = "(if (i32.ne (global.get $g) (i32.const 2)) (then unreachable))";
    check(functions, start, (1 + 2) + (1 + 4));
}

#[test]
fn a_host_function_can_charge() {
    check("", "(drop (call $sched_yield))", 1 + 1 + 1000);
}

#[test]
fn proc_exit_hands_in_what_its_caller_counted() {
    let end = run(&program("", "(call $proc_exit (i32.const 3)) (drop (i32.const 1))"), PLENTY);
    assert_eq!((end.exit, end.fuel), (Exit::Code(3), 1 + 2));
    // The frames above keep at most a small chunk each to themselves.
    let nested = "(func $f (param i32)
        (if (local.get 0)
            (then (call $f (i32.sub (local.get 0) (i32.const 1))))
            (else (call $proc_exit (i32.const 0)))))";
    let end = run(&program(nested, "(call $f (i32.const 1000))"), PLENTY);
    let whole = 1 + 2 + 1000 * 7 + (1 + 2) + 2;
    assert_eq!(end.exit, Exit::Code(0));
    assert!(end.fuel <= whole && end.fuel + 1000 * u64::from(CALL_CHUNK) >= whole, "{}", end.fuel);
}

#[test]
fn endless_programs_stop_at_the_same_operator_everywhere() {
    let overshoot = u64::from(CHUNK) + 100;
    let fill = "(memory.fill (i32.const 0) (i32.const 0) (i32.const 65536))";
    for (functions, start) in [
        ("", "loop br 0 end"),
        ("", "loop (br_if 0 (i32.const 1)) end"),
        ("", "loop block (br_if 1 (i32.const 1)) (drop (i32.const 1)) end br 0 end"),
        ("(func $f)", "loop call $f br 0 end"),
        ("(func $f)", "loop loop (br_if 0 (i32.const 0)) end call $f br 0 end"),
        ("", &format!("loop {fill} br 0 end")),
        ("", "loop (drop (call $sched_yield)) br 0 end"),
        ("(func $f loop br 0 end)", "call $f"),
    ] {
        for fuel in [0, 1, 1000, 5_000_000] {
            let end = run(&program(functions, start), fuel);
            assert_eq!(end.exit, Exit::Limit(Limit::Fuel), "{start}");
            assert!((fuel..=fuel + overshoot + 8192).contains(&end.fuel), "{start}: {} of {fuel}", end.fuel);
        }
    }
}

#[test]
fn a_trap_of_the_program_is_not_taken_for_a_limit() {
    for (start, trap) in [
        ("unreachable", Trap::UnreachableCodeReached),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", Trap::IntegerDivisionByZero),
        ("(drop (i32.load (i32.const 65536)))", Trap::MemoryOutOfBounds),
        ("loop unreachable end", Trap::UnreachableCodeReached),
    ] {
        let end = run(&program("", start), PLENTY);
        assert_eq!(end.exit, Exit::Trap(trap), "{start}");
    }
    let end = run(&program("", "(drop (i32.const 1)) unreachable"), PLENTY);
    assert_eq!(end.fuel, 2);
}

#[test]
fn fuel_does_not_depend_on_how_a_loop_is_unrolled_or_nans_are_settled() {
    let text = program(
        "(func $f (param f64 i32) (result f64)
            loop
                (local.set 0 (f64.sqrt (f64.sub (local.get 0) (f64.const 1e3))))
                (f64.store (local.get 1) (local.get 0))
                (br_if 0 (local.tee 1 (i32.sub (local.get 1) (i32.const 8))))
            end
            local.get 0)",
        "(drop (call $f (f64.const 1e6) (i32.const 808)))",
    );
    let wasm = wat::parse_str(&text).expect("valid");
    let machine = Machine::new(Compiler::Speed);
    let fuel = (1 + 3) + (1 + 101 * 13 + 1);
    for unroll in [0, 1, 2, 3, 4, 7, 8, 100] {
        for settle_nans in [false, true] {
            let options = Options { unroll, settle_nans, ..Options::default() };
            let wasm = rewrite(&wasm, &options).expect("within the profile").wasm;
            let end = machine.run(&machine.compile(&wasm).expect("valid"), PLENTY);
            assert_eq!((end.exit, end.fuel), (Exit::Returned, fuel), "{options:?}");
        }
    }
}

#[test]
fn the_pass_is_deterministic_and_refuses_what_it_made() {
    let text = program(
        "(func $f (param f64) (result f64 f64) (local.get 0) (local.get 0) return)",
        "(local i32)
        loop
            (f64.store (local.get 0) (f64.sqrt (f64.load (local.get 0))))
            (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 8))) (i32.const 64)))
        end",
    );
    let once = rewritten(&text);
    assert_eq!(once, rewritten(&text));
    assert!(matches!(rewrite(&once, &Options::default()), Err(RewriteError::Refused(_))));
    // Another hash needs another version.
    let hash = once.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    assert_eq!((PASS_VERSION, format!("{hash:016x}").as_str()), (2, "872bee7fc0a77db1"));
}
