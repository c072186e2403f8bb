//! `talka credit export`.

use std::{
    io::BufWriter,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;
use talka_core::{
    ids::PeerId,
    ledger::{Head, TreeHash},
    quantities::Timestamp,
};
use talka_peer::identity::Signature;
use talka_proto::wire;
use tempfile::NamedTempFile;

use crate::{
    cli::CoordinatorFlags,
    client::{self, Client},
    ledger_file::{Export, SignedHead},
    output::Out,
};

/// `talka credit export`.
#[derive(Debug, Args)]
pub(crate) struct ExportFlags {
    /// Where the ledger goes. An older file is replaced when the new one is complete.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    coordinator: CoordinatorFlags,
}

#[derive(Debug, Serialize)]
struct ExportView {
    file: PathBuf,
    entries: u64,
    head: String,
    coordinator: String,
}

impl ExportFlags {
    pub(super) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let client = Client::connect(&self.coordinator).await?;
        let signed = save(&client, &self.file).await;
        client.close().await;
        let Head { size, root, coordinator, .. } = signed?.head;
        if out.is_json() {
            out.json(&ExportView {
                file: self.file,
                entries: size,
                head: root.to_string(),
                coordinator: coordinator.to_string(),
            })?;
        } else {
            out.line(format!(
                "{size} entries of coordinator {} in {}",
                coordinator.short(),
                self.file.display()
            ))?;
            out.note(format!("check it with: talka credit verify {}", self.file.display()));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Saves the ledger as it is now.
async fn save(client: &Client, file: &Path) -> anyhow::Result<SignedHead> {
    let head = client::unary(client.ledger().head(wire::HeadRequest {})).await?;
    let signed = signed_head(&head).context("the coordinator sent a head that is none")?;
    if signed.head.coordinator != client.coordinator() {
        bail!("the coordinator sent the head of another one");
    }
    signed.verify()?;
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let doing = || format!("cannot write {}", file.display());
    // Said before a file of no interest to anybody is named.
    std::fs::read_dir(dir).with_context(doing)?;
    let partial = NamedTempFile::new_in(dir).with_context(doing)?;
    let size = signed.head.size;
    let mut export = Export::new(BufWriter::new(partial), &signed).with_context(doing)?;
    let request = wire::EntriesRequest { from: 0, to: size };
    let mut replies = client.ledger().entries(request).await?.into_inner();
    while export.size() < size
        && let Some(reply) = replies.message().await?
    {
        for entry in reply.entries.iter().take(usize::try_from(size - export.size()).unwrap_or(usize::MAX)) {
            export.add(entry).with_context(doing)?;
        }
    }
    if export.size() < size {
        bail!("the coordinator sent {} of {size} entries", export.size());
    }
    let (partial, root) = export.finish().with_context(doing)?;
    if root != signed.head.root {
        bail!("the coordinator sent entries that don't have the root that it signed");
    }
    let partial = partial.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(doing)?;
    partial.as_file().sync_all().with_context(doing)?;
    partial.persist(file).with_context(doing)?;
    Ok(signed)
}

/// A head as it came.
pub(crate) fn signed_head(head: &wire::LedgerHead) -> Option<SignedHead> {
    let signature = Signature::new(head.signature[..].try_into().ok()?);
    let head = Head {
        coordinator: PeerId::try_from(&head.coordinator[..]).ok()?,
        size: head.size,
        root: TreeHash::new(head.root[..].try_into().ok()?),
        at: Timestamp::from_millis(head.at_millis),
    };
    Some(SignedHead { head, signature })
}
