//! Whole grids of real processes on this machine.
//!
//! Every test starts what it needs in a temporary directory of its own, on loopback and on free ports, drives
//! the `talka` binary as a user would, and waits for conditions, never for time to pass.
//!
//! | module | subject |
//! |---|---|
//! | [`harness`] | processes, commands, guests, waiting |
//! | [`jobs`] | submitting, results, credit: when nothing goes wrong |
//! | [`failures`] | programs that fail, run too long or are cancelled |
//! | [`faults`] | workers that lie or die, coordinators that die |
//! | [`partition`] | machines that lose each other |
//! | [`long`] | a job of a million tasks |
//! | [`trust`] | workers that lie, where answers are weighed by who gave them |
//! | [`steering`] | jobs that are paused, moved, or meant for some peers |
//! | [`owner`] | a volunteer who pauses, throttles and finishes |
//! | [`checkpoints`] | tasks that outlive their worker |
//! | [`data`] | what workers have on their disks |
//! | [`placement`] | who may work, and who may stand beside whom |
//! | [`impostor`] | a worker that reports on what was never its, again and again |
//! | [`ledger`] | credit that is recomputed, receipts, whom workers trust |
//! | [`refusals`] | what is not accepted, and what is said about it |
//! | [`local`] | `talka run` against known answers |
//! | [`http`] | the TCP side of a coordinator |
//! | [`demo`] | `talka demo` |
//! | [`lan`] | coordinators that are found on the local network |
//! | [`relay`] | peers that can't be dialed, and peers that don't want to be seen |
//! | [`bench`] | `talka bench` |

mod bench;
mod checkpoints;
mod data;
mod demo;
mod failures;
mod faults;
mod harness;
mod http;
mod impostor;
mod jobs;
mod lan;
mod ledger;
mod local;
mod long;
mod owner;
mod partition;
mod placement;
mod refusals;
mod relay;
mod steering;
mod trust;
