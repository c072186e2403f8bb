//! How much of the call depth a function takes: enough units that no engine needs more native stack for a call.
//!
//! An engine that translates operator by operator keeps the locals and the operands of a function in its frame.
//! One that optimises keeps in it what it likes: it computes values once instead of twice, before a loop instead of within it, or
//! not before they are needed, and meanwhile they, or what they are made of, wait in the frame. A function with two
//! locals can have a frame of a hundred kilobytes that way. What never happens is that more
//! values wait than the function computes, so a function weighs by that, too, where it is more.

use wasmparser::Operator;

use super::{
    body::{Body, Op, Signatures},
    loops,
    nan::Plan,
};

/// Units for what any frame has: return address, saved registers, what the pass itself keeps.
const CALL: usize = 8;

/// Copies of an unrolled loop, each of which computes values of its own: as many as there may ever be, so that the depth does
/// not depend on how loops are in fact unrolled.
const COPIES_MAX: u32 = 16;

/// Native stack that a unit stands for. `TASK_STACK_BYTES` holds `TASK_CALL_DEPTH_MAX` of them, and some more.
const UNIT_BYTES: usize = 32;

/// What a function that calls no other may weigh and be free: there is only one at a time, and the native stack
/// has some room beyond the units.
const FREE_MAX: i32 = 4096;

/// Units that a call of `body` takes from the depth; none for a short function that calls no other.
pub(super) fn charged(body: &Body<'_>, plan: &Plan, signatures: &Signatures) -> Option<i32> {
    let weight = of(body, plan, signatures);
    let calls = body.ops.iter().any(|op| signatures.leaves_module(&op.operator) == Some(false));
    (calls || weight > FREE_MAX).then_some(weight)
}

fn of(body: &Body<'_>, plan: &Plan, signatures: &Signatures) -> i32 {
    let held = body.locals.len() + plan.height;
    let bytes = 16 * held + 8 * values(body, plan, signatures);
    i32::try_from(CALL + held.max(bytes / UNIT_BYTES)).unwrap_or(i32::MAX)
}

/// Values of 8 bytes that the function computes in all; one of 16 bytes is two.
fn values(body: &Body<'_>, plan: &Plan, signatures: &Signatures) -> usize {
    let mut values = 0usize;
    let (mut copies, mut copied_until) = (1, 0);
    for (at, op) in body.ops.iter().enumerate() {
        if let Some(straight) = loops::single_block(&body.ops, at) {
            copies = loops::copies(straight, COPIES_MAX) as usize;
            copied_until = at + 1 + straight;
        }
        let settled = if plan.settle[at].is_some() { width(op) } else { 0 };
        let times = if at < copied_until { copies } else { 1 };
        values = values.saturating_add(times * (values_of(op, signatures) + settled));
    }
    values
}

/// Values that an operator computes.
fn values_of(op: &Op<'_>, signatures: &Signatures) -> usize {
    match &op.operator {
        // They name a value that is there already, or one that is as easily made anew.
        Operator::LocalGet { .. }
        | Operator::LocalSet { .. }
        | Operator::LocalTee { .. }
        | Operator::I32Const { .. }
        | Operator::I64Const { .. }
        | Operator::F32Const { .. }
        | Operator::F64Const { .. }
        | Operator::GlobalSet { .. }
        | Operator::Nop
        | Operator::Drop
        | Operator::Block { .. }
        | Operator::Loop { .. }
        | Operator::If { .. }
        | Operator::Else
        | Operator::End
        | Operator::Br { .. }
        | Operator::BrIf { .. }
        | Operator::BrTable { .. }
        | Operator::Return
        | Operator::Unreachable => 0,
        Operator::Call { function_index } => {
            signatures.function(*function_index).map_or(0, |ty| 2 * ty.results().len())
        }
        Operator::CallIndirect { type_index, .. } => {
            signatures.ty(*type_index).map_or(0, |ty| 2 * ty.results().len())
        }
        _ if accesses_memory(op) => 1 + width(op),
        _ => width(op),
    }
}

/// The prefix of all operators on vectors.
const VECTORS: u8 = 0xfd;

fn width(op: &Op<'_>) -> usize {
    if op.bytes.first() == Some(&VECTORS) { 2 } else { 1 }
}

/// Whether an engine has to compute an address, which is a value, too.
fn accesses_memory(op: &Op<'_>) -> bool {
    match op.bytes {
        [0x28..=0x3e, ..] => true,
        [VECTORS, code, ..] => matches!(code, 0..=11 | 84..=93),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::{body::tests::body_of, nan};

    #[test]
    fn only_a_short_function_that_calls_no_other_is_free() {
        let long = format!("(param i32) local.get 0 {} drop", "i32.clz ".repeat(40_000));
        for (text, free) in [("", true), ("call 0", false), (long.as_str(), false)] {
            body_of(text, |body| {
                let ty = wasmparser::FuncType::new(body.locals.iter().copied(), []);
                let signatures =
                    Signatures { types: vec![ty; 2], functions: vec![0; 2], ..Signatures::default() };
                let plan = nan::plan(body, &signatures).expect("a plan");
                assert_eq!(charged(body, &plan, &signatures).is_none(), free, "{} bytes", text.len());
            });
        }
    }

    #[test]
    fn a_function_weighs_what_it_holds_or_what_it_computes() {
        for (text, weight) in [
            ("", 8),
            ("(local i64 i64 f32)", 8 + 3),
            ("(param i32) (drop (i32.add (local.get 0) (local.get 0)))", 8 + 3),
            (
                &format!("(param i32) local.get 0 {} drop", "i32.clz ".repeat(400)),
                8 + (16 * 2 + 8 * 400) / 32,
            ),
            (
                &format!("(param i32) local.get 0 {} drop", "i32.load ".repeat(400)),
                8 + (16 * 2 + 16 * 400) / 32,
            ),
            (
                &format!("(param v128) local.get 0 {} drop", "v128.not ".repeat(400)),
                8 + (16 * 2 + 16 * 400) / 32,
            ),
            (&format!("(param i32) local.get 0 {} drop", "i32.const 1 drop ".repeat(400)), 8 + 3),
            (
                &format!("(param i32) loop local.get 0 {} br_if 0 end", "i32.clz ".repeat(10)),
                8 + (16 * 2 + 8 * 10 * 16) / 32,
            ),
        ] {
            body_of(text, |body| {
                let mut signatures = Signatures::default();
                let params = body.locals.iter().copied();
                signatures.types = vec![wasmparser::FuncType::new(params, []); 2];
                let plan = nan::plan(body, &signatures).expect("a plan");
                assert_eq!(of(body, &plan, &signatures), weight, "{text}");
            });
        }
    }
}
