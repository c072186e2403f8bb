//! Which coordinator a command means: the ticket it was given, the one in a data directory, or the only
//! coordinator that runs here.

use std::{
    fmt::Write as _,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::{
    cli::CoordinatorFlags,
    error::{Code, Failure},
    registry::{self, Entry},
};

/// Name of the file in a coordinator's data directory that holds its ticket.
const TICKET_FILE: &str = "ticket";
/// Longest ticket file that is read.
const TICKET_BYTES_MAX: u64 = 16 << 10;

/// The text of a ticket, and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The ticket.
    pub(crate) ticket: String,
    /// For error messages.
    pub(crate) source: String,
    /// The coordinator's data directory, if it is known.
    pub(crate) data_dir: Option<PathBuf>,
}

/// Finds the coordinator that `flags` mean.
pub(crate) fn coordinator(flags: &CoordinatorFlags) -> anyhow::Result<Found> {
    if let Some(ticket) = &flags.ticket {
        let (ticket, data_dir) = (ticket.trim().to_owned(), flags.data_dir.clone());
        return Ok(Found { ticket, source: "--ticket (TALKA_TICKET)".into(), data_dir });
    }
    if let Some(dir) = &flags.data_dir
        && let Some(found) = in_data_dir(dir)?
    {
        return Ok(found);
    }
    // Without a home directory nothing can have registered.
    let entries = registry::dir().map(|dir| registry::running(&dir)).unwrap_or_default();
    Ok(only(entries)?)
}

/// The ticket that a coordinator left in its data directory, if it is one.
pub(crate) fn in_data_dir(dir: &Path) -> anyhow::Result<Option<Found>> {
    let path = dir.join(TICKET_FILE);
    let file = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let mut ticket = String::new();
    file.take(TICKET_BYTES_MAX)
        .read_to_string(&mut ticket)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let (ticket, source) = (ticket.trim().to_owned(), path.display().to_string());
    Ok(Some(Found { ticket, source, data_dir: Some(dir.to_owned()) }))
}

fn only(mut entries: Vec<Entry>) -> Result<Found, Failure> {
    match (entries.pop(), entries.len()) {
        (Some(entry), 0) => Ok(Found {
            ticket: entry.ticket,
            source: format!("the coordinator with process id {}", entry.pid),
            data_dir: Some(entry.data_dir),
        }),
        (None, _) => Err(Failure::new(
            Code::NoCoordinator,
            "no coordinator runs here and no ticket was given; give --ticket (TALKA_TICKET), or start one: \
             talka coordinator start",
        )),
        (Some(last), _) => {
            entries.push(last);
            let mut message = format!(
                "{} coordinators run here; choose one with --data-dir (TALKA_DATA_DIR) or --ticket:",
                entries.len()
            );
            for entry in &entries {
                // Writing to a string can't fail.
                let _ =
                    write!(message, "\n  --data-dir {}  (process {})", entry.data_dir.display(), entry.pid);
            }
            Err(Failure::new(Code::ManyCoordinators, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: u32) -> Entry {
        Entry { ticket: format!("ticket{pid}"), pid, data_dir: format!("/data/{pid}").into() }
    }

    #[test]
    fn the_only_coordinator_is_meant_and_several_are_listed() {
        assert_eq!(only(vec![entry(7)]).expect("one").ticket, "ticket7");
        let none = only(vec![]).expect_err("none").to_string();
        assert!(none.contains("talka coordinator start"), "{none}");
        let several = only(vec![entry(7), entry(8)]).expect_err("two").to_string();
        assert!(several.contains("--data-dir /data/7") && several.contains("--data-dir /data/8"));
    }

    #[test]
    fn a_ticket_comes_before_a_data_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(TICKET_FILE), "from-file\n").expect("written");
        let mut flags = CoordinatorFlags {
            ticket: Some(" given ".into()),
            data_dir: Some(dir.path().to_owned()),
            ..CoordinatorFlags::default()
        };
        assert_eq!(coordinator(&flags).expect("found").ticket, "given");
        flags.ticket = None;
        assert_eq!(coordinator(&flags).expect("found").ticket, "from-file");
        assert_eq!(in_data_dir(&dir.path().join("other")).expect("readable"), None);
    }
}
