//! How volunteers answer.

use serde::Deserialize;

/// What a volunteer does with its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Executes them.
    Honest,
    /// Answers wrongly, always.
    Always,
    /// Answers wrongly at a rate.
    Sometimes,
    /// Is honest for a number of tasks, then answers wrongly for good.
    After,
    /// Is honest until it has passed a number of checks, then answers wrongly until it is caught, and so on. That it knows
    /// how many checks it passed is more than any real worker can.
    Oscillate,
    /// Is honest for a number of tasks, then answers wrongly for another one, and so on, whatever comes of it.
    Turns,
    /// Says what one of its group has said on the same task, or anything if none has.
    Copy,
    /// Gives the right output and claims more fuel than it took.
    Inflate,
    /// Gives an answer of its own to an earlier task.
    Replay,
    /// Reports on attempts that others hold, and nothing on its own.
    Foreign,
    /// Takes a task and is never seen again, after a number of tasks.
    Vanish,
    /// Loses what it runs whenever its connection breaks.
    Flap,
    /// Answers rightly, when the deadline is long over.
    Late,
}

impl Strategy {
    /// Its name in a scenario.
    pub fn name(self) -> &'static str {
        match self {
            Self::Honest => "honest",
            Self::Always => "always",
            Self::Sometimes => "sometimes",
            Self::After => "after",
            Self::Oscillate => "oscillate",
            Self::Turns => "turns",
            Self::Copy => "copy",
            Self::Inflate => "inflate",
            Self::Replay => "replay",
            Self::Foreign => "foreign",
            Self::Vanish => "vanish",
            Self::Flap => "flap",
            Self::Late => "late",
        }
    }

    /// Whether it needs a rate.
    pub(super) fn has_rate(self) -> bool {
        self == Self::Sometimes
    }

    /// Whether it needs a number of tasks or checks.
    pub(super) fn has_count(self) -> bool {
        matches!(self, Self::After | Self::Oscillate | Self::Turns | Self::Vanish)
    }
}

/// An answer: 0 is right, all others are wrong in different ways.
pub(super) type Answer = u32;

/// The right answer.
pub(super) const RIGHT: Answer = 0;
