//! The live line of a job: `[####>....] 512/1000 tasks  8 running 512 done  85.2/s  ETA 6s`.

use std::{
    cell::RefCell,
    collections::VecDeque,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use talka_proto::wire;

use crate::{format, output::Out};

/// Width of the bar in characters, as in `HyperQueue`.
const BAR_WIDTH: u16 = 40;
/// How far back the rate looks: long enough to be steady, short enough to notice a stall.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// A bar on a terminal, and nothing anywhere else.
#[derive(Debug)]
pub(crate) struct JobBar {
    bar: ProgressBar,
    rate: RefCell<Rate>,
    color: bool,
}

impl JobBar {
    pub(crate) fn new(out: Out) -> Self {
        let bar = new_bar(out, "{msg}", None);
        if out.is_live() {
            // The spinner-less line still has to move its clock.
            bar.enable_steady_tick(Duration::from_millis(500));
        }
        Self { bar, rate: RefCell::default(), color: out.colors_stderr() }
    }

    /// Shows where the job stands.
    pub(crate) fn update(&self, info: &wire::JobInfo) {
        let finals = info.done + info.failed + info.cancelled;
        let mut rate = self.rate.borrow_mut();
        rate.add(Instant::now(), finals);
        if !self.bar.is_hidden() {
            self.bar.set_message(line(info, rate.per_sec(), self.color));
        }
    }

    /// Prints above the bar.
    pub(crate) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// Removes the bar.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// A bar for bytes that are read or sent.
pub(crate) fn bytes_bar(out: Out, what: &'static str, total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{prefix} [{bar:40}] {bytes}/{total_bytes}  {bytes_per_sec}  ETA {eta}",
        None => "{prefix} {bytes}  {bytes_per_sec}",
    };
    new_bar(out, template, total).with_prefix(what)
}

/// A bar for a known number of steps, each with a message.
pub(crate) fn steps_bar(out: Out, steps: u64) -> ProgressBar {
    new_bar(out, "[{bar:40}] {pos}/{len} {msg}", Some(steps))
}

fn new_bar(out: Out, template: &str, total: Option<u64>) -> ProgressBar {
    let target =
        if out.is_live() { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(total, target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("#>."));
    }
    bar
}

/// The text of the live line.
fn line(info: &wire::JobInfo, per_sec: Option<f64>, color: bool) -> String {
    let finals = info.done + info.failed + info.cancelled;
    let mut line = format!("{} {finals}/{} tasks ", bar(info, color), info.tasks);
    let counts = [
        (info.running, "running", "36"),
        (info.done, "done", "32"),
        (info.failed, "failed", "31"),
        (info.cancelled, "cancelled", "33"),
    ];
    for (count, word, code) in counts.into_iter().filter(|(count, ..)| *count > 0) {
        line.push(' ');
        line.push_str(&paint(&format!("{count} {word}"), code, color));
    }
    let pace = per_sec.filter(|rate| *rate > 0.0).map(|rate| {
        let left = info.tasks.saturating_sub(finals);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let eta = format::span(left as f64 / rate);
        format!("  {rate:.1}/s  ETA {eta}")
    });
    line + &pace.unwrap_or_default()
}

/// `[######>.....]`, one colour per state.
fn bar(info: &wire::JobInfo, color: bool) -> String {
    let cells = |count: u64| {
        let scaled = u128::from(count) * u128::from(BAR_WIDTH) / u128::from(info.tasks.max(1));
        usize::try_from(scaled).unwrap_or(0).min(usize::from(BAR_WIDTH))
    };
    // Cumulative, so that rounding never makes the bar longer or shorter than it is.
    let done = cells(info.done);
    let failed = cells(info.done + info.failed) - done;
    let cancelled = cells(info.done + info.failed + info.cancelled) - done - failed;
    let rest = usize::from(BAR_WIDTH) - done - failed - cancelled;
    format!(
        "[{}{}{}{}]",
        paint(&"#".repeat(done), "32", color),
        paint(&"#".repeat(failed), "31", color),
        paint(&"#".repeat(cancelled), "33", color),
        ".".repeat(rest)
    )
}

fn paint(text: &str, code: &str, color: bool) -> String {
    if color && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Final tasks per second over the last [`RATE_WINDOW`].
#[derive(Debug, Default)]
struct Rate {
    /// Moments and counts, oldest first; at most a few per second are kept.
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// Samples closer than this replace each other, so that a busy job costs no more than an idle one.
    const SPACING: Duration = Duration::from_millis(200);

    fn add(&mut self, now: Instant, count: u64) {
        if let [.., before, last] = self.samples.make_contiguous()
            && last.0.duration_since(before.0) < Self::SPACING
        {
            *last = (now, count);
        } else {
            self.samples.push_back((now, count));
        }
        while self.samples.len() > 2
            && self.samples.front().is_some_and(|first| now.duration_since(first.0) > RATE_WINDOW)
        {
            self.samples.pop_front();
        }
    }

    fn per_sec(&self) -> Option<f64> {
        let ((from, before), (to, after)) = (self.samples.front()?, self.samples.back()?);
        let span = to.duration_since(*from);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let rate = after.saturating_sub(*before) as f64 / span.as_secs_f64();
        (span >= Self::SPACING).then_some(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_what_there_is_and_nothing_else() {
        let info = wire::JobInfo { tasks: 1000, done: 500, failed: 12, running: 8, ..Default::default() };
        assert_eq!(
            line(&info, Some(48.8), false),
            "[####################....................] 512/1000 tasks  8 running 500 done 12 failed  \
             48.8/s  ETA 10s"
        );
        let begun = wire::JobInfo { tasks: 3, ..Default::default() };
        assert_eq!(line(&begun, None, false), format!("[{}] 0/3 tasks ", ".".repeat(40)));
    }

    #[test]
    fn the_bar_is_full_exactly_at_the_end() {
        let third = |done| wire::JobInfo { tasks: 3, done, failed: 1, cancelled: 1, ..Default::default() };
        assert_eq!(bar(&third(1), false), format!("[{}]", "#".repeat(40)));
        assert!(bar(&third(0), false).ends_with(".]"));
        assert!(bar(&third(1), true).contains("\x1b[31m#"));
    }

    #[test]
    fn the_rate_forgets_what_is_long_past() {
        let start = Instant::now();
        let mut rate = Rate::default();
        rate.add(start, 0);
        assert_eq!(rate.per_sec(), None);
        for tenth in 1..=300u32 {
            let tasks = if tenth <= 100 { 0 } else { u64::from(tenth - 100) };
            rate.add(start + Duration::from_millis(100) * tenth, tasks);
        }
        let per_sec = rate.per_sec().expect("a rate");
        assert!((9.5..=10.5).contains(&per_sec), "{per_sec}");
        assert!(rate.samples.len() <= 60, "{}", rate.samples.len());
    }
}
