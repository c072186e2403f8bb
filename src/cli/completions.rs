//! `talka completions SHELL`.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use crate::output::Out;

/// Prints a completion script.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  talka completions bash > ~/.local/share/bash-completion/completions/talka"
)]
pub(crate) struct CompletionsFlags {
    /// Which shell.
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

impl CompletionsFlags {
    pub(crate) fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "talka", &mut script);
        if out.is_json() {
            let script = String::from_utf8_lossy(&script);
            out.json(&serde_json::json!({ "shell": self.shell.to_string(), "script": script }))?;
        } else {
            out.bytes(&script)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
