//! A client that says by what right it calls.

use std::sync::Arc;

use talka_core::ids::PeerId;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use super::client::{Dialer, dial};
use crate::{address::PeerAddr, endpoint::PeerEndpoint, text, ticket::Ticket};

/// A channel whose requests carry the token of a ticket.
pub type AuthorizedChannel = InterceptedService<Channel, Bearer>;

/// Adds a token to each request, if there is one.
#[derive(Debug, Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// A connection to the coordinator of a ticket, made when it is first used and again after it broke. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub struct Client {
    channel: AuthorizedChannel,
    dialer: Arc<Dialer>,
    coordinator: PeerAddr,
}

impl Client {
    /// A client of the coordinator that `ticket` names.
    pub fn new(endpoint: PeerEndpoint, ticket: &Ticket) -> Self {
        let bearer = ticket.invite.and_then(|invite| {
            // Base32 is always valid in a header.
            MetadataValue::try_from(format!("Bearer {}", text::base32(&invite.0))).ok()
        });
        let (channel, dialer) = dial(endpoint, ticket.coordinator.clone());
        let channel = InterceptedService::new(channel, Bearer(bearer));
        Self { channel, dialer, coordinator: ticket.coordinator.clone() }
    }

    /// For a generated client.
    pub fn channel(&self) -> AuthorizedChannel {
        self.channel.clone()
    }

    /// Bytes that went over the wire on the connection that is up, both ways, with all that encloses them but the
    /// headers of UDP and IP.
    pub fn wire_bytes(&self) -> u64 {
        self.dialer.wire_bytes()
    }

    /// Where the coordinator is.
    pub fn address(&self) -> &PeerAddr {
        &self.coordinator
    }

    /// Who the coordinator is.
    pub fn peer(&self) -> PeerId {
        self.coordinator.peer
    }
}
