//! `talka credit prove`.

use std::{fs::File, io::BufReader, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;
use talka_core::ledger::{TreeHash, verify_consistency};
use talka_proto::wire;

use super::export::signed_head;
use crate::{
    cli::CoordinatorFlags,
    client::{self, Client},
    ledger_file::{Import, SignedHead},
    output::Out,
};

/// `talka credit prove`.
#[derive(Debug, Args)]
pub(crate) struct ProveFlags {
    /// A ledger that was exported earlier. Only its head is read.
    #[arg(value_name = "OLD")]
    old: PathBuf,
    #[command(flatten)]
    coordinator: CoordinatorFlags,
}

#[derive(Debug, Serialize)]
struct ProveView {
    ok: bool,
    old_entries: u64,
    entries: u64,
    head: String,
    /// Hashes that it took.
    proof: usize,
}

impl ProveFlags {
    pub(super) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let doing = || format!("cannot read {}", self.old.display());
        let file = BufReader::new(File::open(&self.old).with_context(doing)?);
        let old = *Import::new(file).with_context(doing)?.head();
        let client = Client::connect(&self.coordinator).await?;
        let answer = ask(&client, old.size).await;
        client.close().await;
        let (SignedHead { head, .. }, path) = answer?;
        if head.coordinator != old.coordinator {
            bail!("{} is of coordinator {}, not of this one", self.old.display(), old.coordinator.short());
        }
        let ok = verify_consistency((old.size, old.root), (head.size, head.root), &path).is_ok();
        let (old_entries, entries) = (old.size, head.size);
        if out.is_json() {
            out.json(&ProveView {
                ok,
                old_entries,
                entries,
                head: head.root.to_string(),
                proof: path.len(),
            })?;
        } else if ok {
            out.line(format!(
                "the ledger of now, {entries} entries, begins with the {old_entries} of {}: nothing of it was changed",
                self.old.display()
            ))?;
        } else {
            out.line(format!(
                "the ledger of now does not begin with {}: keep that file, and the ledger of now (talka credit export); \
                 their two signed heads convict the coordinator",
                self.old.display()
            ))?;
        }
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The head of now, checked, and the proof that it extends an older one; none when it is shorter.
async fn ask(client: &Client, old_size: u64) -> anyhow::Result<(SignedHead, Vec<TreeHash>)> {
    let head = client::unary(client.ledger().head(wire::HeadRequest {})).await?;
    let signed = signed_head(&head).context("the coordinator sent a head that is none")?;
    if signed.head.coordinator != client.coordinator() {
        bail!("the coordinator sent the head of another one");
    }
    signed.verify()?;
    let size = signed.head.size;
    if old_size > size {
        return Ok((signed, vec![]));
    }
    let reply = client::unary(client.ledger().prove(wire::ProveRequest { old_size, size })).await?;
    let hash = |bytes: &bytes::Bytes| Some(TreeHash::new(bytes[..].try_into().ok()?));
    let path = reply.path.iter().map(hash).collect::<Option<Vec<_>>>();
    Ok((signed, path.context("the coordinator sent a proof that is none")?))
}
