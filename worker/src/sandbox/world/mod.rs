//! All that a program can see, as plain Rust: files, descriptors, clock, chance.
//!
//! A [`World`] is made from the job and the task alone and touches nothing of the machine, so the same
//! requests in the same order have the same answers everywhere. It knows neither WebAssembly nor its
//! engine: the module [`wasi`](super::wasi) translates calls of the program into the methods here.
//!
//! Each method notes how many bytes it moved ([`World::take_work`]), so that its caller can charge for it.

mod clock;
mod errno;
mod files;
mod paths;
mod random;
mod snapshot;
mod tree;

#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use talka_core::{limits, outcome::Output};

use self::{
    clock::Clock,
    files::{Descriptor, Handle},
    random::Random,
    tree::{NodeId, ROOT, Tree},
};
pub(crate) use self::{
    clock::{ClockId, TICK_NANOS},
    errno::{Answer, Errno, Fault},
    files::{FdStat, OpenFlags, Whence},
    paths::OpenHow,
    snapshot::{Snapshot, VERSION as SNAPSHOT_VERSION},
};

/// The number of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fd(pub(crate) u32);

impl Fd {
    fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// What kind of thing has a path or a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// Standard input, output and error. Not a terminal, so that no C library buffers by line.
    Stream,
    /// A directory.
    Directory,
    /// A file.
    File,
}

/// What is known about a file. Times are 0 and nothing has a second link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) inode: u64,
    pub(crate) kind: FileKind,
    pub(crate) size: u64,
}

/// What a world is made from.
#[derive(Debug, Default, Clone)]
pub(crate) struct Setting<'a> {
    /// Arguments, `argv[0]` included.
    pub(crate) args: Vec<String>,
    /// Environment, in the order in which the program sees it.
    pub(crate) env: Vec<(String, String)>,
    /// Standard input.
    pub(crate) stdin: Bytes,
    /// Files under `/data`, by name.
    pub(crate) datasets: &'a [(String, Bytes)],
    /// Seed of the random stream.
    pub(crate) seed: u64,
    /// The task's index, the other half of that seed.
    pub(crate) index: u64,
    /// Start of the clock, seconds since the Unix epoch.
    pub(crate) clock_secs: u64,
    /// Most bytes of standard output and `/out` together.
    pub(crate) output_bytes: u64,
}

/// The world of one execution.
#[derive(Debug)]
pub(crate) struct World {
    args: Vec<String>,
    env: Vec<(String, String)>,
    clock: Clock,
    random: Random,
    tree: Tree,
    fds: Vec<Option<Descriptor>>,
    stdin: Bytes,
    stdin_read: usize,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    progress: Option<f64>,
    work: u64,
    /// Whether the moment of a checkpoint has come since that was last asked.
    marked: bool,
}

impl World {
    /// The world in which a program starts.
    ///
    /// # Errors
    ///
    /// When the datasets don't fit their limits.
    pub(crate) fn new(setting: Setting<'_>) -> Answer<Self> {
        let tree = Tree::new(setting.output_bytes, setting.datasets)?;
        let mut world = Self {
            args: setting.args,
            env: setting.env,
            clock: Clock::new(setting.clock_secs),
            random: Random::new(setting.seed, setting.index),
            tree,
            fds: Vec::with_capacity(8),
            stdin: setting.stdin,
            stdin_read: 0,
            stdout: Vec::new(),
            stderr: Vec::new(),
            progress: None,
            work: 0,
            marked: false,
        };
        let none = OpenFlags::NONE;
        world.open_descriptor(Descriptor::new(Handle::Stdin, true, false, none))?;
        world.open_descriptor(Descriptor::new(Handle::Stdout, false, true, none))?;
        world.open_descriptor(Descriptor::new(Handle::Stderr, false, true, none))?;
        world.open_descriptor(Descriptor::preopened(Handle::Node(ROOT)))?;
        Ok(world)
    }

    /// Takes what the program wrote.
    pub(crate) fn finish(mut self) -> Output {
        let files = self.tree.take_files("out");
        Output { stdout: self.stdout, files, stderr: self.stderr }
    }

    /// Whether the moment of a checkpoint has come since this was last asked.
    pub(crate) fn take_mark(&mut self) -> bool {
        std::mem::take(&mut self.marked)
    }

    /// Arguments, `argv[0]` included.
    pub(crate) fn args(&self) -> &[String] {
        &self.args
    }

    /// Environment.
    pub(crate) fn env(&self) -> &[(String, String)] {
        &self.env
    }

    /// How far the program says that it is, 0 to 1.
    pub(crate) fn progress(&self) -> Option<f64> {
        self.progress
    }

    /// Bytes moved since this was last asked.
    pub(crate) fn take_work(&mut self) -> u64 {
        std::mem::take(&mut self.work)
    }

    /// Notes that `bytes` were moved.
    pub(crate) fn spend(&mut self, bytes: u64) {
        self.work = self.work.saturating_add(bytes);
    }

    /// Looks at a clock, which moves it.
    pub(crate) fn clock_read(&mut self, id: ClockId) -> u64 {
        self.clock.read(id)
    }

    /// Time from now to a moment, without moving the clock.
    pub(crate) fn clock_until(&self, id: ClockId, at: u64) -> Duration {
        self.clock.until(id, at)
    }

    /// Moves the clock ahead.
    pub(crate) fn sleep(&mut self, time: Duration) -> Answer<()> {
        self.clock.sleep(time)
    }

    /// Draws from the task's random stream.
    pub(crate) fn random_fill(&mut self, buffer: &mut [u8]) {
        self.spend(buffer.len() as u64);
        self.random.fill(buffer);
    }

    fn kind(&self, node: NodeId) -> Answer<FileKind> {
        Ok(if self.tree.get(node)?.is_dir() { FileKind::Directory } else { FileKind::File })
    }

    fn stat_node(&self, node: NodeId) -> Answer<Stat> {
        let found = self.tree.get(node)?;
        Ok(Stat { inode: found.inode, kind: self.kind(node)?, size: found.size() })
    }

    /// The last number in what was written to `/progress` counts; anything else is passed over.
    fn note_progress(&mut self, data: &[u8]) {
        let tail = &data[data.len().saturating_sub(PROGRESS_BYTES_MAX)..];
        let word = tail.split(u8::is_ascii_whitespace).rfind(|word| !word.is_empty());
        let number = word.and_then(|word| std::str::from_utf8(word).ok()?.parse::<f64>().ok());
        if let Some(number) = number.filter(|number| number.is_finite()) {
            self.progress = Some(number.clamp(0.0, 1.0));
        }
    }
}

/// Most bytes of one write to `/progress` that are looked at.
const PROGRESS_BYTES_MAX: usize = 64;

const _: () = assert!(limits::TASK_OPEN_FILES_MAX > 4, "the first descriptors are always open");
