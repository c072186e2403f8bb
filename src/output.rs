//! The one place that prints.
//!
//! Results go to standard output: for people, as JSON (one value per line, nothing else), or bare lines
//! under `--quiet`. Everything that is *about* the work (notes, progress, hints) goes to standard error and
//! only in the mode for people, so that `talka … --json | jq` never meets a stray line.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use comfy_table::{Cell, Color, Table, presets};
use serde::Serialize;

use crate::error::Failure;

/// Who reads the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A person.
    Text,
    /// A program: JSON only.
    Json,
    /// A shell script: bare ids and lines.
    Quiet,
}

/// When to use colour.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The reader of standard output went away, as `head` does. Not worth a message.
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
pub(crate) struct OutputClosed;

/// Prints in the mode that the user asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    mode: Mode,
    /// JSON goes to standard error, because standard output belongs to somebody else.
    json_on_stderr: bool,
    color_stdout: bool,
    color_stderr: bool,
}

impl Out {
    pub(crate) fn new(mode: Mode, color: ColorChoice) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let on = |terminal: bool| match color {
            ColorChoice::Auto => terminal && !plain,
            ColorChoice::Always => true,
            ColorChoice::Never => false,
        };
        Self {
            mode,
            json_on_stderr: false,
            color_stdout: on(io::stdout().is_terminal()),
            color_stderr: on(io::stderr().is_terminal()),
        }
    }

    /// The same, for a command whose standard output is not its own.
    pub(crate) fn on_stderr(self) -> Self {
        Self { json_on_stderr: true, ..self }
    }

    pub(crate) fn is_json(self) -> bool {
        self.mode == Mode::Json
    }

    pub(crate) fn is_quiet(self) -> bool {
        self.mode == Mode::Quiet
    }

    pub(crate) fn colors_stdout(self) -> bool {
        self.color_stdout
    }

    pub(crate) fn colors_stderr(self) -> bool {
        self.color_stderr
    }

    /// Whether moving bars and live lines make sense.
    pub(crate) fn is_live(self) -> bool {
        self.mode == Mode::Text && io::stderr().is_terminal()
    }

    /// One line of result.
    pub(crate) fn line(self, line: impl Display) -> anyhow::Result<()> {
        self.bytes(format!("{line}\n").as_bytes())
    }

    /// Raw bytes of result.
    #[expect(clippy::unused_self, reason = "all that prints is a method of the printer")]
    pub(crate) fn bytes(self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => OutputClosed.into(),
            _ => anyhow::Error::from(error).context("cannot write to standard output"),
        })
    }

    /// One JSON value on a line of its own.
    pub(crate) fn json(self, value: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string(value)?;
        if self.json_on_stderr {
            self.remark(text);
            return Ok(());
        }
        self.line(text)
    }

    /// Raw bytes on standard error: the log of a program that runs here.
    #[expect(clippy::unused_self, reason = "all that prints is a method of the printer")]
    pub(crate) fn stderr_bytes(self, bytes: &[u8]) {
        // A closed standard error must not end the work that is being reported on.
        let _ = io::stderr().lock().write_all(bytes);
    }

    /// A table; in quiet mode the first column only, without its title.
    pub(crate) fn table<const N: usize>(
        self,
        titles: [&str; N],
        rows: impl IntoIterator<Item = [String; N]>,
    ) -> anyhow::Result<()> {
        if self.is_quiet() {
            return rows.into_iter().try_for_each(|row| self.line(&row[0]));
        }
        let mut table = Table::new();
        table.load_style(presets::ASCII_FULL_CONDENSED).set_header(titles);
        if self.color_stdout {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        for row in rows {
            table.add_row(row.map(|text| {
                let color = state_color(&text);
                let cell = Cell::new(text);
                match color {
                    Some(color) if self.color_stdout => cell.fg(color),
                    _ => cell,
                }
            }));
        }
        self.line(table)
    }

    /// Names and values, one per line, the values below each other. Empty values are left out.
    pub(crate) fn fields(
        self,
        fields: impl IntoIterator<Item = (&'static str, String)>,
    ) -> anyhow::Result<()> {
        let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
        let lines: Vec<String> =
            fields.map(|(name, value)| format!("{name:<12} {}", printable(&value))).collect();
        self.line(lines.join("\n"))
    }

    /// A remark for the person at the terminal.
    pub(crate) fn note(self, note: impl Display) {
        if self.mode == Mode::Text {
            self.remark(note);
        }
    }

    /// Something that matters in every mode: a reconnection, a file that could not be kept.
    pub(crate) fn warn(self, warning: impl Display) {
        let label = if self.color_stderr { "\x1b[33mwarning:\x1b[0m" } else { "warning:" };
        self.remark(format!("{label} {warning}"));
    }

    /// One line on standard error in whatever mode.
    #[expect(clippy::unused_self, reason = "all that prints is a method of the printer")]
    pub(crate) fn remark(self, line: impl Display) {
        // A closed standard error must not end the work that is being reported on.
        let _ = writeln!(io::stderr().lock(), "{line}");
    }

    /// The error that ends the program.
    pub(crate) fn error(self, error: &anyhow::Error) {
        if self.is_json() {
            // The value that a parser waits for; if nobody reads it, nothing is left to say.
            let _ = self.json(&error_value(error));
            return;
        }
        let label = if self.color_stderr { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
        self.remark(format!("{label} {}", printable(&format!("{error:#}"))));
    }
}

/// `{"error": {"code", "message"}}`.
pub(crate) fn error_value(error: &anyhow::Error) -> serde_json::Value {
    let code = Failure::code_of(error).name();
    serde_json::json!({ "error": { "code": code, "message": format!("{error:#}") } })
}

/// Text from a guest or a peer, without what would move a terminal's cursor.
pub(crate) fn printable(text: &str) -> String {
    let keep = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars().map(|c| if keep(c) { c } else { '\u{fffd}' }).collect()
}

fn state_color(text: &str) -> Option<Color> {
    match text {
        "done" | "finished" | "connected" | "ok" => Some(Color::Green),
        "failed" | "fail" | "trap" | "limit" => Some(Color::Red),
        "running" | "validating" => Some(Color::Cyan),
        "cancelled" | "away" | "warn" => Some(Color::Yellow),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn an_error_is_one_json_value_with_the_whole_chain() {
        let error = anyhow::Error::from(Failure::new(Code::NotFound, "no job 9")).context("job info");
        let value = error_value(&error);
        assert_eq!(value["error"]["code"], "not-found");
        assert_eq!(value["error"]["message"], "job info: no job 9");
    }

    #[test]
    fn escape_sequences_of_a_guest_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\r\n\tc"), "a\u{fffd}[2Jb\u{fffd}\n\tc");
    }
}
