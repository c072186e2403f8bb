//! A receipt file: all that vouches for one final task, and how it is checked.
//!
//! ```text
//! "talka receipt 1\n" | ReceiptReply, as the coordinator sent it (proto/proto/talka.proto)
//! ```
//!
//! Nothing in it is believed: the coordinator's signature is over the head of its ledger, the entry is shown to be in
//! that ledger, the submitter's signature is over the job, and each worker's over what it executed.

use prost::Message;
use talka_core::{
    coordinator::TaskVerdict,
    digest::result_digest,
    ids::{AttemptId, OutcomeDigest, PeerId, ResultDigest},
    job::JobSpec,
    ledger::{Head, LedgerEntry, TaskEntry, TreeHash, inclusion_root, leaf_hash, verify_inclusion},
    limits,
    outcome::Exit,
    quantities::Fuel,
    signing::{Receipt, job_statement, receipts_statement},
};
use talka_peer::identity::{Signature, verify};
use talka_proto::wire;

use crate::cli::credit_head;

const MAGIC: &[u8] = b"talka receipt 1\n";

/// The file is no receipt, or of another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a receipt of this version; make one with: talka receipt get JOB/INDEX -o FILE")]
pub(crate) struct NoReceipt;

/// The bytes of a file.
pub(crate) fn encode(reply: &wire::ReceiptReply) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(reply.encode_to_vec());
    bytes
}

/// The inverse of [`encode`]; the caller bounds the length.
pub(crate) fn decode(bytes: &[u8]) -> Result<wire::ReceiptReply, NoReceipt> {
    let body = bytes.strip_prefix(MAGIC).ok_or(NoReceipt)?;
    wire::ReceiptReply::decode(body).map_err(|_| NoReceipt)
}

/// What a receipt says, once everything in it was found to fit.
#[derive(Debug, Clone)]
pub(crate) struct Vouched {
    pub(crate) entry: TaskEntry,
    pub(crate) spec: JobSpec,
    /// What was agreed on; `None` where nobody agreed.
    pub(crate) agreed: Option<Agreed>,
    /// Attempts that voted for the result and whose signatures are not in the file.
    pub(crate) unsigned: Vec<u32>,
}

/// A canonical result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) digest: ResultDigest,
    pub(crate) exit: Exit,
    pub(crate) fuel: Fuel,
}

impl Agreed {
    /// Whether an execution has this result. Where all attempts had resumed, the digest is without fuel.
    pub(crate) fn is_of(&self, outcome: OutcomeDigest, fuel: Fuel) -> bool {
        [Some(fuel), None].into_iter().any(|fuel| result_digest(outcome, fuel) == self.digest)
    }
}

/// Checks everything in a receipt; says everything that is wrong.
pub(crate) fn check(reply: &wire::ReceiptReply) -> Result<Vouched, Vec<String>> {
    let mut problems = Vec::new();
    let head = check_head(reply, &mut problems);
    let entry = check_entry(reply, head.as_ref(), &mut problems);
    let job = head.and_then(|head| check_job(reply, head.coordinator, entry.as_ref(), &mut problems));
    let (Some(head), Some(entry), Some(spec)) = (head, entry, job) else { return Err(problems) };
    let agreed = match entry.verdict {
        TaskVerdict::Agreed { digest, exit, fuel } => Some(Agreed { digest, exit, fuel }),
        _ => None,
    };
    let mut signed = Vec::new();
    if reply.workers.len() > limits::RECEIPTS_PER_TASK_MAX * limits::REPORTS_MAX {
        problems.push("too many worker signatures".into());
    }
    for worker in &reply.workers {
        match check_worker(worker, &head, &entry, &spec, agreed) {
            Ok(()) => signed.push(worker.number),
            Err(problem) => problems.push(format!("attempt {}: {problem}", worker.number)),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let votes = entry.grants.iter().filter(|grant| grant.agreed).map(|grant| grant.number);
    let unsigned = votes.filter(|number| !signed.contains(number)).collect();
    Ok(Vouched { entry, spec, agreed, unsigned })
}

fn check_head(reply: &wire::ReceiptReply, problems: &mut Vec<String>) -> Option<Head> {
    let Some(signed) = reply.head.as_ref().and_then(credit_head) else {
        problems.push("there is no head of a ledger".into());
        return None;
    };
    if signed.verify().is_err() {
        problems.push("the head of the ledger is not signed by the coordinator that it names".into());
    }
    Some(signed.head)
}

fn check_entry(
    reply: &wire::ReceiptReply,
    head: Option<&Head>,
    problems: &mut Vec<String>,
) -> Option<TaskEntry> {
    let Ok(LedgerEntry::Task(entry)) = LedgerEntry::decode(&reply.entry) else {
        problems.push("the entry is not that of a final task".into());
        return None;
    };
    let head = head?;
    let shown = path(&reply.path).is_some_and(|path| {
        verify_inclusion(leaf_hash(&reply.entry), reply.place, head.size, &path, head.root).is_ok()
    });
    if !shown {
        problems.push("the entry is not shown to be in the ledger".into());
    }
    Some(entry)
}

fn check_job(
    reply: &wire::ReceiptReply,
    coordinator: PeerId,
    entry: Option<&TaskEntry>,
    problems: &mut Vec<String>,
) -> Option<JobSpec> {
    let parts = reply.job.as_ref().and_then(|job| {
        let spec = JobSpec::try_from(job.spec.clone()?).ok()?;
        Some((job, spec, PeerId::try_from(&job.submitter[..]).ok()?))
    });
    let Some((job, spec, submitter)) = parts else {
        problems.push("there is no job".into());
        return None;
    };
    if entry.is_some_and(|entry| entry.task.job.get() != job.job) {
        problems.push("the entry is of another job".into());
    }
    let is_signed = job.request[..].try_into().ok().zip(job.signature[..].try_into().ok());
    let is_signed = is_signed.is_some_and(|(request, signature)| {
        let statement = job_statement(coordinator, submitter, request, &spec);
        verify(submitter, statement.as_bytes(), &Signature::new(signature)).is_ok()
    });
    // A job from before there were signatures has none, and is nobody's then.
    if !is_signed {
        problems.push("the job is not signed by its submitter".into());
    }
    Some(spec)
}

fn check_worker(
    worker: &wire::WorkerReceipt,
    head: &Head,
    entry: &TaskEntry,
    spec: &JobSpec,
    agreed: Option<Agreed>,
) -> Result<(), &'static str> {
    let peer = PeerId::try_from(&worker.peer[..]).map_err(|_| "it names no peer")?;
    let outcome = OutcomeDigest::try_from(&worker.outcome[..]).map_err(|_| "it has no outcome")?;
    let signature = worker.signature[..].try_into().map_err(|_| "it has no signature")?;
    let attempt = AttemptId { task: entry.task, number: worker.number };
    let receipt = Receipt { attempt, outcome, fuel: Fuel::new(worker.fuel), resumed: worker.resumed };
    let leaf = receipt.leaf(spec.bundle.hash);
    let root =
        path(&worker.path).and_then(|path| inclusion_root(leaf, worker.place, worker.count, &path).ok());
    let root = root.ok_or("its path leads nowhere")?;
    let statement = receipts_statement(head.coordinator, peer, worker.count, root);
    verify(peer, statement.as_bytes(), &Signature::new(signature))
        .map_err(|_| "it is not signed by the worker that it names")?;
    let voted = entry.grants.iter().any(|grant| grant.number == worker.number && grant.agreed);
    if let Some(agreed) = agreed.filter(|_| voted) {
        // An attempt that had resumed counted its way back as well.
        let fuel = if worker.resumed { agreed.fuel } else { receipt.fuel };
        if !agreed.is_of(outcome, fuel) {
            return Err("its worker signed another result than the one that it got credit for");
        }
    }
    Ok(())
}

fn path(hashes: &[bytes::Bytes]) -> Option<Vec<TreeHash>> {
    if hashes.len() > limits::LEDGER_PROOF_HASHES_MAX {
        return None;
    }
    hashes.iter().map(|hash| hash[..].try_into().ok().map(TreeHash::new)).collect()
}

#[cfg(test)]
mod tests {
    use talka_core::{
        coordinator::Grant,
        ids::{BlobHash, JobId, PeerNo, TaskId},
        job::{BlobRef, Inputs, RawJobSpec},
        ledger::{Frontier, node_hash},
        quantities::{Bytes, Timestamp},
        signing::receipts_root,
    };
    use talka_peer::identity::Identity;

    use super::*;

    fn spec() -> JobSpec {
        let raw = RawJobSpec {
            args: vec!["{index}".into()],
            ..RawJobSpec::plain(
                "test",
                BlobRef { hash: BlobHash::new([1; 32]), size: Bytes::new(100) },
                Inputs::Array { first: 0, count: 9 },
            )
        };
        raw.validate().expect("valid")
    }

    /// A receipt for task 1/4, whose worker signed it together with another one.
    fn receipt() -> wire::ReceiptReply {
        let [coordinator, submitter, worker] = std::array::from_fn(|_| Identity::ephemeral());
        let (spec, fuel, outcome) = (spec(), Fuel::new(77), OutcomeDigest::new([5; 32]));
        let task = TaskId { job: JobId::new(1), index: 4 };
        let id = |identity: &Identity| bytes::Bytes::from(identity.peer_id().as_bytes().to_vec());
        let sign = |identity: &Identity, statement: talka_core::signing::Statement| {
            bytes::Bytes::from(identity.sign(statement.as_bytes()).as_bytes().to_vec())
        };
        let hash = |hash: TreeHash| bytes::Bytes::from(hash.as_bytes().to_vec());

        let receipt = Receipt { attempt: AttemptId { task, number: 1 }, outcome, fuel, resumed: false };
        let (leaf, other) = (receipt.leaf(spec.bundle.hash), leaf_hash(b"another receipt"));
        let root = receipts_root([other, leaf]);
        assert_eq!(root, node_hash(other, leaf));
        let workers = vec![wire::WorkerReceipt {
            peer: id(&worker),
            number: 1,
            outcome: outcome.as_bytes().to_vec().into(),
            fuel: fuel.get(),
            resumed: false,
            place: 1,
            count: 2,
            path: vec![hash(other)],
            signature: sign(&worker, receipts_statement(coordinator.peer_id(), worker.peer_id(), 2, root)),
        }];

        let grant = Grant { peer: PeerNo::new(0), number: 1, agreed: true, credit: fuel.credit() };
        let verdict =
            TaskVerdict::Agreed { digest: result_digest(outcome, Some(fuel)), exit: Exit::Ok, fuel };
        let entry =
            LedgerEntry::Task(TaskEntry { at_secs: 9, task, verdict, attempts: 1, grants: vec![grant] });
        let entry = entry.to_bytes();
        let mut log = Frontier::default();
        let first = leaf_hash(b"the first entry");
        log.append(first);
        log.append(leaf_hash(&entry));
        let at = Timestamp::from_millis(10);
        let head = Head { coordinator: coordinator.peer_id(), size: 2, root: log.root(), at };
        let statement = job_statement(coordinator.peer_id(), submitter.peer_id(), [3; 16], &spec);
        wire::ReceiptReply {
            head: Some(wire::LedgerHead {
                coordinator: id(&coordinator),
                size: head.size,
                root: hash(head.root),
                at_millis: 10,
                signature: sign(&coordinator, head.statement()),
            }),
            place: 1,
            entry: entry.into(),
            path: vec![hash(first)],
            job: Some(wire::JobInfo {
                job: 1,
                spec: Some((&spec).into()),
                submitter: id(&submitter),
                request: vec![3; 16].into(),
                signature: sign(&submitter, statement),
                ..wire::JobInfo::default()
            }),
            input_offset: 0,
            input_length: 0,
            workers,
        }
    }

    #[test]
    fn a_receipt_says_who_vouches_for_what() {
        let reply = decode(&encode(&receipt())).expect("a receipt");
        let vouched = check(&reply).expect("good");
        assert_eq!(vouched.entry.task.to_string(), "1/4");
        assert_eq!(vouched.agreed.map(|agreed| agreed.fuel), Some(Fuel::new(77)));
        assert_eq!(vouched.unsigned, [0; 0]);
        let older = wire::ReceiptReply { workers: vec![], ..reply };
        assert_eq!(check(&older).expect("still in the ledger").unsigned, [1]);
    }

    type Change = fn(&mut wire::ReceiptReply);

    fn flip(bytes: &mut bytes::Bytes) {
        let mut changed = bytes.to_vec();
        changed[0] ^= 1;
        *bytes = changed.into();
    }

    #[test]
    fn every_part_that_is_changed_is_found() {
        let cases: &[(Change, &str)] = &[
            (|r| r.head = None, "no head"),
            (|r| flip(&mut r.head.as_mut().expect("one").signature), "head of the ledger is not signed"),
            (|r| flip(&mut r.head.as_mut().expect("one").root), "head of the ledger is not signed"),
            (|r| r.head.as_mut().expect("one").size += 1, "head of the ledger is not signed"),
            (|r| r.head.as_mut().expect("one").at_millis += 1, "head of the ledger is not signed"),
            (|r| r.place = 0, "not shown to be in the ledger"),
            (|r| r.path.clear(), "not shown to be in the ledger"),
            (|r| flip(&mut r.path[0]), "not shown to be in the ledger"),
            (|r| r.path = vec![r.path[0].clone(); 1000], "not shown to be in the ledger"),
            (|r| r.entry = vec![].into(), "not that of a final task"),
            (
                |r| {
                    let mut entry = r.entry.to_vec();
                    entry[10] ^= 1;
                    r.entry = entry.into();
                },
                "not shown to be in the ledger",
            ),
            (|r| r.job = None, "there is no job"),
            (|r| r.job.as_mut().expect("one").job = 2, "of another job"),
            (|r| flip(&mut r.job.as_mut().expect("one").signature), "not signed by its submitter"),
            (|r| flip(&mut r.job.as_mut().expect("one").request), "not signed by its submitter"),
            (|r| flip(&mut r.job.as_mut().expect("one").submitter), "not signed by its submitter"),
            (
                |r| r.job.as_mut().expect("one").spec.as_mut().expect("one").seed = 1,
                "not signed by its submitter",
            ),
            (|r| flip(&mut r.workers[0].peer), "attempt 1: it is not signed by the worker"),
            (|r| flip(&mut r.workers[0].signature), "attempt 1: it is not signed by the worker"),
            (|r| flip(&mut r.workers[0].outcome), "attempt 1: it is not signed by the worker"),
            (|r| r.workers[0].fuel += 1, "attempt 1: it is not signed by the worker"),
            (|r| r.workers[0].resumed = true, "attempt 1: it is not signed by the worker"),
            (|r| r.workers[0].number = 2, "attempt 2: it is not signed by the worker"),
            (|r| r.workers[0].count = 3, "attempt 1: "),
            (|r| r.workers[0].place = 9, "attempt 1: its path leads nowhere"),
            (|r| r.workers[0].path.clear(), "attempt 1: its path leads nowhere"),
            (|r| r.workers[0].signature = vec![1].into(), "attempt 1: it has no signature"),
        ];
        for (number, (change, expected)) in cases.iter().enumerate() {
            let mut reply = receipt();
            change(&mut reply);
            let problems = check(&reply).expect_err("found").join("; ");
            assert!(problems.contains(expected), "case {number}: {problems}");
        }
    }

    #[test]
    fn files_that_are_no_receipts_are_refused() {
        let good = encode(&receipt());
        assert!(decode(&good).is_ok());
        for bad in [&b""[..], b"talka", b"talka receipt 2\n", &good[1..], &good[..good.len() - 1]] {
            assert!(decode(bad).is_err());
        }
    }
}
