//! `wordcount` against the `wc` of this machine, in the C locale, over random bytes.

use std::io::Write;
use std::process::{Command, Stdio};

use talka_sample_tasks::wordcount::Counter;

const TEXTS: u64 = 150;
const TEXT_BYTES_MAX: u64 = 3_000;

/// Lines, words and bytes as `wc` counts them, or `None` when there is no `wc`.
fn wc(text: &[u8]) -> Option<[u64; 3]> {
    let mut child = Command::new("wc")
        .env("LC_ALL", "C")
        .env_remove("POSIXLY_CORRECT")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut input = child.stdin.take().expect("stdin is a pipe");
    input.write_all(text).expect("wc reads its input");
    drop(input);
    let output = child.wait_with_output().expect("wc ends");
    let output = String::from_utf8(output.stdout).expect("wc prints text");
    let numbers: Vec<u64> =
        output.split_whitespace().map(|number| number.parse().expect("wc prints numbers")).collect();
    Some(numbers.try_into().expect("wc prints three numbers"))
}

fn wordcount(text: &[u8]) -> [u64; 3] {
    let mut counter = Counter::default();
    counter.feed(text);
    let summary = counter.finish();
    [summary.lines, summary.words, summary.bytes]
}

/// `SplitMix64`: the same texts in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// Bytes of all values, a share of them white space and controls.
    fn text(&mut self) -> Vec<u8> {
        let length = self.below(TEXT_BYTES_MAX);
        (0..length)
            .map(|_| match self.below(3) {
                0 => b" \t\n\x0b\x0c\r"[usize::try_from(self.below(6)).expect("small")],
                1 => u8::try_from(self.below(128)).expect("below 128"),
                _ => u8::try_from(self.below(256)).expect("below 256"),
            })
            .collect()
    }
}

/// Before coreutils 9.5, `wc` counted no word without a printable byte: give one to each.
fn with_printable_words(text: &[u8]) -> Vec<u8> {
    let is_control_or_high = |byte: u8| byte >= 0x7f || (byte < b' ' && !(9..=13).contains(&byte));
    text.iter().flat_map(|&byte| [Some(byte), is_control_or_high(byte).then_some(b'x')]).flatten().collect()
}

#[test]
fn random_bytes_are_counted_as_by_wc() {
    let Some(lone_control) = wc(b"\x01") else {
        eprintln!("no wc on this machine: nothing compared");
        return;
    };
    let wc_counts_every_word = lone_control[1] == 1;
    for seed in 0..TEXTS {
        let mut text = Random(seed).text();
        if !wc_counts_every_word {
            text = with_printable_words(&text);
        }
        assert_eq!(Some(wordcount(&text)), wc(&text), "seed {seed}");
    }
}
