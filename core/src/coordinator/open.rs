//! The touched, unfinished tasks of a job, by position.
//!
//! Every report looks its task up several times, among tens of thousands that mostly lie side by side. So they are kept
//! in blocks of neighbours: a small ordered map finds the block, and a bit count the task in it. What a task takes in
//! memory does not depend on where the others are: a block holds those of its tasks that are open, and nothing else.

use std::collections::BTreeMap;

use super::task::Task;

/// Tasks of one block, at most: as many as a word has bits.
const BLOCK_TASKS: u64 = 64;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct OpenTasks {
    blocks: BTreeMap<u64, Block>,
    len: usize,
}

/// Neighbours.
#[derive(Debug, Default)]
struct Block {
    /// Which of them are here.
    present: u64,
    /// Those, by position.
    tasks: Vec<Task>,
}

impl Block {
    /// Where a task is in `tasks`, or would be.
    fn rank(&self, bit: u64) -> usize {
        (self.present & (bit - 1)).count_ones() as usize
    }

    fn place(&self, bit: u64) -> Option<usize> {
        (self.present & bit != 0).then(|| self.rank(bit))
    }

    fn positions(&self, block: u64) -> impl Iterator<Item = u64> + use<> {
        let mut left = self.present;
        std::iter::from_fn(move || {
            let offset = (left != 0).then(|| u64::from(left.trailing_zeros()))?;
            left &= left - 1;
            Some(block * BLOCK_TASKS + offset)
        })
    }

    /// Gives memory back when most of the tasks are gone.
    fn shrink(&mut self) {
        if self.tasks.len() * 4 <= self.tasks.capacity() {
            self.tasks.shrink_to(self.tasks.len() * 2);
        }
    }
}

/// The block of a position, and its bit there.
fn split(index: u64) -> (u64, u64) {
    (index / BLOCK_TASKS, 1 << (index % BLOCK_TASKS))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "it is used like the maps of the standard library")]
impl OpenTasks {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn get(&self, index: &u64) -> Option<&Task> {
        let (block, bit) = split(*index);
        let block = self.blocks.get(&block)?;
        block.tasks.get(block.place(bit)?)
    }

    pub(super) fn get_mut(&mut self, index: &u64) -> Option<&mut Task> {
        let (block, bit) = split(*index);
        let block = self.blocks.get_mut(&block)?;
        let place = block.place(bit)?;
        block.tasks.get_mut(place)
    }

    /// Adds a task, in the place of one that was there.
    pub(super) fn insert(&mut self, index: u64, task: Task) {
        let (block, bit) = split(index);
        let block = self.blocks.entry(block).or_default();
        let rank = block.rank(bit);
        if block.present & bit != 0 {
            block.tasks[rank] = task;
            return;
        }
        block.present |= bit;
        block.tasks.insert(rank, task);
        self.len += 1;
    }

    pub(super) fn remove(&mut self, index: &u64) -> Option<Task> {
        let (number, bit) = split(*index);
        let block = self.blocks.get_mut(&number)?;
        let task = block.tasks.remove(block.place(bit)?);
        block.present &= !bit;
        self.len -= 1;
        if block.tasks.is_empty() {
            self.blocks.remove(&number);
        } else {
            block.shrink();
        }
        Some(task)
    }

    /// The lowest position.
    pub(super) fn first(&self) -> Option<u64> {
        let (number, block) = self.blocks.first_key_value()?;
        block.positions(*number).next()
    }

    /// All positions, ascending.
    pub(super) fn keys(&self) -> impl Iterator<Item = u64> {
        self.blocks.iter().flat_map(|(number, block)| block.positions(*number))
    }

    /// All tasks, in the order of their positions.
    pub(super) fn values(&self) -> impl Iterator<Item = &Task> {
        self.blocks.values().flat_map(|block| &block.tasks)
    }

    /// All tasks, in the order of their positions.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Task> {
        self.blocks.values_mut().flat_map(|block| &mut block.tasks)
    }

    /// All tasks with their positions, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Task)> {
        self.keys().zip(self.values())
    }
}

impl FromIterator<(u64, Task)> for OpenTasks {
    fn from_iter<T: IntoIterator<Item = (u64, Task)>>(tasks: T) -> Self {
        let mut open = Self::default();
        for (index, task) in tasks {
            open.insert(index, task);
        }
        open
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn task(number: u32) -> Task {
        Task { last_number: number, ..Task::default() }
    }

    proptest! {
        /// What an ordered map would do.
        #[test]
        fn it_is_an_ordered_map(changes in prop::collection::vec((0_u64..200, any::<bool>(), any::<u32>()), 0..400)) {
            let (mut open, mut model) = (OpenTasks::default(), BTreeMap::new());
            for (index, insert, number) in changes {
                if insert {
                    open.insert(index, task(number));
                    model.insert(index, number);
                } else {
                    prop_assert_eq!(open.remove(&index).map(|task| task.last_number), model.remove(&index));
                }
                prop_assert_eq!(open.len(), model.len());
                prop_assert_eq!(open.is_empty(), model.is_empty());
                prop_assert_eq!(open.first(), model.keys().next().copied());
                prop_assert_eq!(open.get(&index).map(|task| task.last_number), model.get(&index).copied());
                prop_assert_eq!(open.get_mut(&index).is_some(), model.contains_key(&index));
            }
            let found: Vec<(u64, u32)> = open.iter().map(|(index, task)| (index, task.last_number)).collect();
            prop_assert_eq!(&found, &model.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(open.values_mut().count(), found.len());
            let again: OpenTasks = found.iter().map(|(index, number)| (*index, task(*number))).collect();
            prop_assert_eq!(again.keys().collect::<Vec<_>>(), open.keys().collect::<Vec<_>>());
        }
    }

    #[test]
    fn blocks_without_tasks_take_no_memory() {
        let mut open: OpenTasks = (0..10 * BLOCK_TASKS).map(|index| (index, task(1))).collect();
        for index in 0..10 * BLOCK_TASKS {
            if index % BLOCK_TASKS != 5 {
                open.remove(&index);
            }
        }
        assert_eq!((open.len(), open.blocks.len()), (10, 10));
        assert!(open.blocks.values().all(|block| block.tasks.capacity() <= 4), "one task each is left");
        for index in 0..10 {
            open.remove(&(index * BLOCK_TASKS + 5));
        }
        assert!(open.blocks.is_empty());
    }
}
