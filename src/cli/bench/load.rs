//! `talka bench dispatch`, `latency` and `restart`: a coordinator under load.

use clap::{Args, builder::FalseyValueParser};
use talka_core::limits;

use crate::{
    bench::{DispatchConfig, RestartConfig},
    error::Failure,
    problems::Problems,
};

const TASKS_DEFAULT: u64 = 1_000_000;
const BATCH_DEFAULT: usize = 64;
/// Workers that run nothing: more than one, so that their messages meet.
const WORKERS_DEFAULT: usize = 8;
/// Workers that run something: their slots and the coordinator share the machine.
const WORKERS_RUN_DEFAULT: usize = 2;
/// Most workers: each has a socket of its own.
const WORKERS_MAX: usize = 1000;
/// Sessions with nothing to do, likewise; there is a port for each.
const IDLE_MAX: usize = 20_000;
const COUNT_DEFAULT: usize = 200;
/// What a restart is to bear.
const OPEN_DEFAULT: u64 = 2_000_000;
/// A few gigabytes of memory.
const OPEN_MAX: u64 = 10_000_000;
/// A few minutes.
const COUNT_MAX: usize = 100_000;

/// `talka bench dispatch`.
#[derive(Debug, Default, Args)]
#[command(after_help = "Example:\n  talka bench dispatch --tasks 200000 --batch 32\n\n\
    Starts a coordinator as a process of its own, with a store in a temporary directory, and gives it\n\
    workers that speak the real protocol and run nothing: they answer each lease at once, with what\n\
    the empty program gives. With --run workers are real processes that do run it. Let the machine\n\
    do nothing else meanwhile.\n\n\
    With --json: {\"tasks\", \"attempts\", \"wall_secs\", \"tasks_per_sec\",\n\
    \"coordinator_cpu_us_per_attempt\", \"lease_ms\": {\"p50\", \"p99\"}, \"report_ms\": {\"p50\", \"p99\"},\n\
    \"wire_bytes_per_task\", \"disk_bytes_per_task\", \"rss_mib\"}; with --run, what only workers see\n\
    is null. --details adds \"details\": {\"submit_ms\", \"submit_rss_mib\"}, --idle adds \"idle\":\n\
    {\"sessions\", \"rss_kib_per_session\", \"cpu_percent\", \"open_secs\"}.\n\n\
    Exit code: 0 whether goals are reached or not; 1 when something fails.")]
pub(crate) struct DispatchFlags {
    /// Tasks of the job [default: 1000000].
    #[arg(long, value_name = "NUMBER", env = "TALKA_TASKS")]
    tasks: Option<String>,
    /// Reports in one message of a worker; real ones choose themselves [default: 64].
    #[arg(long, value_name = "NUMBER", env = "TALKA_BATCH")]
    batch: Option<String>,
    /// Workers [default: 8, with --run 2].
    #[arg(long, value_name = "NUMBER", env = "TALKA_WORKERS")]
    workers: Option<String>,
    /// Workers that must agree on each result [default: 1].
    #[arg(long, value_name = "NUMBER", env = "TALKA_QUORUM")]
    quorum: Option<String>,
    /// Real workers, which run the empty program for each task.
    #[arg(long, env = "TALKA_RUN", value_parser = FalseyValueParser::new())]
    run: bool,
    /// Afterwards open so many sessions and measure what they cost while nothing happens [default: 0].
    #[arg(long, value_name = "NUMBER", env = "TALKA_IDLE")]
    idle: Option<String>,
    /// Print under --json what the submission took, too.
    #[arg(long, env = "TALKA_DETAILS", value_parser = FalseyValueParser::new())]
    details: bool,
}

/// `talka bench latency`.
#[derive(Debug, Default, Args)]
#[command(after_help = "Example:\n  talka bench latency -n 1000\n\n\
    Starts a coordinator and a worker as processes of their own and submits jobs of one task, one\n\
    after the other, over one connection: from the submission to the validated result, durable\n\
    at each step. Let the machine do nothing else meanwhile.\n\n\
    With --json: {\"n\", \"p50_ms\", \"p99_ms\"}.\n\n\
    Exit code: 0 whether the goal is reached or not; 1 when something fails.")]
pub(crate) struct LatencyFlags {
    /// Jobs [default: 200].
    #[arg(long, short = 'n', value_name = "NUMBER", env = "TALKA_COUNT")]
    count: Option<String>,
}

/// `talka bench restart`.
#[derive(Debug, Default, Args)]
#[command(after_help = "Example:\n  talka bench restart --open 2000000\n\n\
    Writes a store in which so many attempts are open and starts a coordinator on it, as a process of\n\
    its own, three times: from the start of the process to its first answer, of which the slowest\n\
    counts. Let the machine do nothing else meanwhile.\n\n\
    With --json: {\"open\", \"secs\", \"rss_mib\"}.\n\n\
    Exit code: 0 whether the goal is reached or not; 1 when something fails.")]
pub(crate) struct RestartFlags {
    /// Open attempts [default: 2000000].
    #[arg(long, value_name = "NUMBER", env = "TALKA_OPEN")]
    open: Option<String>,
    /// Attempts in one lease [default: 512].
    #[arg(long, value_name = "NUMBER", env = "TALKA_PER_LEASE")]
    per_lease: Option<String>,
}

impl TryFrom<RestartFlags> for RestartConfig {
    type Error = Failure;

    fn try_from(flags: RestartFlags) -> Result<Self, Failure> {
        let mut problems = Problems::default();
        let config = Self {
            open: problems.parsed("--open", flags.open.as_deref(), OPEN_DEFAULT),
            per_lease: problems.parsed("--per-lease", flags.per_lease.as_deref(), limits::LEASE_ITEMS_MAX),
        };
        if !(1..=OPEN_MAX).contains(&config.open) {
            problems.add(format!("--open must be 1 to {OPEN_MAX}"));
        }
        if !(1..=limits::LEASE_ITEMS_MAX).contains(&config.per_lease) {
            problems.add(format!("--per-lease must be 1 to {}", limits::LEASE_ITEMS_MAX));
        }
        problems.into_result(config)
    }
}

impl TryFrom<DispatchFlags> for DispatchConfig {
    type Error = Failure;

    fn try_from(flags: DispatchFlags) -> Result<Self, Failure> {
        let mut problems = Problems::default();
        let workers = if flags.run { WORKERS_RUN_DEFAULT } else { WORKERS_DEFAULT };
        let config = Self {
            tasks: problems.parsed("--tasks", flags.tasks.as_deref(), TASKS_DEFAULT),
            batch: problems.parsed("--batch", flags.batch.as_deref(), BATCH_DEFAULT),
            workers: problems.parsed("--workers", flags.workers.as_deref(), workers),
            quorum: problems.parsed("--quorum", flags.quorum.as_deref(), 1),
            run: flags.run,
            idle: problems.parsed("--idle", flags.idle.as_deref(), 0),
            details: flags.details,
        };
        if !(1..=limits::JOB_TASKS_MAX).contains(&config.tasks) {
            problems.add(format!("--tasks must be 1 to {}", limits::JOB_TASKS_MAX));
        }
        if !(1..=limits::REPORTS_MAX).contains(&config.batch) {
            problems.add(format!("--batch must be 1 to {}", limits::REPORTS_MAX));
        }
        if !(1..=WORKERS_MAX).contains(&config.workers) {
            problems.add(format!("--workers must be 1 to {WORKERS_MAX}"));
        }
        if !(1..=config.workers).contains(&(config.quorum as usize)) {
            problems.add("--quorum must be 1 to the number of --workers: each has one vote on a task");
        }
        if config.idle > IDLE_MAX {
            problems.add(format!("--idle must be at most {IDLE_MAX}"));
        }
        problems.into_result(config)
    }
}

impl LatencyFlags {
    /// The number of jobs.
    pub(super) fn count(&self) -> Result<usize, Failure> {
        let mut problems = Problems::default();
        let count = problems.parsed("-n", self.count.as_deref(), COUNT_DEFAULT);
        if !(1..=COUNT_MAX).contains(&count) {
            problems.add(format!("-n must be 1 to {COUNT_MAX}"));
        }
        problems.into_result(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_workers_are_fewer_unless_it_is_said() {
        let config = |flags: DispatchFlags| DispatchConfig::try_from(flags).expect("valid");
        assert_eq!(config(DispatchFlags::default()).workers, WORKERS_DEFAULT);
        assert_eq!(config(DispatchFlags { run: true, ..DispatchFlags::default() }).workers, 2);
        let three = DispatchFlags { run: true, workers: Some("3".into()), ..DispatchFlags::default() };
        assert_eq!(config(three).workers, 3);
    }

    #[test]
    fn every_wrong_number_is_named() {
        let wrong = |text: &str| Some(text.to_owned());
        let flags = DispatchFlags {
            tasks: wrong("0"),
            batch: wrong("513"),
            workers: wrong("many"),
            quorum: wrong("99"),
            idle: wrong("20001"),
            ..DispatchFlags::default()
        };
        let error = DispatchConfig::try_from(flags).expect_err("refused").to_string();
        for flag in ["--tasks", "--batch", "--workers", "--quorum", "--idle"] {
            assert!(error.contains(flag), "{flag}: {error}");
        }
        for count in ["0", "100001", "x"] {
            let flags = LatencyFlags { count: wrong(count) };
            assert!(flags.count().expect_err("refused").to_string().contains("-n"), "{count}");
        }
        for open in ["0", "10000001", "x"] {
            let flags = RestartFlags { open: wrong(open), per_lease: wrong("513") };
            let error = RestartConfig::try_from(flags).expect_err("refused").to_string();
            assert!(error.contains("--open") && error.contains("--per-lease"), "{open}: {error}");
        }
        assert_eq!(LatencyFlags::default().count().expect("valid"), COUNT_DEFAULT);
    }
}
