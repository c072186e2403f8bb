//! Counts the k-mers of DNA sequences.
//!
//! * arguments: `K`, the length of a k-mer, from 1 to 31
//! * input: FASTA text
//! * output: a line `KMER<tab>COUNT` for each canonical k-mer that occurs, sorted by k-mer
//!
//! [`talka_sample_tasks::kmers`] says exactly what is counted.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use talka_sample_tasks::cli::{self, Failure};
use talka_sample_tasks::kmers::{Counter, LENGTH_MAX};

fn main() -> ExitCode {
    cli::run("kmers K < FASTA", |arguments| {
        let [length] = cli::exactly(arguments)?;
        let length: u32 = cli::number("K", length)?;
        let mut counter = Counter::new(length)
            .ok_or_else(|| Failure::Usage(format!("K is {length}: 1 to {LENGTH_MAX} is allowed")))?;
        cli::for_each_input_piece(|piece| counter.feed(piece))?;
        let mut output = BufWriter::new(io::stdout().lock());
        for (kmer, count) in counter.finish() {
            writeln!(output, "{kmer}\t{count}")?;
        }
        Ok(output.flush()?)
    })
}
