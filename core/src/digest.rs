//! What must agree between two executions, as one hash.
//!
//! Three levels. The worker states the [`InputDigest`] of what its sandbox fed to the program, so that the
//! party that compares need not hold the input. The [`OutcomeDigest`] is computed over that, the profile, the
//! bundle, the exit and everything that the program wrote. A coordinator recomputes it from the report itself,
//! so a worker can't attach other bytes to a digest that others vouch for. The [`ResultDigest`] adds the
//! fuel:
//!
//! | attempts that agreed | result digest over |
//! |---|---|
//! | one at least ran without an interruption | outcome, fuel of the uninterrupted ones |
//! | all resumed from a checkpoint | outcome, in a form of its own |
//!
//! because an attempt that resumed also counts how it found its way back, which differs from one
//! interruption to another.
//!
//! Every field is preceded by its length, so that no two different executions share an encoding. The
//! log (standard error) is left out.

use std::sync::LazyLock;

use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};

use crate::{
    ids::{BlobHash, InputDigest, OutcomeDigest, ResultDigest},
    outcome::{Exit, Output},
    quantities::Fuel,
};

/// The deterministic profile under which all programs run.
pub const PROFILE: &str = "talka-1";

/// Everything that a program can see, borrowed from wherever it lies.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Arguments, `argv[0]` included, `{index}` already substituted.
    pub args: &'a [String],
    /// Environment, sorted by name, `TALKA_TASK_INDEX` included.
    pub env: &'a [(String, String)],
    /// Seed of the random stream.
    pub seed: u64,
    /// Position of the task in its job; the random stream depends on it.
    pub index: u64,
    /// Start of the virtual clock, seconds since the Unix epoch.
    pub clock_secs: u64,
    /// `/data/NAME`, sorted by name, each by the hash of its bytes.
    pub datasets: &'a [(String, BlobHash)],
    /// Memory limit in bytes: a failed `memory.grow` is visible to the program.
    pub memory_bytes: u64,
    /// Fuel limit: where it strikes is part of the result.
    pub fuel: u64,
    /// Output limit in bytes, likewise.
    pub output_bytes: u64,
    /// Standard input.
    pub stdin: &'a [u8],
}

impl Input<'_> {
    /// The digest of this input.
    pub fn digest(&self) -> InputDigest {
        let mut fields = Fields::new("talka-1 input digest");
        fields.count(self.args.len());
        for arg in self.args {
            fields.bytes(arg.as_bytes());
        }
        fields.count(self.env.len());
        for (name, value) in self.env {
            fields.bytes(name.as_bytes()).bytes(value.as_bytes());
        }
        fields.number(self.seed).number(self.index).number(self.clock_secs);
        fields.count(self.datasets.len());
        for (name, hash) in self.datasets {
            fields.bytes(name.as_bytes()).bytes(hash.as_bytes());
        }
        fields.number(self.memory_bytes).number(self.fuel).number(self.output_bytes);
        fields.bytes(self.stdin);
        InputDigest::new(fields.finish())
    }
}

/// The digest of one execution of `bundle`, but for its fuel.
pub fn outcome_digest(bundle: BlobHash, input: InputDigest, exit: Exit, output: &Output) -> OutcomeDigest {
    static KIND: Kind = kind!("talka-1 outcome digest");
    let mut fields = Fields::of(&KIND);
    fields.bytes(PROFILE.as_bytes()).bytes(bundle.as_bytes()).bytes(input.as_bytes());
    let (kind, number) = exit.to_code();
    fields.number(kind.into()).number(number.into());
    fields.bytes(&output.stdout);
    fields.count(output.files.len());
    for (name, data) in &output.files {
        fields.bytes(name.as_bytes()).bytes(data);
    }
    OutcomeDigest::new(fields.finish())
}

/// The digest of a result: of an outcome and the fuel that it takes, where that is known.
pub fn result_digest(outcome: OutcomeDigest, fuel: Option<Fuel>) -> ResultDigest {
    static WITH_FUEL: Kind = kind!("talka-1 result digest");
    static WITHOUT: Kind = kind!("talka-1 result digest without fuel");
    let mut fields = Fields::of(if fuel.is_some() { &WITH_FUEL } else { &WITHOUT });
    fields.bytes(outcome.as_bytes());
    if let Some(fuel) = fuel {
        fields.number(fuel.get());
    }
    ResultDigest::new(fields.finish())
}

/// What a hash in derive-key mode is of: the context, hashed once for all digests of the kind.
pub(crate) struct Kind(LazyLock<ContextKey, fn() -> ContextKey>);

/// The key of a kind that there are many digests of, made when it is first needed.
macro_rules! kind {
    ($context:literal) => {
        $crate::digest::Kind::new(|| blake3::hazmat::hash_derive_key_context($context))
    };
}
pub(crate) use kind;

impl Kind {
    /// See [`kind`].
    pub(crate) const fn new(key: fn() -> ContextKey) -> Self {
        Self(LazyLock::new(key))
    }
}

/// Length-prefixed fields into one BLAKE3 hash in derive-key mode, so that a digest of one kind is never
/// one of another.
pub(crate) struct Fields {
    hasher: blake3::Hasher,
    /// Fields gather here, as the hasher takes few long pieces faster than many short ones.
    gathered: [u8; GATHERED],
    length: usize,
}

/// Most digests are of fewer bytes.
const GATHERED: usize = 256;

impl Fields {
    /// Fields of a kind that there are few digests of.
    pub(crate) fn new(context: &str) -> Self {
        Self::with_key(&hash_derive_key_context(context))
    }

    /// Fields of a kind that there are many digests of.
    pub(crate) fn of(kind: &Kind) -> Self {
        Self::with_key(&kind.0)
    }

    fn with_key(key: &ContextKey) -> Self {
        let hasher = blake3::Hasher::new_from_context_key(key);
        Self { hasher, gathered: [0; GATHERED], length: 0 }
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.length + bytes.len() > GATHERED {
            self.hasher.update(&self.gathered[..self.length]);
            self.length = 0;
        }
        if let Some(room) = self.gathered.get_mut(self.length..self.length + bytes.len()) {
            room.copy_from_slice(bytes);
            self.length += bytes.len();
        } else {
            self.hasher.update(bytes);
        }
    }

    pub(crate) fn number(&mut self, number: u64) -> &mut Self {
        self.put(&number.to_le_bytes());
        self
    }

    pub(crate) fn count(&mut self, count: usize) -> &mut Self {
        self.number(count as u64)
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len());
        self.put(bytes);
        self
    }

    pub(crate) fn finish(&mut self) -> [u8; 32] {
        self.hasher.update(&self.gathered[..self.length]);
        self.length = 0;
        *self.hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Trap;

    fn input<'a>(args: &'a [String], stdin: &'a [u8]) -> Input<'a> {
        Input {
            args,
            env: &[],
            seed: 0,
            index: 0,
            clock_secs: 0,
            datasets: &[],
            memory_bytes: 1,
            fuel: 1,
            output_bytes: 1,
            stdin,
        }
    }

    #[test]
    fn bytes_that_move_between_fields_change_the_digest() {
        let ab_c = input(&["ab".into(), "c".into()], b"").digest();
        let a_bc = input(&["a".into(), "bc".into()], b"").digest();
        let stdin = input(&["ab".into()], b"c").digest();
        assert_ne!(ab_c, a_bc);
        assert_ne!(ab_c, stdin);
    }

    /// Whatever way the fields are gathered, what is hashed is their bytes.
    #[test]
    fn fields_of_any_length_are_hashed_as_they_stand() {
        static KIND: Kind = kind!("talka test");
        for lengths in
            [&[][..], &[0], &[1, 2, 3], &[247, 1], &[248], &[249, 0], &[100, 100, 100], &[5, 3000, 5]]
        {
            let (mut cached, mut plain) = (Fields::of(&KIND), Fields::new("talka test"));
            let mut expected = blake3::Hasher::new_derive_key("talka test");
            for length in lengths {
                let field: Vec<u8> = (0..*length).map(|byte: u32| byte.to_le_bytes()[0]).collect();
                cached.bytes(&field);
                plain.bytes(&field);
                expected.update(&u64::from(*length).to_le_bytes()).update(&field);
            }
            let expected = *expected.finalize().as_bytes();
            assert_eq!(cached.finish(), expected, "{lengths:?}");
            assert_eq!(plain.finish(), expected, "{lengths:?}");
        }
    }

    #[test]
    fn everything_but_the_log_counts() {
        let bundle = BlobHash::new([1; 32]);
        let stated = InputDigest::new([2; 32]);
        let output = Output { stdout: b"42\n".to_vec(), ..Output::default() };
        let digest = |exit, output: &Output, fuel: Option<u64>| {
            result_digest(outcome_digest(bundle, stated, exit, output), fuel.map(Fuel::new))
        };
        let base = digest(Exit::Ok, &output, Some(7));
        let logged = Output { stderr: b"note".to_vec(), ..output.clone() };
        assert_eq!(digest(Exit::Ok, &logged, Some(7)), base);

        let mut with_file = output.clone();
        with_file.files.insert("a".into(), vec![]);
        let changed = [
            digest(Exit::Code(1), &output, Some(7)),
            digest(Exit::Trap(Trap::Unreachable), &output, Some(7)),
            digest(Exit::Ok, &with_file, Some(7)),
            digest(Exit::Ok, &output, Some(8)),
            digest(Exit::Ok, &output, Some(0)),
            digest(Exit::Ok, &output, None),
        ];
        assert!(changed.iter().all(|digest| *digest != base));
    }
}
