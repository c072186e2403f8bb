//! How long rewriting takes, on a module as large as an interpreter's.

use std::hint::black_box;

use anyhow::Context;
use talka_profile::{Options, rewrite};
use talka_worker::sandbox::measure;

use super::{SandboxConfig, best};

/// A program with an ordinary mix of code: its own, and that of the standard library.
const PROGRAM: &[u8] = include_bytes!("../../sample-tasks/wasm/kmers.wasm");

/// Size of the module that is rewritten.
const BYTES: usize = 4_000_000;
/// The same for rough figures.
const BYTES_QUICK: usize = 1_000_000;

/// Sections of a module, by their number: types of functions, and bodies.
const FUNCTION_SECTION: u8 = 3;
const CODE_SECTION: u8 = 10;
const HEADER_BYTES: usize = 8;

/// CPU seconds for each MB (10⁶ bytes) of a large module, checking included.
pub(super) fn secs_per_mb(config: SandboxConfig) -> anyhow::Result<f64> {
    let bytes = if config.quick { BYTES_QUICK } else { BYTES };
    let module = grown(PROGRAM, bytes.div_ceil(PROGRAM.len())).context("the module can't be made larger")?;
    let time = best(config.rounds, || {
        let (rewritten, cpu) = measure::cpu_time(|| rewrite(black_box(&module), &Options::default()));
        rewritten?;
        Ok(cpu)
    })?;
    #[expect(clippy::cast_precision_loss, reason = "megabytes")]
    let megabytes = module.len() as f64 / 1e6;
    Ok(time.as_secs_f64() / megabytes)
}

/// The module with all of its functions `times` times. The first ones keep their numbers, the others are never called.
/// `None` for what is no module.
fn grown(module: &[u8], times: usize) -> Option<Vec<u8>> {
    let (header, mut rest) = module.split_at_checked(HEADER_BYTES)?;
    let mut grown = header.to_vec();
    while let Some((id, after)) = rest.split_first() {
        let (size, after) = read_u32(after)?;
        let (body, after) = after.split_at_checked(usize::try_from(size).ok()?)?;
        let body = match *id {
            FUNCTION_SECTION | CODE_SECTION => {
                let (count, items) = read_u32(body)?;
                let mut body = Vec::new();
                write_u32(&mut body, count.checked_mul(u32::try_from(times).ok()?)?);
                body.extend(items.repeat(times));
                body
            }
            _ => body.to_vec(),
        };
        grown.push(*id);
        write_u32(&mut grown, u32::try_from(body.len()).ok()?);
        grown.extend(body);
        rest = after;
    }
    Some(grown)
}

/// A number in LEB128, and what follows it.
fn read_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let last = bytes.iter().take(5).position(|byte| byte & 0x80 == 0)?;
    let (number, rest) = bytes.split_at(last + 1);
    let value = number.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
    Some((u32::try_from(value).ok()?, rest))
}

fn write_u32(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_with_many_copies_of_its_functions_is_valid_and_as_large() {
        let grown = grown(PROGRAM, 3).expect("a module");
        assert_eq!(talka_profile::check(&grown), []);
        assert!(grown.len() > 2 * PROGRAM.len(), "{} bytes", grown.len());
        assert_eq!(super::grown(PROGRAM, 1).expect("a module"), PROGRAM);
    }

    #[test]
    fn what_is_no_module_does_not_grow() {
        for bytes in
            [&b""[..], b"\0asm", b"\0asm\x01\0\0\0\x03", b"\0asm\x01\0\0\0\x03\xff\xff\xff\xff\xff\x01"]
        {
            assert_eq!(grown(bytes, 2), None, "{bytes:?}");
        }
    }
}
