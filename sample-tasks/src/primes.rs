//! How many primes lie in an interval, by a segmented sieve of Eratosthenes.
//!
//! Memory stays below 8 MiB wherever the interval lies. Up to 2⁴⁴ the sieve alone decides; beyond
//! that it would need more base primes than are worth storing, so what survives it is settled by a
//! deterministic Miller–Rabin test.

/// Base primes are below this: the sieve alone decides about numbers below its square.
const BASE_END: u64 = 1 << 22;

/// Odd numbers that are sieved at a time, one byte each: half a mebibyte, about a second-level cache.
const SEGMENT_ODDS: usize = 1 << 19;

/// Bases for which Miller–Rabin errs on no number below 3.18 · 10²³
/// (Sorenson and Webster, "Strong pseudoprimes to twelve prime bases", 2017).
const WITNESSES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];

/// The interval `[index * width, (index + 1) * width)`, or `None` when its end exceeds 64 bits.
pub fn interval(index: u64, width: u64) -> Option<(u64, u64)> {
    let low = index.checked_mul(width)?;
    Some((low, low.checked_add(width)?))
}

/// The number of primes `p` with `low <= p < high`.
pub fn count(low: u64, high: u64) -> u64 {
    let base_primes = odd_primes_below((high.isqrt() + 1).min(BASE_END));
    let mut total = u64::from(low <= 2 && 2 < high);
    let mut composite = vec![false; SEGMENT_ODDS];
    // The first odd number that may be prime.
    let mut start = low.max(3) | 1;
    while start < high {
        let odds = (high - start).div_ceil(2).min(SEGMENT_ODDS as u64);
        let segment = &mut composite[..to_index(odds)];
        mark_composites(start, segment, &base_primes);
        total += segment
            .iter()
            .zip(0..)
            .filter(|&(&composite, i)| !composite && is_prime_after_sieve(start + 2 * i))
            .count() as u64;
        let Some(next) = start.checked_add(2 * odds) else {
            break;
        };
        start = next;
    }
    total
}

/// All odd primes below `end`, by a plain sieve.
fn odd_primes_below(end: u64) -> Vec<u32> {
    // Place i stands for the odd number 2 i + 1.
    let mut composite = vec![false; to_index(end / 2)];
    let mut primes = Vec::new();
    for i in 1..composite.len() {
        if composite[i] {
            continue;
        }
        let prime = 2 * i + 1;
        primes.push(u32::try_from(prime).expect("base primes are below 2^22"));
        // Multiples below the square are marked already. Where it overflows, as it may with 32 bits,
        // it lies beyond the end.
        let Some(square) = i.checked_mul(2 * (i + 1)) else {
            continue;
        };
        for place in (square..composite.len()).step_by(prime) {
            composite[place] = true;
        }
    }
    primes
}

/// Marks the multiples of `base_primes` in `segment`, whose place `i` stands for `start + 2 i`.
/// A base prime itself stays unmarked.
fn mark_composites(start: u64, segment: &mut [bool], base_primes: &[u32]) {
    segment.fill(false);
    let last = start + 2 * (segment.len() as u64 - 1);
    for prime in base_primes.iter().map(|prime| u64::from(*prime)) {
        let square = prime * prime;
        if square > last {
            break;
        }
        // Half the way to the first odd multiple; an even one has no place here.
        let first = if square >= start {
            (square - start) / 2
        } else {
            let beyond = (prime - start % prime) % prime;
            if beyond.is_multiple_of(2) { beyond / 2 } else { beyond.midpoint(prime) }
        };
        if first < segment.len() as u64 {
            for composite in segment[to_index(first)..].iter_mut().step_by(to_index(prime)) {
                *composite = true;
            }
        }
    }
}

/// Whether the odd number `n`, which no base prime divides, is prime.
fn is_prime_after_sieve(n: u64) -> bool {
    n < BASE_END * BASE_END || WITNESSES.iter().all(|&base| is_strong_probable_prime(n, base))
}

/// One round of Miller–Rabin, for odd `n` above all bases.
fn is_strong_probable_prime(n: u64, base: u64) -> bool {
    let twos = (n - 1).trailing_zeros();
    let mut power = power_modulo(base, (n - 1) >> twos, n);
    if power == 1 || power == n - 1 {
        return true;
    }
    for _ in 1..twos {
        power = multiply_modulo(power, power, n);
        if power == n - 1 {
            return true;
        }
    }
    false
}

fn power_modulo(base: u64, mut exponent: u64, modulus: u64) -> u64 {
    let mut square = base;
    let mut power = 1;
    while exponent > 0 {
        if exponent % 2 == 1 {
            power = multiply_modulo(power, square, modulus);
        }
        square = multiply_modulo(square, square, modulus);
        exponent /= 2;
    }
    power
}

fn multiply_modulo(a: u64, b: u64, modulus: u64) -> u64 {
    let remainder = u128::from(a) * u128::from(b) % u128::from(modulus);
    u64::try_from(remainder).expect("a remainder is below its 64-bit modulus")
}

/// A number that was just bounded by a segment's or the base sieve's length.
fn to_index(value: u64) -> usize {
    usize::try_from(value).expect("bounded by 2^22")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_prime_by_trial_division(n: u64) -> bool {
        n >= 2 && (2..=n.isqrt()).all(|divisor| !n.is_multiple_of(divisor))
    }

    #[test]
    fn powers_of_ten_give_the_published_counts() {
        for (high, primes) in [
            (10, 4),
            (100, 25),
            (1_000, 168),
            (10_000, 1_229),
            (100_000, 9_592),
            (1_000_000, 78_498),
            (10_000_000, 664_579),
        ] {
            assert_eq!(count(0, high), primes, "below {high}");
        }
    }

    #[test]
    fn every_short_interval_agrees_with_trial_division() {
        for low in 0..70 {
            for high in low..140 {
                let primes = (low..high).filter(|&n| is_prime_by_trial_division(n));
                assert_eq!(count(low, high), primes.count() as u64, "[{low}, {high})");
            }
        }
    }

    #[test]
    fn intervals_add_up_across_segment_borders() {
        let whole = count(0, 5_000_000);
        assert_eq!(whole, 348_513);
        for width in [333_333, 1 << 20, 1_048_577] {
            let parts: u64 = (0..5_000_000_u64.div_ceil(width))
                .map(|i| count(i * width, ((i + 1) * width).min(5_000_000)))
                .sum();
            assert_eq!(parts, whole, "width {width}");
        }
    }

    #[test]
    fn beyond_the_sieve_the_test_by_witnesses_decides() {
        // Around 2^44, where the second method takes over, as another program counts them.
        assert_eq!(count((1 << 44) - 50_000, (1 << 44) + 50_000), 3_261);
        // The last prime below 2^64 is 2^64 - 59.
        assert_eq!(count(u64::MAX - 58, u64::MAX), 1);
        assert_eq!(count(u64::MAX - 57, u64::MAX), 0);
        // The square of the largest prime below 2^32: no base prime divides it.
        let square = 4_294_967_291 * 4_294_967_291;
        assert_eq!(count(square, square + 1), 0);
    }

    #[test]
    fn interval_that_ends_beyond_64_bits_is_none() {
        assert_eq!(interval(3, 10), Some((30, 40)));
        assert_eq!(interval(0, u64::MAX), Some((0, u64::MAX)));
        assert_eq!(interval(1, u64::MAX), None);
        assert_eq!(interval(u64::MAX, 2), None);
    }
}
