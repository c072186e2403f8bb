//! What is signed, as one hash each.
//!
//! A signature is Ed25519 over a [`Statement`]: a BLAKE3 hash in derive-key mode, with a context that says which
//! kind of statement it is and of which version, over length-prefixed fields. So a signature of one kind is never
//! one of another, and each field can be recomputed by whoever checks.
//!
//! | statement | signed by | says |
//! |---|---|---|
//! | [`job_statement`] | the submitter | this coordinator shall run this job: bundle, inputs, arguments, limits |
//! | [`receipts_statement`] | the worker | this is what I executed, and how each of it ended |
//! | [`Head::statement`](crate::ledger::Head::statement) | the coordinator | this is my ledger |
//!
//! A job's policy (quorum, priority, the peers that it is meant for) is between its submitter and the coordinator, may
//! change while the job runs, and is no part of what is signed.
//!
//! A worker signs once for a message of reports: the leaves of a tree (that of the [ledger](crate::ledger)) are
//! [`Receipt`]s, and it signs the root. Who has one receipt, its path and the signature needs no other one.

use crate::{
    digest::{Fields, Kind, PROFILE, kind},
    ids::{AttemptId, BlobHash, OutcomeDigest, PeerId},
    job::{Inputs, JobSpec},
    ledger::{Frontier, TreeHash},
    quantities::Fuel,
};

/// The hash that is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Statement([u8; 32]);

impl Statement {
    /// Wraps the hash.
    pub const fn new(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// The bytes to be signed.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// "I, the submitter, want this job to be run by that coordinator." `request` tells repetitions apart.
pub fn job_statement(coordinator: PeerId, submitter: PeerId, request: [u8; 16], spec: &JobSpec) -> Statement {
    let mut fields = Fields::new("talka job 1");
    fields.bytes(coordinator.as_bytes()).bytes(submitter.as_bytes()).bytes(&request);
    fields.bytes(PROFILE.as_bytes()).bytes(spec.name.as_bytes());
    fields.bytes(spec.bundle.hash.as_bytes()).number(spec.bundle.size.get());
    match &spec.inputs {
        Inputs::Array { first, count } => {
            fields.number(0).number(*first).number(*count);
        }
        Inputs::Packed { data, index, count } => {
            fields.number(1).number(*count);
            for blob in [data, index] {
                fields.bytes(blob.hash.as_bytes()).number(blob.size.get());
            }
        }
    }
    fields.count(spec.args.len());
    for arg in &spec.args {
        fields.bytes(arg.as_bytes());
    }
    fields.count(spec.env.len());
    for (name, value) in &spec.env {
        fields.bytes(name.as_bytes()).bytes(value.as_bytes());
    }
    fields.count(spec.datasets.len());
    for dataset in &spec.datasets {
        fields.bytes(dataset.name.as_bytes());
        fields.bytes(dataset.blob.hash.as_bytes()).number(dataset.blob.size.get());
    }
    let limits = &spec.limits;
    fields.number(limits.memory.get()).number(limits.fuel.get()).number(limits.output.get());
    fields.number(u64::try_from(limits.deadline.as_millis()).unwrap_or(u64::MAX));
    fields.number(spec.seed).number(spec.clock_secs);
    Statement::new(fields.finish())
}

/// One executed attempt, as its worker vouches for it. The outcome digest covers profile, bundle, input, exit and
/// all output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Which.
    pub attempt: AttemptId,
    /// How it ended and what it wrote.
    pub outcome: OutcomeDigest,
    /// Executed operators.
    pub fuel: Fuel,
    /// Whether it went on from a checkpoint, so that its fuel is not to be compared.
    pub resumed: bool,
}

impl Receipt {
    /// Its leaf in the tree of a message.
    pub fn leaf(&self, bundle: BlobHash) -> TreeHash {
        static KIND: Kind = kind!("talka receipt 1");
        let mut fields = Fields::of(&KIND);
        fields.number(self.attempt.task.job.get()).number(self.attempt.task.index);
        fields.number(self.attempt.number.into());
        fields.bytes(PROFILE.as_bytes()).bytes(bundle.as_bytes()).bytes(self.outcome.as_bytes());
        fields.number(self.fuel.get()).number(self.resumed.into());
        TreeHash::new(fields.finish())
    }
}

/// The root over the receipts of one message.
pub fn receipts_root(leaves: impl IntoIterator<Item = TreeHash>) -> TreeHash {
    let mut tree = Frontier::default();
    for leaf in leaves {
        tree.append(leaf);
    }
    tree.root()
}

/// "I, the worker, executed for that coordinator what these `count` receipts say."
pub fn receipts_statement(coordinator: PeerId, worker: PeerId, count: u64, root: TreeHash) -> Statement {
    let mut fields = Fields::new("talka receipts 1");
    fields.bytes(coordinator.as_bytes()).bytes(worker.as_bytes());
    fields.number(count).bytes(root.as_bytes());
    Statement::new(fields.finish())
}
