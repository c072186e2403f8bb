//! The sieve of Eratosthenes over odd numbers, a byte each.

/// How many primes there are up to `largest`.
#[inline(never)]
pub fn sieve(largest: u32) -> u64 {
    if largest < 2 {
        return 0;
    }
    // Number 2i + 1 is at i. The 1 stands for the 2, which is the prime that is missing.
    let count = largest.div_ceil(2) as usize;
    let mut composite = vec![false; count];
    let mut at = 1_usize;
    loop {
        let number = 2 * at + 1;
        let square = number.checked_mul(number).map_or(count, |square| square / 2);
        if square >= count {
            break;
        }
        if !composite[at] {
            for multiple in composite[square..].iter_mut().step_by(number) {
                *multiple = true;
            }
        }
        at += 1;
    }
    composite.into_iter().map(|composite| u64::from(!composite)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_counted() {
        for (largest, primes) in [
            (0, 0),
            (1, 0),
            (2, 1),
            (3, 2),
            (4, 2),
            (8, 4),
            (9, 4),
            (100, 25),
            (121, 30),
            (1_000_000, 78_498),
        ] {
            assert_eq!(sieve(largest), primes, "up to {largest}");
        }
    }
}
