//! A worker that lies about every result: what a grid has to survive.
//!
//! ```sh
//! cargo run --release --example lying_worker -- TICKET DATA_DIR
//! ```
//!
//! It runs every task as an honest worker does and then changes what the program wrote. With a quorum of two
//! or more, no such result is accepted, and it never earns credit.

use std::{io, process::ExitCode};

use talka_core::{duty::CpuPercent, ledger::Names, outcome::Execution};
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
        anyhow::bail!("usage: lying_worker TICKET DATA_DIR");
    };
    let config = WorkerConfig {
        data_dir: data_dir.into(),
        ticket: ticket.parse()?,
        slots: Some(1),
        memory: None,
        cpu_percent: CpuPercent::ALL,
        bind: Some("127.0.0.1:0".parse()?),
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

/// Changes one bit of what the program wrote, or adds a byte if it wrote nothing.
fn lie(execution: &mut Execution) {
    match execution.output.stdout.first_mut() {
        Some(byte) => *byte ^= 1,
        None => execution.output.stdout.push(0),
    }
}

#[expect(clippy::print_stdout, reason = "an example has no other place to say something")]
fn say(line: &str) {
    println!("{line}");
}
