//! HTTP/2 (and, for browsers, HTTP/1) connections of tools.

use std::{io, time::Duration};

use futures_util::{Stream, stream};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{
    Caller,
    stream::{GuardedStream, Remote},
};
use crate::connections::{ConnectionLimits, Permit};

/// Pause after an error of the listener itself, which is one of too many open files: some will be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections, without end, and drops those above the limits.
pub(super) fn incoming(
    listener: TcpListener,
    tls: bool,
    connections: ConnectionLimits,
    cut: CancellationToken,
) -> impl Stream<Item = Result<GuardedStream<TcpStream, Permit>, io::Error>> {
    stream::unfold((listener, connections, cut), move |(listener, connections, cut)| async move {
        let stream = loop {
            let (stream, addr) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match connections.admit(None, Some(addr.ip())) {
                Err(reason) => tracing::debug!(%addr, %reason, "dropped a connection"),
                Ok(permit) => {
                    // Small messages that wait for one another: the delay helps nobody. A socket that can't
                    // be told so works as well.
                    let _ = stream.set_nodelay(true);
                    let remote = Remote::new(move || Some(addr.ip()));
                    let caller = Caller::Tcp { addr, tls };
                    break GuardedStream::new(stream, (caller, remote), cut.clone(), permit);
                }
            }
        };
        Some((Ok(stream), (listener, connections, cut)))
    })
}
