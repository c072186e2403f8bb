//! The key of a task's rows: its job in the upper half, its position in the lower one. So the tasks of a
//! job lie together, new ones are appended, and a range of a job is a range of keys.

use std::ops::RangeInclusive;

use talka_core::{
    ids::{JobId, TaskId},
    limits,
};

use crate::store::StoreError;

const INDEX_BITS: u32 = 32;
const INDEX_MAX: u64 = (1 << INDEX_BITS) - 1;
const _: () = assert!(limits::JOB_TASKS_MAX <= INDEX_MAX);
/// Keys are 63 bits.
const JOB_MAX: u64 = (1 << 31) - 1;

/// The key of one task.
pub(super) fn task_key(task: TaskId) -> Result<u64, StoreError> {
    if task.job.get() > JOB_MAX || task.index > INDEX_MAX {
        return Err(StoreError::refused(format!("task {task} is above what a key can hold")));
    }
    Ok(task.job.get() << INDEX_BITS | task.index)
}

/// The inverse of [`task_key`].
pub(super) fn task_of(key: u64) -> TaskId {
    TaskId { job: JobId::new(key >> INDEX_BITS), index: key & INDEX_MAX }
}

/// Tasks of one block of `final_block`, as a power of two. A larger block costs a restart more reads for each task
/// that is open, a smaller one each commit more writes.
const BLOCK_BITS: u32 = 10;

/// Tasks of one block.
pub(super) const BLOCK_TASKS: u64 = 1 << BLOCK_BITS;

/// The block of a task's key.
pub(super) const fn block_of(key: u64) -> u64 {
    key >> BLOCK_BITS
}

/// The keys of a job's tasks from position `from` on; empty when no task can be there.
pub(super) fn task_keys(job: JobId, from: u64) -> RangeInclusive<u64> {
    let last = task_key(TaskId { job, index: INDEX_MAX });
    match (task_key(TaskId { job, index: from }), last) {
        (Ok(first), Ok(last)) => first..=last,
        #[expect(clippy::reversed_empty_ranges, reason = "the empty range is meant")]
        _ => 1..=0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_and_sort_as_tasks_do() {
        let task = |job, index| TaskId { job: JobId::new(job), index };
        let tasks = [task(1, 0), task(1, 7), task(1, INDEX_MAX), task(2, 0), task(JOB_MAX, INDEX_MAX)];
        let keys: Vec<_> = tasks.iter().map(|task| task_key(*task).expect("in range")).collect();
        assert!(keys.is_sorted());
        assert_eq!(keys.iter().map(|key| task_of(*key)).collect::<Vec<_>>(), tasks);
        assert!(i64::try_from(keys[4]).is_ok());
        assert!(task_key(task(JOB_MAX + 1, 0)).is_err());
        assert!(task_key(task(1, INDEX_MAX + 1)).is_err());
    }

    #[test]
    fn a_range_ends_with_its_job() {
        let keys = task_keys(JobId::new(3), 5);
        assert_eq!(task_of(*keys.start()), TaskId { job: JobId::new(3), index: 5 });
        assert_eq!(keys.end() + 1, *task_keys(JobId::new(4), 0).start());
        assert!(task_keys(JobId::new(3), u64::MAX).is_empty());
    }
}
