//! A Talka coordinator: a peer that owns jobs.
//!
//! [`run`] opens the store, restores the state, listens, and serves until it is told to stop.
//!
//! | module | subject |
//! |---|---|
//! | [`store`] | what is remembered; the only place with SQL |
//! | `reactor` | the task that owns the state; `writer` is the thread that makes it durable |
//! | [`archive`] | copies of a coordinator: backup and restore |
//! | `services` | gRPC: convert, ask, convert back |
//! | `submission` | taking a job on |
//! | `outputs` | fetching what is too large for a report |
//! | `places` | where peers can be reached |
//! | `access` | who may call what |

mod access;
pub mod archive;
mod clock;
mod inputs;
mod log;
mod outputs;
mod places;
mod reactor;
mod receipts;
mod serve;
mod services;
pub mod store;
mod submission;
mod writer;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use talka_core::{
    ids::PeerId,
    placement::{Admit, Apart},
};
use talka_peer::{endpoint::Relay, rpc::Tls, ticket::Ticket};

pub use access::operator_token;
pub use serve::{CoordinatorError, run};

/// Program and version, as peers are told.
pub(crate) const AGENT: &str = concat!("talka/", env!("CARGO_PKG_VERSION"));

/// What an operator decides.
#[derive(Debug, Clone)]
pub struct CoordinatorConfig {
    /// Where key, port, token, store and blobs are.
    pub data_dir: PathBuf,
    /// Where to listen for peers (UDP). Unless a port is set, the one of the last start is used again.
    pub bind: Option<SocketAddr>,
    /// The relay through which peers reach it that can't dial it.
    pub relay: Relay,
    /// Whether volunteers on the local network may find it.
    pub lan: bool,
    /// Where to begin in the DHT, if workers may find it there.
    #[cfg(feature = "dht")]
    pub dht: Option<talka_peer::dht::Nodes>,
    /// Where to listen for tools (TCP); nowhere unless set.
    pub http: Option<SocketAddr>,
    /// How the TCP side is encrypted; required off loopback, because tools send a token.
    pub tls: Option<Tls>,
    /// How long a worker that lost its connection keeps its leases.
    pub reconnect_grace: Duration,
    /// Most bytes of blobs per second that it sends to all peers together; no limit unless set.
    pub upload_per_second: Option<std::num::NonZeroU64>,
    /// Who may work.
    pub admit: Admit,
    /// What attempts of one task must not share.
    pub apart: Apart,
}

/// A coordinator that serves.
#[derive(Debug, Clone)]
pub struct Ready {
    /// For those who may submit.
    pub ticket: Ticket,
    /// For volunteers.
    pub worker_ticket: Ticket,
    /// Its name.
    pub peer: PeerId,
    /// Where it listens for tools.
    pub http: Option<SocketAddr>,
}
