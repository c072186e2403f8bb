//! Requests that name a file by its path.
//!
//! A path is resolved below the directory of the descriptor it came with, and never above it: `..` is
//! followed as far as that directory and refused beyond, and so is an absolute path.

use talka_core::{job::is_file_name, limits, outcome::Limit};

use super::{
    Fd, Stat, World,
    errno::{Answer, Errno, Fault},
    files::{Descriptor, ENTRY_WORK_BYTES, Handle, OpenFlags},
    tree::{Area, NodeId, ROOT},
};

/// Longest path that is looked at.
const PATH_BYTES_MAX: usize = 4096;

/// What a path leads to.
#[derive(Debug)]
struct Lookup<'p> {
    parent: NodeId,
    /// The last component; `None` when the path ends in the directory itself (`.`, `a/..`).
    name: Option<&'p str>,
    node: Option<NodeId>,
    must_be_dir: bool,
}

impl Lookup<'_> {
    fn existing(&self) -> Answer<NodeId> {
        self.node.ok_or(Fault::Errno(Errno::Noent))
    }
}

/// How a file is to be opened.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "flags of the standard, each independent of the others")]
pub(crate) struct OpenHow {
    pub(crate) create: bool,
    pub(crate) directory: bool,
    pub(crate) exclusive: bool,
    pub(crate) truncate: bool,
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) flags: OpenFlags,
}

impl World {
    /// Opens, and if wanted makes, a file.
    pub(crate) fn path_open(&mut self, dir: Fd, path: &[u8], how: OpenHow) -> Answer<Fd> {
        let at = self.resolve(dir, path)?;
        let node = match at.node {
            Some(_) if how.create && how.exclusive => return Err(Errno::Exist.into()),
            Some(node) => node,
            None if how.create && !how.directory && !at.must_be_dir => self.make(&at, false)?,
            None if how.create => return Err(Errno::Inval.into()),
            None => return Err(Errno::Noent.into()),
        };
        let found = self.tree.get(node)?;
        if found.is_dir() {
            if how.truncate || (how.write && !how.directory) {
                return Err(Errno::Isdir.into());
            }
        } else {
            if how.directory {
                return Err(Errno::Notdir.into());
            }
            let takes_writes = found.area.is_writable() || found.area == Area::Progress;
            if (how.write || how.truncate) && !takes_writes {
                return Err(Errno::Rofs.into());
            }
            if how.truncate {
                self.tree.resize(node, 0)?;
            }
        }
        self.open_descriptor(Descriptor::new(Handle::Node(node), how.read, how.write, how.flags))
    }

    /// Makes a directory.
    pub(crate) fn path_create_directory(&mut self, dir: Fd, path: &[u8]) -> Answer<()> {
        let at = self.resolve(dir, path)?;
        if at.node.is_some() {
            return Err(Errno::Exist.into());
        }
        self.make(&at, true).map(drop)
    }

    /// What is known about the file at a path.
    pub(crate) fn path_stat(&mut self, dir: Fd, path: &[u8]) -> Answer<Stat> {
        let node = self.resolve(dir, path)?.existing()?;
        self.stat_node(node)
    }

    /// Removes a file.
    pub(crate) fn path_unlink_file(&mut self, dir: Fd, path: &[u8]) -> Answer<()> {
        let at = self.resolve(dir, path)?;
        let node = self.tree.get(at.existing()?)?;
        if node.is_dir() {
            return Err(Errno::Isdir.into());
        }
        let name = self.removable(&at)?;
        self.tree.unlink(at.parent, name)
    }

    /// Removes an empty directory.
    pub(crate) fn path_remove_directory(&mut self, dir: Fd, path: &[u8]) -> Answer<()> {
        let at = self.resolve(dir, path)?;
        if !self.tree.entries(at.existing()?)?.is_empty() {
            return Err(Errno::Notempty.into());
        }
        let name = self.removable(&at)?;
        self.tree.unlink(at.parent, name)
    }

    /// Moves a file or directory, replacing what is there as POSIX has it.
    pub(crate) fn path_rename(&mut self, from: (Fd, &[u8]), to: (Fd, &[u8])) -> Answer<()> {
        let old = self.resolve(from.0, from.1)?;
        let node = old.existing()?;
        let old_name = self.removable(&old)?;
        let new = self.resolve(to.0, to.1)?;
        let new_name = new.name.ok_or(Errno::Busy)?;
        let (area, is_dir) = (self.tree.get(node)?.area, self.tree.get(node)?.is_dir());
        if self.tree.get(new.parent)?.area != area {
            return Err(Errno::Xdev.into());
        }
        if !is_dir && new.must_be_dir {
            return Err(Errno::Notdir.into());
        }
        if self.is_below(new.parent, node)? {
            return Err(Errno::Inval.into());
        }
        if new.node == Some(node) {
            self.marked |= area == Area::Checkpoint;
            return Ok(());
        }
        let below = self.deepest(node)?;
        self.check_name(new.parent, new_name, below)?;
        if let Some(replaced) = new.node {
            match (is_dir, self.tree.get(replaced)?.is_dir()) {
                (false, true) => return Err(Errno::Isdir.into()),
                (true, false) => return Err(Errno::Notdir.into()),
                (true, true) if !self.tree.entries(replaced)?.is_empty() => {
                    return Err(Errno::Notempty.into());
                }
                _ => self.tree.unlink(new.parent, new_name)?,
            }
        }
        self.tree.relink((old.parent, old_name), (new.parent, new_name))?;
        self.marked |= area == Area::Checkpoint;
        Ok(())
    }

    /// There are no symbolic links, so nothing can be read as one.
    pub(crate) fn path_readlink(&mut self, dir: Fd, path: &[u8]) -> Answer<()> {
        self.resolve(dir, path)?.existing()?;
        Err(Errno::Inval.into())
    }

    fn resolve<'p>(&mut self, dir: Fd, path: &'p [u8]) -> Answer<Lookup<'p>> {
        self.spend(path.len() as u64);
        if path.len() > PATH_BYTES_MAX {
            return Err(Errno::Nametoolong.into());
        }
        let Handle::Node(base) = self.descriptor(dir)?.handle else {
            return Err(Errno::Notdir.into());
        };
        self.tree.entries(base)?;
        let text = std::str::from_utf8(path).map_err(|_| Errno::Ilseq)?;
        if text.is_empty() {
            return Err(Errno::Noent.into());
        }
        if text.starts_with('/') {
            return Err(Errno::Notcapable.into());
        }
        let must_be_dir = text.ends_with('/') || text.ends_with("/.") || text.ends_with("/..");
        let mut at = Lookup { parent: base, name: None, node: Some(base), must_be_dir };
        let mut depth = 0_usize;
        for part in text.split('/').filter(|part| !matches!(*part, "" | ".")) {
            self.spend(ENTRY_WORK_BYTES);
            let current = at.existing()?;
            if part == ".." {
                depth = depth.checked_sub(1).ok_or(Errno::Notcapable)?;
                let (above, _) = self.tree.place(current)?;
                at = Lookup { parent: above, name: None, node: Some(above), ..at };
            } else {
                depth += 1;
                let node = self.tree.child(current, part)?;
                at = Lookup { parent: current, name: Some(part), node, ..at };
            }
        }
        match at.node {
            Some(node) if must_be_dir && !self.tree.get(node)?.is_dir() => Err(Errno::Notdir.into()),
            _ => Ok(at),
        }
    }

    fn make(&mut self, at: &Lookup<'_>, dir: bool) -> Answer<NodeId> {
        let name = at.name.ok_or(Errno::Exist)?;
        if !self.tree.get(at.parent)?.area.is_writable() {
            return Err(Errno::Rofs.into());
        }
        self.check_name(at.parent, name, 0)?;
        self.tree.create(at.parent, name, dir)
    }

    /// The name under which something may be removed: not the top of a part, nor anything read-only.
    fn removable<'p>(&self, at: &Lookup<'p>) -> Answer<&'p str> {
        let name = at.name.ok_or(Errno::Busy)?;
        let is_writable = self.tree.get(at.parent)?.area.is_writable();
        if is_writable { Ok(name) } else { Err(Errno::Rofs.into()) }
    }

    /// Whether `name`, with paths of `below` bytes under it, may stand in `parent`.
    fn check_name(&self, parent: NodeId, name: &str, below: usize) -> Answer<()> {
        let mut length = name.len() + below;
        let (mut above, mut own) = self.tree.place(parent)?;
        while above != ROOT {
            length += own.len() + 1;
            (above, own) = self.tree.place(above)?;
        }
        if length > limits::TASK_FILE_NAME_BYTES_MAX || name.len() > limits::DATASET_NAME_BYTES_MAX {
            return Err(Fault::limit(Limit::Files));
        }
        if is_file_name(name) { Ok(()) } else { Err(Errno::Ilseq.into()) }
    }

    /// Length of the longest path below a node, its leading slash included.
    fn deepest(&mut self, node: NodeId) -> Answer<usize> {
        let mut longest = 0;
        let mut open = vec![(0, node)];
        while let Some((length, id)) = open.pop() {
            longest = longest.max(length);
            self.spend(ENTRY_WORK_BYTES);
            if self.tree.get(id)?.is_dir() {
                let below = self.tree.entries(id)?.iter();
                open.extend(below.map(|(name, child)| (length + 1 + name.len(), *child)));
            }
        }
        Ok(longest)
    }

    fn is_below(&self, mut dir: NodeId, top: NodeId) -> Answer<bool> {
        loop {
            if dir == top {
                return Ok(true);
            }
            if dir == ROOT {
                return Ok(false);
            }
            (dir, _) = self.tree.place(dir)?;
        }
    }
}
