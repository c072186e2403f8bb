//! Sessions that have nothing to do.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;

use super::synthetic::Session;
use crate::bench::{rounded, subject::Subject};

/// For how long they are left alone.
const WATCHED: Duration = Duration::from_secs(5);
/// Sessions that are opened at the same time.
const OPENING_MAX: usize = 16;

/// What they cost the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Idle {
    pub(super) sessions: usize,
    pub(super) rss_kib_per_session: f64,
    /// Of one processor, all of them together.
    pub(super) cpu_percent: f64,
    pub(super) open_secs: f64,
}

/// Opens sessions, leaves them alone for [`WATCHED`], and closes them.
#[expect(clippy::cast_precision_loss, reason = "sizes and counts far below 2^52")]
pub(super) async fn measure(subject: &Subject, count: usize) -> anyhow::Result<Idle> {
    let (before, begun) = (subject.usage()?, Instant::now());
    let (mut opening, mut sessions) = (JoinSet::new(), Vec::with_capacity(count));
    for _ in 0..count {
        if opening.len() >= OPENING_MAX
            && let Some(opened) = opening.join_next().await
        {
            sessions.push(opened??);
        }
        let ticket = subject.ticket().clone();
        opening.spawn(async move { Session::open(&ticket).await });
    }
    while let Some(opened) = opening.join_next().await {
        sessions.push(opened??);
    }
    let (opened, open_secs) = (subject.usage()?, begun.elapsed().as_secs_f64());
    let watching = Instant::now();
    tokio::time::sleep(WATCHED).await;
    let (after, watched) = (subject.usage()?, watching.elapsed());
    for session in sessions {
        session.close().await;
    }
    let rss = after.rss_bytes.saturating_sub(before.rss_bytes) as f64 / 1024.0;
    let cpu = after.cpu.saturating_sub(opened.cpu).as_secs_f64() / watched.as_secs_f64();
    Ok(Idle {
        sessions: count,
        rss_kib_per_session: rounded(rss / count.max(1) as f64, 1),
        cpu_percent: rounded(cpu * 100.0, 1),
        open_secs: rounded(open_secs, 2),
    })
}
