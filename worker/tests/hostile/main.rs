//! Programs that mean harm: a corpus of modules, each a row with what its job allows, how it must end, and how much
//! memory the worker may take meanwhile.
//!
//! Each row has a process of its own, which is the worker's side of the sandbox: a compiler and an executor, with their
//! child processes. It runs the row and then, in the same executor, an honest task ([`side`]). So no row can hide
//! behind another, the growth of the worker itself can be measured, and rows run several at a time.
//!
//! ```text
//! cargo test --release --locked --test hostile                      one line for each row
//! cargo test --release --locked --test hostile -- --nocapture       and a table: end, fuel, peaks of memory
//! cargo test --release --locked --test hostile -- memory --nocapture
//! ```

mod corpus;
mod guest;
mod measure;
mod report;
mod row;
mod sections;
mod side;

use std::{
    collections::BTreeSet,
    io::Write as _,
    process::{Command, ExitCode, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use libtest_mimic::{Arguments, Failed, Trial};
use talka_worker::sandbox::child;

use self::report::{Report, table};

/// First argument of the process of one row; the second is the row's name.
const ROW_ARG: &str = "hostile-row";

/// Rows below which this is no corpus.
const ROWS_MIN: usize = 60;

fn main() -> ExitCode {
    if let Some(code) = child::dispatch() {
        return code;
    }
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some(ROW_ARG) {
        return side::run(&args.next().unwrap_or_default());
    }
    let arguments = Arguments::from_args();
    let reports = Arc::new(Mutex::new(Vec::new()));
    let mut trials: Vec<_> = corpus::names().into_iter().map(|name| trial(name, reports.clone())).collect();
    trials.push(Trial::test("the_corpus_is_large_and_its_names_differ", || {
        let names = corpus::names();
        let different: BTreeSet<_> = names.iter().collect();
        assert!(different.len() == names.len() && names.len() >= ROWS_MIN, "{}", names.len());
        Ok(())
    }));
    let conclusion = libtest_mimic::run(&arguments, trials);
    if arguments.nocapture || conclusion.has_failed() {
        let reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stderr = std::io::stderr().lock();
        stderr.write_all(table(&reports).as_bytes()).expect("standard error");
    }
    conclusion.exit_code()
}

fn trial(name: &'static str, reports: Arc<Mutex<Vec<Report>>>) -> Trial {
    Trial::test(name.replace(' ', "_"), move || {
        let mut command = Command::new(std::env::current_exe()?);
        let output = command.args([ROW_ARG, name]).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        let report: Report = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("the process of the row ended with {}: {error}", output.status))?;
        let wrong = report.wrong.join("\n");
        reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
        if wrong.is_empty() { Ok(()) } else { Err(Failed::from(wrong)) }
    })
}
