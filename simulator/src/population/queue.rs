//! Tasks that wait for somebody who may have them.

use std::collections::VecDeque;

/// A task's number.
pub(super) type TaskNo = u32;

/// How many tasks somebody is offered before it is sent away.
const LOOK: usize = 64;

/// Tasks that need another attempt, oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<TaskNo>);

impl Queue {
    pub(super) fn push(&mut self, task: TaskNo) {
        self.0.push_back(task);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the first task that will do, among those that wait longest.
    pub(super) fn take(&mut self, will_do: impl Fn(TaskNo) -> bool) -> Option<TaskNo> {
        let place = self.0.iter().take(LOOK).position(|task| will_do(*task))?;
        self.0.remove(place)
    }

    pub(super) fn pop(&mut self) -> Option<TaskNo> {
        self.0.pop_front()
    }
}
