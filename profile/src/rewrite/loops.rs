//! What can be known of a loop before its code is written: whether it can be unrolled, and whether it needs a check of its
//! own.

use wasmparser::{BlockType, Operator};

use super::{
    RewriteError,
    body::{Body, Op, count},
    cost,
};

/// Operators of a loop that is unrolled; a longer one hardly notices what counting costs.
const UNROLL_OPS_MAX: usize = 96;

/// Operators of all copies of a loop together: a short loop gains most by many copies, and a long one would become too large
/// for nothing.
const UNROLLED_OPS_MAX: usize = 4 * UNROLL_OPS_MAX;

/// Number of operators before the `br_if` that closes the loop, if the loop that begins at `at` is one basic
/// block: straight code, `br_if 0`, `end`.
pub(super) fn single_block(ops: &[Op<'_>], at: usize) -> Option<usize> {
    if !matches!(ops.get(at)?.operator, Operator::Loop { blockty: BlockType::Empty }) {
        return None;
    }
    let straight = ops[at + 1..].iter().take(UNROLL_OPS_MAX + 1).position(|op| breaks_block(&op.operator))?;
    let closed = matches!(ops.get(at + 1 + straight)?.operator, Operator::BrIf { relative_depth: 0 })
        && matches!(ops.get(at + 2 + straight)?.operator, Operator::End);
    (straight > 0 && closed).then_some(straight)
}

/// How many copies are made of a loop with `straight` operators, if as many as `most` are wanted.
pub(super) fn copies(straight: usize, most: u32) -> u32 {
    most.min(count(UNROLLED_OPS_MAX / straight.max(1)))
}

/// Whether `operator` ends a basic block, or costs what is not known beforehand.
fn breaks_block(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::Else
            | Operator::End
            | Operator::Br { .. }
            | Operator::BrIf { .. }
            | Operator::BrTable { .. }
            | Operator::Return
            | Operator::Unreachable
            | Operator::Call { .. }
            | Operator::CallIndirect { .. }
    ) || cost::bulk(operator).is_some()
}

/// For each operator, whether it begins a loop with a way around that makes no call. The count is handed in
/// before calls, so only such a loop has to look at it itself.
pub(super) fn uncalled(body: &Body<'_>) -> Result<Vec<bool>, RewriteError> {
    let mut walk = Walk {
        labels: vec![Label { start: None, loops: 0, arriving: None, otherwise: None }],
        loops: 0,
        called: 0,
        live: true,
        uncalled: vec![false; body.ops.len()],
    };
    for (at, op) in body.ops.iter().enumerate() {
        walk.step(at, &op.operator)?;
    }
    Ok(walk.uncalled)
}

/// The end of a block, or the head of a loop.
struct Label {
    /// Operator that began it, if it is a loop.
    start: Option<usize>,
    /// Loops around it.
    loops: u32,
    /// The smallest `called` with which it is reached.
    arriving: Option<u32>,
    /// The same for the `else` arm.
    otherwise: Option<u32>,
}

struct Walk {
    labels: Vec<Label>,
    /// Loops around the current operator.
    loops: u32,
    /// How many of them, from the outermost on, made a call on every way from their heads to here. A call counts for
    /// all loops around it, so those are always the outer ones.
    called: u32,
    live: bool,
    uncalled: Vec<bool>,
}

impl Walk {
    fn step(&mut self, at: usize, operator: &Operator<'_>) -> Result<(), RewriteError> {
        match operator {
            Operator::Block { .. } => self.begin(None, None),
            Operator::If { .. } => self.begin(None, Some(self.called)),
            Operator::Loop { .. } => {
                self.begin(Some(at), None);
                self.loops += 1;
            }
            Operator::Else => {
                self.fall_through();
                self.otherwise();
            }
            Operator::End => {
                self.fall_through();
                if self.otherwise() {
                    self.fall_through();
                }
                if let Some(label) = self.labels.pop() {
                    self.loops = label.loops;
                    let called = if label.start.is_some() { Some(self.called) } else { label.arriving };
                    self.called = called.unwrap_or(u32::MAX).min(self.loops);
                }
                self.live = true;
            }
            Operator::Br { relative_depth } => {
                self.arrive(*relative_depth);
                self.live = false;
            }
            Operator::BrIf { relative_depth } => self.arrive(*relative_depth),
            Operator::BrTable { targets } => {
                self.arrive(targets.default());
                for target in targets.targets() {
                    self.arrive(target?);
                }
                self.live = false;
            }
            Operator::Return | Operator::Unreachable => self.live = false,
            Operator::Call { .. } | Operator::CallIndirect { .. } => self.called = self.loops,
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, start: Option<usize>, otherwise: Option<u32>) {
        self.labels.push(Label { start, loops: self.loops, arriving: None, otherwise });
    }

    fn arrive(&mut self, depth: u32) {
        let index = self.labels.len().checked_sub(1 + depth as usize);
        let Some(label) = index.and_then(|index| self.labels.get_mut(index)) else { return };
        if let Some(start) = label.start {
            self.uncalled[start] |= self.called <= label.loops;
        } else {
            let called = label.arriving.unwrap_or(u32::MAX).min(self.called);
            label.arriving = Some(called);
        }
    }

    /// The end of a block, or of an arm of an `if`, is reached by falling through.
    fn fall_through(&mut self) {
        if self.live && self.labels.last().is_some_and(|label| label.start.is_none()) {
            self.arrive(0);
        }
    }

    /// Goes back to where the `if` was, when its `else` arm did not come yet.
    fn otherwise(&mut self) -> bool {
        let otherwise = self.labels.last_mut().and_then(|label| label.otherwise.take());
        self.called = otherwise.unwrap_or(self.called);
        self.live |= otherwise.is_some();
        otherwise.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::body::tests::body_of;

    #[test]
    fn a_loop_that_always_makes_a_call_needs_no_check() {
        // What one turn of the loop does, and whether the loop needs a check.
        for (turn, expected) in [
            ("br 0", true),
            ("call 0 br 0", false),
            ("call 0 (br_if 0 (local.get 0))", false),
            ("(br_if 0 (local.get 0)) call 0", true),
            ("(if (local.get 0) (then call 0)) br 0", true),
            ("(if (local.get 0) (then call 0) (else call 0)) br 0", false),
            ("(if (local.get 0) (then call 0) (else return)) br 0", false),
            ("block (br_if 0 (local.get 0)) call 0 end br 0", true),
            ("block (br_if 0 (local.get 0)) call 0 br 1 end return", false),
            ("block (br_if 2 (local.get 0)) call 0 end br 0", false),
            ("block (br_table 0 1 2 (local.get 0)) end call 0 br 0", true),
            ("block (br_table 0 2 2 (local.get 0)) end call 0 br 0", false),
            ("loop call 0 (br_if 0 (local.get 0)) end br 0", false),
            ("call 0 loop (br_if 0 (local.get 0)) end br 0", true),
            ("nop", false),
        ] {
            let text = format!("(param i32) block loop {turn} end end");
            body_of(&text, |body| {
                let found = uncalled(body).expect("a body");
                assert_eq!(found.contains(&true), expected, "{turn}");
            });
        }
    }

    #[test]
    fn only_the_loop_without_a_call_is_checked() {
        let text = "(param i32) loop call 0 loop (br_if 0 (local.get 0)) end (br_if 0 (local.get 0)) end";
        body_of(text, |body| {
            let found = uncalled(body).expect("a body");
            let at: Vec<_> = (0..found.len()).filter(|&at| found[at]).collect();
            assert_eq!(at, [2]);
        });
    }

    #[test]
    fn a_longer_loop_is_copied_fewer_times() {
        for (straight, expected) in [(1, 8), (48, 8), (49, 7), (64, 6), (UNROLL_OPS_MAX, 4)] {
            assert_eq!(copies(straight, 8), expected, "{straight}");
        }
        assert_eq!(copies(1, 4), 4);
    }

    #[test]
    fn a_loop_of_one_block_is_found() {
        for (text, expected) in [
            ("loop (br_if 0 (local.get 0)) end", Some(1)),
            ("loop nop nop (br_if 0 (local.get 0)) end", Some(3)),
            ("loop (br_if 0 (local.get 0)) nop end", None),
            ("loop (br_if 1 (local.get 0)) end", None),
            ("loop call 0 (br_if 0 (local.get 0)) end", None),
            (
                "loop (memory.fill (local.get 0) (local.get 0) (local.get 0)) (br_if 0 (local.get 0)) end",
                None,
            ),
            ("loop br 0 end", None),
            ("nop", None),
        ] {
            body_of(&format!("(param i32) {text}"), |body| {
                assert_eq!(single_block(&body.ops, 0), expected, "{text}");
            });
        }
    }
}
