//! Where a peer can be reached.

use std::{fmt, net::SocketAddr};

use iroh::{EndpointAddr, RelayUrl, TransportAddr};
use talka_core::ids::PeerId;

use crate::{
    identity::{NotAKey, endpoint_id, peer_id},
    reach::shown,
};

/// A peer and the ways to it. Without any way, it can still be reached over a connection that it made itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddr {
    /// Who has to answer there: the connection is refused otherwise.
    pub peer: PeerId,
    /// Socket addresses, tried at once.
    pub direct: Vec<SocketAddr>,
    /// A relay that the peer is connected to.
    pub relay: Option<RelayUrl>,
}

impl PeerAddr {
    /// A peer at these socket addresses.
    pub fn new(peer: PeerId, direct: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self { peer, direct: direct.into_iter().collect(), relay: None }
    }

    /// Whether there is anything to dial.
    pub fn is_dialable(&self) -> bool {
        !self.direct.is_empty() || self.relay.is_some()
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.peer.short())?;
        for (position, address) in self.direct.iter().enumerate() {
            write!(f, "{}{address}", if position == 0 { " at " } else { ", " })?;
        }
        self.relay.as_ref().map_or(Ok(()), |relay| write!(f, " by {}", shown(relay)))
    }
}

impl TryFrom<&PeerAddr> for EndpointAddr {
    type Error = NotAKey;

    fn try_from(address: &PeerAddr) -> Result<Self, NotAKey> {
        let direct = address.direct.iter().map(|address| TransportAddr::Ip(*address));
        let relay = address.relay.iter().map(|relay| TransportAddr::Relay(relay.clone()));
        Ok(Self::from_parts(endpoint_id(address.peer)?, direct.chain(relay)))
    }
}

impl From<&EndpointAddr> for PeerAddr {
    fn from(address: &EndpointAddr) -> Self {
        Self {
            peer: peer_id(address.id),
            direct: address.ip_addrs().copied().collect(),
            relay: address.relay_urls().next().cloned(),
        }
    }
}
