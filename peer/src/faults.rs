//! Peers that do wrong on purpose, for tests and measurements. Nothing that runs for a user has one.

use iroh::{
    endpoint::{Connection, RecvStream, SendStream},
    protocol::{AcceptError, ProtocolHandler},
};
use iroh_blobs::protocol::{ChunkRanges, ObserveItem, Request};
use talka_core::limits;
use tokio::task::JoinSet;

/// Says that it has every blob that it is asked about, and sends bytes that belong to none: register it for
/// [`blobs::ALPN`](crate::blobs::ALPN).
#[derive(Debug, Clone, Copy)]
pub struct Poisoner {
    size: u64,
}

impl Poisoner {
    /// One that claims this length for all blobs.
    pub fn new(size: talka_core::quantities::Bytes) -> Self {
        Self { size: size.get() }
    }

    async fn answer(self, mut question: RecvStream, mut answer: SendStream) -> Result<(), AcceptError> {
        let (request, _) = Request::read_async(&mut question).await.map_err(AcceptError::from_err)?;
        match request {
            Request::Get(_) => {
                let poison = [0x5a; 16 << 10];
                answer.write_all(&self.size.to_le_bytes()).await.map_err(AcceptError::from_err)?;
                // Whoever checks has had enough long before the end.
                for _ in 0..limits::SWARM_PIECE_BYTES / poison.len() as u64 {
                    answer.write_all(&poison).await.map_err(AcceptError::from_err)?;
                }
                answer.finish()?;
            }
            Request::Observe(_) => {
                let everything = ObserveItem { size: self.size, ranges: ChunkRanges::all() };
                let item = postcard::to_extend(&everything, Vec::new()).map_err(AcceptError::from_err)?;
                let mut message =
                    postcard::to_extend(&item.len(), Vec::new()).map_err(AcceptError::from_err)?;
                message.extend(item);
                answer.write_all(&message).await.map_err(AcceptError::from_err)?;
                // There is nothing to add.
                answer.stopped().await.map_err(AcceptError::from_err)?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl ProtocolHandler for Poisoner {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let mut answers = JoinSet::new();
        loop {
            tokio::select! {
                asked = connection.accept_bi() => {
                    let (answer, question) = asked?;
                    answers.spawn((*self).answer(question, answer));
                }
                Some(_) = answers.join_next() => {}
            }
        }
    }
}
