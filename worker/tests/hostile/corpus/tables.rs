//! Tables, globals, and very many of anything.

use talka_core::{
    limits,
    outcome::{Limit, Trap},
    quantities::Bytes as Size,
};
use talka_profile::Rule;
use wasm_encoder::{ConstExpr, Elements, ExportKind, Function, GlobalType, ValType};

use super::super::{
    row::{Expected, OK, Row, limit, trap},
    sections::{Sections, zero},
};

const ELEMENTS: u64 = limits::MODULE_TABLE_ELEMENTS_MAX;

pub(super) fn rows() -> Vec<Row> {
    let mut rows = text_rows();
    rows.extend(counts());
    rows.extend(heavy());
    rows
}

fn text_rows() -> Vec<Row> {
    let call = |index: &str| format!("(call_indirect (type $t) (i32.const {index}))");
    let table = "(type $t (func)) (table $t 10 funcref) (func $f (param i32)) (elem (i32.const 3) $f)";
    vec![
        Row::text(
            "growing a table to the limit",
            "(table $t 0 funcref)",
            format!(
                "(loop (br_if 0 (i32.ne (table.grow $t (ref.null func) (i32.const 1)) (i32.const -1))))
                (call $is (table.size $t) (i32.const {ELEMENTS}))"
            ),
            OK,
        ),
        Row::text(
            "growing a table at once",
            "(table $t 0 funcref)",
            "(call $is (table.grow $t (ref.null func) (i32.const -1)) (i32.const -1))",
            OK,
        )
        .fuel(10_000_000_000),
        Row::text(
            "growing a table at once costs too much",
            "(table $t 0 funcref)",
            "(call $is (table.grow $t (ref.null func) (i32.const -1)) (i32.const -1))",
            limit(Limit::Fuel),
        ),
        Row::text("calling nothing", table, call("0"), trap(Trap::IndirectCallToNull)),
        Row::text("calling another type", table, call("3"), trap(Trap::BadSignature)),
        Row::text("calling behind the end", table, call("10"), trap(Trap::TableOutOfBounds)),
        Row::text("calling far behind the end", table, call("-1"), trap(Trap::TableOutOfBounds)),
        Row::text(
            "elements behind the end",
            "(table 10 funcref) (func $f) (elem (i32.const 9) $f $f)",
            "",
            trap(Trap::TableOutOfBounds),
        ),
        Row::text(
            "a table filled behind its end",
            "(table $t 10 funcref)",
            "(table.fill $t (i32.const 5) (ref.null func) (i32.const 6))",
            trap(Trap::TableOutOfBounds),
        ),
    ]
}

/// As many as the profile allows, and one more.
fn counts() -> Vec<Row> {
    let tables = |count: u32, minimum: u64| {
        move || {
            let mut sections = Sections::idle();
            (0..count).for_each(|_| sections.table(minimum, None));
            sections.finish()
        }
    };
    let globals = |count: u32| {
        move || {
            let mut sections = Sections::idle();
            let ty = GlobalType { val_type: ValType::V128, mutable: true, shared: false };
            for number in 0..count {
                sections.globals.global(ty, &ConstExpr::v128_const(number.into()));
            }
            sections.finish()
        }
    };
    let segments = |count: u32| {
        move || {
            let mut sections = Sections::idle();
            for number in 0..count {
                sections.data.active(0, &ConstExpr::i32_const((number % 60_000).cast_signed()), [1]);
            }
            sections.finish()
        }
    };
    let functions = |count: u32| {
        move || {
            let mut sections = Sections::idle();
            let mut body = Function::new([]);
            body.instructions().end();
            for _ in 1..count {
                sections.functions.function(0);
                sections.code.function(&body);
            }
            sections.finish()
        }
    };
    vec![
        Row::new("tables", tables(limits::MODULE_TABLES_MAX, ELEMENTS), OK),
        Row::new(
            "one table too many",
            tables(limits::MODULE_TABLES_MAX + 1, 1),
            Expected::Refused(Rule::Tables),
        ),
        Row::new("a table too large", tables(1, ELEMENTS + 1), Expected::Refused(Rule::TableElements)),
        Row::new("a table of 4 G", tables(1, u32::MAX.into()), Expected::Refused(Rule::TableElements)),
        Row::new("90 tables of 10 M", tables(90, 10_000_000), Expected::Refused(Rule::Tables)),
        Row::new("globals", globals(limits::MODULE_GLOBALS_MAX), OK),
        Row::new(
            "one global too many",
            globals(limits::MODULE_GLOBALS_MAX + 1),
            Expected::Refused(Rule::Globals),
        ),
        Row::new("a million globals", globals(1_000_000), Expected::Refused(Rule::Globals)),
        Row::new("20000 data segments", segments(20_000), OK),
        Row::new(
            "one data segment too many",
            segments(limits::MODULE_DATA_SEGMENTS_MAX + 1),
            Expected::Refused(Rule::DataSegments),
        ),
        Row::new("functions", functions(limits::MODULE_FUNCTIONS_MAX), OK),
        Row::new(
            "one function too many",
            functions(limits::MODULE_FUNCTIONS_MAX + 1),
            Expected::Refused(Rule::Functions),
        ),
        Row::new("a million functions", functions(1_000_000), Expected::Refused(Rule::Functions)),
    ]
}

/// What a compiled module keeps in memory for each import, export, type or element.
fn heavy() -> Vec<Row> {
    let types = |count: u32| {
        move || {
            let mut sections = Sections::idle();
            let all =
                [ValType::I32, ValType::I64, ValType::F32, ValType::F64, ValType::V128, ValType::FUNCREF];
            for number in 0..count {
                let digit = |place: u32| all[(number / 6_u32.pow(place) % 6) as usize];
                sections.types.ty().function((0..8).map(digit), []);
            }
            sections.finish()
        }
    };
    let wide_types = |count: u32| {
        move || {
            let mut sections = Sections::idle();
            for number in 0..count {
                let digit =
                    |place: u32| if number >> (place % 16) & 1 == 0 { ValType::I32 } else { ValType::I64 };
                sections.types.ty().function((0..1000).map(digit), (0..1000).map(digit));
            }
            sections.finish()
        }
    };
    let exports = |count: u32| {
        move || {
            let mut sections = Sections::idle();
            for number in 0..count {
                sections.exports.export(&format!("{number:x}"), ExportKind::Func, 0);
            }
            sections.finish()
        }
    };
    let imports = |count: u32| {
        move || {
            let mut sections = Sections::default();
            sections.types.ty().function([], []);
            sections.types.ty().function([], [ValType::I32]);
            for _ in 0..count {
                sections.imports.import(
                    talka_profile::WASI_MODULE,
                    "sched_yield",
                    wasm_encoder::EntityType::Function(1),
                );
            }
            let mut start = Function::new([]);
            start.instructions().end();
            sections.functions.function(0);
            sections.code.function(&start);
            sections.finish()
        }
    };
    let elements = |segments: u32, each: usize| {
        move || {
            let mut sections = Sections::idle();
            sections.table(ELEMENTS, None);
            let all = vec![0; each];
            for _ in 0..segments {
                sections.elements.active(None, &zero(), Elements::Functions((&all).into()));
            }
            sections.finish()
        }
    };
    vec![
        Row::new("as many types as there may be", types(limits::MODULE_TYPES_MAX - 2), OK),
        Row::new("one type too many", types(limits::MODULE_TYPES_MAX + 1), Expected::Refused(Rule::Types)),
        Row::new("100 types of 2000 words", wide_types(99), OK),
        Row::new("1000 types of 2000 words", wide_types(1000), Expected::Refused(Rule::Types)),
        Row::new("as many exports as there may be", exports(limits::MODULE_EXPORTS_MAX - 2), OK),
        Row::new("500000 exports", exports(500_000), Expected::Refused(Rule::Exports)),
        Row::new("as many imports as there may be", imports(limits::MODULE_IMPORTS_MAX), OK),
        Row::new("500000 imports", imports(500_000), Expected::Refused(Rule::Imports)),
        Row::new("30 MB of elements", elements(150, 200_000), Expected::Survived).memory(Size::mib(64)),
        Row::new("100000 segments of elements", elements(99_000, 1), Expected::Survived),
    ]
}
