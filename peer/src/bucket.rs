//! A token bucket without a clock: rate limits of requests and of uploaded bytes.

use std::time::{Duration, Instant};

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

    #[test]
    fn a_clock_that_steps_back_does_no_harm() {
        let earlier = Instant::now();
        let start = earlier + Duration::from_secs(1);
        let mut bucket = TokenBucket::new(0, 0);
        assert_eq!(bucket.take(start, 1), Ok(()));
        assert!(bucket.take(earlier, 1).is_err());
    }
}
