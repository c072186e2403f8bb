//! Holds an executor to its share of the processor.
//!
//! When it runs is decided by [`Duty`]; this is the timer that follows it. It sleeps while there is nothing to
//! throttle: an executor without a task, one that its owner has paused, or one that may run all the time gets no signal.

use talka_core::duty::{CpuPercent, Duty};
use tokio::{sync::watch, time::Instant};

use super::control::Control;

/// The place of an executor among those of a worker.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its number, from 0.
    pub slot: u32,
    /// How many there are.
    pub slots: u32,
    /// The start of the clock that all of them go by.
    pub epoch: Instant,
}

/// Keeps to the share that `percent` says, until its sender goes away.
pub async fn throttle(control: Control, mut percent: watch::Receiver<CpuPercent>, place: Place) {
    let mut stops = control.stops();
    loop {
        let duty = Duty::new(*percent.borrow_and_update(), place.slot, place.slots);
        let wanted = stops.borrow_and_update().wants_throttle();
        let mut until = None;
        if wanted {
            let phase = duty.at(place.epoch.elapsed());
            control.throttle(!phase.runs);
            until = phase.until.map(|until| place.epoch + until);
        }
        tokio::select! {
            () = tokio::time::sleep_until(until.unwrap_or(place.epoch)), if until.is_some() => {}
            changed = percent.changed() => {
                if changed.is_err() {
                    control.throttle(false);
                    return;
                }
            }
            // Its sender lives in `control`, so it does not go away.
            _ = stops.wait_for(|stops| stops.wants_throttle() != wanted) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;
    use crate::sandbox::Activity;

    const MS: Duration = Duration::from_millis(1);

    fn percent(percent: u8) -> CpuPercent {
        CpuPercent::new(percent).expect("1 to 100")
    }

    /// Lets all tasks run as far as they come at this moment.
    async fn settle() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    /// What the executor does at each of the next milliseconds: `r`unning, `t`hrottled, `p`aused or `i`dle.
    async fn watch_for(control: &Control, millis: u32) -> String {
        let mut seen = String::new();
        for _ in 0..millis {
            seen.push(match control.activity() {
                Activity::Idle => 'i',
                Activity::Running => 'r',
                Activity::Throttled => 't',
                Activity::Paused => 'p',
            });
            advance(MS).await;
            settle().await;
        }
        seen
    }

    fn runs(pattern: &[(char, usize)]) -> String {
        pattern.iter().flat_map(|(what, count)| std::iter::repeat_n(*what, *count)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_executor_with_a_task_runs_and_stops_in_turns() {
        let control = Control::new();
        let (share, shares) = watch::channel(percent(25));
        let place = Place { slot: 0, slots: 1, epoch: Instant::now() };
        let shell = tokio::spawn(throttle(control.clone(), shares, place));
        settle().await;
        assert_eq!(watch_for(&control, 20).await, runs(&[('i', 20)]));

        // Its task comes in a stop slice, which begins 15 ms into each period of 60 ms.
        let busy = control.busy();
        settle().await;
        let turns = [('t', 40), ('r', 15), ('t', 45), ('r', 15), ('t', 5)];
        assert_eq!(watch_for(&control, 120).await, runs(&turns));

        control.pause();
        assert_eq!(watch_for(&control, 100).await, runs(&[('p', 100)]), "at once, and whatever the share");
        control.resume();
        settle().await;
        assert_eq!(watch_for(&control, 20).await, runs(&[('r', 15), ('t', 5)]), "the phase did not drift");

        share.send_replace(CpuPercent::ALL);
        settle().await;
        assert_eq!(watch_for(&control, 100).await, runs(&[('r', 100)]), "a new share holds at once");
        share.send_replace(percent(50));
        settle().await;
        assert!(watch_for(&control, 60).await.contains('t'));

        drop(busy);
        assert_eq!(control.activity(), Activity::Idle);
        let _busy = control.busy();
        control.throttle(true);
        drop(share);
        settle().await;
        assert_eq!(control.activity(), Activity::Running, "nobody is left stopped");
        shell.await.expect("ended");
    }
}
