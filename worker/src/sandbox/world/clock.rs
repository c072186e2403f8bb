//! Virtual time: it moves only when the program looks at it or sleeps.

use std::time::Duration;

use talka_core::{limits, outcome::Limit};

use super::errno::{Answer, Errno, Fault};

/// How far the clock moves at each look, and what it states as its resolution.
pub(crate) const TICK_NANOS: u64 = 1_000_000;

/// Which of the clocks of WASI is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClockId {
    /// Nanoseconds since the Unix epoch.
    Realtime,
    /// Nanoseconds since the program started. CPU time is the same: nobody else runs in this world.
    Monotonic,
}

impl TryFrom<u32> for ClockId {
    type Error = Errno;

    fn try_from(id: u32) -> Result<Self, Errno> {
        match id {
            0 => Ok(Self::Realtime),
            1..=3 => Ok(Self::Monotonic),
            _ => Err(Errno::Inval),
        }
    }
}

/// The clock of one program. All in nanoseconds.
#[derive(Debug)]
pub(crate) struct Clock {
    start: u64,
    elapsed: u64,
    slept: u64,
}

impl Clock {
    /// A clock whose program starts at `start_secs` since the Unix epoch.
    pub(crate) fn new(start_secs: u64) -> Self {
        Self { start: start_secs.saturating_mul(1_000_000_000), elapsed: 0, slept: 0 }
    }

    /// Moves by one tick and tells the time. Never 0: Go's runtime refuses to start at a monotonic 0.
    pub(crate) fn read(&mut self, id: ClockId) -> u64 {
        self.elapsed = self.elapsed.saturating_add(TICK_NANOS);
        self.peek(id)
    }

    /// The time, without moving it.
    pub(crate) fn peek(&self, id: ClockId) -> u64 {
        match id {
            ClockId::Realtime => self.start.saturating_add(self.elapsed),
            ClockId::Monotonic => self.elapsed,
        }
    }

    /// Time from now to `at` on that clock; 0 when it has passed.
    pub(crate) fn until(&self, id: ClockId, at: u64) -> Duration {
        Duration::from_nanos(at.saturating_sub(self.peek(id)))
    }

    /// Nanoseconds that have passed, and of these the ones that were slept.
    pub(crate) fn position(&self) -> (u64, u64) {
        (self.elapsed, self.slept)
    }

    /// Goes on from an earlier [position](Self::position).
    pub(crate) fn set_position(&mut self, elapsed: u64, slept: u64) -> Answer<()> {
        if u128::from(slept) > limits::TASK_SLEEP_MAX.as_nanos() {
            return Err(Fault::limit(Limit::Sleep));
        }
        (self.elapsed, self.slept) = (elapsed, slept);
        Ok(())
    }

    /// Jumps ahead. All jumps together are limited.
    pub(crate) fn sleep(&mut self, time: Duration) -> Answer<()> {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.slept = self.slept.saturating_add(nanos);
        if u128::from(self.slept) > limits::TASK_SLEEP_MAX.as_nanos() {
            return Err(Fault::limit(Limit::Sleep));
        }
        self.elapsed = self.elapsed.saturating_add(nanos);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_look_moves_both_clocks_by_one_tick() {
        let mut clock = Clock::new(1000);
        assert_eq!(clock.read(ClockId::Monotonic), TICK_NANOS);
        assert_eq!(clock.read(ClockId::Realtime), 1_000_000_000_000 + 2 * TICK_NANOS);
        assert_eq!(clock.read(ClockId::Monotonic), 3 * TICK_NANOS);
    }

    #[test]
    fn sleeping_is_a_jump_and_limited_in_sum() {
        let mut clock = Clock::new(0);
        let half = limits::TASK_SLEEP_MAX / 2;
        clock.sleep(half).expect("within the limit");
        clock.sleep(half).expect("exactly the limit");
        assert_eq!(u128::from(clock.peek(ClockId::Monotonic)), limits::TASK_SLEEP_MAX.as_nanos());
        assert_eq!(clock.sleep(Duration::from_nanos(1)), Err(Fault::limit(Limit::Sleep)));
    }

    #[test]
    fn a_start_beyond_64_bits_saturates() {
        let mut clock = Clock::new(u64::MAX);
        assert_eq!(clock.read(ClockId::Realtime), u64::MAX);
    }
}
