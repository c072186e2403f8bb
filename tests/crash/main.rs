//! Processes that die at any moment, disks that fill up, clocks that jump: nothing that was acknowledged is lost.
//!
//! | module | subject |
//! |---|---|
//! | [`kills`] | `kill -9` of coordinator and workers under load, again and again |
//! | [`faults`] | a full disk, a read-only one, damage, a clock that jumps |
//! | [`room`] | a worker whose disk fills up |
//! | [`copies`] | backup and restore beside a coordinator that works |
//! | [`harness`] | shared with the tests of whole grids |

mod copies;
mod faults;
#[path = "../grid/harness/mod.rs"]
mod harness;
mod kills;
mod room;
