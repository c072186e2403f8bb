//! Names. Each kind of id is its own type with one text form, and parsing checks the kind.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A text is not the id it was taken for. Never worth a retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}: expected {expected}")]
pub struct ParseIdError {
    /// What was wanted, in the words of the documentation.
    pub kind: &'static str,
    /// The form that would have been accepted.
    pub expected: &'static str,
    /// The offending text, cut to a printable length.
    pub text: String,
}

impl ParseIdError {
    fn new(kind: &'static str, expected: &'static str, text: &str) -> Self {
        let text = text.chars().take(80).collect();
        Self { kind, expected, text }
    }
}

/// A 32-byte name: its text is 64 lower-case hexadecimal digits.
macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps the raw bytes.
            pub const fn new(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first ten digits: enough for a person, never for a decision.
            pub fn short(&self) -> String {
                data_encoding::HEXLOWER.encode(&self.0[..5])
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = ParseIdError;

            fn try_from(bytes: &[u8]) -> Result<Self, ParseIdError> {
                bytes.try_into().map(Self).map_err(|_| {
                    let text = format!("{} bytes", bytes.len());
                    ParseIdError::new($kind, "32 bytes", &text)
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
                bytes
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Self)
                    .ok_or_else(|| ParseIdError::new($kind, "64 hexadecimal digits", text))
            }
        }
    };
}

/// A number that names something within one coordinator.
macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $kind:literal) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        pub struct $name($inner);

        impl $name {
            /// Wraps the raw number.
            pub const fn new(number: $inner) -> Self {
                Self(number)
            }

            /// The raw number, for rows and wires.
            pub const fn get(self) -> $inner {
                self.0
            }

            /// The id after this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.parse()
                    .map(Self)
                    .map_err(|_| ParseIdError::new($kind, "a decimal number", text))
            }
        }
    };
}

bytes_id!(
    /// A peer: its Ed25519 public key.
    PeerId,
    "peer id"
);
bytes_id!(
    /// A blob: the BLAKE3 hash of its bytes. Bundles, packed inputs, datasets and large outputs are blobs.
    BlobHash,
    "blob hash"
);
bytes_id!(
    /// How an execution of a task ended and what it wrote ([`crate::digest`]).
    OutcomeDigest,
    "outcome digest"
);
bytes_id!(
    /// Everything that must agree between two executions of a task ([`crate::digest`]).
    ResultDigest,
    "result digest"
);
bytes_id!(
    /// Everything that a task can see of its input ([`crate::digest`]).
    InputDigest,
    "input digest"
);
number_id!(
    /// A job of one coordinator, counted from 1.
    JobId,
    u64,
    "job id"
);
number_id!(
    /// A lease of one coordinator.
    LeaseId,
    u64,
    "lease id"
);
number_id!(
    /// A coordinator's short number for a [`PeerId`], so that ledger rows take 2 bytes and not 32.
    PeerNo,
    u32,
    "peer number"
);
number_id!(
    /// One connection of a worker. A number is never used twice by one coordinator process.
    SessionId,
    u64,
    "session id"
);
number_id!(
    /// One of the places where a worker executes, counted from 0.
    SlotNo,
    u32,
    "slot number"
);

/// Splits `text` at the last `separator` and parses both halves.
fn parse_pair<A: FromStr, B: FromStr>(text: &str, separator: char) -> Option<(A, B)> {
    let (a, b) = text.rsplit_once(separator)?;
    Some((a.parse().ok()?, b.parse().ok()?))
}

/// A task: one input of one job. Text: `JOB/INDEX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskId {
    /// The job.
    pub job: JobId,
    /// Position in the job, from 0.
    pub index: u64,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.job, self.index)
    }
}

impl FromStr for TaskId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        parse_pair(text, '/')
            .map(|(job, index)| Self { job, index })
            .ok_or_else(|| ParseIdError::new("task id", "JOB/INDEX, as in 7/12", text))
    }
}

/// One execution of one task by one worker. Text: `JOB/INDEX#NUMBER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttemptId {
    /// The task.
    pub task: TaskId,
    /// Which attempt at it, from 1. A number is never given to two workers.
    pub number: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.task, self.number)
    }
}

impl FromStr for AttemptId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        parse_pair(text, '#')
            .map(|(task, number)| Self { task, number })
            .ok_or_else(|| ParseIdError::new("attempt id", "JOB/INDEX#NUMBER, as in 7/12#1", text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_round_trip() {
        let peer = PeerId::new([0xab; 32]);
        assert_eq!(peer.to_string().parse(), Ok(peer));
        let attempt: AttemptId = "7/12#3".parse().expect("an attempt id");
        assert_eq!(attempt.to_string(), "7/12#3");
        assert_eq!((attempt.task.job.get(), attempt.task.index, attempt.number), (7, 12, 3));
    }

    #[test]
    fn a_wrong_kind_says_what_was_expected() {
        for text in ["", "7", "7/", "/1", "7/-1", "7/12#1", "7/99999999999999999999"] {
            let error = text.parse::<TaskId>().expect_err(text);
            assert!(error.to_string().ends_with("is not a task id: expected JOB/INDEX, as in 7/12"));
        }
        let error = "xyz".parse::<BlobHash>().expect_err("not hexadecimal");
        assert_eq!(error.to_string(), "\"xyz\" is not a blob hash: expected 64 hexadecimal digits");
        assert!(PeerId::try_from(&[1u8; 31][..]).is_err());
    }
}
