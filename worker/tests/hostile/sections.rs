//! Modules that would be megabytes of text, put together from sections.

use wasm_encoder::{
    CodeSection, ConstExpr, DataCountSection, DataSection, ElementSection, ExportKind, ExportSection,
    Function, FunctionSection, GlobalSection, ImportSection, MemorySection, MemoryType, Module, RawSection,
    RefType, TableSection, TableType, TypeSection,
};

/// A program of one page; `_start` is its first own function, of type 0.
#[derive(Default)]
pub(crate) struct Sections {
    pub(crate) types: TypeSection,
    pub(crate) imports: ImportSection,
    pub(crate) functions: FunctionSection,
    pub(crate) tables: TableSection,
    pub(crate) globals: GlobalSection,
    pub(crate) exports: ExportSection,
    pub(crate) elements: ElementSection,
    pub(crate) code: CodeSection,
    pub(crate) data: DataSection,
    /// Sections behind all others.
    pub(crate) custom: Vec<Vec<u8>>,
}

impl Sections {
    /// A program whose `_start` has that body.
    pub(crate) fn new(start: &Function) -> Self {
        let mut sections = Self::default();
        sections.types.ty().function([], []);
        sections.functions.function(0);
        sections.code.function(start);
        sections
    }

    /// A program that does nothing.
    pub(crate) fn idle() -> Self {
        let mut start = Function::new([]);
        start.instructions().end();
        Self::new(&start)
    }

    /// A table of functions.
    pub(crate) fn table(&mut self, minimum: u64, maximum: Option<u64>) {
        self.tables.table(TableType {
            element_type: RefType::FUNCREF,
            table64: false,
            minimum,
            maximum,
            shared: false,
        });
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        let mut module = Module::new();
        let mut memories = MemorySection::new();
        memories.memory(MemoryType {
            minimum: 1,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        self.exports.export("_start", ExportKind::Func, self.imports.len());
        self.exports.export("memory", ExportKind::Memory, 0);
        module.section(&self.types);
        if !self.imports.is_empty() {
            module.section(&self.imports);
        }
        module.section(&self.functions);
        if !self.tables.is_empty() {
            module.section(&self.tables);
        }
        module.section(&memories);
        if !self.globals.is_empty() {
            module.section(&self.globals);
        }
        module.section(&self.exports);
        if !self.elements.is_empty() {
            module.section(&self.elements);
        }
        if !self.data.is_empty() {
            module.section(&DataCountSection { count: self.data.len() });
        }
        module.section(&self.code);
        if !self.data.is_empty() {
            module.section(&self.data);
        }
        for custom in &self.custom {
            module.section(&RawSection { id: 0, data: custom });
        }
        module.finish()
    }
}

/// The constant 0, as an offset.
pub(crate) fn zero() -> ConstExpr {
    ConstExpr::i32_const(0)
}

/// A function of these bytes, its locals declared by `locals` as count and type.
pub(crate) fn raw_function(locals: &[(u32, wasm_encoder::ValType)], body: &[u8]) -> Function {
    let mut function = Function::new(locals.iter().copied());
    function.raw(body.iter().copied());
    function
}
