//! A coordinator that comes back is the one that went: whatever happened before, it knows the same, and leaves nothing
//! undecided.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{
    grid::Grid,
    random::{Event, WORKERS, apply, events, keeps_output},
};
use crate::{
    coordinator::{AttemptView, Batch, Effects, TaskState, trust::Trust},
    ids::{AttemptId, PeerId, TaskId},
    job::JobState,
    quantities::Bytes,
};

/// A grid in which all this happened, whose disk has caught up and whose workers take nothing more.
fn grid_after(events: &[Event]) -> Grid {
    let mut grid = Grid::default();
    for event in events {
        apply(&mut grid, event);
    }
    grid.disk_recovers();
    for worker in 1..=WORKERS {
        if grid.worker(worker).is_connected() {
            grid.worker(worker).offers(0, Bytes::mib(16 << 10));
        }
    }
    grid
}

/// What is known of the attempts at each task that is not final, but for those that were given up: they are in no table.
fn known(grid: &Grid) -> BTreeMap<TaskId, BTreeSet<(u32, Option<PeerId>, String)>> {
    let mut known = BTreeMap::new();
    let running = grid.store.jobs.iter().filter(|(_, (row, _))| row.state == JobState::Running);
    for (job, (_, shard)) in running {
        for index in 0..shard.cursor {
            let task = TaskId { job: *job, index };
            let view = grid.coordinator.explain(task).expect("a job").expect("a task of it");
            // Which provisional result is checked in the end is drawn anew.
            if view.state == TaskState::Final || grid.store.provisional.contains_key(&task) {
                continue;
            }
            let attempts = view.attempts.iter().filter(|attempt| attempt.state != "gone");
            known.insert(
                task,
                attempts.map(|attempt| (attempt.number, attempt.peer, said(attempt))).collect(),
            );
        }
    }
    known
}

/// What an attempt has come to. Leases whose time was over have time again after a restart.
fn said(attempt: &AttemptView) -> String {
    match attempt.state {
        "leased" | "expired" => "open".into(),
        state => format!("{state} {:?} {} {}", attempt.digest, attempt.fuel, attempt.detail),
    }
}

fn held(grid: &Grid) -> Vec<(u8, BTreeSet<AttemptId>)> {
    grid.machines.iter().map(|(worker, machine)| (*worker, machine.holds.clone())).collect()
}

proptest! {
    /// Two grids with one history, of which one has its coordinator killed; all workers connect anew in both: before that,
    /// what they had given up may seem to be theirs again. Outputs that are being fetched are left out, because that begins
    /// anew.
    #[test]
    fn a_restart_is_a_loss_of_connections_and_nothing_else(mut events in events()) {
        events.retain(|event| !keeps_output(event));
        let (mut calm, mut restarted) = (grid_after(&events), grid_after(&events));
        restarted.coordinator_restarts();
        for worker in 1..=WORKERS {
            calm.worker(worker).connects(0);
            restarted.worker(worker).connects(0);
        }
        prop_assert_eq!(held(&restarted), held(&calm), "what workers hold");
        prop_assert_eq!(&restarted.store.finals, &calm.store.finals, "what is final");
        prop_assert_eq!(&restarted.store.credit, &calm.store.credit, "what was granted");
        prop_assert_eq!(known(&restarted), known(&calm), "what is known of open tasks");
    }

    /// Most tasks are not looked at in a restart.
    #[test]
    fn a_task_that_is_under_way_needs_no_decision(events in events()) {
        let mut grid = grid_after(&events);
        grid.coordinator_restarts();
        let coordinator = &mut grid.coordinator;
        let running = coordinator.jobs.values().filter(|job| job.state == JobState::Running);
        let under_way: Vec<TaskId> = running
            .flat_map(|job| {
                let tasks = job.open.iter().filter(|(_, task)| Trust::is_under_way(job, task));
                tasks.map(|(index, _)| job.task_id(index))
            })
            .collect();
        for task in under_way {
            let before = format!("{:?}", coordinator.jobs[&task.job]);
            let mut fx = Effects::default();
            coordinator.evaluate(grid.now, task, &mut fx);
            prop_assert_eq!(format!("{:?}", coordinator.jobs[&task.job]), before, "{}", task);
            prop_assert_eq!(format!("{:?}", fx.batch), format!("{:?}", Batch::default()), "{}", task);
        }
    }
}
