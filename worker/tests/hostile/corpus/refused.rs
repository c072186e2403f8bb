//! What the profile refuses by name: imports, exports, proposals.

use talka_profile::{Rule, WASI_MODULE};

use super::super::{
    guest,
    row::{Expected, Row},
};

const MEMORY: &str = "(memory (export \"memory\") 1)";
const START: &str = "(func (export \"_start\"))";

pub(super) fn rows() -> Vec<Row> {
    let refused =
        |name, text: String, rule| Row::new(name, move || guest::parse(&text), Expected::Refused(rule));
    // `fields` come first: imports must.
    let with = |name, fields: &str, rule| refused(name, format!("(module {fields} {MEMORY} {START})"), rule);
    let import = |name, module: &str, item: &str, ty: &str, rule| {
        with(name, &format!("(import \"{module}\" \"{item}\" {ty})"), rule)
    };
    let start = |name, fields: &str, rule| refused(name, format!("(module {fields} {MEMORY})"), rule);
    let memory = |name, fields: &str, rule| refused(name, format!("(module {fields} {START})"), rule);
    vec![
        import(
            "import of an unknown module",
            "env",
            "system",
            "(func (param i32) (result i32))",
            Rule::Import,
        ),
        import("import of nothing", "", "", "(func)", Rule::Import),
        import(
            "import of an unknown function",
            WASI_MODULE,
            "fd_exec",
            "(func (param i32) (result i32))",
            Rule::Import,
        ),
        import(
            "import of another type",
            WASI_MODULE,
            "fd_write",
            "(func (param i32 i64 i32) (result i32))",
            Rule::Import,
        ),
        import("import without a result", WASI_MODULE, "sched_yield", "(func)", Rule::Import),
        import(
            "import of an older WASI",
            "wasi_unstable",
            "fd_close",
            "(func (param i32) (result i32))",
            Rule::Import,
        ),
        import("import of threads", "wasi", "thread-spawn", "(func (param i32) (result i32))", Rule::Threads),
        import("import of a table", "env", "table", "(table 1 funcref)", Rule::Import),
        import("import of a global", "env", "global", "(global i32)", Rule::Import),
        import("import of the fuel", "talka", "talka_fuel", "(global (mut i64))", Rule::Import),
        memory(
            "import of the memory",
            "(import \"env\" \"memory\" (memory 1)) (export \"memory\" (memory 0))",
            Rule::Import,
        ),
        with(
            "export with a reserved name",
            "(global (export \"talka_fuel\") (mut i64) (i64.const 1))",
            Rule::ReservedExport,
        ),
        with("export of a reserved function", "(func (export \"talka_depth\"))", Rule::ReservedExport),
        start("no entry", "(func (export \"main\"))", Rule::StartMissing),
        start("an entry with parameters", "(func (export \"_start\") (param i32))", Rule::StartMissing),
        start(
            "an entry with results",
            "(func (export \"_start\") (result i32) (i32.const 0))",
            Rule::StartMissing,
        ),
        start(
            "an entry that is a global",
            "(global (export \"_start\") i32 (i32.const 0))",
            Rule::StartMissing,
        ),
        start("a library", "(func (export \"_initialize\"))", Rule::StartMissing),
        memory("no memory", "(memory 1)", Rule::MemoryMissing),
        memory("a memory that is a table", "(table (export \"memory\") 1 funcref)", Rule::MemoryMissing),
        memory("shared memory", "(memory (export \"memory\") 1 1 shared)", Rule::Threads),
        with(
            "atomic operators",
            "(func (drop (i32.atomic.rmw.add (i32.const 0) (i32.const 1))))",
            Rule::Threads,
        ),
        memory("64-bit memory", "(memory (export \"memory\") i64 1)", Rule::Memory64),
        with("two memories", "(memory 1)", Rule::MultiMemory),
        with(
            "relaxed SIMD",
            "(func (param v128) (result v128) (f32x4.relaxed_madd (local.get 0) (local.get 0) (local.get 0)))",
            Rule::RelaxedSimd,
        ),
        with("exceptions", "(tag $e) (func (throw $e))", Rule::Exceptions),
        with("tail calls", "(func $f (return_call $f))", Rule::TailCalls),
        with("garbage collection", "(type (struct (field (mut i32))))", Rule::Gc),
        with("references of the host", "(table 1 externref)", Rule::Gc),
        with("typed references", "(type $t (func)) (func (param (ref $t)))", Rule::Gc),
        with(
            "wide arithmetic",
            "(func (result i64 i64) (i64.add128 (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1)))",
            Rule::WideArithmetic,
        ),
        with("stack switching", "(type $t (func)) (type (cont $t))", Rule::StackSwitching),
        memory("pages of one byte", "(memory (export \"memory\") 1 (pagesize 1))", Rule::CustomPageSizes),
    ]
}
