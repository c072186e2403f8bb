//! Which uses of a local belong together.
//!
//! Compilers reuse a local for variables that have nothing to do with each other: one holds a sum, the
//! next one bits from memory. A *web* is what one variable was: the writes that can reach a common read. Webs
//! are found as in the construction of SSA form: every write is a version; where control flow meets, versions meet
//! in a new one; versions that met in one which is read are of one web.

use wasmparser::{Operator, ValType};

use crate::rewrite::{
    RewriteError,
    body::{Body, count},
};

/// Versions that are carried along edges of the control flow, all together, before each local counts as one
/// web. Ordinary functions need some thousands, the largest of an interpreter a million.
const CARRIED_MAX: usize = 4_000_000;

/// The webs of a body.
#[derive(Debug)]
pub(super) struct Webs {
    /// For each operator that reads or writes a local with floats, its web.
    of: Vec<u32>,
    /// For each web, whether a parameter is part of it.
    parameters: Vec<bool>,
}

const NONE: u32 = u32::MAX;

impl Webs {
    /// The web that the operator at `at` reads or writes, if it is one of floats.
    pub(super) fn of(&self, at: usize) -> Option<usize> {
        self.of.get(at).filter(|&&web| web != NONE).map(|&web| web as usize)
    }

    /// For each web, whether a parameter is part of it.
    pub(super) fn parameters(&self) -> &[bool] {
        &self.parameters
    }

    /// Finds the webs of `body`, whose first `params` locals are parameters.
    pub(super) fn find(body: &Body<'_>, params: usize) -> Result<Self, RewriteError> {
        let mut slots = vec![NONE; body.locals.len()];
        let mut floats = 0;
        for (slot, ty) in slots.iter_mut().zip(&body.locals) {
            if matches!(ty, ValType::F32 | ValType::F64 | ValType::V128) {
                *slot = floats;
                floats += 1;
            }
        }
        let mut finder = Finder {
            current: (0..floats).collect(),
            live: true,
            labels: vec![Label::new(0)],
            labels_begun: 1,
            meets_at: vec![NONE; floats as usize],
            meets: Vec::new(),
            of: vec![NONE; body.ops.len()],
            read: Vec::new(),
            carried: 0,
        };
        for (at, op) in body.ops.iter().enumerate() {
            finder.step(at, &op.operator, &slots)?;
            if finder.carried > CARRIED_MAX {
                finder.give_up(body, &slots);
                break;
            }
        }
        Ok(finder.finish(&slots[..params]))
    }
}

/// The end of a block, or the head of a loop.
struct Label {
    number: u32,
    /// Version of each slot as it arrives there; `None` before the first arrival.
    versions: Option<Vec<u32>>,
    /// Version of each slot as the `else` arm begins, until it does.
    otherwise: Option<Vec<u32>>,
    is_loop: bool,
}

impl Label {
    fn new(number: u32) -> Self {
        Self { number, versions: None, otherwise: None, is_loop: false }
    }
}

/// Locals with floats have slots; the first version of each slot has the slot's own number.
struct Finder {
    /// Version of each slot at the current operator.
    current: Vec<u32>,
    /// Whether the current operator is reached by falling through.
    live: bool,
    labels: Vec<Label>,
    labels_begun: u32,
    /// For each version, the label at which others meet in it, or [`NONE`].
    meets_at: Vec<u32>,
    /// A version, and one that meets others in it.
    meets: Vec<(u32, u32)>,
    /// Version that each operator reads or writes.
    of: Vec<u32>,
    read: Vec<u32>,
    carried: usize,
}

impl Finder {
    fn step(&mut self, at: usize, operator: &Operator<'_>, slots: &[u32]) -> Result<(), RewriteError> {
        let slot_of =
            |local: u32| slots.get(local as usize).filter(|&&slot| slot != NONE).map(|&slot| slot as usize);
        match operator {
            Operator::LocalGet { local_index } => {
                if let Some(slot) = slot_of(*local_index) {
                    self.of[at] = self.current[slot];
                    self.read.push(self.current[slot]);
                }
            }
            Operator::LocalSet { local_index } | Operator::LocalTee { local_index } => {
                if let Some(slot) = slot_of(*local_index) {
                    let version = self.version(NONE);
                    self.of[at] = version;
                    self.current[slot] = version;
                }
            }
            Operator::Block { .. } => {
                self.begin();
            }
            Operator::If { .. } => {
                let otherwise = self.current.clone();
                self.carried += otherwise.len();
                self.begin().otherwise = Some(otherwise);
            }
            Operator::Loop { .. } => {
                let number = self.begin().number;
                let heads: Vec<u32> = (0..self.current.len()).map(|_| self.version(number)).collect();
                self.carried += heads.len();
                if let Some(label) = self.labels.last_mut() {
                    label.is_loop = true;
                    label.versions = Some(heads.clone());
                }
                self.arrive(0);
                self.current = heads;
            }
            Operator::Else => {
                self.fall_through();
                self.otherwise();
            }
            Operator::End => {
                self.fall_through();
                if self.otherwise() {
                    self.fall_through();
                }
                if let Some(label) = self.labels.pop()
                    && !label.is_loop
                    && let Some(versions) = label.versions
                {
                    self.current = versions;
                }
                self.live = true;
            }
            Operator::Br { relative_depth } => {
                self.arrive(*relative_depth);
                self.live = false;
            }
            Operator::BrIf { relative_depth } => self.arrive(*relative_depth),
            Operator::BrTable { targets } => {
                self.arrive(targets.default());
                for target in targets.targets() {
                    self.arrive(target?);
                    if self.carried > CARRIED_MAX {
                        break;
                    }
                }
                self.live = false;
            }
            Operator::Return | Operator::Unreachable => self.live = false,
            _ => {}
        }
        Ok(())
    }

    fn version(&mut self, meets_at: u32) -> u32 {
        self.meets_at.push(meets_at);
        count(self.meets_at.len() - 1)
    }

    fn begin(&mut self) -> &mut Label {
        self.labels.push(Label::new(self.labels_begun));
        self.labels_begun += 1;
        let last = self.labels.len() - 1;
        &mut self.labels[last]
    }

    /// Control flows from here to a label.
    fn arrive(&mut self, depth: u32) {
        let Some(index) = self.labels.len().checked_sub(1 + depth as usize) else { return };
        if index == 0 {
            // Nothing is read behind the end of the function.
            return;
        }
        self.carried += self.current.len();
        let number = self.labels[index].number;
        let Some(mut versions) = self.labels[index].versions.take() else {
            self.labels[index].versions = Some(self.current.clone());
            return;
        };
        for (there, slot) in versions.iter_mut().zip(0..) {
            let here = self.current[slot];
            if *there == here {
                continue;
            }
            if self.meets_at[*there as usize] != number {
                let meeting = self.version(number);
                self.meets.push((meeting, *there));
                *there = meeting;
            }
            self.meets.push((*there, here));
        }
        self.labels[index].versions = Some(versions);
    }

    /// The end of a block, or of an arm of an `if`, is reached by falling through.
    fn fall_through(&mut self) {
        if self.live && self.labels.last().is_some_and(|label| !label.is_loop) {
            self.arrive(0);
        }
    }

    /// Goes back to where the `if` was, when its `else` arm did not come yet.
    fn otherwise(&mut self) -> bool {
        let Some(otherwise) = self.labels.last_mut().and_then(|label| label.otherwise.take()) else {
            return false;
        };
        self.current = otherwise;
        self.live = true;
        true
    }

    /// Takes each local for one web.
    fn give_up(&mut self, body: &Body<'_>, slots: &[u32]) {
        self.meets.clear();
        for (web, op) in self.of.iter_mut().zip(&body.ops) {
            *web = match op.operator {
                Operator::LocalGet { local_index }
                | Operator::LocalSet { local_index }
                | Operator::LocalTee { local_index } => slots[local_index as usize],
                _ => NONE,
            };
        }
    }

    /// Unites versions that meet in one which is read, directly or by way of others.
    fn finish(mut self, params: &[u32]) -> Webs {
        self.meets.sort_unstable();
        let mut sets = Sets((0..).take(self.meets_at.len()).collect());
        let mut seen = vec![false; self.meets_at.len()];
        let mut open = self.read;
        while let Some(version) = open.pop() {
            if std::mem::replace(&mut seen[version as usize], true) {
                continue;
            }
            let first = self.meets.partition_point(|(meeting, _)| *meeting < version);
            for (_, other) in self.meets[first..].iter().take_while(|(meeting, _)| *meeting == version) {
                sets.unite(version, *other);
                open.push(*other);
            }
        }
        let mut parameters = vec![false; self.meets_at.len()];
        for slot in params.iter().filter(|&&slot| slot != NONE) {
            parameters[sets.root(*slot) as usize] = true;
        }
        for version in self.of.iter_mut().filter(|version| **version != NONE) {
            *version = sets.root(*version);
        }
        Webs { of: self.of, parameters }
    }
}

/// Disjoint sets of versions; the number of a set is one of its members.
struct Sets(Vec<u32>);

impl Sets {
    fn root(&mut self, mut version: u32) -> u32 {
        while self.0[version as usize] != version {
            let parent = self.0[version as usize];
            self.0[version as usize] = self.0[parent as usize];
            version = parent;
        }
        version
    }

    fn unite(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        // The smaller number wins, so that the result does not depend on the order.
        self.0[a.max(b) as usize] = a.min(b);
    }
}
