//! `talka relay …`.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, Subcommand, builder::FalseyValueParser};
use serde::Serialize;
use talka_core::{limits, quantities::Bytes};
use talka_peer::{
    relay::{Guests, RelayServer, RelayServerConfig},
    rpc::Tls,
};
use talka_worker::trust;

use crate::{error::Failure, output::Out, problems::Problems, shutdown};

/// Commands of a relay.
#[derive(Debug, Subcommand)]
pub(crate) enum RelayCommand {
    /// Carry the packets of peers that can't reach each other, until Ctrl-C.
    #[command(
        after_help = "Examples:\n  talka relay start --listen 192.168.1.2:3340 --token A-LONG-SECRET\n  \
        talka relay start --listen 0.0.0.0:443 --host relay.example.org \\\n    \
        --tls-cert chain.pem --tls-key key.pem\n\n\
        Prints the URL for: talka coordinator start --relay URL\n\
        Packets are encrypted from peer to peer: a relay sees who talks to whom and how much.\n\
        With a certificate it also helps peers behind routers to find a direct way (UDP port 7842).\n\
        With --json: one line {\"url\"} when it serves."
    )]
    Start(StartFlags),
}

/// `talka relay start`.
#[derive(Debug, Default, Args)]
pub(crate) struct StartFlags {
    /// Where to listen (TCP).
    #[arg(long, value_name = "ADDRESS", env = "TALKA_LISTEN", required = true)]
    listen: String,
    /// Name or address by which peers reach it [default: that of --listen].
    #[arg(long, value_name = "HOST", env = "TALKA_HOST")]
    host: Option<String>,
    /// Certificate chain (PEM), of an authority that peers know; without it the relay speaks plain HTTP.
    #[arg(long, value_name = "FILE", env = "TALKA_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key (PEM) of --tls-cert.
    #[arg(long, value_name = "FILE", env = "TALKA_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Carry only for who knows this word: it stands in the URL, and so in tickets [default: for everybody].
    #[arg(long, value_name = "WORD", env = "TALKA_TOKEN", hide_env_values = true, conflicts_with = "allow")]
    token: Option<String>,
    /// Carry only for these peers: their keys, separated by commas.
    #[arg(long, value_name = "KEYS", env = "TALKA_ALLOW")]
    allow: Option<String>,
    /// Most bytes per second to take from one peer [default: 4MiB].
    #[arg(long, value_name = "SIZE", env = "TALKA_RATE")]
    rate: Option<String>,
    /// Stop at the end of standard input, so that it never outlives the program that started it.
    #[arg(long, env = "TALKA_UNTIL_EOF", value_parser = FalseyValueParser::new())]
    until_eof: bool,
}

/// The line that says that a relay serves.
#[derive(Debug, Serialize)]
struct ReadyView {
    url: String,
}

impl RelayCommand {
    pub(crate) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let Self::Start(flags) = self;
        start(flags, out).await?;
        Ok(ExitCode::SUCCESS)
    }
}

impl TryFrom<StartFlags> for RelayServerConfig {
    type Error = Failure;

    fn try_from(flags: StartFlags) -> Result<Self, Failure> {
        let mut problems = Problems::default();
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let listen = problems.parsed("--listen", Some(&flags.listen), nowhere);
        let default = Bytes::new(limits::RELAY_RATE_DEFAULT);
        let rate = problems.parsed("--rate", flags.rate.as_deref(), default);
        let rate = u32::try_from(rate.get()).ok().filter(|rate| u64::from(*rate) >= limits::RATE_LIMIT_MIN);
        let bytes_per_second = rate.and_then(NonZeroU32::new).unwrap_or_else(|| {
            let least = Bytes::new(limits::RATE_LIMIT_MIN);
            problems.add(format!("--rate must be {least} to 4095MiB per second"));
            NonZeroU32::MIN
        });
        let guests = match (flags.token, flags.allow) {
            (Some(token), _) => Guests::Token(token),
            (None, Some(keys)) => Guests::Peers(trust::parse_keys(&keys).unwrap_or_else(|error| {
                problems.add(format!("--allow: {error}"));
                BTreeSet::new()
            })),
            (None, None) => Guests::Anybody,
        };
        let mut read = |flag: &str, path: &Path| {
            std::fs::read(path).unwrap_or_else(|error| {
                problems.add(format!("{flag}: can't read {}: {error}", path.display()));
                Vec::new()
            })
        };
        let tls = flags.tls_cert.zip(flags.tls_key).map(|(cert, key)| Tls {
            certificate_pem: read("--tls-cert", &cert),
            key_pem: read("--tls-key", &key),
        });
        problems.into_result(Self { listen, tls, host: flags.host, guests, bytes_per_second })
    }
}

async fn start(flags: StartFlags, out: Out) -> anyhow::Result<()> {
    let stop = shutdown::on_signals().context("cannot listen for signals")?;
    if flags.until_eof {
        shutdown::at_end_of_input(&stop);
    }
    let relay = RelayServer::start(flags.try_into()?).await?;
    let url = relay.url().to_string();
    let announced = if out.is_json() {
        out.json(&ReadyView { url })
    } else if out.is_quiet() {
        out.line(url)
    } else {
        out.line(format!(
            "the relay is ready\n\nuse it:  talka coordinator start --relay '{url}'\nstop:    Ctrl-C"
        ))
    };
    if announced.is_ok() {
        stop.cancelled().await;
    }
    relay.stop().await;
    announced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_named() {
        let flags = StartFlags {
            listen: "here".into(),
            rate: Some("1".into()),
            allow: Some("me".into()),
            tls_cert: Some("/nowhere/chain.pem".into()),
            tls_key: Some("/nowhere/key.pem".into()),
            ..StartFlags::default()
        };
        let message = RelayServerConfig::try_from(flags).expect_err("broken").to_string();
        for part in ["--listen here: ", "--rate must be", "--allow: ", "--tls-cert: ", "--tls-key: "] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
    }
}
