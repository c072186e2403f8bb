//! The rewriting pass, tried out on real engines: the same results, fuel and traps everywhere.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "generated programs are small, and their numbers wrap as they like"
)]
#![expect(clippy::print_stdout, reason = "how much was compared, and from which seed, is worth a line")]
#![expect(clippy::format_collect, reason = "the text of a program is short")]

mod counts;
mod depth;
mod generated;
mod kernels;
mod machine;
mod nans;
mod program;
mod scramble;
