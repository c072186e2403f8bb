//! A Talka peer on the network, whatever part it plays: who it is, how others reach it, how it calls them and
//! how bytes get from one to the other.
//!
//! One Ed25519 key names a peer, one UDP socket carries everything: gRPC for control, verified blobs for bulk,
//! each a protocol of the same iroh endpoint. Nothing here contacts a host that it was not told of, and nothing
//! here knows what a job is: what decides lives in `talka-core`, what a call means in the crates above.
//!
//! # Map
//!
//! | module | subject |
//! |---|---|
//! | [`identity`] | the key, in a file; signatures; key ⇄ name |
//! | [`address`] | a peer and the ways to it |
//! | [`endpoint`] | the socket, its port across restarts, connecting |
//! | `dht` | a coordinator found by its key alone; with the feature of that name |
//! | [`lan`] | coordinators on the local network: announced, and found |
//! | [`reach`] | relay or not, and who may learn where this peer is |
//! | [`relay`] | carrying the packets of peers that can't reach each other |
//! | [`ticket`] | the string that one pastes to join |
//! | [`connections`] | how many connections there may be, over all protocols |
//! | [`rpc`] | gRPC over iroh and TCP: server, client, who may call what |
//! | [`blobs`] | the verified store, who may fetch from it, and fetching from peers that can't be dialed |
//! | [`transfer`] | getting a blob from others, though some of them stall or lie |
//! | [`swarm`] | getting a blob from many others at once, while others get it from here |
//! | [`faults`] | peers that do wrong on purpose, for tests and measurements |
//! | [`bucket`] | token buckets |
//! | [`text`] | bytes as text |
//!
//! # Example
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use talka_peer::{endpoint::{EndpointConfig, PeerEndpoint}, identity::Identity, ticket::Ticket};
//!
//! let data_dir = tempfile::tempdir()?;
//! let identity = Identity::load_or_create(data_dir.path())?;
//! let endpoint = PeerEndpoint::bind_same_port(EndpointConfig::new(identity).on_loopback(), data_dir.path()).await?;
//! let ticket = Ticket { coordinator: endpoint.address(), invite: None }.to_string();
//!
//! let pasted: Ticket = ticket.parse()?;
//! assert_eq!(pasted.coordinator.peer, endpoint.peer_id());
//! # Ok(())
//! # }
//! ```

pub mod address;
pub mod blobs;
pub mod bucket;
mod clock;
pub mod connections;
#[cfg(feature = "dht")]
pub mod dht;
pub mod endpoint;
pub mod faults;
pub mod files;
pub mod identity;
pub mod lan;
mod port;
pub mod reach;
pub mod relay;
pub mod rpc;
pub mod swarm;
pub mod text;
pub mod ticket;
pub mod transfer;

pub use iroh::{
    RelayUrl,
    protocol::{Router, RouterBuilder},
};

/// Why something below failed, of a library whose types stay inside this crate.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;
