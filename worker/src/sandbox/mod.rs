//! Where programs of strangers run.
//!
//! Two walls stand between a program and the machine. The first is the engine: the program is WebAssembly,
//! it has no instruction that reaches out of its own memory, and all that it can call is answered from a
//! `world` that exists in memory only. The second is a child process ([`walls`]) in which the program
//! runs, and another one in which it is compiled; a parent believes neither of them.
//!
//! ```text
//!  worker ──▶ Compiler ──frames──▶ compile process: engine::compile
//!     │                    ◀── machine code
//!     └─────▶ Executor ──frames──▶ executor process: engine::Runner ▶ wasi ▶ world
//!                          ◀── results
//! ```
//!
//! | module | subject |
//! |---|---|
//! | `world` | all that a program can see, as plain Rust |
//! | `wasi` | the calls of a program, translated to requests to the world |
//! | `engine`, `host`, `meter` | the engine, its settings, its limits; the only use of wasmtime |
//! | [`child`] | what runs inside the processes |
//! | [`walls`] | what these processes can't do |
//! | `process`, `control`, `executor`, `compiler` | the same processes, seen from the parent |
//! | `throttle`, `deadline` | how much of a processor they get, and for how long |
//! | `local` | one program, once |
//! | [`measure`] | the same engine without the walls, for programs of our own |
//!
//! # Compiled modules
//!
//! A module is compiled once: [`Compiler::with_cache`] keeps the machine code on the disk. That code is executed, so
//! only what this machine's own compile process wrote is ever loaded: each file is sealed with a key
//! that no other program has, and the seal is checked over the very bytes that are used. A file that is
//! damaged, or comes from somebody else, another engine or another processor, is thrown away and its module
//! compiled again.
//!
//! # Deadlines and pauses
//!
//! The program can't see wall-clock time and is not interrupted by it: a deadline is enforced from outside,
//! by killing the process, and gives no result. [`Control::pause`] stops the process where it is, [`throttle()`] stops
//! it again and again for some milliseconds, and the deadline stands still meanwhile.

pub mod child;
mod compiler;
mod control;
mod deadline;
mod engine;
mod executor;
mod host;
mod job;
mod loads;
mod local;
pub mod measure;
mod meter;
mod process;
mod saving;
mod throttle;
pub mod walls;
mod wasi;
mod world;

pub(crate) use self::world::SNAPSHOT_VERSION;
pub use self::{
    compiler::{CacheUsage, CompileError, Compiler, cache_usage},
    control::{Activity, Control},
    executor::{Executor, ExecutorConfig, TaskResult},
    job::{JobWorld, Program, TaskInput},
    local::{JobParts, LocalRun, RunError, run_one, run_one_kept, run_one_with},
    throttle::{Place, throttle},
};
