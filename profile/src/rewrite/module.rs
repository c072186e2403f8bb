//! Takes a module apart and puts it together again with new functions.

use wasm_encoder::{
    BranchHints, CodeSection, ConstExpr, ExportKind, ExportSection, FunctionSection, GlobalSection,
    GlobalType, InstructionSink, Module, RawSection, TypeSection, ValType,
    reencode::{Reencode, RoundtripReencoder},
};
use wasmparser::{ExternalKind, FunctionBody, Parser, Payload, TypeRef};

use super::{
    DEPTH, DEPTH_GLOBAL, FUEL_GLOBAL, Options, RewriteError, Rewritten,
    body::{Body, Signatures, count},
    function::{self, Context},
};

/// Indices of the globals that the pass adds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Globals {
    pub(super) fuel: u32,
    pub(super) depth: u32,
}

/// Rewrites a module that was checked.
pub(super) fn rewrite(wasm: &[u8], options: &Options) -> Result<Rewritten, RewriteError> {
    let layout = Layout::read(wasm)?;
    let mut code = Code::default();
    let context = Context { signatures: &layout.signatures, globals: layout.globals, options };
    for (index, body) in (layout.signatures.imports..).zip(&layout.bodies) {
        code.rewrite(index, body, &context)?;
    }
    code.add_start(&layout);

    let mut module = Module::new();
    let mut reencoder = RoundtripReencoder;
    let mut globals = Some(GlobalSection::new());
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::TypeSection(section) => {
                let mut types = TypeSection::new();
                reencoder.parse_type_section(&mut types, section)?;
                for ty in &layout.signatures.types[layout.own_types..] {
                    let results = ty.results().iter().map(|ty| ValType::try_from(*ty));
                    types.ty().function([], results.collect::<Result<Vec<_>, _>>()?);
                }
                module.section(&types);
            }
            Payload::FunctionSection(section) => {
                let mut functions = FunctionSection::new();
                reencoder.parse_function_section(&mut functions, section)?;
                if layout.init.is_some() {
                    functions.function(layout.start_type()?);
                }
                module.section(&functions);
            }
            Payload::GlobalSection(section) => {
                if let Some(mut globals) = globals.take() {
                    reencoder.parse_global_section(&mut globals, section)?;
                    module.section(add_globals(&mut globals));
                }
            }
            Payload::ExportSection(section) => {
                // A module without globals of its own has no section for them, and here is its place.
                if let Some(mut globals) = globals.take() {
                    module.section(add_globals(&mut globals));
                }
                let mut exports = ExportSection::new();
                for export in section {
                    let export = export?;
                    let is_start = export.name == "_start" && layout.init.is_some();
                    let index = if is_start { layout.functions() } else { export.index };
                    exports.export(export.name, export.kind.into(), index);
                }
                exports.export(FUEL_GLOBAL, ExportKind::Global, layout.globals.fuel);
                exports.export(DEPTH_GLOBAL, ExportKind::Global, layout.globals.depth);
                module.section(&exports);
            }
            Payload::CodeSectionStart { .. } => {
                module.section(&code.hints);
                module.section(&code.section);
            }
            Payload::CustomSection(section) if section.name() == "name" => {
                module.section(&RawSection { id: 0, data: &wasm[section.range()] });
            }
            Payload::StartSection { .. } | Payload::CodeSectionEntry(_) | Payload::CustomSection(_) => {}
            other => {
                if let Some((id, range)) = other.as_section() {
                    module.section(&RawSection { id, data: &wasm[range] });
                }
            }
        }
    }
    Ok(Rewritten { wasm: module.finish(), settled: code.settled })
}

fn add_globals(globals: &mut GlobalSection) -> &GlobalSection {
    let mutable = |val_type| GlobalType { val_type, mutable: true, shared: false };
    globals
        .global(mutable(ValType::I64), &ConstExpr::i64_const(0))
        .global(mutable(ValType::I32), &ConstExpr::i32_const(DEPTH))
}

/// The new function bodies.
#[derive(Default)]
struct Code {
    section: CodeSection,
    hints: BranchHints,
    settled: u64,
}

impl Code {
    fn rewrite(
        &mut self,
        index: u32,
        body: &FunctionBody<'_>,
        context: &Context<'_>,
    ) -> Result<(), RewriteError> {
        if !context.options.count {
            self.section.raw(body.as_bytes());
            return Ok(());
        }
        let ty = context.signatures.type_of(index)?;
        let body = Body::read(ty, context.signatures, body)?;
        let (function, settled) = function::rewrite(&body, context)?;
        self.section.raw(&function.bytes);
        if !function.hints.is_empty() {
            self.hints.function_hints(index, function.hints);
        }
        self.settled += settled;
        Ok(())
    }

    /// The new `_start` of a module that has a `start` function: calls that, and then the old one.
    fn add_start(&mut self, layout: &Layout<'_>) {
        if let Some(init) = layout.init {
            let mut body = wasm_encoder::Function::new([]).into_raw_body();
            InstructionSink::new(&mut body).call(init).call(layout.start).end();
            self.section.raw(&body);
        }
    }
}

/// What has to be known of a module before its functions are rewritten.
struct Layout<'a> {
    signatures: Signatures,
    /// Types that the module has itself; the ones behind are added.
    own_types: usize,
    globals: Globals,
    bodies: Vec<FunctionBody<'a>>,
    /// The function `_start`.
    start: u32,
    /// The function that would run before it.
    init: Option<u32>,
}

impl<'a> Layout<'a> {
    fn read(wasm: &'a [u8]) -> Result<Self, RewriteError> {
        let mut signatures = Signatures::default();
        let mut bodies = Vec::new();
        let mut globals = 0;
        let mut start = None;
        let mut init = None;
        for payload in Parser::new(0).parse_all(wasm) {
            match payload? {
                Payload::TypeSection(section) => {
                    for ty in section.into_iter_err_on_gc_types() {
                        signatures.types.push(ty?);
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        if let TypeRef::Func(ty) = import?.ty {
                            signatures.functions.push(ty);
                            signatures.imports += 1;
                        }
                    }
                }
                Payload::FunctionSection(section) => {
                    for ty in section {
                        signatures.functions.push(ty?);
                    }
                }
                Payload::GlobalSection(section) => globals = section.count(),
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        if export.name == "_start" && export.kind == ExternalKind::Func {
                            start = Some(export.index);
                        }
                    }
                }
                Payload::StartSection { func, .. } => init = Some(func),
                Payload::CodeSectionEntry(body) => bodies.push(body),
                _ => {}
            }
        }
        let own_types = signatures.types.len();
        signatures.add_block_types();
        let start = start.ok_or(RewriteError::Inconsistent("no _start"))?;
        let globals = Globals { fuel: globals, depth: globals + 1 };
        Ok(Self { signatures, own_types, globals, bodies, start, init })
    }

    fn functions(&self) -> u32 {
        count(self.signatures.functions.len())
    }

    fn start_type(&self) -> Result<u32, RewriteError> {
        self.signatures.type_of(self.start)
    }
}
