//! Virtual time: what happens next.

use std::{collections::BTreeMap, time::Duration};

use talka_core::{
    coordinator::{FetchOutput, ToWorker},
    ids::{BlobHash, JobId, PeerId, SlotNo},
};

use crate::network::{FromWorker, LinkNo};

/// One life of a process, from its start to its crash. What was begun in one life means nothing in the next.
pub(crate) type Life = u64;

/// A volunteer's position in the list.
pub(crate) type VolunteerNo = usize;

/// What happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// Nothing goes wrong from here on.
    Calm,
    HubTicks(Life),
    HubCommitted(Life),
    HubCrashes(Life),
    HubStarts,
    /// A fetch of a large output ends.
    HubFetched(Life, FetchOutput),
    /// A message arrives at the coordinator.
    Upward(LinkNo, FromWorker),
    /// A message arrives at a worker.
    Downward(LinkNo, ToWorker),
    LinkBreaks(LinkNo),
    /// A link was cut off for long.
    LinkStarves(LinkNo),
    PartitionStarts,
    PartitionEnds,
    /// Somebody sets the coordinator's clock.
    ClockJumps(Life),
    /// One end has hung up.
    LinkEnds(LinkNo),
    HubNotices(LinkNo),
    VolunteerNotices(LinkNo),
    VolunteerStarts(VolunteerNo),
    VolunteerEnds(VolunteerNo, Life),
    VolunteerPauses(VolunteerNo, Life),
    VolunteerConnects(VolunteerNo, Life),
    /// A worker acts on what has happened to it.
    VolunteerActs(VolunteerNo, Life),
    /// The first attempt of a slot's batch ends.
    SlotFinishes {
        volunteer: VolunteerNo,
        slot: SlotNo,
        run: u64,
    },
    SlotStops {
        volunteer: VolunteerNo,
        slot: SlotNo,
        run: u64,
    },
    /// A worker looks which blob of a job it still needs.
    Wants {
        volunteer: VolunteerNo,
        life: Life,
        job: JobId,
        fetch: u64,
        failures: u32,
    },
    /// A blob has arrived, or will not.
    Transferred {
        volunteer: VolunteerNo,
        life: Life,
        job: JobId,
        fetch: u64,
        failures: u32,
        blob: BlobHash,
        from: PeerId,
    },
    /// A submitter asks for its job, unless there was an answer.
    Submits(usize),
    Submitted(usize, JobId),
    /// A submitter asks for the end of its job, unless there was an answer.
    Cancels(usize),
    Cancelled(usize),
}

/// Events by their time; those of the same time in the order in which they were put down.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    now: Duration,
    next: u64,
    events: BTreeMap<(Duration, u64), Event>,
}

impl Agenda {
    /// Time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    pub(crate) fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    /// What should happen in the past happens next.
    pub(crate) fn at(&mut self, time: Duration, event: Event) {
        self.events.insert((time.max(self.now), self.next), event);
        self.next += 1;
    }

    /// Moves to the next event.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        let ((time, _), event) = self.events.pop_first()?;
        self.now = time;
        Some(event)
    }
}
