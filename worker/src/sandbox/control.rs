//! A hand on a running executor: stop it where it is, let it go on, see how far it is.
//!
//! There may be several reasons to stop an executor, and it is stopped while there is any: its owner wants a pause, or
//! the slot has had its share of the processor for now. Each reason comes and goes by itself,
//! so that the end of a pause does not undo a throttle, nor a throttle a pause.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rustix::process::Signal;
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

/// What an executor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// It has no task.
    Idle,
    /// It runs one.
    Running,
    /// It has one and is stopped for a moment, to keep to its share.
    Throttled,
    /// It has one and is stopped by its owner.
    Paused,
}

/// Why an executor is stopped, whether it has a task, and for how long it was not stopped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stops {
    paused: bool,
    throttled: bool,
    busy: bool,
    ran: Stopwatch,
    unpaused: Stopwatch,
}

impl Stops {
    fn is_stopped(self) -> bool {
        self.paused || self.throttled
    }

    /// Whether there is something to throttle.
    pub(super) fn wants_throttle(self) -> bool {
        self.busy && !self.paused
    }

    /// Whether it may run now, and for how long it might by now.
    pub(super) fn ran(self) -> (bool, Duration) {
        (!self.is_stopped(), self.ran.read(Instant::now()))
    }
}

/// Time spent in one state.
#[derive(Debug, Clone, Copy)]
struct Stopwatch {
    before: Duration,
    since: Option<Instant>,
}

impl Stopwatch {
    fn started(now: Instant) -> Self {
        Self { before: Duration::ZERO, since: Some(now) }
    }

    fn set(&mut self, now: Instant, runs: bool) {
        self.before = self.read(now);
        self.since = runs.then_some(now);
    }

    fn read(self, now: Instant) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| now - since)
    }
}

#[derive(Debug)]
struct Shared {
    /// Only while the child exists: its number may be another process' afterwards.
    pid: Mutex<Option<Pid>>,
    progress_ppm: AtomicU32,
    /// Changed under the lock of `pid` only, so that signals and flags agree.
    stops: watch::Sender<Stops>,
}

/// Controls one executor, from anywhere. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control(Arc<Shared>);

impl Control {
    pub(super) fn new() -> Self {
        let now = Stopwatch::started(Instant::now());
        let stops = Stops { paused: false, throttled: false, busy: false, ran: now, unpaused: now };
        Self(Arc::new(Shared {
            pid: Mutex::new(None),
            progress_ppm: AtomicU32::new(UNKNOWN),
            stops: watch::Sender::new(stops),
        }))
    }

    /// Stops the child where it is, within a moment and without losing anything. Its memory stays. The
    /// deadline of the running task stands still. Also holds for children that are started later.
    pub fn pause(&self) {
        self.change(|stops| stops.paused = true);
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.change(|stops| stops.paused = false);
    }

    /// Whether its owner has paused it.
    pub fn is_paused(&self) -> bool {
        self.0.stops.borrow().paused
    }

    /// Stops the child, or lets it go on, to keep it to its share. Without a task there is nothing to throttle.
    pub fn throttle(&self, stop: bool) {
        self.change(|stops| stops.throttled = stop);
    }

    /// What it does.
    pub fn activity(&self) -> Activity {
        match *self.0.stops.borrow() {
            Stops { busy: false, .. } => Activity::Idle,
            Stops { paused: true, .. } => Activity::Paused,
            Stops { throttled: true, .. } => Activity::Throttled,
            _ => Activity::Running,
        }
    }

    /// Time since this executor exists, without pauses. Throttling counts: it is how fast this executor is.
    pub fn unpaused(&self) -> Duration {
        self.0.stops.borrow().unpaused.read(Instant::now())
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

    pub(super) fn stops(&self) -> watch::Receiver<Stops> {
        self.0.stops.subscribe()
    }

    pub(super) fn set_progress(&self, ppm: Option<u32>) {
        self.0.progress_ppm.store(ppm.map_or(UNKNOWN, |ppm| ppm.min(1_000_000)), Ordering::Relaxed);
    }

    /// Takes a new child under control until the guard is dropped, which must be before the child is.
    pub(super) fn attach(&self, pid: Pid) -> Attached {
        let mut current = self.lock();
        *current = Some(pid);
        if self.0.stops.borrow().is_stopped() {
            signal(pid, Signal::STOP);
        }
        Attached(self.clone())
    }

    /// Notes that the child has tasks, until the guard is dropped.
    pub(super) fn busy(&self) -> Busy {
        self.change(|stops| stops.busy = true);
        Busy(self.clone())
    }

    fn change(&self, change: impl FnOnce(&mut Stops)) {
        let pid = self.lock();
        self.0.stops.send_if_modified(|stops| {
            let before = *stops;
            change(stops);
            stops.throttled &= stops.busy;
            let now = Instant::now();
            if stops.is_stopped() != before.is_stopped() {
                stops.ran.set(now, !stops.is_stopped());
                if let Some(pid) = *pid {
                    signal(pid, if stops.is_stopped() { Signal::STOP } else { Signal::CONT });
                }
            }
            if stops.paused != before.paused {
                stops.unpaused.set(now, !stops.paused);
            }
            let flags = |stops: Stops| (stops.paused, stops.throttled, stops.busy);
            flags(*stops) != flags(before)
        });
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

impl Attached {
    pub(super) fn control(&self) -> &Control {
        &self.0
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        *self.0.lock() = None;
        self.0.set_progress(None);
    }
}

/// A child that has tasks.
#[derive(Debug)]
pub(super) struct Busy(Control);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.change(|stops| stops.busy = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executor_is_stopped_while_there_is_any_reason() {
        let control = Control::new();
        let is_stopped = || control.0.stops.borrow().is_stopped();
        control.throttle(true);
        assert!(!is_stopped(), "without a task there is nothing to throttle");
        assert_eq!(control.activity(), Activity::Idle);

        let busy = control.busy();
        assert_eq!((is_stopped(), control.activity()), (false, Activity::Running));
        control.throttle(true);
        assert_eq!((is_stopped(), control.activity()), (true, Activity::Throttled));
        control.pause();
        assert_eq!((is_stopped(), control.activity()), (true, Activity::Paused));
        control.throttle(false);
        assert_eq!((is_stopped(), control.activity()), (true, Activity::Paused), "the owner's word stands");
        control.throttle(true);
        control.resume();
        assert_eq!((is_stopped(), control.activity()), (true, Activity::Throttled), "the share, too");

        drop(busy);
        assert_eq!((is_stopped(), control.activity()), (false, Activity::Idle));
        control.pause();
        assert_eq!((is_stopped(), control.activity()), (true, Activity::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn time_is_counted_as_what_it_was() {
        const STEP: Duration = Duration::from_secs(1);
        type Step = (fn(&Control), [u64; 2]);
        let control = Control::new();
        let _busy = control.busy();
        let steps: [Step; 5] = [
            (|_| (), [1, 1]),
            (|control| control.throttle(true), [1, 2]),
            (Control::pause, [1, 2]),
            (|control| control.throttle(false), [1, 2]),
            (Control::resume, [2, 3]),
        ];
        for (number, (step, [ran, unpaused])) in steps.into_iter().enumerate() {
            step(&control);
            tokio::time::advance(STEP).await;
            let counted = (control.0.stops.borrow().ran().1.as_secs(), control.unpaused().as_secs());
            assert_eq!(counted, (ran, unpaused), "after step {number}");
        }
    }
}
