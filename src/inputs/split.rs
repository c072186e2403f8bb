//! Cuts one file into the inputs of many tasks.
//!
//! The pieces, one after the other, are the file: a cut never drops or changes a byte.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    num::NonZeroU64,
    path::Path,
    str::FromStr,
};

use anyhow::Context;
use talka_core::{limits, quantities::Bytes};

use super::{Packed, Packer};
use crate::error::{Code, Failure};

/// Longest name that is taken from a record.
const NAME_BYTES_MAX: usize = 200;

/// Where a file is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SplitBy {
    /// After each so many lines.
    Lines(NonZeroU64),
    /// After each so many bytes.
    Bytes(NonZeroU64),
    /// Before each line that begins with `>`: a sequence and its header.
    Fasta,
}

impl FromStr for SplitBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORMS: &str = "write lines:N, bytes:N or records:FASTA";
        let (kind, rest) = text.split_once(':').ok_or(FORMS)?;
        match kind {
            "lines" => match rest.parse() {
                Ok(lines) => Ok(Self::Lines(lines)),
                Err(_) => Err(format!("{rest} is not a number of lines; as in lines:1000")),
            },
            "bytes" => {
                let bytes = rest.parse::<Bytes>().map_err(|error| error.to_string())?.get();
                match NonZeroU64::new(bytes) {
                    Some(bytes) if bytes.get() <= limits::INPUT_BYTES_MAX => Ok(Self::Bytes(bytes)),
                    _ => {
                        let max = Bytes::new(limits::INPUT_BYTES_MAX);
                        Err(format!("a piece must have 1 byte to {max}; as in bytes:1MiB"))
                    }
                }
            }
            "records" if rest.eq_ignore_ascii_case("fasta") => Ok(Self::Fasta),
            "records" => Err(format!("records of the format {rest} are not known; FASTA is")),
            _ => Err(FORMS.to_owned()),
        }
    }
}

/// Packs the pieces of a file, each an input of its own; `-` is standard input.
pub(crate) fn pack_pieces(path: &Path, by: SplitBy, on_bytes: impl Fn(u64)) -> anyhow::Result<Packed> {
    let doing = || format!("cannot split {}", path.display());
    if path == Path::new("-") {
        return pack_pieces_of(io::stdin().lock(), by, on_bytes).with_context(doing);
    }
    let file = File::open(path).with_context(doing)?;
    pack_pieces_of(BufReader::with_capacity(1 << 20, file), by, on_bytes).with_context(doing)
}

fn pack_pieces_of(reader: impl BufRead, by: SplitBy, on_bytes: impl Fn(u64)) -> anyhow::Result<Packed> {
    let packer = Packer::new("piece", on_bytes);
    match by {
        SplitBy::Lines(lines) => by_lines(reader, lines.get(), packer),
        SplitBy::Bytes(bytes) => by_bytes(reader, bytes.get(), packer),
        SplitBy::Fasta => by_header(reader, packer),
    }
}

fn by_bytes<F: Fn(u64)>(
    mut reader: impl BufRead,
    bytes: u64,
    mut packer: Packer<F>,
) -> anyhow::Result<Packed> {
    while !reader.fill_buf()?.is_empty() {
        packer.add(reader.by_ref().take(bytes), None)?;
    }
    packer.finish()
}

fn by_lines<F: Fn(u64)>(reader: impl BufRead, lines: u64, mut packer: Packer<F>) -> anyhow::Result<Packed> {
    let mut rows = Rows::new(reader);
    let mut piece = Vec::new();
    let mut count = 0;
    while rows.append_to(&mut piece)? {
        count += 1;
        if count == lines || too_much(&piece) {
            packer.add(piece.as_slice(), None)?;
            piece.clear();
            count = 0;
        }
    }
    if count > 0 {
        packer.add(piece.as_slice(), None)?;
    }
    packer.finish()
}

fn by_header<F: Fn(u64)>(reader: impl BufRead, mut packer: Packer<F>) -> anyhow::Result<Packed> {
    let mut rows = Rows::new(reader);
    let mut record = Vec::new();
    let mut row = Vec::new();
    while rows.append_to(&mut row)? {
        if row.starts_with(b">") && !record.is_empty() {
            add_record(&mut packer, &record)?;
            record.clear();
        }
        record.append(&mut row);
        if too_much(&record) {
            break;
        }
    }
    if !record.is_empty() {
        add_record(&mut packer, &record)?;
    }
    packer.finish()
}

/// Adds a record under the name in its header.
fn add_record<F: Fn(u64)>(packer: &mut Packer<F>, record: &[u8]) -> anyhow::Result<()> {
    let Some(header) = record.strip_prefix(b">") else {
        let message = "it is not FASTA: the first line does not begin with >; split it by lines:N or bytes:N";
        return Err(Failure::new(Code::Usage, message).into());
    };
    let word = header.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let name = String::from_utf8_lossy(word);
    packer.add(record, Some(&name[..name.floor_char_boundary(NAME_BYTES_MAX)]))
}

/// A piece that the packer will refuse; there is no use in reading on.
fn too_much(piece: &[u8]) -> bool {
    piece.len() as u64 > limits::INPUT_BYTES_MAX
}

/// Lines with their endings.
struct Rows<R>(R);

impl<R: BufRead> Rows<R> {
    fn new(reader: R) -> Self {
        Self(reader)
    }

    /// Appends the next line, or as much of it as is enough to be refused. `false` at the end.
    fn append_to(&mut self, piece: &mut Vec<u8>) -> io::Result<bool> {
        let mut bounded = self.0.by_ref().take(limits::INPUT_BYTES_MAX + 1);
        Ok(bounded.read_until(b'\n', piece)? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::inputs, *};

    fn by(text: &str) -> SplitBy {
        text.parse().expect("a rule")
    }

    fn pieces(text: &str, rule: &str) -> Vec<String> {
        let packed = pack_pieces_of(text.as_bytes(), by(rule), |_| {}).expect("packed");
        let pieces = inputs(&packed);
        assert_eq!(pieces.concat(), text, "nothing is lost by {rule}");
        pieces
    }

    #[test]
    fn a_file_is_cut_where_it_was_asked_for() {
        for (text, rule, expected) in [
            ("a\nb\nc\n", "lines:2", &["a\nb\n", "c\n"][..]),
            ("a\nb", "lines:1", &["a\n", "b"]),
            ("a\r\n\r\n", "lines:1", &["a\r\n", "\r\n"]),
            ("abcde", "bytes:2", &["ab", "cd", "e"]),
            ("abcd", "bytes:1KiB", &["abcd"]),
            (">a x\nAC\nGT\n>b\nTT", "records:FASTA", &[">a x\nAC\nGT\n", ">b\nTT"]),
            (">\n\n>\n", "records:fasta", &[">\n\n", ">\n"]),
        ] {
            assert_eq!(pieces(text, rule), expected, "{text:?} by {rule}");
        }
    }

    #[test]
    fn records_have_the_names_of_their_headers() {
        let long = "x".repeat(999);
        let text = format!(">seq1 first\nA\n>{long}\nC\n>ä\u{fffd}\nG\n");
        let packed = pack_pieces_of(text.as_bytes(), SplitBy::Fasta, |_| {}).expect("packed");
        let names: Vec<_> = (0..3).filter_map(|position| packed.index.name(position)).collect();
        assert_eq!(names, ["seq1", &long[..NAME_BYTES_MAX], "ä\u{fffd}"]);
    }

    #[test]
    fn what_is_not_fasta_and_what_is_empty_is_refused() {
        for (text, rule, part) in [
            ("ACGT\n", "records:FASTA", "does not begin with >"),
            ("", "lines:1", "no inputs"),
            ("", "bytes:1", "no inputs"),
        ] {
            let error = pack_pieces_of(text.as_bytes(), by(rule), |_| {}).expect_err(rule).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_wrong_rule_says_what_is_right() {
        for (text, part) in [
            ("lines", "write lines:N"),
            ("words:3", "write lines:N"),
            ("lines:0", "not a number of lines"),
            ("lines:-1", "not a number of lines"),
            ("bytes:0", "1 byte to"),
            ("bytes:1GiB", "1 byte to"),
            ("records:FASTQ", "FASTA is"),
        ] {
            let error = SplitBy::from_str(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
