//! Kernels: small programs that do nothing but compute, for comparing a sandbox with bare metal.
//!
//! Each is a pure function from a size to a checksum. `talka bench sandbox` calls it natively, and runs the
//! same source as a WASI command (`src/bin/`, built into `wasm/`) in the sandbox. Equal checksums say that both
//! did the same work.
//!
//! | kernel | its size is | what it stresses |
//! |---|---|---|
//! | [`sha256`] | MiB that are hashed | 32-bit integers, long blocks without a branch |
//! | [`nbody`] | steps of time | chains of scalar floats, division, square root |
//! | [`matmul`] | rows of a matrix | vectors of floats, a short inner loop over memory |
//! | [`sieve`] | the largest number that is looked at | memory, a loop of two instructions |
//! | [`mandelbrot`] | rows of a picture | floats in a loop that ends when a number says so |
//!
//! ```
//! assert_eq!(talka_kernels::sieve(100), 25);
//! ```

mod mandelbrot;
mod matmul;
mod nbody;
mod sha256;
mod sieve;

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

pub use self::{mandelbrot::mandelbrot, matmul::matmul, nbody::nbody, sha256::sha256, sieve::sieve};

/// Exit code of a command that was called wrongly.
const EXIT_USAGE: u8 = 2;

/// What the command of a kernel prints.
pub fn text(checksum: u64) -> String {
    format!("{checksum:016x}\n")
}

/// The command of a kernel: its size is the only argument.
pub fn command(kernel: fn(u32) -> u64) -> ExitCode {
    let Some(size) = env::args().nth(1).and_then(|text| text.parse().ok()) else {
        return ExitCode::from(EXIT_USAGE);
    };
    match io::stdout().write_all(text(kernel(size)).as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
