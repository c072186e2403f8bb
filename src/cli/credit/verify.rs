//! `talka credit verify`.

use std::{
    collections::BTreeSet,
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use talka_core::{
    ids::PeerId,
    ledger::{Head, PeerTotals},
};

use crate::{
    format::iso8601,
    ledger_file::{FileProblem, Import},
    output::{Out, printable},
};

/// `talka credit verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyFlags {
    /// An exported ledger.
    #[arg(value_name = "LEDGER")]
    ledger: PathBuf,
    /// An older export: the ledger must begin with all of it.
    #[arg(long, value_name = "OLD", env = "TALKA_SINCE")]
    since: Option<PathBuf>,
    /// The key of the coordinator that must have signed, as its ticket and `credit export` name it. Several, separated
    /// by commas, when it changed [default: whoever signed, the same for both files].
    #[arg(long, value_name = "KEYS", value_delimiter = ',', env = "TALKA_KEY")]
    key: Vec<PeerId>,
}

#[derive(Debug, Serialize)]
struct VerifyView {
    ok: bool,
    /// Those that were found right.
    entries: u64,
    /// The root that the coordinator signed; null when no head could be read.
    head: Option<String>,
    /// The place of the first entry that does not fit.
    first_bad: Option<u64>,
    problem: Option<String>,
    coordinator: Option<String>,
    signed: Option<String>,
    /// Tasks that are final.
    tasks: u64,
    peers: Vec<TotalView>,
}

#[derive(Debug, Serialize)]
struct TotalView {
    peer: String,
    owner: String,
    team: String,
    credit: f64,
    /// Exactly, in billionths.
    credit_nanos: String,
    /// Credits per day when the head was signed.
    average: f64,
    validated: u64,
    invalid: u64,
}

/// What is wrong, and with which entry.
#[derive(Debug)]
struct Wrong {
    first_bad: Option<u64>,
    problem: String,
}

impl Wrong {
    fn new(problem: impl Into<String>) -> Self {
        Self { first_bad: None, problem: problem.into() }
    }
}

impl VerifyFlags {
    pub(super) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        let view = tokio::task::spawn_blocking(move || self.verify()).await.context("the check failed")??;
        let ok = view.ok;
        if out.is_json() {
            out.json(&view)?;
        } else {
            print(out, &view)?;
        }
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn verify(&self) -> anyhow::Result<VerifyView> {
        let mut import = match Import::new(open(&self.ledger)?) {
            Ok(import) => import,
            Err(problem) => return Ok(VerifyView::unreadable(&problem)),
        };
        let head = *import.head();
        let keys: BTreeSet<PeerId> = self.key.iter().copied().collect();
        let wrong = if !keys.is_empty() && !keys.contains(&head.coordinator) {
            Some(Wrong::new(format!(
                "it is signed by {}, which is not among the given keys",
                head.coordinator
            )))
        } else {
            match &self.since {
                Some(since) => extends(&mut import, since, &keys)?,
                None => rest(&mut import),
            }
        };
        let at_secs = head.at.millis() / 1000;
        let peers = import.replay().peers().values().filter(|peer| peer.validated + peer.invalid > 0);
        let (first_bad, problem) = wrong.map_or((None, None), |wrong| (wrong.first_bad, Some(wrong.problem)));
        Ok(VerifyView {
            ok: problem.is_none(),
            entries: import.replay().size(),
            head: Some(head.root.to_string()),
            first_bad,
            problem,
            coordinator: Some(head.coordinator.to_string()),
            signed: Some(iso8601(head.at.millis())),
            tasks: import.replay().finals() as u64,
            peers: peers.map(|peer| TotalView::new(peer, at_secs)).collect(),
        })
    }
}

type Source = BufReader<File>;

fn open(path: &Path) -> anyhow::Result<Source> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(BufReader::new(file))
}

/// Reads all that is left; returns what is wrong.
fn rest(import: &mut Import<Source>) -> Option<Wrong> {
    loop {
        match import.next() {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(problem) => return Some(wrong(import, &problem)),
        }
    }
}

fn wrong(import: &Import<Source>, problem: &FileProblem) -> Wrong {
    Wrong { first_bad: import.suspect(problem), problem: problem.to_string() }
}

/// Reads both, entry by entry.
fn extends(
    import: &mut Import<Source>,
    since: &Path,
    keys: &BTreeSet<PeerId>,
) -> anyhow::Result<Option<Wrong>> {
    let of_old = |text: String| Wrong::new(format!("{}: {text}", since.display()));
    let mut old = match Import::new(open(since)?) {
        Ok(old) => old,
        Err(problem) => return Ok(Some(of_old(problem.to_string()))),
    };
    let Head { coordinator, size, .. } = *old.head();
    let both = [coordinator, import.head().coordinator];
    if both[0] != both[1] && !both.iter().all(|key| keys.contains(key)) {
        let text = "the two are signed by different coordinators; name both with --key if it changed its key";
        return Ok(Some(Wrong::new(text)));
    }
    if size > import.head().size {
        return Ok(Some(Wrong::new("it has fewer entries than the older one: some were taken out")));
    }
    loop {
        let before = match old.next() {
            Ok(None) => return Ok(rest(import)),
            Ok(Some((_, hash))) => hash,
            Err(problem) => return Ok(Some(of_old(problem.to_string()))),
        };
        let place = import.replay().size();
        match import.next() {
            Ok(Some((_, hash))) if hash == before => {}
            Ok(_) => {
                let problem = "the entry is another one than in the older ledger".into();
                return Ok(Some(Wrong { first_bad: Some(place), problem }));
            }
            Err(problem) => return Ok(Some(wrong(import, &problem))),
        }
    }
}

impl VerifyView {
    fn unreadable(problem: &FileProblem) -> Self {
        Self {
            ok: false,
            entries: 0,
            head: None,
            first_bad: None,
            problem: Some(problem.to_string()),
            coordinator: None,
            signed: None,
            tasks: 0,
            peers: vec![],
        }
    }
}

impl TotalView {
    fn new(peer: &PeerTotals, at_secs: u64) -> Self {
        Self {
            peer: peer.id.to_string(),
            owner: peer.names.owner().into(),
            team: peer.names.team().into(),
            credit: peer.credit.as_f64(),
            credit_nanos: peer.credit.nanos().to_string(),
            average: peer.average.at(at_secs),
            validated: peer.validated,
            invalid: peer.invalid,
        }
    }
}

fn print(out: Out, view: &VerifyView) -> anyhow::Result<()> {
    if out.is_quiet() {
        return out.line(if view.ok { "ok" } else { "bad" });
    }
    if let Some(problem) = &view.problem {
        let place = view.first_bad.map_or_else(String::new, |place| format!("entry {place}: "));
        return out.line(format!("NOT OK: {place}{problem}"));
    }
    let row = |peer: &TotalView| {
        [
            peer.peer.get(..10).unwrap_or_default().to_owned(),
            peer.credit.to_string(),
            format!("{:.3}", peer.average),
            peer.validated.to_string(),
            peer.invalid.to_string(),
            format!("{} {}", printable(&peer.owner), printable(&peer.team)).trim().to_owned(),
        ]
    };
    out.table(
        ["peer", "credit", "average/day", "validated", "invalid", "owner, team"],
        view.peers.iter().map(row),
    )?;
    out.line(format!(
        "ok: {} entries, {} tasks, signed by {} at {}",
        view.entries,
        view.tasks,
        view.coordinator.as_deref().unwrap_or_default(),
        view.signed.as_deref().unwrap_or_default()
    ))
}

#[cfg(test)]
mod tests {
    use talka_peer::identity::Identity;
    use tempfile::TempDir;

    use super::*;
    use crate::ledger_file::tests::{entries, file};

    /// Checks `ledger` against an older one.
    fn verify(ledger: &[u8], since: Option<&[u8]>, keys: &[PeerId]) -> VerifyView {
        let dir = TempDir::new().expect("a directory");
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).expect("written");
            path
        };
        let flags = VerifyFlags {
            ledger: write("new", ledger),
            since: since.map(|bytes| write("old", bytes)),
            key: keys.to_vec(),
        };
        flags.verify().expect("readable files")
    }

    #[test]
    fn totals_are_recomputed() {
        let identity = Identity::ephemeral();
        let view = verify(&file(&identity, &entries(5)), None, &[]);
        assert!(view.ok, "{view:?}");
        assert_eq!((view.entries, view.tasks, view.first_bad), (5, 3, None));
        let totals: Vec<_> = view.peers.iter().map(|peer| (&peer.credit_nanos[..], peer.validated)).collect();
        assert_eq!(totals, [("3000000003", 3), ("3000000003", 3)]);
        assert_eq!(view.coordinator, Some(identity.peer_id().to_string()));
    }

    #[test]
    fn a_ledger_has_to_extend_the_older_one() {
        let (identity, other) = (Identity::ephemeral(), Identity::ephemeral());
        let all = entries(1200);
        let mut changed = all.clone();
        changed[700] = entries(2001)[2000].clone();
        let new = file(&identity, &all);
        for (since, ok, first_bad) in [
            (file(&identity, &all[..0]), true, None),
            (file(&identity, &all[..700]), true, None),
            (new.clone(), true, None),
            (file(&identity, &changed[..1000]), false, Some(700)),
            (file(&identity, &entries(1201)), false, None),
            (file(&other, &all[..700]), false, None),
            (b"talka".to_vec(), false, None),
        ] {
            let view = verify(&new, Some(&since), &[]);
            assert_eq!((view.ok, view.first_bad), (ok, first_bad), "{:?}", view.problem);
        }
    }

    #[test]
    fn a_key_that_changed_is_accepted_when_both_are_named() {
        let (old_key, new_key) = (Identity::ephemeral(), Identity::ephemeral());
        let all = entries(9);
        let (old, new) = (file(&old_key, &all[..5]), file(&new_key, &all));
        let keys = [old_key.peer_id(), new_key.peer_id()];
        assert!(verify(&new, Some(&old), &keys).ok);
        for keys in [&keys[..1], &keys[1..], &[]] {
            let view = verify(&new, Some(&old), keys);
            assert!(!view.ok && view.problem.is_some(), "{keys:?}");
        }
        assert!(verify(&new, None, &keys[1..]).ok);
        assert!(!verify(&new, None, &keys[..1]).ok, "signed by a key that is not the one");
    }
}
