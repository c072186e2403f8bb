//! Counts the primes of one interval.
//!
//! Task `i` counts those in `[i · WIDTH, (i + 1) · WIDTH)`, so the sum over the tasks `0..n` of a
//! job is the number of primes below `n · WIDTH`.
//!
//! * arguments: `WIDTH`, at least 1; the intervals must end within 64 bits
//! * input: none
//! * output: the count in decimal, and a line end

use std::io::{self, Write};
use std::process::ExitCode;

use talka_sample_tasks::cli::{self, Failure};
use talka_sample_tasks::primes;

fn main() -> ExitCode {
    cli::run("primes WIDTH", |arguments| {
        let [width] = cli::exactly(arguments)?;
        let width: u64 = cli::number("WIDTH", width)?;
        if width == 0 {
            return Err(Failure::Usage("WIDTH is 0: at least 1 is needed".to_owned()));
        }
        let index = cli::task_index()?;
        let (low, high) = primes::interval(index, width)
            .ok_or_else(|| Failure::Usage(format!("task {index} of width {width} ends beyond 64 bits")))?;
        writeln!(io::stdout(), "{}", primes::count(low, high))?;
        Ok(())
    })
}
