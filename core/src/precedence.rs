//! Who goes first: weights of submitters, priorities of jobs.
//!
//! A weight is the coordinator's owner's word on how much of the grid a submitter gets while others want it,
//! too; a priority is a submitter's own word on which of its jobs goes first. So no submitter can outrank
//! another one.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::limits;

/// A number is no priority, or no weight. Choose another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPrecedence {
    /// A job's priority.
    #[error("priority {0} is not between {min} and {max}", min = limits::PRIORITY_MIN, max = limits::PRIORITY_MAX)]
    Priority(i64),
    /// A submitter's weight.
    #[error("weight {0} is not between 1 and {max}", max = limits::WEIGHT_MAX)]
    Weight(u64),
}

/// Among the jobs of one submitter, those of higher priority go first.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Priority(i32);

impl Priority {
    /// A priority between [`limits::PRIORITY_MIN`] and [`limits::PRIORITY_MAX`].
    pub fn new(priority: i64) -> Result<Self, InvalidPrecedence> {
        let range = i64::from(limits::PRIORITY_MIN)..=i64::from(limits::PRIORITY_MAX);
        let valid = i32::try_from(priority).ok().filter(|_| range.contains(&priority));
        valid.map(Self).ok_or(InvalidPrecedence::Priority(priority))
    }

    /// The number.
    pub const fn get(self) -> i32 {
        self.0
    }
}

impl TryFrom<i64> for Priority {
    type Error = InvalidPrecedence;

    fn try_from(priority: i64) -> Result<Self, InvalidPrecedence> {
        Self::new(priority)
    }
}

impl From<Priority> for i64 {
    fn from(priority: Priority) -> Self {
        priority.0.into()
    }
}

/// A submitter of weight 3 gets three times what one of weight 1 gets, while both want more than there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Weight(NonZeroU32);

impl Weight {
    /// A weight between 1 and [`limits::WEIGHT_MAX`].
    pub fn new(weight: u64) -> Result<Self, InvalidPrecedence> {
        let number = u32::try_from(weight).ok().filter(|number| *number <= limits::WEIGHT_MAX);
        number.and_then(NonZeroU32::new).map(Self).ok_or(InvalidPrecedence::Weight(weight))
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(NonZeroU32::MIN)
    }
}

impl TryFrom<u64> for Weight {
    type Error = InvalidPrecedence;

    fn try_from(weight: u64) -> Result<Self, InvalidPrecedence> {
        Self::new(weight)
    }
}

impl From<Weight> for u64 {
    fn from(weight: Weight) -> Self {
        weight.get().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_in_range_are_priorities_and_weights() {
        for good in [-100, -1, 0, 100] {
            assert_eq!(Priority::new(good).map(i64::from), Ok(good));
        }
        for bad in [-101, 101, i64::MIN, i64::MAX] {
            assert_eq!(Priority::new(bad), Err(InvalidPrecedence::Priority(bad)));
        }
        for good in [1, 1000] {
            assert_eq!(Weight::new(good).map(u64::from), Ok(good));
        }
        for bad in [0, 1001, u64::MAX] {
            assert_eq!(Weight::new(bad), Err(InvalidPrecedence::Weight(bad)));
        }
        let message = "priority 101 is not between -100 and 100";
        assert_eq!(InvalidPrecedence::Priority(101).to_string(), message);
    }
}
