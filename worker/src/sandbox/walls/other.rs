//! Systems other than Linux: resource limits and a session, and no more.

use rustix::process::{Resource, Rlimit};

use super::{Wall, WallState, Walls};

const LINUX_ONLY: &str = "this system has nothing like it that Talka uses";

/// What a child may use beyond what it starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Limits {
    /// Memory is the engine's to bound, time the parent's.
    Executor,
    /// Neither is: compilers are not made for hostile input.
    Compiler,
}

/// First of all: what needs nothing and hinders nothing.
pub(in super::super) fn begin(kind: Limits) -> Walls {
    let mut walls = Walls::default();
    walls.note_result(Wall::Session, rustix::process::setsid());
    walls.note_result(Wall::LowestPriority, rustix::process::setpriority_process(None, 19));
    if kind == Limits::Compiler {
        let cpu = Some(talka_core::limits::COMPILE_CPU_MAX.as_secs());
        let limit = Rlimit { current: cpu, maximum: cpu };
        walls.note_result(Wall::ResourceLimits, rustix::process::setrlimit(Resource::Cpu, limit));
    }
    walls
}

/// Nothing that these systems have.
pub(in super::super) fn confine(walls: &mut Walls) {
    walls.note(Wall::Landlock, WallState::Missing(LINUX_ONLY.into()));
}

/// The rest.
pub(in super::super) fn seal(walls: &mut Walls) {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let limited = [Resource::Core, Resource::Fsize]
        .into_iter()
        .try_for_each(|resource| rustix::process::setrlimit(resource, none.clone()));
    walls.note_result(Wall::ResourceLimits, limited);
    for wall in [Wall::ParentDeath, Wall::NoNewPrivileges, Wall::FirstToGo, Wall::Seccomp] {
        walls.note(wall, WallState::Missing(LINUX_ONLY.into()));
    }
}
