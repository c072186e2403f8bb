//! Jobs for whose data a worker had no room, and when it says that it has.

use std::collections::BTreeMap;

use super::Room;
use crate::{ids::JobId, job::BlobRef, limits, quantities::Timestamp};

/// See the [module](self). At most [`limits::ROOM_WAITED_FOR_MAX`] jobs are remembered; the others come again with the
/// next session.
#[derive(Debug, Default)]
pub struct Waiting {
    jobs: BTreeMap<JobId, Waits>,
}

#[derive(Debug)]
struct Waits {
    blobs: Vec<BlobRef>,
    not_before: Timestamp,
}

impl Waiting {
    /// There was no room for a job, which needs these.
    pub fn refused(&mut self, now: Timestamp, job: JobId, blobs: Vec<BlobRef>) {
        if self.jobs.len() < limits::ROOM_WAITED_FOR_MAX || self.jobs.contains_key(&job) {
            let not_before = now + limits::ROOM_SAID_AFTER;
            self.jobs.insert(job, Waits { blobs, not_before });
        }
    }

    /// A job has ended, or is tried again.
    pub fn forget(&mut self, job: JobId) {
        self.jobs.remove(&job);
    }

    /// Every job is offered anew.
    pub fn forget_all(&mut self) {
        self.jobs.clear();
    }

    /// Jobs for all of which together there is room now, the oldest first. They are not waited for any more: they come
    /// again, and when the room is gone by then, they are refused again.
    pub fn fitting(&mut self, now: Timestamp, room: &Room) -> Vec<JobId> {
        let (mut fitting, mut wanted) = (Vec::new(), Vec::new());
        for (job, waits) in self.jobs.iter().filter(|(_, waits)| waits.not_before <= now) {
            let before = wanted.len();
            wanted.extend_from_slice(&waits.blobs);
            if room.fits(&wanted) {
                fitting.push(*job);
            } else {
                wanted.truncate(before);
            }
        }
        self.jobs.retain(|job, _| !fitting.contains(job));
        fitting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::BlobHash, quantities::Bytes};

    const NOW: Timestamp = Timestamp::from_millis(1000);

    fn blob(number: u8, mib: u64) -> BlobRef {
        BlobRef { hash: BlobHash::new([number; 32]), size: Bytes::mib(mib) }
    }

    fn fitting(waiting: &mut Waiting, now: Timestamp, room: &Room) -> Vec<u64> {
        waiting.fitting(now, room).into_iter().map(JobId::get).collect()
    }

    #[test]
    fn a_job_fits_when_what_others_needed_is_needed_no_more_and_not_at_once() {
        let (mut room, mut waiting) = (Room::new(Bytes::mib(10)), Waiting::default());
        room.pin(&[blob(1, 8)]).expect("room");
        for (job, mib) in [(2, 6), (3, 3), (4, 6), (5, 20)] {
            let blobs = vec![blob(u8::try_from(job).expect("small"), mib)];
            room.pin(&blobs).expect_err("no room");
            waiting.refused(NOW, JobId::new(job), blobs);
        }
        let later = NOW + limits::ROOM_SAID_AFTER;
        assert_eq!(fitting(&mut waiting, later, &room), [0; 0], "nothing has changed");
        room.unpin(blob(1, 8).hash);
        assert_eq!(fitting(&mut waiting, NOW, &room), [0; 0], "it was refused just now");
        assert_eq!(fitting(&mut waiting, later, &room), [2, 3], "those that fit beside each other");
        room.pin(&[blob(2, 6), blob(3, 3)]).expect("room");
        assert_eq!(fitting(&mut waiting, later, &room), [0; 0], "they are said once");
        room.unpin(blob(2, 6).hash);
        assert_eq!(fitting(&mut waiting, later, &room), [4], "what never fits is never said to");
    }

    #[test]
    fn what_two_jobs_need_is_counted_once_and_what_has_ended_not_at_all() {
        let (room, mut waiting) = (Room::new(Bytes::mib(10)), Waiting::default());
        for job in 1..=4 {
            let own = blob(u8::try_from(job).expect("small"), 2);
            waiting.refused(NOW, JobId::new(job), vec![blob(9, 5), own]);
        }
        waiting.forget(JobId::new(1));
        let later = NOW + limits::ROOM_SAID_AFTER;
        assert_eq!(fitting(&mut waiting, later, &room), [2, 3]);
        waiting.forget_all();
        assert_eq!(fitting(&mut waiting, later, &room), [0; 0]);
    }

    #[test]
    fn a_coordinator_that_names_jobs_without_end_is_remembered_for_some_of_them() {
        let mut waiting = Waiting::default();
        for job in 0..limits::ROOM_WAITED_FOR_MAX as u64 + 10 {
            waiting.refused(NOW, JobId::new(job), vec![]);
        }
        assert_eq!(waiting.jobs.len(), limits::ROOM_WAITED_FOR_MAX);
    }
}
