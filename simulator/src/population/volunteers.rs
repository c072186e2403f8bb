//! Who is there when, how long a task takes them, and what they say.

use rand::{RngExt, rngs::StdRng};
use talka_core::{quantities::Credit, trust::Record};

use super::{
    Setup, Strategy,
    queue::TaskNo,
    strategy::{Answer, RIGHT},
};

/// A volunteer's number.
pub(super) type VolunteerNo = u32;

/// Seconds since the start.
pub(super) type Secs = f64;

/// A result that rests on one word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unchecked {
    pub(super) task: TaskNo,
    /// Whether whose word it is passed a check since.
    pub(super) passed: bool,
}

/// One volunteer: one machine with one slot.
#[derive(Debug)]
pub(super) struct Volunteer {
    pub(super) group: u16,
    /// Whose it is.
    pub(super) owner: u32,
    speed: f64,
    /// What the coordinator knows of it.
    pub(super) record: Record,
    /// Results that rest on its word alone.
    pub(super) unchecked: Vec<Unchecked>,
    /// Until when it is there.
    pub(super) online_until: Secs,
    /// Tasks that it was handed, but for those that it was told to stop.
    pub(super) attempts: u32,
    /// It has what all tasks need.
    pub(super) has_shared: bool,
    pub(super) credit: Credit,
    /// Number of the attempt that it is at; another one if it was told to stop.
    pub(super) run: u64,
    /// It is never seen again.
    pub(super) gone: bool,
}

/// How an attempt will end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ending {
    /// When it is reported; `None` if never.
    pub(super) answered: Option<(Secs, Answer)>,
    /// When its volunteer asks for the next one; `None` if never.
    pub(super) free: Option<Secs>,
    /// When the coordinator gives the task to somebody else, if the report is not there by then.
    pub(super) lost: Secs,
}

/// Everybody, in the order of the scenario.
pub(super) fn recruit(setup: &Setup, rng: &mut StdRng) -> Vec<Volunteer> {
    let mut volunteers = Vec::new();
    for (group, kind) in (0..).zip(&setup.groups) {
        let first = u32::try_from(volunteers.len()).unwrap_or(u32::MAX);
        for number in 0..kind.count {
            // As many are slower as are faster, by as much.
            let even: f64 = rng.random_range(-1.0..=1.0);
            let speed = kind.speed * (1.0 + kind.speed_spread).powf(even);
            let online_until = kind.sessions.map_or(f64::INFINITY, |(online, offline)| {
                let there = rng.random_bool(online / (online + offline));
                if there { exponential(rng, online) } else { 0.0 }
            });
            volunteers.push(Volunteer {
                group,
                owner: if kind.one_owner { first } else { first + number },
                speed,
                record: Record { checks: kind.checks, caught: 0 },
                unchecked: vec![],
                online_until,
                attempts: 0,
                has_shared: false,
                credit: Credit::ZERO,
                run: 0,
                gone: false,
            });
        }
    }
    volunteers
}

/// A time whose mean is `mean`.
pub(super) fn exponential(rng: &mut StdRng, mean: f64) -> Secs {
    -(1.0 - rng.random::<f64>()).ln() * mean
}

impl Volunteer {
    /// When it is there again, if it is not; it is then.
    pub(super) fn comes_back(&mut self, now: Secs, setup: &Setup, rng: &mut StdRng) -> Option<Secs> {
        if self.online_until > now {
            return None;
        }
        let (online, offline) = setup.groups[usize::from(self.group)].sessions?;
        let back = now.max(self.online_until) + exponential(rng, offline);
        self.online_until = back + exponential(rng, online);
        Some(back)
    }

    /// What becomes of an attempt that it is handed: `work` are the seconds that the task takes at speed 1, `earlier` is
    /// what another one of its group has said on the same task.
    pub(super) fn begin(
        &mut self,
        me: VolunteerNo,
        now: Secs,
        work: f64,
        earlier: Option<Answer>,
        setup: &Setup,
        rng: &mut StdRng,
    ) -> Ending {
        self.attempts += 1;
        let kind = &setup.groups[usize::from(self.group)];
        let lost = now + setup.deadline_secs;
        let lie = if kind.together { 1 + u32::from(self.group) } else { 1 + u32::from(u16::MAX) + me };
        let lies = match kind.strategy {
            Strategy::Honest | Strategy::Flap | Strategy::Late | Strategy::Vanish => false,
            Strategy::Always | Strategy::Inflate | Strategy::Copy | Strategy::Replay | Strategy::Foreign => {
                true
            }
            Strategy::Sometimes => rng.random_bool(kind.rate),
            Strategy::After => self.attempts > kind.honest_for,
            Strategy::Oscillate => self.record.checks >= kind.honest_for,
            Strategy::Turns => (self.attempts - 1) % (kind.honest_for + kind.lies_for) >= kind.honest_for,
        };
        let said = match kind.strategy {
            Strategy::Copy => earlier.unwrap_or(lie),
            _ if lies => lie,
            _ => RIGHT,
        };
        if kind.strategy == Strategy::Vanish && self.attempts > kind.honest_for {
            self.gone = true;
            return Ending { answered: None, free: None, lost };
        }
        let session_ends = self.online_until;
        // Who does not work takes as long as if it did, so as not to be conspicuous.
        let done = self.finish(now, work / self.speed, setup, rng);
        match kind.strategy {
            // A report on what is another's is refused, and its own attempt is never heard of.
            Strategy::Foreign => Ending { answered: None, free: Some(lost), lost },
            Strategy::Flap if done > session_ends => {
                let back = self.comes_back(session_ends, setup, rng).unwrap_or(session_ends);
                Ending { answered: None, free: Some(back.max(session_ends)), lost: lost.min(back) }
            }
            Strategy::Late => {
                let late = done.max(lost + setup.deadline_secs / 2.0);
                Ending { answered: Some((late, said)), free: Some(late), lost }
            }
            _ => Ending { answered: Some((done, said)), free: Some(done), lost },
        }
    }

    /// When so much work is done: it stands still while its machine is away.
    fn finish(&mut self, now: Secs, work: f64, setup: &Setup, rng: &mut StdRng) -> Secs {
        /// Sessions that one task may take; whoever is there for so short is as good as gone.
        const SESSIONS_MAX: usize = 10_000;
        let (mut at, mut left) = (now, work);
        for _ in 0..SESSIONS_MAX {
            let there = self.online_until - at;
            if left <= there {
                return at + left;
            }
            left -= there.max(0.0);
            let Some(back) = self.comes_back(self.online_until, setup, rng) else { return at + left };
            at = back;
        }
        at + left
    }
}
