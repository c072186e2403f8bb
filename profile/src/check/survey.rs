//! What a module imports, exports and contains, held against the profile's rules and limits.
//!
//! Reads what it can: the first malformed byte ends the survey, and the validator reports it.

use talka_core::limits;
use wasmparser::{
    CompositeInnerType, ExternalKind, FuncType, FunctionBody, Import, Operator, Parser, Payload, TypeRef,
    ValType,
};

use super::problem::{Problems, Rule, quoted};
use crate::{
    RESERVED_PREFIX,
    wasi::{WASI_MODULE, WasiFunction, Word, wasi_function},
};

/// Reports what breaks the rules. Returns the number of memories; `None` for a module with so many of something
/// that it is not to be read any further.
pub(super) fn check(wasm: &[u8], problems: &mut Problems) -> Option<u64> {
    let mut survey = Survey::default();
    let whole = match survey.read(wasm, problems) {
        Ok(Extent::TooMany) => return None,
        Ok(Extent::Whole) => true,
        Err(_) => false,
    };
    survey.judge_counts(problems);
    // A file that is cut short may have had its exports in the part that is lost.
    if whole || survey.exports_seen {
        survey.judge_exports(problems);
    }
    Some(survey.memories)
}

/// How much of a module was read.
enum Extent {
    Whole,
    /// Up to a section with more entries than it may have.
    TooMany,
}

/// What is gathered on the way through the file.
#[derive(Default)]
struct Survey {
    types: Vec<Option<FuncType>>,
    /// Parameters and results of all types.
    type_words: usize,
    /// Type of each function, imported ones first.
    functions: Vec<u32>,
    defined_functions: u64,
    tables: u64,
    memories: u64,
    globals: u64,
    data_segments: u64,
    largest_table: u64,
    /// Size and index of the largest function body.
    largest_body: (u64, usize),
    most_locals: (u64, usize),
    most_targets: (u64, usize),
    bodies: usize,
    exports_seen: bool,
    start: Option<(ExternalKind, u32)>,
    memory: Option<ExternalKind>,
    initialize: bool,
}

impl Survey {
    fn read(&mut self, wasm: &[u8], problems: &mut Problems) -> wasmparser::Result<Extent> {
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload?;
            if has_too_many(&payload, problems) {
                return Ok(Extent::TooMany);
            }
            match payload {
                Payload::TypeSection(section) => {
                    for group in section {
                        self.types.extend(group?.into_types().map(|ty| match ty.composite_type.inner {
                            CompositeInnerType::Func(ty) => Some(ty),
                            _ => None,
                        }));
                        if self.has_too_many_words(problems) {
                            return Ok(Extent::TooMany);
                        }
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        self.import(&import?, problems);
                    }
                }
                Payload::FunctionSection(section) => {
                    self.defined_functions = section.count().into();
                    for ty in section {
                        self.functions.push(ty?);
                    }
                }
                Payload::TableSection(section) => {
                    self.tables = section.count().into();
                    for table in section {
                        self.largest_table = self.largest_table.max(table?.ty.initial);
                    }
                }
                Payload::MemorySection(section) => self.memories += u64::from(section.count()),
                Payload::GlobalSection(section) => self.globals = section.count().into(),
                Payload::DataSection(section) => self.data_segments = section.count().into(),
                Payload::ExportSection(section) => {
                    self.exports_seen = true;
                    for export in section {
                        let export = export?;
                        match export.name {
                            "_start" => self.start = Some((export.kind, export.index)),
                            "memory" => self.memory = Some(export.kind),
                            "_initialize" => self.initialize = true,
                            name if name.starts_with(RESERVED_PREFIX) => problems.add(
                                Rule::ReservedExport,
                                format!(
                                    "export {} begins with {RESERVED_PREFIX:?}, which belongs to the grid; rename it",
                                    quoted(name)
                                ),
                            ),
                            _ => {}
                        }
                    }
                }
                Payload::CodeSectionEntry(body) => self.body(&body)?,
                _ => {}
            }
        }
        Ok(Extent::Whole)
    }

    /// Counts what the latest type takes and gives, and reports it if that is too much for all.
    fn has_too_many_words(&mut self, problems: &mut Problems) -> bool {
        let latest = self.types.last().and_then(Option::as_ref);
        self.type_words += latest.map_or(0, |ty| ty.params().len() + ty.results().len());
        let max = limits::MODULE_TYPE_WORDS_MAX;
        let over = self.type_words > max as usize;
        if over {
            let detail = format!(
                "parameters and results of all types: above {max}, which is the limit; pass structures by pointer"
            );
            problems.add(Rule::Types, detail);
        }
        over
    }

    fn import(&mut self, import: &Import<'_>, problems: &mut Problems) {
        let name = format!("import {}.{}", quoted(import.module), quoted(import.name));
        self.memories += u64::from(matches!(import.ty, TypeRef::Memory(_)));
        let (TypeRef::Func(ty) | TypeRef::FuncExact(ty)) = import.ty else {
            let kind = match import.ty {
                TypeRef::Memory(_) => "a memory; link without --import-memory",
                TypeRef::Table(_) => "a table; link without --import-table",
                TypeRef::Global(_) => "a global; link without -shared or -pie",
                _ => "a tag; build without exceptions",
            };
            problems.add(Rule::Import, format!("{name} is {kind}: only WASI functions may be imported"));
            return;
        };
        self.functions.push(ty);
        if import.module != WASI_MODULE {
            let rule = if import.module == "wasi" { Rule::Threads } else { Rule::Import };
            if rule == Rule::Import || !problems.has(rule) {
                problems.add(rule, format!("{name} cannot be provided: {}", remedy_of_module(import.module)));
            }
            return;
        }
        let Some(function) = wasi_function(import.name) else {
            let detail = format!("{name} is no function of WASI preview 1; build with a released WASI SDK");
            problems.add(Rule::Import, detail);
            return;
        };
        match self.types.get(ty as usize) {
            Some(Some(ty)) if !has_signature(ty, function) => {
                let detail = format!(
                    "{name} has type {ty}, WASI preview 1 has {}; build with a released WASI SDK",
                    signature(function)
                );
                problems.add(Rule::Import, detail);
            }
            _ => {}
        }
    }

    fn body(&mut self, body: &FunctionBody<'_>) -> wasmparser::Result<()> {
        let index = self.functions.len().saturating_sub(usize::try_from(self.defined_functions).unwrap_or(0))
            + self.bodies;
        self.bodies += 1;
        let range = body.range();
        self.largest_body = self.largest_body.max(((range.end - range.start) as u64, index));
        let mut locals = 0u64;
        for group in body.get_locals_reader()? {
            locals += u64::from(group?.0);
        }
        self.most_locals = self.most_locals.max((locals, index));
        // A target takes a byte at least, so a smaller function has fewer.
        if range.end - range.start > limits::MODULE_BRANCH_TARGETS_MAX as usize {
            for operator in body.get_operators_reader()? {
                if let Operator::BrTable { targets } = operator? {
                    self.most_targets = self.most_targets.max((targets.len().into(), index));
                }
            }
        }
        Ok(())
    }

    fn judge_counts(&self, problems: &mut Problems) {
        let mut over = |rule: Rule, what: &str, value: u64, max: u64, remedy: &str| {
            if value > max {
                problems.add(rule, format!("{what}: {value}, the limit is {max}; {remedy}"));
            }
        };
        let smaller = "build with optimisation and --gc-sections, or split the program";
        over(
            Rule::Functions,
            "functions",
            self.defined_functions,
            limits::MODULE_FUNCTIONS_MAX.into(),
            smaller,
        );
        let (bytes, index) = self.largest_body;
        let what = format!("bytes of function {index}");
        let max = limits::MODULE_BODY_BYTES_MAX.into();
        over(Rule::BodyBytes, &what, bytes, max, "split the function, or build with less inlining (-Os)");
        let (locals, index) = self.most_locals;
        let what = format!("locals of function {index}");
        let max = limits::MODULE_LOCALS_MAX.into();
        over(Rule::Locals, &what, locals, max, "split the function, or build with optimisation");
        let (targets, index) = self.most_targets;
        let what = format!("targets of a br_table in function {index}");
        let max = limits::MODULE_BRANCH_TARGETS_MAX.into();
        over(Rule::BranchTargets, &what, targets, max, "split the switch, or look its cases up in a table");
        over(Rule::Tables, "tables", self.tables, limits::MODULE_TABLES_MAX.into(), "use fewer tables");
        let remedy = "link everything into one memory (wasm-opt --multi-memory-lowering)";
        over(Rule::MultiMemory, "memories", self.memories, 1, remedy);
        let max = limits::MODULE_TABLE_ELEMENTS_MAX;
        over(Rule::TableElements, "elements of a table", self.largest_table, max, "use a smaller table");
        let max = limits::MODULE_DATA_SEGMENTS_MAX.into();
        let remedy = "build without -fdata-sections, or move tables of constants into the job's --data files";
        over(Rule::DataSegments, "data segments", self.data_segments, max, remedy);
        over(Rule::Globals, "globals", self.globals, limits::MODULE_GLOBALS_MAX.into(), smaller);
    }

    fn judge_exports(&self, problems: &mut Problems) {
        match self.start {
            Some((ExternalKind::Func | ExternalKind::FuncExact, index)) => {
                let ty = self.functions.get(index as usize).and_then(|&ty| self.types.get(ty as usize));
                if let Some(Some(ty)) = ty
                    && !(ty.params().is_empty() && ty.results().is_empty())
                {
                    let detail = format!("\"_start\" has type {ty}; it must take and return nothing");
                    problems.add(Rule::StartMissing, detail);
                }
            }
            Some(_) => problems.add(Rule::StartMissing, "\"_start\" is exported but is no function"),
            None if self.initialize => problems.add(
                Rule::StartMissing,
                "the module is a library (it exports \"_initialize\"); build a program with a main function, \
                 without -mexec-model=reactor or crate-type cdylib",
            ),
            None => problems.add(
                Rule::StartMissing,
                "no function \"_start\" is exported; build a WASI command: a program with a main function, for \
                 wasm32-wasip1",
            ),
        }
        if self.memory != Some(ExternalKind::Memory) {
            problems.add(
                Rule::MemoryMissing,
                "no memory is exported under the name \"memory\", so the program could exchange nothing with its \
                 host; build for wasm32-wasip1",
            );
        }
    }
}

/// Reports a section whose entries would take much memory only to be read.
fn has_too_many(payload: &Payload<'_>, problems: &mut Problems) -> bool {
    let (rule, what, count, max) = match payload {
        Payload::TypeSection(section) => (Rule::Types, "types", section.count(), limits::MODULE_TYPES_MAX),
        Payload::ImportSection(section) => {
            (Rule::Imports, "imports", section.count(), limits::MODULE_IMPORTS_MAX)
        }
        Payload::ExportSection(section) => {
            (Rule::Exports, "exports", section.count(), limits::MODULE_EXPORTS_MAX)
        }
        _ => return false,
    };
    if count > max {
        let remedy = "build with optimisation and --gc-sections; nothing behind them was looked at";
        problems.add(rule, format!("{what}: {count}, the limit is {max}; {remedy}"));
    }
    count > max
}

fn remedy_of_module(module: &str) -> &'static str {
    match module {
        "wasi_unstable" => "WASI snapshot 0 is outdated; build with a WASI SDK of 2020 or later",
        "wasi" => "it starts threads; build for wasm32-wasip1 and not wasm32-wasip1-threads",
        "env" => {
            "it is undefined in the program; link the library that defines it, and do not build with Emscripten \
             for the web"
        }
        "go" | "gojs" => "it belongs to Go for the web; build with GOOS=wasip1",
        "./index_bg.js" | "__wbindgen_placeholder__" | "wbg" => {
            "it belongs to wasm-bindgen; build for wasm32-wasip1 and without JavaScript bindings"
        }
        _ => {
            "only functions of wasi_snapshot_preview1 may be imported; a task can see its input and nothing else"
        }
    }
}

fn has_signature(ty: &FuncType, function: &WasiFunction) -> bool {
    let same = |have: &[ValType], want: &[Word]| {
        have.len() == want.len() && have.iter().zip(want).all(|(have, want)| *have == value_type(*want))
    };
    same(ty.params(), function.params) && same(ty.results(), function.results)
}

fn value_type(word: Word) -> ValType {
    match word {
        Word::I32 => ValType::I32,
        Word::I64 => ValType::I64,
    }
}

fn signature(function: &WasiFunction) -> FuncType {
    let types = |words: &'static [Word]| words.iter().copied().map(value_type);
    FuncType::new(types(function.params), types(function.results))
}
