//! Waiting for conditions.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Longer than anything takes on a busy machine, and short enough for whoever waits for a broken test.
pub(crate) const LONG: Duration = Duration::from_mins(1);

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `check` has an answer; panics with `what` when there is none in time.
#[track_caller]
pub(crate) fn until<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = check() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {} s for {what}", limit.as_secs());
        thread::sleep(PAUSE);
    }
}
