//! The function body that is being written: bytes, locals of the pass's own, branch hints.

use wasm_encoder::{BlockType, BranchHint, InstructionSink, ValType};

use super::body::count;

/// Locals that the pass adds to a function, each only where it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extra {
    /// Cost of what was executed and is not handed in yet.
    Count,
    /// Fuel that is left, for the test of the limit.
    Left,
    /// Depth that is left to the function.
    Depth,
    /// Length of a bulk operator.
    Length,
    /// Condition of an unrolled loop.
    Again,
    /// A float that may be a NaN.
    F32,
    /// A float that may be a NaN.
    F64,
    /// A vector of floats that may be NaNs.
    V128,
}

impl Extra {
    const COUNT: usize = 8;

    fn ty(self) -> ValType {
        match self {
            Self::Count | Self::Left => ValType::I64,
            Self::Depth | Self::Length | Self::Again => ValType::I32,
            Self::F32 => ValType::F32,
            Self::F64 => ValType::F64,
            Self::V128 => ValType::V128,
        }
    }
}

/// A finished function body.
#[derive(Debug)]
pub(super) struct Function {
    /// Its locals and operators.
    pub(super) bytes: Vec<u8>,
    /// Branches that are nearly always, or hardly ever, taken.
    pub(super) hints: Vec<BranchHint>,
}

/// A function body in the making.
#[derive(Debug)]
pub(super) struct Code {
    bytes: Vec<u8>,
    /// Hints, with offsets into `bytes`.
    hints: Vec<BranchHint>,
    /// Parameters and locals of the function itself.
    own_locals: u32,
    extra: [Option<u32>; Extra::COUNT],
    extra_types: Vec<ValType>,
}

impl Code {
    pub(super) fn new(own_locals: u32) -> Self {
        Self {
            bytes: Vec::new(),
            hints: Vec::new(),
            own_locals,
            extra: [None; Extra::COUNT],
            extra_types: Vec::new(),
        }
    }

    /// Writes operators.
    pub(super) fn ops(&mut self) -> InstructionSink<'_> {
        InstructionSink::new(&mut self.bytes)
    }

    /// Writes operators that are encoded already.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Index of one of the pass's own locals.
    pub(super) fn local(&mut self, extra: Extra) -> u32 {
        let added = &mut self.extra_types;
        *self.extra[extra as usize].get_or_insert_with(|| {
            added.push(extra.ty());
            self.own_locals + count(added.len() - 1)
        })
    }

    /// `if` whose condition hardly ever holds.
    pub(super) fn unlikely_if(&mut self) {
        self.hint(0);
        self.ops().if_(BlockType::Empty);
    }

    /// `br_if 0` whose condition nearly always holds.
    pub(super) fn likely_br_if(&mut self) {
        self.hint(1);
        self.ops().br_if(0);
    }

    fn hint(&mut self, branch_hint_value: u32) {
        self.hints.push(BranchHint { branch_func_offset: count(self.bytes.len()), branch_hint_value });
    }

    /// Puts the declaration of the locals in front: those of the function, then the pass's own.
    pub(super) fn finish(mut self, declared: impl Iterator<Item = ValType>) -> Function {
        let mut groups: Vec<(u32, ValType)> = Vec::new();
        for ty in declared.chain(self.extra_types) {
            match groups.last_mut() {
                Some((count, last)) if *last == ty => *count += 1,
                _ => groups.push((1, ty)),
            }
        }
        let mut bytes = wasm_encoder::Function::new(groups).into_raw_body();
        let head = count(bytes.len());
        for hint in &mut self.hints {
            hint.branch_func_offset += head;
        }
        bytes.append(&mut self.bytes);
        Function { bytes, hints: self.hints }
    }
}
