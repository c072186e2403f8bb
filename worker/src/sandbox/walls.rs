//! The second wall: what a child process takes away from itself before it touches anything of a stranger.
//!
//! The first wall is the engine. If a program ever breaks out of it, it finds itself in a process that can
//! read its standard input, write its standard output and use memory it already may use; it can open
//! nothing, connect to nothing, start nothing and signal nobody. What a kernel doesn't offer is reported and
//! not fatal: `talka doctor` shows it.

use std::{fmt, io, path::Path};

use serde::{Deserialize, Serialize};

use super::process::{ChildProcess, Role};

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as system;
#[cfg(not(target_os = "linux"))]
mod other;
#[cfg(not(target_os = "linux"))]
use other as system;

pub(super) use system::{Limits, begin, confine, seal};

/// One of the things that hold a child back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wall {
    /// A session of its own: no terminal, no signals meant for others.
    Session,
    /// It dies with its parent.
    ParentDeath,
    /// No program that it might start can gain privileges.
    NoNewPrivileges,
    /// No files, processes or core dumps; and bounded time and memory for a compile process.
    ResourceLimits,
    /// Everybody else comes first.
    LowestPriority,
    /// When memory runs out, it is the first to go.
    FirstToGo,
    /// The kernel refuses it every file, every connection and every signal to others.
    Landlock,
    /// The kernel ends it at the first system call that is not on the list.
    Seccomp,
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "session",
            Self::ParentDeath => "parent death signal",
            Self::NoNewPrivileges => "no new privileges",
            Self::ResourceLimits => "resource limits",
            Self::LowestPriority => "lowest priority",
            Self::FirstToGo => "first to go when memory runs out",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
        })
    }
}

/// Whether a wall stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WallState {
    /// It does.
    Active,
    /// The kernel knows only a part of it.
    Partial,
    /// It doesn't, for this reason.
    Missing(String),
}

/// The walls around a child process, in the order in which they were raised.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walls(Vec<(Wall, WallState)>);

impl Walls {
    /// Each wall and whether it stands.
    pub fn iter(&self) -> impl Iterator<Item = (Wall, &WallState)> {
        self.0.iter().map(|(wall, state)| (*wall, state))
    }

    /// Whether that wall stands, at least in part.
    pub fn has(&self, wall: Wall) -> bool {
        self.0.iter().any(|(own, state)| *own == wall && !matches!(state, WallState::Missing(_)))
    }

    #[cfg(target_os = "linux")]
    fn is_noted(&self, wall: Wall) -> bool {
        self.0.iter().any(|(own, _)| *own == wall)
    }

    fn note(&mut self, wall: Wall, state: WallState) {
        self.0.push((wall, state));
    }

    fn note_result<T, E: fmt::Display>(&mut self, wall: Wall, result: Result<T, E>) {
        self.note(
            wall,
            result.map_or_else(|error| WallState::Missing(error.to_string()), |_| WallState::Active),
        );
    }
}

/// Starts an executor from the program at `exe`, asks which walls are around it, and ends it.
pub async fn inspect(exe: &Path) -> io::Result<Walls> {
    let (child, ready) = ChildProcess::spawn(exe, Role::Executor).await?;
    child.end().await;
    Ok(ready.walls)
}
