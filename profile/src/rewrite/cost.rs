//! What each operator costs.
//!
//! An operator costs 1. What makes no code of its own costs nothing: `block`, `loop`, `else`, `end`, `nop`,
//! `drop`, `return`, `unreachable`. Entering a function costs 1, so that no call is free. Operators that work through a
//! length cost that much more ([`bulk`]).

use wasmparser::Operator;

/// Cost of entering a function.
pub(super) const ENTRY: i64 = 1;

/// Cost of executing `operator` once, its length aside.
pub(super) fn of(operator: &Operator<'_>) -> i64 {
    match operator {
        Operator::Nop
        | Operator::Drop
        | Operator::Block { .. }
        | Operator::Loop { .. }
        | Operator::Else
        | Operator::End
        | Operator::Return
        | Operator::Unreachable => 0,
        _ => 1,
    }
}

/// What the length that lies on top of the stack counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bulk {
    /// Bytes of memory.
    Bytes,
    /// Elements of a table.
    Elements,
}

/// Whether `operator` works through a length.
pub(super) fn bulk(operator: &Operator<'_>) -> Option<Bulk> {
    match operator {
        Operator::MemoryCopy { .. } | Operator::MemoryFill { .. } | Operator::MemoryInit { .. } => {
            Some(Bulk::Bytes)
        }
        Operator::TableCopy { .. }
        | Operator::TableFill { .. }
        | Operator::TableInit { .. }
        | Operator::TableGrow { .. } => Some(Bulk::Elements),
        _ => None,
    }
}
