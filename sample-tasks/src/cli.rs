//! What every program does around its own work: arguments, the task's number, errors.

use std::env;
use std::fmt;
use std::io::{self, Read};
use std::process::ExitCode;
use std::str::FromStr;

/// The environment variable that holds the number of the task within its job.
pub const TASK_INDEX: &str = "TALKA_TASK_INDEX";

/// Exit code of a program that was called wrongly; a program that failed exits with 1.
const EXIT_USAGE: u8 = 2;

/// How much of its input a program reads at a time.
const READ_BYTES: usize = 64 * 1024;

/// Why a program stopped without a result.
#[derive(Debug)]
pub enum Failure {
    /// The arguments or the environment are wrong: another call may work.
    Usage(String),
    /// Input could not be read or output could not be written.
    Io(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) => f.write_str(message),
            Self::Io(error) => write!(f, "input or output failed: {error}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Runs `program` on the command line's arguments and turns what it returns into an exit code.
///
/// `usage` is the program's name and arguments, as in `primes WIDTH`; it is shown with the
/// message when the call was wrong.
pub fn run(usage: &str, program: impl FnOnce(&[String]) -> Result<(), Failure>) -> ExitCode {
    let arguments: Vec<String> =
        env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    match program(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            match failure {
                Failure::Usage(_) => {
                    eprintln!("usage: {usage}");
                    ExitCode::from(EXIT_USAGE)
                }
                Failure::Io(_) => ExitCode::FAILURE,
            }
        }
    }
}

/// Takes exactly `N` arguments.
pub fn exactly<const N: usize>(arguments: &[String]) -> Result<&[String; N], Failure> {
    arguments
        .try_into()
        .map_err(|_| Failure::Usage(format!("{N} argument(s) expected, {} given", arguments.len())))
}

/// Parses the argument called `name`.
pub fn number<T: FromStr>(name: &str, text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| Failure::Usage(format!("{name} is not a number in range: {text:?}")))
}

/// The number of this task within its job.
pub fn task_index() -> Result<u64, Failure> {
    let text = env::var_os(TASK_INDEX).ok_or_else(|| Failure::Usage(format!("{TASK_INDEX} is not set")))?;
    number(TASK_INDEX, &text.to_string_lossy())
}

/// Feeds all of stdin to `consume`, piece by piece, so that no input has to fit into memory.
pub fn for_each_input_piece(mut consume: impl FnMut(&[u8])) -> Result<(), Failure> {
    let mut input = io::stdin().lock();
    let mut piece = vec![0; READ_BYTES];
    loop {
        match input.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => consume(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn wrong_number_of_arguments_is_a_usage_error() {
        let arguments = strings(&["1", "2"]);
        assert!(exactly::<2>(&arguments).is_ok());
        let failure = exactly::<1>(&arguments).expect_err("two arguments, not one");
        assert_eq!(failure.to_string(), "1 argument(s) expected, 2 given");
    }

    #[test]
    fn number_names_the_argument_and_shows_what_was_given() {
        assert_eq!(number::<u64>("WIDTH", "10").ok(), Some(10));
        for text in ["", "ten", "-1", "1.5", "18446744073709551616"] {
            let failure = number::<u64>("WIDTH", text).expect_err(text);
            assert_eq!(failure.to_string(), format!("WIDTH is not a number in range: {text:?}"));
        }
    }
}
