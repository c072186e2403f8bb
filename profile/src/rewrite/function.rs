//! Writes one function anew: counting, depth, and the settling of NaNs.

use wasm_encoder::{BlockType, Ieee32, Ieee64, ValType};
use wasmparser::Operator;

use super::{
    CALL_CHUNK, CHUNK, Options, RewriteError,
    body::{Body, Signatures, count},
    code::{Code, Extra, Function},
    cost, loops,
    module::Globals,
    nan::{self, Lane, Plan},
    weight,
};

/// The quiet NaN without a payload: what is left of any NaN.
const NAN32: u32 = 0x7fc0_0000;
const NAN64: u64 = 0x7ff8_0000_0000_0000;

/// What a function needs to know of its module.
#[derive(Debug)]
pub(super) struct Context<'m> {
    pub(super) signatures: &'m Signatures,
    pub(super) globals: Globals,
    pub(super) options: &'m Options,
}

/// Writes `body` anew. Returns the number of settled values, too.
pub(super) fn rewrite(body: &Body<'_>, context: &Context<'_>) -> Result<(Function, u64), RewriteError> {
    let mut plan = nan::plan(body, context.signatures)?;
    let weight = weight::charged(body, &plan, context.signatures);
    if !context.options.settle_nans {
        plan.settle.fill(None);
    }
    let mut writer = Writer {
        body,
        context,
        uncalled: loops::uncalled(body)?,
        code: Code::new(count(body.locals.len())),
        pending: cost::ENTRY,
        frames: Vec::new(),
        weight,
        plan,
    };
    writer.function()?;
    let params = context.signatures.ty(body.ty)?.params().len();
    let declared =
        body.locals[params..].iter().map(|ty| ValType::try_from(*ty)).collect::<Result<Vec<_>, _>>()?;
    let settled = writer.plan.settle.iter().flatten().count() as u64;
    Ok((writer.code.finish(declared.into_iter()), settled))
}

/// A block around the current operator.
struct Frame {
    kind: Kind,
    /// Whether something branches to its end.
    targeted: bool,
}

#[derive(PartialEq)]
enum Kind {
    Block,
    Loop,
    If,
}

struct Writer<'w> {
    body: &'w Body<'w>,
    context: &'w Context<'w>,
    plan: Plan,
    /// Loops that look at the count themselves.
    uncalled: Vec<bool>,
    code: Code,
    /// Cost of the current basic block that is not added to the count yet.
    pending: i64,
    frames: Vec<Frame>,
    /// Units of depth that a call takes, if it is not free.
    weight: Option<i32>,
}

impl Writer<'_> {
    fn function(&mut self) -> Result<(), RewriteError> {
        self.enter();
        if self.body.returns {
            // Every way out leads to the end of this block, behind which the count is handed in.
            let ty = self.result_type()?;
            self.code.ops().block(ty);
        }
        let mut at = 0;
        while let Some(op) = self.body.ops.get(at) {
            at += self.operator(at, &op.operator)?;
        }
        Ok(())
    }

    /// Writes the operator at `at`, and returns how many operators that took care of.
    fn operator(&mut self, at: usize, operator: &Operator<'_>) -> Result<usize, RewriteError> {
        self.pending += cost::of(operator);
        match operator {
            Operator::Block { .. } => {
                self.begin(Kind::Block);
                self.copy(at);
            }
            Operator::If { .. } => {
                self.add_pending();
                self.begin(Kind::If);
                self.copy(at);
            }
            Operator::Loop { .. } => {
                self.add_pending();
                let straight = loops::single_block(&self.body.ops, at);
                if let Some(straight) = straight.filter(|_| self.context.options.unroll > 1) {
                    self.unrolled_loop(at + 1, straight);
                    return Ok(straight + 3);
                }
                self.begin(Kind::Loop);
                self.copy(at);
                if self.uncalled[at] {
                    self.hand_in_above(CHUNK);
                }
            }
            Operator::Else => {
                self.add_pending();
                self.copy(at);
            }
            Operator::End => self.end(at),
            Operator::Br { relative_depth } | Operator::BrIf { relative_depth } => {
                self.target(*relative_depth);
                self.add_pending();
                self.copy(at);
            }
            Operator::BrTable { targets } => {
                for target in targets.targets() {
                    self.target(target?);
                }
                self.target(targets.default());
                self.add_pending();
                self.copy(at);
            }
            Operator::Return => {
                self.add_pending();
                let outermost = count(self.frames.len());
                self.code.ops().br(outermost);
            }
            Operator::Unreachable => {
                self.hand_in();
                self.copy(at);
            }
            Operator::Call { .. } | Operator::CallIndirect { .. } => {
                if self.context.signatures.leaves_module(operator) == Some(true) {
                    self.hand_in();
                    self.reset_count();
                } else {
                    self.add_pending();
                    self.hand_in_above(CALL_CHUNK);
                    self.pass_depth();
                }
                self.copy(at);
            }
            _ => {
                if let Some(bulk) = cost::bulk(operator) {
                    self.add_pending();
                    self.add_length(bulk);
                    // Without this, a stretch of code full of them would work for hours beyond the limit.
                    self.hand_in_above(CHUNK);
                }
                self.copy(at);
            }
        }
        Ok(1)
    }

    fn end(&mut self, at: usize) {
        if let Some(frame) = self.frames.pop() {
            // Ways with other counts meet here. The end of a loop is reached on one way only, and so is
            // that of a block without branches to it.
            if frame.kind == Kind::If || frame.kind == Kind::Block && frame.targeted {
                self.add_pending();
            }
            self.copy(at);
        } else {
            if self.body.returns {
                self.add_pending();
                self.code.ops().end();
            }
            self.hand_in();
            self.code.ops().end();
        }
    }

    /// The operator as it is, and what has to be done with its result.
    fn copy(&mut self, at: usize) {
        self.code.raw(self.body.ops[at].bytes);
        if let Some(lane) = self.plan.settle[at] {
            self.settle(lane);
        }
    }

    fn begin(&mut self, kind: Kind) {
        self.frames.push(Frame { kind, targeted: false });
    }

    fn target(&mut self, depth: u32) {
        let frame = self.frames.len().checked_sub(1 + depth as usize);
        if let Some(frame) = frame.and_then(|frame| self.frames.get_mut(frame)) {
            frame.targeted = true;
        }
    }

    fn result_type(&self) -> Result<BlockType, RewriteError> {
        let results = self.context.signatures.ty(self.body.ty)?.results();
        Ok(match results {
            [] => BlockType::Empty,
            [ty] => BlockType::Result(ValType::try_from(*ty)?),
            _ => BlockType::FunctionType(self.context.signatures.block_of(results)?),
        })
    }

    /// Takes the function's weight from what its caller left, and stops if that is not enough.
    fn enter(&mut self) {
        let Some(weight) = self.weight else { return };
        let (depth, global) = (self.code.local(Extra::Depth), self.context.globals.depth);
        self.code.ops().global_get(global).i32_const(weight).i32_sub().local_tee(depth);
        self.code.ops().i32_const(0).i32_lt_s();
        self.code.unlikely_if();
        self.code.ops().i32_const(-1).global_set(global).unreachable().end();
    }

    /// Leaves to a callee what is left of the depth. Nothing has to be given back: whoever calls next, sets it again.
    fn pass_depth(&mut self) {
        let (depth, global) = (self.code.local(Extra::Depth), self.context.globals.depth);
        self.code.ops().local_get(depth).global_set(global);
    }

    fn add_pending(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.add(pending);
    }

    fn add(&mut self, cost: i64) {
        if cost > 0 {
            let count = self.code.local(Extra::Count);
            self.code.ops().local_get(count).i64_const(cost).i64_add().local_set(count);
        }
    }

    /// Adds what the length on top of the stack costs.
    fn add_length(&mut self, bulk: cost::Bulk) {
        let (length, count) = (self.code.local(Extra::Length), self.code.local(Extra::Count));
        self.code.ops().local_tee(length).local_get(length);
        if bulk == cost::Bulk::Bytes {
            let shift = self.context.options.bulk_bytes_log2.min(31);
            self.code.ops().i32_const(shift.cast_signed()).i32_shr_u();
        }
        self.code.ops().i64_extend_i32_u().local_get(count).i64_add().local_set(count);
    }

    /// Takes the count, and the current basic block so far, from the global, and stops below zero.
    fn hand_in(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        let (count, left) = (self.code.local(Extra::Count), self.code.local(Extra::Left));
        let fuel = self.context.globals.fuel;
        self.code.ops().global_get(fuel).local_get(count).i64_const(pending).i64_add().i64_sub();
        self.code.ops().local_tee(left).global_set(fuel).local_get(left).i64_const(0).i64_lt_s();
        self.code.unlikely_if();
        self.code.ops().unreachable().end();
    }

    fn reset_count(&mut self) {
        let count = self.code.local(Extra::Count);
        self.code.ops().i64_const(0).local_set(count);
    }

    fn hand_in_above(&mut self, chunk: u32) {
        let count = self.code.local(Extra::Count);
        self.code.ops().local_get(count).i64_const(chunk.into()).i64_gt_s();
        self.code.unlikely_if();
        self.hand_in();
        self.reset_count();
        self.code.ops().end();
    }

    /// A loop of `straight` operators from `first` on and a `br_if`, several times over:
    ///
    /// ```text
    /// block block block block        one to leave for after each copy but the last, one for the end
    ///   loop
    ///     BODY  not  br_if 1         leaves after 1 copy
    ///     BODY  not  br_if 2         after 2
    ///     BODY  not  br_if 3         after 3
    ///     BODY  count += 4 turns  check  br_if 0
    ///   end
    ///   br 3
    /// end  count += 1 turn   br 2
    /// end  count += 2 turns  br 1
    /// end  count += 3 turns
    /// end
    /// ```
    fn unrolled_loop(&mut self, first: usize, straight: usize) {
        let copies = loops::copies(straight, self.context.options.unroll);
        let turn: i64 = self.body.ops[first..=first + straight].iter().map(|op| cost::of(&op.operator)).sum();
        for _ in 0..copies {
            self.code.ops().block(BlockType::Empty);
        }
        self.code.ops().loop_(BlockType::Empty);
        for copy in 1..=copies {
            for at in first..first + straight {
                self.copy(at);
            }
            if copy < copies {
                self.code.ops().i32_eqz().br_if(copy);
            }
        }
        let again = self.code.local(Extra::Again);
        self.code.ops().local_set(again);
        self.add(turn * i64::from(copies));
        self.hand_in_above(CHUNK);
        self.code.ops().local_get(again).br_if(0).end().br(copies - 1).end();
        for turns in 1..copies {
            self.add(turn * i64::from(turns));
            if turns + 1 < copies {
                self.code.ops().br(copies - 1 - turns);
            }
            self.code.ops().end();
        }
    }

    /// Gives a NaN on top of the stack, or in a lane of the vector there, the bits that it has everywhere.
    ///
    /// A scalar is compared with itself and replaced behind a branch that the CPU predicts: the value does not wait
    /// for the comparison. `x <= x` and not `x == x`, as x86-64 tests that with one branch. For a vector,
    /// selecting by lane is as fast.
    fn settle(&mut self, lane: Lane) {
        let value = self.code.local(match lane {
            Lane::F32 => Extra::F32,
            Lane::F64 => Extra::F64,
            Lane::F32x4 | Lane::F64x2 => Extra::V128,
        });
        match lane {
            Lane::F32 => {
                self.code.ops().local_set(value).block(BlockType::Empty);
                self.code.ops().local_get(value).local_get(value).f32_le();
                self.code.likely_br_if();
                let nan = Ieee32::new(NAN32);
                self.code.ops().f32_const(nan).local_set(value).end().local_get(value);
            }
            Lane::F64 => {
                self.code.ops().local_set(value).block(BlockType::Empty);
                self.code.ops().local_get(value).local_get(value).f64_le();
                self.code.likely_br_if();
                let nan = Ieee64::new(NAN64);
                self.code.ops().f64_const(nan).local_set(value).end().local_get(value);
            }
            Lane::F32x4 => {
                let nans = u128::from(NAN32) * 0x1_0000_0001_0000_0001_0000_0001;
                self.code.ops().local_tee(value).v128_const(nans.cast_signed());
                self.code.ops().local_get(value).local_get(value).f32x4_eq().v128_bitselect();
            }
            Lane::F64x2 => {
                let nans = u128::from(NAN64) * 0x1_0000_0000_0000_0001;
                self.code.ops().local_tee(value).v128_const(nans.cast_signed());
                self.code.ops().local_get(value).local_get(value).f64x2_eq().v128_bitselect();
            }
        }
    }
}
