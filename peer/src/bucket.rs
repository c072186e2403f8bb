//! A token bucket without a clock: rate limits of requests and of uploaded bytes.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

/// What a flow may send at once after a pause: one group of each of a few streams.
const SHAPE_BURST_BYTES: u64 = 64 << 10;
/// The same as time at the rate: a timer or a busy machine wakes a flow late by some of that, and what it misses it makes
/// up for. Without it a cap of 100 MiB/s was reached to nine tenths.
const SHAPE_BURST_MILLIS: u64 = 25;
/// Shorter waits are not slept: timers tick each millisecond, and a debt adds up until it is due.
const SHAPE_WAIT_MIN: Duration = Duration::from_millis(4);

/// Longer debts are cut to this: no caller waits so long, and sums of times never overflow.
const DEBT_MAX: Duration = Duration::from_hours(24);

/// Allows `rate` tokens per second, and `burst` at once after a pause.
///
/// It remembers one moment, the one at which it will be full again, so it needs no timer and no arithmetic
/// on fractions of tokens.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    rate_per_second: u64,
    burst: Duration,
    full_at: Option<Instant>,
}

impl TokenBucket {
    /// A full bucket. A rate of 0 is taken as 1: what is limited to nothing should not be offered.
    pub fn new(rate_per_second: u64, burst: u64) -> Self {
        let rate_per_second = rate_per_second.max(1);
        Self { rate_per_second, burst: time_for(burst.max(1), rate_per_second), full_at: None }
    }

    /// A bucket that shapes a flow of so many bytes per second; see [`pause`](Self::pause).
    pub(crate) fn shaping(rate: NonZeroU64) -> Self {
        let late = u128::from(rate.get()) * u128::from(SHAPE_BURST_MILLIS) / 1000;
        Self::new(rate.get(), SHAPE_BURST_BYTES.max(u64::try_from(late).unwrap_or(u64::MAX)))
    }

    /// How long a flow sleeps before it passes on these bytes, if at all.
    pub(crate) fn pause(&mut self, now: Instant, bytes: u64) -> Option<Duration> {
        Some(self.reserve(now, bytes)).filter(|wait| *wait >= SHAPE_WAIT_MIN)
    }

    /// Takes `tokens` if they are there; else says how long until they are. More than the burst never are.
    pub fn take(&mut self, now: Instant, tokens: u64) -> Result<(), Duration> {
        let debt = self.debt(now).saturating_add(time_for(tokens, self.rate_per_second));
        let wait = debt.saturating_sub(self.burst);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.full_at = Some(now + debt);
        Ok(())
    }

    /// Takes `tokens` in any case, and says how long to wait before using them. This shapes a flow whose pieces
    /// may be larger than the burst.
    pub fn reserve(&mut self, now: Instant, tokens: u64) -> Duration {
        let debt = self.debt(now).saturating_add(time_for(tokens, self.rate_per_second)).min(DEBT_MAX);
        self.full_at = Some(now + debt);
        debt.saturating_sub(self.burst)
    }

    /// Whether nothing is owed: such a bucket is as good as a new one and may be forgotten.
    pub fn is_full(&self, now: Instant) -> bool {
        self.debt(now).is_zero()
    }

    fn debt(&self, now: Instant) -> Duration {
        self.full_at.map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now))
    }
}

fn time_for(tokens: u64, rate_per_second: u64) -> Duration {
    let nanos = u128::from(tokens) * 1_000_000_000 / u128::from(rate_per_second);
    u64::try_from(nanos).map_or(DEBT_MAX, Duration::from_nanos).min(DEBT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_passes_at_once_and_then_only_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, 5);
        for _ in 0..5 {
            assert_eq!(bucket.take(start, 1), Ok(()));
        }
        assert_eq!(bucket.take(start, 1), Err(ms(100)));
        assert_eq!(bucket.take(start + ms(99), 1), Err(ms(1)));
        assert_eq!(bucket.take(start + ms(100), 1), Ok(()));
        assert_eq!(bucket.take(start + ms(100), 1), Err(ms(100)));
        assert!(!bucket.is_full(start + ms(599)));
        assert!(bucket.is_full(start + ms(600)));
    }

    #[test]
    fn a_refusal_costs_nothing_and_a_pause_saves_no_more_than_the_burst() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(1000, 2);
        assert_eq!(bucket.take(start, 3), Err(ms(1)));
        assert_eq!(bucket.take(start, 2), Ok(()));
        let later = start + Duration::from_hours(1);
        assert_eq!(bucket.take(later, 3), Err(ms(1)));
        assert_eq!(bucket.take(later, 2), Ok(()));
    }

    #[test]
    fn a_reservation_is_always_granted_and_tells_when() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(1000, 100);
        assert_eq!(bucket.reserve(start, 100), Duration::ZERO);
        assert_eq!(bucket.reserve(start, 500), ms(500));
        assert_eq!(bucket.reserve(start + ms(500), 100), ms(100));
        assert_eq!(bucket.reserve(start, u64::MAX), DEBT_MAX.saturating_sub(ms(100)));
    }

    /// Flows that have always something to send, whose sleeps end late. Returns bytes per second of a cap.
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    fn reached(rate: u64, flows: usize, late: impl Fn(u64) -> Duration) -> f64 {
        const GROUP: u64 = 16 << 10;
        let start = Instant::now();
        let mut bucket = TokenBucket::shaping(NonZeroU64::new(rate).expect("a rate"));
        let over = start + Duration::from_secs(if rate < 1 << 20 { 300 } else { 20 });
        let (mut ready, mut sent, mut sleeps) = (vec![start; flows], 0, 0);
        loop {
            let next = ready.iter_mut().min().expect("a flow");
            if *next >= over {
                return sent as f64 / over.duration_since(start).as_secs_f64() / rate as f64;
            }
            if let Some(pause) = bucket.pause(*next, GROUP) {
                sleeps += 1;
                *next += pause + late(sleeps);
            } else {
                // What it takes to send it; without that a model would stand still.
                *next += Duration::from_micros(1);
            }
            sent += GROUP;
        }
    }

    #[test]
    fn a_cap_is_reached_within_five_per_cent_and_not_exceeded_by_more() {
        let timer = |sleep: u64| Duration::from_micros(sleep * 7919 % 1000);
        let busy = |sleep: u64| Duration::from_micros(sleep * 7919 % 20_000);
        for rate in [64 << 10, 1 << 20, 3_000_000, 10 << 20, 100 << 20, 1 << 30] {
            for flows in [1, 3, 24] {
                for (machine, share) in
                    [("quiet", reached(rate, flows, timer)), ("busy", reached(rate, flows, busy))]
                {
                    assert!((0.95..=1.05).contains(&share), "{rate} B/s, {flows} flows, {machine}: {share}");
                }
            }
        }
    }

    #[test]
    fn a_clock_that_steps_back_does_no_harm() {
        let earlier = Instant::now();
        let start = earlier + Duration::from_secs(1);
        let mut bucket = TokenBucket::new(0, 0);
        assert_eq!(bucket.take(start, 1), Ok(()));
        assert!(bucket.take(earlier, 1).is_err());
    }
}
