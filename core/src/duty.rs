//! A share of a processor, held in short slices.
//!
//! A worker that may use a part of a processor lets its executors run and stop in turns. When each of them
//! runs is a function of the time alone: nothing is counted up, so nothing drifts, and a timer that is late
//! only moves one edge.
//!
//! # Lengths
//!
//! With p per cent, run and stop slices are to each other as p to 100 − p. One period of 60 ms
//! ([`limits::DUTY_SLICE_MIN`] + [`limits::DUTY_SLICE_MAX`]) holds one of each, and both are 10 to 50 ms long, for p
//! from 17 to 83. Beyond that no two slices in that ratio lie in that range: then the shorter one has 10 ms, and the
//! longer one as much as the ratio asks for. In one formula:
//!
//! ```text
//! period = max(60 ms, 10 ms · 100 / min(p, 100 − p))     run = period · p / 100
//! ```
//!
//! Slot i of n is behind the first one by period · i / n, so that the machine's load is as even as it can be: at
//! any moment about n · p / 100 slots run.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::limits;

/// How much of each of its processors a worker may use: 1 to 100 per cent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct CpuPercent(u8);

impl CpuPercent {
    /// No throttle.
    pub const ALL: Self = Self(100);

    /// That many per cent; `None` unless 1 to 100.
    pub const fn new(percent: u8) -> Option<Self> {
        if matches!(percent, 1..=100) { Some(Self(percent)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// A number is no share of a processor. Never worth a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a share of a processor is 1 to 100 per cent")]
pub struct InvalidCpuPercent;

impl TryFrom<u8> for CpuPercent {
    type Error = InvalidCpuPercent;

    fn try_from(percent: u8) -> Result<Self, InvalidCpuPercent> {
        Self::new(percent).ok_or(InvalidCpuPercent)
    }
}

impl From<CpuPercent> for u8 {
    fn from(percent: CpuPercent) -> Self {
        percent.0
    }
}

impl FromStr for CpuPercent {
    type Err = InvalidCpuPercent;

    /// `25` or `25%`.
    fn from_str(text: &str) -> Result<Self, InvalidCpuPercent> {
        let digits = text.strip_suffix('%').unwrap_or(text);
        digits.parse().ok().and_then(Self::new).ok_or(InvalidCpuPercent)
    }
}

impl fmt::Display for CpuPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0)
    }
}

/// What a slot does now, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// Whether it runs.
    pub runs: bool,
    /// When that ends, on the clock that was asked with; `None` when it never does.
    pub until: Option<Duration>,
}

/// The turns of one slot. See the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duty {
    run: Duration,
    period: Duration,
    /// How far this slot is behind the first one.
    behind: Duration,
}

impl Duty {
    /// The turns of slot number `slot`, counted from 0, of `slots`.
    pub fn new(percent: CpuPercent, slot: u32, slots: u32) -> Self {
        let p = u32::from(percent.0);
        let shorter = p.min(100 - p).max(1);
        let period =
            (limits::DUTY_SLICE_MIN * 100 / shorter).max(limits::DUTY_SLICE_MIN + limits::DUTY_SLICE_MAX);
        let slots = slots.max(1);
        Self { run: period * p / 100, period, behind: period * (slot % slots) / slots }
    }

    /// What the slot does at `now`, a time on any clock that goes on evenly and is the same for all slots.
    pub fn at(self, now: Duration) -> Phase {
        if self.run >= self.period {
            return Phase { runs: true, until: None };
        }
        let nanos = (now + self.period.saturating_sub(self.behind)).as_nanos() % self.period.as_nanos();
        // Below the period, which is a second at most.
        let since = Duration::from_nanos(u64::try_from(nanos).unwrap_or_default());
        let runs = since < self.run;
        let end = if runs { self.run } else { self.period };
        Phase { runs, until: Some(now + end.saturating_sub(since)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn percent(percent: u8) -> CpuPercent {
        CpuPercent::new(percent).expect("1 to 100")
    }

    fn duty(p: u8) -> Duty {
        Duty::new(percent(p), 0, 1)
    }

    /// How long a slot runs from `from` to `to`, phase by phase, as a shell would follow it.
    fn runs(duty: Duty, from: Duration, to: Duration) -> Duration {
        let (mut now, mut sum) = (from, Duration::ZERO);
        while now < to {
            let phase = duty.at(now);
            let end = phase.until.map_or(to, |until| until.min(to));
            assert!(end > now, "time goes on");
            if phase.runs {
                sum += end.saturating_sub(now);
            }
            now = end;
        }
        sum
    }

    #[test]
    fn run_and_stop_slices_have_10_to_50_ms_where_the_share_allows_it() {
        let table = [
            (1, 10, 990),
            (10, 10, 90),
            (25, 15, 45),
            (50, 30, 30),
            (75, 45, 15),
            (80, 48, 12),
            (90, 90, 10),
            (99, 990, 10),
        ];
        for (p, run, stop) in table {
            let duty = duty(p);
            assert_eq!(duty.at(Duration::ZERO), Phase { runs: true, until: Some(run * MS) }, "{p} %");
            let stopped = Phase { runs: false, until: Some((run + stop) * MS) };
            assert_eq!(duty.at(run * MS), stopped, "{p} %");
            assert!(duty.at((run + stop) * MS).runs, "{p} %");
        }
        for p in 17..=83 {
            let Duty { run, period, .. } = duty(p);
            for slice in [run, period.saturating_sub(run)] {
                assert!(
                    (limits::DUTY_SLICE_MIN..=limits::DUTY_SLICE_MAX).contains(&slice),
                    "{p} %: {slice:?}"
                );
            }
        }
    }

    #[test]
    fn a_whole_processor_is_never_stopped() {
        for now in [Duration::ZERO, 59 * MS, Duration::MAX / 2] {
            assert_eq!(Duty::new(CpuPercent::ALL, 3, 4).at(now), Phase { runs: true, until: None });
        }
    }

    #[test]
    fn slots_take_turns() {
        // 25 % of four slots: exactly one runs at any time.
        let duties: Vec<Duty> = (0..4).map(|slot| Duty::new(percent(25), slot, 4)).collect();
        for now in 0..600 {
            let running: Vec<usize> = (0..4).filter(|slot| duties[*slot].at(now * MS).runs).collect();
            assert_eq!(running, [usize::try_from(now / 15 % 4).expect("small")], "at {now} ms");
        }
    }

    #[test]
    fn a_share_is_read_with_and_without_its_sign() {
        assert_eq!("25".parse(), Ok(percent(25)));
        assert_eq!("100%".parse(), Ok(CpuPercent::ALL));
        for wrong in ["", "0", "101", "-1", "256", "2.5", "25 %%"] {
            assert_eq!(wrong.parse::<CpuPercent>(), Err(InvalidCpuPercent), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn in_the_long_run_the_share_is_exact_within_a_slice(
            p in 1u8..=100,
            slots in 1u32..=1024,
            slot in 0u32..1024,
            from_micros in 0u64..10_000_000_000,
            millis in 0u32..60_000,
        ) {
            let duty = Duty::new(percent(p), slot, slots);
            let from = Duration::from_micros(from_micros);
            let span = millis * MS;
            let expected = span * u32::from(p) / 100;
            let slice = duty.run.min(duty.period.saturating_sub(duty.run));
            // Lengths are whole nanoseconds, which a period may be short of by one.
            let rounding = span / u32::try_from(duty.period.as_millis()).expect("small") / 1_000_000 + MS / 1000;
            let ran = runs(duty, from, from + span);
            prop_assert!(ran.abs_diff(expected) <= slice + rounding, "{ran:?} of {span:?}, not {expected:?}");
        }

        #[test]
        fn at_any_moment_as_many_slots_run_as_the_share_says(
            p in 1u8..=100,
            slots in 1u32..=64,
            now_micros in 0u64..10_000_000_000,
        ) {
            let now = Duration::from_micros(now_micros);
            let running = (0..slots).filter(|slot| Duty::new(percent(p), *slot, slots).at(now).runs).count();
            let hundredths = slots * u32::from(p);
            let (low, high) = (hundredths / 100, hundredths.div_ceil(100));
            // One more or less where edges of two slots are a nanosecond apart.
            prop_assert!((low.saturating_sub(1)..=high + 1).contains(&u32::try_from(running).expect("small")));
        }
    }
}
