//! `talka bench dispatch`: what an attempt costs the coordinator, and how many a second it hands out and takes back.
//!
//! | module | subject |
//! |---|---|
//! | [`synthetic`] | workers that speak the real protocol and run nothing |
//! | [`answers`] | what they answer |
//! | [`idle`] | what sessions cost that have nothing to do |
//! | [`report`] | the figures, as JSON and as a table, and their goals |
//!
//! The coordinator is a process of its own, with a store on the disk where temporary files are; workers are tasks of this
//! process, or, to run the program for real, processes as well.

mod answers;
mod idle;
mod report;
mod synthetic;

use std::{process::ExitCode, sync::Arc, time::Instant};

use anyhow::Context;
use futures_util::future::{join_all, try_join_all};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::{
    answers::Answers,
    report::{Report, Submit},
    synthetic::{Seen, Session},
};
use super::{subject::Subject, submitter::Submitter};
use crate::{output::Out, process::Process, progress};

/// How dispatching is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DispatchConfig {
    /// Tasks of the job.
    pub(crate) tasks: u64,
    /// Reports in one message of a worker that runs nothing.
    pub(crate) batch: usize,
    /// Workers.
    pub(crate) workers: usize,
    /// Attempts that must agree.
    pub(crate) quorum: u32,
    /// Whether workers are real and run the program.
    pub(crate) run: bool,
    /// Sessions with nothing to do, of which is measured what they cost.
    pub(crate) idle: usize,
    /// Whether JSON says more than others rely on.
    pub(crate) details: bool,
}

/// The workers.
enum Workers {
    Synthetic { tasks: Vec<JoinHandle<anyhow::Result<Seen>>>, stop: CancellationToken },
    Real(Vec<Process>),
}

/// Measures and prints what came out.
pub(crate) async fn dispatch(config: DispatchConfig, out: Out) -> anyhow::Result<ExitCode> {
    let mut subject = Subject::start().await?;
    let measured = measure(&config, &subject, out).await;
    let (mut report, store_before) = subject.check(measured).await?;
    let store_after = subject.stop().await?;
    report.set_disk(store_after.saturating_sub(store_before));
    report.print(&config, out)?;
    Ok(ExitCode::SUCCESS)
}

/// All but what is known only when the coordinator has ended; and the bytes of its store before.
async fn measure(config: &DispatchConfig, subject: &Subject, out: Out) -> anyhow::Result<(Report, u64)> {
    let submitter = Submitter::connect(subject.ticket()).await?;
    let spec = submitter.job(config.tasks, config.quorum)?;
    let workers = Workers::start(config, subject, Answers::learn(spec.clone()).await?).await?;
    let (store, before) = (subject.store_bytes()?, subject.usage()?);
    let bar = progress::steps_bar(out, config.tasks);
    let begun = Instant::now();
    let job = submitter.submit(&spec).await?;
    let submit = Submit {
        time: begun.elapsed(),
        rss_bytes: subject.usage()?.rss_bytes.saturating_sub(before.rss_bytes),
    };
    let info = submitter.until_done(job, |info| bar.set_position(info.done)).await?;
    let wall = begun.elapsed();
    let after = subject.usage()?;
    bar.finish_and_clear();
    let seen = workers.stop().await?;
    let idle = match config.idle {
        0 => None,
        sessions => Some(idle::measure(subject, sessions).await?),
    };
    submitter.close().await;
    let report = Report::new(config, info.attempts, wall, (before, after), submit, seen, idle);
    Ok((report, store))
}

impl Workers {
    async fn start(config: &DispatchConfig, subject: &Subject, answers: Answers) -> anyhow::Result<Self> {
        if config.run {
            let starting = (1..=config.workers).map(|number| subject.start_worker(number));
            return Ok(Self::Real(try_join_all(starting).await?));
        }
        let (answers, stop) = (Arc::new(answers), CancellationToken::new());
        let mut tasks = Vec::new();
        for _ in 0..config.workers {
            let session = Session::open(subject.ticket()).await?;
            tasks.push(tokio::spawn(session.work(answers.clone(), config.batch, stop.clone())));
        }
        Ok(Self::Synthetic { tasks, stop })
    }

    /// Stops them; what they saw, if they can tell.
    async fn stop(self) -> anyhow::Result<Option<Seen>> {
        match self {
            Self::Real(processes) => {
                for stopped in join_all(processes.into_iter().map(Process::stop)).await {
                    stopped?;
                }
                Ok(None)
            }
            Self::Synthetic { tasks, stop } => {
                stop.cancel();
                let mut all = Seen::default();
                for task in tasks {
                    let seen = task.await.context("a worker broke")??;
                    all.leases.extend(seen.leases);
                    all.reports.extend(seen.reports);
                    all.wire_bytes += seen.wire_bytes;
                }
                Ok(Some(all))
            }
        }
    }
}
