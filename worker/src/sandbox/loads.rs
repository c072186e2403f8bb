//! What an executor process holds: programs, and jobs that run them.
//!
//! A program is sent once, however many jobs have it, and stays when the last of them has gone: the next one
//! usually has the same. There are no more programs than there may be jobs, and all of it keeps within
//! [`limits::EXECUTOR_LOADED_BYTES_MAX`], unless one job alone is larger. [`Loads`] only keeps the books; whoever carries out a [`Plan`] sends it in its order. A process
//! that does not take all of it is not used any more, and its books go with it.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use talka_core::limits;

use super::job::{JobWorld, Program};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Loads {
    /// Least recently used first.
    programs: VecDeque<LoadedProgram>,
    /// Least recently used first.
    jobs: VecDeque<LoadedJob>,
    /// Number of the next program or job.
    next: u64,
}

#[derive(Debug)]
struct LoadedProgram {
    number: u64,
    /// Holds the address, so that no other program can have it, but not the code.
    program: Weak<Program>,
    bytes: u64,
}

#[derive(Debug)]
struct LoadedJob {
    number: u64,
    /// Holds the address, as above.
    world: Weak<JobWorld>,
    program: u64,
    /// Of its datasets.
    bytes: u64,
}

/// What has to be sent before a job's tasks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The job's number.
    pub(super) job: u64,
    /// Its program's number.
    pub(super) program: u64,
    /// Jobs to be forgotten, first.
    pub(super) forget_jobs: Vec<u64>,
    /// Programs to be forgotten, after the jobs that ran them.
    pub(super) forget_programs: Vec<u64>,
    /// Whether the program has to be sent.
    pub(super) sends_program: bool,
    /// Whether the job has to be sent.
    pub(super) sends_job: bool,
}

impl Loads {
    /// Notes that a job is used, and tells what that takes. Jobs that have ended are forgotten on this occasion, others and
    /// programs that no job has when there is no room: the least recently used first.
    pub(super) fn plan(&mut self, job: &Arc<JobWorld>) -> Plan {
        let known = self.jobs.iter().position(|loaded| std::ptr::eq(loaded.world.as_ptr(), Arc::as_ptr(job)));
        if let Some(loaded) = known.and_then(|position| self.jobs.remove(position)) {
            let plan = Plan { job: loaded.number, program: loaded.program, ..Plan::default() };
            self.jobs.push_back(loaded);
            self.use_program(plan.program);
            return plan;
        }
        let mut plan = Plan { job: self.number(), sends_job: true, ..Plan::default() };
        self.jobs.retain(|loaded| {
            let is_over = loaded.world.strong_count() == 0;
            plan.forget_jobs.extend(is_over.then_some(loaded.number));
            !is_over
        });
        let address = Arc::as_ptr(job.program());
        let known = self.programs.iter().find(|loaded| std::ptr::eq(loaded.program.as_ptr(), address));
        plan.sends_program = known.is_none();
        plan.program = known.map(|loaded| loaded.number).unwrap_or_else(|| self.number());
        let (dataset_bytes, program_bytes) = (job.dataset_bytes(), job.program().size() as u64);
        let needed = dataset_bytes + if plan.sends_program { program_bytes } else { 0 };
        self.make_room(needed, &mut plan);
        if plan.sends_program {
            let program = Arc::downgrade(job.program());
            self.programs.push_back(LoadedProgram { number: plan.program, program, bytes: program_bytes });
        } else {
            self.use_program(plan.program);
        }
        self.jobs.push_back(LoadedJob {
            number: plan.job,
            world: Arc::downgrade(job),
            program: plan.program,
            bytes: dataset_bytes,
        });
        plan
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn use_program(&mut self, number: u64) {
        let found = self.programs.iter().position(|loaded| loaded.number == number);
        if let Some(loaded) = found.and_then(|position| self.programs.remove(position)) {
            self.programs.push_back(loaded);
        }
    }

    /// Forgets until there is room for one more job and so many bytes, or nothing is left but the program of the plan.
    fn make_room(&mut self, needed: u64, plan: &mut Plan) {
        loop {
            let many_jobs = self.jobs.len() >= limits::EXECUTOR_JOBS_MAX;
            let many_programs = plan.sends_program && self.programs.len() >= limits::EXECUTOR_JOBS_MAX;
            let bytes = self.bytes().saturating_add(needed);
            let is_full = bytes > limits::EXECUTOR_LOADED_BYTES_MAX;
            let forgot = if many_jobs {
                self.forget_job(plan)
            } else if many_programs || is_full {
                self.forget_program(plan) || self.forget_job(plan)
            } else {
                return;
            };
            if !forgot {
                return;
            }
        }
    }

    fn bytes(&self) -> u64 {
        let programs: u64 = self.programs.iter().map(|program| program.bytes).sum();
        programs + self.jobs.iter().map(|job| job.bytes).sum::<u64>()
    }

    fn forget_job(&mut self, plan: &mut Plan) -> bool {
        let oldest = self.jobs.pop_front();
        plan.forget_jobs.extend(oldest.as_ref().map(|job| job.number));
        oldest.is_some()
    }

    /// Forgets a program that no job has.
    fn forget_program(&mut self, plan: &mut Plan) -> bool {
        let is_used = |number| number == plan.program || self.jobs.iter().any(|job| job.program == number);
        let oldest = self.programs.iter().position(|loaded| !is_used(loaded.number));
        let oldest = oldest.and_then(|position| self.programs.remove(position));
        plan.forget_programs.extend(oldest.as_ref().map(|program| program.number));
        oldest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use talka_core::{ids::BlobHash, job::TaskLimits};

    use super::*;

    const MIB: usize = 1 << 20;

    fn program(code_bytes: usize) -> Arc<Program> {
        let hash = BlobHash::new([0; 32]);
        Arc::new(Program { hash, transformed: hash, compiled: vec![0; code_bytes].into() })
    }

    fn job(program: &Arc<Program>, dataset: &Bytes) -> Arc<JobWorld> {
        let datasets = vec![("data".to_owned(), BlobHash::new([1; 32]), dataset.clone())];
        Arc::new(JobWorld::new(program.clone(), datasets, TaskLimits::default(), 0, 0))
    }

    /// What the process has after all that it was sent.
    #[derive(Default)]
    struct Process {
        programs: BTreeSet<u64>,
        jobs: BTreeSet<u64>,
    }

    impl Process {
        fn follow(&mut self, plan: &Plan) {
            for job in &plan.forget_jobs {
                assert!(self.jobs.remove(job), "it never had job {job}");
            }
            for program in &plan.forget_programs {
                assert!(self.programs.remove(program), "it never had program {program}");
            }
            if plan.sends_program {
                assert!(self.programs.insert(plan.program), "it has program {}", plan.program);
            }
            if plan.sends_job {
                assert!(self.programs.contains(&plan.program), "its program has gone");
                assert!(self.jobs.insert(plan.job), "it has job {}", plan.job);
            }
            assert!(self.jobs.contains(&plan.job));
        }
    }

    #[test]
    fn a_program_is_sent_once_for_all_jobs_that_have_it_one_after_the_other() {
        let (mut loads, mut process) = (Loads::default(), Process::default());
        let program = program(1);
        for number in 0..100 {
            let job = job(&program, &Bytes::new());
            let plan = loads.plan(&job);
            process.follow(&plan);
            assert_eq!(plan.sends_program, number == 0);
            let again = loads.plan(&job);
            assert_eq!(again, Plan { job: plan.job, program: plan.program, ..Plan::default() });
            assert_eq!((process.jobs.len(), process.programs.len()), (1, 1), "the one before has ended");
        }
    }

    #[test]
    fn another_program_at_the_same_address_is_another_one() {
        let mut loads = Loads::default();
        let mut numbers = BTreeSet::new();
        for _ in 0..50 {
            let plan = loads.plan(&job(&program(1), &Bytes::new()));
            assert!(plan.sends_program && numbers.insert(plan.program));
        }
    }

    #[test]
    fn what_was_used_longest_ago_makes_room_and_the_bounds_hold() {
        let (mut loads, mut process) = (Loads::default(), Process::default());
        let dataset = Bytes::from(vec![0; 48 * MIB]);
        let programs: Vec<_> = (0..20).map(|_| program(4 * MIB)).collect();
        let jobs: Vec<_> = programs.iter().map(|program| job(program, &dataset)).collect();
        for round in 0..3 {
            for job in &jobs {
                process.follow(&loads.plan(job));
                assert!(loads.bytes() <= limits::EXECUTOR_LOADED_BYTES_MAX, "round {round}");
                assert!(process.jobs.len() <= limits::EXECUTOR_JOBS_MAX);
                assert!(process.programs.len() <= limits::EXECUTOR_JOBS_MAX);
                assert_eq!(process.jobs.len(), loads.jobs.len());
                assert_eq!(process.programs.len(), loads.programs.len());
            }
        }
        let last = loads.plan(&jobs[19]);
        assert!(!last.sends_job, "it was used last");
        assert!(loads.plan(&jobs[0]).sends_job, "it was used longest ago");
    }

    #[test]
    fn what_is_larger_than_all_the_room_is_loaded_alone() {
        let (mut loads, mut process) = (Loads::default(), Process::default());
        let small = job(&program(1), &Bytes::new());
        process.follow(&loads.plan(&small));
        let room = usize::try_from(limits::EXECUTOR_LOADED_BYTES_MAX).expect("64 bits");
        let large = job(&program(1), &Bytes::from(vec![0; room]));
        process.follow(&loads.plan(&large));
        assert_eq!((process.jobs.len(), process.programs.len()), (1, 1));
    }
}
