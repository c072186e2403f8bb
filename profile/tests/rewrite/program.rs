//! Writes programs at random: valid, within the profile, and full of what the pass has to get right.
//!
//! Loops end after some turns, most addresses are within the memory, and calls go to functions with a higher number,
//! with a few that recurse. What a program computes is left in its memory and in exported globals.

use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, ElementSection, Elements, EntityType, ExportKind, ExportSection,
    Function, FunctionSection, GlobalSection, GlobalType, Ieee32, Ieee64, ImportSection, Instruction as I,
    MemArg, MemorySection, MemoryType, Module, RefType, TableSection, TableType, TypeSection, ValType,
};

const TYPES: [ValType; 5] = [ValType::I32, ValType::I64, ValType::F32, ValType::F64, ValType::V128];
/// Functions of a program, the imported one not counted.
const FUNCTIONS: usize = 3;
/// Most operators with operands in one statement.
const OPERATORS: usize = 16;
/// Types `() -> ()`, `t -> t` for each of [`TYPES`], and then one for each function.
const FUNCTION_TYPES: u32 = 1 + TYPES.len() as u32;
/// Globals, by index: one of each type, and how often functions may still recurse.
const RECURSIONS: u32 = TYPES.len() as u32;
const MEMORY_BYTES: i32 = 65_536;

/// The sequence of Steele, Lea and Flood's `SplitMix64`.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    fn types(&mut self, most: usize) -> Vec<ValType> {
        (0..self.below(most + 1)).map(|_| self.pick(&TYPES)).collect()
    }
}

/// The program of that seed, with up to `size` statements and operators that have operands in each function.
pub(crate) fn generate(seed: u64, size: usize) -> Vec<u8> {
    let mut random = Random(seed);
    let signatures: Vec<_> = (0..FUNCTIONS).map(|_| (random.types(4), random.types(2))).collect();

    let mut types = TypeSection::new();
    types.ty().function([], []);
    for ty in TYPES {
        types.ty().function([ty], [ty]);
    }
    for (params, results) in &signatures {
        types.ty().function(params.iter().copied(), results.iter().copied());
    }
    types.ty().function([ValType::I32], []);
    let mut imports = ImportSection::new();
    let proc_exit = EntityType::Function(FUNCTION_TYPES + FUNCTIONS as u32);
    imports.import("wasi_snapshot_preview1", "proc_exit", proc_exit);
    let mut functions = FunctionSection::new();
    functions.function(0);
    for index in 0..FUNCTIONS as u32 {
        functions.function(FUNCTION_TYPES + index);
    }
    let mut tables = TableSection::new();
    let elements = 1 + FUNCTIONS as u64;
    tables.table(TableType {
        element_type: RefType::FUNCREF,
        table64: false,
        minimum: elements,
        maximum: None,
        shared: false,
    });
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: Some(2),
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut globals = GlobalSection::new();
    let mutable = |val_type| GlobalType { val_type, mutable: true, shared: false };
    for ty in TYPES {
        globals.global(mutable(ty), &zero(ty));
    }
    globals.global(mutable(ValType::I32), &ConstExpr::i32_const(20));
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0).export("_start", ExportKind::Func, 1);
    for index in 0..RECURSIONS {
        exports.export(&format!("g{index}"), ExportKind::Global, index);
    }
    let mut segment = ElementSection::new();
    let indices: Vec<u32> = (2..2 + FUNCTIONS as u32).collect();
    segment.active(None, &ConstExpr::i32_const(0), Elements::Functions(indices.into()));

    let mut code = CodeSection::new();
    code.function(&Writer::write(&mut random, &signatures, None, size));
    for index in 0..FUNCTIONS {
        code.function(&Writer::write(&mut random, &signatures, Some(index), size));
    }
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions).section(&tables).section(&memories);
    module.section(&globals).section(&exports).section(&segment).section(&code);
    module.finish()
}

fn zero(ty: ValType) -> ConstExpr {
    match ty {
        ValType::I32 => ConstExpr::i32_const(0),
        ValType::I64 => ConstExpr::i64_const(0),
        ValType::F32 => ConstExpr::f32_const(Ieee32::new(0)),
        ValType::F64 => ConstExpr::f64_const(Ieee64::new(0)),
        _ => ConstExpr::v128_const(0),
    }
}

type Signature = (Vec<ValType>, Vec<ValType>);

/// Writes one function.
struct Writer<'r> {
    random: &'r mut Random,
    signatures: &'r [Signature],
    /// The first function that may be called without bound.
    callees: usize,
    locals: Vec<ValType>,
    /// Locals that count the turns of loops, and which of them is free.
    counters: std::ops::Range<u32>,
    results: Vec<ValType>,
    code: Vec<I<'static>>,
    /// What a branch to each label around carries, the function's own first.
    labels: Vec<Option<ValType>>,
    /// Statements and operators that may still be written.
    budget: usize,
    /// Operators that the current statement may still have: many statements, and not one of many operators.
    operators: usize,
}

impl Writer<'_> {
    fn write(random: &mut Random, signatures: &[Signature], index: Option<usize>, size: usize) -> Function {
        let (params, results) = index.map(|index| signatures[index].clone()).unwrap_or_default();
        let own = random.types(6);
        let own = if random.one_in(3) { vec![random.pick(&TYPES); own.len()] } else { own };
        let locals: Vec<_> = params.iter().chain(&own).copied().collect();
        let counters = locals.len() as u32..locals.len() as u32 + 8;
        let budget = 1 + random.below(size);
        let mut writer = Writer {
            callees: index.map_or(0, |index| index + 1),
            random,
            signatures,
            locals,
            counters,
            results: results.clone(),
            code: Vec::new(),
            labels: Vec::new(),
            budget,
            operators: 0,
        };
        while writer.budget > 0 {
            writer.statement();
        }
        if index.is_none() {
            // What nobody calls proves nothing.
            for callee in 0..signatures.len() {
                writer.call_of(callee);
            }
        }
        for ty in results {
            writer.expression(ty);
        }
        let counters = std::iter::repeat_n(ValType::I32, 8);
        let mut function = Function::new_with_locals_types(own.into_iter().chain(counters));
        for instruction in writer.code {
            function.instruction(&instruction);
        }
        function.instruction(&I::End);
        function
    }

    fn statements(&mut self) {
        for _ in 0..=self.random.below(5) {
            self.statement();
        }
    }

    fn statement(&mut self) {
        if self.budget == 0 {
            return;
        }
        self.budget -= 1;
        self.operators = 1 + self.random.below(OPERATORS);
        match self.random.below(16) {
            0..=2 => self.store(),
            3..=5 => self.set_local(),
            6 => {
                let global = self.random.below(TYPES.len());
                self.expression(TYPES[global]);
                self.code.push(I::GlobalSet(global as u32));
            }
            7 => {
                self.condition();
                self.block(I::If(BlockType::Empty), Self::statements);
                if self.random.one_in(2) {
                    self.code.pop();
                    self.block(I::Else, Self::statements);
                }
            }
            8 => self.block(I::Block(BlockType::Empty), Self::statements),
            9..=11 => self.counted_loop(),
            12 => self.call(),
            13 => self.branch(),
            14 => self.bulk(),
            _ => {
                let ty = self.random.pick(&TYPES);
                self.expression(ty);
                self.code.push(I::Drop);
            }
        }
    }

    fn block(&mut self, begin: I<'static>, inside: impl FnOnce(&mut Self)) {
        let is_loop = matches!(begin, I::Loop(_));
        // A branch back could go on forever; loops make their own.
        self.labels.push(if is_loop { Some(ValType::FUNCREF) } else { None });
        self.code.push(begin);
        inside(self);
        self.code.push(I::End);
        self.labels.pop();
    }

    fn set_local(&mut self) {
        if !self.locals.is_empty() {
            let local = self.random.below(self.locals.len());
            self.expression(self.locals[local]);
            self.code.push(I::LocalSet(local as u32));
        }
    }

    fn store(&mut self) {
        const STORED: [ValType; 8] = [
            ValType::I32,
            ValType::I64,
            ValType::F32,
            ValType::F32,
            ValType::F64,
            ValType::F64,
            ValType::V128,
            ValType::V128,
        ];
        let ty = self.random.pick(&STORED);
        self.address();
        self.expression(ty);
        let memarg = MemArg { offset: self.random.below(64) as u64, align: 0, memory_index: 0 };
        self.code.push(match ty {
            ValType::I32 => self.random.pick(&[I::I32Store(memarg), I::I32Store8(memarg)]),
            ValType::I64 => self.random.pick(&[I::I64Store(memarg), I::I64Store16(memarg)]),
            ValType::F32 => I::F32Store(memarg),
            ValType::F64 => I::F64Store(memarg),
            _ => self.random.pick(&[I::V128Store(memarg), I::V128Store32Lane { memarg, lane: 1 }]),
        });
    }

    fn address(&mut self) {
        self.expression(ValType::I32);
        if !self.random.one_in(100) {
            self.code.extend([I::I32Const(MEMORY_BYTES / 2 - 1), I::I32And]);
        }
    }

    fn condition(&mut self) {
        self.expression(ValType::I32);
        self.code.extend([I::I32Const(1), I::I32And]);
    }

    /// A loop with a counter of its own, every other one of a single basic block.
    fn counted_loop(&mut self) {
        let Some(counter) = self.counters.next() else { return };
        let turns = 1 + self.random.below(12) as i32;
        self.code.extend([I::I32Const(turns), I::LocalSet(counter)]);
        let carried = self.random.one_in(4).then(|| self.random.below(TYPES.len()));
        let ty = carried.map_or(BlockType::Empty, |ty| BlockType::FunctionType(1 + ty as u32));
        if let Some(ty) = carried {
            self.expression(TYPES[ty]);
        }
        let straight = self.random.one_in(2);
        self.block(I::Loop(ty), |this| {
            if straight {
                for _ in 0..=this.random.below(3) {
                    if this.random.one_in(2) { this.store() } else { this.set_local() }
                }
            } else {
                this.statements();
            }
            if let Some(ty) = carried {
                this.unary(TYPES[ty]);
            }
            let down = [I::LocalGet(counter), I::I32Const(1), I::I32Sub, I::LocalTee(counter), I::BrIf(0)];
            this.code.extend(down);
        });
        if carried.is_some() {
            self.code.push(I::Drop);
        }
        self.counters.start = self.counters.start.min(counter + 1);
    }

    fn call(&mut self) {
        let rest = self.signatures.len() - self.callees;
        if rest == 0 || self.random.one_in(6) {
            // Any function, a few times.
            let callee = self.random.below(self.signatures.len());
            self.code.extend([I::GlobalGet(RECURSIONS), I::If(BlockType::Empty)]);
            self.code.extend([I::GlobalGet(RECURSIONS), I::I32Const(1), I::I32Sub, I::GlobalSet(RECURSIONS)]);
            self.labels.push(None);
            self.call_of(callee);
            self.labels.pop();
            self.code.push(I::End);
        } else {
            let callee = self.callees + self.random.below(rest);
            self.call_of(callee);
        }
    }

    fn call_of(&mut self, callee: usize) {
        let (params, results) = self.signatures[callee].clone();
        for ty in params {
            self.expression(ty);
        }
        if self.random.one_in(3) {
            let element = if self.random.one_in(50) { FUNCTIONS as i32 } else { callee as i32 };
            let type_index = FUNCTION_TYPES + callee as u32;
            self.code.extend([I::I32Const(element), I::CallIndirect { type_index, table_index: 0 }]);
        } else {
            self.code.push(I::Call(2 + callee as u32));
        }
        for ty in results.into_iter().rev() {
            let local = self.locals.iter().position(|local| *local == ty);
            self.code.push(local.map_or(I::Drop, |local| I::LocalSet(local as u32)));
        }
    }

    /// Leaves one or more blocks, or the function, or the program.
    fn branch(&mut self) {
        let empty: Vec<u32> = (0..)
            .zip(self.labels.iter().rev())
            .filter_map(|(depth, carries)| carries.is_none().then_some(depth))
            .collect();
        match self.random.below(8) {
            0 if !self.labels.is_empty() => {
                for ty in self.results.clone() {
                    self.expression(ty);
                }
                self.code.push(I::Return);
            }
            1 if self.random.one_in(10) => {
                self.condition();
                self.code.extend([I::Call(0), I::Unreachable]);
            }
            2 | 3 if !empty.is_empty() => {
                self.expression(ValType::I32);
                let targets = (0..self.random.below(4)).map(|_| self.random.pick(&empty)).collect::<Vec<_>>();
                let default = self.random.pick(&empty);
                self.code.push(I::BrTable(targets.into(), default));
            }
            _ if !empty.is_empty() => {
                let depth = self.random.pick(&empty);
                if self.random.one_in(4) {
                    self.code.push(I::Br(depth));
                } else {
                    self.condition();
                    self.code.push(I::BrIf(depth));
                }
            }
            _ => self.code.push(I::Nop),
        }
    }

    fn bulk(&mut self) {
        self.address();
        self.address();
        self.code.push(I::I32Const(self.random.below(300) as i32));
        self.code.push(if self.random.one_in(2) {
            I::MemoryFill(0)
        } else {
            I::MemoryCopy { src_mem: 0, dst_mem: 0 }
        });
    }

    /// Leaves one value on the stack.
    fn expression(&mut self, ty: ValType) {
        if self.operators == 0 {
            return self.leaf(ty);
        }
        self.operators -= 1;
        self.budget = self.budget.saturating_sub(1);
        let result = BlockType::Result(ty);
        match self.random.below(24) {
            0..=5 => self.leaf(ty),
            6..=9 => {
                self.expression(ty);
                self.unary(ty);
            }
            10..=15 => self.binary(ty),
            16 | 17 => self.conversion(ty),
            18 => {
                self.expression(ty);
                self.expression(ty);
                self.condition();
                self.code.push(if ty == ValType::V128 { I::TypedSelect(ty) } else { I::Select });
            }
            19 => {
                self.condition();
                self.labels.push(Some(ty));
                self.code.push(I::If(result));
                self.expression(ty);
                self.code.push(I::Else);
                self.expression(ty);
                self.code.push(I::End);
                self.labels.pop();
            }
            20 => {
                self.labels.push(Some(ty));
                self.code.push(I::Block(result));
                self.expression(ty);
                self.condition();
                self.code.extend([I::BrIf(0), I::Drop]);
                self.expression(ty);
                if self.random.one_in(2) {
                    self.expression(ValType::I32);
                    self.code.push(I::BrTable(vec![0].into(), 0));
                }
                self.code.push(I::End);
                self.labels.pop();
            }
            21 => {
                let local = self.locals.iter().rposition(|local| *local == ty);
                self.expression(ty);
                if let Some(local) = local {
                    self.code.push(I::LocalTee(local as u32));
                }
            }
            22 => {
                self.labels.push(Some(ValType::FUNCREF));
                self.code.push(I::Loop(result));
                self.expression(ty);
                self.code.push(I::End);
                self.labels.pop();
            }
            _ => {
                self.address();
                let memarg = MemArg { offset: 0, align: 0, memory_index: 0 };
                self.code.push(match ty {
                    ValType::I32 => self.random.pick(&[I::I32Load(memarg), I::I32Load8S(memarg)]),
                    ValType::I64 => self.random.pick(&[I::I64Load(memarg), I::I64Load32U(memarg)]),
                    ValType::F32 => I::F32Load(memarg),
                    ValType::F64 => I::F64Load(memarg),
                    _ => self.random.pick(&[I::V128Load(memarg), I::V128Load64Splat(memarg)]),
                });
            }
        }
    }

    fn leaf(&mut self, ty: ValType) {
        let locals = self.locals.iter().enumerate().filter(|(_, local)| **local == ty);
        let locals: Vec<_> = locals.map(|(index, _)| I::LocalGet(index as u32)).collect();
        if !locals.is_empty() && !self.random.one_in(3) {
            let local = self.random.pick(&locals);
            self.code.push(local);
        } else if self.random.one_in(4) {
            let global = TYPES.iter().position(|of| *of == ty).expect("one of them");
            self.code.push(I::GlobalGet(global as u32));
        } else {
            let constant = self.constant(ty);
            self.code.push(constant);
        }
    }

    fn constant(&mut self, ty: ValType) -> I<'static> {
        let bits = self.random.next() >> self.random.below(64);
        let float = self.float();
        match ty {
            ValType::I32 => I::I32Const(bits as i32),
            ValType::I64 => I::I64Const(bits.cast_signed()),
            ValType::F32 => I::F32Const((float as f32).into()),
            ValType::F64 => I::F64Const(float.into()),
            _ => {
                let other = if self.random.one_in(2) { self.float().to_bits() } else { bits };
                I::V128Const((u128::from(float.to_bits()) << 64 | u128::from(other)).cast_signed())
            }
        }
    }

    /// Mostly what arithmetic makes a NaN of.
    fn float(&mut self) -> f64 {
        const SPECIAL: [f64; 8] =
            [0.0, 0.0, -0.0, -1.5, f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, 1e300];
        if self.random.one_in(4) { f64::from_bits(self.random.next()) } else { self.random.pick(&SPECIAL) }
    }

    fn unary(&mut self, ty: ValType) {
        let operators = match ty {
            ValType::I32 => UNARY_I32,
            ValType::I64 => UNARY_I64,
            ValType::F32 => UNARY_F32,
            ValType::F64 => UNARY_F64,
            _ => UNARY_V128,
        };
        let operator = self.random.pick(operators);
        self.code.push(operator);
    }

    fn binary(&mut self, ty: ValType) {
        self.expression(ty);
        self.expression(ty);
        let operators = match ty {
            ValType::I32 => BINARY_I32,
            ValType::I64 => BINARY_I64,
            ValType::F32 => BINARY_F32,
            ValType::F64 => BINARY_F64,
            _ => BINARY_V128,
        };
        let operator = self.random.pick(operators);
        self.code.push(operator);
    }

    /// A value made from one or two of another type.
    fn conversion(&mut self, ty: ValType) {
        let conversions = match ty {
            ValType::I32 => TO_I32,
            ValType::I64 => TO_I64,
            ValType::F32 => TO_F32,
            ValType::F64 => TO_F64,
            _ => TO_V128,
        };
        let (operands, operator) = self.random.pick(conversions);
        for operand in operands {
            self.expression(*operand);
        }
        self.code.push(operator);
    }
}

type Conversion = (&'static [ValType], I<'static>);

const UNARY_I32: &[I<'static>] = &[I::I32Clz, I::I32Popcnt, I::I32Eqz, I::I32Extend8S];
const UNARY_I64: &[I<'static>] = &[I::I64Ctz, I::I64Extend32S];
const UNARY_F32: &[I<'static>] =
    &[I::F32Abs, I::F32Neg, I::F32Sqrt, I::F32Ceil, I::F32Floor, I::F32Trunc, I::F32Nearest];
const UNARY_F64: &[I<'static>] =
    &[I::F64Abs, I::F64Neg, I::F64Sqrt, I::F64Ceil, I::F64Floor, I::F64Trunc, I::F64Nearest];
#[rustfmt::skip]
const UNARY_V128: &[I<'static>] = &[
    I::F32x4Abs, I::F32x4Neg, I::F32x4Sqrt, I::F32x4Ceil, I::F32x4Nearest, I::F64x2Abs, I::F64x2Neg, I::F64x2Sqrt,
    I::F64x2Floor, I::F64x2Trunc, I::V128Not, I::I32x4Neg, I::I8x16Popcnt, I::F32x4DemoteF64x2Zero,
    I::F64x2PromoteLowF32x4, I::F32x4ConvertI32x4S, I::F64x2ConvertLowI32x4U, I::I32x4TruncSatF32x4S,
    I::I32x4TruncSatF64x2SZero,
];
#[rustfmt::skip]
const BINARY_I32: &[I<'static>] =
    &[I::I32Add, I::I32Sub, I::I32Mul, I::I32And, I::I32Xor, I::I32Shl, I::I32ShrU, I::I32LtS, I::I32Eq, I::I32Or];
const BINARY_I64: &[I<'static>] =
    &[I::I64Add, I::I64Sub, I::I64Mul, I::I64Or, I::I64Rotl, I::I64ShrS, I::I64DivU];
const BINARY_F32: &[I<'static>] =
    &[I::F32Add, I::F32Sub, I::F32Mul, I::F32Div, I::F32Min, I::F32Max, I::F32Copysign];
const BINARY_F64: &[I<'static>] =
    &[I::F64Add, I::F64Sub, I::F64Mul, I::F64Div, I::F64Min, I::F64Max, I::F64Copysign];
#[rustfmt::skip]
const BINARY_V128: &[I<'static>] = &[
    I::F32x4Add, I::F32x4Sub, I::F32x4Mul, I::F32x4Div, I::F32x4Min, I::F32x4Max, I::F32x4PMin, I::F64x2Add,
    I::F64x2Sub, I::F64x2Mul, I::F64x2Div, I::F64x2Min, I::F64x2Max, I::F64x2PMax, I::V128And, I::V128Xor,
    I::I32x4Add, I::I16x8Mul, I::I64x2Sub, I::F64x2Lt, I::F32x4Ne, I::I8x16Swizzle,
    I::I8x16Shuffle([8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23]),
    I::I8x16Shuffle([4, 5, 6, 7, 0, 1, 2, 3, 28, 29, 30, 31, 24, 25, 26, 27]),
    I::I8x16Shuffle([1, 0, 3, 2, 5, 4, 7, 6, 25, 24, 27, 26, 29, 28, 31, 30]),
];
const TO_I32: &[Conversion] = &[
    (&[ValType::I64], I::I32WrapI64),
    (&[ValType::F32], I::I32ReinterpretF32),
    (&[ValType::F64], I::I32TruncSatF64S),
    (&[ValType::F64, ValType::F64], I::F64Lt),
    (&[ValType::F32, ValType::F32], I::F32Ne),
    (&[ValType::V128], I::I32x4ExtractLane(1)),
    (&[ValType::V128], I::I8x16Bitmask),
    (&[ValType::V128], I::V128AnyTrue),
    (&[], I::MemorySize(0)),
];
const TO_I64: &[Conversion] = &[
    (&[ValType::I32], I::I64ExtendI32S),
    (&[ValType::F64], I::I64ReinterpretF64),
    (&[ValType::F32], I::I64TruncSatF32U),
    (&[ValType::V128], I::I64x2ExtractLane(0)),
];
const TO_F32: &[Conversion] = &[
    (&[ValType::I32], I::F32ConvertI32S),
    (&[ValType::I32], I::F32ReinterpretI32),
    (&[ValType::F64], I::F32DemoteF64),
    (&[ValType::V128], I::F32x4ExtractLane(3)),
];
const TO_F64: &[Conversion] = &[
    (&[ValType::I64], I::F64ConvertI64U),
    (&[ValType::I64], I::F64ReinterpretI64),
    (&[ValType::F32], I::F64PromoteF32),
    (&[ValType::V128], I::F64x2ExtractLane(1)),
];
const TO_V128: &[Conversion] = &[
    (&[ValType::I32], I::I32x4Splat),
    (&[ValType::F32], I::F32x4Splat),
    (&[ValType::F64], I::F64x2Splat),
    (&[ValType::V128, ValType::F32], I::F32x4ReplaceLane(2)),
    (&[ValType::V128, ValType::F64], I::F64x2ReplaceLane(0)),
    (&[ValType::V128, ValType::I64], I::I64x2ReplaceLane(1)),
    (&[ValType::V128, ValType::V128, ValType::V128], I::V128Bitselect),
];
