//! Whose turn it is: weighted fair share among submitters.
//!
//! What a submitter is served is measured in *slots held over time*. An attempt in flight holds a part of a slot:
//! all of it when attempts take long, and as much less as more of them are queued on a worker in advance, so that
//! a thousand attempts of a millisecond weigh no more than one of an hour. The integral of that over time, divided
//! by the weight, is the submitter's virtual time, and whoever is behind goes first. Nothing of it is anybody's
//! claim: not a report's time, not a job's own estimate.
//!
//! Between decisions of the same moment the integral stands still, so what is held now counts ahead, as if it were
//! held for [`HORIZON_MILLIS`]. That also keeps the shares equal at each moment, where nothing says otherwise.
//!
//! Who comes back after a time without work starts where the others are, less what [`LAG`] allows, as in
//! start-time fair queueing (Goyal, Vin and Cheng, 1996): having been away earns no monopoly.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    ids::{JobId, PeerId},
    precedence::{Priority, Weight},
    quantities::Timestamp,
};

/// How long what is held now is taken to be held.
const HORIZON_MILLIS: u128 = 10_000;

/// A whole slot. Smaller parts are rounded up to one of these units.
pub(super) const SLOT: u32 = 1_000_000;

/// What a submitter may be behind others, in slot-milliseconds: a minute of one slot.
const LAG: u128 = 60_000 * SLOT as u128;

/// Virtual times are in units of a slot-millisecond at this weight, so that dividing by weights loses nothing.
const UNIT: u128 = 1000;

/// Place of a job among those of its submitter: high priority first, then age.
type Place = (Reverse<Priority>, JobId);

/// Submitters with unfinished jobs.
#[derive(Debug, Default)]
pub(super) struct Shares {
    submitters: BTreeMap<PeerId, Submitter>,
    /// Submitters with jobs that have work, by what they were served.
    order: BTreeSet<(u128, PeerId)>,
    /// Submitters whose place in `order` is out of date.
    stale: BTreeSet<PeerId>,
    /// Virtual time of whoever was served last.
    clock: u128,
    /// Weights other than the default, whether or not their submitters have jobs.
    weights: BTreeMap<PeerId, Weight>,
    /// Sum of the weights of those in `order`.
    weight_ready: u64,
    now: Timestamp,
}

#[derive(Debug, Default)]
struct Submitter {
    weight: Weight,
    /// Unfinished jobs.
    running: BTreeSet<JobId>,
    /// Those among them that may have work for somebody.
    ready: BTreeSet<Place>,
    /// Parts of slots that its attempts hold.
    held: u64,
    /// Virtual time up to `settled`.
    served: u128,
    settled: Timestamp,
    /// Its key in `order`, and the weight that it counts for there.
    ranked: Option<(u128, Weight)>,
}

impl Submitter {
    fn settle(&mut self, now: Timestamp) {
        if now == self.settled {
            return;
        }
        let millis = now.since(self.settled).as_millis();
        self.served += u128::from(self.held) * millis * UNIT / u128::from(self.weight.get());
        // A clock that was set back must not be waited for.
        self.settled = now;
    }

    fn ahead(&self) -> u128 {
        u128::from(self.held) * HORIZON_MILLIS * UNIT / u128::from(self.weight.get())
    }
}

impl Shares {
    /// What follows happens now.
    pub(super) fn set_now(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// What a submitter weighs.
    pub(super) fn weight(&self, submitter: PeerId) -> Weight {
        self.weights.get(&submitter).copied().unwrap_or_default()
    }

    pub(super) fn set_weight(&mut self, submitter: PeerId, weight: Weight) {
        if let Some(known) = self.submitters.get_mut(&submitter) {
            known.settle(self.now);
            known.weight = weight;
            self.stale.insert(submitter);
        }
        if weight == Weight::default() {
            self.weights.remove(&submitter);
        } else {
            self.weights.insert(submitter, weight);
        }
    }

    /// A job begins.
    pub(super) fn add(&mut self, submitter: PeerId, job: JobId) {
        let (served, settled, weight) = (self.clock, self.now, self.weight(submitter));
        let new = || Submitter { weight, served, settled, ..Submitter::default() };
        self.submitters.entry(submitter).or_insert_with(new).running.insert(job);
    }

    /// A job ends. It holds nothing any more.
    pub(super) fn remove(&mut self, submitter: PeerId, job: JobId, priority: Priority) {
        let Some(known) = self.submitters.get_mut(&submitter) else { return };
        known.ready.remove(&(Reverse(priority), job));
        known.running.remove(&job);
        self.stale.insert(submitter);
        if known.running.is_empty() {
            self.rank(submitter);
            self.submitters.remove(&submitter);
            self.stale.remove(&submitter);
        }
    }

    /// Says whether a job may have work for somebody.
    pub(super) fn set_ready(&mut self, submitter: PeerId, job: JobId, priority: Priority, ready: bool) {
        let Some(known) = self.submitters.get_mut(&submitter) else { return };
        let place = (Reverse(priority), job);
        let changed = if ready { known.ready.insert(place) } else { known.ready.remove(&place) };
        if changed && known.ready.is_empty() == known.ranked.is_some() {
            self.stale.insert(submitter);
        }
    }

    /// Attempts of a submitter begin to hold so much.
    pub(super) fn hold(&mut self, submitter: PeerId, held: u64) {
        let Some(known) = self.submitters.get_mut(&submitter) else { return };
        known.settle(self.now);
        self.clock = self.clock.max(known.served);
        known.held += held;
        self.stale.insert(submitter);
    }

    /// Attempts of a submitter hold so much no longer.
    pub(super) fn let_go(&mut self, submitter: PeerId, held: u64) {
        let Some(known) = self.submitters.get_mut(&submitter) else { return };
        known.settle(self.now);
        known.held -= held;
        self.stale.insert(submitter);
    }

    /// Time passes for everybody who holds something.
    pub(super) fn pass(&mut self) {
        let holding = self.submitters.iter().filter(|(_, known)| known.held > 0);
        self.stale.extend(holding.map(|(submitter, _)| *submitter));
        self.refresh();
    }

    /// Brings the order up to date.
    pub(super) fn refresh(&mut self) {
        while let Some(submitter) = self.stale.pop_first() {
            self.rank(submitter);
        }
    }

    fn rank(&mut self, submitter: PeerId) {
        let Some(known) = self.submitters.get_mut(&submitter) else { return };
        known.settle(self.now);
        if let Some((key, counted)) = known.ranked.take() {
            self.order.remove(&(key, submitter));
            self.weight_ready -= u64::from(counted.get());
        }
        if known.ready.is_empty() {
            return;
        }
        let (ahead, weight) = (known.ahead(), known.weight);
        let earliest = self.clock.saturating_sub(LAG * UNIT / u128::from(weight.get()));
        known.served = known.served.max(earliest.saturating_sub(ahead));
        let key = known.served + ahead;
        known.ranked = Some((key, weight));
        self.order.insert((key, submitter));
        self.weight_ready += u64::from(weight.get());
    }

    /// Jobs that may have work, in the order in which they are to be served, submitter by submitter. Call
    /// [`Shares::refresh`] before.
    pub(super) fn ready(&self) -> impl Iterator<Item = (PeerId, JobId)> {
        let submitters = self.order.iter().filter_map(|(_, id)| Some((*id, self.submitters.get(id)?)));
        submitters.flat_map(|(id, known)| known.ready.iter().map(move |(_, job)| (id, *job)))
    }

    /// Jobs of one submitter that may have work and go before this one.
    pub(super) fn before(&self, submitter: PeerId, job: JobId, priority: Priority) -> usize {
        let ready = self.submitters.get(&submitter).map(|known| &known.ready);
        ready.map_or(0, |ready| ready.range(..(Reverse(priority), job)).count())
    }

    /// Unfinished jobs.
    pub(super) fn running(&self) -> impl Iterator<Item = JobId> {
        self.submitters.values().flat_map(|known| known.running.iter().copied())
    }

    /// Of so many attempts for a worker, how many a submitter may take before it is somebody else's turn.
    pub(super) fn turn(&self, submitter: PeerId, attempts: usize) -> usize {
        let (weight, all) = (u64::from(self.weight(submitter).get()), self.weight_ready);
        if all <= weight {
            return attempts;
        }
        let turn = (attempts as u64).saturating_mul(weight).div_ceil(all);
        usize::try_from(turn).unwrap_or(attempts).min(attempts)
    }

    /// Checks it against what the jobs say: for each running job its submitter, its priority, whether it must be
    /// among those that have work, whether it may be, and what its attempts hold.
    ///
    /// # Panics
    ///
    /// When they differ.
    pub(super) fn check_invariants(&self, jobs: &[JobShare]) {
        let mut held = BTreeMap::<PeerId, u64>::new();
        let mut running = BTreeSet::new();
        for job in jobs {
            *held.entry(job.submitter).or_default() += job.held;
            running.insert((job.submitter, job.job));
            let known = &self.submitters[&job.submitter];
            let ready = known.ready.contains(&(Reverse(job.priority), job.job));
            assert!(ready || !job.has_work, "job {}: has work and is not offered", job.job);
            assert!(!ready || job.may_run, "job {}: is offered and must not be", job.job);
            let places = known.ready.iter().filter(|(_, id)| *id == job.job).count();
            assert_eq!(places, usize::from(ready), "job {}: is offered once, at its priority", job.job);
        }
        let known =
            self.submitters.iter().flat_map(|(id, known)| known.running.iter().map(|job| (*id, *job)));
        assert_eq!(known.collect::<BTreeSet<_>>(), running, "unfinished jobs by submitter");
        for (id, known) in &self.submitters {
            assert!(!known.running.is_empty(), "a submitter without jobs is forgotten");
            assert_eq!(known.held, held.get(id).copied().unwrap_or(0), "what a submitter holds");
            let ranked = known.ranked.map(|(key, _)| (key, *id));
            assert!(ranked.is_none_or(|key| self.order.contains(&key)), "ranks are in order");
            let stale = self.stale.contains(id);
            assert!(stale || known.ranked.is_some() != known.ready.is_empty(), "who has work is ranked");
        }
        let ranked = self.submitters.values().filter_map(|known| known.ranked);
        assert_eq!(ranked.clone().count(), self.order.len(), "only who has work is ranked");
        let weights = ranked.map(|(_, weight)| u64::from(weight.get())).sum::<u64>();
        assert_eq!(weights, self.weight_ready, "weights of those who have work");
    }
}

/// What one unfinished job is to its submitter's share.
#[derive(Debug)]
pub(super) struct JobShare {
    pub(super) submitter: PeerId,
    pub(super) job: JobId,
    pub(super) priority: Priority,
    pub(super) has_work: bool,
    pub(super) may_run: bool,
    pub(super) held: u64,
}
