//! Finds the longest Collatz chain of one interval, and keeps checkpoints on the way.
//!
//! Task `i` looks at the starts in `[i · WIDTH, (i + 1) · WIDTH)`, 0 left out. A chain goes from a number to its half
//! if it is even, and to three times it plus one if it is odd, until it reaches 1.
//!
//! * arguments: `WIDTH`, at least 1; the intervals must end within 64 bits
//! * input: none
//! * output: `START STEPS` of the longest chain, the smallest start where several are as long, and a line end;
//!   `0 0` for the interval that holds 0 alone
//!
//! How far it is lies in `/checkpoint/state`, which is replaced after each piece. A task that was interrupted goes on
//! from there. How much of the interval is done is written to `/progress`.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use talka_sample_tasks::cli::{self, Failure};
use talka_sample_tasks::collatz::{Chain, Search};

const STATE: &str = "/checkpoint/state";

fn main() -> ExitCode {
    cli::run("collatz WIDTH", |arguments| {
        let [width] = cli::exactly(arguments)?;
        let width: u64 = cli::number("WIDTH", width)?;
        if width == 0 {
            return Err(Failure::Usage("WIDTH is 0: at least 1 is needed".to_owned()));
        }
        let index = cli::task_index()?;
        let whole = Search::of_task(index, width)
            .ok_or_else(|| Failure::Usage(format!("task {index} of width {width} ends beyond 64 bits")))?;
        let mut search = restored()?.filter(|kept| kept.end == whole.end).unwrap_or(whole);
        while !search.is_done() {
            search.advance().ok_or_else(|| io::Error::other("a chain exceeds 128 bits"))?;
            keep(&search)?;
            tell_progress(&search, &whole);
        }
        let Chain { start, steps } = search.longest.unwrap_or(Chain { start: 0, steps: 0 });
        writeln!(io::stdout(), "{start} {steps}")?;
        Ok(())
    })
}

/// The search as an earlier attempt left it.
fn restored() -> io::Result<Option<Search>> {
    match fs::read_to_string(STATE) {
        Ok(text) => text.parse().map(Some).map_err(|()| io::Error::other("the checkpoint is damaged")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces the file in one step. The rename is the moment of the checkpoint.
fn keep(search: &Search) -> io::Result<()> {
    let unfinished = format!("{STATE}.tmp");
    let mut file = File::create(&unfinished)?;
    write!(file, "{search}")?;
    file.sync_all()?;
    fs::rename(unfinished, STATE)
}

/// For people to see; a world without the file is as good.
#[expect(clippy::cast_precision_loss, reason = "a fraction, for people")]
fn tell_progress(search: &Search, whole: &Search) {
    let done = (search.next - whole.next) as f64 / (whole.end - whole.next) as f64;
    let _ = fs::write("/progress", format!("{done}"));
}
