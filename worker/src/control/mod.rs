//! The owner's hand on a running worker: a Unix socket in its data directory.
//!
//! # Protocol
//!
//! The socket is `control.sock` in the data directory, of mode 0600. A connection carries one request and one
//! answer, each a JSON object on one line: a [`Request`], then an [`Answer`]. Every request that is obeyed is
//! answered with the [`Status`] after it.
//!
//! ```text
//! {"request":"status"}                        {"status":{"peer":…,"state":"working",…}}
//! {"request":"pause","for_secs":7200}         {"status":{…,"state":"paused",…}}
//! {"request":"resume"}
//! {"request":"finish"}
//! {"request":"set","cpu_percent":25}
//! {"request":"fly"}                           {"error":{"code":"unknown-request","message":…}}
//! ```
//!
//! Only the worker's own user and root are answered: the kernel says who connects. Requests, answers, connections and
//! the time for each are bounded; see [`talka_core::limits`].
//!
//! # One worker, one directory
//!
//! A worker holds a lock on the file `lock` in its data directory for as long as it lives. So a socket that is found
//! there by whoever has the lock was left by a process that died, and is replaced. A path of any length will do: on
//! Linux the socket is reached through the directory's descriptor.
//!
//! | module | subject |
//! |---|---|
//! | `protocol` | requests, answers, status |
//! | `socket` | where the socket is, and who may have it |
//! | `server`, `client` | the two ends |
//! | `pause` | the owner's pause, which outlives the process |

mod client;
mod pause;
mod protocol;
mod server;
mod socket;
#[cfg(test)]
mod tests;

pub use self::{
    client::{AskError, ask},
    pause::Pause,
    protocol::{
        Answer, Connection, DiskUsage, Refused, Request, SlotState, SlotStatus, State, Status, TaskStatus,
        Traffic,
    },
    socket::ControlError,
};
pub(crate) use self::{
    server::{Asked, serve},
    socket::Socket,
};

/// Milliseconds since the Unix epoch.
pub(crate) fn now_millis() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    // A clock before 1970 is as good as none.
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
