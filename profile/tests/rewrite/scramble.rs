//! Programs turned into others: on a CPU as awkward as WebAssembly allows, and more, where every NaN that float
//! arithmetic makes gets bits of its own; or with numbers that make NaNs.

use wasm_encoder::{
    CodeSection, Function, Ieee32, Ieee64, Instruction, Module, RawSection, ValType,
    reencode::{Error, Reencode, RoundtripReencoder, utils},
};
use wasmparser::{CompositeInnerType, Operator, Parser, Payload};

/// Lets `wasm` run as it would on that CPU.
pub(crate) fn scramble(wasm: &[u8]) -> Vec<u8> {
    let mut scrambler = Scrambler::default();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.expect("valid") {
            Payload::TypeSection(section) => {
                for ty in section.into_iter().flat_map(|group| group.expect("valid").into_types()) {
                    let CompositeInnerType::Func(ty) = ty.composite_type.inner else {
                        panic!("a function type")
                    };
                    scrambler.params.push(u32::try_from(ty.params().len()).expect("few"));
                }
            }
            Payload::FunctionSection(section) => {
                scrambler.types = section.into_iter().map(|ty| ty.expect("valid")).collect();
            }
            _ => {}
        }
    }
    let mut module = Module::new();
    scrambler.parse_core_module(&mut module, Parser::new(0), wasm).expect("valid");
    module.finish()
}

#[derive(Default)]
struct Scrambler {
    params: Vec<u32>,
    types: Vec<u32>,
    next: usize,
    made: u64,
}

impl Reencode for Scrambler {
    type Error = std::convert::Infallible;

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        body: wasmparser::FunctionBody<'_>,
    ) -> Result<(), Error> {
        let mut first = self.params[self.types[self.next] as usize];
        self.next += 1;
        let mut locals = Vec::new();
        for group in body.get_locals_reader()? {
            let (count, ty) = group?;
            first += count;
            locals.push((count, RoundtripReencoder.val_type(ty)?));
        }
        locals.extend([(1, ValType::F32), (1, ValType::F64), (1, ValType::V128)]);
        let mut function = Function::new(locals);
        let mut reader = body.get_operators_reader()?;
        while !reader.eof() {
            let lanes = makes_nan(&reader.clone().read()?);
            function.instruction(&utils::parse_instruction(&mut RoundtripReencoder, &mut reader)?);
            if let Some(lanes) = lanes {
                self.scramble(&mut function, lanes, first);
            }
        }
        code.function(&function);
        Ok(())
    }

    // Their offsets no longer fit.
    fn parse_custom_section(
        &mut self,
        _: &mut Module,
        _: wasmparser::CustomSectionReader<'_>,
    ) -> Result<(), Error> {
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Lanes {
    F32,
    F64,
    F32x4,
    F64x2,
}

impl Scrambler {
    fn scramble(&mut self, function: &mut Function, lanes: Lanes, first: u32) {
        self.made = self.made.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        // A quiet NaN with any sign and payload.
        let bits64 = self.made | 0x7ff8_0000_0000_0000;
        let bits32 = u32::try_from(self.made >> 32).expect("32 bits") | 0x7fc0_0000;
        let bits128 = match lanes {
            Lanes::F32x4 => u128::from(bits32) * 0x1_0000_0001_0000_0001_0000_0001,
            _ => u128::from(bits64) << 64 | u128::from(!bits64 | 0x7ff8_0000_0000_0000),
        };
        let (nan, local, same) = match lanes {
            Lanes::F32 => (Instruction::F32Const(Ieee32::new(bits32)), first, Instruction::F32Eq),
            Lanes::F64 => (Instruction::F64Const(Ieee64::new(bits64)), first + 1, Instruction::F64Eq),
            Lanes::F32x4 => (Instruction::V128Const(bits128.cast_signed()), first + 2, Instruction::F32x4Eq),
            Lanes::F64x2 => (Instruction::V128Const(bits128.cast_signed()), first + 2, Instruction::F64x2Eq),
        };
        let choose = match lanes {
            Lanes::F32 | Lanes::F64 => Instruction::Select,
            Lanes::F32x4 | Lanes::F64x2 => Instruction::V128Bitselect,
        };
        let get = Instruction::LocalGet(local);
        for instruction in [Instruction::LocalTee(local), nan, get.clone(), get, same, choose] {
            function.instruction(&instruction);
        }
    }
}

fn makes_nan(operator: &Operator<'_>) -> Option<Lanes> {
    use Operator as O;
    Some(match operator {
        O::F32Add
        | O::F32Sub
        | O::F32Mul
        | O::F32Div
        | O::F32Min
        | O::F32Max
        | O::F32Sqrt
        | O::F32Ceil
        | O::F32Floor
        | O::F32Trunc
        | O::F32Nearest
        | O::F32DemoteF64 => Lanes::F32,
        O::F64Add
        | O::F64Sub
        | O::F64Mul
        | O::F64Div
        | O::F64Min
        | O::F64Max
        | O::F64Sqrt
        | O::F64Ceil
        | O::F64Floor
        | O::F64Trunc
        | O::F64Nearest
        | O::F64PromoteF32 => Lanes::F64,
        O::F32x4Add
        | O::F32x4Sub
        | O::F32x4Mul
        | O::F32x4Div
        | O::F32x4Min
        | O::F32x4Max
        | O::F32x4Sqrt
        | O::F32x4Ceil
        | O::F32x4Floor
        | O::F32x4Trunc
        | O::F32x4Nearest
        | O::F32x4DemoteF64x2Zero => Lanes::F32x4,
        O::F64x2Add
        | O::F64x2Sub
        | O::F64x2Mul
        | O::F64x2Div
        | O::F64x2Min
        | O::F64x2Max
        | O::F64x2Sqrt
        | O::F64x2Ceil
        | O::F64x2Floor
        | O::F64x2Trunc
        | O::F64x2Nearest
        | O::F64x2PromoteLowF32x4 => Lanes::F64x2,
        _ => return None,
    })
}

/// The same program with numbers of which arithmetic makes NaNs, and with other operators in place of those that set
/// a sign: of a NaN, too, and there the profile and an engine that makes every NaN canonical at once come to
/// different bits, each of them everywhere.
pub(crate) fn rich_in_nans(wasm: &[u8]) -> Vec<u8> {
    let mut module = Module::new();
    NanRich::default().parse_core_module(&mut module, Parser::new(0), wasm).expect("valid");
    module.finish()
}

#[derive(Default)]
struct NanRich {
    numbers: usize,
}

impl NanRich {
    fn number(&mut self) -> f64 {
        const NUMBERS: [f64; 7] = [0.0, f64::INFINITY, -1.0, f64::NEG_INFINITY, -0.0, f64::INFINITY, 1e300];
        self.numbers += 1;
        NUMBERS[self.numbers % NUMBERS.len()]
    }
}

impl Reencode for NanRich {
    type Error = std::convert::Infallible;

    fn instruction<'a>(&mut self, operator: Operator<'a>) -> Result<Instruction<'a>, Error> {
        Ok(match operator {
            Operator::F32Const { .. } => Instruction::F32Const((self.number() as f32).into()),
            Operator::F64Const { .. } => Instruction::F64Const(self.number().into()),
            Operator::V128Const { .. } if self.numbers.is_multiple_of(2) => {
                let lanes = [self.number(), self.number()].map(|number| u128::from(number.to_bits()));
                Instruction::V128Const((lanes[0] << 64 | lanes[1]).cast_signed())
            }
            Operator::V128Const { .. } => {
                let lane = u128::from((self.number() as f32).to_bits());
                Instruction::V128Const((lane * 0x1_0000_0001_0000_0001_0000_0001).cast_signed())
            }
            Operator::F32Neg => Instruction::F32Abs,
            Operator::F64Neg => Instruction::F64Abs,
            Operator::F32x4Neg => Instruction::F32x4Abs,
            Operator::F64x2Neg => Instruction::F64x2Abs,
            Operator::F32Copysign => Instruction::F32Sub,
            Operator::F64Copysign => Instruction::F64Sub,
            other => utils::instruction(self, other)?,
        })
    }
}

/// The same program without the function that runs before `_start`.
pub(crate) fn without_start_section(wasm: &[u8]) -> Vec<u8> {
    let mut module = Module::new();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.expect("valid");
        if let Some((id, range)) = payload.as_section()
            && !matches!(payload, Payload::StartSection { .. })
        {
            module.section(&RawSection { id, data: &wasm[range] });
        }
    }
    module.finish()
}
