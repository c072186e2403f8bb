//! Which values can carry NaN bits that CPUs disagree on, and where those bits could be seen.
//!
//! WebAssembly leaves exactly one thing open that a program of the profile can reach: sign and payload of
//! a NaN that float arithmetic makes. Most floats are never NaN and most operators do not show the bits of
//! one, so the data path is left alone. A value is *open* from the arithmetic operator that makes it on; it stays
//! open through locals, `select`, `abs`, vector lanes and the ends of blocks. Where its bits could be seen
//! (a store, a reinterpretation, `copysign`, an integer operator on a vector) or where this analysis would
//! lose sight of it (a call, a global, a merge with bits from memory), the operator that put it onto the stack is
//! marked, and the code writer settles the value right behind that operator.
//!
//! Bits that do not come from arithmetic are never touched: a program may keep what it likes in the
//! payload of a NaN (NaN boxing), or integers in a vector that once held floats.

mod class;
mod flow;
mod value;
mod webs;

pub(super) use class::Lane;
pub(super) use flow::{Plan, plan};
