//! The texts whose words are counted: this project's own documents, as they were when it was built.

use std::{fs, path::Path};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use talka_core::packing::InputIndex;

use crate::{
    inputs::{Packed, Spool},
    output::printable,
};

/// Name and text. The licence comes first: it is plain ASCII and never changes, so it is the one to check by hand.
pub(super) const DOCUMENTS: [(&str, &str); 7] = [
    ("LICENSE-APACHE", include_str!("../../LICENSE-APACHE")),
    ("README.md", include_str!("../../README.md")),
    ("ARCHITECTURE.md", include_str!("../../ARCHITECTURE.md")),
    ("SECURITY.md", include_str!("../../SECURITY.md")),
    ("CHANGELOG.md", include_str!("../../CHANGELOG.md")),
    ("sample-tasks/README.md", include_str!("../../sample-tasks/README.md")),
    ("proto/proto/talka.proto", include_str!("../../proto/proto/talka.proto")),
];

/// Most frequent words that are shown of each document.
const WORDS_SHOWN: usize = 4;

/// What a worker found in one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Count {
    /// Which document.
    #[serde(default)]
    pub(super) document: String,
    /// Line ends.
    pub(super) lines: u64,
    /// Words, as `wc` counts them.
    pub(super) words: u64,
    /// Bytes.
    pub(super) bytes: u64,
    /// The most frequent words.
    pub(super) top: Vec<Word>,
}

/// A word and how often it stands there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Word {
    /// In lower case.
    pub(super) word: String,
    /// How often.
    pub(super) count: u64,
}

impl Count {
    /// `the 45, of 30`.
    pub(super) fn top_text(&self) -> String {
        let words = self.top.iter().take(WORDS_SHOWN);
        let words: Vec<String> =
            words.map(|word| format!("{} {}", printable(&word.word), word.count)).collect();
        words.join(", ")
    }
}

/// All documents as the inputs of one job.
pub(super) fn packed() -> Packed {
    let (mut data, mut index) = (Vec::new(), InputIndex::default());
    for (name, text) in DOCUMENTS {
        data.extend_from_slice(text.as_bytes());
        index.push(text.len() as u64, Some(name));
    }
    Packed { data: Spool::Memory(data), index }
}

/// Reads the counts from `DIR/INDEX.out`.
pub(super) fn counts(dir: &Path) -> anyhow::Result<Vec<Count>> {
    let count = |(index, (name, text)): (usize, &(&str, &str))| {
        let path = dir.join(format!("{index}.out"));
        let output = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let count: Count =
            serde_json::from_slice(&output).with_context(|| format!("the counts of {name} are no JSON"))?;
        // The two numbers that are known without looking at words.
        let known = (text.bytes().filter(|byte| *byte == b'\n').count() as u64, text.len() as u64);
        ensure!((count.lines, count.bytes) == known, "the counts of {name} are wrong");
        Ok(Count { document: (*name).to_owned(), ..count })
    };
    DOCUMENTS.iter().enumerate().map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(lines: u64) -> String {
        let bytes = DOCUMENTS[0].1.len();
        format!(r#"{{"lines":{lines},"words":1400,"bytes":{bytes},"top":[{{"word":"the","count":83}}]}}"#)
    }

    #[test]
    fn counts_that_contradict_the_document_are_not_shown() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("0.out"), count(3)).expect("written");
        let error = counts(dir.path()).expect_err("wrong");
        assert_eq!(error.to_string(), "the counts of LICENSE-APACHE are wrong");
    }

    #[test]
    fn each_document_is_an_input_with_its_name() {
        let packed = packed();
        assert_eq!(packed.index.count(), DOCUMENTS.len() as u64);
        assert_eq!(packed.index.name(1), Some("README.md"));
        let Spool::Memory(data) = packed.data else { panic!("on disk") };
        assert_eq!(data.len() as u64, packed.index.total());
    }
}
