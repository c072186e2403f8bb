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
//! | `while:FILE` | lies about every result as long as there is FILE |
//! | `sometimes:P` | lies about P results in a hundred |
//! | `odd` | lies about every result in a way of its own |
//! | `inflate` | tells the truth about the result, and says that it took twice the fuel |
//! | `stale` | answers with its result before |
//! | `ring:DIR` | says what another one of its ring said on the same task, which they tell one another in `DIR`, or makes up a lie |
//! | `vanishes:N` | is gone for good when it has N results and the next task, without a word |
//! | `late:N:FILE` | stands still when it has N results and the next one is due, until there is FILE, and then goes on |
//! | `flaps:N` | loses its connection, and all that it holds, after each N results, and comes back |

use std::{
    fs,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
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
    let text = args.next().unwrap_or_else(|| "always".into());
    let habit = Habit::parse(&text)?;
    HABIT.get_or_init(|| habit);
    if let Some(path) = text.strip_prefix("ring:").or_else(|| text.strip_prefix("while:")) {
        PLACE.get_or_init(|| path.into());
    }
    if let Some((_, file)) = text.strip_prefix("late:").and_then(|rest| rest.split_once(':')) {
        PLACE.get_or_init(|| file.into());
    }
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
    // All of one that is late stands still, its connection as well.
    let threads = if matches!(habit, Habit::Late { .. }) { 1 } else { 2 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(talka_worker::run(config, stop, |peer| say(&format!(r#"{{"peer":"{peer}"}}"#))))?;
    Ok(())
}

/// When it lies, and how.
#[derive(Debug, Clone, Copy)]
enum Habit {
    Always,
    Turns { honest: u64, lies: u64 },
    While,
    Sometimes { percent: u64 },
    Odd,
    Inflate,
    Stale,
    Ring,
    Vanishes { after: u64 },
    Flaps { after: u64 },
    Late { after: u64 },
}

/// What a worker calls has no room for it.
static HABIT: OnceLock<Habit> = OnceLock::new();
static RESULTS: AtomicU64 = AtomicU64::new(0);
/// Where those of a ring tell one another what they said; the file that others look for.
static PLACE: OnceLock<PathBuf> = OnceLock::new();
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
            "while" => Self::While,
            "sometimes" => Self::Sometimes { percent: number()? },
            "odd" => Self::Odd,
            "inflate" => Self::Inflate,
            "stale" => Self::Stale,
            "ring" => Self::Ring,
            "vanishes" => Self::Vanishes { after: number()? },
            "flaps" => Self::Flaps { after: number()? },
            "late" => Self::Late { after: number()? },
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
        Habit::While if PLACE.get().is_some_and(|file| file.exists()) => flip(stdout, 1),
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
        Habit::Ring => conspire(stdout),
        Habit::Vanishes { after } if count >= after => std::process::exit(0),
        Habit::Flaps { after } if (count + 1).is_multiple_of(after) => break_off(),
        Habit::Late { after } if count == after => stand_still(),
        Habit::Turns { .. }
        | Habit::While
        | Habit::Sometimes { .. }
        | Habit::Vanishes { .. }
        | Habit::Flaps { .. }
        | Habit::Late { .. } => {}
    }
}

/// Says what an accomplice said on the same task, which is known by its right result; or something new, and tells it.
fn conspire(stdout: &mut Vec<u8>) {
    let Some(ring) = PLACE.get() else { return };
    let task = ring.join(blake3::hash(stdout).to_hex().as_str());
    let lie = format!("lie of {}", std::process::id());
    // Whoever is first makes the file; all others read it.
    match fs::OpenOptions::new().write(true).create_new(true).open(&task) {
        Ok(mut file) => {
            stdout.splice(.., lie.into_bytes());
            // An accomplice that reads too early says something else, and that is its own fault.
            drop(file.write_all(stdout));
        }
        Err(_) => *stdout = fs::read(&task).unwrap_or_default(),
    }
}

/// Does nothing until somebody makes a file.
fn stand_still() {
    let Some(file) = PLACE.get() else { return };
    while !file.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ends without a word and begins anew, as another process with the same key.
fn break_off() {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    // Only an error comes back from here.
    let error = std::process::Command::new(program).args(args).exec();
    say(&format!("cannot begin anew: {error}"));
    std::process::exit(1);
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
