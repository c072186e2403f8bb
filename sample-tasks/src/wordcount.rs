//! Lines, words, bytes and the most frequent words of a text.
//!
//! Two notions of a word, because they answer two questions:
//!
//! * **`words`** counts as POSIX `wc` does in the C locale: a word is a maximal run of bytes other
//!   than space, `\t`, `\n`, `\v`, `\f` and `\r`. GNU `wc` agrees on any bytes since coreutils 9.5;
//!   before that it left out runs without a single printable ASCII byte, such as a lone dash `—`.
//! * **`top`** lists words as a reader would: maximal runs of ASCII letters and digits, `'`, and
//!   bytes from 0x80 up (so that UTF-8 letters hold together), with ASCII letters lower-cased.
//!
//! Lines are `\n` bytes: a last line without one isn't counted, as in `wc`.

use std::cmp::Reverse;
use std::fmt::Write;

use crate::hash::FixedHashMap;

/// How many of the most frequent words are listed.
const TOP_WORDS: usize = 10;

/// Counts a text that arrives in pieces.
#[derive(Debug, Default)]
pub struct Counter {
    lines: u64,
    words: u64,
    bytes: u64,
    in_word: bool,
    /// The word for `top` that may go on in the next piece.
    token: Vec<u8>,
    frequencies: FixedHashMap<Vec<u8>, u64>,
}

/// What was counted.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    /// Line ends.
    pub lines: u64,
    /// Runs of bytes that aren't white space.
    pub words: u64,
    /// Bytes.
    pub bytes: u64,
    /// The most frequent words, most frequent first, in byte order among equals.
    pub top: Vec<(Vec<u8>, u64)>,
}

impl Counter {
    /// Counts the next piece of the text.
    pub fn feed(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        for &byte in piece {
            self.lines += u64::from(byte == b'\n');
            let in_word = !is_space(byte);
            self.words += u64::from(in_word && !self.in_word);
            self.in_word = in_word;
            if is_token_byte(byte) {
                self.token.push(byte.to_ascii_lowercase());
            } else {
                self.end_token();
            }
        }
    }

    /// Ends the text.
    pub fn finish(mut self) -> Summary {
        self.end_token();
        let mut top: Vec<(Vec<u8>, u64)> = self.frequencies.into_iter().collect();
        top.sort_unstable_by(|(word, count), (other, other_count)| {
            (Reverse(count), word).cmp(&(Reverse(other_count), other))
        });
        top.truncate(TOP_WORDS);
        Summary { lines: self.lines, words: self.words, bytes: self.bytes, top }
    }

    fn end_token(&mut self) {
        if self.token.is_empty() {
            return;
        }
        // A word that is known already, as most are, costs no allocation.
        if let Some(count) = self.frequencies.get_mut(&self.token) {
            *count += 1;
        } else {
            self.frequencies.insert(self.token.clone(), 1);
        }
        self.token.clear();
    }
}

impl Summary {
    /// One JSON object on one line, ended by `\n`.
    ///
    /// What isn't UTF-8 in a word is shown as U+FFFD, so two words that differ may look alike.
    pub fn to_json(&self) -> String {
        let mut json =
            format!(r#"{{"lines":{},"words":{},"bytes":{},"top":["#, self.lines, self.words, self.bytes);
        for (place, (word, count)) in self.top.iter().enumerate() {
            if place > 0 {
                json.push(',');
            }
            json.push_str(r#"{"word":"#);
            push_json_string(&mut json, &String::from_utf8_lossy(word));
            write!(json, r#","count":{count}}}"#).expect("a String accepts all text");
        }
        json.push_str("]}\n");
        json
    }
}

/// White space in the C locale; unlike `u8::is_ascii_whitespace`, with the vertical tab.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'\'' || byte >= 0x80
}

/// Appends `text` in quotes, escaped as RFC 8259 (section 7) demands.
fn push_json_string(json: &mut String, text: &str) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                json.push('\\');
                json.push(character);
            }
            '\0'..='\x1f' => {
                write!(json, "\\u{:04x}", u32::from(character)).expect("a String accepts all text");
            }
            _ => json.push(character),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(text: &[u8]) -> Summary {
        let mut counter = Counter::default();
        counter.feed(text);
        counter.finish()
    }

    #[test]
    fn lines_words_and_bytes_are_those_of_wc() {
        for (text, lines, words, bytes) in [
            (&b""[..], 0, 0, 0),
            (b"\n", 1, 0, 1),
            (b"no end of line", 0, 4, 14),
            (b" \t two\x0b\x0cwords \r\n\n", 2, 2, 17),
            (b"a\0b", 0, 1, 3),
            (b"\x01 \x7f \x80 \xff", 0, 4, 7),
            ("caf\u{e9} \u{2014} \u{4e16}\u{754c}\n".as_bytes(), 1, 3, 17),
            // A no-break space parts nothing in the C locale.
            ("a\u{a0}b".as_bytes(), 0, 1, 4),
        ] {
            let counted = summary(text);
            assert_eq!(
                (counted.lines, counted.words, counted.bytes),
                (lines, words, bytes),
                "{:?}",
                String::from_utf8_lossy(text)
            );
        }
    }

    #[test]
    fn top_lists_the_most_frequent_words_lower_cased_and_ties_in_order() {
        let counted = summary(b"The cat; the DOG -- the dog's tail, a-cat. k j i h g f e");
        let top: Vec<(&str, u64)> = counted
            .top
            .iter()
            .map(|(word, count)| (std::str::from_utf8(word).expect("ASCII"), *count))
            .collect();
        assert_eq!(
            top,
            [
                ("the", 3),
                ("cat", 2),
                ("a", 1),
                ("dog", 1),
                ("dog's", 1),
                ("e", 1),
                ("f", 1),
                ("g", 1),
                ("h", 1),
                ("i", 1)
            ]
        );
    }

    #[test]
    fn result_does_not_depend_on_how_the_input_is_cut() {
        let text = "one two\ntwo thr\u{e9}\u{e9} 'four' \x0b five\r\n".repeat(3);
        let whole = summary(text.as_bytes());
        for length in 1..text.len() {
            let mut counter = Counter::default();
            text.as_bytes().chunks(length).for_each(|piece| counter.feed(piece));
            assert_eq!(counter.finish(), whole, "pieces of {length} bytes");
        }
    }

    #[test]
    fn json_is_escaped_and_invalid_utf8_replaced() {
        assert_eq!(
            summary(b"caf\xc3\xa9 \xff\xfe\n").to_json(),
            "{\"lines\":1,\"words\":2,\"bytes\":9,\"top\":[{\"word\":\"caf\u{e9}\",\"count\":1},\
             {\"word\":\"\u{fffd}\u{fffd}\",\"count\":1}]}\n"
        );
        assert_eq!(summary(b"").to_json(), "{\"lines\":0,\"words\":0,\"bytes\":0,\"top\":[]}\n");
        let mut json = String::new();
        push_json_string(&mut json, "\"\\\u{1}\u{7f}\u{1f600}");
        assert_eq!(json, "\"\\\"\\\\\\u0001\u{7f}\u{1f600}\"");
    }
}
