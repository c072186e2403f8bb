//! Who calls.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use talka_core::ids::PeerId;
use tonic::{Request, Status};

use super::{gate, stream::Connection};

/// Who made a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Caller {
    /// A peer that proved to hold this key.
    Peer(PeerId),
    /// A tool that connected by TCP.
    Tcp {
        /// From where.
        addr: SocketAddr,
        /// Whether the connection is encrypted.
        tls: bool,
    },
}

impl Caller {
    /// Whether the caller is on this machine for sure: a TCP connection over loopback.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Tcp { addr, .. } if addr.ip().to_canonical().is_loopback())
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(peer) => write!(f, "peer {}", peer.short()),
            Self::Tcp { addr, .. } => addr.fmt(f),
        }
    }
}

/// What a caller may do, the less first: each role may do all that the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Nobody in particular.
    Anyone,
    /// A volunteer's peer.
    Peer,
    /// May submit jobs.
    Submitter,
    /// Runs the coordinator.
    Operator,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anyone => "anyone",
            Self::Peer => "a peer",
            Self::Submitter => "a submitter",
            Self::Operator => "the operator",
        })
    }
}

/// Tells the role of a caller. It is asked for each request, so it must not wait.
pub trait Roles: Send + Sync + 'static {
    /// The role of `caller`, who sent `token` (`authorization: Bearer`, decoded), if any.
    fn role(&self, caller: &Caller, token: Option<&[u8]>) -> Role;
}

/// Who made this request; `None` if it came to a handler past a [`Server`](super::Server).
pub fn caller<T>(request: &Request<T>) -> Option<Caller> {
    request.extensions().get::<Caller>().copied()
}

/// The peer that made this request; refuses tools, which have no key.
pub fn peer<T>(request: &Request<T>) -> Result<PeerId, Status> {
    match caller(request) {
        Some(Caller::Peer(peer)) => Ok(peer),
        _ => Err(Status::unauthenticated(
            "this call is for peers, which prove who they are: connect with the coordinator's ticket",
        )),
    }
}

/// The address that this request's connection comes from now, as this side sees it; none where a relay forwards it.
pub fn address<T>(request: &Request<T>) -> Option<IpAddr> {
    request.extensions().get::<Connection>().and_then(|connection| connection.remote.address())
}

/// The token that came with this request.
pub fn token<T>(request: &Request<T>) -> Option<Vec<u8>> {
    gate::token(request.metadata().as_ref())
}

/// The role that let this request pass.
pub fn role<T>(request: &Request<T>) -> Role {
    request.extensions().get::<Role>().copied().unwrap_or(Role::Anyone)
}
