//! Everything in a module that the profile refuses, with cause and remedy, all at once.
//!
//! [`check`] takes any bytes. It never panics, and what it costs is bounded: a file above the size limit
//! is not looked into, every pass is linear, there are as many passes as kinds of refused proposals that the
//! module uses, and neither the number of problems nor the length of one grows with the file.

mod features;
mod problem;
mod survey;

#[cfg(test)]
mod tests;

use talka_core::limits;

pub use problem::{Problem, Rule};

use problem::Problems;

/// Names every rule of the profile that `wasm` breaks; empty for a program that may run.
pub fn check(wasm: &[u8]) -> Vec<Problem> {
    let mut problems = Problems::default();
    if let Some((rule, detail)) = other_format(wasm) {
        problems.add(rule, detail);
        return problems.into_vec();
    }
    let (bytes, max) = (wasm.len() as u64, limits::MODULE_BYTES_MAX);
    if bytes > max {
        problems.add(
            Rule::ModuleBytes,
            format!(
                "the module has {bytes} bytes, the limit is {max}; strip debug information (-s, wasm-strip) \
                 and move data into the job's --data files"
            ),
        );
        return problems.into_vec();
    }
    if let Some(memories) = survey::check(wasm, &mut problems) {
        features::check(wasm, memories, &mut problems);
    }
    problems.into_vec()
}

/// What the file is, when it is no core module.
fn other_format(wasm: &[u8]) -> Option<(Rule, String)> {
    const COMPONENT: &str = "this is a component (WASI 0.2), which talka-1 does not run yet; build a WASI preview 1 \
         module, for example with --target wasm32-wasip1";
    const TEXT: &str =
        "this is WebAssembly text; turn it into a binary module first, for example with wat2wasm";
    let not_wasm = |what: &str| {
        let detail = format!("{what}, not a WebAssembly module; compile the program for wasm32-wasip1");
        Some((Rule::NotWasm, detail))
    };
    match wasm {
        [] => not_wasm("the file is empty"),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => None,
        [0, b'a', b's', b'm', _, _, 1, 0, ..] => Some((Rule::Component, COMPONENT.to_owned())),
        [0, b'a', b's', b'm', rest @ ..] => Some((
            Rule::NotWasm,
            if rest.len() < 4 {
                "the file ends within its header; copy or download it again".to_owned()
            } else {
                "the module has an unknown WebAssembly version; build it with a released toolchain".to_owned()
            },
        )),
        [0x7f, b'E', b'L', b'F', ..] => not_wasm("the file is a native Linux program"),
        [b'M', b'Z', ..] => not_wasm("the file is a native Windows program"),
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] => not_wasm("the file is a native macOS program"),
        [b'#', b'!', ..] => not_wasm("the file is a script"),
        [b'B', b'C', 0xc0, 0xde, ..] => not_wasm("the file is LLVM bitcode"),
        [b'!', b'<', b'a', b'r', b'c', b'h', b'>', ..] => not_wasm("the file is an archive"),
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [b'P', b'K', 3, 4, ..] => {
            not_wasm("the file is compressed")
        }
        _ if is_text_format(wasm) => Some((Rule::NotWasm, TEXT.to_owned())),
        _ => not_wasm("the file does not begin with the WebAssembly header"),
    }
}

/// Whether the file begins as WebAssembly text does, comments aside.
fn is_text_format(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(4096)];
    let code = start
        .split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .find(|line| !line.is_empty() && !line.starts_with(b";;"));
    code.is_some_and(|line| line.starts_with(b"(module") || line.starts_with(b"(component"))
}
