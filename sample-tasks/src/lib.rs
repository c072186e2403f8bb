//! What the sample guest programs compute, apart from how they are started.
//!
//! Each program in `src/bin/` is a WASI preview 1 command that Talka runs as the tasks of a job:
//! arguments from the job, the task's number in `TALKA_TASK_INDEX`, input on stdin, output on
//! stdout. The programs are thin: they read arguments and move bytes. What can be tested lies
//! here and is tested natively, with known answers, by `cargo test`.
//!
//! | module | subject |
//! |---|---|
//! | [`cli`] | arguments, the task's number, errors and exit codes |
//! | [`primes`] | how many primes lie in an interval |
//! | [`wordcount`] | lines, words, bytes and the most frequent words of a text |
//! | [`mandelbrot`] | tiles of a picture of the Mandelbrot set |
//! | [`kmers`] | counts of DNA k-mers |
//! | [`pi`] | how many random points lie inside a quarter circle |
//! | [`collatz`] | the longest Collatz chain of an interval |
//! | [`hash`] | a hasher without a random seed |
//!
//! A result must depend on the task alone, so nothing here reads a clock, iterates over a map in
//! an order that shows, or calls a mathematical function whose last bit differs between libraries.
//!
//! ```
//! // 25 primes lie below 100.
//! assert_eq!(talka_sample_tasks::primes::count(0, 100), 25);
//! ```

pub mod cli;
pub mod collatz;
pub mod hash;
pub mod kmers;
pub mod mandelbrot;
pub mod pi;
pub mod primes;
pub mod wordcount;
