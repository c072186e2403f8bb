//! `talka bench`.

mod load;

use std::process::ExitCode;

use clap::{Args, Subcommand, builder::FalseyValueParser};

use self::load::{DispatchFlags, LatencyFlags, RestartFlags};
use crate::{
    bench::{
        self, SandboxConfig,
        swarm::{SwarmConfig, SwarmPeerConfig},
    },
    error::Failure,
    output::Out,
    problems::Problems,
};

/// Rounds when the user does not say how many: enough that a machine with something else to do has a quiet moment in one.
const ROUNDS_DEFAULT: u32 = 5;
/// The same with `--quick`.
const ROUNDS_QUICK: u32 = 2;
/// Most rounds: half an hour and more.
const ROUNDS_MAX: u32 = 100;

/// Commands that measure.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Compare the sandbox with bare metal.
    Sandbox(SandboxFlags),
    /// Let peers fetch a blob from each other.
    Swarm(SwarmFlags),
    /// One peer of `talka bench swarm`.
    #[command(hide = true)]
    SwarmPeer(SwarmPeerFlags),
    /// Find out how many tasks a coordinator hands out, and what each costs it.
    Dispatch(DispatchFlags),
    /// Find out how long one tiny task takes, from its submission to its result.
    Latency(LatencyFlags),
    /// Find out how long a coordinator takes to start when much is open.
    Restart(RestartFlags),
}

/// `talka bench swarm`.
#[derive(Debug, Default, Args)]
#[command(after_help = "Example:\n  talka bench swarm --peers 8 --mib 128 --uplink 8\n\n\
    Starts a source and as many peers as asked for, real processes on loopback, and lets all of them\n\
    fetch one blob without pattern. Shows how often the source had to send it, how long the last peer\n\
    took, and the shortest time that any way of spreading it could take with such uplinks.\n\n\
    With --poisoners it does so twice, the second time with a share of the peers claiming to have\n\
    everything and sending bytes that belong to nothing, and shows how much longer the others took,\n\
    who was banned, and how many wrong bytes were kept. Those peers fetch as well, as the same ones do in the clean run.\n\n\
    With --json: {\"peers\", \"mib\", \"uplink_mb_s\", \"downlink_mb_s\", \"seed_upload_ratio\", \"wall_secs\",\n\
    \"fluid_bound_secs\", \"cpu_secs\", \"seed_only\"}; null where no cap was set. With --poisoners also\n\
    \"poisoned\": {\"poisoners\", \"fetchers\", \"poisoners_fetched_bytes\", \"wall_secs\", \"times_clean\", \"seed_upload_ratio\", \"wrong_bytes\",\n\
    \"poisoners_banned\", \"honest_banned\", \"cpu_secs\"}, where bans are those of all peers together.")]
pub(crate) struct SwarmFlags {
    /// Peers that fetch [default: 4].
    #[arg(long, value_name = "NUMBER", env = "TALKA_PEERS")]
    peers: Option<String>,
    /// Size of the blob in MiB [default: 64].
    #[arg(long, value_name = "NUMBER", env = "TALKA_MIB")]
    mib: Option<String>,
    /// What each of them, the source included, can send, in MB (10^6 bytes) per second [default: no limit].
    #[arg(long, value_name = "NUMBER", env = "TALKA_UPLINK")]
    uplink: Option<String>,
    /// What each of them can take, likewise [default: no limit].
    #[arg(long, value_name = "NUMBER", env = "TALKA_DOWNLINK")]
    downlink: Option<String>,
    /// Peers fetch from the source alone, for comparison.
    #[arg(long, env = "TALKA_SEED_ONLY", value_parser = FalseyValueParser::new())]
    seed_only: bool,
    /// Once more with this share of the peers sending wrong bytes, as `30%`.
    #[arg(long, value_name = "PERCENT", env = "TALKA_POISONERS")]
    poisoners: Option<String>,
}

/// `talka bench swarm-peer`: told what to do by lines on standard input.
#[derive(Debug, Default, Args)]
pub(crate) struct SwarmPeerFlags {
    /// Most bytes per second to send.
    #[arg(long, value_name = "SIZE", env = "TALKA_UPLOAD_LIMIT")]
    upload_limit: Option<String>,
    /// Most bytes per second to take.
    #[arg(long, value_name = "SIZE", env = "TALKA_DOWNLOAD_LIMIT")]
    download_limit: Option<String>,
    /// Size of a blob to make and to serve.
    #[arg(long, value_name = "SIZE", env = "TALKA_SEED_BLOB")]
    seed_blob: Option<String>,
    /// Sends wrong bytes, of a blob of this size.
    #[arg(long, value_name = "SIZE", env = "TALKA_POISON")]
    poison: Option<String>,
}

impl TryFrom<SwarmFlags> for SwarmConfig {
    type Error = Failure;

    fn try_from(flags: SwarmFlags) -> Result<Self, Failure> {
        /// Processes on one machine.
        const PEERS_MAX: u32 = 64;
        /// Each peer keeps a copy on the disk of this machine.
        const MIB_MAX: u64 = 4096;
        /// As for an owner's limit.
        const UPLINK_MIN: f64 = 0.1;
        let mut problems = Problems::default();
        let peers: u32 = problems.parsed("--peers", flags.peers.as_deref(), 4);
        if !(1..=PEERS_MAX).contains(&peers) {
            problems.add(format!("--peers must be 1 to {PEERS_MAX}"));
        }
        let mib: u64 = problems.parsed("--mib", flags.mib.as_deref(), 64);
        if !(1..=MIB_MAX).contains(&mib) {
            problems.add(format!("--mib must be 1 to {MIB_MAX}"));
        }
        let uplink_mb_s: Option<f64> = problems.optional("--uplink", flags.uplink.as_deref());
        if uplink_mb_s.is_some_and(|uplink| !(UPLINK_MIN..=1e5).contains(&uplink)) {
            problems.add(format!("--uplink must be {UPLINK_MIN} to 100000 MB/s"));
        }
        let downlink_mb_s: Option<f64> = problems.optional("--downlink", flags.downlink.as_deref());
        if downlink_mb_s.is_some_and(|downlink| !(UPLINK_MIN..=1e5).contains(&downlink)) {
            problems.add(format!("--downlink must be {UPLINK_MIN} to 100000 MB/s"));
        }
        let poisoners = flags.poisoners.as_deref().and_then(|text| {
            let percent = text.trim().trim_end_matches('%').parse::<u32>().ok();
            let some = percent.map(|percent| (peers.saturating_mul(percent) + 50) / 100);
            // Somebody has to be left who fetches.
            let some = some.filter(|poisoners| (1..peers).contains(poisoners));
            if some.is_none() {
                problems.add(format!(
                    "--poisoners {text}: write a share as 30%, so that it is some peers and not all"
                ));
            }
            some
        });
        problems.into_result(Self {
            peers,
            mib,
            uplink_mb_s,
            downlink_mb_s,
            seed_only: flags.seed_only,
            poisoners,
        })
    }
}

impl TryFrom<SwarmPeerFlags> for SwarmPeerConfig {
    type Error = Failure;

    fn try_from(flags: SwarmPeerFlags) -> Result<Self, Failure> {
        let mut problems = Problems::default();
        let upload = problems.rate("--upload-limit", flags.upload_limit.as_deref());
        let seed_blob = problems.optional("--seed-blob", flags.seed_blob.as_deref());
        let download = problems.rate("--download-limit", flags.download_limit.as_deref());
        let poison = problems.optional("--poison", flags.poison.as_deref());
        problems.into_result(Self { upload, download, seed_blob, poison })
    }
}

/// `talka bench sandbox`.
#[derive(Debug, Default, Args)]
#[command(after_help = "Example:\n  talka bench sandbox --rounds 10\n\n\
    Runs five kernels natively and in the sandbox, from the same source, and shows how many\n\
    times as long each takes: unmetered, with the engine's fuel, counted by the project's own\n\
    pass, and counted with NaNs settled, which is what tasks get. Times are CPU seconds, the\n\
    best of all rounds, without compiling. Also: what an empty task costs, in a warm executor\n\
    and from nothing, and how long the pass takes. Let the machine do nothing else meanwhile.\n\n\
    With --json: {\"empty_warm_us\", \"empty_cold_us\", \"kernels\": [{\"name\", \"native_secs\",\n\
    \"unmetered\", \"engine_fuel\", \"counted\", \"counted_nan\"}], \"geomean\": {…},\n\
    \"pass_secs_per_mb\", \"rounds\", \"quick\"}.\n\n\
    Exit code: 0 whether goals are reached or not; 1 when something fails or outputs differ.")]
pub(crate) struct SandboxFlags {
    /// Smaller sizes and fewer rounds: seconds and rough figures.
    #[arg(long, env = "TALKA_QUICK", value_parser = FalseyValueParser::new())]
    quick: bool,
    /// How often everything is measured; the best counts [default: 5, with --quick 2].
    #[arg(long, value_name = "NUMBER", env = "TALKA_ROUNDS")]
    rounds: Option<String>,
}

impl TryFrom<SandboxFlags> for SandboxConfig {
    type Error = Failure;

    fn try_from(flags: SandboxFlags) -> Result<Self, Failure> {
        let mut problems = Problems::default();
        let default = if flags.quick { ROUNDS_QUICK } else { ROUNDS_DEFAULT };
        let rounds = problems.parsed("--rounds", flags.rounds.as_deref(), default);
        if !(1..=ROUNDS_MAX).contains(&rounds) {
            problems.add(format!("--rounds must be 1 to {ROUNDS_MAX}"));
        }
        problems.into_result(Self { rounds, quick: flags.quick })
    }
}

impl BenchCommand {
    pub(crate) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        match self {
            Self::Sandbox(flags) => bench::sandbox(flags.try_into()?, out).await,
            Self::Swarm(flags) => bench::swarm::run(flags.try_into()?, out).await,
            Self::SwarmPeer(flags) => bench::swarm::peer(flags.try_into()?, out).await,
            Self::Dispatch(flags) => bench::dispatch(flags.try_into()?, out).await,
            Self::Latency(flags) => bench::latency(flags.count()?, out).await,
            Self::Restart(flags) => bench::restart(flags.open()?, out).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swarm_has_bounds() {
        let config = |peers: &str, mib: &str, uplink: Option<&str>| {
            SwarmConfig::try_from(SwarmFlags {
                peers: Some(peers.into()),
                mib: Some(mib.into()),
                uplink: uplink.map(Into::into),
                downlink: uplink.map(Into::into),
                ..SwarmFlags::default()
            })
        };
        let poisoned = |peers: &str, poisoners: &str| {
            SwarmConfig::try_from(SwarmFlags {
                peers: Some(peers.into()),
                poisoners: Some(poisoners.into()),
                ..SwarmFlags::default()
            })
        };
        assert_eq!(poisoned("20", "30%").expect("valid").poisoners, Some(6));
        assert_eq!(poisoned("5", "10").expect("valid").poisoners, Some(1), "half a peer is one");
        for (peers, share) in [("20", "0%"), ("20", "100%"), ("1", "50%"), ("20", "many"), ("20", "-1%")] {
            let error = poisoned(peers, share).expect_err("refused").to_string();
            assert!(error.contains("--poisoners"), "{error}");
        }
        assert_eq!(config("8", "16", Some("2.5")).expect("valid").uplink_mb_s, Some(2.5));
        let error = config("0", "99999", Some("nan")).expect_err("refused").to_string();
        for flag in ["--peers must", "--mib must", "--uplink must", "--downlink must"] {
            assert!(error.contains(flag), "{error}");
        }
    }

    #[test]
    fn rounds_are_few_and_at_least_one() {
        let config = |quick, rounds: Option<&str>| {
            SandboxConfig::try_from(SandboxFlags { quick, rounds: rounds.map(Into::into) })
        };
        assert_eq!(config(false, None).expect("valid").rounds, 5);
        assert_eq!(config(true, None).expect("valid").rounds, 2);
        assert_eq!(config(true, Some("7")).expect("valid").rounds, 7);
        for wrong in ["0", "101", "-1", "many"] {
            let error = config(false, Some(wrong)).expect_err("refused").to_string();
            assert!(error.contains("--rounds"), "{error}");
        }
    }
}
