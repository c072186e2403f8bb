//! The command line: which commands there are, and what is common to them.
//!
//! One file per noun. Each holds the raw flags and the commands; what needs checking beyond what clap
//! does is turned into a validated value by one `TryFrom` that reports all problems at once.

mod archive;
mod bench;
mod bundle;
mod completions;
mod coordinator;
mod credit;
mod demo;
#[cfg(feature = "dht")]
mod dht;
mod doctor;
mod job;
mod peer;
mod program;
mod receipt;
mod relay;
mod run;
mod simulate;
mod submit;
mod task;
mod worker;

pub(crate) use credit::credit_head;
pub(crate) use program::{Program, ProgramFlags, Terms};

use std::{ffi::OsString, path::Path, process::ExitCode};

use anyhow::Context;
use clap::{Args, Parser, Subcommand, builder::FalseyValueParser, error::ErrorKind};
use talka_core::limits;

use crate::{
    error::{Code, Failure},
    logging,
    output::{ColorChoice, Mode, Out, OutputClosed},
};

/// Exit code of an error.
const EXIT_ERROR: u8 = 1;
/// Exit code of a command that was written wrongly, as in every shell.
const EXIT_USAGE: u8 = 2;
/// Exit code after Ctrl-C: 128 + SIGINT, as in every shell.
pub(crate) const EXIT_INTERRUPTED: u8 = 130;
/// Exit code when the reader of the output went away: 128 + SIGPIPE.
const EXIT_OUTPUT_CLOSED: u8 = 141;

/// A volunteer computing grid: donate CPU, submit WebAssembly jobs, verify every result.
#[derive(Debug, Parser)]
#[command(
    name = "talka",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Examples:\n  \
        talka coordinator start                          own a grid; prints the ticket to hand out\n  \
        talka worker start --ticket TICKET               donate this machine's spare time\n  \
        talka submit prog.wasm --each data/* -o results  run a program over many inputs\n\n\
        Without --ticket, commands talk to the coordinator that runs on this machine.\n\
        Every flag can be given as a variable: --ticket is TALKA_TICKET, --data-dir is TALKA_DATA_DIR."
)]
struct Cli {
    #[command(flatten)]
    global: GlobalFlags,
    #[command(subcommand)]
    command: Command,
}

/// Flags that every command has.
#[derive(Debug, Clone, Args)]
struct GlobalFlags {
    /// Print JSON: one value, or one per line when it streams.
    #[arg(long, global = true, env = "TALKA_JSON", value_parser = FalseyValueParser::new(), help_heading = "Output")]
    json: bool,
    /// Print bare ids and lines, for scripts.
    #[arg(long, short, global = true, env = "TALKA_QUIET", value_parser = FalseyValueParser::new(), help_heading = "Output")]
    quiet: bool,
    /// When to use colour.
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        env = "TALKA_COLOR",
        help_heading = "Output"
    )]
    color: ColorChoice,
    /// What to log on standard error, as in `info,talka_peer=debug`.
    #[arg(long, global = true, value_name = "FILTER", env = "TALKA_LOG", help_heading = "Output")]
    log: Option<String>,
}

impl GlobalFlags {
    fn mode(&self) -> Mode {
        match (self.json, self.quiet) {
            (true, _) => Mode::Json,
            (false, true) => Mode::Quiet,
            (false, false) => Mode::Text,
        }
    }
}

/// How a command finds its coordinator.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct CoordinatorFlags {
    /// The coordinator's ticket. Default: the coordinator that runs on this machine.
    #[arg(long, value_name = "TICKET", env = "TALKA_TICKET", hide_env_values = true)]
    pub(crate) ticket: Option<String>,
    /// A coordinator's data directory, to use its ticket; this command's own key is kept there too.
    #[arg(long, value_name = "DIR", env = "TALKA_DATA_DIR")]
    pub(crate) data_dir: Option<std::path::PathBuf>,
    /// Relay to use where the coordinator can't be dialed: disabled, or a URL [default: that of the ticket].
    #[arg(long, value_name = "RELAY", env = "TALKA_RELAY")]
    pub(crate) relay: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch a whole grid work on this machine.
    Demo(demo::DemoFlags),
    /// Own jobs: hand them out, check results, record credit.
    #[command(subcommand)]
    Coordinator(coordinator::CoordinatorCommand),
    /// Donate this machine's spare time, and say when and how much.
    #[command(subcommand)]
    Worker(worker::WorkerCommand),
    /// Submit a program and its inputs as a job.
    Submit(Box<submit::SubmitFlags>),
    /// Look at jobs, wait for them, cancel them, fetch their results.
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Look at the tasks of a job.
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// See who works for a coordinator.
    #[command(subcommand)]
    Peer(peer::PeerCommand),
    /// Carry the packets of peers that can't reach each other.
    #[command(subcommand)]
    Relay(relay::RelayCommand),
    /// See who earned what.
    #[command(subcommand)]
    Credit(credit::CreditCommand),
    /// Save, show and check what vouches for one task.
    #[command(subcommand)]
    Receipt(receipt::ReceiptCommand),
    /// Run a task here, exactly as the grid would.
    Run(run::RunFlags),
    /// Check a program before it is submitted.
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    /// Measure what things cost on this machine.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Run whole grids in virtual time: search them for defects.
    Simulate(simulate::SimulateFlags),
    /// Find out what is wrong with this machine's setup.
    Doctor(doctor::DoctorFlags),
    /// Print a completion script for a shell.
    Completions(completions::CompletionsFlags),
}

impl Command {
    /// Servers say what they do; commands only what goes wrong, and that of the connection in their own words.
    fn default_log(&self) -> &'static str {
        match self {
            Self::Coordinator(coordinator::CoordinatorCommand::Start(_))
            | Self::Worker(worker::WorkerCommand::Start(_))
            | Self::Relay(_) => "info,iroh=error,iroh_blobs=error,iroh_relay=error,noq=error",
            _ => "error,iroh=off,noq=off",
        }
    }

    async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        match self {
            Self::Demo(flags) => flags.run(out).await,
            Self::Coordinator(command) => Box::pin(command.run(out)).await,
            Self::Worker(command) => command.run(out).await,
            Self::Submit(flags) => flags.run(out).await,
            Self::Job(command) => command.run(out).await,
            Self::Task(command) => command.run(out).await,
            Self::Peer(command) => command.run(out).await,
            Self::Relay(command) => command.run(out).await,
            Self::Credit(command) => command.run(out).await,
            Self::Receipt(command) => command.run(out).await,
            Self::Run(flags) => flags.run(out).await,
            Self::Bundle(command) => command.run(out),
            Self::Bench(command) => command.run(out).await,
            Self::Simulate(flags) => flags.run(out),
            Self::Doctor(flags) => flags.run(out).await,
            Self::Completions(flags) => flags.run(out),
        }
    }
}

/// Parses the command line, runs the command, and prints what goes wrong.
pub(crate) fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return usage_error(&error, &args),
    };
    let mut out = Out::new(cli.global.mode(), cli.global.color);
    if matches!(cli.command, Command::Run(_)) {
        // Standard output belongs to the program that runs, JSON included.
        out = out.on_stderr();
    }
    match start(cli, out) {
        Ok(code) => code,
        Err(error) if error.is::<OutputClosed>() => ExitCode::from(EXIT_OUTPUT_CLOSED),
        Err(error) => {
            out.error(&error);
            match Failure::code_of(&error) {
                Code::Interrupted => ExitCode::from(EXIT_INTERRUPTED),
                Code::Usage if !out.is_json() => ExitCode::from(EXIT_USAGE),
                _ => ExitCode::from(EXIT_ERROR),
            }
        }
    }
}

fn start(cli: Cli, out: Out) -> anyhow::Result<ExitCode> {
    logging::init(cli.global.log.as_deref(), cli.command.default_log(), out.colors_stderr())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let code = runtime.block_on(cli.command.run(out));
    // A blocked read of standard input must not keep a finished command alive.
    runtime.shutdown_background();
    code
}

/// Help and version are no errors; anything else is, and `--json` wants it as JSON.
fn usage_error(error: &clap::Error, args: &[OsString]) -> ExitCode {
    let is_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    let wants_json = args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json");
    if is_help || !wants_json {
        // Nothing is left to do when the terminal is gone.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE));
    }
    let text = error.render().to_string();
    let text = text.trim_start_matches("error: ").trim();
    Out::new(Mode::Json, ColorChoice::Never).error(&Failure::new(Code::Usage, text).into());
    ExitCode::from(EXIT_ERROR)
}

/// The name of a job when the user gives none: the module's file name without its extension.
fn module_name(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
    let mut name: String = stem.chars().filter(|c| !c.is_control()).collect();
    while name.len() > limits::JOB_NAME_BYTES_MAX {
        name.pop();
    }
    if name.is_empty() { "job".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn each_command(command: &clap::Command, check: &mut impl FnMut(&clap::Command)) {
        check(command);
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            each_command(sub, check);
        }
    }

    /// The commands of a page: lines of its shell blocks that begin with `talka`.
    fn commands(page: &str) -> Vec<String> {
        let mut shell = false;
        let mut found = Vec::new();
        for line in page.lines() {
            if let Some(language) = line.strip_prefix("```") {
                shell = language == "sh";
            } else if shell {
                let code = line.split(" #").next().unwrap_or_default();
                let commands = code.split(';').map(str::trim).filter(|command| command.starts_with("talka "));
                found.extend(
                    commands.map(|command| command.split(" < ").next().unwrap_or_default().to_owned()),
                );
            }
        }
        found
    }

    #[test]
    fn the_documents_name_commands_that_there_are() {
        for (page, text) in [
            ("README.md", include_str!("../../README.md")),
            ("sample-tasks/README.md", include_str!("../../sample-tasks/README.md")),
            ("docs/writing-tasks.md", include_str!("../../docs/writing-tasks.md")),
        ] {
            let commands = commands(text);
            assert!(commands.len() > 2, "{page}");
            for command in commands {
                let parsed = Cli::try_parse_from(command.split_whitespace());
                assert!(
                    parsed.is_ok(),
                    "{page}: {command}: {}",
                    parsed.err().map_or_else(String::new, |e| e.to_string())
                );
            }
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_a_variable() {
        let mut cli = Cli::command();
        cli.build();
        each_command(&cli, &mut |command| {
            for arg in command.get_arguments().filter(|arg| !arg.is_positional()) {
                let name = arg.get_long().unwrap_or_default();
                if matches!(name, "help" | "version") {
                    continue;
                }
                let variable = arg.get_env().unwrap_or_default().to_string_lossy();
                let expected = format!("TALKA_{}", name.replace('-', "_").to_uppercase());
                assert_eq!(variable, expected, "--{name} of {}", command.get_name());
            }
        });
    }

    #[test]
    fn every_command_that_does_something_has_an_example() {
        each_command(&Cli::command(), &mut |command| {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let name = command.get_name();
            // What one of our own processes starts needs none.
            let is_ours = command.is_hide_set();
            assert!(is_ours || command.has_subcommands() || help.contains("talka "), "{name} has no example");
        });
    }

    #[test]
    fn a_job_is_named_after_its_module() {
        assert_eq!(module_name(Path::new("a/tiles.wasm")), "tiles");
        assert_eq!(module_name(Path::new("/")), "job");
        let long = format!("{}.wasm", "ä".repeat(90));
        assert_eq!(module_name(Path::new(&long)), "ä".repeat(50));
    }

    #[test]
    fn submit_takes_many_files_and_arguments_behind_two_dashes() {
        let line = "talka submit x.wasm --each a b --wait --json -o out -- --size {index} -v";
        let cli = Cli::try_parse_from(line.split(' ')).expect("valid");
        assert!(cli.global.json);
        let Command::Submit(flags) = cli.command else { panic!("submit") };
        assert_eq!(flags.each.len(), 2);
        assert_eq!(flags.program.args, ["--size", "{index}", "-v"]);
        assert!(flags.wait);
    }
}
