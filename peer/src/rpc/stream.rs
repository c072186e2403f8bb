//! A byte stream that carries one HTTP/2 connection, counted, and with an end.
//!
//! A stream that brings no request within [`limits::HANDSHAKE_TIMEOUT`] is closed: TLS, the HTTP/2 preface and the
//! headers of the first request are cheap for who sends them and must not be cheap to withhold.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use talka_core::limits;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::Caller;

/// Where a connection comes from now: the path of a QUIC connection may change.
#[derive(Clone)]
pub(crate) struct Remote(Arc<dyn Fn() -> Option<IpAddr> + Send + Sync>);

impl Remote {
    pub(crate) fn new(address: impl Fn() -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        Self(Arc::new(address))
    }

    /// The address that its packets come from; none where a relay forwards them.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.0()
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Remote").field(&self.address()).finish()
    }
}

/// What every request of a connection carries along.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) caller: Caller,
    pub(crate) remote: Remote,
    /// Set when the first request has come.
    pub(crate) used: Arc<AtomicBool>,
}

/// A stream, and `K`: whatever has to live as long as it does.
pub(crate) struct GuardedStream<T, K> {
    stream: T,
    connection: Connection,
    end: Pin<Box<dyn Future<Output = io::ErrorKind> + Send + Sync>>,
    ended: Option<io::ErrorKind>,
    _kept: K,
}

impl<T, K> GuardedStream<T, K> {
    /// `stream` of `caller`, cut off when `cut` is cancelled.
    pub(crate) fn new(
        stream: T,
        (caller, remote): (Caller, Remote),
        cut: CancellationToken,
        kept: K,
    ) -> Self {
        let used = Arc::new(AtomicBool::new(false));
        let end = Box::pin(end(Arc::clone(&used), cut));
        Self { stream, connection: Connection { caller, remote, used }, end, ended: None, _kept: kept }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.ended.is_none()
            && let Poll::Ready(kind) = self.end.as_mut().poll(cx)
        {
            self.ended = Some(kind);
        }
        self.ended.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

async fn end(used: Arc<AtomicBool>, cut: CancellationToken) -> io::ErrorKind {
    let idle = async {
        tokio::time::sleep(limits::HANDSHAKE_TIMEOUT).await;
        if used.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = cut.cancelled() => io::ErrorKind::ConnectionAborted,
        () = idle => io::ErrorKind::TimedOut,
    }
}

impl<T, K> Connected for GuardedStream<T, K> {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.connection.clone()
    }
}

// Each side checks for the end: when the other one of them is blocked, nothing else would wake the connection.
impl<T: AsyncRead + Unpin, K: Unpin> AsyncRead for GuardedStream<T, K> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<T: AsyncWrite + Unpin, K: Unpin> AsyncWrite for GuardedStream<T, K> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    fn guarded() -> (GuardedStream<DuplexStream, ()>, DuplexStream, CancellationToken) {
        let (ours, theirs) = tokio::io::duplex(16);
        let cut = CancellationToken::new();
        let caller = Caller::Tcp { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), tls: false };
        (GuardedStream::new(ours, (caller, Remote::new(|| None)), cut.clone(), ()), theirs, cut)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_without_a_request_ends() {
        let (mut stream, _theirs, _cut) = guarded();
        let start = tokio::time::Instant::now();
        let error = stream.read_u8().await.expect_err("nothing was sent");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), limits::HANDSHAKE_TIMEOUT);
        assert_eq!(stream.write(b"x").await.expect_err("it stays closed").kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_blocked_writer_ends_too() {
        let (mut stream, _theirs, _cut) = guarded();
        let error = stream.write_all(&[0; 17]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_used_stream_lives_until_it_is_cut() {
        let (mut stream, mut theirs, cut) = guarded();
        stream.connect_info().used.store(true, Ordering::Relaxed);
        let waited = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT * 100, stream.read_u8()).await;
        assert!(waited.is_err(), "still open");
        theirs.write_u8(7).await.expect("open");
        assert_eq!(stream.read_u8().await.expect("open"), 7);
        cut.cancel();
        assert_eq!(stream.read_u8().await.expect_err("cut").kind(), io::ErrorKind::ConnectionAborted);
    }
}
