//! The walk over a body that follows open values through the operand stack, locals and labels.

use wasmparser::Operator;

use super::{
    class::{self, Class, Lane},
    value::{NoControl, Taint, Value},
    webs::Webs,
};
use crate::rewrite::{
    RewriteError,
    body::{Body, Signatures},
};

/// Walks before locals and labels are given up: real code settles in two or three, and each walk is linear.
const WALKS_MAX: usize = 8;

/// What was found out about a body.
#[derive(Debug)]
pub(in crate::rewrite) struct Plan {
    /// For each operator, whether the value that it puts onto the stack must be settled, and as what.
    pub(in crate::rewrite) settle: Vec<Option<Lane>>,
    /// The most values that ever lie on the operand stack.
    pub(in crate::rewrite) height: usize,
}

/// A block, loop or `if` around the current operator, or the function itself.
struct Frame {
    /// The operator that began it, whose label state is at the same index.
    start: usize,
    /// Height of the stack below its parameters.
    height: usize,
    params: usize,
    results: usize,
    /// Values that a branch to its label carries.
    carried: usize,
    /// Whether its end is reached by falling through.
    live: bool,
}

struct Walk<'w> {
    body: &'w Body<'w>,
    signatures: &'w Signatures,
    webs: &'w Webs,
    /// State of each web of locals.
    locals: Vec<Taint>,
    /// State of each label with one value, at the index of the operator that began the block.
    labels: Vec<Taint>,
    /// Whether a local or label changed: what was read before may be wrong.
    changed: bool,
    stack: Vec<Value>,
    frames: Vec<Frame>,
    plan: Plan,
}

/// Follows open values through `body`.
pub(in crate::rewrite) fn plan(body: &Body<'_>, signatures: &Signatures) -> Result<Plan, RewriteError> {
    let params = signatures.ty(body.ty)?.params().len();
    let webs = Webs::find(body, params)?;
    let mut walk = Walk {
        body,
        signatures,
        webs: &webs,
        locals: webs
            .parameters()
            .iter()
            .map(|&parameter| if parameter { Taint::Bits } else { Taint::Never })
            .collect(),
        // One more than operators: the last is the label of the function.
        labels: vec![Taint::Never; body.ops.len() + 1],
        changed: false,
        stack: Vec::new(),
        frames: Vec::new(),
        plan: Plan { settle: Vec::new(), height: 0 },
    };
    for _ in 0..WALKS_MAX {
        walk.run()?;
        if !walk.changed {
            return Ok(walk.plan);
        }
    }
    walk.locals.fill(Taint::Bits);
    walk.labels.fill(Taint::Bits);
    walk.run()?;
    Ok(walk.plan)
}

impl Walk<'_> {
    fn run(&mut self) -> Result<(), RewriteError> {
        let body = self.body;
        self.changed = false;
        self.stack.clear();
        self.frames.clear();
        self.plan = Plan { settle: vec![None; body.ops.len()], height: 0 };
        let results = self.signatures.ty(body.ty)?.results().len();
        let function = body.ops.len();
        self.labels[function] = Taint::Bits;
        self.frames.push(Frame {
            start: function,
            height: 0,
            params: 0,
            results,
            carried: results,
            live: true,
        });
        for (at, op) in body.ops.iter().enumerate() {
            self.step(at, &op.operator)?;
            self.plan.height = self.plan.height.max(self.stack.len());
        }
        Ok(())
    }

    fn step(&mut self, at: usize, operator: &Operator<'_>) -> Result<(), RewriteError> {
        match operator {
            Operator::Block { blockty } | Operator::Loop { blockty } | Operator::If { blockty } => {
                let is_if = matches!(operator, Operator::If { .. });
                let is_loop = matches!(operator, Operator::Loop { .. });
                if is_if {
                    self.pop();
                }
                let (params, results) = self.signatures.block(*blockty)?;
                if is_if || is_loop {
                    // Parameters of these come from two sides; compilers hardly use them.
                    self.show_top(params);
                    self.labels[at] = if params > 0 { Taint::Bits } else { self.labels[at] };
                }
                self.frames.push(Frame {
                    start: at,
                    height: self.stack.len().saturating_sub(params),
                    params,
                    results,
                    carried: if is_loop { params } else { results },
                    live: true,
                });
            }
            Operator::Else => {
                self.finish_arm();
                if let Some(frame) = self.frames.last_mut() {
                    frame.live = true;
                    let params = frame.params;
                    self.push_many(params, at);
                }
            }
            Operator::End => self.end(at),
            Operator::Br { relative_depth } => {
                self.carry(*relative_depth);
                self.leave();
            }
            Operator::BrIf { relative_depth } => {
                self.pop();
                self.carry(*relative_depth);
            }
            Operator::BrTable { targets } => {
                self.pop();
                self.carry(targets.default());
                for target in targets.targets() {
                    let target = target?;
                    // Labels that take several values are all alike, and the values were shown already.
                    if self.frame(target).is_some_and(|frame| frame.carried == 1) {
                        self.carry(target);
                    }
                }
                self.leave();
            }
            Operator::Return => {
                let outermost = self.frames.len().saturating_sub(1);
                self.carry(u32::try_from(outermost).unwrap_or(u32::MAX));
                self.leave();
            }
            Operator::Unreachable => self.leave(),
            Operator::Call { function_index } => {
                let ty = self.signatures.function(*function_index)?;
                self.apply(ty.params().len(), ty.results().len(), at);
            }
            Operator::CallIndirect { type_index, .. } => {
                let ty = self.signatures.ty(*type_index)?;
                self.apply(ty.params().len() + 1, ty.results().len(), at);
            }
            Operator::Drop => {
                self.pop();
            }
            Operator::Select | Operator::TypedSelect { .. } => {
                self.pop();
                let (b, a) = (self.pop(), self.pop());
                let taint = self.merge(a, b);
                self.push(taint, at);
            }
            Operator::LocalGet { .. } => {
                let taint = self.webs.of(at).map_or(Taint::Bits, |web| self.locals[web]);
                self.push(taint, at);
            }
            Operator::LocalSet { .. } => {
                let value = self.pop();
                self.write(at, value);
            }
            Operator::LocalTee { .. } => {
                let value = self.pop();
                let taint = self.write(at, value);
                self.push(taint, at);
            }
            Operator::F32Const { value } => self.push(Taint::of_f32(value.bits()), at),
            Operator::F64Const { value } => self.push(Taint::of_f64(value.bits()), at),
            Operator::V128Const { value } => self.push(Taint::of_v128(value.bytes()), at),
            _ => self.compute(at, operator)?,
        }
        Ok(())
    }

    /// Operators that take operands and give at most one result.
    fn compute(&mut self, at: usize, operator: &Operator<'_>) -> Result<(), RewriteError> {
        let taint = match class::of(operator) {
            Class::Makes { operands, from, to } => {
                for _ in 0..operands {
                    self.take(from);
                }
                Taint::Open(to)
            }
            Class::Hides { operands, lane } => {
                for _ in 0..operands {
                    self.take(lane);
                }
                Taint::Bits
            }
            Class::Keeps { operands, lane } => {
                let b = self.take(lane);
                if operands == 1 {
                    b.taint
                } else {
                    let a = self.take(lane);
                    self.merge(a, b)
                }
            }
            Class::Copysign(lane) => {
                let sign = self.pop();
                self.show(sign);
                self.take(lane).taint
            }
            Class::Splat { from, to } | Class::Extract { from, to } => {
                self.take(from).taint.as_lane(from, to)
            }
            Class::Replace { lane, scalar } => {
                let mut new = self.take(scalar);
                new.taint = new.taint.as_lane(scalar, lane);
                let old = self.take(lane);
                match (old.taint, new.taint) {
                    // What is settled is the scalar, as a scalar.
                    (Taint::Bits, Taint::Open(_)) => {
                        self.show(Value { taint: Taint::Open(scalar), ..new });
                        Taint::Bits
                    }
                    _ => self.merge(old, new),
                }
            }
            Class::Shuffle(lanes) => {
                let [b, a] = [self.pop(), self.pop()].map(|value| match value.taint {
                    Taint::Open(lane) if !class::keeps_lanes(&lanes, lane) => self.show(value),
                    _ => value,
                });
                match self.merge(a, b) {
                    // Lanes of constants, put together anew, may be anything.
                    Taint::Never => Taint::Bits,
                    taint => taint,
                }
            }
            Class::Shows => {
                let (operands, results) = operator
                    .operator_arity(&NoControl)
                    .ok_or(RewriteError::Inconsistent("an operator is unknown"))?;
                self.apply(operands as usize, results as usize, at);
                return Ok(());
            }
        };
        self.push(taint, at);
        Ok(())
    }

    /// Takes operands whose bits are seen, gives results of settled bits.
    fn apply(&mut self, operands: usize, results: usize, at: usize) {
        for _ in 0..operands {
            let value = self.pop();
            self.show(value);
        }
        self.push_many(results, at);
    }

    fn push(&mut self, taint: Taint, origin: usize) {
        self.stack.push(Value { taint, origin });
    }

    fn push_many(&mut self, count: usize, origin: usize) {
        self.stack.extend(std::iter::repeat_n(Value { taint: Taint::Bits, origin }, count));
    }

    fn pop(&mut self) -> Value {
        self.stack.pop().unwrap_or(Value { taint: Taint::Bits, origin: 0 })
    }

    /// Pops an operand that is read as floats of one type; open as another, it is seen.
    fn take(&mut self, lane: Lane) -> Value {
        let value = self.pop();
        match value.taint {
            Taint::Open(other) if other != lane => self.show(value),
            _ => value,
        }
    }

    /// The bits of `value` can be seen: where it was made, they are settled.
    fn show(&mut self, value: Value) -> Value {
        if let Taint::Open(lane) = value.taint {
            self.plan.settle[value.origin] = Some(lane);
            return Value { taint: Taint::Bits, ..value };
        }
        value
    }

    fn show_top(&mut self, count: usize) {
        for position in self.stack.len().saturating_sub(count)..self.stack.len() {
            self.stack[position] = self.show(self.stack[position]);
        }
    }

    /// What either of two values is. Open bits never mix with others: they are settled first.
    fn merge(&mut self, a: Value, b: Value) -> Taint {
        match (a.taint, b.taint) {
            (Taint::Never, other) | (other, Taint::Never) => other,
            (a, b) if a == b => a,
            _ => {
                self.show(a);
                self.show(b);
                Taint::Bits
            }
        }
    }

    /// Adds `value` to what a local or label may be. Returns the new state, and `value` as it is from now on.
    fn absorb(&mut self, state: Taint, value: Value) -> (Taint, Value) {
        let new = match (state, value.taint) {
            (state, Taint::Never) => state,
            (Taint::Never, taint) => taint,
            (state, taint) if state == taint => state,
            _ => Taint::Bits,
        };
        self.changed |= new != state;
        (new, if new == Taint::Bits { self.show(value) } else { value })
    }

    fn write(&mut self, at: usize, value: Value) -> Taint {
        let Some(web) = self.webs.of(at) else { return value.taint };
        let (state, value) = self.absorb(self.locals[web], value);
        self.locals[web] = state;
        value.taint
    }

    fn frame(&self, depth: u32) -> Option<&Frame> {
        self.frames.len().checked_sub(1 + depth as usize).and_then(|index| self.frames.get(index))
    }

    /// The values on top of the stack go to a label.
    fn carry(&mut self, depth: u32) {
        let Some(frame) = self.frame(depth) else { return };
        let (start, carried) = (frame.start, frame.carried);
        self.join(start, carried);
    }

    fn join(&mut self, start: usize, values: usize) {
        if values != 1 {
            self.show_top(values);
        } else if let Some(&top) = self.stack.last() {
            let (state, value) = self.absorb(self.labels[start], top);
            self.labels[start] = state;
            if let Some(top) = self.stack.last_mut() {
                *top = value;
            }
        }
    }

    /// Nothing after this operator is executed before the next `else` or `end`.
    fn leave(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.live = false;
            self.stack.truncate(frame.height);
        }
    }

    /// The values of one arm go to the end of the block.
    fn finish_arm(&mut self) {
        let Some(frame) = self.frames.last() else { return };
        let (start, height, results, live) = (frame.start, frame.height, frame.results, frame.live);
        if live {
            self.join(start, results);
        }
        self.stack.truncate(height);
    }

    fn end(&mut self, at: usize) {
        self.finish_arm();
        let Some(frame) = self.frames.pop() else { return };
        if frame.results == 1 {
            self.push(self.labels[frame.start], at);
        } else {
            self.push_many(frame.results, at);
        }
    }
}
