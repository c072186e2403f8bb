//! A clock that never steps, for what `talka-core` decides by time.

use std::time::Duration;

use talka_core::quantities::Timestamp;
use tokio::time::Instant;

/// Counts from an hour after nothing, so that a moment before the start can be written down, too.
const START: Duration = Duration::from_hours(1);

/// Time since it was started; comparable only with itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Monotonic(Instant);

impl Monotonic {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Timestamp {
        Timestamp::default() + START + self.0.elapsed()
    }
}
