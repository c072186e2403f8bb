//! Counts the lines, words and bytes of a text, and its ten most frequent words.
//!
//! * arguments: none
//! * input: text, or any other bytes
//! * output: one JSON object on one line,
//!   `{"lines":N,"words":N,"bytes":N,"top":[{"word":"the","count":N},...]}`
//!
//! [`talka_sample_tasks::wordcount`] says exactly what a word is.

use std::io::{self, Write};
use std::process::ExitCode;

use talka_sample_tasks::cli;
use talka_sample_tasks::wordcount::Counter;

fn main() -> ExitCode {
    cli::run("wordcount < TEXT", |arguments| {
        let [] = cli::exactly(arguments)?;
        let mut counter = Counter::default();
        cli::for_each_input_piece(|piece| counter.feed(piece))?;
        io::stdout().write_all(counter.finish().to_json().as_bytes())?;
        Ok(())
    })
}
