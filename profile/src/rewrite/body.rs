//! A function body as a list of operators, without the code that nothing can reach.

use std::collections::HashMap;

use wasmparser::{BlockType, FuncType, FunctionBody, Operator, ValType};

use super::RewriteError;

/// The types that bodies refer to.
#[derive(Debug, Default)]
pub(super) struct Signatures {
    /// Each type.
    pub(super) types: Vec<FuncType>,
    /// Type of each function, imported ones first.
    pub(super) functions: Vec<u32>,
    /// Number of imported functions.
    pub(super) imports: u32,
    /// For each list of several results that a function has, a type that takes nothing and gives them.
    pub(super) blocks: HashMap<Vec<ValType>, u32>,
}

impl Signatures {
    pub(super) fn ty(&self, index: u32) -> Result<&FuncType, RewriteError> {
        self.types.get(index as usize).ok_or(RewriteError::Inconsistent("a type is missing"))
    }

    /// Index of the type of a function.
    pub(super) fn type_of(&self, function: u32) -> Result<u32, RewriteError> {
        self.functions
            .get(function as usize)
            .copied()
            .ok_or(RewriteError::Inconsistent("a function is missing"))
    }

    pub(super) fn function(&self, index: u32) -> Result<&FuncType, RewriteError> {
        self.ty(self.type_of(index)?)
    }

    /// Index of a type that takes nothing and gives `results`.
    pub(super) fn block_of(&self, results: &[ValType]) -> Result<u32, RewriteError> {
        self.blocks.get(results).copied().ok_or(RewriteError::Inconsistent("the type of a block is missing"))
    }

    /// Finds, or adds, a type without parameters for each list of several results that functions have.
    pub(super) fn add_block_types(&mut self) {
        for index in 0..self.types.len() {
            let ty = &self.types[index];
            if ty.params().is_empty() && ty.results().len() > 1 {
                self.blocks.entry(ty.results().to_vec()).or_insert(count(index));
            }
        }
        for index in 0..self.types.len() {
            let results = self.types[index].results();
            if results.len() > 1 && !self.blocks.contains_key(results) {
                self.blocks.insert(results.to_vec(), count(self.types.len()));
                let ty = FuncType::new([], results.iter().copied());
                self.types.push(ty);
            }
        }
    }

    /// For a call, whether it is one of an imported function.
    pub(super) fn leaves_module(&self, operator: &Operator<'_>) -> Option<bool> {
        match operator {
            Operator::Call { function_index } => Some(*function_index < self.imports),
            Operator::CallIndirect { .. } => Some(false),
            _ => None,
        }
    }

    /// Number of parameters and results of a block.
    pub(super) fn block(&self, ty: BlockType) -> Result<(usize, usize), RewriteError> {
        Ok(match ty {
            BlockType::Empty => (0, 0),
            BlockType::Type(_) => (0, 1),
            BlockType::FuncType(index) => {
                let ty = self.ty(index)?;
                (ty.params().len(), ty.results().len())
            }
        })
    }
}

/// A length or index that validation bounds far below the largest `u32`.
pub(super) fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// An operator and the bytes that encode it.
#[derive(Debug)]
pub(super) struct Op<'a> {
    pub(super) operator: Operator<'a>,
    pub(super) bytes: &'a [u8],
}

/// A function body.
#[derive(Debug)]
pub(super) struct Body<'a> {
    /// Index of its type.
    pub(super) ty: u32,
    /// Types of its parameters and locals.
    pub(super) locals: Vec<ValType>,
    /// What can be reached, the last `end` included.
    pub(super) ops: Vec<Op<'a>>,
    /// Whether it is left by a `return` or by a branch to its outermost label.
    pub(super) returns: bool,
}

impl<'a> Body<'a> {
    /// Reads a body that was validated. What follows an unconditional branch is left out up to the
    /// `else` or `end` of its block: it is never executed, and to keep it would double every case.
    pub(super) fn read(
        ty: u32,
        signatures: &Signatures,
        body: &FunctionBody<'a>,
    ) -> Result<Self, RewriteError> {
        let mut locals = signatures.ty(ty)?.params().to_vec();
        for group in body.get_locals_reader()? {
            let (count, ty) = group?;
            locals.extend(std::iter::repeat_n(ty, count as usize));
        }
        let mut ops = Vec::new();
        let mut returns = false;
        // Blocks around the operator, the function itself not counted, and blocks begun in dead code.
        let (mut depth, mut dead) = (0u32, 0u32);
        let mut reader = body.get_operators_reader()?;
        let (bytes, start) = (body.as_bytes(), body.range().start);
        while !reader.eof() {
            let from = reader.original_position() - start;
            let operator = reader.read()?;
            let to = reader.original_position() - start;
            if dead > 0 {
                match operator {
                    Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => dead += 1,
                    Operator::End if dead > 1 => dead -= 1,
                    Operator::Else | Operator::End if dead == 1 => dead = 0,
                    _ => {}
                }
                if dead > 0 {
                    continue;
                }
            }
            match &operator {
                Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => depth += 1,
                Operator::End => depth = depth.saturating_sub(1),
                Operator::BrIf { relative_depth } => returns |= *relative_depth == depth,
                Operator::Br { relative_depth } => {
                    returns |= *relative_depth == depth;
                    dead = 1;
                }
                Operator::BrTable { targets } => {
                    for target in targets.targets() {
                        returns |= target? == depth;
                    }
                    returns |= targets.default() == depth;
                    dead = 1;
                }
                Operator::Return => {
                    returns = true;
                    dead = 1;
                }
                Operator::Unreachable => dead = 1,
                _ => {}
            }
            ops.push(Op { operator, bytes: &bytes[from..to] });
        }
        Ok(Self { ty, locals, ops, returns })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Reads the function with that text, in a module where function 0 takes and returns nothing.
    pub(in crate::rewrite) fn body_of(text: &str, then: impl FnOnce(&Body<'_>)) {
        let text = format!("(module (memory 1) (func) (func {text}))");
        let wasm = wat::parse_str(&text).expect(&text);
        let mut signatures = Signatures::default();
        let mut bodies = Vec::new();
        for payload in wasmparser::Parser::new(0).parse_all(&wasm) {
            match payload.expect("valid") {
                wasmparser::Payload::TypeSection(section) => {
                    let types = section.into_iter_err_on_gc_types().map(|ty| ty.expect("a type"));
                    signatures.types = types.collect();
                }
                wasmparser::Payload::FunctionSection(section) => {
                    signatures.functions = section.into_iter().map(|ty| ty.expect("an index")).collect();
                }
                wasmparser::Payload::CodeSectionEntry(body) => bodies.push(body),
                _ => {}
            }
        }
        let body = Body::read(signatures.functions[1], &signatures, &bodies[1]).expect("a body");
        then(&body);
    }

    #[test]
    fn unreachable_code_is_left_out() {
        for (text, ops, returns) in [
            ("", 1, false),
            ("nop nop", 3, false),
            ("return nop nop", 2, true),
            ("block br 0 nop end nop", 5, false),
            ("block br 1 nop end", 4, true),
            ("i32.const 0 if unreachable block end else br 0 loop nop end end", 7, false),
            ("loop br 0 block block br 0 end end if else end end", 4, false),
            ("i32.const 0 br_table 0 0", 3, true),
        ] {
            body_of(text, |body| assert_eq!((body.ops.len(), body.returns), (ops, returns), "{text}"));
        }
    }
}
