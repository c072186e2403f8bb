//! A world at the moment of a checkpoint, and how another one goes on from there.
//!
//! ```text
//! head: length (4 bytes, little endian), `postcard` | standard output | standard error | files of /out | of /checkpoint
//! ```
//!
//! The program itself is not in it: it begins anew, finds its files under `/checkpoint`, and goes on from what it reads
//! there. Clock, chance and everything that it wrote are as they were, so that it writes what it would have written without
//! the interruption. Whoever reads a snapshot treats it as hostile: it comes from the disk.

use serde::{Deserialize, Serialize};
use talka_core::{job::is_file_name, limits, quantities::Fuel};

use super::{Answer, World, tree::TreeEntry};

/// Raised whenever the meaning of a snapshot changes.
pub(crate) const VERSION: u32 = 1;

/// What a world has to be told to go on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Snapshot {
    /// Used so far.
    pub(crate) fuel: Fuel,
    moments: Moments,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    out: Vec<TreeEntry>,
    checkpoint: Vec<TreeEntry>,
}

/// Where clock and chance are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Moments {
    /// Nanoseconds.
    elapsed: u64,
    /// Nanoseconds.
    slept: u64,
    /// Bytes.
    drawn: u64,
    /// 0 to 1.
    progress: Option<f64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    version: u32,
    fuel: Fuel,
    moments: Moments,
    stdout_bytes: u64,
    stderr_bytes: u64,
    out: Vec<HeadEntry>,
    checkpoint: Vec<HeadEntry>,
}

/// A path below its part of the tree, and the size of the file; none for a directory.
type HeadEntry = (String, Option<u64>);

impl World {
    /// About how large a snapshot would be now, names and numbers left out.
    pub(crate) fn snapshot_bytes(&self) -> u64 {
        let written = (self.stdout.len() + self.stderr.len()) as u64;
        written + self.tree.bytes_below("out") + self.tree.bytes_below("checkpoint")
    }

    /// This world, with the fuel that was used in it. `None` when it is larger than a checkpoint may be.
    pub(crate) fn snapshot(&self, fuel: Fuel) -> Option<Vec<u8>> {
        if self.snapshot_bytes() > limits::TASK_CHECKPOINT_BYTES_MAX {
            return None;
        }
        let (elapsed, slept) = self.clock.position();
        let moments = Moments { elapsed, slept, drawn: self.random.position(), progress: self.progress };
        let (out, checkpoint) = (self.tree.below("out"), self.tree.below("checkpoint"));
        let entry =
            |(path, data): &(String, Option<&[u8]>)| (path.clone(), data.map(|data| data.len() as u64));
        let head = Head {
            version: VERSION,
            fuel,
            moments,
            stdout_bytes: self.stdout.len() as u64,
            stderr_bytes: self.stderr.len() as u64,
            out: out.iter().map(entry).collect(),
            checkpoint: checkpoint.iter().map(entry).collect(),
        };
        let head = postcard::to_stdvec(&head).ok()?;
        let mut bytes = u32::try_from(head.len()).ok()?.to_le_bytes().to_vec();
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&self.stdout);
        bytes.extend_from_slice(&self.stderr);
        for (_, data) in out.iter().chain(&checkpoint) {
            bytes.extend_from_slice(data.unwrap_or_default());
        }
        (bytes.len() as u64 <= limits::TASK_CHECKPOINT_BYTES_MAX).then_some(bytes)
    }

    /// Makes this world, in which nothing has happened yet, the one of the snapshot. After an error it is neither.
    pub(crate) fn restore(&mut self, snapshot: Snapshot) -> Answer<()> {
        let Snapshot { moments, stdout, stderr, out, checkpoint, .. } = snapshot;
        self.tree.out.take_bytes(stdout.len() as u64)?;
        self.tree.restore("out", out)?;
        self.tree.restore("checkpoint", checkpoint)?;
        self.clock.set_position(moments.elapsed, moments.slept)?;
        self.random.set_position(moments.drawn);
        self.progress = moments.progress.filter(|progress| (0.0..=1.0).contains(progress));
        (self.stdout, self.stderr) = (stdout, stderr);
        self.stderr.truncate(limits::TASK_STDERR_BYTES_MAX);
        Ok(())
    }
}

impl Snapshot {
    /// Takes a snapshot apart; `None` when no world wrote it.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (head, body) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        let (head, []) = postcard::take_from_bytes::<Head>(head).ok()? else { return None };
        if head.version != VERSION {
            return None;
        }
        let mut body = Body(body);
        let (stdout, stderr) = (body.take(head.stdout_bytes)?, body.take(head.stderr_bytes)?);
        let (out, checkpoint) = (body.entries(head.out)?, body.entries(head.checkpoint)?);
        let Head { fuel, moments, .. } = head;
        body.0.is_empty().then_some(Self { fuel, moments, stdout, stderr, out, checkpoint })
    }
}

/// What is left of the bytes behind the head.
struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn take(&mut self, count: u64) -> Option<Vec<u8>> {
        let (front, back) = self.0.split_at_checked(usize::try_from(count).ok()?)?;
        self.0 = back;
        Some(front.to_vec())
    }

    fn entries(&mut self, entries: Vec<HeadEntry>) -> Option<Vec<TreeEntry>> {
        let entry = |(path, bytes): HeadEntry| {
            let is_path = path.len() <= limits::TASK_FILE_NAME_BYTES_MAX && path.split('/').all(is_file_name);
            let data = match bytes {
                Some(bytes) => Some(self.take(bytes)?),
                None => None,
            };
            is_path.then_some(TreeEntry { path, data })
        };
        entries.into_iter().map(entry).collect()
    }
}
