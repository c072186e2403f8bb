//! `talka bench`: what things cost on this machine.
//!
//! | module | subject |
//! |---|---|
//! | [`kernels`] | programs with much to do, natively and in the sandbox |
//! | [`empty`] | a program with nothing to do |
//! | [`pass`] | rewriting a large module |
//! | [`report`] | figures of the sandbox, as JSON and as a table, and their goals |
//! | [`mod@dispatch`] | handing out and taking back |
//! | [`mod@latency`] | one tiny task, from its submission to its result |
//! | [`mod@restart`] | a coordinator that starts with a full store |
//! | [`subject`] | the coordinator process that those three measure |
//! | [`submitter`] | who submits to it |
//! | [`quantiles`] | medians and tails |
//! | [`swarm`] | peers that fetch a blob from each other |

mod dispatch;
mod empty;
mod kernels;
mod latency;
mod pass;
mod quantiles;
mod report;
mod restart;
mod subject;
mod submitter;
pub(crate) mod swarm;

use std::{fmt::Display, process::ExitCode, time::Duration};

use anyhow::Context;
use talka_worker::sandbox::measure;

pub(crate) use self::{
    dispatch::{DispatchConfig, dispatch},
    latency::latency,
    restart::{RestartConfig, restart},
};
use self::{kernels::KERNELS, report::Report};
use crate::{output::Out, paths, progress};

/// How thoroughly the sandbox is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SandboxConfig {
    /// How often everything is measured. Noise only ever makes things slower, so the best counts.
    pub(crate) rounds: u32,
    /// Whether rough figures will do.
    pub(crate) quick: bool,
}

/// Measures the sandbox and prints what came out.
pub(crate) async fn sandbox(config: SandboxConfig, out: Out) -> anyhow::Result<ExitCode> {
    let exe = paths::own_executable().context("cannot find this program's own file")?;
    let bar = progress::steps_bar(out, KERNELS.len() as u64 * u64::from(config.rounds) + 3);
    let step = |what: &str| {
        bar.set_message(what.to_owned());
        bar.inc(1);
    };
    step("empty task, warm");
    let empty_warm = empty::warm(&exe, config).await.context("the empty task, warm")?;
    step("empty task, cold");
    let empty_cold = empty::cold(&exe, config).await.context("the empty task, cold")?;
    step("pass");
    // Programs need more stack than a thread usually has; nothing else is to be done until they end.
    let measured = tokio::task::block_in_place(|| {
        measure::on_thread(|| {
            let pass_secs_per_mb = pass::secs_per_mb(config).context("the pass")?;
            let kernels = KERNELS.iter().map(|kernel| kernel.measure(config, &step));
            anyhow::Ok((pass_secs_per_mb, kernels.collect::<anyhow::Result<Vec<_>>>()?))
        })
    });
    let (pass_secs_per_mb, kernels) = measured.context("cannot start a thread")??;
    bar.finish_and_clear();
    Report::new(config, empty_warm, empty_cold, kernels, pass_secs_per_mb).print(out)?;
    Ok(ExitCode::SUCCESS)
}

/// The shortest of `rounds` measurements.
fn best(rounds: u32, mut measure: impl FnMut() -> anyhow::Result<Duration>) -> anyhow::Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..rounds {
        best = best.min(measure()?);
    }
    Ok(best)
}

/// `value` with as many digits behind the point as mean something.
fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// A figure beside its goal.
fn verdict(figure: impl Display, goal: impl Display, reached: bool) -> String {
    let word = if reached { "reached" } else { "missed" };
    format!("{figure} (goal: {goal}, {word})")
}
