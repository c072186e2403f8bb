//! What the words of workers are worth: when the answers to a task suffice, and what each teaches about who gave it.
//!
//! Everything here is a pure function of records and answers. [`crate::coordinator`] drives it with real attempts, a
//! simulator with drawn ones:
//!
//! 1. Put the answers so far into [`Camp`]s, one for each different answer, in the order in which their attempts were
//!    handed out.
//! 2. Ask [`Policy::judge`]. *More*: have the task executed by somebody else, and ask again. Attempts that are
//!    under way may be asked about as if they joined the leading camp: then *more* means that not enough are under way.
//! 3. *Accept*: for each voter, [`Record::learn`] what [`Policy::lesson`] says. Whoever
//!    [passed](Lesson::Passed) makes its *provisional* results final; of whoever was [caught](Lesson::Caught) each
//!    provisional result is taken back and its task done again.
//! 4. When nothing is left to be handed out, each worker with provisional results gets one of them,
//!    drawn at random, executed by somebody else.
//!
//! ```
//! use talka_core::trust::{Camp, Draw, Judgement, Policy, Record, Scene};
//!
//! let policy = Policy::error_rate(1_000, 50_000)?;
//! let scene = Scene { draw: Draw::new(u32::MAX), unchecked: 0, established_elsewhere: false };
//! let judge = |voters: &[Record]| {
//!     let mut camp = Camp::default();
//!     voters.iter().for_each(|voter| camp.join(&policy, voter, true));
//!     policy.judge(&[camp], scene)
//! };
//! let (newcomer, known) = (Record::default(), Record { checks: 50, caught: 0 });
//! assert_eq!(judge(&[known]), Judgement::Accept { camp: 0, provisional: true });
//! assert_eq!(judge(&[newcomer; 2]), Judgement::More { attempts: 1, established: false });
//! assert_eq!(judge(&[newcomer; 3]), Judgement::Accept { camp: 0, provisional: false });
//! # Ok::<(), talka_core::trust::InvalidPolicy>(())
//! ```

mod camp;
mod draw;
mod policy;
mod record;
#[cfg(test)]
mod tests;

pub use camp::Camp;
pub use draw::{AuditKey, Draw};
pub use policy::{InvalidPolicy, Judgement, Policy, Scene, established_min};
pub use record::{Lesson, Record};
