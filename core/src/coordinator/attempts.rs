//! The attempts at one task: mostly one, and that one lies in the task itself, as millions of tasks may be open.

use std::ops::{Deref, DerefMut};

use super::task::Attempt;

/// See the [module](self). It is used as the slice that it stands for, oldest first.
#[derive(Debug, Default)]
pub(super) enum Attempts {
    /// Nobody has the task.
    #[default]
    None,
    /// As in most tasks.
    One(Attempt),
    /// Rarely none or one, of those that there were.
    Many(Vec<Attempt>),
}

impl Attempts {
    /// Adds one behind the others.
    pub(super) fn push(&mut self, attempt: Attempt) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(attempt),
            Self::One(first) => Self::Many(vec![first, attempt]),
            Self::Many(mut all) => {
                // Most tasks have as many attempts as must agree, and there are many tasks.
                all.reserve_exact(1);
                all.push(attempt);
                Self::Many(all)
            }
        };
    }

    /// Drops those that `stays` does not confirm.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(&Attempt) -> bool) {
        match self {
            Self::One(attempt) if !stays(attempt) => *self = Self::None,
            Self::None | Self::One(_) => {}
            Self::Many(all) => all.retain(stays),
        }
    }
}

impl Deref for Attempts {
    type Target = [Attempt];

    fn deref(&self) -> &[Attempt] {
        match self {
            Self::None => &[],
            Self::One(attempt) => std::slice::from_ref(attempt),
            Self::Many(all) => all,
        }
    }
}

impl DerefMut for Attempts {
    fn deref_mut(&mut self) -> &mut [Attempt] {
        match self {
            Self::None => &mut [],
            Self::One(attempt) => std::slice::from_mut(attempt),
            Self::Many(all) => all,
        }
    }
}

impl<'a> IntoIterator for &'a Attempts {
    type Item = &'a Attempt;
    type IntoIter = std::slice::Iter<'a, Attempt>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        coordinator::task::{AttemptState, Task},
        ids::{LeaseId, PeerNo},
    };

    fn attempt(number: u32) -> Attempt {
        let (peer, lease) = (PeerNo::new(number), LeaseId::new(0));
        Attempt { number, ordinal: number, peer, lease, state: AttemptState::Leased }
    }

    proptest! {
        /// What a vector would do.
        #[test]
        fn they_are_a_vector(changes in prop::collection::vec((any::<bool>(), 0_u32..6), 0..40)) {
            let (mut attempts, mut model) = (Attempts::default(), Vec::new());
            for (adds, number) in changes {
                if adds {
                    attempts.push(attempt(number));
                    model.push(number);
                } else {
                    attempts.retain(|attempt| attempt.number != number);
                    model.retain(|known| *known != number);
                }
                let found: Vec<u32> = attempts.iter().map(|attempt| attempt.number).collect();
                prop_assert_eq!(&found, &model);
                prop_assert_eq!(attempts.iter_mut().count(), model.len());
            }
        }
    }

    #[test]
    fn a_task_with_one_attempt_is_small_and_has_nothing_beside_it() {
        let mut attempts = Attempts::default();
        attempts.push(attempt(1));
        assert!(matches!(attempts, Attempts::One(_)));
        assert!(size_of::<Attempts>() <= 40, "{} bytes", size_of::<Attempts>());
        assert!(size_of::<(u8, Task)>() <= 80, "{} bytes", size_of::<(u8, Task)>());
    }
}
