//! [`talka_kernels::nbody`] as a command.

use std::process::ExitCode;

fn main() -> ExitCode {
    talka_kernels::command(talka_kernels::nbody)
}
