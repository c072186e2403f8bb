//! The longest Collatz chain of an interval, in pieces that can be picked up where they were left.

use std::fmt;
use std::str::FromStr;

/// Starts that are looked at between two checkpoints: some hundredths of a second of work.
pub const PIECE_STARTS: u64 = 100_000;

/// A start and the steps that it takes to reach 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// Where it begins.
    pub start: u64,
    /// How many steps it takes.
    pub steps: u32,
}

/// How far a search is: all that has to be known to go on with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Search {
    /// The first start that was not looked at.
    pub next: u64,
    /// The first start behind the interval.
    pub end: u64,
    /// The longest chain so far, the first of those that are as long; none before the first start.
    pub longest: Option<Chain>,
}

impl Search {
    /// A search of the interval of task `index`, or `None` when its end exceeds 64 bits. 0 has no chain and is
    /// left out.
    pub fn of_task(index: u64, width: u64) -> Option<Self> {
        let low = index.checked_mul(width)?;
        Some(Self { next: low.max(1), end: low.checked_add(width)?, longest: None })
    }

    /// Whether every start was looked at.
    pub fn is_done(&self) -> bool {
        self.next >= self.end
    }

    /// Looks at the next piece. `None` when a chain exceeds 128 bits, which no start of 64 bits is known to do.
    pub fn advance(&mut self) -> Option<()> {
        let piece_end = self.next.saturating_add(PIECE_STARTS).min(self.end);
        while self.next < piece_end {
            let found = Chain { start: self.next, steps: steps(self.next)? };
            if self.longest.is_none_or(|longest| longest.steps < found.steps) {
                self.longest = Some(found);
            }
            self.next += 1;
        }
        Some(())
    }
}

/// How many steps it takes from `start`, at least 1, to 1: half of an even number, three times an odd one and one.
pub fn steps(start: u64) -> Option<u32> {
    let mut number = u128::from(start);
    let mut steps = 0;
    while number != 1 {
        // Nearly all of nearly every chain fits 64 bits, which is several times faster.
        if let Ok(mut small) = u64::try_from(number) {
            while small != 1 && small < u64::MAX / 3 {
                let even = small.trailing_zeros();
                if even > 0 {
                    small >>= even;
                    steps += even;
                } else {
                    small = 3 * small + 1;
                    steps += 1;
                }
            }
            number = small.into();
            if small == 1 {
                break;
            }
        }
        number = if number.is_multiple_of(2) { number / 2 } else { number.checked_mul(3)?.checked_add(1)? };
        steps += 1;
    }
    Some(steps)
}

/// As the file in which a search is kept: `NEXT END [START STEPS]`.
impl fmt::Display for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.next, self.end)?;
        self.longest.map_or(Ok(()), |Chain { start, steps }| write!(f, " {start} {steps}"))
    }
}

impl FromStr for Search {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let words: Vec<u64> = text.split(' ').map(str::parse).collect::<Result<_, _>>().map_err(drop)?;
        let (next, end, longest) = match words[..] {
            [next, end] => (next, end, None),
            [next, end, start, steps] => {
                (next, end, Some(Chain { start, steps: u32::try_from(steps).map_err(drop)? }))
            }
            _ => return Err(()),
        };
        Ok(Self { next, end, longest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn longest(index: u64, width: u64) -> Option<(u64, u32)> {
        let mut search = Search::of_task(index, width).expect("64 bits");
        while !search.is_done() {
            search.advance().expect("128 bits");
        }
        search.longest.map(|chain| (chain.start, chain.steps))
    }

    #[test]
    fn known_chains_have_their_length() {
        for (start, expected) in [(1, 0), (2, 1), (3, 7), (6, 8), (7, 16), (27, 111), (837_799, 524)] {
            assert_eq!(steps(start), Some(expected), "{start}");
        }
        // Its chain climbs beyond 64 bits.
        assert_eq!(steps(12_327_829_503), Some(543));
        assert_eq!(steps(23_035_537_407), Some(836));
        assert_eq!(steps(1 << 63), Some(63));
    }

    #[test]
    fn longest_chains_below_powers_of_ten_are_the_known_ones() {
        for (width, expected) in
            [(10, (9, 19)), (100, (97, 118)), (1000, (871, 178)), (10_000, (6171, 261)), (100_000, (77_031, 350))]
        {
            assert_eq!(longest(0, width), Some(expected));
        }
        assert_eq!(longest(0, 1), None, "0 has no chain");
        assert_eq!(Search::of_task(u64::MAX, 2), None);
    }

    #[test]
    fn search_that_is_written_and_read_in_between_finds_the_same() {
        let mut search = Search::of_task(1, 3 * PIECE_STARTS).expect("64 bits");
        while !search.is_done() {
            search = search.to_string().parse().expect("what was written");
            search.advance().expect("128 bits");
        }
        let found = search.longest.map(|chain| (chain.start, chain.steps));
        assert_eq!(found, longest(1, 3 * PIECE_STARTS));
        for broken in ["", "1", "1 2 3", "1 2 3 4 5", "1 2 3 4294967296", "a b"] {
            assert!(broken.parse::<Search>().is_err(), "{broken:?}");
        }
    }
}
