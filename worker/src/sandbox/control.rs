//! A hand on a running executor: pause it, see how far it is.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rustix::process::Signal;
use talka_core::limits;
use tokio::{sync::watch, time::Instant};

/// The number of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pid(rustix::process::Pid);

impl Pid {
    pub(super) fn new(raw: u32) -> Option<Self> {
        i32::try_from(raw).ok().and_then(rustix::process::Pid::from_raw).map(Self)
    }

    fn get(self) -> u32 {
        self.0.as_raw_nonzero().get().unsigned_abs()
    }
}

/// Millionths that mean "the program has not said".
const UNKNOWN: u32 = u32::MAX;

#[derive(Debug)]
struct Shared {
    /// Only while the child exists: its number may be another process' afterwards.
    pid: Mutex<Option<Pid>>,
    progress_ppm: AtomicU32,
    paused: watch::Sender<bool>,
}

/// Controls one executor, from anywhere. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control(Arc<Shared>);

impl Control {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared {
            pid: Mutex::new(None),
            progress_ppm: AtomicU32::new(UNKNOWN),
            paused: watch::Sender::new(false),
        }))
    }

    /// Stops the child where it is, within a moment and without losing anything. Its memory stays. The
    /// deadline of the running task stands still. Also holds for children that are started later.
    pub fn pause(&self) {
        self.set_paused(true);
    }

    /// Lets the child go on.
    pub fn resume(&self) {
        self.set_paused(false);
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        *self.0.paused.borrow()
    }

    /// How far the running task says that it is, 0 to 1.
    pub fn progress(&self) -> Option<f64> {
        match self.0.progress_ppm.load(Ordering::Relaxed) {
            UNKNOWN => None,
            ppm => Some(f64::from(ppm) / 1e6),
        }
    }

    /// The process that runs tasks at this moment.
    pub fn pid(&self) -> Option<u32> {
        self.lock().map(Pid::get)
    }

    pub(super) fn set_progress(&self, ppm: Option<u32>) {
        self.0.progress_ppm.store(ppm.map_or(UNKNOWN, |ppm| ppm.min(1_000_000)), Ordering::Relaxed);
    }

    /// Takes a new child under control until the guard is dropped, which must be before the child is.
    pub(super) fn attach(&self, pid: Pid) -> Attached {
        let mut current = self.lock();
        *current = Some(pid);
        if self.is_paused() {
            signal(pid, Signal::STOP);
        }
        Attached(self.clone())
    }

    fn set_paused(&self, paused: bool) {
        // Under the lock, so that the signal and the flag agree.
        let pid = self.lock();
        self.0.paused.send_replace(paused);
        if let Some(pid) = *pid {
            signal(pid, if paused { Signal::STOP } else { Signal::CONT });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Pid>> {
        self.0.pid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn signal(pid: Pid, signal: Signal) {
    if let Err(error) = rustix::process::kill_process(pid.0, signal) {
        // It has just died, which its pipes will tell.
        tracing::debug!(%error, "an executor can't be signalled");
    }
}

/// A child under control.
#[derive(Debug)]
pub(super) struct Attached(Control);

impl Drop for Attached {
    fn drop(&mut self) {
        *self.0.lock() = None;
        self.0.set_progress(None);
    }
}

/// A deadline that stands still while the child is paused.
#[derive(Debug)]
pub(super) struct Deadline {
    allowed: Duration,
    at: Instant,
    paused_since: Option<Instant>,
    paused: watch::Receiver<bool>,
}

impl Deadline {
    pub(super) fn new(control: &Control, allowed: Duration) -> Self {
        // So that no sum overflows, whoever made the job.
        let allowed = allowed.min(limits::TASK_DEADLINE_MAX);
        let mut paused = control.0.paused.subscribe();
        let paused_since = paused.borrow_and_update().then(Instant::now);
        Self { allowed, at: Instant::now() + allowed, paused_since, paused }
    }

    /// Starts again from now.
    pub(super) fn restart(&mut self) {
        self.at = Instant::now() + self.allowed;
        self.paused_since = self.paused_since.map(|_| Instant::now());
    }

    /// Whether it has passed.
    pub(super) fn is_over(&self) -> bool {
        self.paused_since.is_none() && Instant::now() >= self.at
    }

    /// Waits until it has passed.
    pub(super) async fn passed(&mut self) {
        loop {
            let running = self.paused_since.is_none();
            tokio::select! {
                () = tokio::time::sleep_until(self.at), if running => return,
                changed = self.paused.changed() => {
                    let paused = *self.paused.borrow_and_update();
                    match (self.paused_since, paused) {
                        (None, true) => self.paused_since = Some(Instant::now()),
                        (Some(since), false) => {
                            self.at += since.elapsed();
                            self.paused_since = None;
                        }
                        _ => {}
                    }
                    if changed.is_err() {
                        // Nobody can pause any more; the sender lives in the executor, so this can't be.
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Duration = Duration::from_millis(40);
    const PAUSE: Duration = Duration::from_millis(100);

    /// How long a deadline lasts that is paused after `run`.
    async fn lasts(run: Duration) -> Duration {
        let control = Control::new();
        if run.is_zero() {
            control.pause();
        }
        let start = Instant::now();
        let mut deadline = Deadline::new(&control, ALLOWED);
        let script = async {
            tokio::time::sleep(run).await;
            control.pause();
            tokio::time::sleep(PAUSE).await;
            control.resume();
        };
        tokio::join!(deadline.passed(), script);
        start.elapsed()
    }

    #[tokio::test]
    async fn a_deadline_stands_still_while_paused() {
        for run in [Duration::ZERO, ALLOWED / 4] {
            assert!(lasts(run).await >= ALLOWED + PAUSE, "{run:?}");
        }
    }
}
