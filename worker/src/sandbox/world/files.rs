//! Requests about open files.

use std::sync::Arc;

use talka_core::{limits, outcome::Limit};

use super::{
    Fd, FileKind, Stat, World,
    errno::{Answer, Errno, Fault},
    tree::{Area, NodeId},
};

/// What a descriptor stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handle {
    Stdin,
    Stdout,
    Stderr,
    Node(NodeId),
}

/// Flags of an open file, by their bits in WASI. Only `APPEND` means something here: there is nothing to
/// wait for and nothing to sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenFlags(u16);

impl OpenFlags {
    /// No flag.
    pub(crate) const NONE: Self = Self(0);
    const APPEND: u16 = 1;
    const ALL: u16 = 0b1_1111;

    /// The raw bits.
    pub(crate) fn bits(self) -> u16 {
        self.0
    }

    fn appends(self) -> bool {
        self.0 & Self::APPEND != 0
    }
}

impl TryFrom<u32> for OpenFlags {
    type Error = Errno;

    fn try_from(bits: u32) -> Result<Self, Errno> {
        match u16::try_from(bits) {
            Ok(bits) if bits & !Self::ALL == 0 => Ok(Self(bits)),
            _ => Err(Errno::Inval),
        }
    }
}

/// One entry of a listing.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: Arc<str>,
    pub(crate) inode: u64,
    pub(crate) kind: FileKind,
}

/// An open file.
#[derive(Debug)]
pub(super) struct Descriptor {
    pub(super) handle: Handle,
    position: u64,
    read: bool,
    write: bool,
    flags: OpenFlags,
    preopen: bool,
    /// The directory as it was when its first entry was read, so that a program may remove files while
    /// it walks through them.
    listing: Option<Arc<[Entry]>>,
}

impl Descriptor {
    pub(super) fn new(handle: Handle, read: bool, write: bool, flags: OpenFlags) -> Self {
        Self { handle, position: 0, read, write, flags, preopen: false, listing: None }
    }

    pub(super) fn preopened(handle: Handle) -> Self {
        Self { preopen: true, ..Self::new(handle, true, false, OpenFlags::NONE) }
    }
}

/// What finding and naming one file is worth, in bytes moved.
pub(super) const ENTRY_WORK_BYTES: u64 = 64;

/// Where a seek starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whence {
    Start,
    Current,
    End,
}

/// What a program may ask about a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FdStat {
    pub(crate) kind: FileKind,
    pub(crate) flags: OpenFlags,
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl World {
    /// Closes a descriptor.
    pub(crate) fn fd_close(&mut self, fd: Fd) -> Answer<()> {
        let slot = self.fds.get_mut(fd.index()).ok_or(Errno::Badf)?;
        let closed = slot.take().ok_or(Errno::Badf)?;
        self.released(&closed);
        Ok(())
    }

    /// Closes `to` and moves `from` to its number.
    pub(crate) fn fd_renumber(&mut self, from: Fd, to: Fd) -> Answer<()> {
        self.descriptor(from)?;
        self.descriptor(to)?;
        if from != to {
            let moved = self.fds[from.index()].take();
            if let Some(closed) = std::mem::replace(&mut self.fds[to.index()], moved) {
                self.released(&closed);
            }
        }
        Ok(())
    }

    /// Whether the descriptor is the preopened root.
    pub(crate) fn is_preopen(&self, fd: Fd) -> Answer<bool> {
        Ok(self.descriptor(fd)?.preopen)
    }

    /// What kind of descriptor it is.
    pub(crate) fn fd_fdstat(&self, fd: Fd) -> Answer<FdStat> {
        let Descriptor { handle, flags, read, write, .. } = *self.descriptor(fd)?;
        let kind = match handle {
            Handle::Node(node) => self.kind(node)?,
            Handle::Stdin | Handle::Stdout | Handle::Stderr => FileKind::Stream,
        };
        Ok(FdStat { kind, flags, read, write })
    }

    /// Replaces the flags.
    pub(crate) fn fd_set_flags(&mut self, fd: Fd, flags: OpenFlags) -> Answer<()> {
        self.descriptor_mut(fd)?.flags = flags;
        Ok(())
    }

    /// What is known about an open file.
    pub(crate) fn fd_stat(&self, fd: Fd) -> Answer<Stat> {
        match self.descriptor(fd)?.handle {
            Handle::Node(node) => self.stat_node(node),
            Handle::Stdin | Handle::Stdout | Handle::Stderr => {
                Ok(Stat { inode: 0, kind: FileKind::Stream, size: 0 })
            }
        }
    }

    /// Bytes that a read from here on would still give; 0 for what can only be written.
    pub(crate) fn fd_readable_bytes(&self, fd: Fd) -> Answer<u64> {
        let descriptor = self.descriptor(fd)?;
        Ok(match descriptor.handle {
            Handle::Stdin => (self.stdin.len() - self.stdin_read) as u64,
            Handle::Node(node) => self.tree.get(node)?.size().saturating_sub(descriptor.position),
            Handle::Stdout | Handle::Stderr => 0,
        })
    }

    /// Reads at the position and moves it.
    pub(crate) fn fd_read(&mut self, fd: Fd, buffer: &mut [u8]) -> Answer<usize> {
        let descriptor = self.readable(fd)?;
        let read = match descriptor.handle {
            Handle::Stdin => {
                let read = copy_from(&self.stdin[self.stdin_read..], 0, buffer);
                self.stdin_read += read;
                read
            }
            Handle::Node(node) => {
                let read = copy_from(self.tree.bytes(node)?, descriptor.position, buffer);
                self.descriptor_mut(fd)?.position += read as u64;
                read
            }
            Handle::Stdout | Handle::Stderr => return Err(Errno::Badf.into()),
        };
        self.spend(read as u64);
        Ok(read)
    }

    /// Reads at `offset`.
    pub(crate) fn fd_pread(&mut self, fd: Fd, buffer: &mut [u8], offset: u64) -> Answer<usize> {
        let Handle::Node(node) = self.readable(fd)?.handle else {
            return Err(Errno::Spipe.into());
        };
        let read = copy_from(self.tree.bytes(node)?, offset, buffer);
        self.spend(read as u64);
        Ok(read)
    }

    /// Writes all of `data` at the position and moves it.
    pub(crate) fn fd_write(&mut self, fd: Fd, data: &[u8]) -> Answer<()> {
        let Descriptor { handle, position, flags, .. } = *self.writable(fd)?;
        self.spend(data.len() as u64);
        match handle {
            Handle::Stdout => {
                self.tree.out.take_bytes(data.len() as u64)?;
                self.stdout.extend_from_slice(data);
            }
            Handle::Stderr => {
                let room = limits::TASK_STDERR_BYTES_MAX - self.stderr.len();
                self.stderr.extend_from_slice(&data[..data.len().min(room)]);
            }
            Handle::Node(node) => {
                let at = if flags.appends() { self.tree.get(node)?.size() } else { position };
                self.write_node(node, at, data)?;
                self.descriptor_mut(fd)?.position = at + data.len() as u64;
            }
            Handle::Stdin => return Err(Errno::Badf.into()),
        }
        Ok(())
    }

    /// Writes all of `data` at `offset`.
    pub(crate) fn fd_pwrite(&mut self, fd: Fd, data: &[u8], offset: u64) -> Answer<()> {
        let Handle::Node(node) = self.writable(fd)?.handle else {
            return Err(Errno::Spipe.into());
        };
        self.spend(data.len() as u64);
        self.write_node(node, offset, data)
    }

    /// Moves the position and tells it.
    pub(crate) fn fd_seek(&mut self, fd: Fd, offset: i64, whence: Whence) -> Answer<u64> {
        let descriptor = self.descriptor(fd)?;
        let Handle::Node(node) = descriptor.handle else {
            return Err(Errno::Spipe.into());
        };
        let from = match whence {
            Whence::Start => 0,
            Whence::Current => descriptor.position,
            Whence::End => self.tree.bytes(node)?.len() as u64,
        };
        let to = from.checked_add_signed(offset).ok_or(Errno::Inval)?;
        self.descriptor_mut(fd)?.position = to;
        Ok(to)
    }

    /// Sets the length.
    pub(crate) fn fd_set_size(&mut self, fd: Fd, size: u64) -> Answer<()> {
        let Handle::Node(node) = self.writable(fd)?.handle else {
            return Err(Errno::Inval.into());
        };
        let zeros = self.tree.resize(node, size)?;
        self.spend(zeros);
        Ok(())
    }

    /// Makes the file at least `offset + length` long.
    pub(crate) fn fd_allocate(&mut self, fd: Fd, offset: u64, length: u64) -> Answer<()> {
        let end = offset.checked_add(length).ok_or(Errno::Inval)?;
        let Handle::Node(node) = self.writable(fd)?.handle else {
            return Err(Errno::Inval.into());
        };
        if self.tree.get(node)?.size() < end {
            self.fd_set_size(fd, end)?;
        }
        Ok(())
    }

    /// There is no disk to wait for. For a directory of `/checkpoint` it is the moment of a checkpoint.
    pub(crate) fn fd_sync(&mut self, fd: Fd) -> Answer<()> {
        if let Handle::Node(node) = self.descriptor(fd)?.handle {
            let node = self.tree.get(node)?;
            self.marked |= node.is_dir() && node.area == Area::Checkpoint;
        }
        Ok(())
    }

    /// The entries of a directory, sorted by name after `.` and `..`. Taken anew when `restart`.
    pub(crate) fn fd_listing(&mut self, fd: Fd, restart: bool) -> Answer<Arc<[Entry]>> {
        let descriptor = self.readable(fd)?;
        let Handle::Node(dir) = descriptor.handle else {
            return Err(Errno::Notdir.into());
        };
        if let Some(listing) = descriptor.listing.as_ref().filter(|_| !restart) {
            return Ok(listing.clone());
        }
        let (parent, _) = self.tree.place(dir)?;
        let dots = [(".".into(), dir), ("..".into(), parent)];
        let all = self.tree.entries(dir)?.iter().map(|(name, id)| (name.clone(), *id));
        let listing: Arc<[Entry]> = dots
            .into_iter()
            .chain(all)
            .map(|(name, id)| Ok(Entry { name, inode: self.tree.get(id)?.inode, kind: self.kind(id)? }))
            .collect::<Answer<_>>()?;
        self.spend(listing.len() as u64 * ENTRY_WORK_BYTES);
        self.descriptor_mut(fd)?.listing = Some(listing.clone());
        Ok(listing)
    }

    pub(super) fn open_descriptor(&mut self, descriptor: Descriptor) -> Answer<Fd> {
        let free = self.fds.iter().position(Option::is_none).unwrap_or(self.fds.len());
        if free >= limits::TASK_OPEN_FILES_MAX {
            return Err(Fault::limit(Limit::Files));
        }
        if let Handle::Node(node) = descriptor.handle {
            self.tree.open(node)?;
        }
        if free == self.fds.len() {
            self.fds.push(None);
        }
        self.fds[free] = Some(descriptor);
        u32::try_from(free).map(Fd).map_err(|_| Errno::Overflow.into())
    }

    pub(super) fn descriptor(&self, fd: Fd) -> Answer<&Descriptor> {
        self.fds.get(fd.index()).and_then(Option::as_ref).ok_or(Fault::Errno(Errno::Badf))
    }

    fn descriptor_mut(&mut self, fd: Fd) -> Answer<&mut Descriptor> {
        self.fds.get_mut(fd.index()).and_then(Option::as_mut).ok_or(Fault::Errno(Errno::Badf))
    }

    fn readable(&self, fd: Fd) -> Answer<&Descriptor> {
        Ok(Some(self.descriptor(fd)?).filter(|descriptor| descriptor.read).ok_or(Errno::Badf)?)
    }

    fn writable(&self, fd: Fd) -> Answer<&Descriptor> {
        Ok(Some(self.descriptor(fd)?).filter(|descriptor| descriptor.write).ok_or(Errno::Badf)?)
    }

    fn write_node(&mut self, node: NodeId, at: u64, data: &[u8]) -> Answer<()> {
        let found = self.tree.get(node)?;
        if found.area == Area::Progress {
            self.note_progress(data);
            return Ok(());
        }
        // Bytes between the old end and `at` become zeros.
        let gap = at.saturating_sub(found.size());
        self.tree.write(node, at, data)?;
        if !data.is_empty() {
            self.spend(gap);
        }
        Ok(())
    }

    fn released(&mut self, closed: &Descriptor) {
        if let Handle::Node(node) = closed.handle {
            self.tree.close(node);
        }
    }
}

fn copy_from(bytes: &[u8], position: u64, buffer: &mut [u8]) -> usize {
    let rest = usize::try_from(position).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
    let count = rest.len().min(buffer.len());
    buffer[..count].copy_from_slice(&rest[..count]);
    count
}
