//! The files of one program: a small tree in memory.
//!
//! ```text
//! /            read-only
//! ├── checkpoint/   writable, bounded by its own budget
//! ├── data/         the job's datasets, read-only
//! ├── out/          writable, bounded by the job's output limit
//! └── progress      writable, reads as empty
//! ```
//!
//! Nodes live in an arena. A file that is unlinked while it is open stays until its last descriptor is
//! closed, as on any Unix, and keeps counting against its budget. There are no links, no permissions and
//! no times. Inode numbers count the nodes in order of their making, which is the same on every machine.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use talka_core::{limits, outcome::Limit};

use super::errno::{Answer, Errno, Fault};

/// Room that a small file may keep when it is cut.
const TRUNCATED_SLACK_BYTES: usize = 4096;

/// Names a node of the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeId(usize);

/// The root directory.
pub(super) const ROOT: NodeId = NodeId(0);

/// Which part of the tree a node is in; nothing ever moves from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Area {
    Root,
    Data,
    Out,
    Checkpoint,
    Progress,
}

impl Area {
    /// Whether files may be made, changed and removed here.
    pub(super) fn is_writable(self) -> bool {
        matches!(self, Self::Out | Self::Checkpoint)
    }
}

/// What a file holds.
#[derive(Debug)]
pub(super) enum Data {
    /// The host's bytes, shared, never changed.
    Shared(Bytes),
    /// The program's own bytes.
    Owned(Vec<u8>),
    /// Takes writes and holds nothing.
    Sink,
}

impl Data {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Owned(bytes) => bytes,
            Self::Sink => &[],
        }
    }
}

#[derive(Debug)]
pub(super) enum Content {
    /// `name` is its own, in `parent`; both are the root's own for the root.
    Dir {
        parent: NodeId,
        name: Arc<str>,
        entries: BTreeMap<Arc<str>, NodeId>,
    },
    File(Data),
}

#[derive(Debug)]
pub(super) struct Node {
    /// Unique and never 0.
    pub(super) inode: u64,
    pub(super) area: Area,
    pub(super) content: Content,
    /// Whether a directory still holds it.
    linked: bool,
    /// Descriptors that are open on it.
    opens: u32,
}

impl Node {
    pub(super) fn is_dir(&self) -> bool {
        matches!(self.content, Content::Dir { .. })
    }

    pub(super) fn size(&self) -> u64 {
        match &self.content {
            Content::Dir { .. } => 0,
            Content::File(data) => data.as_slice().len() as u64,
        }
    }
}

/// What may still be made in one part of the tree, and what happens beyond it.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: u64,
    entries: usize,
    over_bytes: Fault,
    over_entries: Fault,
}

impl Budget {
    pub(super) fn take_bytes(&mut self, bytes: u64) -> Answer<()> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(self.over_bytes)?;
        Ok(())
    }

    fn take_entry(&mut self) -> Answer<()> {
        self.entries = self.entries.checked_sub(1).ok_or(self.over_entries)?;
        Ok(())
    }
}

/// A file or directory, apart from any tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TreeEntry {
    /// From the directory below which it is.
    pub(super) path: String,
    /// The bytes of a file; none for a directory.
    pub(super) data: Option<Vec<u8>>,
}

/// All files of one program.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Option<Node>>,
    free: Vec<NodeId>,
    inodes: u64,
    /// Standard output and `/out` together.
    pub(super) out: Budget,
    checkpoint: Budget,
}

impl Tree {
    /// The tree in which a program starts.
    pub(super) fn new(output_bytes: u64, datasets: &[(String, Bytes)]) -> Answer<Self> {
        let out = Budget {
            bytes: output_bytes,
            entries: limits::TASK_OUT_FILES_MAX,
            over_bytes: Fault::limit(Limit::Output),
            over_entries: Fault::limit(Limit::Files),
        };
        // A checkpoint is an extra: a program that can't keep one is told so and may go on.
        let checkpoint = Budget {
            bytes: limits::TASK_CHECKPOINT_BYTES_MAX,
            entries: limits::TASK_OUT_FILES_MAX,
            over_bytes: Fault::Errno(Errno::Nospc),
            over_entries: Fault::Errno(Errno::Nospc),
        };
        let mut tree = Self { nodes: Vec::with_capacity(8), free: Vec::new(), inodes: 0, out, checkpoint };
        let root = tree.insert(Area::Root, empty_dir());
        debug_assert_eq!(root, ROOT, "the root is made first");
        tree.attach(ROOT, "checkpoint", Area::Checkpoint, empty_dir())?;
        let data = tree.attach(ROOT, "data", Area::Data, empty_dir())?;
        tree.attach(ROOT, "out", Area::Out, empty_dir())?;
        tree.attach(ROOT, "progress", Area::Progress, Content::File(Data::Sink))?;
        for (name, bytes) in datasets {
            tree.attach(data, name, Area::Data, Content::File(Data::Shared(bytes.clone())))?;
        }
        Ok(tree)
    }

    pub(super) fn get(&self, id: NodeId) -> Answer<&Node> {
        self.nodes.get(id.0).and_then(Option::as_ref).ok_or(Fault::Errno(Errno::Noent))
    }

    fn get_mut(&mut self, id: NodeId) -> Answer<&mut Node> {
        self.nodes.get_mut(id.0).and_then(Option::as_mut).ok_or(Fault::Errno(Errno::Noent))
    }

    /// The entries of a directory.
    pub(super) fn entries(&self, dir: NodeId) -> Answer<&BTreeMap<Arc<str>, NodeId>> {
        match &self.get(dir)?.content {
            Content::Dir { entries, .. } => Ok(entries),
            Content::File(_) => Err(Errno::Notdir.into()),
        }
    }

    fn entries_mut(&mut self, dir: NodeId) -> Answer<&mut BTreeMap<Arc<str>, NodeId>> {
        match &mut self.get_mut(dir)?.content {
            Content::Dir { entries, .. } => Ok(entries),
            Content::File(_) => Err(Errno::Notdir.into()),
        }
    }

    /// The directory that holds a directory, and its name there.
    pub(super) fn place(&self, dir: NodeId) -> Answer<(NodeId, &str)> {
        match &self.get(dir)?.content {
            Content::Dir { parent, name, .. } => Ok((*parent, name)),
            Content::File(_) => Err(Errno::Notdir.into()),
        }
    }

    pub(super) fn child(&self, dir: NodeId, name: &str) -> Answer<Option<NodeId>> {
        Ok(self.entries(dir)?.get(name).copied())
    }

    /// The bytes of a file.
    pub(super) fn bytes(&self, file: NodeId) -> Answer<&[u8]> {
        match &self.get(file)?.content {
            Content::Dir { .. } => Err(Errno::Isdir.into()),
            Content::File(data) => Ok(data.as_slice()),
        }
    }

    /// Makes a file or directory in a writable part, within its budget.
    pub(super) fn create(&mut self, parent: NodeId, name: &str, dir: bool) -> Answer<NodeId> {
        let area = self.get(parent)?.area;
        let budget = self.budget(area).ok_or(Errno::Rofs)?;
        budget.take_entry()?;
        let content = if dir { empty_dir() } else { Content::File(Data::Owned(Vec::new())) };
        self.attach(parent, name, area, content)
    }

    /// Overwrites from `at` on, growing the file as needed.
    pub(super) fn write(&mut self, file: NodeId, at: u64, data: &[u8]) -> Answer<()> {
        if data.is_empty() {
            return Ok(());
        }
        let end = at.checked_add(data.len() as u64).ok_or(Errno::Overflow)?;
        if self.get(file)?.size() < end {
            self.resize(file, end)?;
        }
        let Content::File(Data::Owned(bytes)) = &mut self.get_mut(file)?.content else {
            return Ok(());
        };
        // Within memory: `resize` has just seen to it.
        let range = usize::try_from(at).ok().zip(usize::try_from(end).ok());
        let target = range.and_then(|(at, end)| bytes.get_mut(at..end)).ok_or(Errno::Overflow)?;
        target.copy_from_slice(data);
        Ok(())
    }

    /// Sets the length of a file; what is new reads as zeros. Returns how many bytes are new.
    pub(super) fn resize(&mut self, file: NodeId, size: u64) -> Answer<u64> {
        let node = self.get(file)?;
        let (area, old) = (node.area, node.size());
        match &node.content {
            Content::Dir { .. } => return Err(Errno::Isdir.into()),
            Content::File(Data::Shared(_)) => return Err(Errno::Rofs.into()),
            Content::File(Data::Sink) => return Ok(0),
            Content::File(Data::Owned(_)) => {}
        }
        let budget = self.budget(area).ok_or(Errno::Rofs)?;
        if size > old {
            budget.take_bytes(size - old)?;
        } else {
            budget.bytes += old - size;
        }
        if let Content::File(Data::Owned(bytes)) = &mut self.get_mut(file)?.content {
            let size = usize::try_from(size).map_err(|_| Errno::Overflow)?;
            bytes.resize(size, 0);
            // What the budget gets back, the machine must get back: else one file after the other could be made
            // large and then empty. Some slack, so that a size which goes up and down costs nothing.
            if bytes.capacity() > 2 * size + TRUNCATED_SLACK_BYTES {
                bytes.shrink_to_fit();
            }
        }
        Ok(size.saturating_sub(old))
    }

    /// Takes a name out of its directory. The node goes when nobody has it open any more.
    pub(super) fn unlink(&mut self, parent: NodeId, name: &str) -> Answer<()> {
        let id = self.entries_mut(parent)?.remove(name).ok_or(Errno::Noent)?;
        self.get_mut(id)?.linked = false;
        self.drop_if_unused(id);
        Ok(())
    }

    /// Moves a name to another directory of the same part.
    pub(super) fn relink(&mut self, from: (NodeId, &str), to: (NodeId, &str)) -> Answer<()> {
        let id = self.entries_mut(from.0)?.remove(from.1).ok_or(Errno::Noent)?;
        self.link(to.0, to.1, id)
    }

    /// One more descriptor is open on the node.
    pub(super) fn open(&mut self, id: NodeId) -> Answer<()> {
        self.get_mut(id)?.opens += 1;
        Ok(())
    }

    /// One descriptor less.
    pub(super) fn close(&mut self, id: NodeId) {
        if let Ok(node) = self.get_mut(id) {
            node.opens = node.opens.saturating_sub(1);
            self.drop_if_unused(id);
        }
    }

    /// Every file below `dir` by its path from there.
    pub(super) fn take_files(&mut self, dir: &str) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut open: Vec<(String, NodeId)> = Vec::new();
        if let Ok(Some(top)) = self.child(ROOT, dir) {
            open.push((String::new(), top));
        }
        while let Some((prefix, id)) = open.pop() {
            match self.get_mut(id).map(|node| &mut node.content) {
                Ok(Content::Dir { entries, .. }) => {
                    let below = entries.iter().map(|(name, child)| match prefix.as_str() {
                        "" => (name.to_string(), *child),
                        prefix => (format!("{prefix}/{name}"), *child),
                    });
                    open.extend(below);
                }
                Ok(Content::File(data)) => {
                    let bytes = match std::mem::replace(data, Data::Sink) {
                        Data::Owned(bytes) => bytes,
                        Data::Shared(bytes) => bytes.to_vec(),
                        Data::Sink => continue,
                    };
                    files.insert(prefix, bytes);
                }
                Err(_) => {}
            }
        }
        files
    }

    /// Everything below a directory of the root, by its path from there; the bytes of files, nothing of directories.
    /// Each directory comes before what is in it.
    pub(super) fn below(&self, dir: &str) -> Vec<(String, Option<&[u8]>)> {
        let mut found = Vec::new();
        let mut open = vec![(String::new(), self.child(ROOT, dir).ok().flatten())];
        while let Some((prefix, id)) = open.pop() {
            let Some(entries) = id.and_then(|id| self.entries(id).ok()) else { continue };
            for (name, child) in entries {
                let path = if prefix.is_empty() { name.to_string() } else { format!("{prefix}/{name}") };
                if let Ok(bytes) = self.bytes(*child) {
                    found.push((path, Some(bytes)));
                } else {
                    found.push((path.clone(), None));
                    open.push((path, Some(*child)));
                }
            }
        }
        found
    }

    /// Bytes of all files below a directory of the root.
    pub(super) fn bytes_below(&self, dir: &str) -> u64 {
        let mut bytes = 0;
        let mut open: Vec<NodeId> = self.child(ROOT, dir).ok().flatten().into_iter().collect();
        while let Some(node) = open.pop().and_then(|id| self.get(id).ok()) {
            match &node.content {
                Content::Dir { entries, .. } => open.extend(entries.values()),
                Content::File(data) => bytes += data.as_slice().len() as u64,
            }
        }
        bytes
    }

    /// Puts back what was [`below`](Self::below) a directory of the root, within the same budget.
    pub(super) fn restore(&mut self, dir: &str, entries: Vec<TreeEntry>) -> Answer<()> {
        let top = self.child(ROOT, dir)?.ok_or(Errno::Noent)?;
        for TreeEntry { path, data } in entries {
            let (above, name) = path.rsplit_once('/').unwrap_or(("", &path));
            let mut parent = top;
            for part in above.split('/').filter(|part| !part.is_empty()) {
                parent = self.child(parent, part)?.ok_or(Errno::Noent)?;
            }
            if self.child(parent, name)?.is_some() {
                return Err(Errno::Exist.into());
            }
            let node = self.create(parent, name, data.is_none())?;
            if let Some(bytes) = data {
                let area = self.get(node)?.area;
                self.budget(area).ok_or(Errno::Rofs)?.take_bytes(bytes.len() as u64)?;
                self.get_mut(node)?.content = Content::File(Data::Owned(bytes));
            }
        }
        Ok(())
    }

    fn budget(&mut self, area: Area) -> Option<&mut Budget> {
        match area {
            Area::Out => Some(&mut self.out),
            Area::Checkpoint => Some(&mut self.checkpoint),
            Area::Root | Area::Data | Area::Progress => None,
        }
    }

    fn attach(&mut self, parent: NodeId, name: &str, area: Area, content: Content) -> Answer<NodeId> {
        let id = self.insert(area, content);
        self.link(parent, name, id)?;
        Ok(id)
    }

    fn link(&mut self, parent: NodeId, name: &str, id: NodeId) -> Answer<()> {
        let name: Arc<str> = name.into();
        self.entries_mut(parent)?.insert(name.clone(), id);
        if let Content::Dir { parent: place, name: own, .. } = &mut self.get_mut(id)?.content {
            (*place, *own) = (parent, name);
        }
        Ok(())
    }

    fn insert(&mut self, area: Area, content: Content) -> NodeId {
        self.inodes += 1;
        let node = Node { inode: self.inodes, area, content, linked: true, opens: 0 };
        if let Some(id) = self.free.pop() {
            self.nodes[id.0] = Some(node);
            return id;
        }
        self.nodes.push(Some(node));
        NodeId(self.nodes.len() - 1)
    }

    fn drop_if_unused(&mut self, id: NodeId) {
        let Ok(node) = self.get(id) else { return };
        if node.linked || node.opens > 0 {
            return;
        }
        let (area, size) = (node.area, node.size());
        self.nodes[id.0] = None;
        self.free.push(id);
        if let Some(budget) = self.budget(area) {
            budget.bytes += size;
            budget.entries += 1;
        }
    }
}

fn empty_dir() -> Content {
    Content::Dir { parent: ROOT, name: "".into(), entries: BTreeMap::new() }
}
