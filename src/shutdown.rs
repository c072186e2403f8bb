//! When to stop: at Ctrl-C or SIGTERM, of which the second ends at once, and if so wanted at the end of standard
//! input.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::EXIT_INTERRUPTED;

/// A token that the first signal cancels. The second signal ends the process, which is as safe: nothing
/// that was acknowledged depends on a clean shutdown.
pub(crate) fn on_signals() -> std::io::Result<CancellationToken> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let first = token.clone();
    tokio::spawn(async move {
        next(&mut interrupts, &mut terminations).await;
        first.cancel();
        next(&mut interrupts, &mut terminations).await;
        std::process::exit(EXIT_INTERRUPTED.into());
    });
    Ok(token)
}

/// Cancels `token` at the end of standard input as well: whoever held its other end has gone.
pub(crate) fn at_end_of_input(token: &CancellationToken) {
    let token = token.clone();
    // A thread of its own, because a read of standard input can't be interrupted. It ends with the process.
    std::thread::spawn(move || {
        // An end by an error is an end as well.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        token.cancel();
    });
}

async fn next(interrupts: &mut Signal, terminations: &mut Signal) {
    tokio::select! {
        _ = interrupts.recv() => {}
        _ = terminations.recv() => {}
    }
}
