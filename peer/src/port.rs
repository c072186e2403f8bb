//! The port that a peer keeps across restarts, because its tickets name it.

use std::{
    fs, io,
    num::NonZeroU16,
    path::{Path, PathBuf},
};

use crate::files::{Existing, write_durably};

/// Name of the file in a peer's data directory that keeps its port.
pub const PORT_FILE: &str = "port";

/// The port file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// It can't be read.
    #[error("cannot read the port file {}", path.display())]
    Read {
        /// The port file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It can't be written.
    #[error("cannot write the port file {}: its directory must be writable", path.display())]
    Write {
        /// The port file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{} does not hold a port number: write one into it, or remove it to have a new port chosen", path.display())]
    Malformed {
        /// The port file.
        path: PathBuf,
    },
}

/// The port of `data_dir`, if it has one.
pub(crate) fn load(data_dir: &Path) -> Result<Option<u16>, PortError> {
    let path = data_dir.join(PORT_FILE);
    match fs::read(&path) {
        Ok(text) => {
            let port = str::from_utf8(&text).ok().and_then(|text| text.trim().parse::<NonZeroU16>().ok());
            port.map(|port| Some(port.get())).ok_or(PortError::Malformed { path })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PortError::Read { path, source }),
    }
}

/// Keeps `port` for the next start.
pub(crate) fn store(data_dir: &Path, port: u16) -> Result<(), PortError> {
    let path = data_dir.join(PORT_FILE);
    write_durably(&path, format!("{port}\n").as_bytes(), Existing::Replace)
        .map_err(|source| PortError::Write { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_kept_and_nonsense_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(load(dir.path()).expect("none yet"), None);
        store(dir.path(), 7117).expect("written");
        assert_eq!(load(dir.path()).expect("kept"), Some(7117));
        for text in ["", "0", "-1", "70000", "port", "\u{fffd}"] {
            fs::write(dir.path().join(PORT_FILE), text).expect("written");
            assert!(matches!(load(dir.path()), Err(PortError::Malformed { .. })), "{text:?}");
        }
    }
}
