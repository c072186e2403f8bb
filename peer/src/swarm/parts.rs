//! An answer of the blob protocol, cut into messages.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use bytes::{Bytes, BytesMut};
use iroh::endpoint::VarInt;
use iroh_blobs::{
    protocol::{ERR_LIMIT, ERR_PERMISSION},
    util::SendStream,
};
use talka_core::limits;
use talka_proto::wire;
use tokio::sync::mpsc;
use tonic::Status;

/// Gathers what is written into messages of [`limits::FETCH_PART_BYTES`].
pub(super) struct PartsWriter {
    parts: mpsc::Sender<Result<wire::FetchPart, Status>>,
    buffer: BytesMut,
    reset: Arc<OnceLock<VarInt>>,
}

/// How an answer ended.
pub(super) struct Ended(Arc<OnceLock<VarInt>>);

impl Ended {
    /// Why there is no more of it; nothing if that was all.
    pub(super) fn refusal(&self) -> Option<Status> {
        match *self.0.get()? {
            ERR_LIMIT => Some(Status::resource_exhausted("this peer serves others now: ask them, or again")),
            ERR_PERMISSION => {
                Some(Status::permission_denied("this peer does not serve you, or not this blob"))
            }
            _ => Some(Status::not_found("this peer does not have all of it")),
        }
    }
}

impl PartsWriter {
    pub(super) fn new(parts: mpsc::Sender<Result<wire::FetchPart, Status>>) -> (Self, Ended) {
        let reset = Arc::new(OnceLock::new());
        let ended = Ended(reset.clone());
        (Self { parts, buffer: BytesMut::new(), reset }, ended)
    }

    async fn leave(&mut self, data: Bytes) -> io::Result<()> {
        let sent = self.parts.send(Ok(wire::FetchPart { data })).await;
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl SendStream for PartsWriter {
    async fn send_bytes(&mut self, bytes: Bytes) -> io::Result<()> {
        self.send(&bytes).await
    }

    async fn send(&mut self, buffer: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(buffer);
        while self.buffer.len() >= limits::FETCH_PART_BYTES {
            let part = self.buffer.split_to(limits::FETCH_PART_BYTES).freeze();
            self.leave(part).await?;
        }
        Ok(())
    }

    async fn sync(&mut self) -> io::Result<()> {
        let rest = self.buffer.split().freeze();
        if rest.is_empty() { Ok(()) } else { self.leave(rest).await }
    }

    fn reset(&mut self, code: VarInt) -> io::Result<()> {
        // The first reason is the one that counts.
        let _ = self.reset.set(code);
        Ok(())
    }

    async fn stopped(&mut self) -> io::Result<Option<VarInt>> {
        self.parts.closed().await;
        Ok(None)
    }

    fn id(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parts_are_bounded_and_all_of_it_leaves() {
        let (parts, mut sent) = mpsc::channel(100);
        let (mut writer, ended) = PartsWriter::new(parts);
        for len in [8, 64, limits::FETCH_PART_BYTES * 2 + 5, 0, 1] {
            writer.send_bytes(Bytes::from(vec![7; len])).await.expect("room");
        }
        writer.sync().await.expect("room");
        writer.sync().await.expect("nothing is left");
        drop(writer);
        let mut lens = Vec::new();
        while let Some(part) = sent.recv().await {
            lens.push(part.expect("data").data.len());
        }
        assert_eq!(lens, [limits::FETCH_PART_BYTES, limits::FETCH_PART_BYTES, 78]);
        assert!(ended.refusal().is_none());
    }

    #[tokio::test]
    async fn a_reset_is_told_as_what_it_means_and_a_reader_that_left_ends_it() {
        let (parts, sent) = mpsc::channel(1);
        for (code, meaning) in [
            (ERR_LIMIT, tonic::Code::ResourceExhausted),
            (ERR_PERMISSION, tonic::Code::PermissionDenied),
            (VarInt::from_u32(3), tonic::Code::NotFound),
        ] {
            let (mut writer, ended) = PartsWriter::new(parts.clone());
            writer.reset(code).expect("noted");
            assert_eq!(ended.refusal().expect("refused").code(), meaning);
        }
        drop(sent);
        let (mut writer, _) = PartsWriter::new(parts);
        writer.send_bytes(Bytes::from(vec![0; limits::FETCH_PART_BYTES])).await.expect_err("nobody reads");
    }
}
