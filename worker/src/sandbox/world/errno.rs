//! How a request to the world can be refused.

use std::fmt;

use talka_core::outcome::{Exit, Limit};

/// Error numbers of WASI preview 1, as far as this world gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Errno {
    /// Not an open descriptor, or not open for this.
    Badf = 8,
    /// In use by the world itself.
    Busy = 10,
    /// Exists already.
    Exist = 20,
    /// Not UTF-8, or a name that is unsafe on some host.
    Ilseq = 25,
    /// Invalid argument.
    Inval = 28,
    /// A directory where a file is needed.
    Isdir = 31,
    /// Path too long.
    Nametoolong = 37,
    /// Nothing has this path.
    Noent = 44,
    /// No space left.
    Nospc = 51,
    /// A file where a directory is needed.
    Notdir = 54,
    /// Directory not empty.
    Notempty = 55,
    /// Not a socket.
    Notsock = 57,
    /// Not supported in this world.
    Notsup = 58,
    /// Value too large for its type.
    Overflow = 61,
    /// Not permitted: this world has no links.
    Perm = 63,
    /// Read-only part of the tree.
    Rofs = 69,
    /// A stream can't seek.
    Spipe = 70,
    /// Rename from one part of the tree to another.
    Xdev = 75,
    /// Outside of the directory that was opened.
    Notcapable = 76,
}

/// Why a request has no answer: an error that the program sees, or its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The program is told.
    Errno(Errno),
    /// The program ends here.
    End(Exit),
}

impl Fault {
    /// The end of a program that went over a limit of its job.
    pub(crate) const fn limit(limit: Limit) -> Self {
        Self::End(Exit::Limit(limit))
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(errno) => write!(f, "errno {}", *errno as u16),
            Self::End(exit) => exit.fmt(f),
        }
    }
}

impl std::error::Error for Fault {}

/// The answer to a request.
pub(crate) type Answer<T> = Result<T, Fault>;
