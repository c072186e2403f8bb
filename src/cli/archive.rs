//! `talka coordinator backup`, `restore` and `check`: what is done to the files of a coordinator.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use talka_coordinator_peer::{
    archive::{self, Copied},
    store::sqlite::{self, Check},
};
use talka_core::quantities::Bytes;

use crate::{output::Out, paths};

/// `talka coordinator backup`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  talka coordinator backup /mnt/backups/talka-monday\n\n\
    Works while the coordinator runs and does not hold it up. The copy is checked before it gets its name.\n\
    In it: jobs, results (outputs up to 64 KiB), the ledger, credit, and the coordinator's key, token, ticket and\n\
    port. It holds the key: keep it as safe as the original.\n\
    Programs, input files, datasets and larger outputs (the directory blobs) are copied only while no coordinator\n\
    runs. Jobs that are not finished need them: stop the coordinator for a complete copy, or copy that directory\n\
    to the new place after the coordinator has ended.")]
pub(crate) struct BackupFlags {
    /// Where the copy goes: a directory that does not exist or is empty.
    #[arg(value_name = "DEST")]
    to: PathBuf,
    #[command(flatten)]
    dir: DirFlags,
}

/// `talka coordinator restore`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  talka coordinator restore /mnt/backups/talka-monday --data-dir ~/restored\n  \
    talka coordinator start --data-dir ~/restored\n\n\
    Overwrites nothing, and refuses a place where a coordinator runs. The coordinator has the same name as before:\n\
    never run both. What happened after the copy was made is gone."
)]
pub(crate) struct RestoreFlags {
    /// A directory that `talka coordinator backup` made.
    #[arg(value_name = "SRC")]
    from: PathBuf,
    #[command(flatten)]
    dir: DirFlags,
}

/// `talka coordinator check`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  talka coordinator check --json | jq .problems\n\n\
    Reads everything: pages, indexes, the positions of each job, and whether the credit of every peer is the sum of\n\
    what was granted. Works while the coordinator runs.\n\
    Exit code: 0 when the store is sound, 1 when not.")]
pub(crate) struct CheckFlags {
    #[command(flatten)]
    dir: DirFlags,
}

/// Whose files.
#[derive(Debug, Args)]
struct DirFlags {
    /// The coordinator's data directory [default: ~/.local/share/talka/coordinator].
    #[arg(long, value_name = "DIR", env = "TALKA_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct CopyView {
    directory: PathBuf,
    store_bytes: u64,
    blobs: bool,
    #[serde(flatten)]
    store: StoreView,
}

#[derive(Debug, Serialize)]
struct StoreView {
    schema: u32,
    epoch: u64,
    batches: u64,
    jobs: u64,
    finals: u64,
    grants: u64,
}

#[derive(Debug, Serialize)]
struct CheckView {
    ok: bool,
    problems: Vec<String>,
    #[serde(flatten)]
    store: StoreView,
}

impl BackupFlags {
    pub(crate) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let dir = self.dir.resolve()?;
        let to = self.to.clone();
        let copied = blocking(move || Ok(archive::backup(&dir, &to)?)).await?;
        if !copied.with_blobs && !out.is_quiet() {
            out.note(
                "the coordinator runs: programs, input files and outputs above 64 KiB are not in the copy \
                 (see --help)",
            );
        }
        print_copy(out, &self.to, &copied, "backup")
    }
}

impl RestoreFlags {
    pub(crate) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let dir = self.dir.resolve()?;
        let to = dir.clone();
        let copied = blocking(move || Ok(archive::restore(&self.from, &dir)?)).await?;
        if !copied.with_blobs && !out.is_quiet() {
            out.note(format!(
                "there are no programs and input files in this copy: if jobs are to go on, put the directory blobs of \
                 the old coordinator into {}",
                to.display()
            ));
        }
        print_copy(out, &to, &copied, "restored")
    }
}

impl CheckFlags {
    pub(crate) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let dir = self.dir.resolve()?;
        let shown = dir.join(sqlite::FILE).display().to_string();
        let check = blocking(move || Ok(sqlite::check(&dir)?)).await;
        let check = check.with_context(|| format!("can't check {shown}"))?;
        let ok = check.problems.is_empty();
        if out.is_json() {
            out.json(&CheckView { ok, problems: check.problems.clone(), store: check.into() })?;
        } else {
            for problem in &check.problems {
                out.line(problem)?;
            }
            if ok && !out.is_quiet() {
                let finals = check.audit.finals;
                out.line(format!(
                    "{shown} is sound: {} jobs, {finals} final tasks, credit adds up",
                    check.jobs
                ))?;
            } else if !ok {
                out.warn("the store is damaged: restore a backup (talka coordinator restore)");
            }
        }
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl DirFlags {
    fn resolve(&self) -> anyhow::Result<PathBuf> {
        Ok(paths::data_dir(self.data_dir.clone(), "coordinator")?)
    }
}

impl From<Check> for StoreView {
    fn from(check: Check) -> Self {
        let Check { schema, epoch, last_seq, jobs, audit, .. } = check;
        Self { schema, epoch, batches: last_seq, jobs, finals: audit.finals, grants: audit.grants }
    }
}

fn print_copy(out: Out, dir: &std::path::Path, copied: &Copied, what: &str) -> anyhow::Result<ExitCode> {
    let (store_bytes, blobs) = (copied.store_bytes, copied.with_blobs);
    if out.is_json() {
        let store = copied.check.clone().into();
        out.json(&CopyView { directory: dir.to_owned(), store_bytes, blobs, store })?;
    } else if out.is_quiet() {
        out.line(dir.display())?;
    } else {
        let (jobs, finals) = (copied.check.jobs, copied.check.audit.finals);
        let blobs = if blobs { "with blobs" } else { "without blobs" };
        let size = Bytes::new(store_bytes);
        out.line(format!(
            "{what}: {} ({size}, {blobs}): {jobs} jobs, {finals} final tasks, credit adds up",
            dir.display()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Copying and checking wait for disks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("the work did not end")?
}
