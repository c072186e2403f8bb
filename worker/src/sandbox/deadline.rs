//! A deadline that stands still while its executor is stopped, for whatever reason.

use std::time::Duration;

use talka_core::limits;
use tokio::sync::watch;

use super::control::{Control, Stops};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Deadline {
    allowed: Duration,
    /// What the executor had run by when it began.
    began: Duration,
    stops: watch::Receiver<Stops>,
}

impl Deadline {
    pub(super) fn new(control: &Control, allowed: Duration) -> Self {
        // So that no sum overflows, whoever made the job.
        let allowed = allowed.min(limits::TASK_DEADLINE_MAX);
        let stops = control.stops();
        let (_, began) = stops.borrow().ran();
        Self { allowed, began, stops }
    }

    /// Starts again from now.
    pub(super) fn restart(&mut self) {
        self.began = self.stops.borrow().ran().1;
    }

    /// Whether it has passed.
    pub(super) fn is_over(&self) -> bool {
        let (_, ran) = self.stops.borrow().ran();
        ran.saturating_sub(self.began) >= self.allowed
    }

    /// Waits until it has passed.
    pub(super) async fn passed(&mut self) {
        loop {
            let (runs, ran) = self.stops.borrow_and_update().ran();
            let left = self.allowed.saturating_sub(ran.saturating_sub(self.began));
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left), if runs => {}
                changed = self.stops.changed() => {
                    if changed.is_err() {
                        // Nobody can stop it any more; the sender lives in the executor, so this can't be.
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    const ALLOWED: Duration = Duration::from_millis(40);
    const PAUSE: Duration = Duration::from_millis(100);

    /// How long a deadline lasts while `script` goes on.
    async fn lasts(script: impl AsyncFnOnce(&Control)) -> Duration {
        let control = Control::new();
        let _busy = control.busy();
        let start = Instant::now();
        let mut deadline = Deadline::new(&control, ALLOWED);
        let wait = async {
            deadline.passed().await;
            assert!(deadline.is_over());
            start.elapsed()
        };
        tokio::join!(wait, script(&control)).0
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_stands_still_while_paused() {
        for run in [Duration::ZERO, ALLOWED / 4] {
            let lasted = lasts(async |control| {
                sleep(run).await;
                control.pause();
                sleep(PAUSE).await;
                control.resume();
            });
            assert_eq!(lasted.await, ALLOWED + PAUSE, "{run:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_counts_the_slices_that_run_and_no_others() {
        let (run, stop) = (Duration::from_millis(15), Duration::from_millis(45));
        let lasted = lasts(async |control| {
            for _ in 0..3 {
                sleep(run).await;
                control.throttle(true);
                sleep(stop).await;
                control.throttle(false);
            }
        });
        assert_eq!(lasted.await, ALLOWED + 2 * stop);
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_gives_the_whole_time_again() {
        let control = Control::new();
        let mut deadline = Deadline::new(&control, ALLOWED);
        sleep(ALLOWED * 3 / 4).await;
        control.pause();
        deadline.restart();
        sleep(PAUSE).await;
        assert!(!deadline.is_over());
        control.resume();
        let start = Instant::now();
        deadline.passed().await;
        assert_eq!(start.elapsed(), ALLOWED);
    }
}
