//! What is shown while the demo runs: lines as things happen and, on a terminal, a bar for each job below them.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use talka_core::quantities::Span;
use talka_proto::wire;

use crate::output::Out;

/// Redraws per second.
const REDRAWS_HZ: u8 = 15;

/// Everything that the demo says before its end.
#[derive(Debug)]
pub(super) struct Screen {
    out: Out,
    bars: MultiProgress,
    started: Instant,
}

/// The bar of one job.
#[derive(Debug)]
pub(super) struct Bar {
    bar: ProgressBar,
}

impl Screen {
    pub(super) fn new(out: Out) -> Self {
        let target = if out.is_live() {
            ProgressDrawTarget::stderr_with_hz(REDRAWS_HZ)
        } else {
            ProgressDrawTarget::hidden()
        };
        Self { out, bars: MultiProgress::with_draw_target(target), started: Instant::now() }
    }

    /// Whoever prints what is no remark.
    pub(super) fn out(&self) -> Out {
        self.out
    }

    /// Whether its bars can be seen.
    pub(super) fn is_live(&self) -> bool {
        self.out.is_live()
    }

    /// A line with the time since the start.
    pub(super) fn say(&self, what: impl Display) {
        let time = Span(self.started.elapsed()).to_string();
        let dim = |text: &str| {
            if self.out.colors_stderr() { format!("\x1b[2m{text:>5}\x1b[0m") } else { format!("{text:>5}") }
        };
        self.suspend(|| self.out.note(format!("{}  {what}", dim(&time))));
    }

    /// Prints above the bars.
    pub(super) fn suspend(&self, print: impl FnOnce()) {
        self.bars.suspend(print);
    }

    /// A bar below those that are there.
    pub(super) fn bar(&self, name: &'static str, unit: &'static str, total: u64) -> Bar {
        let bar = self.bars.add(ProgressBar::new(total)).with_prefix(name).with_message(unit);
        let template = if self.out.colors_stderr() {
            "       {prefix:<8} {bar:40.green/dim} {pos:>3}/{len} {msg}  {elapsed}"
        } else {
            "       {prefix:<8} [{bar:40}] {pos:>3}/{len} {msg}  {elapsed}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            let chars = if self.out.colors_stderr() { "━━━" } else { "#>." };
            bar.set_style(style.progress_chars(chars));
        }
        if self.out.is_live() {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Bar { bar }
    }

    /// Removes the bars.
    pub(super) fn clear(&self) {
        // A terminal that went away shows nothing anyway.
        let _ = self.bars.clear();
    }
}

impl Bar {
    /// Shows where the job stands.
    pub(super) fn update(&self, info: &wire::JobInfo) {
        self.bar.set_position(info.done + info.failed + info.cancelled);
    }

    /// The job has ended; its bar stays until all are removed.
    pub(super) fn end(&self) {
        self.bar.abandon();
    }
}
