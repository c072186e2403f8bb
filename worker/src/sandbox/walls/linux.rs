//! The walls that Linux has.

use std::{collections::BTreeMap, fs, io};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, RestrictionStatus, Ruleset, RulesetAttr as _, RulesetError,
    RulesetStatus, Scope,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use talka_core::limits;

use super::{Wall, WallState, Walls};

/// `_IOWR('f', 16, struct pm_scan_arg)` of `linux/fs.h`.
const PAGEMAP_SCAN: u64 = 0xc060_6610;

/// `PR_SET_VMA` of `linux/prctl.h`.
const PR_SET_VMA: u64 = 0x5356_4d41;

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
    let death = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    walls.note_result(Wall::ParentDeath, death);
    walls.note_result(Wall::FirstToGo, fs::write("/proc/self/oom_score_adj", "1000"));
    walls.note_result(Wall::LowestPriority, rustix::process::setpriority_process(None, 19));
    walls.note_result(Wall::NoNewPrivileges, rustix::thread::set_no_new_privs(true));
    if kind == Limits::Compiler {
        let cpu = limits::COMPILE_CPU_MAX.as_secs();
        let bounded = [(Resource::Cpu, cpu), (Resource::As, limits::COMPILE_MEMORY_BYTES_MAX)];
        for (resource, limit) in bounded {
            if let Err(error) = limit_to(resource, limit) {
                walls.note(Wall::ResourceLimits, WallState::Missing(error.to_string()));
            }
        }
    }
    walls
}

/// From here on nothing can be opened. To be called before the first thread is started: threads inherit
/// it, but those that run already would not have it.
pub(in super::super) fn confine(walls: &mut Walls) {
    let landlock = match landlock() {
        Ok(RestrictionStatus { ruleset: RulesetStatus::FullyEnforced, .. }) => WallState::Active,
        Ok(RestrictionStatus { ruleset: RulesetStatus::PartiallyEnforced, .. }) => WallState::Partial,
        Ok(_) => WallState::Missing("this kernel doesn't have it, or it is switched off".into()),
        Err(error) => WallState::Missing(error.to_string()),
    };
    walls.note(Wall::Landlock, landlock);
}

/// The rest, around all threads, once everything is set up.
pub(in super::super) fn seal(walls: &mut Walls) {
    let resources = [Resource::Core, Resource::Fsize, Resource::Nproc, Resource::Nofile];
    let limited = resources.into_iter().try_for_each(|resource| limit_to(resource, 0));
    let undumpable = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if !walls.is_noted(Wall::ResourceLimits) {
        walls.note_result(Wall::ResourceLimits, limited.and(undumpable.map_err(Into::into)));
    }
    let filter = filter().and_then(|filter| seccompiler::apply_filter_all_threads(&filter));
    walls.note_result(Wall::Seccomp, filter);
}

fn limit_to(resource: Resource, limit: u64) -> io::Result<()> {
    let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
    Ok(rustix::process::setrlimit(resource, limit)?)
}

/// Handles every kind of access that the kernel knows and allows none.
fn landlock() -> Result<RestrictionStatus, RulesetError> {
    let newest = ABI::V7;
    Ruleset::default()
        .handle_access(AccessFs::from_all(newest))?
        .handle_access(AccessNet::from_all(newest))?
        .scope(Scope::from_all(newest))?
        .create()?
        .restrict_self()
}

/// What a running child needs: memory, its two pipes, locks, signal handlers, the time, an end.
fn filter() -> Result<BpfProgram, seccompiler::Error> {
    let always = [
        libc::SYS_brk,
        libc::SYS_clock_gettime,
        libc::SYS_clock_nanosleep,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_futex,
        libc::SYS_getcpu,
        libc::SYS_getpid,
        libc::SYS_getrandom,
        libc::SYS_gettid,
        libc::SYS_madvise,
        libc::SYS_membarrier,
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_mremap,
        libc::SYS_munmap,
        libc::SYS_nanosleep,
        libc::SYS_restart_syscall,
        libc::SYS_rseq,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sched_getaffinity,
        libc::SYS_sched_yield,
        libc::SYS_set_robust_list,
        libc::SYS_sigaltstack,
    ];
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = always.into_iter().map(|call| (call, vec![])).collect();
    // Descriptors that were inherited by accident are of no use.
    rules.insert(libc::SYS_read, vec![first_argument_is(0)?]);
    rules.insert(libc::SYS_write, vec![first_argument_is(1)?, first_argument_is(2)?]);
    // Which of its own pages a program has touched: the engine clears only these.
    rules.insert(libc::SYS_ioctl, vec![argument_is(1, PAGEMAP_SCAN)?]);
    // The allocator names its memory for whoever looks at the maps of the process.
    rules.insert(libc::SYS_prctl, vec![first_argument_is(PR_SET_VMA)?]);
    // Aborting is a signal to oneself.
    let own = u64::from(rustix::process::getpid().as_raw_nonzero().get().unsigned_abs());
    rules.insert(libc::SYS_tgkill, vec![first_argument_is(own)?]);
    let arch = std::env::consts::ARCH.try_into().map_err(seccompiler::Error::Backend)?;
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch);
    filter.and_then(TryInto::try_into).map_err(seccompiler::Error::Backend)
}

fn first_argument_is(value: u64) -> Result<SeccompRule, seccompiler::Error> {
    argument_is(0, value)
}

fn argument_is(position: u8, value: u64) -> Result<SeccompRule, seccompiler::Error> {
    let condition = SeccompCondition::new(position, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value);
    condition.and_then(|condition| SeccompRule::new(vec![condition])).map_err(seccompiler::Error::Backend)
}
