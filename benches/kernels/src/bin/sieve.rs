//! [`talka_kernels::sieve`] as a command.

use std::process::ExitCode;

fn main() -> ExitCode {
    talka_kernels::command(talka_kernels::sieve)
}
