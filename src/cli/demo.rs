//! `talka demo`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, builder::FalseyValueParser};

use crate::{
    demo::{self, DemoConfig, QUORUM, WORKERS_MAX},
    error::Failure,
    output::Out,
    problems::Problems,
};

/// Workers when the user does not say how many: the least at which not everybody computes everything.
const WORKERS_DEFAULT: usize = 3;
/// Where the picture goes when the user does not say.
const PICTURE_DEFAULT: &str = "talka-demo.png";

/// `talka demo`.
#[derive(Debug, Default, Args)]
#[command(after_help = "Example:\n  talka demo --workers 4 --output picture.png\n\n\
    Starts a coordinator and workers as processes of their own in a temporary directory, lets them render a\n\
    picture and count words, and stops them. Nothing is left but the picture.\n\
    With --json: one object with tasks, done, attempts, credit_total, bytes_from_coordinator, bytes_from_peers,\n\
    wall_secs, picture and more.")]
pub(crate) struct DemoFlags {
    /// Workers to start [default: 3].
    #[arg(long, value_name = "NUMBER", env = "TALKA_WORKERS")]
    workers: Option<String>,
    /// Where to write the picture [default: talka-demo.png].
    #[arg(long, short, value_name = "FILE", env = "TALKA_OUTPUT")]
    output: Option<PathBuf>,
    /// Keep the grid's directory: keys, databases, blobs, logs, results.
    #[arg(long, env = "TALKA_KEEP", value_parser = FalseyValueParser::new())]
    keep: bool,
}

impl TryFrom<DemoFlags> for DemoConfig {
    type Error = Failure;

    fn try_from(flags: DemoFlags) -> Result<Self, Failure> {
        let mut problems = Problems::default();
        let workers = problems.parsed("--workers", flags.workers.as_deref(), WORKERS_DEFAULT);
        if !(QUORUM as usize..=WORKERS_MAX).contains(&workers) {
            problems.add(format!(
                "--workers must be {QUORUM} to {WORKERS_MAX}: each task is computed by {QUORUM} of them"
            ));
        }
        let picture = flags.output.unwrap_or_else(|| PICTURE_DEFAULT.into());
        problems.into_result(Self { workers, picture, keep: flags.keep })
    }
}

impl DemoFlags {
    pub(crate) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        demo::run(&self.try_into()?, out).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_workers_than_must_agree_are_refused() {
        let config = |workers: &str| {
            DemoConfig::try_from(DemoFlags { workers: Some(workers.into()), ..DemoFlags::default() })
        };
        assert_eq!(config("2").expect("valid").workers, 2);
        for wrong in ["1", "17", "many"] {
            assert!(config(wrong).expect_err("refused").to_string().contains("--workers"), "{wrong}");
        }
    }
}
