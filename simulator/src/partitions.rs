//! The network falls apart for a while: some workers reach neither the coordinator nor the others, or hear of it and
//! are not heard, or the other way round.
//!
//! What was on its way arrives, what is said meanwhile arrives when the network is whole again, unless the silence
//! has broken the connection by then.

use std::time::Duration;

use talka_core::limits::CONNECTION_IDLE_MAX;

use crate::{
    agenda::{Event, VolunteerNo},
    network::LinkNo,
    world::World,
};

/// A part of the network that is cut off.
#[derive(Debug)]
pub(crate) struct Partition {
    /// By worker.
    cut: Vec<bool>,
    /// Whether it is not heard.
    pub(crate) up: bool,
    /// Whether it does not hear.
    pub(crate) down: bool,
    pub(crate) until: Duration,
}

impl World<'_> {
    pub(crate) fn partition_starts(&mut self) {
        if self.is_calm() {
            return;
        }
        let time = self.scenario.faults.partition.clone();
        let until = (self.agenda.now() + self.between(&time)).min(self.scenario.faults.until);
        let share = self.pick(0.1..=1.0);
        let cut: Vec<bool> = (0..self.volunteers.len()).map(|_| self.happens(share)).collect();
        let (up, down) = [(true, true), (true, false), (false, true)][self.pick(0..=2_usize)];
        let count = cut.iter().filter(|cut| **cut).count();
        self.note(format_args!("{count} workers are cut off, unheard: {up}, deaf: {down}"));
        let links: Vec<LinkNo> = (0..self.volunteers.len())
            .filter(|number| cut[*number])
            .filter_map(|number| self.volunteers[number].link())
            .collect();
        for link in links {
            self.agenda.after(CONNECTION_IDLE_MAX, Event::LinkStarves(link));
        }
        self.partition = Some(Partition { cut, up, down, until });
        self.agenda.at(until, Event::PartitionEnds);
    }

    pub(crate) fn partition_ends(&mut self) {
        self.note(format_args!("the network is whole"));
        self.partition = None;
        self.mishap(self.scenario.faults.partition_every, Event::PartitionStarts);
    }

    /// A link has carried nothing for too long, if it is still cut.
    pub(crate) fn link_starves(&mut self, link: LinkNo) {
        if self.cut(self.links[link].volunteer).is_some() {
            self.break_link(link);
        }
    }

    /// The partition that cuts a worker off, if there is one.
    pub(crate) fn cut(&self, volunteer: VolunteerNo) -> Option<&Partition> {
        self.partition.as_ref().filter(|partition| partition.cut[volunteer])
    }
}
