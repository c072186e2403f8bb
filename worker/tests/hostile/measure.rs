//! Peaks of memory, from `/proc`. Elsewhere than on Linux everything is 0.
//!
//! Nobody tells the peak of a process that was killed, so a thread looks at all children every few milliseconds: what
//! the kernel keeps is a maximum, and only the last moments of a child can be missed.

use std::{
    collections::HashMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use talka_worker::sandbox::child::{COMPILER_ARG, EXECUTOR_ARG};

use super::report::Peaks;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(2);

/// Watches this process and its children from its making on.
pub(crate) struct Watch {
    own_before: u64,
    stop: Arc<AtomicBool>,
    looking: JoinHandle<Peaks>,
}

impl Watch {
    pub(crate) fn start() -> Self {
        // The kernel forgets the peak so far. Where it can't, the peak before is taken for growth: on the safe side.
        drop(fs::write("/proc/self/clear_refs", "5"));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let looking = std::thread::spawn(move || {
            let mut children = Children::default();
            while !stopped.load(Ordering::Relaxed) {
                children.look();
                std::thread::sleep(INTERVAL);
            }
            children.look();
            children.peaks
        });
        Self { own_before: status("self", "VmRSS:").unwrap_or(0), stop, looking }
    }

    /// The peaks so far. To be called while the children are still there.
    pub(crate) fn stop(self) -> Peaks {
        self.stop.store(true, Ordering::Relaxed);
        let peaks = self.looking.join().expect("a thread that only looks");
        let worker = status("self", "VmHWM:").unwrap_or(0).saturating_sub(self.own_before);
        Peaks { worker, ..peaks }
    }
}

/// The children that were seen.
#[derive(Default)]
struct Children {
    roles: HashMap<String, Role>,
    peaks: Peaks,
}

#[derive(Clone, Copy)]
enum Role {
    Executor,
    Compiler,
}

impl Children {
    fn look(&mut self) {
        let Ok(threads) = fs::read_dir("/proc/self/task") else { return };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            for pid in children.split_whitespace() {
                self.look_at(pid);
            }
        }
    }

    fn look_at(&mut self, pid: &str) {
        let role = self.roles.get(pid).copied().or_else(|| {
            // Until it runs its own program, a new process has the memory of its parent.
            let role = role(pid)?;
            self.roles.insert(pid.to_owned(), role);
            Some(role)
        });
        let peak = status(pid, "VmHWM:").unwrap_or(0);
        match role {
            Some(Role::Executor) => self.peaks.executor = self.peaks.executor.max(peak),
            Some(Role::Compiler) => self.peaks.compiler = self.peaks.compiler.max(peak),
            None => {}
        }
    }
}

fn role(pid: &str) -> Option<Role> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let first = line.split(|byte| *byte == 0).nth(1)?;
    if first == EXECUTOR_ARG.as_bytes() {
        Some(Role::Executor)
    } else if first == COMPILER_ARG.as_bytes() {
        Some(Role::Compiler)
    } else {
        None
    }
}

/// A number of bytes that the kernel keeps about a process.
fn status(pid: &str, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
