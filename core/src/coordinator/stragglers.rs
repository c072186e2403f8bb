//! Attempts that take much longer than others of their job, when nothing else is left to do.
//!
//! Near a job's end one slow machine can hold up everybody. When all tasks of a job are begun and workers are idle,
//! an attempt that is out for more than [`limits::STRAGGLER_FACTOR`] times what three out of four take gets company:
//! a second attempt on a worker that has shown to be fast at this job and reliable (the backup tasks of
//! Dean and Ghemawat, 2004, §3.6). Whichever result comes first counts, the other attempt is cancelled, and nobody
//! is blamed. There is one such attempt per task at most, and few at a time.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Coordinator,
    effects::Effects,
    task::{AttemptState, Task},
};
use crate::{
    ids::{AttemptId, JobId, PeerNo},
    job::JobState,
    limits,
    outcome::NoResult,
    quantities::Timestamp,
};

/// How long attempts of a job take: a histogram with two bins to the octave, so that a few wild claims don't move it.
#[derive(Debug, Default)]
pub(super) struct Times {
    bins: BTreeMap<u8, u64>,
    samples: u64,
}

impl Times {
    fn note(&mut self, micros: u64) {
        *self.bins.entry(bin(micros)).or_default() += 1;
        self.samples += 1;
    }

    /// A time that three out of four attempts don't exceed, in microseconds; `None` while too little is known.
    pub(super) fn usual(&self) -> Option<u64> {
        if self.samples < limits::STRAGGLER_SAMPLES_MIN {
            return None;
        }
        let enough = self.samples - self.samples / 4;
        let mut sum = 0;
        let quantile = self.bins.iter().find(|(_, count)| {
            sum += **count;
            sum >= enough
        });
        quantile.map(|(bin, _)| upper_end(*bin))
    }
}

/// Twice the binary logarithm, rounded down.
fn bin(micros: u64) -> u8 {
    let micros = micros.max(1);
    let octave = micros.ilog2();
    let upper_half = octave > 0 && micros & (1 << (octave - 1)) != 0;
    u8::try_from(2 * octave + u32::from(upper_half)).unwrap_or(u8::MAX)
}

/// Where a bin ends.
fn upper_end(bin: u8) -> u64 {
    let octave = 1_u64.checked_shl(u32::from(bin / 2)).unwrap_or(u64::MAX);
    if bin.is_multiple_of(2) { octave.saturating_add(octave / 2) } else { octave.saturating_mul(2) }
}

impl Coordinator {
    /// Remembers how long an attempt took; what its worker says counts up to the time since it got the lease.
    #[expect(clippy::cast_precision_loss, reason = "a moving mean")]
    pub(super) fn note_time(
        &mut self,
        now: Timestamp,
        peer: PeerNo,
        id: AttemptId,
        state: &AttemptState,
        micros: u64,
    ) {
        /// Weight of the newest sample.
        const WEIGHT: f64 = 0.2;
        let Some(job) = self.jobs.get_mut(&id.task.job) else { return };
        let Some(worker) = self.workers.get_mut(&peer) else { return };
        let lease =
            job.open.get_mut(&id.task.index).and_then(|task| Some(task.attempt_mut(id.number)?.lease));
        let Some(lease) = lease.and_then(|lease| self.leases.get(&lease)) else { return };
        // The clock has a resolution of a millisecond.
        let out_for = now.since(lease.opened) + Duration::from_millis(1);
        let micros = micros.min(u64::try_from(out_for.as_micros()).unwrap_or(u64::MAX));
        let sample = micros as f64;
        let times = &mut job.times;
        let mut mean = worker.mean_micros.get(&id.task.job).copied();
        if mean.is_none() {
            // One short attempt says little, where others of the job are known to be longer.
            mean = times.usual().map(|usual| f64::midpoint(sample, usual as f64));
        }
        match state {
            AttemptState::Reported(_) => times.note(micros),
            AttemptState::NoResult(NoResult::Deadline) => {}
            // It ended early, and says nothing about how long others take.
            _ => return,
        }
        let mean = mean.unwrap_or(sample);
        worker.mean_micros.insert(id.task.job, mean + (sample - mean) * WEIGHT);
    }

    /// Gives stragglers company, where workers are idle.
    pub(super) fn help_stragglers(&mut self, now: Timestamp, fx: &mut Effects) {
        if self.hungry.is_empty() {
            return;
        }
        let slots: u64 = self.workers.values().map(|worker| u64::from(worker.slots_up())).sum();
        let jobs: Vec<JobId> = self.shares.running().collect();
        let duplicates: u64 = jobs.iter().filter_map(|id| Some(self.jobs.get(id)?.duplicates)).sum();
        let mut budget = (slots / limits::STRAGGLER_SLOTS_SHARE).max(1).saturating_sub(duplicates);
        for id in jobs {
            for index in self.stragglers(now, id) {
                if budget == 0 {
                    return;
                }
                if let Some(helper) = self.helper(id, index) {
                    budget -= u64::from(self.open_duplicate(now, helper, id, index, fx));
                }
            }
        }
    }

    /// Tasks of a job whose attempt takes too long.
    fn stragglers(&self, now: Timestamp, id: JobId) -> Vec<u64> {
        let Some(job) = self.jobs.get(&id).filter(|job| job.may_run() && job.shard.cursor == job.total())
        else {
            return vec![];
        };
        let Some(usual) = job.times.usual() else { return vec![] };
        let late = |lease: &super::Lease| {
            let worker = self.workers.get(&lease.row.peer);
            // A slot may have had to run others first.
            let queued =
                worker.map_or(1, |worker| worker.in_flight.div_ceil(worker.capacity.slots.max(1) as usize));
            let after = Duration::from_micros(usual) * limits::STRAGGLER_FACTOR;
            let after = after.saturating_mul(u32::try_from(queued.max(1)).unwrap_or(u32::MAX));
            now.since(lease.opened) >= after.max(limits::STRAGGLER_AGE_MIN)
        };
        let wants_company = |task: &Task, number: u32| {
            let running = |state: &AttemptState| matches!(state, AttemptState::Leased);
            let runs =
                task.attempts.iter().any(|attempt| attempt.number == number && running(&attempt.state));
            runs && task.duplicate.is_none() && task.queued.is_none() && !task.collecting
        };
        let leases = job.leases.iter().take(limits::STRAGGLER_LEASES_MAX);
        let late =
            leases.filter_map(|lease| self.leases.get(lease)).filter(|lease| !lease.expired && late(lease));
        let items = late.flat_map(|lease| &lease.row.items);
        let open = items
            .filter(|item| job.open.get(&item.index).is_some_and(|task| wants_company(task, item.number)));
        let mut tasks: Vec<u64> = open.map(|item| item.index).collect();
        tasks.dedup();
        tasks
    }

    /// An idle worker that is fast at a job, reliable, and may have this task.
    fn helper(&self, id: JobId, index: u64) -> Option<PeerNo> {
        let job = self.jobs.get(&id)?;
        #[expect(clippy::cast_precision_loss, reason = "compared with a moving mean")]
        let usual = job.times.usual()? as f64;
        let exclusion = self.trust.exclusion(job, index, job.open.get(&index)?, false);
        let candidates =
            self.hungry.with(job.submission.spec.limits.memory).take(limits::STRAGGLER_HELPERS_MAX);
        candidates.into_iter().find(|no| {
            self.workers.get(no).is_some_and(|worker| {
                let idle = worker.live() < worker.capacity.slots as usize;
                let fast = worker.mean_micros.get(&id).is_some_and(|mean| *mean <= usual);
                let may =
                    self.room(job, *no, worker).is_ok() && !exclusion.excludes(&self.trust.candidate(*no));
                idle && fast && worker.quota.is_good() && may
            })
        })
    }

    /// Returns whether it did.
    fn open_duplicate(
        &mut self,
        now: Timestamp,
        peer: PeerNo,
        id: JobId,
        index: u64,
        fx: &mut Effects,
    ) -> bool {
        let lease = self.next_lease;
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.state == JobState::Running) else {
            return false;
        };
        let item = job.duplicate(index, peer, lease, &self.trust);
        if let Some(item) = item {
            self.grant_lease(now, peer, id, vec![item], fx);
        }
        item.is_some()
    }
}

impl super::Worker {
    /// Slots that are connected.
    fn slots_up(&self) -> u32 {
        if self.session.is_some() { self.capacity.slots } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bin_holds_what_lies_between_the_end_of_the_one_before_and_its_own() {
        for micros in (0..10_000).chain([1 << 40, u64::MAX / 2, u64::MAX]) {
            let own = bin(micros);
            assert!(micros <= upper_end(own), "{micros}");
            assert!(own == 0 || micros >= upper_end(own - 1), "{micros}");
        }
    }

    #[test]
    fn three_out_of_four_decide_what_is_usual() {
        let mut times = Times::default();
        for micros in [900, 1000] {
            times.note(micros);
            assert_eq!(times.usual(), None, "too few to tell");
        }
        for micros in [1000, u64::MAX] {
            times.note(micros);
        }
        assert_eq!(times.usual(), Some(1024), "one wild claim of four changes nothing");
        times.note(u64::MAX);
        assert_eq!(times.usual(), Some(u64::MAX));
    }
}
