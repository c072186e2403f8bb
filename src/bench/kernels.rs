//! Kernels: the same source, natively and in the sandbox.

use std::{hint::black_box, time::Duration};

use anyhow::{Context, ensure};
use talka_worker::sandbox::measure::{self, Prepared, Variant};

use super::SandboxConfig;

/// A program of `benches/kernels`, and how much it is given to do.
pub(super) struct Kernel {
    name: &'static str,
    native: fn(u32) -> u64,
    module: &'static [u8],
    /// Takes 0.2 to 0.4 s natively.
    size: u32,
    /// Takes some tens of milliseconds.
    quick_size: u32,
}

/// All of them.
pub(super) const KERNELS: [Kernel; 5] = [
    Kernel {
        name: "sha256",
        native: talka_kernels::sha256,
        module: include_bytes!("../../benches/kernels/wasm/sha256.wasm"),
        size: 64,
        quick_size: 4,
    },
    Kernel {
        name: "nbody",
        native: talka_kernels::nbody,
        module: include_bytes!("../../benches/kernels/wasm/nbody.wasm"),
        size: 6_000_000,
        quick_size: 400_000,
    },
    Kernel {
        name: "matmul",
        native: talka_kernels::matmul,
        module: include_bytes!("../../benches/kernels/wasm/matmul.wasm"),
        size: 512,
        quick_size: 192,
    },
    Kernel {
        name: "sieve",
        native: talka_kernels::sieve,
        module: include_bytes!("../../benches/kernels/wasm/sieve.wasm"),
        size: 100_000_000,
        quick_size: 8_000_000,
    },
    Kernel {
        name: "mandelbrot",
        native: talka_kernels::mandelbrot,
        module: include_bytes!("../../benches/kernels/wasm/mandelbrot.wasm"),
        size: 1000,
        quick_size: 250,
    },
];

/// The best times of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Times {
    pub(super) name: &'static str,
    pub(super) native: Duration,
    /// In the order of [`Variant::ALL`].
    pub(super) variants: [Duration; Variant::ALL.len()],
}

impl Kernel {
    /// Runs it natively and as each variant, in turn, so that whatever disturbs one disturbs all. To be called on
    /// a thread of [`measure::on_thread`]. `step` is called once a round.
    pub(super) fn measure(&self, config: SandboxConfig, step: &impl Fn(&str)) -> anyhow::Result<Times> {
        let size = if config.quick { self.quick_size } else { self.size };
        let args = [self.name.to_owned(), size.to_string()];
        let mut prepared = Vec::new();
        for variant in Variant::ALL {
            let program = Prepared::new(self.module, variant);
            prepared.push((variant, program.with_context(|| format!("{} as {variant:?}", self.name))?));
        }
        let mut times =
            Times { name: self.name, native: Duration::MAX, variants: [Duration::MAX; Variant::ALL.len()] };
        for _ in 0..config.rounds {
            step(self.name);
            // Neither the size nor the function is known to the compiler, and the result is used.
            let (checksum, cpu) = measure::cpu_time(|| black_box(self.native)(black_box(size)));
            times.native = times.native.min(cpu);
            let expected = talka_kernels::text(checksum);
            for ((variant, program), best) in prepared.iter().zip(&mut times.variants) {
                let run = program.run(&args).with_context(|| format!("{} as {variant:?}", self.name))?;
                ensure!(
                    run.stdout == expected.as_bytes(),
                    "{} as {variant:?} printed {:?}, and natively {expected:?}",
                    self.name,
                    String::from_utf8_lossy(&run.stdout),
                );
                *best = (*best).min(run.cpu);
            }
        }
        Ok(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(native: fn(u32) -> u64) -> anyhow::Result<Times> {
        let [.., sieve, _] = KERNELS;
        let kernel = Kernel { native, quick_size: 1000, ..sieve };
        let config = SandboxConfig { rounds: 1, quick: true };
        measure::on_thread(|| kernel.measure(config, &|_| ())).expect("a thread")
    }

    #[test]
    fn a_program_that_computes_something_else_is_an_error() {
        assert_eq!(measure(talka_kernels::sieve).expect("equal outputs").name, "sieve");
        let error = measure(|_| 167).expect_err("there are 168 primes below 1000").to_string();
        assert!(error.contains("sieve as Unmetered printed \"00000000000000a8\\n\""), "{error}");
    }
}
