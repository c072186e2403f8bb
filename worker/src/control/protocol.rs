//! What is asked and answered.

use serde::{Deserialize, Serialize};
use talka_core::duty::CpuPercent;

use super::Pause;

/// What the owner wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// To know how it is.
    Status {},
    /// That it stops at once whatever runs, keeps it in memory, and takes nothing new.
    Pause {
        /// For how long; until further notice if this is missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        for_secs: Option<u64>,
    },
    /// That it goes on.
    Resume {},
    /// That it takes nothing new, finishes what runs, and ends.
    Finish {},
    /// That it keeps to another share of its processors.
    Set {
        /// The share.
        cpu_percent: CpuPercent,
    },
}

impl Request {
    /// Whether it changes what has to outlive the process.
    pub(super) fn is_about_pause(self) -> bool {
        matches!(self, Self::Pause { .. } | Self::Resume {})
    }
}

/// What the worker says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The request was obeyed, and this is how things are after it.
    Status(Box<Status>),
    /// It was not.
    Error(Refused),
}

/// Why a request was not obeyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// A stable word: `unknown-request`, `denied`, `limit`, `io` or `stopping`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

impl Refused {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }
}

/// How a worker is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its key.
    pub peer: String,
    /// Program and version.
    pub agent: String,
    /// Its process.
    pub pid: u32,
    /// When it started, milliseconds since the Unix epoch.
    pub started_millis: u64,
    /// In a word.
    pub state: State,
    /// The owner's pause.
    pub pause: Option<Pause>,
    /// Whether it ends when what runs is finished.
    pub finishing: bool,
    /// Share of each of its processors.
    pub cpu_percent: CpuPercent,
    /// Its coordinator.
    pub connection: Connection,
    /// What it runs.
    pub slots: Vec<SlotStatus>,
    /// Attempts that wait for a slot.
    pub queued: u64,
    /// Attempts that wait for their program or input.
    pub fetching: u64,
    /// Results that the coordinator does not have on disk yet.
    pub unsettled: u64,
    /// Attempts that ended with a result, since it started.
    pub attempts_done: u64,
    /// Attempts that ended without one, since it started.
    pub no_results: u64,
    /// Fuel of those with a result, since it started.
    pub fuel_done: u64,
    /// Blob bytes that it fetched since it started.
    pub fetched: Traffic,
    /// What blobs take of its disk, and may take.
    pub disk: DiskUsage,
}

/// Bytes of blobs: what jobs and outputs need, and what is kept for later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskUsage {
    /// Bytes that are used or set aside.
    pub used: u64,
    /// Bytes that may be.
    pub quota: u64,
}

/// A worker's state in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Its owner has paused it.
    Paused,
    /// It ends when what runs is finished.
    Finishing,
    /// It runs something.
    Working,
    /// There is nothing to do.
    Idle,
    /// It is not connected, and runs nothing.
    Disconnected,
}

/// Whom it works for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The coordinator's key.
    pub coordinator: String,
    /// Whether there is a session with it.
    pub connected: bool,
    /// Since when this is so, milliseconds since the Unix epoch.
    pub since_millis: u64,
}

/// What a slot is at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// Its number, from 0.
    pub slot: u32,
    /// In a word.
    pub state: SlotState,
    /// Its executor process, unless one is being started.
    pub pid: Option<u32>,
    /// What it runs.
    pub task: Option<TaskStatus>,
}

/// A slot's state in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotState {
    /// It runs something.
    Running,
    /// It is stopped for some milliseconds, to keep to its share.
    Throttled,
    /// It is stopped by its owner.
    Paused,
    /// It has nothing to do.
    Idle,
}

/// An attempt in a slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// `JOB/INDEX`, with the index that the program is told.
    pub task: String,
    /// The attempt's number.
    pub attempt: u32,
    /// How far the program says that it is, 0 to 1.
    pub progress: Option<f64>,
    /// Attempts of the same batch behind it.
    pub behind: u64,
}

/// Where bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes from the coordinator.
    pub from_coordinator: u64,
    /// Bytes from other peers.
    pub from_peers: u64,
}
