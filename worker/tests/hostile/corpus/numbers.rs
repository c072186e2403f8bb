//! The bits of NaNs: the one thing on which processors may disagree.

use std::fmt::Write as _;

use super::super::row::{Expected, Row};

/// Makes NaNs in as many ways as there are and writes their bits.
pub(super) fn rows() -> Vec<Row> {
    const NAN32: u32 = 0x7fc0_0000;
    const NAN64: u64 = 0x7ff8_0000_0000_0000;
    // At 1024: 0 and infinity in both widths, a signalling NaN with a payload and a sign in both.
    let fields = r#"(data (i32.const 1032) "\00\00\80\7f\00\00\00\00\00\00\00\00\00\00\f0\7f\01\02\a0\ff\00\00\00\00\05\04\03\02\01\00\f4\ff")"#;
    let (zero, inf32, inf64) = ("1024", "1032", "1040");
    let (nan32, nan64) = ("1048", "1056");
    let load32 = |at: &str| format!("(f32.load (i32.const {at}))");
    let load64 = |at: &str| format!("(f64.load (i32.const {at}))");
    let (z32, z64) = (load32(zero), load64(zero));
    let singles = [
        format!("(f32.div {z32} {z32})"),
        "(f32.sqrt (f32.const -1))".to_owned(),
        format!("(f32.sub {0} {0})", load32(inf32)),
        format!("(f32.mul {} {z32})", load32(inf32)),
        format!("(f32.add {} (f32.const 1))", load32(nan32)),
        format!("(f32.min {} {z32})", load32(nan32)),
        format!("(f32.max {z32} {})", load32(nan32)),
        format!("(f32.nearest {})", load32(nan32)),
        format!("(f32.ceil {})", load32(nan32)),
        format!("(f32.demote_f64 {})", load64(nan64)),
        format!("(f32x4.extract_lane 2 (f32x4.div (f32x4.splat {z32}) (f32x4.splat {z32})))"),
    ];
    let doubles = [
        format!("(f64.div {z64} {z64})"),
        "(f64.sqrt (f64.const -1))".to_owned(),
        format!("(f64.sub {0} {0})", load64(inf64)),
        format!("(f64.mul {} {z64})", load64(inf64)),
        format!("(f64.add {} (f64.const 1))", load64(nan64)),
        format!("(f64.min {} {z64})", load64(nan64)),
        format!("(f64.floor {})", load64(nan64)),
        format!("(f64.promote_f32 {})", load32(nan32)),
        "(f64x2.extract_lane 1 (f64x2.sqrt (f64x2.splat (f64.const -1))))".to_owned(),
    ];
    let mut start = String::new();
    let mut expected = Vec::new();
    for single in &singles {
        write!(start, "(f32.store (i32.const {}) {single})", 4096 + expected.len()).expect("a string");
        expected.extend(NAN32.to_le_bytes());
    }
    for double in &doubles {
        let at = 4096 + expected.len();
        write!(start, "(i64.store (i32.const {at}) (i64.reinterpret_f64 {double}))").expect("a string");
        expected.extend(NAN64.to_le_bytes());
    }
    // What a program itself writes into a NaN is its own: it is only moved.
    write!(start, "(f64.store (i32.const {}) {})", 4096 + expected.len(), load64(nan64)).expect("a string");
    expected.extend([5, 4, 3, 2, 1, 0, 0xf4, 0xff]);
    write!(start, "(call $put (i32.const 1) (i32.const 4096) (i32.const {}))", expected.len())
        .expect("a string");
    vec![Row::text("bits of NaNs", fields, start, Expected::Writes(expected))]
}
