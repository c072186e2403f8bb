//! gRPC between peers, and for tools that are no peers.
//!
//! Over iroh, one QUIC bidirectional stream carries one HTTP/2 connection; the caller is the peer that TLS
//! authenticated. Over TCP the same services answer, for `grpcurl`, browsers and scripts; there the caller is an
//! address and, if it sends one, a token. A handler asks [`caller()`] or [`peer()`] and does not care which it was.
//!
//! ```text
//! peers:  iroh stream ─ PeerHandler ┐                ┌ hardening  ┌ gate: rate, table, role ┐
//!                                   ├ guarded stream ┤ (Server)  ─┤                         ├─ services
//! tools:  TCP [─ TLS] ─ listener ───┘                └            └ message size            ┘
//! ```
//!
//! | module | subject |
//! |---|---|
//! | [`caller`](mod@caller) | who calls, and with what role |
//! | [`access`] | the table of who may call what, and its check against the service descriptors |
//! | `gate` | the layer in front of all services that applies the table and the rate limit |
//! | `messages` | the limit of one message, before it is decoded |
//! | `stream` | a connection with a deadline for its first request, and an end |
//! | `quic`, `tcp` | how connections come in |
//! | [`server`] | every limit of the HTTP/2 server, at one place |
//! | [`client`] | a channel to a peer that connects when it is used |
//! | `authorized` | the same with the token of a ticket |

pub mod access;
mod authorized;
pub mod caller;
pub mod client;
mod gate;
mod messages;
mod quic;
pub mod server;
mod stream;
mod tcp;

pub use self::{
    access::{Access, AccessTable, Row},
    authorized::{AuthorizedChannel, Bearer, Client},
    caller::{Caller, Role, Roles, address, caller, peer, role, token},
    client::channel,
    quic::{PeerHandler, PeerStreams},
    server::{Server, Tls},
};

/// Names the protocol in the TLS handshake. Another version of the wire gets another name.
pub const ALPN: &[u8] = b"talka/grpc/1";
