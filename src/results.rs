//! Results as files: `DIR/<index>.out`, `DIR/<index>/NAME`, `DIR/<index>.err`, and one line each in
//! `DIR/results.jsonl`.
//!
//! Every file appears whole or not at all (written beside its place, then renamed), its line in
//! `results.jsonl` only after it. Running the same command again writes the same files again; what an
//! earlier run left under the same index and does not belong there any more goes away. Names under `/out`
//! come from strangers' programs and never lead out of `DIR`.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Component, Path, PathBuf},
};

use anyhow::Context;
use serde::Serialize;
use talka_core::{limits, outcome::Output};
use tempfile::Builder;

/// Name of the file with one line for each final task.
const LINES_FILE: &str = "results.jsonl";

/// What `results.jsonl` says about one final task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ResultLine {
    /// What the program was told as its index.
    pub(crate) index: u64,
    /// Name of its input, if it has one.
    pub(crate) input: Option<String>,
    /// `done` or `failed`.
    pub(crate) state: &'static str,
    /// Whether it rests on one worker's word until that worker's next check.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) provisional: bool,
    /// Whether the coordinator does not have its output any more; when it was asked for, whether nobody has.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) output_lost: bool,
    /// What was agreed on, if anything was.
    pub(crate) digest: Option<String>,
    /// Executed operators.
    pub(crate) fuel: u64,
    /// Executions that it took.
    pub(crate) attempts: u32,
    /// Who agreed.
    pub(crate) peers: Vec<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

impl ResultLine {
    fn is_done(&self) -> bool {
        self.state == "done"
    }
}

/// Writes the results of one job into one directory.
#[derive(Debug)]
pub(crate) struct ResultsWriter {
    dir: PathBuf,
    lines: File,
}

impl ResultsWriter {
    /// Creates the directory and begins an empty `results.jsonl`, which replaces one of an earlier run.
    pub(crate) fn create(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let path = dir.join(LINES_FILE);
        // The handle stays on the file that was renamed into place.
        let lines = replace(&path, b"").with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { dir: dir.to_owned(), lines })
    }

    /// Writes what a task left. Returns the names under `/out` that can't be files here.
    pub(crate) fn write(&mut self, line: &ResultLine, output: &Output) -> anyhow::Result<Vec<String>> {
        let index = line.index;
        let (out, err) = (self.dir.join(format!("{index}.out")), self.dir.join(format!("{index}.err")));
        let refused = if line.output_lost {
            remove_stale(&out)?;
            remove_stale(&err)?;
            Vec::new()
        } else if line.is_done() {
            put(&out, &output.stdout)?;
            remove_stale(&err)?;
            write_files(&self.dir.join(index.to_string()), output)?
        } else {
            put(&err, &output.stderr)?;
            remove_stale(&out)?;
            Vec::new()
        };
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        // One write call, so that a reader who follows the file meets whole lines.
        self.lines
            .write_all(&text)
            .with_context(|| format!("cannot append to {}", self.dir.join(LINES_FILE).display()))?;
        Ok(refused)
    }
}

/// Writes the `/out` files of one task below `dir`. Returns the names that can't be files here.
pub(crate) fn write_files(dir: &Path, output: &Output) -> anyhow::Result<Vec<String>> {
    let mut refused = Vec::new();
    for (name, data) in &output.files {
        let below = format!("{name}/");
        let next = output.files.range(below.clone()..).next();
        let is_also_directory = next.is_some_and(|(next, _)| next.starts_with(&below));
        match relative_path(name) {
            Some(relative) if !is_also_directory => {
                let path = dir.join(relative);
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent)
                        .with_context(|| format!("cannot create {}", parent.display()))?;
                }
                put(&path, data)?;
            }
            _ => refused.push(name.clone()),
        }
    }
    Ok(refused)
}

/// A guest's file name as a path below a directory; `None` for one that could lead anywhere else, or
/// that some host can't have.
fn relative_path(name: &str) -> Option<PathBuf> {
    let is_plain = |part: &str| {
        (1..=limits::TASK_FILE_NAME_BYTES_MAX).contains(&part.len())
            && part != "."
            && part != ".."
            && !part.contains(['\\', ':'])
            && !part.chars().any(char::is_control)
    };
    if name.len() > limits::TASK_FILE_NAME_BYTES_MAX * 4 || !name.split('/').all(is_plain) {
        return None;
    }
    let path = PathBuf::from(name);
    path.components().all(|part| matches!(part, Component::Normal(_))).then_some(path)
}

fn put(path: &Path, data: &[u8]) -> anyhow::Result<()> {
    replace(path, data).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Writes beside `path` and renames, so that nobody ever sees half a file.
fn replace(path: &Path, data: &[u8]) -> io::Result<File> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut builder = Builder::new();
    builder.prefix(".talka-").suffix(".tmp");
    #[cfg(unix)]
    {
        // Results are as readable as any other file that the user creates; the umask still applies.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(dir)?;
    file.write_all(data)?;
    file.persist(path).map_err(|error| error.error)
}

fn remove_stale(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {} of an earlier run", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(index: u64, state: &'static str) -> ResultLine {
        let (digest, peers) = (Some("ab".into()), vec!["cd".into()]);
        let provisional = false;
        ResultLine {
            index,
            input: None,
            state,
            provisional,
            output_lost: false,
            digest,
            fuel: 7,
            attempts: 2,
            peers,
            reason: None,
        }
    }

    fn output(files: &[(&str, &[u8])]) -> Output {
        let files = files.iter().map(|(name, data)| ((*name).to_owned(), data.to_vec())).collect();
        Output { stdout: b"42\n".to_vec(), stderr: b"log\n".to_vec(), files }
    }

    fn listing(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("a directory");
        let name = |entry: io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<_> = entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn results_land_under_the_visible_index() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().join("made/here");
        let mut writer = ResultsWriter::create(&dir).expect("created");
        let refused = writer.write(&line(103, "done"), &output(&[("a.png", b"x"), ("sub/b", b"y")]));
        assert_eq!(refused.expect("written"), Vec::<String>::new());
        writer.write(&line(104, "failed"), &output(&[])).expect("written");
        assert_eq!(listing(&dir), ["103", "103.out", "104.err", "results.jsonl"]);
        assert_eq!(fs::read(dir.join("103/sub/b")).expect("a file"), b"y");
        assert_eq!(fs::read(dir.join("104.err")).expect("a log"), b"log\n");
        let lines = fs::read_to_string(dir.join(LINES_FILE)).expect("lines");
        assert_eq!(
            lines.lines().next(),
            Some(
                r#"{"index":103,"input":null,"state":"done","digest":"ab","fuel":7,"attempts":2,"peers":["cd"]}"#
            )
        );
        assert_eq!(lines.lines().count(), 2);
    }

    #[test]
    fn a_second_run_leaves_nothing_of_the_first_that_is_not_true_any_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut first = ResultsWriter::create(dir.path()).expect("created");
        first.write(&line(0, "failed"), &output(&[])).expect("written");
        let mut second = ResultsWriter::create(dir.path()).expect("created");
        second.write(&line(0, "done"), &output(&[])).expect("written");
        assert_eq!(listing(dir.path()), ["0.out", "results.jsonl"]);
        let lines = fs::read_to_string(dir.path().join(LINES_FILE)).expect("lines");
        assert_eq!(lines.lines().count(), 1);
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("results");
        let hostile: &[&str] =
            &["../x", "/etc/x", "a/../../x", "..", ".", "", "a//b", "a\\..\\x", "C:x", "a\0b", "x/"];
        let files: Vec<(&str, &[u8])> = hostile.iter().map(|name| (*name, &b"evil"[..])).collect();
        let mut writer = ResultsWriter::create(&dir).expect("created");
        let refused = writer.write(&line(0, "done"), &output(&files)).expect("written");
        assert_eq!(refused.len(), hostile.len());
        assert_eq!(listing(root.path()), ["results"]);
        assert_eq!(listing(&dir), ["0.out", "results.jsonl"]);
    }

    #[test]
    fn a_file_that_is_also_a_directory_is_left_out_and_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let refused = write_files(dir.path(), &output(&[("a", b"1"), ("a/b", b"2"), ("ab", b"3")]));
        assert_eq!(refused.expect("written"), ["a"]);
        assert_eq!(listing(dir.path()), ["a", "ab"]);
    }
}
