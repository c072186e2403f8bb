//! What people change while jobs run: pause, resume, priority of a job, weight of a submitter.

use super::{Coordinator, Refusal, Standing, effects::Effects};
use crate::{
    ids::{JobId, PeerId},
    job::JobState,
    precedence::{Priority, Weight},
    quantities::Timestamp,
};

impl Coordinator {
    /// Hands out nothing of a job until it is resumed. What was handed out before may be finished, and counts.
    /// Pausing twice is no error.
    pub fn on_pause(&mut self, now: Timestamp, id: JobId, fx: &mut Effects) -> Result<(), Refusal> {
        self.change_standing(now, id, |standing| standing.paused = true, fx)
    }

    /// Hands out a paused job again. Resuming one that is not paused is no error.
    pub fn on_resume(&mut self, now: Timestamp, id: JobId, fx: &mut Effects) -> Result<(), Refusal> {
        self.change_standing(now, id, |standing| standing.paused = false, fx)
    }

    /// Moves a job among those of its submitter, from the next lease on.
    pub fn on_priority(
        &mut self,
        now: Timestamp,
        id: JobId,
        priority: Priority,
        fx: &mut Effects,
    ) -> Result<(), Refusal> {
        self.change_standing(now, id, |standing| standing.priority = priority, fx)
    }

    /// Gives a submitter more or less of the grid than others, from the next lease on. It need not have a job, nor
    /// be known. This is for the coordinator's owner alone.
    pub fn set_weight(&mut self, now: Timestamp, submitter: PeerId, weight: Weight, fx: &mut Effects) {
        self.shares.set_now(now);
        if self.shares.weight(submitter) != weight {
            let no = self.number(submitter, fx);
            self.shares.set_weight(submitter, weight);
            fx.batch.weights.insert(no, weight);
        }
    }

    /// What a submitter weighs.
    pub fn weight(&self, submitter: PeerId) -> Weight {
        self.shares.weight(submitter)
    }

    fn change_standing(
        &mut self,
        now: Timestamp,
        id: JobId,
        change: impl FnOnce(&mut Standing),
        fx: &mut Effects,
    ) -> Result<(), Refusal> {
        self.shares.set_now(now);
        let job = self.jobs.get_mut(&id).ok_or(Refusal::UnknownJob(id))?;
        if job.state != JobState::Running {
            return Err(Refusal::JobEnded(id, job.state));
        }
        let (before, submitter) = (job.standing, job.submission.submitter);
        change(&mut job.standing);
        if job.standing == before {
            return Ok(());
        }
        fx.batch.standings.insert(id, job.standing);
        fx.changed.insert(id);
        self.shares.set_ready(submitter, id, before.priority, false);
        self.note_work(id);
        self.feed(now, fx);
        Ok(())
    }
}
