//! What each operator does with NaNs.

use wasmparser::Operator;

/// A float type whose NaN bits an arithmetic operator may leave open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rewrite) enum Lane {
    /// A scalar `f32`.
    F32,
    /// A scalar `f64`.
    F64,
    /// Four `f32` in a vector.
    F32x4,
    /// Two `f64` in a vector.
    F64x2,
}

/// What an operator does with NaNs among its operands, and whether it makes its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Arithmetic: takes `operands` of the first type; a NaN in its result, of the second type, has sign and
    /// payload as the CPU likes.
    Makes { operands: usize, from: Lane, to: Lane },
    /// Its result is one of its operands, or one with another sign.
    Keeps { operands: usize, lane: Lane },
    /// Takes floats, and gives something that does not depend on the bits of a NaN.
    Hides { operands: usize, lane: Lane },
    /// `copysign`: shows the sign of its second operand, keeps the first.
    Copysign(Lane),
    /// A scalar in every lane.
    Splat { from: Lane, to: Lane },
    /// One lane as a scalar.
    Extract { from: Lane, to: Lane },
    /// One lane replaced by a scalar.
    Replace { lane: Lane, scalar: Lane },
    /// Lanes of two vectors in another order.
    Shuffle([u8; 16]),
    /// Anything else: what it takes, it shows; its results are bits that every CPU agrees on.
    Shows,
}

pub(super) fn of(operator: &Operator<'_>) -> Class {
    use Lane::{F32, F32x4, F64, F64x2};
    use Operator as O;
    let makes = |operands, lane| Class::Makes { operands, from: lane, to: lane };
    let keeps = |operands, lane| Class::Keeps { operands, lane };
    let hides = |operands, lane| Class::Hides { operands, lane };
    match operator {
        O::F32Add | O::F32Sub | O::F32Mul | O::F32Div | O::F32Min | O::F32Max => makes(2, F32),
        O::F64Add | O::F64Sub | O::F64Mul | O::F64Div | O::F64Min | O::F64Max => makes(2, F64),
        O::F32Sqrt | O::F32Ceil | O::F32Floor | O::F32Trunc | O::F32Nearest => makes(1, F32),
        O::F64Sqrt | O::F64Ceil | O::F64Floor | O::F64Trunc | O::F64Nearest => makes(1, F64),
        O::F32DemoteF64 => Class::Makes { operands: 1, from: F64, to: F32 },
        O::F64PromoteF32 => Class::Makes { operands: 1, from: F32, to: F64 },
        O::F32x4Add | O::F32x4Sub | O::F32x4Mul | O::F32x4Div | O::F32x4Min | O::F32x4Max => makes(2, F32x4),
        O::F64x2Add | O::F64x2Sub | O::F64x2Mul | O::F64x2Div | O::F64x2Min | O::F64x2Max => makes(2, F64x2),
        O::F32x4Sqrt | O::F32x4Ceil | O::F32x4Floor | O::F32x4Trunc | O::F32x4Nearest => makes(1, F32x4),
        O::F64x2Sqrt | O::F64x2Ceil | O::F64x2Floor | O::F64x2Trunc | O::F64x2Nearest => makes(1, F64x2),
        O::F32x4DemoteF64x2Zero => Class::Makes { operands: 1, from: F64x2, to: F32x4 },
        O::F64x2PromoteLowF32x4 => Class::Makes { operands: 1, from: F32x4, to: F64x2 },

        O::F32Abs | O::F32Neg => keeps(1, F32),
        O::F64Abs | O::F64Neg => keeps(1, F64),
        O::F32x4Abs | O::F32x4Neg => keeps(1, F32x4),
        O::F64x2Abs | O::F64x2Neg => keeps(1, F64x2),
        O::F32x4PMin | O::F32x4PMax => keeps(2, F32x4),
        O::F64x2PMin | O::F64x2PMax => keeps(2, F64x2),

        O::F32Eq | O::F32Ne | O::F32Lt | O::F32Gt | O::F32Le | O::F32Ge => hides(2, F32),
        O::F64Eq | O::F64Ne | O::F64Lt | O::F64Gt | O::F64Le | O::F64Ge => hides(2, F64),
        O::F32x4Eq | O::F32x4Ne | O::F32x4Lt | O::F32x4Gt | O::F32x4Le | O::F32x4Ge => hides(2, F32x4),
        O::F64x2Eq | O::F64x2Ne | O::F64x2Lt | O::F64x2Gt | O::F64x2Le | O::F64x2Ge => hides(2, F64x2),
        O::I32TruncF32S
        | O::I32TruncF32U
        | O::I64TruncF32S
        | O::I64TruncF32U
        | O::I32TruncSatF32S
        | O::I32TruncSatF32U
        | O::I64TruncSatF32S
        | O::I64TruncSatF32U => hides(1, F32),
        O::I32TruncF64S
        | O::I32TruncF64U
        | O::I64TruncF64S
        | O::I64TruncF64U
        | O::I32TruncSatF64S
        | O::I32TruncSatF64U
        | O::I64TruncSatF64S
        | O::I64TruncSatF64U => hides(1, F64),
        O::I32x4TruncSatF32x4S | O::I32x4TruncSatF32x4U => hides(1, F32x4),
        O::I32x4TruncSatF64x2SZero | O::I32x4TruncSatF64x2UZero => hides(1, F64x2),

        O::F32Copysign => Class::Copysign(F32),
        O::F64Copysign => Class::Copysign(F64),
        O::F32x4Splat => Class::Splat { from: F32, to: F32x4 },
        O::F64x2Splat => Class::Splat { from: F64, to: F64x2 },
        O::F32x4ExtractLane { .. } => Class::Extract { from: F32x4, to: F32 },
        O::F64x2ExtractLane { .. } => Class::Extract { from: F64x2, to: F64 },
        O::F32x4ReplaceLane { .. } => Class::Replace { lane: F32x4, scalar: F32 },
        O::F64x2ReplaceLane { .. } => Class::Replace { lane: F64x2, scalar: F64 },
        O::I8x16Shuffle { lanes } => Class::Shuffle(*lanes),
        _ => Class::Shows,
    }
}

/// Whether a shuffle moves whole lanes of that type.
pub(super) fn keeps_lanes(lanes: &[u8; 16], lane: Lane) -> bool {
    let bytes = match lane {
        Lane::F32 | Lane::F32x4 => 4,
        Lane::F64 | Lane::F64x2 => 8,
    };
    lanes.chunks(bytes).all(|chunk| {
        usize::from(chunk[0]).is_multiple_of(bytes) && chunk.is_sorted_by(|a, b| a.checked_add(1) == Some(*b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_keeps_lanes_that_it_moves_whole() {
        let swap64 = [8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7];
        let swap32 = [4, 5, 6, 7, 0, 1, 2, 3, 28, 29, 30, 31, 24, 25, 26, 27];
        let bytes = [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14];
        let across = [4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 6, 7];
        for (lanes, f32x4, f64x2) in
            [(swap64, true, true), (swap32, true, false), (bytes, false, false), (across, true, false)]
        {
            assert_eq!(keeps_lanes(&lanes, Lane::F32x4), f32x4, "{lanes:?}");
            assert_eq!(keeps_lanes(&lanes, Lane::F64x2), f64x2, "{lanes:?}");
        }
    }
}
