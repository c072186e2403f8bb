//! A worker that lies: what a grid has to survive.
//!
//! ```sh
//! cargo run --release --example lying_worker -- TICKET DATA_DIR [HABIT]
//! ```
//!
//! It runs every task as an honest worker does and then changes what the program returned, as its habit says:
//!
//! | habit | what it does |
//! |---|---|
//! | `always` | lies about every result, as all of its kind do: they agree with one another |
//! | `turns:H:L` | is honest H times, then lies L times, and so on |
//! | `sometimes:P` | lies about P results in a hundred |
//! | `odd` | lies about every result in a way of its own |
//! | `inflate` | tells the truth about the result, and says that it took twice the fuel |
//! | `stale` | answers with its result before |

use std::{
    io,
    process::ExitCode,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context;
use talka_core::{duty::CpuPercent, ledger::Names, outcome::Execution, quantities::Fuel};
use talka_peer::endpoint::Relay;
use talka_worker::{Bandwidth, WorkerConfig, sandbox::child, trust::Trust};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    // Like the real program, this one is also what its own sandbox processes run.
    if let Some(code) = child::dispatch() {
        return code;
    }
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn work() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(ticket), Some(data_dir)) = (args.next(), args.next()) else {
        anyhow::bail!("usage: lying_worker TICKET DATA_DIR [HABIT]");
    };
    let habit = Habit::parse(args.next().as_deref().unwrap_or("always"))?;
    HABIT.get_or_init(|| habit);
    let config = WorkerConfig {
        data_dir: data_dir.into(),
        ticket: ticket.parse()?,
        slots: Some(1),
        memory: None,
        disk: talka_core::quantities::Bytes::mib(256),
        cpu_percent: CpuPercent::ALL,
        bind: Some("127.0.0.1:0".parse()?),
        relay: Relay::Disabled,
        private: false,
        trust: Trust::default(),
        names: Names::default(),
        bandwidth: Bandwidth::default(),
        executable: std::env::current_exe()?,
        tamper: Some(lie),
    };
    let stop = CancellationToken::new();
    let end = stop.clone();
    // Whoever started it holds the other end of its standard input.
    std::thread::spawn(move || {
        // An end by an error is an end as well.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        end.cancel();
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(talka_worker::run(config, stop, |peer| say(&format!(r#"{{"peer":"{peer}"}}"#))))?;
    Ok(())
}

/// When it lies, and how.
#[derive(Debug, Clone, Copy)]
enum Habit {
    Always,
    Turns { honest: u64, lies: u64 },
    Sometimes { percent: u64 },
    Odd,
    Inflate,
    Stale,
}

/// What a worker calls has no room for it.
static HABIT: OnceLock<Habit> = OnceLock::new();
static RESULTS: AtomicU64 = AtomicU64::new(0);
static BEFORE: Mutex<Vec<u8>> = Mutex::new(Vec::new());

impl Habit {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut words = text.split(':');
        let name = words.next().unwrap_or_default();
        let mut number = || -> anyhow::Result<u64> {
            words.next().with_context(|| format!("{text} needs a number"))?.parse().context("a number")
        };
        Ok(match name {
            "always" => Self::Always,
            "turns" => Self::Turns { honest: number()?, lies: number()? },
            "sometimes" => Self::Sometimes { percent: number()? },
            "odd" => Self::Odd,
            "inflate" => Self::Inflate,
            "stale" => Self::Stale,
            _ => anyhow::bail!("{text} is no habit"),
        })
    }
}

fn lie(execution: &mut Execution) {
    let count = RESULTS.fetch_add(1, Ordering::Relaxed);
    let stdout = &mut execution.output.stdout;
    match HABIT.get().copied().unwrap_or(Habit::Always) {
        Habit::Always => flip(stdout, 1),
        Habit::Turns { honest, lies } if count % (honest + lies) >= honest => flip(stdout, 1),
        // Spread without a pattern that a round number of tasks could hide.
        Habit::Sometimes { percent }
            if count.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & 0xffff < percent * 655 =>
        {
            flip(stdout, 1);
        }
        Habit::Odd => stdout.extend(std::process::id().to_le_bytes()),
        Habit::Inflate => execution.fuel = Fuel::new(execution.fuel.get().saturating_mul(2)),
        Habit::Stale => {
            let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut *before, stdout);
        }
        Habit::Turns { .. } | Habit::Sometimes { .. } => {}
    }
}

/// Changes one bit of what the program wrote, or adds a byte if it wrote nothing.
fn flip(stdout: &mut Vec<u8>, bit: u8) {
    match stdout.first_mut() {
        Some(byte) => *byte ^= bit,
        None => stdout.push(0),
    }
}

#[expect(clippy::print_stdout, reason = "an example has no other place to say something")]
fn say(line: &str) {
    println!("{line}");
}
