//! What is known of a value while the walk follows it.

use wasmparser::{BlockType, ContType, FrameKind, FuncType, ModuleArity, RefType, SubType};

use super::class::Lane;

/// What is known of a value. Ordered: a local or label only ever moves down this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taint {
    /// No NaN under any reading: zero and ordinary constants.
    Never,
    /// A NaN in it has bits that are still open.
    Open(Lane),
    /// Any bits, the same on every CPU.
    Bits,
}

/// A value on the operand stack, and the operator that put it there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value {
    pub(super) taint: Taint,
    pub(super) origin: usize,
}

impl Taint {
    pub(super) fn of_f32(bits: u32) -> Self {
        if f32::from_bits(bits).is_nan() { Self::Bits } else { Self::Never }
    }

    pub(super) fn of_f64(bits: u64) -> Self {
        if f64::from_bits(bits).is_nan() { Self::Bits } else { Self::Never }
    }

    /// A constant is no NaN only if it is none as either kind of vector.
    pub(super) fn of_v128(bytes: &[u8; 16]) -> Self {
        let (lanes32, _) = bytes.as_chunks();
        let (lanes64, _) = bytes.as_chunks();
        let lanes32 = lanes32.iter().map(|lane| Self::of_f32(u32::from_le_bytes(*lane)));
        let lanes64 = lanes64.iter().map(|lane| Self::of_f64(u64::from_le_bytes(*lane)));
        if lanes32.chain(lanes64).all(|lane| lane == Self::Never) { Self::Never } else { Self::Bits }
    }

    /// What was open as `from`, put into or taken from lanes of the type `to`.
    pub(super) fn as_lane(self, from: Lane, to: Lane) -> Self {
        if self == Self::Open(from) { Self::Open(to) } else { self }
    }
}

/// Calls and control flow are handled by the walk itself; every other operator has a fixed arity.
pub(super) struct NoControl;

impl ModuleArity for NoControl {
    fn sub_type_at(&self, _: u32) -> Option<&SubType> {
        None
    }
    fn tag_type_arity(&self, _: u32) -> Option<(u32, u32)> {
        None
    }
    fn type_index_of_function(&self, _: u32) -> Option<u32> {
        None
    }
    fn func_type_of_cont_type(&self, _: &ContType) -> Option<&FuncType> {
        None
    }
    fn sub_type_of_ref_type(&self, _: &RefType) -> Option<&SubType> {
        None
    }
    fn control_stack_height(&self) -> u32 {
        0
    }
    fn label_block(&self, _: u32) -> Option<(BlockType, FrameKind)> {
        None
    }
}
