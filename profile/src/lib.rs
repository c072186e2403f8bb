//! The deterministic profile `talka-1`: what a program may be, and how it is made to mean the same
//! everywhere.
//!
//! Pure functions over the bytes of a WebAssembly module; no engine, no I/O.
//!
//! * [`check`] names everything in a module that the profile refuses, all at once.
//! * [`wasi_functions`] is the only interface that a module may import.
//!
//! ```
//! let problems = talka_profile::check(b"#!/bin/sh");
//! assert_eq!(problems[0].rule.name(), "not-wasm");
//! ```

mod check;
mod rewrite;
mod wasi;

pub use check::{Problem, Rule, check};
pub use rewrite::{
    CALL_CHUNK, CHUNK, DEPTH_GLOBAL, FUEL_GLOBAL, Options, PASS_VERSION, RewriteError, Rewritten, fuel_used,
    limit_hit, rewrite,
};
pub use wasi::{WASI_MODULE, WasiFunction, Word, wasi_function, wasi_functions};

/// Name of the profile. It is part of every result digest: a profile that counts or computes
/// anything differently has another name.
pub const PROFILE: &str = "talka-1";

/// Exports whose name begins so belong to the grid; a module that has one is refused.
pub const RESERVED_PREFIX: &str = "talka_";
