//! `talka doctor`: what is wrong with this machine's setup, and what to do about it.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;
use talka_core::{job::CLOCK_SECS_DEFAULT, quantities::Bytes};
use talka_peer::{
    endpoint::{EndpointConfig, PeerEndpoint},
    identity::Identity,
};
use talka_proto::wire;
use talka_worker::sandbox::{
    CacheUsage, cache_usage,
    walls::{self, Wall, WallState},
};

use super::CoordinatorFlags;
use crate::{
    client::{self, Client},
    output::Out,
    paths,
    registry::{self, Entry},
};

/// Free disk below which a volunteer should not be asked to keep blobs.
const FREE_DISK_WANTED: Bytes = Bytes::mib(1024);
/// What this program was built from.
const LOCK_FILE: &str = include_str!("../../Cargo.lock");
/// The oldest engine that is fit for programs of strangers: older ones have holes that are known.
const ENGINE_FLOOR: [u32; 3] = [48, 0, 8];
/// How long a coordinator may take to answer before it counts as not answering.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// `talka doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  talka doctor\n\nExit code: 0 when nothing has failed, 1 otherwise.")]
pub(crate) struct DoctorFlags {
    /// The data directory to look at [default: ~/.local/share/talka].
    #[arg(long, value_name = "DIR", env = "TALKA_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

/// What came of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    detail: String,
}

#[derive(Debug, Serialize)]
struct DoctorView {
    ok: bool,
    checks: Vec<Check>,
}

impl DoctorFlags {
    pub(crate) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let checks = self.checks().await?;
        let ok = checks.iter().all(|check| check.status != Status::Fail);
        if out.is_json() {
            out.json(&DoctorView { ok, checks })?;
        } else if out.is_quiet() {
            let failed = checks.iter().filter(|check| check.status == Status::Fail);
            failed.into_iter().try_for_each(|check| out.line(check.name))?;
        } else {
            let row = |check: Check| [check.name.to_owned(), word(check.status).to_owned(), check.detail];
            out.table(["check", "state", "about"], checks.into_iter().map(row))?;
        }
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn checks(&self) -> anyhow::Result<Vec<Check>> {
        let data_dir = self.data_dir.clone().map_or_else(paths::data_home, Ok)?;
        let mut checks = vec![writable(&data_dir), disk(&data_dir)];
        checks.extend(keys(&data_dir));
        checks.push(clock(client::now_millis()));
        checks.push(endpoint().await);
        checks.push(engine(LOCK_FILE));
        checks.extend(sandbox().await);
        checks.extend(compiled(&data_dir, paths::cache_home().as_deref()));
        checks.extend(coordinators().await);
        Ok(checks)
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Warn => "warn",
        Status::Fail => "fail",
    }
}

fn check(name: &'static str, status: Status, detail: impl Into<String>) -> Check {
    Check { name, status, detail: detail.into() }
}

/// Whether files can be made, by making one.
fn writable(dir: &Path) -> Check {
    let tried = paths::create_private(dir).and_then(|()| tempfile::tempfile_in(dir));
    match tried {
        Ok(_) => check("data", Status::Ok, format!("{} is writable", dir.display())),
        Err(error) => {
            let remedy = "mend its permissions or give --data-dir";
            check("data", Status::Fail, format!("{} can't be written: {error}; {remedy}", dir.display()))
        }
    }
}

fn disk(dir: &Path) -> Check {
    match rustix::fs::statvfs(dir) {
        Ok(stat) => {
            let free = Bytes::new(stat.f_bavail.saturating_mul(stat.f_frsize));
            let enough = free >= FREE_DISK_WANTED;
            let remedy = if enough { "" } else { "; jobs' data may not fit, free some" };
            let status = if enough { Status::Ok } else { Status::Warn };
            check("disk", status, format!("{free} free{remedy}"))
        }
        Err(error) => check("disk", Status::Warn, format!("free space is not known: {error}")),
    }
}

/// The keys that exist; those that don't are made at first use.
fn keys(data_dir: &Path) -> Vec<Check> {
    let dirs = ["", "coordinator", "worker", "submitter"].map(|role| data_dir.join(role));
    let existing = dirs.into_iter().filter(|dir| dir.join("key").exists());
    let checks: Vec<Check> = existing
        .map(|dir| match Identity::load_or_create(&dir) {
            Ok(identity) => {
                check("key", Status::Ok, format!("{} in {}", identity.peer_id().short(), dir.display()))
            }
            Err(error) => check("key", Status::Fail, format!("{:#}", anyhow::Error::from(error))),
        })
        .collect();
    if checks.is_empty() {
        return vec![check("key", Status::Ok, "none yet; one is made at first use")];
    }
    checks
}

/// Deadlines and leases need a clock that is roughly right.
fn clock(now_millis: u64) -> Check {
    let now = crate::format::iso8601(now_millis);
    if now_millis / 1000 < CLOCK_SECS_DEFAULT {
        return check("clock", Status::Fail, format!("{now} is in the past; set the clock"));
    }
    check("clock", Status::Ok, now)
}

async fn endpoint() -> Check {
    match PeerEndpoint::bind(EndpointConfig::new(Identity::ephemeral()).on_loopback()).await {
        Ok(endpoint) => {
            let bound = endpoint.bound().first().map(ToString::to_string).unwrap_or_default();
            endpoint.close().await;
            check("network", Status::Ok, format!("UDP socket on {bound}"))
        }
        Err(error) => check("network", Status::Fail, format!("{:#}", anyhow::Error::from(error))),
    }
}

/// The version of the WebAssembly engine.
fn engine(lock_file: &str) -> Check {
    let [major, minor, patch] = ENGINE_FLOOR;
    let found = lock_file.split("\n\n").find_map(|package| {
        let version = package.trim_start_matches("[[package]]\n").strip_prefix("name = \"wasmtime\"\n")?;
        version.lines().next()?.strip_prefix("version = \"")?.strip_suffix('"')
    });
    let Some(version) = found else {
        return check("engine", Status::Warn, "the version of wasmtime is not known");
    };
    let numbers: Vec<u32> = version.split('.').map_while(|number| number.parse().ok()).collect();
    if numbers[..] < ENGINE_FLOOR[..] {
        let detail =
            format!("wasmtime {version} has known holes; use a talka with {major}.{minor}.{patch} or later");
        return check("engine", Status::Fail, detail);
    }
    check("engine", Status::Ok, format!("wasmtime {version}"))
}

/// The walls around an executor process, by raising them.
async fn sandbox() -> Vec<Check> {
    let inspected = match paths::own_executable() {
        Ok(executable) => walls::inspect(&executable).await,
        Err(error) => Err(error),
    };
    match inspected {
        Ok(walls) => walls.iter().map(|(wall, state)| wall_check(wall, state)).collect(),
        Err(error) => {
            let remedy = "tasks can't run on this machine";
            vec![check(
                "sandbox",
                Status::Fail,
                format!("an executor process does not start: {error}; {remedy}"),
            )]
        }
    }
}

/// A missing wall is no failure: the first one, the engine, still stands. Without the two that the kernel
/// enforces against a program that broke out, an owner should know.
fn wall_check(wall: Wall, state: &WallState) -> Check {
    match state {
        WallState::Active => check("sandbox", Status::Ok, wall.to_string()),
        WallState::Partial => {
            check("sandbox", Status::Ok, format!("{wall}: in part; a newer kernel has all of it"))
        }
        WallState::Missing(reason) => check("sandbox", Status::Warn, format!("{wall}: missing: {reason}")),
    }
}

/// The compiled modules that workers and `talka run` keep.
fn compiled(data_dir: &Path, cache_home: Option<&Path>) -> Vec<Check> {
    let dirs = [Some(data_dir.to_owned()), Some(data_dir.join("worker")), cache_home.map(Path::to_owned)];
    let checks: Vec<Check> = dirs
        .into_iter()
        .flatten()
        .filter_map(|dir| match cache_usage(&dir) {
            Ok(usage) => usage.map(|CacheUsage { dir, modules, size, max }| {
                let detail = format!("{}: {size} of at most {max}, modules: {modules}", dir.display());
                check("compiled", Status::Ok, detail)
            }),
            Err(error) => {
                let remedy = "modules are compiled again and again; mend its permissions or remove it";
                let detail = format!("the cache in {} can't be read: {error}; {remedy}", dir.display());
                Some(check("compiled", Status::Warn, detail))
            }
        })
        .collect();
    if checks.is_empty() {
        return vec![check("compiled", Status::Ok, "no modules yet; they are kept from the first run on")];
    }
    checks
}

/// Each coordinator that runs here, and whether it answers.
async fn coordinators() -> Vec<Check> {
    let entries = registry::dir().map(|dir| registry::running(&dir)).unwrap_or_default();
    if entries.is_empty() {
        return vec![check("coordinator", Status::Ok, "none runs here; commands need a ticket")];
    }
    let mut checks = Vec::with_capacity(entries.len());
    for entry in entries {
        checks.push(coordinator(entry).await);
    }
    checks
}

async fn coordinator(entry: Entry) -> Check {
    let what = format!("process {}, {}", entry.pid, entry.data_dir.display());
    let flags =
        CoordinatorFlags { ticket: Some(entry.ticket), data_dir: None, ..CoordinatorFlags::default() };
    let started = Instant::now();
    match tokio::time::timeout(ANSWER_MAX, ask(&flags)).await {
        Ok(Ok(())) => {
            let millis = started.elapsed().as_millis();
            check("coordinator", Status::Ok, format!("{what}: answers in {millis} ms"))
        }
        Ok(Err(error)) => check("coordinator", Status::Fail, format!("{what}: {error:#}")),
        Err(_) => {
            let secs = ANSWER_MAX.as_secs();
            check("coordinator", Status::Fail, format!("{what}: no answer within {secs} s"))
        }
    }
}

/// Connects and asks a question that everybody may ask.
async fn ask(flags: &CoordinatorFlags) -> anyhow::Result<()> {
    let client = Client::connect(flags).await?;
    let answer = client::unary(client.peers().list(wire::ListPeersRequest {})).await;
    client.close().await;
    Ok(answer.map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_in_the_past_is_noticed() {
        assert_eq!(clock(0).status, Status::Fail);
        assert_eq!(clock((CLOCK_SECS_DEFAULT + 1) * 1000).status, Status::Ok);
    }

    #[test]
    fn this_program_has_an_engine_without_known_holes() {
        assert_eq!(engine(LOCK_FILE).status, Status::Ok, "{:?}", engine(LOCK_FILE));
        let lock = |version: &str| {
            format!(
                "version = 4\n\n[[package]]\nname = \"wasmtime\"\nversion = \"{version}\"\nsource = \"x\"\n"
            )
        };
        assert_eq!(engine(&lock("48.0.7")).status, Status::Fail);
        assert_eq!(engine(&lock("48.0.10")).status, Status::Ok);
        assert_eq!(engine(&lock("49.0.0")).status, Status::Ok);
        assert_eq!(engine("").status, Status::Warn);
    }

    #[test]
    fn a_damaged_key_is_noticed_and_a_missing_one_is_not_made() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(keys(dir.path())[0].status, Status::Ok);
        assert!(!dir.path().join("key").exists());
        std::fs::create_dir(dir.path().join("worker")).expect("made");
        std::fs::write(dir.path().join("worker/key"), "no key").expect("written");
        let checks = keys(dir.path());
        assert_eq!((checks.len(), checks[0].status), (1, Status::Fail));
    }

    #[test]
    fn the_caches_of_compiled_modules_are_told_with_their_bound() {
        let home = tempfile::tempdir().expect("a directory");
        let (data, cache) = (home.path().join("data"), home.path().join("cache"));
        let told = || compiled(&data, Some(&cache));
        assert_eq!((told().len(), told()[0].status), (1, Status::Ok));
        assert!(!data.exists() && !cache.exists(), "nothing is made by looking");
        let name = "0123456789abcdef".repeat(4);
        for dir in [data.join("worker/compiled"), cache.join("compiled")] {
            std::fs::create_dir_all(&dir).expect("made");
            std::fs::write(dir.join(&name), [0; 1024]).expect("written");
        }
        let expected =
            format!("{}: 1 KiB of at most 1 GiB, modules: 1", data.join("worker/compiled").display());
        assert_eq!(told()[0], check("compiled", Status::Ok, expected));
        assert_eq!(told().len(), 2);
        std::fs::remove_dir_all(cache.join("compiled")).expect("removed");
        std::fs::write(cache.join("compiled"), "no directory").expect("written");
        assert_eq!(told()[1].status, Status::Warn);
    }

    #[test]
    fn a_directory_that_can_not_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let check = writable(&file.path().join("below"));
        assert_eq!(check.status, Status::Fail);
        assert!(check.detail.contains("--data-dir"), "{}", check.detail);
    }
}
