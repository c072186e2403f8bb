//! The pass that makes a program itself deterministic and metered, whatever engine runs it.
//!
//! [`rewrite`] turns a module that [`check`](crate::check()) has nothing against into one with the same results
//! that
//!
//! * counts its *fuel*: what the executed operators cost, exactly, in the global [`FUEL_GLOBAL`];
//! * counts how deep its calls are nested, so that it runs out of stack at the same call everywhere, long before
//!   any native stack is full ([`DEPTH_GLOBAL`]);
//! * settles the bits of NaNs that float arithmetic made, where those bits could be seen (see `nan`).
//!
//! # Fuel
//!
//! The host sets [`FUEL_GLOBAL`] to the limit before it calls `_start`, and reads it afterwards: what is missing was
//! used ([`fuel_used`]). The module begins with 0, so a host that forgets gets nothing run. Below zero means that the
//! limit was hit: the program then executes `unreachable`, as it does for calls nested too deep; [`limit_hit`]
//! tells the two apart from an `unreachable` of its own. A host function charges for its work by subtracting from the global;
//! it takes effect at the next check.
//!
//! An operator costs 1; `block`, `loop`, `else`, `end`, `nop`, `drop`, `return` and `unreachable` cost nothing, a
//! function entered costs 1, and a bulk operator costs its length on top: 1 for each 8 bytes of memory, 1 for each
//! element of a table. What the pass itself adds costs nothing.
//!
//! A function counts in a local, one addition for each basic block, and takes that from the global when it is left, before it
//! calls the host, in a loop whenever the local passes [`CHUNK`], and before any other call when it passes
//! [`CALL_CHUNK`]. The limit is tested at just these places, so a program overshoots by a chunk, one stretch
//! of code without a loop and one bulk operator at most, and always by the same. A program that
//! *returns* from `_start` is charged to the unit. One that ends by `proc_exit` or a trap is not charged for what the functions on its stack
//! had not handed in yet: at most [`CALL_CHUNK`] each, after a trap up to [`CHUNK`] for the innermost; it is the same everywhere, too.
//!
//! A loop of one basic block is unrolled, so that counting costs an addition for every eighth turn, or a few more when the loop is
//! long. The pass tells an engine that knows branch hints which of its branches are hardly ever taken.
//!
//! # Depth
//!
//! A function weighs 8 plus its parameters, its locals and the most operands that it has on the stack at once, or
//! more, if it is so long that an optimising engine could keep more than that in its frame (see `weight`). Each
//! function that calls others takes its weight from what its caller had left; a short one that calls none is free.
//!
//! # What stays
//!
//! Types, functions, tables, globals, memories and segments keep their indices; the pass only appends. A `start`
//! function would run before the host could set a limit, so it is called from a new `_start` instead, right before the old
//! one. Custom sections are dropped, except for the names of functions.

mod body;
mod code;
mod cost;
mod function;
mod loops;
mod module;
mod nan;
mod weight;

use talka_core::{limits, outcome::Limit, quantities::Fuel};

use crate::check::{Problem, check};

/// Version of the pass. The same module gives the same bytes under the same version; whatever changes them, or
/// where a limit strikes, changes it. Part of the key under which compiled modules are kept.
pub const PASS_VERSION: u32 = 2;

/// Exported global, mutable `i64`: fuel that is left; below zero, the limit was hit.
pub const FUEL_GLOBAL: &str = "talka_fuel";

/// Exported global, mutable `i32`: depth that is left to the function that made the latest call; below zero, calls were
/// nested too deep. Begins with the limit, for one run of `_start`.
pub const DEPTH_GLOBAL: &str = "talka_depth";

/// Count of a loop at which it is handed in: once in some tens of microseconds.
pub const CHUNK: u32 = 1_000_000;

/// Count before a call at which it is handed in: more would be lost when the callee never returns, less
/// would slow calls down.
pub const CALL_CHUNK: u32 = 1000;

/// What may vary. The default is the profile; anything else is for tests and measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a bulk memory operator that cost 1, as a power of two. With 0, fuel is what wasmtime's own meter counts.
    pub bulk_bytes_log2: u32,
    /// Copies of a loop of one basic block; a long loop gets fewer.
    pub unroll: u32,
    /// Whether NaNs are settled.
    pub settle_nans: bool,
    /// Whether functions are rewritten at all. Without that a program has the globals, and leaves them as they are.
    pub count: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { bulk_bytes_log2: 3, unroll: 8, settle_nans: true, count: true }
    }
}

/// A module that is ready to be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// The module.
    pub wasm: Vec<u8>,
    /// Places where a NaN is settled.
    pub settled: u64,
}

/// Why a module could not be rewritten. It never can be; a retry makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// The profile refuses the module.
    #[error("the module breaks the profile: {}", list(.0))]
    Refused(Vec<Problem>),
    /// The module contradicts itself in a way that validation rules out.
    #[error("inconsistent module: {0}")]
    Inconsistent(&'static str),
    /// A section could not be read.
    #[error("unreadable module")]
    Read(#[from] wasmparser::Error),
    /// A section could not be written.
    #[error("unwritable section")]
    Write(#[from] wasm_encoder::reencode::Error),
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Rewrites a module. Linear in its size, and deterministic.
pub fn rewrite(wasm: &[u8], options: &Options) -> Result<Rewritten, RewriteError> {
    let problems = check(wasm);
    if problems.is_empty() { module::rewrite(wasm, options) } else { Err(RewriteError::Refused(problems)) }
}

/// Fuel used, from the limit that was set and what [`FUEL_GLOBAL`] holds at the end. A program that
/// overshot its limit has used more than that.
pub fn fuel_used(limit: Fuel, left: i64) -> Fuel {
    let limit = i64::try_from(limit.get()).unwrap_or(i64::MAX);
    Fuel::new(u64::try_from(limit.saturating_sub(left)).unwrap_or(0))
}

/// Which limit made a program stop with `unreachable`, from what [`FUEL_GLOBAL`] and [`DEPTH_GLOBAL`] hold then.
pub fn limit_hit(fuel_left: i64, depth_left: i32) -> Option<Limit> {
    if depth_left < 0 {
        Some(Limit::CallDepth)
    } else if fuel_left < 0 {
        Some(Limit::Fuel)
    } else {
        None
    }
}

/// What [`DEPTH_GLOBAL`] begins with.
const DEPTH: i32 = limits::TASK_CALL_DEPTH_MAX;
