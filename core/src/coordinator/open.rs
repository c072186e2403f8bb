//! The touched, unfinished tasks of a job, by position.
//!
//! Every report looks its task up several times, among tens of thousands that mostly lie side by side. So they are kept
//! in blocks of neighbours: a small ordered map finds the block, and a table the task in it, so that no other task moves
//! when one comes or goes. What a task takes in memory hardly depends on where the others are: a block holds those of its
//! tasks that are open, and its table.

use std::collections::BTreeMap;

use super::task::Task;

/// Tasks of one block, at most: as many as a word has bits.
const BLOCK_TASKS: u64 = 64;
/// The same, for what lies in memory.
const PLACES: usize = 64;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct OpenTasks {
    blocks: BTreeMap<u64, Block>,
    len: usize,
}

/// Neighbours.
#[derive(Debug)]
struct Block {
    /// Which of them are here.
    present: u64,
    /// Where each of those is in `tasks`.
    places: [u8; PLACES],
    /// Those, with their offsets in the block, in any order.
    tasks: Vec<(u8, Task)>,
}

impl Default for Block {
    fn default() -> Self {
        Self { present: 0, places: [0; PLACES], tasks: Vec::new() }
    }
}

impl Block {
    fn place(&self, offset: u8) -> Option<usize> {
        (self.present >> offset & 1 == 1).then(|| self.places[usize::from(offset)].into())
    }

    fn get(&self, offset: u8) -> Option<&Task> {
        self.tasks.get(self.place(offset)?).map(|(_, task)| task)
    }

    /// Adds a task, in the place of one that was there. Returns whether there was none.
    fn insert(&mut self, offset: u8, task: Task) -> bool {
        if let Some(place) = self.place(offset) {
            self.tasks[place].1 = task;
            return false;
        }
        self.present |= 1 << offset;
        self.places[usize::from(offset)] = u8::try_from(self.tasks.len()).unwrap_or(u8::MAX);
        self.tasks.push((offset, task));
        true
    }

    fn remove(&mut self, offset: u8) -> Option<Task> {
        let place = self.place(offset)?;
        self.present &= !(1 << offset);
        let (_, task) = self.tasks.swap_remove(place);
        if let Some((moved, _)) = self.tasks.get(place) {
            self.places[usize::from(*moved)] = u8::try_from(place).unwrap_or(u8::MAX);
        }
        Some(task)
    }

    fn offsets(&self) -> impl Iterator<Item = u8> + use<> {
        let mut left = self.present;
        std::iter::from_fn(move || {
            let offset = (left != 0).then(|| u8::try_from(left.trailing_zeros()).unwrap_or(u8::MAX))?;
            left &= left - 1;
            Some(offset)
        })
    }

    /// Gives memory back when most of the tasks are gone.
    fn shrink(&mut self) {
        if self.tasks.len() * 4 <= self.tasks.capacity() {
            self.tasks.shrink_to(self.tasks.len() * 2);
        }
    }
}

/// The block of a position, and its offset there.
fn split(index: u64) -> (u64, u8) {
    (index / BLOCK_TASKS, u8::try_from(index % BLOCK_TASKS).unwrap_or(u8::MAX))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "it is used like the maps of the standard library")]
impl OpenTasks {
    /// Tasks at these positions, which ascend. Takes no more memory than they need.
    pub(super) fn of(positions: &[u64], mut task: impl FnMut(u64) -> Task) -> Self {
        let neighbours = positions.chunk_by(|a, b| split(*a).0 == split(*b).0);
        let mut block_of = |positions: &[u64]| {
            let mut block = Block { tasks: Vec::with_capacity(positions.len()), ..Block::default() };
            for index in positions {
                block.insert(split(*index).1, task(*index));
            }
            Some((split(*positions.first()?).0, block))
        };
        let blocks: BTreeMap<u64, Block> = neighbours.filter_map(&mut block_of).collect();
        let len = blocks.values().map(|block| block.tasks.len()).sum();
        Self { blocks, len }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn get(&self, index: &u64) -> Option<&Task> {
        let (block, offset) = split(*index);
        self.blocks.get(&block)?.get(offset)
    }

    pub(super) fn get_mut(&mut self, index: &u64) -> Option<&mut Task> {
        let (block, offset) = split(*index);
        let block = self.blocks.get_mut(&block)?;
        let place = block.place(offset)?;
        block.tasks.get_mut(place).map(|(_, task)| task)
    }

    /// Adds a task, in the place of one that was there.
    pub(super) fn insert(&mut self, index: u64, task: Task) {
        let (block, offset) = split(index);
        let is_new = self.blocks.entry(block).or_default().insert(offset, task);
        self.len += usize::from(is_new);
    }

    pub(super) fn remove(&mut self, index: &u64) -> Option<Task> {
        let (number, offset) = split(*index);
        let block = self.blocks.get_mut(&number)?;
        let task = block.remove(offset)?;
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
        self.keys().next()
    }

    /// All positions, ascending.
    pub(super) fn keys(&self) -> impl Iterator<Item = u64> {
        let of_block =
            |(number, block): (&u64, &Block)| block.offsets().map(offsets_from(*number * BLOCK_TASKS));
        self.blocks.iter().flat_map(of_block)
    }

    /// All tasks, in the order of their positions.
    pub(super) fn values(&self) -> impl Iterator<Item = &Task> {
        self.blocks.values().flat_map(|block| block.offsets().filter_map(|offset| block.get(offset)))
    }

    /// All tasks with their positions, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Task)> {
        self.keys().zip(self.values())
    }
}

/// Positions from those in a block.
fn offsets_from(first: u64) -> impl Fn(u8) -> u64 {
    move |offset| first + u64::from(offset)
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
            let (positions, numbers): (Vec<u64>, Vec<u32>) = found.iter().copied().unzip();
            let mut numbers = numbers.into_iter();
            let again = OpenTasks::of(&positions, |_| task(numbers.next().expect("one each")));
            let built: Vec<(u64, u32)> = again.iter().map(|(index, task)| (index, task.last_number)).collect();
            prop_assert_eq!((built, again.len()), (found, open.len()));
            prop_assert!(again.blocks.values().all(|block| block.tasks.capacity() == block.tasks.len()));
        }
    }

    #[test]
    fn blocks_without_tasks_take_no_memory() {
        let positions: Vec<u64> = (0..10 * BLOCK_TASKS).collect();
        let mut open = OpenTasks::of(&positions, |_| task(1));
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
