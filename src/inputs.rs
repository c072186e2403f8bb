//! Packs the inputs of a job: many files, or the lines or pieces of one, into one blob and its index.
//!
//! Nothing is read twice and nothing large is held: what does not fit [`MEMORY_BYTES_MAX`] goes to a
//! temporary file.

mod split;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use talka_core::{limits, packing::InputIndex, quantities::Bytes};
use tempfile::NamedTempFile;

use crate::error::{Code, Failure, list};

pub(crate) use split::{SplitBy, pack_pieces};

/// What one submission keeps in memory rather than on disk.
pub(crate) const MEMORY_BYTES_MAX: u64 = 64 << 20;

/// Problems with files that are worth listing: whoever has more mistyped a directory.
const LISTED_PROBLEMS_MAX: usize = 10;

/// Bytes that may be too many for memory.
#[derive(Debug)]
pub(crate) enum Spool {
    /// Few enough.
    Memory(Vec<u8>),
    /// In a file that goes away with this value.
    Disk(NamedTempFile),
}

/// Packed inputs.
#[derive(Debug)]
pub(crate) struct Packed {
    /// All inputs, one after the other.
    pub(crate) data: Spool,
    /// Where each one lies, and its name.
    pub(crate) index: InputIndex,
}

/// Packs files, each an input of its own, named by its path as it was given.
pub(crate) fn pack_files(paths: &[PathBuf], on_bytes: impl Fn(u64)) -> anyhow::Result<Packed> {
    check_files(paths)?;
    let mut packer = Packer::new("input", on_bytes);
    for path in paths {
        let doing = || format!("cannot read the input {}", path.display());
        let file = File::open(path).with_context(doing)?;
        let name = path.to_string_lossy();
        packer.add(file, Some(&name)).with_context(doing)?;
    }
    packer.finish()
}

/// Packs the lines of a file, each an input of its own without its line ending; `-` is standard input.
pub(crate) fn pack_lines(path: &Path, on_bytes: impl Fn(u64)) -> anyhow::Result<Packed> {
    let doing = || format!("cannot read the lines of {}", path.display());
    if path == Path::new("-") {
        return pack_lines_of(io::stdin().lock(), on_bytes).with_context(doing);
    }
    let file = File::open(path).with_context(doing)?;
    pack_lines_of(BufReader::with_capacity(1 << 20, file), on_bytes).with_context(doing)
}

fn pack_lines_of(mut reader: impl BufRead, on_bytes: impl Fn(u64)) -> anyhow::Result<Packed> {
    let mut packer = Packer::new("line", on_bytes);
    let mut line = Vec::new();
    loop {
        line.clear();
        // Room for the longest input, its line ending, and one byte that tells that it is longer.
        let mut bounded = reader.by_ref().take(limits::INPUT_BYTES_MAX + 3);
        if bounded.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        packer.add(line.as_slice(), None)?;
    }
    packer.finish()
}

/// All that is wrong with the paths, before the first byte is read.
fn check_files(paths: &[PathBuf]) -> Result<(), Failure> {
    let mut problems = Vec::new();
    for path in paths {
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => {
                problems.push(format!("{} is a directory; give its files: {0}/*", path.display()));
            }
            Ok(metadata) if metadata.len() > limits::INPUT_BYTES_MAX => {
                problems.push(too_long(&path.display().to_string(), metadata.len()));
            }
            Ok(_) => {}
            Err(error) => problems.push(format!("{}: {error}", path.display())),
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    let more = problems.len().saturating_sub(LISTED_PROBLEMS_MAX);
    problems.truncate(LISTED_PROBLEMS_MAX);
    if more > 0 {
        problems.push(format!("… and {more} more"));
    }
    Err(Failure::new(Code::Io, list("some inputs can't be read", &problems)))
}

fn too_long(what: &str, bytes: u64) -> String {
    let max = Bytes::new(limits::INPUT_BYTES_MAX);
    format!(
        "{what} has {}, above the limit of {max} for one task's input; split it, or share it as --data",
        Bytes::new(bytes)
    )
}

/// Appends inputs and keeps every limit.
struct Packer<F> {
    data: Spool,
    index: InputIndex,
    name_bytes: u64,
    /// What an input without a name is called.
    noun: &'static str,
    on_bytes: F,
}

impl<F: Fn(u64)> Packer<F> {
    fn new(noun: &'static str, on_bytes: F) -> Self {
        let data = Spool::Memory(Vec::new());
        Self { data, index: InputIndex::default(), name_bytes: 0, noun, on_bytes }
    }

    fn add(&mut self, input: impl Read, name: Option<&str>) -> anyhow::Result<()> {
        let position = self.index.count();
        if position >= limits::JOB_PACKED_TASKS_MAX {
            let max = limits::JOB_PACKED_TASKS_MAX;
            let message = format!("more than {max} inputs, the limit of one job; split the job");
            return Err(Failure::new(Code::Limit, message).into());
        }
        // The file may have grown since it was looked at; what counts is what is read.
        let length = self.data.append(input.take(limits::INPUT_BYTES_MAX + 1))?;
        if length > limits::INPUT_BYTES_MAX {
            let what = name.map_or_else(|| format!("{} {}", self.noun, position + 1), str::to_owned);
            return Err(Failure::new(Code::Limit, too_long(&what, length)).into());
        }
        self.index.push(length, name);
        self.name_bytes += name.map_or(0, str::len) as u64;
        for (what, bytes, max) in [
            ("all inputs together", self.index.total(), limits::BLOB_BYTES_MAX),
            ("the names of all inputs", self.name_bytes, limits::INPUT_INDEX_BYTES_MAX),
        ] {
            if bytes > max {
                let message = format!("{what} have more than {}; split the job", Bytes::new(max));
                return Err(Failure::new(Code::Limit, message).into());
            }
        }
        (self.on_bytes)(length);
        Ok(())
    }

    fn finish(self) -> anyhow::Result<Packed> {
        if self.index.count() == 0 {
            let message = "there are no inputs, so the job would have no tasks";
            return Err(Failure::new(Code::Usage, message).into());
        }
        Ok(Packed { data: self.data, index: self.index })
    }
}

impl Spool {
    /// Appends all of `input`; returns its length.
    fn append(&mut self, input: impl Read) -> io::Result<u64> {
        let mut input = input;
        let mut length = 0;
        if let Self::Memory(bytes) = self {
            let room = MEMORY_BYTES_MAX.saturating_sub(bytes.len() as u64);
            length += input.by_ref().take(room).read_to_end(bytes)? as u64;
            if length < room {
                return Ok(length);
            }
            let mut file = NamedTempFile::with_prefix("talka-inputs-")?;
            file.write_all(bytes)?;
            *self = Self::Disk(file);
        }
        if let Self::Disk(file) = self {
            length += io::copy(&mut input, file.as_file_mut())?;
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(packed: &Packed) -> Vec<u8> {
        match &packed.data {
            Spool::Memory(bytes) => bytes.clone(),
            Spool::Disk(file) => std::fs::read(file.path()).expect("readable"),
        }
    }

    pub(super) fn inputs(packed: &Packed) -> Vec<String> {
        let data = bytes(packed);
        let range = |position| packed.index.range(position).expect("listed");
        let at = |offset| usize::try_from(offset).expect("small");
        let input = |position| {
            let range = range(position);
            String::from_utf8_lossy(&data[at(range.start)..at(range.end)]).into_owned()
        };
        (0..packed.index.count()).map(input).collect()
    }

    #[test]
    fn each_line_is_an_input_without_its_ending() {
        let check = |text: &str, expected: &[&str]| {
            let packed = pack_lines_of(text.as_bytes(), |_| {}).expect("packed");
            assert_eq!(inputs(&packed), expected, "{text:?}");
            assert_eq!(packed.index.name(0), None);
        };
        check("a\nb\n", &["a", "b"]);
        check("a\r\n\nb", &["a", "", "b"]);
        check("\n", &[""]);
        let error = pack_lines_of(&b""[..], |_| {}).expect_err("no lines");
        assert!(error.to_string().contains("no inputs"), "{error}");
    }

    #[test]
    fn files_are_named_by_their_paths_and_may_be_empty() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = ["a.txt", "b.txt"].map(|name| dir.path().join(name));
        std::fs::write(&paths[0], "").expect("written");
        std::fs::write(&paths[1], "two").expect("written");
        let packed = pack_files(&paths, |_| {}).expect("packed");
        assert_eq!(inputs(&packed), ["", "two"]);
        assert_eq!(packed.index.name(1), paths[1].to_str());
    }

    #[test]
    fn all_files_that_are_missing_are_named_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let missing = (0..12).map(|number| dir.path().join(format!("m{number}")));
        let paths: Vec<PathBuf> = missing.chain([dir.path().to_owned()]).collect();
        let error = pack_files(&paths, |_| {}).expect_err("missing").to_string();
        assert!(error.contains("m0: ") && error.contains("m9: ") && error.contains("and 3 more"), "{error}");
    }

    #[test]
    fn many_bytes_move_to_disk_in_one_piece() {
        let mut spool = Spool::Memory(Vec::new());
        let most = usize::try_from(MEMORY_BYTES_MAX).expect("fits") - 2;
        assert_eq!(spool.append(vec![1; most].as_slice()).expect("kept"), most as u64);
        assert!(matches!(spool, Spool::Memory(_)));
        assert_eq!(spool.append(&[2, 3, 4][..]).expect("kept"), 3);
        assert_eq!(spool.append(&[5][..]).expect("kept"), 1);
        let Spool::Disk(file) = spool else { panic!("still in memory") };
        let bytes = std::fs::read(file.path()).expect("readable");
        assert_eq!((bytes.len(), &bytes[most - 1..]), (most + 4, &[1, 2, 3, 4, 5][..]));
    }
}
