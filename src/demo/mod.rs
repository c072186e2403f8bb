//! `talka demo`: a whole grid on this machine, with real processes and a result that a person can see.
//!
//! | module | subject |
//! |---|---|
//! | [`grid`] | all of them, and that none is left behind |
//! | [`work`] | the two jobs, and following them |
//! | [`picture`] | tiles into a PNG, and a preview for terminals |
//! | [`documents`] | the texts whose words are counted |
//! | [`screen`] | what is shown while it runs |
//! | [`report`] | what is shown at the end |
//!
//! The demo uses what everybody else uses: it starts `talka coordinator start` and `talka worker start`, and
//! then submits, follows and collects as `talka submit -o` does.

mod documents;
mod grid;
mod picture;
mod report;
mod screen;
mod work;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use self::{
    grid::Grid,
    picture::Picture,
    report::Report,
    screen::Screen,
    work::{Finished, Work},
};
use crate::{
    cli::CoordinatorFlags,
    client::Client,
    error::{Code, Failure},
    output::Out,
    shutdown,
};

/// Workers that must agree on each result.
pub(crate) const QUORUM: u32 = 2;
/// Most workers that a demo may start: it shows how a grid works, not how a machine breaks.
pub(crate) const WORKERS_MAX: usize = 16;
/// Longest time for both jobs, ten times what a slow machine needs: afterwards something is wrong.
const JOBS_MAX: Duration = Duration::from_mins(5);

/// What the user may choose.
#[derive(Debug, Clone)]
pub(crate) struct DemoConfig {
    /// Worker processes.
    pub(crate) workers: usize,
    /// Where the picture goes.
    pub(crate) picture: PathBuf,
    /// Whether the directory of the grid stays.
    pub(crate) keep: bool,
}

/// Runs the demo from the first process to the last line.
pub(crate) async fn run(config: &DemoConfig, out: Out) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let signals = shutdown::on_signals().context("cannot listen for signals")?;
    let dir = tempfile::Builder::new()
        .prefix("talka-demo-")
        .tempdir()
        .context("cannot create a temporary directory for the grid")?;
    let screen = Screen::new(out);
    screen.say(format!(
        "a coordinator and {} workers, each a process of its own, in {}",
        config.workers,
        dir.path().display()
    ));
    let mut grid = Grid::new(dir.path())?;
    let played = play(&mut grid, config, dir.path(), &screen, started, &signals).await;
    screen.clear();
    let stopped = grid.stop().await;
    let (report, picture) = match played {
        Ok(played) => played,
        Err(error) => return Err(explain(error, dir, config.keep)),
    };
    let stopped = match stopped {
        Ok(stopped) => stopped,
        Err(error) => return Err(explain(error, dir, config.keep)),
    };
    let (file, unwritable) = save(&picture, &config.picture, dir.path())?;
    let kept = (config.keep || unwritable.is_some()).then(|| dir.keep());
    if let Some(reason) = unwritable {
        out.warn(format!("{reason}; the picture is in the grid's directory instead, which is kept"));
    }
    report.print(out, &picture, &file, kept.as_deref(), stopped)?;
    Ok(if report.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Everything between the start of the first process and the last result.
async fn play(
    grid: &mut Grid,
    config: &DemoConfig,
    dir: &Path,
    screen: &Screen,
    started: Instant,
    signals: &CancellationToken,
) -> anyhow::Result<(Report, Picture)> {
    let interrupted = || Err(Failure::new(Code::Interrupted, "interrupted").into());
    let ticket = tokio::select! {
        ticket = grid.start(config.workers, screen) => ticket?,
        () = signals.cancelled() => return interrupted(),
    };
    let workers = grid.workers();
    let flags = CoordinatorFlags {
        ticket: Some(ticket),
        data_dir: Some(dir.to_owned()),
        ..CoordinatorFlags::default()
    };
    let client = Client::connect(&flags).await?;
    let played = tokio::select! {
        played = jobs(&client, dir, screen, workers, started) => played,
        ended = grid.first_to_end() => Err(ended),
        () = signals.cancelled() => interrupted(),
        () = tokio::time::sleep(JOBS_MAX) => {
            let secs = JOBS_MAX.as_secs();
            Err(anyhow::anyhow!("the jobs did not end within {secs} s"))
        }
    };
    client.close().await;
    played
}

async fn jobs(
    client: &Client,
    dir: &Path,
    screen: &Screen,
    workers: Vec<String>,
    started: Instant,
) -> anyhow::Result<(Report, Picture)> {
    let (tiles, texts) = (dir.join("tiles"), dir.join("counts"));
    // The short one first: jobs of one submitter are worked at in their order.
    let words = Work::words()?.submit(client, screen).await?;
    let picture = Work::picture()?.submit(client, screen).await?;
    let (words, picture) =
        tokio::try_join!(words.follow(client, &texts, screen), picture.follow(client, &tiles, screen))?;
    let wall = started.elapsed();
    let done = |finished: &Finished| finished.info.done == finished.info.tasks;
    // What could be computed is shown, whatever failed.
    let assembled = if done(&picture) { picture::assemble(&tiles)? } else { Picture::black() };
    let counts = if done(&words) { documents::counts(&texts)? } else { Vec::new() };
    let report = Report::gather(client, workers, [words, picture], counts, wall).await?;
    Ok((report, assembled))
}

/// Writes the picture where the user wants it, or else into the grid's directory; then with the reason.
fn save(picture: &Picture, wanted: &Path, dir: &Path) -> anyhow::Result<(PathBuf, Option<String>)> {
    let png = picture.to_png()?;
    match std::fs::write(wanted, &png) {
        Ok(()) => Ok((wanted.canonicalize().unwrap_or_else(|_| wanted.to_owned()), None)),
        Err(error) => {
            let instead = dir.join("picture.png");
            std::fs::write(&instead, &png).with_context(|| format!("cannot write {}", instead.display()))?;
            Ok((instead, Some(format!("cannot write {}: {error}", wanted.display()))))
        }
    }
}

/// A demo that failed leaves the logs of its processes; one that was interrupted leaves nothing.
fn explain(error: anyhow::Error, dir: TempDir, keep: bool) -> anyhow::Error {
    let interrupted = Failure::code_of(&error) == Code::Interrupted;
    if interrupted && !keep {
        return error;
    }
    let dir = dir.keep();
    error.context(format!("the demo ended early; the logs of its processes are in {}", dir.display()))
}
