//! The limit of one gRPC message, enforced on its length prefix.
//!
//! tonic has such a limit per generated service, 4 MiB unless each of them is told otherwise. Here it is
//! set once for all of them, and a message that claims to be longer ends the request before a byte of
//! it is stored.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use talka_core::limits;
use tonic::{Status, body::Body};

/// A gRPC message is preceded by one byte of flags and four of length.
const PREFIX_BYTES: usize = 5;

/// A request's body, refused when one of its messages is longer than [`limits::MESSAGE_BYTES_MAX`].
pub(crate) struct BoundedMessages {
    body: Body,
    scan: Scan,
}

impl BoundedMessages {
    pub(crate) fn wrap(body: Body) -> Body {
        Body::new(Self { body, scan: Scan::default() })
    }
}

impl HttpBody for BoundedMessages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let checked = frame.map(|frame| {
            let frame = frame?;
            match frame.data_ref().map_or(Ok(()), |data| self.scan.bytes(data)) {
                Ok(()) => Ok(frame),
                Err(claimed) => Err(Status::resource_exhausted(format!(
                    "a message of {claimed} bytes is above the limit of {}: send less at once",
                    limits::MESSAGE_BYTES_MAX
                ))),
            }
        });
        Poll::Ready(checked)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Where in the sequence of messages the body is.
#[derive(Debug, Default)]
struct Scan {
    prefix: [u8; PREFIX_BYTES],
    have: usize,
    /// Bytes of the current message that are still to come.
    rest: usize,
}

impl Scan {
    /// Goes over the next bytes; fails with the length that a message claims when that is too long.
    fn bytes(&mut self, mut bytes: &[u8]) -> Result<(), u32> {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let skipped = self.rest.min(bytes.len());
                self.rest -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (PREFIX_BYTES - self.have).min(bytes.len());
            self.prefix[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == PREFIX_BYTES {
                let [_, a, b, c, d] = self.prefix;
                let claimed = u32::from_be_bytes([a, b, c, d]);
                self.rest = usize::try_from(claimed).map_err(|_| claimed)?;
                if self.rest > limits::MESSAGE_BYTES_MAX {
                    return Err(claimed);
                }
                self.have = 0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Vec<u8> {
        let length = u32::try_from(bytes).expect("small").to_be_bytes();
        [&[0], &length[..], &vec![7; bytes]].concat()
    }

    #[test]
    fn messages_are_followed_however_they_are_cut() {
        let body = [message(0), message(3), message(300), message(1)].concat();
        for size in [1, 2, 3, 4, 5, 6, 7, 299, body.len()] {
            let mut scan = Scan::default();
            assert!(body.chunks(size).all(|part| scan.bytes(part).is_ok()), "in parts of {size}");
            assert_eq!((scan.have, scan.rest), (0, 0));
        }
    }

    #[test]
    fn a_claim_above_the_limit_is_refused_at_once() {
        let max = u32::try_from(limits::MESSAGE_BYTES_MAX).expect("small");
        let claim = |length: u32| [&[0], &length.to_be_bytes()[..]].concat();
        assert_eq!(Scan::default().bytes(&claim(max)), Ok(()));
        assert_eq!(Scan::default().bytes(&claim(max + 1)), Err(max + 1));
        assert_eq!(Scan::default().bytes(&[message(9), claim(u32::MAX)].concat()), Err(u32::MAX));
    }
}
