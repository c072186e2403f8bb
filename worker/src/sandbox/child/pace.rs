//! How often checkpoints are taken: seldom enough that no program makes a disk busy with them.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use talka_core::limits;

/// The checkpoints of one attempt. Its program can't see which of those that it offers are taken.
#[derive(Debug)]
pub(super) struct Pace {
    started: Instant,
    /// When the last one was taken.
    last: Cell<Instant>,
    /// Before that, an offer is not even looked at.
    next: Cell<Instant>,
}

impl Pace {
    /// That of an attempt that starts now.
    pub(super) fn starting(now: Instant) -> Self {
        let next = now + interval(Duration::ZERO);
        Self { started: now, last: Cell::new(now), next: Cell::new(next) }
    }

    /// Whether an offer is worth a look.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.next.get()
    }

    /// Whether a checkpoint of that size is taken now. Only asked when one is due.
    pub(super) fn takes(&self, now: Instant, bytes: u64) -> bool {
        let affordable = self.last.get() + Duration::from_secs(bytes / limits::CHECKPOINT_BYTES_PER_SEC);
        let takes = bytes <= limits::TASK_CHECKPOINT_BYTES_MAX && now >= affordable;
        let pause = now + interval(now.saturating_duration_since(self.started));
        self.next.set(if bytes <= limits::TASK_CHECKPOINT_BYTES_MAX { pause.max(affordable) } else { pause });
        if takes {
            self.last.set(now);
            self.next.set(pause);
        }
        takes
    }
}

/// Time between two checkpoints of an attempt that has run for so long.
fn interval(running: Duration) -> Duration {
    let part = running / limits::CHECKPOINT_INTERVAL_PART;
    part.clamp(limits::CHECKPOINT_INTERVAL_MIN, limits::CHECKPOINT_INTERVAL_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When those checkpoints are taken that a program offers each 10 ms for `secs` seconds.
    fn taken(secs: u64, bytes: u64) -> Vec<f64> {
        let start = Instant::now();
        let pace = Pace::starting(start);
        let times = (0..secs * 100).map(|tick| Duration::from_millis(tick * 10));
        let taken = times.filter(|at| pace.is_due(start + *at) && pace.takes(start + *at, bytes));
        taken.map(|at| at.as_secs_f64()).collect()
    }

    #[test]
    fn a_program_that_offers_one_all_the_time_gets_few() {
        assert!(taken(1, 1000).is_empty(), "who ends sooner needs none");
        assert_eq!(taken(5, 1000), [1.0, 2.0, 3.0, 4.0]);
        let long = taken(7200, 1000);
        assert!(long.len() < 200, "{} in two hours", long.len());
        for pair in long.windows(2) {
            let interval = pair[1] - pair[0];
            assert!((1.0..60.1).contains(&interval), "{pair:?}");
            assert!(interval <= 1.01_f64.max(pair[1] / 8.0), "a tenth of its time at most is lost: {pair:?}");
        }
    }

    #[test]
    fn large_ones_are_taken_less_often() {
        assert_eq!(taken(61, 20 << 20), [20.0, 40.0, 60.0]);
        assert!(taken(100, limits::TASK_CHECKPOINT_BYTES_MAX + 1).is_empty());
    }
}
