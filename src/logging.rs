//! Logs go to standard error; standard output is for results.

use tracing_subscriber::{EnvFilter, fmt};

use crate::error::{Code, Failure};

/// Starts logging with the user's filter, or the command's default.
pub(crate) fn init(filter: Option<&str>, default: &str, color: bool) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter.unwrap_or(default)).map_err(|error| {
        let help = "write it as info or warn,talka_peer=debug";
        Failure::new(Code::Usage, format!("--log: {error}; {help}"))
    })?;
    fmt().with_env_filter(filter).with_ansi(color).with_writer(std::io::stderr).init();
    Ok(())
}
