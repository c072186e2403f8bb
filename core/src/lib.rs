//! What Talka decides, without doing any of it.
//!
//! This crate is the pure domain of the grid: names, quantities, the state machines of jobs, tasks,
//! attempts and workers, the scheduler, validation and credit. It performs no I/O, spawns nothing,
//! reads no clock and draws no randomness: time and chance come in as arguments, and what has to
//! happen (rows to persist, messages to send, blobs to fetch) goes out as *effects*. The shells in
//! `worker` and `coordinator-peer` own one such struct each and loop *event in, effects out*. That is
//! what lets the simulator run whole grids in virtual time over exactly the code that runs for real.
//!
//! # Map
//!
//! | module | subject |
//! |---|---|
//! | [`ids`] | names of peers, jobs, tasks, attempts, leases and blobs |
//! | [`quantities`] | fuel, bytes, credit, time |
//! | [`limits`] | every bound, with its unit and its reason |
//! | [`job`] | what a submitter asks for, raw and validated |
//! | [`placement`] | where peers come from, and who may stand beside whom |
//! | [`precedence`] | who goes first: weights of submitters, priorities of jobs |
//! | [`outcome`] | how an execution can end |
//! | [`digest`] | what must agree between two executions, as one hash |
//! | [`packing`] | the packed inputs of a job: many small inputs in one blob |
//! | [`ledger`] | the log of all credit, and its proofs |
//! | [`signing`] | what submitters, workers and coordinators sign |
//! | [`validation`] | which of the reported results is the canonical one |
//! | [`trust`] | what the words of workers are worth, and when they suffice |
//! | [`coordinator`] | leases tasks out, collects reports, decides, grants credit |
//! | [`worker`] | what a worker runs next, and what it still owes its coordinator |
//! | [`swarm`] | which piece of a blob to fetch from whom, and whom to serve |
//! | [`duty`] | a share of a processor, in short slices |
//! | [`mutants`] | deliberate defects, compiled for one test alone |
//!
//! ```
//! use talka_core::{ids::TaskId, quantities::Fuel};
//!
//! let task: TaskId = "7/12".parse()?;
//! assert_eq!(task.job.get(), 7);
//! assert_eq!(Fuel::new(1_500_000_000).credit().to_string(), "1.5");
//! # Ok::<(), talka_core::ids::ParseIdError>(())
//! ```

pub mod coordinator;
pub mod digest;
pub mod duty;
pub mod ids;
pub mod job;
pub mod ledger;
pub mod limits;
pub mod mutants;
pub mod outcome;
pub mod packing;
pub mod placement;
pub mod precedence;
pub mod quantities;
pub mod signing;
pub mod swarm;
pub mod trust;
pub mod validation;
pub mod worker;
