//! The `talka` binary: command line and output. What is decided is decided in `talka-core`, and who talks
//! to whom in `talka-peer`, `talka-worker` and `talka-coordinator-peer`.
//!
//! | module | subject |
//! |---|---|
//! | [`cli`] | commands and their flags |
//! | [`output`] | the one place that prints |
//! | [`error`] | codes of errors |
//! | [`problems`] | all that is wrong with a command line |
//! | [`find`], [`lan`], [`registry`], [`paths`] | which coordinator is meant, and where things lie |
//! | [`client`] | the connection to a coordinator |
//! | [`inputs`], [`upload`] | packing inputs, handing a job over |
//! | [`watch`], [`progress`] | following a job |
//! | [`collect`], [`results`] | results into files |
//! | [`process`] | another `talka` as a child process: started, watched, stopped |
//! | [`demo`] | a whole grid on this machine |
//! | [`mod@bench`] | what things cost on this machine |
//! | [`view`], [`mod@format`] | JSON forms, times and numbers |
//! | [`selector`], [`jobs`] | `5`, `1-3,7`, `last`, `all`, and the jobs that they mean |

mod bench;
mod cli;
mod client;
mod collect;
mod demo;
mod error;
mod find;
mod format;
mod holders;
mod inputs;
mod jobs;
mod lan;
mod ledger_file;
mod logging;
mod operator;
mod output;
mod paths;
mod problems;
mod process;
mod progress;
mod receipt;
mod registry;
mod results;
mod scratch;
mod selector;
mod shutdown;
mod statistics;
mod upload;
mod view;
mod watch;

use std::process::ExitCode;

/// A coordinator makes and frees a few small things for each attempt, mostly in different threads, and several large ones
/// for each message, which is what glibc's allocator is worst at: with this one it takes a fifth less CPU time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // This program is also what runs guests: such a process must not even parse a command line.
    if let Some(code) = talka_worker::sandbox::child::dispatch() {
        return code;
    }
    cli::main()
}
