//! Estimates π by throwing points at a square.
//!
//! Of TOTAL random points of the unit square, INSIDE lie within the quarter circle, so
//! 4 · INSIDE / TOTAL approaches π. Each task of a job has random numbers of its own, and gets the
//! same ones when it runs again.
//!
//! * arguments: `SAMPLES`, at least 1
//! * input: none but WASI's `random_get`
//! * output: `INSIDE TOTAL` in decimal, and a line end

use std::io::{self, Write};
use std::process::ExitCode;

use talka_sample_tasks::cli::{self, Failure};
use talka_sample_tasks::pi::{POINT_BYTES, points_inside};

/// Points whose random bytes are asked for at a time: 8 KiB, so that the call itself costs little.
const BATCH_POINTS: usize = 1024;

fn main() -> ExitCode {
    cli::run("pi SAMPLES", |arguments| {
        let [total] = cli::exactly(arguments)?;
        let total: u64 = cli::number("SAMPLES", total)?;
        if total == 0 {
            return Err(Failure::Usage("SAMPLES is 0: at least 1 is needed".to_owned()));
        }
        let mut random = [0; BATCH_POINTS * POINT_BYTES];
        let mut inside = 0;
        let mut left = total;
        while left > 0 {
            let points = usize::try_from(left).map_or(BATCH_POINTS, |left| left.min(BATCH_POINTS));
            let batch = &mut random[..points * POINT_BYTES];
            fill_with_random(batch)?;
            inside += points_inside(batch);
            left -= points as u64;
        }
        writeln!(io::stdout(), "{inside} {total}")?;
        Ok(())
    })
}

#[cfg(target_os = "wasi")]
#[expect(unsafe_code, reason = "std has no call that returns random bytes")]
fn fill_with_random(buffer: &mut [u8]) -> io::Result<()> {
    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        /// Fills `length` bytes at `buffer`; returns 0 or an error number.
        fn random_get(buffer: *mut u8, length: usize) -> u16;
    }
    // SAFETY: WASI writes to the given bytes only, and they are borrowed exclusively.
    match unsafe { random_get(buffer.as_mut_ptr(), buffer.len()) } {
        0 => Ok(()),
        number => Err(io::Error::from_raw_os_error(number.into())),
    }
}

#[cfg(not(target_os = "wasi"))]
fn fill_with_random(buffer: &mut [u8]) -> io::Result<()> {
    use std::io::Read;
    std::fs::File::open("/dev/urandom")?.read_exact(buffer)
}
