//! One peer process, from outside.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines, Take},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{BlobText, Order, PeerText, Word};

/// What a peer may say: a few short lines.
const STDOUT_BYTES_MAX: u64 = 64 << 10;
/// Time for a peer to end.
const END_MAX: Duration = Duration::from_secs(20);

/// What a peer process is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// It makes a blob of so many bytes.
    Source(u64),
    /// It fetches.
    Fetches,
    /// It sends wrong bytes of a blob of this size.
    Poisoner(u64),
}

/// What a peer process did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    /// Bytes that it sent.
    pub(super) served: u64,
    /// Bytes that it took.
    pub(super) fetched: u64,
    /// Its processor time.
    pub(super) cpu_secs: f64,
}

/// It ends at the end of its standard input, whatever happens to this process.
pub(super) struct PeerProcess {
    child: Child,
    input: ChildStdin,
    words: Lines<BufReader<Take<ChildStdout>>>,
}

impl PeerProcess {
    pub(super) fn start(
        exe: &Path,
        (uplink, downlink): (Option<u64>, Option<u64>),
        part: Part,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(exe);
        command.args(["--json", "bench", "swarm-peer"]);
        if let Some(uplink) = uplink {
            command.args(["--upload-limit", &uplink.to_string()]);
        }
        if let Some(downlink) = downlink {
            command.args(["--download-limit", &downlink.to_string()]);
        }
        match part {
            Part::Source(bytes) => drop(command.args(["--seed-blob", &bytes.to_string()])),
            Part::Poisoner(bytes) => drop(command.args(["--poison", &bytes.to_string()])),
            Part::Fetches => {}
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start a peer process")?;
        let input = child.stdin.take().context("it has no standard input")?;
        let output = child.stdout.take().context("it has no standard output")?;
        Ok(Self { child, input, words: BufReader::new(output.take(STDOUT_BYTES_MAX)).lines() })
    }

    pub(super) async fn tell(&mut self, order: &Order) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.input.write_all(&line).await.context("a peer process does not listen")?;
        Ok(self.input.flush().await?)
    }

    async fn word(&mut self) -> anyhow::Result<Word> {
        let line = self.words.next_line().await?.context("a peer process ended early")?;
        serde_json::from_str(&line).with_context(|| format!("a peer process said: {line}"))
    }

    pub(super) async fn ready(&mut self) -> anyhow::Result<(PeerText, Option<BlobText>)> {
        match self.word().await? {
            Word::Ready { peer, blob } => Ok((peer, blob)),
            other => bail!("a peer process said {other:?} instead of being ready"),
        }
    }

    pub(super) async fn fetched(&mut self) -> anyhow::Result<()> {
        match self.word().await? {
            Word::Fetched => Ok(()),
            other => bail!("a peer process said {other:?} instead of having fetched"),
        }
    }

    /// Lets it compare what it fetched with what was made: wrong bytes, and whom it has banned.
    pub(super) async fn check(&mut self) -> anyhow::Result<(u64, Vec<String>)> {
        self.tell(&Order::Check).await?;
        match self.word().await? {
            Word::Checked { wrong_bytes, banned } => Ok((wrong_bytes, banned)),
            other => bail!("a peer process said {other:?} instead of having checked"),
        }
    }

    /// Ends it.
    pub(super) async fn end(self) -> anyhow::Result<Ended> {
        let Self { mut child, input, mut words } = self;
        drop(input);
        let line =
            tokio::time::timeout(END_MAX, words.next_line()).await.context("a peer does not end")??;
        let line = line.context("a peer process ended without a word")?;
        let Word::Ended { served, fetched, cpu_secs } = serde_json::from_str(&line)? else {
            bail!("a peer process said {line} instead of ending");
        };
        tokio::time::timeout(END_MAX, child.wait()).await.context("a peer does not end")??;
        Ok(Ended { served, fetched, cpu_secs })
    }
}
