//! Recent average credit, as BOINC counts it: `update_average` in its `lib/util.cpp`.
//!
//! Credit per day, in which work counts half after seven days. New work `c` at a time `t` after the last update
//! is taken as spread evenly over that time:
//!
//! ```text
//! w = 2^(−t / half life)        average ← average · w + (1 − w) · c / t        t in days
//! ```
//!
//! and when `t` is next to nothing, as the limit of that: `average + c · ln 2 / half life in days`. So whoever earns
//! `c` every `t` days has after `n` times the average `c / t · (1 − wⁿ)`, and in the end `c / t`. BOINC spreads
//! the first work ever over the time that it took; this ledger knows no beginning of it and takes the limit.
//! It also doesn't let an average sink by itself until it is updated; [`Average::at`] does.

/// Time after which work counts half, in seconds: BOINC's seven days.
pub const HALF_LIFE_SECS: u64 = 7 * DAY_SECS;

const DAY_SECS: u64 = 24 * 3600;

/// Below it, BOINC takes the limit of its formula.
const NEXT_TO_NOTHING: f64 = 1e-6;

/// A recent average.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Average {
    /// Credits per day at the last update.
    pub per_day: f64,
    /// When that was, in seconds since the Unix epoch; 0 before the first one.
    pub at_secs: u64,
}

/// The day of a moment, counted from the Unix epoch, in UTC.
pub const fn day_of(at_secs: u64) -> u64 {
    at_secs / DAY_SECS
}

#[expect(clippy::cast_precision_loss, reason = "seconds of some centuries are exact")]
const fn float(secs: u64) -> f64 {
    secs as f64
}

impl Average {
    /// Takes `credits` into account that were granted (or, below zero, revoked) at a moment.
    pub fn add(&mut self, at_secs: u64, credits: f64) {
        let known = if self.at_secs == 0 { at_secs } else { self.at_secs };
        let elapsed = float(at_secs.saturating_sub(known));
        let weight = weight(elapsed);
        self.per_day *= weight;
        self.per_day += if 1.0 - weight > NEXT_TO_NOTHING {
            (1.0 - weight) * credits / (elapsed / float(DAY_SECS))
        } else {
            std::f64::consts::LN_2 * credits * float(DAY_SECS) / float(HALF_LIFE_SECS)
        };
        // What is revoked may have counted for more than what is left of it.
        self.per_day = self.per_day.max(0.0);
        self.at_secs = at_secs.max(known);
    }

    /// Credits per day at a later moment, if nothing comes until then.
    pub fn at(&self, at_secs: u64) -> f64 {
        self.per_day * weight(float(at_secs.saturating_sub(self.at_secs)))
    }
}

fn weight(elapsed_secs: f64) -> f64 {
    (-elapsed_secs * std::f64::consts::LN_2 / float(HALF_LIFE_SECS)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_work_gives_the_closed_form() {
        for (every_secs, credits) in [(DAY_SECS, 10.0), (3600, 0.5), (HALF_LIFE_SECS, 7.0), (600, 123.0)] {
            // An average of nothing at a known moment, so that each grant is spread over the time before it.
            let mut average = Average { per_day: 0.0, at_secs: 1_000_000 };
            let rate = credits / (float(every_secs) / float(DAY_SECS));
            for n in 1..=2000_u32 {
                average.add(1_000_000 + u64::from(n) * every_secs, credits);
                let expected =
                    rate * (1.0 - weight(float(every_secs)).powi(i32::try_from(n).expect("small")));
                assert!((average.per_day - expected).abs() < 1e-9 * rate, "{every_secs} {n}");
            }
        }
    }

    #[test]
    fn it_halves_in_seven_days() {
        let average = Average { per_day: 8.0, at_secs: 5 };
        for (weeks, expected) in [(0, 8.0), (1, 4.0), (2, 2.0), (3, 1.0)] {
            assert!((average.at(5 + weeks * HALF_LIFE_SECS) - expected).abs() < 1e-12, "{weeks}");
        }
        assert!((average.at(0) - 8.0).abs() < 1e-12, "a clock that went back changes nothing");
    }

    #[test]
    fn work_at_one_moment_counts_by_the_limit_of_the_formula() {
        let limit = std::f64::consts::LN_2 / 7.0;
        let mut first = Average::default();
        first.add(1000, 7.0);
        assert!((first.per_day - 7.0 * limit).abs() < 1e-12);
        let mut together = first;
        together.add(1000, 7.0);
        assert!((together.per_day - 14.0 * limit).abs() < 1e-12);
        let mut near = first;
        near.add(1001, 7.0);
        assert!((near.per_day - together.per_day).abs() < 1e-4, "no jump between the two forms");
    }

    #[test]
    fn what_is_revoked_goes_and_never_below_nothing() {
        let mut average = Average::default();
        average.add(1000, 7.0);
        average.add(1000, -7.0);
        assert!(average.per_day.abs() < 1e-12);
        average.add(2000, -7.0);
        assert!(average.per_day >= 0.0);
    }

    #[test]
    fn days_begin_at_midnight_in_greenwich() {
        assert_eq!([0, 86_399, 86_400].map(day_of), [0, 0, 1]);
    }
}
