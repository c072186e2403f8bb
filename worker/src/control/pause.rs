//! The owner's pause.
//!
//! It outlives the process: whoever pauses a worker and restarts the machine does not expect it to work. It is a small
//! file in the data directory, written before the request is answered.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use serde::{Deserialize, Serialize};
use talka_core::limits;
use talka_peer::files::{Existing, write_durably};

/// Name of the file in the data directory. There is none without a pause.
const FILE: &str = "paused.json";

/// Longest file that is read: two numbers and their names.
const FILE_BYTES_MAX: u64 = 4 << 10;

/// A pause, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Since when.
    pub since_millis: u64,
    /// Until when; further notice if there is no time.
    pub until_millis: Option<u64>,
}

impl Pause {
    /// A pause from now on, for so many seconds or until further notice.
    pub(crate) fn new(now_millis: u64, for_secs: Option<u64>) -> Self {
        let until_millis = for_secs.map(|secs| now_millis.saturating_add(secs.saturating_mul(1000)));
        Self { since_millis: now_millis, until_millis }
    }

    /// Whether its time has come.
    pub(crate) fn is_over(self, now_millis: u64) -> bool {
        // A clock that was set back must not make it longer than it ever was.
        let longest = now_millis.saturating_add(millis(limits::PAUSE_MAX));
        self.until_millis.is_some_and(|until| until <= now_millis || until > longest)
    }

    /// The pause of an earlier life that is not over. A file that can't be read means one: the owner wanted it, and a
    /// worker that works against its owner's will is worse than one that has to be asked twice.
    pub(crate) fn load(data_dir: &Path, now_millis: u64) -> Option<Self> {
        let path = data_dir.join(FILE);
        let loaded = match File::open(&path) {
            Ok(file) => read(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Err(error),
        };
        let pause = loaded.unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "a pause can't be read; it holds until it is ended");
            Self::new(now_millis, None)
        });
        (!pause.is_over(now_millis)).then_some(pause)
    }

    /// Makes a pause, or the end of one, outlive the process.
    pub(super) fn save(pause: Option<Self>, data_dir: &Path) -> io::Result<()> {
        let path = data_dir.join(FILE);
        let Some(pause) = pause else {
            return match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        };
        write_durably(&path, &serde_json::to_vec(&pause)?, Existing::Replace)
    }
}

fn read(file: File) -> io::Result<Pause> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn a_pause_ends_at_its_time_or_not_at_all() {
        let month = millis(limits::PAUSE_MAX);
        let table = [
            (Pause::new(NOW, None), NOW + 100 * month, false),
            (Pause::new(NOW, Some(2)), NOW + 1999, false),
            (Pause::new(NOW, Some(2)), NOW + 2000, true),
            (Pause::new(NOW, Some(0)), NOW, true),
            // The clock was years ahead when it began.
            (Pause::new(NOW, Some(2)), NOW - 2 * month, true),
        ];
        for (pause, now, over) in table {
            assert_eq!(pause.is_over(now), over, "{pause:?} at {now}");
        }
    }

    #[test]
    fn a_pause_outlives_the_process_and_ends_with_its_file() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(Pause::load(dir.path(), NOW), None);
        for for_secs in [None, Some(7200)] {
            let pause = Pause::new(NOW, for_secs);
            Pause::save(Some(pause), dir.path()).expect("saved");
            assert_eq!(Pause::load(dir.path(), NOW + 7_199_000), Some(pause));
        }
        assert_eq!(Pause::load(dir.path(), NOW + 7_200_000), None, "its time is over");
        for _ in 0..2 {
            Pause::save(None, dir.path()).expect("no pause is no error");
            assert_eq!(Pause::load(dir.path(), NOW), None);
        }
    }

    #[test]
    fn a_file_that_makes_no_sense_is_a_pause_until_further_notice() {
        let dir = tempfile::tempdir().expect("a directory");
        let long = b" ".repeat(100_000);
        for bytes in [&b""[..], b"{}", b"\xff\0", &long] {
            std::fs::write(dir.path().join(FILE), bytes).expect("written");
            assert_eq!(Pause::load(dir.path(), NOW), Some(Pause::new(NOW, None)));
        }
    }
}
