//! `talka bundle check`.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;
use talka_core::limits;
use talka_profile::{PROFILE, Problem, Rule};

use crate::{
    error::{Code, Failure, list},
    output::Out,
};

/// Commands about programs.
#[derive(Debug, Subcommand)]
pub(crate) enum BundleCommand {
    /// Name everything in a module that the profile refuses.
    Check(CheckFlags),
}

/// `talka bundle check`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  talka bundle check target/wasm32-wasip1/release/prog.wasm\n\n\
    Exit code: 0 when the module may run, 1 when it breaks a rule or can't be read.")]
pub(crate) struct CheckFlags {
    /// The module.
    #[arg(value_name = "FILE.wasm")]
    file: PathBuf,
}

#[derive(Debug, Serialize)]
struct CheckView {
    ok: bool,
    problems: Vec<ProblemView>,
}

#[derive(Debug, Serialize)]
struct ProblemView {
    rule: &'static str,
    detail: String,
}

impl BundleCommand {
    pub(crate) fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        match self {
            Self::Check(flags) => flags.run(out),
        }
    }
}

impl CheckFlags {
    fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let (_, problems) = read(&self.file)?;
        let ok = problems.is_empty();
        if out.is_json() {
            let view = |problem: Problem| ProblemView { rule: problem.rule.name(), detail: problem.detail };
            out.json(&CheckView { ok, problems: problems.into_iter().map(view).collect() })?;
        } else if ok {
            if !out.is_quiet() {
                out.line(format!("{}: ok, may run under {PROFILE}", self.file.display()))?;
            }
        } else {
            for problem in &problems {
                out.line(problem)?;
            }
            let count = problems.len();
            out.note(format!("{}: {count} problem(s) under {PROFILE}", self.file.display()));
        }
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A module that may run, or an error that lists every problem.
pub(crate) fn load(path: &Path) -> anyhow::Result<Vec<u8>> {
    let (bytes, problems) = read(path)?;
    if problems.is_empty() {
        return Ok(bytes);
    }
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let title = format!("{} can't run on the grid", path.display());
    Err(Failure::new(Code::BundleRefused, list(&title, &problems)).into())
}

/// A file and what keeps it from running. A file above the size limit is not read to its end.
fn read(path: &Path) -> anyhow::Result<(Vec<u8>, Vec<Problem>)> {
    let max = limits::MODULE_BYTES_MAX;
    let doing = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(doing)?;
    let metadata = file.metadata().with_context(doing)?;
    if metadata.is_dir() {
        return Err(Failure::new(Code::Io, format!("{} is a directory", path.display())).into());
    }
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).with_context(doing)?;
    let size = metadata.len().max(bytes.len() as u64);
    let problems = if size > max {
        let remedy = "strip debug information (-s, wasm-strip) and move data into --data files";
        let detail = format!("the file has {size} bytes, the limit is {max}; {remedy}");
        vec![Problem { rule: Rule::ModuleBytes, detail }]
    } else {
        talka_profile::check(&bytes)
    };
    Ok((bytes, problems))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_module_is_named_with_all_its_problems() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("script.wasm");
        std::fs::write(&path, "#!/bin/sh\n").expect("written");
        let error = load(&path).expect_err("no module");
        assert_eq!(Failure::code_of(&error), Code::BundleRefused);
        assert!(error.to_string().contains("script.wasm can't run on the grid: not-wasm: "), "{error}");
    }

    #[test]
    fn the_json_has_the_promised_names() {
        let view = CheckView {
            ok: false,
            problems: vec![ProblemView { rule: Rule::Import.name(), detail: "no such import".to_owned() }],
        };
        let json = serde_json::to_string(&view).expect("json");
        assert_eq!(json, r#"{"ok":false,"problems":[{"rule":"import","detail":"no such import"}]}"#);
    }

    #[test]
    fn a_missing_file_is_an_error_of_its_own() {
        let error = load(Path::new("/nonexistent/x.wasm")).expect_err("missing");
        assert_eq!(Failure::code_of(&error), Code::Io);
        assert!(format!("{error:#}").starts_with("cannot read /nonexistent/x.wasm: "), "{error:#}");
    }
}
