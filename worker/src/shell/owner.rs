//! What the owner of the machine wants of the worker, and what they are told.

use talka_core::{
    coordinator::ReportOutcome,
    duty::CpuPercent,
    ids::PeerId,
    limits,
    worker::{Effects, Running},
};
use talka_proto::{
    convert::attempts,
    wire::{self, worker_message::Message},
};
use tokio::{sync::watch, time::Instant};

use super::Shell;
use crate::{
    control::{
        Asked, Connection, DiskUsage, Pause, Refused, Request, SlotState, SlotStatus, State, Status,
        TaskStatus, Traffic, now_millis,
    },
    sandbox::Activity,
    slots::Finished,
};

/// The owner's wishes, and what is counted for them.
pub(crate) struct Owner {
    peer: PeerId,
    coordinator: PeerId,
    started_millis: u64,
    pause: Option<Pause>,
    /// Since when it takes nothing new, so as to end.
    finishing: Option<Instant>,
    share: watch::Sender<CpuPercent>,
    session_changed_millis: u64,
    attempts_done: u64,
    no_results: u64,
    fuel_done: u64,
}

impl Owner {
    /// An owner who wants all the worker's time, or had paused it in an earlier life.
    pub(crate) fn new(
        peer: PeerId,
        coordinator: PeerId,
        pause: Option<Pause>,
        share: watch::Sender<CpuPercent>,
    ) -> Self {
        let now = now_millis();
        Self {
            peer,
            coordinator,
            started_millis: now,
            pause,
            finishing: None,
            share,
            session_changed_millis: now,
            attempts_done: 0,
            no_results: 0,
            fuel_done: 0,
        }
    }

    pub(super) fn note_session(&mut self) {
        self.session_changed_millis = now_millis();
    }

    pub(super) fn note_finished(&mut self, finished: &Finished) {
        if matches!(finished.report.outcome, ReportOutcome::Execution { .. }) {
            self.attempts_done += 1;
            self.fuel_done = self.fuel_done.saturating_add(finished.fuel.get());
        } else {
            self.no_results += 1;
        }
    }
}

impl Shell {
    /// Does what is asked and says how things are then.
    pub(super) fn obey(&mut self, asked: Asked, fx: &mut Effects) {
        let Asked { request, reply } = asked;
        let obeyed = match request {
            Request::Status {} => Ok(()),
            Request::Pause { for_secs }
                if for_secs.is_some_and(|secs| secs > limits::PAUSE_MAX.as_secs()) =>
            {
                let days = limits::PAUSE_MAX.as_secs() / 86_400;
                let text = format!(
                    "a pause that ends by itself has {days} days at most; pause without a time instead"
                );
                Err(Refused::new("limit", text))
            }
            Request::Pause { for_secs } => {
                self.pause(Pause::new(now_millis(), for_secs));
                Ok(())
            }
            Request::Resume {} => {
                self.resume(fx);
                Ok(())
            }
            Request::Finish {} => {
                self.finish();
                Ok(())
            }
            Request::Set { cpu_percent } => {
                self.owner.share.send_replace(cpu_percent);
                tracing::info!(%cpu_percent, "the share of the processor is changed");
                Ok(())
            }
        };
        // Whoever asked may have gone.
        drop(reply.send(obeyed.map(|()| self.status())));
    }

    /// Holds the pause of an earlier life.
    pub(super) fn pause_from_the_start(&mut self) {
        if let Some(pause) = self.owner.pause {
            tracing::info!("paused by its owner; go on with: talka worker resume");
            self.pause(pause);
        }
    }

    /// Looks whether a pause is over.
    pub(super) fn look_at_pause(&mut self, fx: &mut Effects) {
        if self.owner.pause.is_some_and(|pause| pause.is_over(now_millis())) {
            self.resume(fx);
        }
    }

    /// Whether a worker that was to finish has done so.
    pub(super) fn has_finished(&self) -> bool {
        let Some(since) = self.owner.finishing else { return false };
        let load = self.worker.load();
        // An output that nobody fetched was computed for nothing, but somebody has to want it some time.
        let keeps = self.worker.keeps_outputs() && since.elapsed() < limits::FINISH_KEEPS_OUTPUTS;
        load.running == 0 && load.unsettled == 0 && !keeps
    }

    /// Whether a worker that was to stop need not wait: what is paused does not come to its end.
    pub(super) fn is_drained(&self) -> bool {
        self.worker.is_drained() || (self.owner.pause.is_some() && self.worker.load().unsettled == 0)
    }

    fn pause(&mut self, pause: Pause) {
        for slot in &self.slots {
            slot.control.pause();
        }
        let since_millis = self.owner.pause.map_or(pause.since_millis, |earlier| earlier.since_millis);
        self.owner.pause = Some(Pause { since_millis, ..pause });
        self.worker.pause();
        self.give_back();
    }

    fn resume(&mut self, fx: &mut Effects) {
        for slot in &self.slots {
            slot.control.resume();
        }
        self.owner.pause = None;
        // It was told that there are no slots, so it has to be told that there are.
        self.told = None;
        self.worker.resume(fx);
    }

    fn finish(&mut self) {
        self.owner.finishing.get_or_insert_with(Instant::now);
        self.worker.drain();
        self.give_back();
    }

    /// Tells the coordinator that nothing more is taken, and what is kept: the rest goes to others at once.
    fn give_back(&mut self) {
        let keeping = attempts(&self.worker.holding());
        self.told = None;
        self.send(Message::Leaving(wire::Leaving { keeping }));
    }

    fn state(&self) -> State {
        if self.owner.pause.is_some() {
            State::Paused
        } else if self.owner.finishing.is_some() {
            State::Finishing
        } else if self.worker.load().running > 0 {
            State::Working
        } else if self.outbound.is_some() {
            State::Idle
        } else {
            State::Disconnected
        }
    }

    fn status(&self) -> Status {
        let load = self.worker.load();
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let (from_coordinator, from_peers) = self.fetcher.fetched();
        let (used, quota) = self.fetcher.disk_usage();
        let Owner { peer, coordinator, pause, .. } = self.owner;
        Status {
            peer: peer.to_string(),
            agent: crate::AGENT.to_owned(),
            pid: std::process::id(),
            started_millis: self.owner.started_millis,
            state: self.state(),
            pause,
            finishing: self.owner.finishing.is_some(),
            cpu_percent: *self.owner.share.borrow(),
            connection: Connection {
                coordinator: coordinator.to_string(),
                connected: self.outbound.is_some(),
                since_millis: self.owner.session_changed_millis,
            },
            slots: self.slot_statuses(),
            queued: count(load.queued),
            fetching: count(load.fetching),
            unsettled: count(load.unsettled),
            attempts_done: self.owner.attempts_done,
            no_results: self.owner.no_results,
            fuel_done: self.owner.fuel_done,
            fetched: Traffic { from_coordinator, from_peers },
            disk: DiskUsage { used: used.get(), quota: quota.get() },
        }
    }

    fn slot_statuses(&self) -> Vec<SlotStatus> {
        let slots = (0..).zip(self.slots.iter().zip(self.worker.slots()));
        let status = |(slot, (handle, running)): (u32, (&super::SlotHandle, Option<Running>))| SlotStatus {
            slot,
            state: match handle.control.activity() {
                Activity::Running => SlotState::Running,
                Activity::Throttled => SlotState::Throttled,
                Activity::Paused => SlotState::Paused,
                Activity::Idle => SlotState::Idle,
            },
            pid: handle.control.pid(),
            task: running.map(|running| self.task_status(running, handle.control.progress())),
        };
        slots.map(status).collect()
    }

    fn task_status(&self, running: Running, progress: Option<f64>) -> TaskStatus {
        let task = running.attempt.task;
        let index =
            self.worker.spec(task.job).map_or(task.index, |spec| spec.inputs.visible_index(task.index));
        TaskStatus {
            task: format!("{}/{index}", task.job),
            attempt: running.attempt.number,
            progress,
            behind: u64::try_from(running.behind).unwrap_or(u64::MAX),
        }
    }
}
