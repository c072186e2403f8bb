//! Files that are no modules, nearly modules, or modules that were damaged.

use talka_core::limits;
use talka_profile::Rule;

use super::super::{
    guest,
    row::{Expected, OK, Row},
    sections::Sections,
};

const HEADER: &[u8] = b"\0asm\x01\0\0\0";

pub(super) fn rows() -> Vec<Row> {
    let mut rows = formats();
    rows.extend(malformed());
    rows.extend(damaged());
    rows
}

fn formats() -> Vec<Row> {
    let file =
        |name, bytes: &'static [u8], rule| Row::new(name, move || bytes.to_vec(), Expected::Refused(rule));
    vec![
        file("an empty file", b"", Rule::NotWasm),
        file("half a header", b"\0asm\x01", Rule::NotWasm),
        file("only a header", HEADER, Rule::StartMissing),
        file("an unknown version", b"\0asm\x02\0\0\0", Rule::NotWasm),
        file("a component", b"\0asm\x0d\0\x01\0", Rule::Component),
        file("a native program", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0", Rule::NotWasm),
        file("an archive", b"PK\x03\x04\x14\0\0\0\x08\0", Rule::NotWasm),
        file("a compressed file", b"\x1f\x8b\x08\0\0\0\0\0", Rule::NotWasm),
        file("a script", b"#!/bin/sh\nrm -rf /\n", Rule::NotWasm),
        file("text", b"(module (func (export \"_start\") (loop (br 0))))", Rule::NotWasm),
        // Machine code is never taken from anybody, in whatever form it comes.
        Row::new(
            "a compiled module",
            || [&b"\x7fELF"[..], &[0; 4096]].concat(),
            Expected::Refused(Rule::NotWasm),
        ),
        Row::new(
            "a file above the limit",
            || {
                let mut bytes = HEADER.to_vec();
                bytes.resize(usize::try_from(limits::MODULE_BYTES_MAX).expect("fits") + 1, 0);
                bytes
            },
            Expected::Refused(Rule::ModuleBytes),
        ),
        Row::new(
            "a custom section of 31 MiB",
            || {
                let mut sections = Sections::idle();
                let mut custom = b"\x04bomb".to_vec();
                custom.resize(31 << 20, 0x50);
                sections.custom.push(custom);
                sections.finish()
            },
            OK,
        ),
        Row::new(
            "names of 30 MiB",
            || {
                let mut sections = Sections::idle();
                // The subsection of function names, with one name for each of 300 functions.
                let mut names = Vec::new();
                leb(&mut names, 300);
                for index in 0..300 {
                    leb(&mut names, index);
                    leb(&mut names, 100_000);
                    names.resize(names.len() + 100_000, b'n');
                }
                let mut custom = b"\x04name\x01".to_vec();
                leb(&mut custom, u32::try_from(names.len()).expect("fits"));
                custom.extend(names);
                sections.custom.push(custom);
                sections.finish()
            },
            Expected::Survived,
        ),
    ]
}

/// A number as the binary format has it.
fn leb(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Sections that lie about themselves.
fn malformed() -> Vec<Row> {
    let refused = |name, sections: &'static [&'static [u8]], rule| {
        Row::new(name, move || [&[HEADER], sections].concat().concat(), Expected::Refused(rule))
    };
    let invalid = |name, sections| refused(name, sections, Rule::Invalid);
    vec![
        invalid("a section longer than the file", &[b"\x01\xff\xff\xff\xff\x0f\x01"]),
        invalid("a length in six bytes", &[b"\x01\x84\x80\x80\x80\x80\x00\x01\x60\0\0"]),
        invalid("a length above 32 bits", &[b"\x01\xff\xff\xff\xff\x7f\x01\x60\0\0"]),
        refused("4 G types", &[b"\x01\x05\xff\xff\xff\xff\x0f"], Rule::Types),
        invalid("4 G parameters", &[b"\x01\x07\x01\x60\xff\xff\xff\xff\x0f"]),
        refused("4 G imports", &[b"\x02\x05\xff\xff\xff\xff\x0f"], Rule::Imports),
        invalid("4 G functions", &[b"\x01\x04\x01\x60\0\0", b"\x03\x05\xff\xff\xff\xff\x0f"]),
        refused("4 G exports", &[b"\x07\x05\xff\xff\xff\xff\x0f"], Rule::Exports),
        invalid("a name of 4 GiB", &[b"\x07\x06\x01\xff\xff\xff\xff\x0f"]),
        invalid("4 G bodies", &[b"\x01\x04\x01\x60\0\0", b"\x03\x02\x01\0", b"\x0a\x05\xff\xff\xff\xff\x0f"]),
        invalid(
            "4 G locals",
            &[
                b"\x01\x04\x01\x60\0\0",
                b"\x03\x02\x01\0",
                b"\x0a\x0a\x01\x08\x01\xff\xff\xff\xff\x0f\x7f\x0b",
            ],
        ),
        invalid("4 G data segments", &[b"\x0b\x05\xff\xff\xff\xff\x0f"]),
        invalid("functions without bodies", &[b"\x01\x04\x01\x60\0\0", b"\x03\x02\x01\0"]),
        invalid("sections out of order", &[b"\x03\x02\x01\0", b"\x01\x04\x01\x60\0\0"]),
        invalid("a section twice", &[b"\x01\x04\x01\x60\0\0", b"\x01\x04\x01\x60\0\0"]),
        invalid("an unknown section", &[b"\x3f\x01\0"]),
        invalid(
            "an import whose name is not UTF-8",
            &[b"\x01\x04\x01\x60\0\0", b"\x02\x08\x01\x02\xff\xfe\x01x\0\0"],
        ),
        invalid(
            "an export whose name is not UTF-8",
            &[b"\x05\x03\x01\0\x01", b"\x07\x06\x01\x02\xc3\x28\x02\0"],
        ),
        invalid("a custom section whose name is not UTF-8", &[b"\0\x03\x02\xff\xfe"]),
    ]
}

/// One module, damaged in some hundreds of ways. Most of what comes out is refused; the rest runs.
fn damaged() -> Vec<Row> {
    let many =
        |name, modules: fn() -> Vec<Vec<u8>>| Row::many(name, modules, Expected::Survived).fuel(1_000_000);
    vec![
        many("modules cut short", || {
            let whole = victim();
            (0..whole.len()).step_by(whole.len() / 200).map(|length| whole[..length].to_vec()).collect()
        }),
        many("modules with flipped bits", || {
            let whole = victim();
            let mut random = Random(1);
            let flipped = |flips: u64, random: &mut Random| {
                let mut bytes = whole.clone();
                for _ in 0..flips {
                    let at = random.below(bytes.len());
                    bytes[at] ^= 1 << random.below(8);
                }
                bytes
            };
            (0..300).map(|number| flipped(1 + number % 3, &mut random)).collect()
        }),
        many("modules with other bytes in their code", || {
            let whole = victim();
            let mut random = Random(2);
            // The last third is code and data: what is changed there more often still makes sense.
            let changed = |random: &mut Random| {
                let mut bytes = whole.clone();
                let at = whole.len() * 2 / 3 + random.below(whole.len() / 3);
                bytes[at] = u8::try_from(random.below(256)).expect("a byte");
                bytes
            };
            (0..200).map(|_| changed(&mut random)).collect()
        }),
        many("modules of noise", || {
            let mut random = Random(3);
            let noise = |random: &mut Random| {
                let length = random.below(2000);
                let bytes = (0..length).map(|_| u8::try_from(random.below(256)).expect("a byte"));
                [HEADER.to_vec(), bytes.collect()].concat()
            };
            (0..50).map(|_| noise(&mut random)).collect()
        }),
    ]
}

/// A generator that is the same everywhere (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }
}

/// A program with a bit of everything.
fn victim() -> Vec<u8> {
    guest::program(
        "(type $t (func (param i32) (result i32)))
        (table $t 8 funcref) (elem (i32.const 0) $double $count $sum)
        (elem $e func $double $count)
        (global $total (mut i64) (i64.const 0)) (global $one f64 (f64.const 1))
        (data (i32.const 512) \"some bytes to look at, and some more of them\")
        (data $d \"put there later\")
        (func $double (type $t) (i32.mul (local.get 0) (i32.const 2)))
        (func $count (type $t) (local $i i32)
            (block $done (loop $more
                (br_if $done (i32.ge_u (local.get $i) (local.get 0)))
                (global.set $total (i64.add (global.get $total) (i64.extend_i32_u (local.get $i))))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br $more)))
            (i32.wrap_i64 (global.get $total)))
        (func $sum (type $t) (local $at i32) (local $sum i32)
            (loop
                (local.set $sum (i32.add (local.get $sum) (i32.load8_u offset=512 (local.get $at))))
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (br_if 0 (i32.lt_u (local.get $at) (local.get 0))))
            (local.get $sum))
        (func $float (param f64) (result f64)
            (f64.div (f64.sqrt (local.get 0)) (f64.add (global.get $one) (f64.load (i32.const 512)))))
        (func $choose (param i32) (result i32)
            (block (block (block (br_table 0 1 2 (local.get 0))) (return (i32.const 10))) (return (i32.const 20)))
            (if (result i32) (local.get 0) (then (i32.const 30)) (else (select (i32.const 40) (i32.const 50) (local.get 0)))))",
        "(local $i i32)
        (memory.init $d (i32.const 600) (i32.const 0) (i32.const 15))
        (table.init $t $e (i32.const 4) (i32.const 0) (i32.const 2))
        (loop $again
            (i32.store (i32.add (i32.const 1024) (i32.mul (local.get $i) (i32.const 4)))
                (call_indirect (type $t) (i32.const 20) (i32.rem_u (local.get $i) (i32.const 3))))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $i) (i32.const 16))))
        (f64.store (i32.const 1088) (call $float (f64.const 2)))
        (v128.store (i32.const 1096) (f32x4.mul (v128.load (i32.const 512)) (f32x4.splat (f32.const 1.5))))
        (i32.store (i32.const 1112) (call $choose (i32.const 1)))
        (memory.copy (i32.const 1116) (i32.const 600) (i32.const 15))
        (call $put (i32.const 1) (i32.const 1024) (i32.const 128))",
    )
}
