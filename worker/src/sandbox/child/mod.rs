//! What runs inside a child process.
//!
//! Whoever starts children is itself the program that they run: its `main` begins with [`dispatch`].
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     if let Some(code) = talka_worker::sandbox::child::dispatch() {
//!         return code;
//!     }
//!     // … what the program is really about.
//!     ExitCode::SUCCESS
//! }
//! ```

mod compiler;
mod executor;
pub(super) mod frame;
mod pace;

use std::{
    io::{self, Read, Write},
    process::ExitCode,
};

pub use self::{compiler::run_compiler, executor::run_executor};
use super::walls::{self, Walls};

/// First argument of an executor process.
pub const EXECUTOR_ARG: &str = "sandbox-executor";
/// First argument of a compile process.
pub const COMPILER_ARG: &str = "sandbox-compiler";

/// Runs this process as a child when its arguments say so. To be called before anything else: before
/// threads are started and files are opened.
pub fn dispatch() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let run = match args.next()?.to_str()? {
        EXECUTOR_ARG => run_executor,
        COMPILER_ARG => run_compiler,
        _ => return None,
    };
    Some(run())
}

/// Puts the calling process behind the walls of the child that has `role` as its first argument. There is no
/// way back. `None`, and no walls, when no child has that.
pub fn lock_down(role: &str) -> Option<Walls> {
    let mut walls = walls::begin(match role {
        EXECUTOR_ARG => walls::Limits::Executor,
        COMPILER_ARG => walls::Limits::Compiler,
        _ => return None,
    });
    walls::confine(&mut walls);
    walls::seal(&mut walls);
    Some(walls)
}

/// The parent that started this process, and that it must not outlive, is its second argument. The
/// signal that tells of its death was asked for only just now; it may have died before.
fn parent_is_alive() -> bool {
    let stated = std::env::args().nth(2).and_then(|text| text.parse::<u32>().ok());
    let actual = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    stated.is_some() && stated == actual
}

/// Standard input without a buffer: that of the standard library can't tell whether it is empty.
struct Stdin;

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::read(io::stdin(), &mut *buffer))?)
    }
}

/// Standard output without a buffer.
struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::write(io::stdout(), bytes))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
