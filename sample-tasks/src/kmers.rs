//! Counts of the k-mers of DNA sequences in FASTA form.
//!
//! A k-mer is `k` bases in a row. Because either strand of the same molecule may have been read, a
//! k-mer and its reverse complement count as one, under the smaller of the two in alphabetical
//! order (the *canonical* k-mer). Two bits hold a base, in the order A, C, G, T, so that numbers
//! compare as texts do and the complement of `b` is `3 - b`.

use crate::hash::FixedHashMap;

/// The longest k-mer: 31 bases fit into 62 bits.
pub const LENGTH_MAX: u32 = 31;

const BASES: [u8; 4] = *b"ACGT";

/// Counts the k-mers of FASTA text that arrives in pieces.
///
/// A line that begins with `>` ends one sequence and starts another; other line ends are no
/// borders. Upper and lower case are the same. Any letter but A, C, G and T, such as N, belongs
/// to no k-mer.
#[derive(Debug)]
pub struct Counter {
    length: u32,
    /// The last `length` bases, and their reverse complement.
    forward: u64,
    reverse: u64,
    /// How many bases came since the last border, at most `length`.
    bases: u32,
    at_line_start: bool,
    in_header: bool,
    counts: FixedHashMap<u64, u64>,
}

impl Counter {
    /// A counter of k-mers of `length` bases, or `None` unless `1 <= length <= LENGTH_MAX`.
    pub fn new(length: u32) -> Option<Self> {
        (1..=LENGTH_MAX).contains(&length).then(|| Self {
            length,
            forward: 0,
            reverse: 0,
            bases: 0,
            at_line_start: true,
            in_header: false,
            counts: FixedHashMap::default(),
        })
    }

    /// Counts the next piece of the text.
    pub fn feed(&mut self, piece: &[u8]) {
        for &byte in piece {
            if byte == b'\n' {
                self.at_line_start = true;
                self.in_header = false;
                continue;
            }
            if self.at_line_start && byte == b'>' {
                self.in_header = true;
                self.bases = 0;
            }
            self.at_line_start = false;
            if !self.in_header && byte != b'\r' {
                self.base(byte);
            }
        }
    }

    /// All k-mers that occurred, with their counts, in alphabetical order.
    pub fn finish(self) -> Vec<(String, u64)> {
        let mut counts: Vec<(u64, u64)> = self.counts.into_iter().collect();
        counts.sort_unstable();
        counts.into_iter().map(|(kmer, count)| (text(kmer, self.length), count)).collect()
    }

    fn base(&mut self, letter: u8) {
        let code = match letter {
            b'A' | b'a' => 0,
            b'C' | b'c' => 1,
            b'G' | b'g' => 2,
            b'T' | b't' => 3,
            _ => {
                self.bases = 0;
                return;
            }
        };
        let mask = (1 << (2 * self.length)) - 1;
        self.forward = (self.forward << 2 | code) & mask;
        self.reverse = self.reverse >> 2 | (3 - code) << (2 * (self.length - 1));
        self.bases = (self.bases + 1).min(self.length);
        if self.bases == self.length {
            *self.counts.entry(self.forward.min(self.reverse)).or_insert(0) += 1;
        }
    }
}

/// The letters of a k-mer of `length` bases.
fn text(kmer: u64, length: u32) -> String {
    (0..length).rev().map(|place| char::from(BASES[(kmer >> (2 * place) & 3) as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(length: u32, fasta: &str, expected: &[(&str, u64)]) {
        for piece_bytes in [1, 2, 5, fasta.len().max(1)] {
            let mut counter = Counter::new(length).expect("a length in range");
            fasta.as_bytes().chunks(piece_bytes).for_each(|piece| counter.feed(piece));
            let counts = counter.finish();
            let counts: Vec<(&str, u64)> =
                counts.iter().map(|(kmer, count)| (kmer.as_str(), *count)).collect();
            assert_eq!(counts, expected, "{length}-mers of {fasta:?}");
        }
    }

    #[test]
    fn kmer_and_its_reverse_complement_are_one() {
        check(1, ">s\nACGT\n", &[("A", 2), ("C", 2)]);
        check(3, "AAATTT", &[("AAA", 2), ("AAT", 2)]);
        // A palindrome is its own reverse complement and counts once.
        check(4, "ACGT", &[("ACGT", 1)]);
    }

    #[test]
    fn sequence_goes_on_over_lines_but_not_over_headers() {
        check(4, ">one\nAC\r\nGG\n>two ACGT\nTT", &[("ACGG", 1)]);
        check(2, "GA\n>x\nGA\n\nGA", &[("AG", 1), ("GA", 3)]);
    }

    #[test]
    fn case_is_ignored_and_other_letters_are_borders() {
        check(2, "acNgtACxAC", &[("AC", 4), ("TA", 1)]);
        check(2, "A C", &[]);
        check(3, "AC>GT", &[]);
        check(3, "", &[]);
    }

    #[test]
    fn longest_kmer_keeps_all_its_bases() {
        let sequence = "ACGTTGCAACGTACGATCGATCGATTTACGA";
        assert_eq!(sequence.len(), 31);
        check(31, sequence, &[(sequence, 1)]);
        check(31, &sequence[1..], &[]);
        check(31, &"T".repeat(33), &[(&"A".repeat(31), 3)]);
    }

    #[test]
    fn length_out_of_range_is_refused() {
        assert!(Counter::new(0).is_none());
        assert!(Counter::new(32).is_none());
    }
}
