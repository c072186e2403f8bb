//! What is remembered of a worker, and how.

use crate::limits;

/// What a worker's votes have shown so far. Nothing of it is the worker's own claim.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// Unannounced checks that it passed since it was caught last, or ever.
    pub checks: u32,
    /// How often it was caught.
    pub caught: u32,
}

/// What the end of a task says about one of its voters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lesson {
    /// It was right, and could not know that anybody would look.
    Passed,
    /// It was right, but may have known, or nobody looked.
    Nothing,
    /// It was wrong.
    Caught,
}

impl Record {
    /// Takes note. Who was caught is as good as new: no worse, or it would come back under another name, which costs
    /// nothing; no better, or it would never have to.
    pub fn learn(&mut self, lesson: Lesson) {
        match lesson {
            Lesson::Passed => self.checks = self.checks.saturating_add(1),
            Lesson::Nothing => {}
            Lesson::Caught => {
                self.checks = 0;
                self.caught = self.caught.saturating_add(1);
            }
        }
    }

    /// Whether it passed enough checks to be the one in a quorum that is no newcomer.
    pub fn is_established(&self) -> bool {
        self.checks >= limits::ESTABLISHED_CHECKS
    }
}
