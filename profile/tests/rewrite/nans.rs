//! The bits of NaNs: settled where arithmetic left them open, untouched everywhere else.

use talka_profile::{Options, rewrite};
use wasmtime::{Instance, Store, Val};

use crate::{
    machine::{COMPILERS, Exit, Machine, PLENTY, rewritten},
    scramble::scramble,
};

/// Operators that put a NaN of open bits onto the stack.
const OPEN32: &str = "(f32.div (f32.load (i32.const 64)) (f32.load (i32.const 64)))";
const OPEN64: &str = "(f64.div (f64.load (i32.const 64)) (f64.load (i32.const 64)))";
const OPEN32X4: &str = "(f32x4.sqrt (v128.load (i32.const 32)))";
const OPEN64X2: &str = "(f64x2.sqrt (v128.load (i32.const 32)))";
const NAN32: u128 = 0x7fc0_0000;
const NAN64: u128 = 0x7ff8_0000_0000_0000;
const NAN32X4: u128 = NAN32 * 0x1_0000_0001_0000_0001_0000_0001;
const NAN64X2: u128 = NAN64 * 0x1_0000_0000_0000_0001;

/// A program whose memory holds -1.0 (of either width) at 32, zeros at 64, a signalling NaN with a payload (of
/// either width) at 96, and which leaves its result at 0.
fn program(functions: &str, start: &str) -> String {
    format!(
        r#"(module
            (memory (export "memory") 1)
            (data (i32.const 32) "\00\00\80\bf\00\00\80\bf\00\00\80\bf\00\00\80\bf")
            (data (i32.const 96) "\01\02\03\04\05\00\f4\ff")
            (data (i32.const 112) "\01\02\a0\7f")
            (global $g32 (mut f32) (f32.const 0))
            (global $g64 (mut f64) (f64.const 0))
            (global $gv (mut v128) (v128.const i64x2 0 0))
            {functions}
            (func (export "_start") {start}))"#
    )
}

/// The 16 bytes that the program leaves at 0, on every compiler and on the awkward CPU.
fn result(functions: &str, start: &str) -> u128 {
    let wasm = rewritten(&program(functions, start));
    let mut results = Vec::new();
    for compiler in COMPILERS {
        let machine = Machine::new(compiler);
        for wasm in [wasm.clone(), scramble(&wasm)] {
            results.push(machine.first_bytes(&wasm));
        }
    }
    assert!(results.iter().all(|result| *result == results[0]), "{start}\n{results:x?}");
    results[0]
}

#[test]
fn open_bits_are_settled_where_they_are_seen() {
    #[rustfmt::skip]
    let table: &[(&str, &str, u128)] = &[
        ("", &format!("(f32.store (i32.const 0) {OPEN32})"), NAN32),
        ("", &format!("(f64.store (i32.const 0) {OPEN64})"), NAN64),
        ("", &format!("(v128.store (i32.const 0) {OPEN32X4})"), NAN32X4),
        ("", &format!("(v128.store (i32.const 0) {OPEN64X2})"), NAN64X2),
        ("", &format!("(i32.store (i32.const 0) (i32.reinterpret_f32 {OPEN32}))"), NAN32),
        ("", &format!("(i64.store (i32.const 0) (i64.reinterpret_f64 {OPEN64}))"), NAN64),
        // Conversions make NaNs, too.
        ("", &format!("(f32.store (i32.const 0) (f32.demote_f64 {OPEN64}))"), NAN32),
        ("", &format!("(f64.store (i32.const 0) (f64.promote_f32 {OPEN32}))"), NAN64),
        ("", "(f64.store (i32.const 0) (f64.promote_f32 (f32.load (i32.const 112))))", NAN64),
        ("", "(f64.store (i32.const 0) (f64.ceil (f64.load (i32.const 96))))", NAN64),
        // The sign of an open NaN shows in a number.
        ("", &format!("(f64.store (i32.const 0) (f64.copysign (f64.const 0) {OPEN64}))"), 0),
        ("", &format!("(f64.store (i32.const 0) (f64.copysign {OPEN64} (f64.const -1)))"), NAN64),
        // On the way: locals, signs, choices, blocks, calls, globals, lanes.
        ("", &format!("(local f64) (local.set 0 {OPEN64}) (f64.store (i32.const 0) (local.get 0))"), NAN64),
        ("", &format!("(local f64) (f64.store (i32.const 0) (local.tee 0 {OPEN64}))"), NAN64),
        ("", &format!("(f64.store (i32.const 0) (f64.neg (f64.abs {OPEN64})))"), NAN64),
        ("", &format!("(f64.store (i32.const 0) (select {OPEN64} (f64.const 1) (i32.const 1)))"), NAN64),
        ("", &format!("(f64.store (i32.const 0) (select {OPEN64} (f64.load (i32.const 64)) (i32.const 1)))"), NAN64),
        ("", &format!("(f64.store (i32.const 0) (block (result f64) (br 0 {OPEN64})))"), NAN64),
        ("", &format!("(f64.store (i32.const 0) (if (result f64) (i32.const 1) (then {OPEN64}) (else (f64.const 1))))"), NAN64),
        ("", &format!("(f64.store (i32.const 0) (if (result f64) (i32.const 1) (then {OPEN64}) (else (f64.load (i32.const 96)))))"), NAN64),
        ("", &format!("(f64.store (i32.const 0) (loop (result f64) {OPEN64}))"), NAN64),
        ("", &format!("i32.const 0 {OPEN64} loop (param f64) (result f64) end f64.store"), NAN64),
        ("", &format!("i32.const 0 {OPEN64} i32.const 1 if (param f64) (result f64) end f64.store"), NAN64),
        ("", &format!("i32.const 0 {OPEN64} i32.const 0 if (param f64) (result f64) f64.neg end f64.store"), NAN64),
        ("", &format!("i32.const 0 block (result f64) (br_table 0 0 {OPEN64} (i32.const 7)) end f64.store"), NAN64),
        ("(func $f (param f64) (f64.store (i32.const 0) (local.get 0)))", &format!("(call $f {OPEN64})"), NAN64),
        (&format!("(func $f (result f64) {OPEN64})"), "(f64.store (i32.const 0) (call $f))", NAN64),
        (&format!("(func $f (result f64 f64) (f64.const 1) {OPEN64} return)"), "(local f64) (call $f) (local.set 0) drop (f64.store (i32.const 0) (local.get 0))", NAN64),
        ("", &format!("(global.set $g64 {OPEN64}) (f64.store (i32.const 0) (global.get $g64))"), NAN64),
        ("", &format!("(v128.store (i32.const 0) (f64x2.splat {OPEN64}))"), NAN64X2),
        ("", &format!("(v128.store (i32.const 0) (f64x2.replace_lane 1 (v128.const i64x2 0 0) {OPEN64}))"), NAN64 << 64),
        ("", &format!("(v128.store (i32.const 0) (f64x2.replace_lane 1 (v128.load (i32.const 64)) {OPEN64}))"), NAN64 << 64),
        ("", &format!("(f64.store (i32.const 0) (f64x2.extract_lane 1 {OPEN64X2}))"), NAN64),
        ("", &format!("(v128.store (i32.const 0) (i8x16.shuffle 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 {OPEN64X2} {OPEN64X2}))"), NAN64X2),
        // As lanes of another type, the bits are seen.
        ("", &format!("(f32.store (i32.const 0) (f32x4.extract_lane 0 {OPEN64X2}))"), 0),
        ("", &format!("(v128.store (i32.const 0) (f32x4.abs {OPEN64X2}))"), NAN64X2),
        ("", &format!("(v128.store (i32.const 0) (i8x16.shuffle 7 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 {OPEN64X2} {OPEN64X2}))"), 0x7f),
        ("", &format!("(i64.store (i32.const 0) (i64x2.extract_lane 0 {OPEN64X2}))"), NAN64),
        ("", &format!("(i32.store (i32.const 0) (i32x4.bitmask {OPEN32X4}))"), 0),
        ("", &format!("(v128.store64_lane 1 (i32.const 0) {OPEN32X4})"), NAN32 | NAN32 << 32),
        ("", &format!("(v128.store (i32.const 0) (v128.bitselect {OPEN64X2} (v128.load (i32.const 64)) (v128.const i64x2 -1 0)))"), NAN64),
        // Comparisons and conversions do not show them.
        ("", &format!("(i32.store (i32.const 0) (f64.eq {OPEN64} {OPEN64}))"), 0),
        ("", &format!("(i32.store (i32.const 0) (i32.trunc_sat_f64_s {OPEN64}))"), 0),
    ];
    for (functions, start, expected) in table {
        assert_eq!(result(functions, start), *expected, "{functions} {start}");
    }
}

#[test]
fn bits_that_do_not_come_from_arithmetic_are_left_alone() {
    const LOADED64: u128 = 0xfff4_0005_0403_0201;
    const LOADED32: u128 = 0x7fa0_0201;
    #[rustfmt::skip]
    let table: &[(&str, &str, u128)] = &[
        ("", "(f64.store (i32.const 0) (f64.load (i32.const 96)))", LOADED64),
        ("", "(f32.store (i32.const 0) (f32.load (i32.const 112)))", LOADED32),
        ("", "(v128.store (i32.const 0) (v128.load (i32.const 96)))", LOADED64),
        ("", "(f64.store (i32.const 0) (f64.const nan:0x4000000000001))", 0x7ff4_0000_0000_0001),
        ("", "(f64.store (i32.const 0) (f64.neg (f64.load (i32.const 96))))", LOADED64 ^ 1 << 63),
        ("", "(f64.store (i32.const 0) (f64.copysign (f64.const 1) (f64.load (i32.const 96))))", 0xbff0_0000_0000_0000),
        ("", "(f64.store (i32.const 0) (f64.reinterpret_i64 (i64.const 0x7ff0000000000042)))", 0x7ff0_0000_0000_0042),
        ("(func $f (param f64) (result f64) (local.get 0))", "(f64.store (i32.const 0) (call $f (f64.load (i32.const 96))))", LOADED64),
        ("", "(global.set $g64 (f64.load (i32.const 96))) (f64.store (i32.const 0) (global.get $g64))", LOADED64),
        ("", "(f64.store (i32.const 0) (f64x2.extract_lane 0 (f64x2.splat (f64.load (i32.const 96)))))", LOADED64),
        ("", "(v128.store (i32.const 0) (f64x2.pmin (v128.load (i32.const 96)) (v128.load (i32.const 96))))", LOADED64),
        // One value or the other: each stays what it is.
        ("", &format!("(f64.store (i32.const 0) (select {OPEN64} (f64.load (i32.const 96)) (i32.const 0)))"), LOADED64),
        ("", &format!("(f64.store (i32.const 0) (if (result f64) (i32.const 0) (then {OPEN64}) (else (f64.load (i32.const 96)))))"), LOADED64),
        // A local that held an open NaN before, or on another way, or in an earlier turn.
        ("", &format!("(local f64) (local.set 0 {OPEN64}) (local.set 0 (f64.load (i32.const 96))) (f64.store (i32.const 0) (local.get 0))"), LOADED64),
        ("", &format!("(local f64) (local.set 0 (f64.load (i32.const 96))) (if (i32.const 0) (then (local.set 0 {OPEN64}))) (f64.store (i32.const 0) (local.get 0))"), LOADED64),
        ("", &format!("(local f64 i32) (local.set 0 (f64.load (i32.const 96)))
            loop (f64.store (local.get 1) (local.get 0)) (local.set 0 {OPEN64})
            (br_if 0 (i32.lt_u (local.tee 1 (i32.add (local.get 1) (i32.const 8))) (i32.const 16))) end"), LOADED64 | NAN64 << 64),
        ("", &format!("(local v128) (local.set 0 {OPEN32X4}) (drop (f32x4.abs (local.get 0)))
            (local.set 0 (v128.const i32x4 0x7fa00001 0xffffffff 0x7f800001 0)) (v128.store (i32.const 0) (local.get 0))"),
            0x7f80_0001_ffff_ffff_7fa0_0001),
        ("", "(local v128) (local.set 0 (v128.const i32x4 0x7fa00001 -1 -1 -1))
            (v128.store (i32.const 0) (i32x4.add (local.get 0) (v128.const i32x4 0 0 0 0)))", 0xffff_ffff_ffff_ffff_ffff_ffff_7fa0_0001),
    ];
    for (functions, start, expected) in table {
        assert_eq!(result(functions, start), *expected, "{functions} {start}");
    }
}

/// Sums and products over arrays that hold infinities and zeros, as vectors and as scalars, in loops.
const KERNEL: &str = "
    (local $i i32) (local $sum f64) (local $v v128)
    loop $fill
        (f64.store offset=1024 (local.get $i)
            (f64.div (f64.convert_i32_s (i32.sub (i32.rem_u (local.get $i) (i32.const 7)) (i32.const 3)))
                     (f64.convert_i32_s (i32.rem_u (local.get $i) (i32.const 5)))))
        (br_if $fill (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 8))) (i32.const 4096)))
    end
    (local.set $i (i32.const 0))
    loop $vector
        (local.set $v (f64x2.add (local.get $v) (f64x2.mul
            (v128.load offset=1024 (local.get $i)) (v128.load offset=1032 (local.get $i)))))
        (v128.store offset=8192 (local.get $i) (local.get $v))
        (v128.store offset=16384 (local.get $i) (f32x4.demote_f64x2_zero (local.get $v)))
        (br_if $vector (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 16))) (i32.const 4096)))
    end
    (local.set $i (i32.const 0))
    loop $scalar
        (local.set $sum (f64.sub (f64.load offset=1024 (local.get $i)) (f64.sqrt (local.get $sum))))
        (if (f64.gt (f64.load offset=1024 (local.get $i)) (f64.const 1))
            (then (local.set $sum (f64.load offset=1032 (local.get $i)))))
        (f64.store offset=24576 (local.get $i) (local.get $sum))
        (br_if $scalar (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 8))) (i32.const 4096)))
    end";

#[test]
fn a_kernel_full_of_nans_leaves_the_same_memory_everywhere() {
    let text = program("", KERNEL);
    let wasm = rewritten(&text);
    let mut ends = Vec::new();
    for compiler in COMPILERS {
        let machine = Machine::new(compiler);
        for wasm in [wasm.clone(), scramble(&wasm)] {
            ends.push(machine.run(&machine.compile(&wasm).expect("valid"), PLENTY));
        }
    }
    assert_eq!(ends[0].exit, Exit::Returned);
    assert!(ends.iter().all(|end| *end == ends[0]), "{ends:#?}");
    // Without the rule, it does not.
    let options = Options { settle_nans: false, ..Options::default() };
    let open = rewrite(&wat::parse_str(&text).expect("valid"), &options).expect("within the profile").wasm;
    let machine = Machine::new(COMPILERS[0]);
    let states = [open.clone(), scramble(&open)]
        .map(|wasm| machine.run(&machine.compile(&wasm).expect("valid"), PLENTY).state);
    assert_ne!(states[0], states[1]);
}

#[test]
fn nothing_is_settled_in_a_loop_that_shows_nothing() {
    let text = program(
        "",
        "(local f64 f64 i32)
        loop
            (local.set 0 (f64.add (f64.mul (local.get 0) (local.get 0)) (local.get 1)))
            (local.set 1 (f64.sub (f64.abs (local.get 1)) (f64.const 0.5)))
            (br_if 0 (f64.lt (local.get 0) (f64.const 4)))
        end",
    );
    let wasm = wat::parse_str(&text).expect("valid");
    assert_eq!(rewrite(&wasm, &Options::default()).expect("within the profile").settled, 0);
}

impl Machine {
    fn first_bytes(&self, wasm: &[u8]) -> u128 {
        let module = self.compile(wasm).expect("valid");
        let mut store = Store::new(module.engine(), ());
        let instance = Instance::new(&mut store, &module, &[]).expect("no imports");
        let fuel = instance.get_global(&mut store, talka_profile::FUEL_GLOBAL).expect("rewritten");
        fuel.set(&mut store, Val::I64(1000)).expect("mutable");
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start").expect("a command");
        start.call(&mut store, ()).expect("no trap");
        let memory = instance.get_memory(&mut store, "memory").expect("a command");
        let mut bytes = [0; 16];
        memory.read(&store, 0, &mut bytes).expect("a page");
        u128::from_le_bytes(bytes)
    }
}
