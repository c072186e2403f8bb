//! Streams between workers and the coordinator: late, ordered, reliable until they break.
//!
//! A link that breaks carries nothing from that moment on; what had arrived has arrived. Its ends notice each in
//! their own time, so that a worker may be back on a new link before the coordinator knows that the old one is
//! dead, or the other way round.

use std::time::Duration;

use talka_core::{
    coordinator::{Capacity, Report, ToWorker},
    ids::{AttemptId, SessionId},
    limits,
};

use crate::{
    agenda::{Event, Life, VolunteerNo},
    invariants::Step,
    world::World,
};

/// Time until a packet that was lost is sent again; it doubles up to [`RESEND_MAX`].
const RESEND: Duration = Duration::from_millis(100);
const RESEND_MAX: Duration = Duration::from_secs(5);

/// A link's number: links are counted over the whole run.
pub(crate) type LinkNo = usize;

/// A message of a worker.
#[derive(Debug, Clone)]
pub(crate) enum FromWorker {
    Hello {
        capacity: Capacity,
        holding: Vec<AttemptId>,
    },
    Capacity(Capacity),
    Reports(Vec<Report>),
    GivenBack(Vec<AttemptId>),
    /// It takes nothing more and keeps these.
    Leaving(Vec<AttemptId>),
}

/// A link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) volunteer: VolunteerNo,
    pub(crate) hub: Life,
    /// Since the coordinator has heard the hello.
    pub(crate) session: Option<SessionId>,
    pub(crate) broken: bool,
    /// Messages on their way down.
    pub(crate) downward: usize,
    /// Arrival of the last message each way: none overtakes another.
    upward_until: Duration,
    downward_until: Duration,
}

impl World<'_> {
    /// A new link to the coordinator as it lives now.
    pub(crate) fn link(&mut self, volunteer: VolunteerNo, hub: Life) -> LinkNo {
        let number = self.links.len();
        self.links.push(Link {
            volunteer,
            hub,
            session: None,
            broken: false,
            downward: 0,
            upward_until: Duration::ZERO,
            downward_until: Duration::ZERO,
        });
        self.mishap(self.scenario.faults.session_life, Event::LinkBreaks(number));
        number
    }

    pub(crate) fn send_up(&mut self, link: LinkNo, message: FromWorker) {
        if self.links[link].broken {
            return;
        }
        let duplicates = self.scenario.faults.duplicates;
        let twice = matches!(message, FromWorker::Reports(_)) && self.goes_wrong(duplicates);
        if twice {
            self.send_up_once(link, message.clone());
        }
        self.send_up_once(link, message);
    }

    fn send_up_once(&mut self, link: LinkNo, message: FromWorker) {
        let latency = self.latency();
        let cut = self.cut(self.links[link].volunteer).filter(|partition| partition.up);
        let from = cut.map_or(self.agenda.now(), |partition| partition.until);
        let arrival = self.links[link].upward_until.max(from + latency);
        self.links[link].upward_until = arrival;
        self.agenda.at(arrival, Event::Upward(link, message));
    }

    /// Returns whether there is room: a worker that does not read its messages loses its session.
    pub(crate) fn send_down(&mut self, link: LinkNo, message: ToWorker) -> bool {
        let latency = self.latency();
        let cut = self.cut(self.links[link].volunteer).filter(|partition| partition.down);
        let from = cut.map_or(self.agenda.now(), |partition| partition.until);
        let state = &mut self.links[link];
        if state.downward >= limits::SESSION_QUEUE_MAX {
            return false;
        }
        state.downward += 1;
        let (length, arrival) = (state.downward, state.downward_until.max(from + latency));
        state.downward_until = arrival;
        self.observe(Step::Queue(length));
        self.agenda.at(arrival, Event::Downward(link, message));
        true
    }

    /// Both ends will notice.
    pub(crate) fn break_link(&mut self, link: LinkNo) {
        if std::mem::replace(&mut self.links[link].broken, true) {
            return;
        }
        let notice = self.scenario.faults.notice.clone();
        let (hub, volunteer) = (self.between(&notice), self.between(&notice));
        self.agenda.after(hub, Event::HubNotices(link));
        self.agenda.after(volunteer, Event::VolunteerNotices(link));
    }

    /// Time on the way. What is lost is sent again, later each time.
    pub(crate) fn latency(&mut self) -> Duration {
        let latency = self.scenario.faults.latency.clone();
        let mut time = self.between(&latency);
        let mut again = RESEND;
        while again < RESEND_MAX && self.goes_wrong(self.scenario.faults.loss) {
            time += again;
            again *= 2;
        }
        time
    }
}
