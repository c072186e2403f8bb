//! Whose programs this worker runs.
//!
//! A job comes with its submitter's signature over what is to be run and for which coordinator. Without a good
//! one it is refused, and so is a submitter that the owner does not trust. The coordinator is told, so that the
//! job goes to others at once.

use std::{collections::BTreeSet, str::FromStr};

use talka_core::{
    ids::{ParseIdError, PeerId},
    job::JobSpec,
    limits,
    signing::job_statement,
};
use talka_peer::identity::{Signature, verify};
use talka_proto::wire;

/// Whose jobs are run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub enum Policy {
    /// Anybody's, signed or not.
    Any,
    /// Those of everybody whom the coordinator lets submit: its owner was trusted when its ticket was used.
    #[default]
    Coordinator,
    /// Those of these submitters alone, whatever the coordinator says.
    Keys(BTreeSet<PeerId>),
}

/// What the worker's owner decided about submitters.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Trust {
    /// Whom to trust.
    pub policy: Policy,
    /// Submitters that are refused under each policy: keys that were stolen, or abused.
    pub revoked: BTreeSet<PeerId>,
}

/// A text that says neither `any` nor `coordinator` nor names keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseTrustError {
    /// Something else.
    #[error("expected any, coordinator, or the keys of submitters, separated by commas: {0}")]
    Key(#[from] ParseIdError),
    /// More keys than one could have looked at.
    #[error("more than {} keys", limits::TRUSTED_KEYS_MAX)]
    TooMany,
}

/// Keys, separated by commas; none in an empty text.
pub fn parse_keys(text: &str) -> Result<BTreeSet<PeerId>, ParseTrustError> {
    let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
    let keys: BTreeSet<PeerId> = texts.map(str::parse).collect::<Result<_, _>>()?;
    if keys.len() > limits::TRUSTED_KEYS_MAX { Err(ParseTrustError::TooMany) } else { Ok(keys) }
}

impl FromStr for Policy {
    type Err = ParseTrustError;

    fn from_str(text: &str) -> Result<Self, ParseTrustError> {
        match text.trim() {
            "any" => Ok(Self::Any),
            "coordinator" => Ok(Self::Coordinator),
            "" => "".parse::<PeerId>().map(|_| Self::Any).map_err(Into::into),
            keys => parse_keys(keys).map(Self::Keys),
        }
    }
}

/// Why a job is not run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// There is no good signature of the submitter that is named.
    #[error("its submitter did not sign it for this coordinator")]
    Unsigned,
    /// The submitter is none of those that are trusted.
    #[error("submitter {} is not among the trusted ones", .0.short())]
    Unknown(PeerId),
    /// The owner does not want anything of this submitter.
    #[error("submitter {} is not trusted any more", .0.short())]
    Revoked(PeerId),
}

impl Trust {
    /// Whether to run a job of this coordinator.
    pub fn admits(&self, coordinator: PeerId, job: &wire::Job, spec: &JobSpec) -> Result<(), Distrust> {
        let submitter = PeerId::try_from(&job.submitter[..]).ok();
        if let Some(revoked) = submitter.filter(|submitter| self.revoked.contains(submitter)) {
            return Err(Distrust::Revoked(revoked));
        }
        if self.policy == Policy::Any {
            return Ok(());
        }
        let submitter = submitter.ok_or(Distrust::Unsigned)?;
        let request = job.request[..].try_into().map_err(|_| Distrust::Unsigned)?;
        let signature = job.signature[..].try_into().map(Signature::new).map_err(|_| Distrust::Unsigned)?;
        let statement = job_statement(coordinator, submitter, request, spec);
        verify(submitter, statement.as_bytes(), &signature).map_err(|_| Distrust::Unsigned)?;
        match &self.policy {
            Policy::Keys(keys) if !keys.contains(&submitter) => Err(Distrust::Unknown(submitter)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use talka_core::{
        ids::BlobHash,
        job::{BlobRef, Inputs, RawJobSpec},
        quantities::Bytes,
    };
    use talka_peer::identity::Identity;

    use super::*;

    fn spec(name: &str) -> JobSpec {
        let bundle = BlobRef { hash: BlobHash::new([1; 32]), size: Bytes::new(100) };
        let raw =
            RawJobSpec { quorum: 2, ..RawJobSpec::plain(name, bundle, Inputs::Array { first: 0, count: 5 }) };
        raw.validate().expect("valid")
    }

    fn signed(by: &Identity, coordinator: PeerId, spec: &JobSpec) -> wire::Job {
        let statement = job_statement(coordinator, by.peer_id(), [7; 16], spec);
        wire::Job {
            job: 1,
            spec: Some(spec.into()),
            submitter: by.peer_id().as_bytes().to_vec().into(),
            request: vec![7; 16].into(),
            signature: by.sign(statement.as_bytes()).as_bytes().to_vec().into(),
        }
    }

    #[test]
    fn only_what_a_trusted_submitter_signed_is_run() {
        let (ada, eve) = (Identity::ephemeral(), Identity::ephemeral());
        let (here, there) = (PeerId::new([1; 32]), PeerId::new([2; 32]));
        let (spec, other) = (spec("one"), spec("two"));
        let good = signed(&ada, here, &spec);
        let unsigned = wire::Job { signature: vec![].into(), ..good.clone() };
        let renamed = wire::Job { submitter: eve.peer_id().as_bytes().to_vec().into(), ..good.clone() };
        let again = wire::Job { request: vec![8; 16].into(), ..good.clone() };
        let nobody = wire::Job { submitter: vec![].into(), ..good.clone() };
        let keys = |identity: &Identity| Policy::Keys([identity.peer_id()].into());
        let unsigned_error = Err(Distrust::Unsigned);
        for (policy, job, spec, expected) in [
            (Policy::Coordinator, &good, &spec, Ok(())),
            (keys(&ada), &good, &spec, Ok(())),
            (keys(&eve), &good, &spec, Err(Distrust::Unknown(ada.peer_id()))),
            (Policy::Any, &unsigned, &spec, Ok(())),
            (Policy::Any, &nobody, &spec, Ok(())),
            (Policy::Coordinator, &unsigned, &spec, unsigned_error),
            (Policy::Coordinator, &renamed, &spec, unsigned_error),
            (Policy::Coordinator, &again, &spec, unsigned_error),
            (Policy::Coordinator, &nobody, &spec, unsigned_error),
            (Policy::Coordinator, &good, &other, unsigned_error),
            (Policy::Coordinator, &signed(&ada, there, &spec), &spec, unsigned_error),
        ] {
            let trust = Trust { policy: policy.clone(), revoked: BTreeSet::new() };
            assert_eq!(trust.admits(here, job, spec), expected, "{policy:?}");
        }
    }

    #[test]
    fn a_revoked_key_is_refused_under_each_policy_and_its_successor_is_not() {
        let (old, new) = (Identity::ephemeral(), Identity::ephemeral());
        let (here, spec) = (PeerId::new([1; 32]), spec("one"));
        for policy in [Policy::Any, Policy::Coordinator, Policy::Keys([old.peer_id(), new.peer_id()].into())]
        {
            let trust = Trust { policy, revoked: [old.peer_id()].into() };
            let refused = Err(Distrust::Revoked(old.peer_id()));
            assert_eq!(trust.admits(here, &signed(&old, here, &spec), &spec), refused);
            assert_eq!(trust.admits(here, &signed(&new, here, &spec), &spec), Ok(()));
        }
    }

    #[test]
    fn policies_are_words_or_keys() {
        let key = PeerId::new([0xab; 32]);
        let two = format!("{key}, {}", PeerId::new([1; 32]));
        assert_eq!("any".parse(), Ok(Policy::Any));
        assert_eq!("coordinator".parse(), Ok(Policy::Coordinator));
        assert_eq!(key.to_string().parse(), Ok(Policy::Keys([key].into())));
        assert!(matches!(two.parse(), Ok(Policy::Keys(keys)) if keys.len() == 2));
        for wrong in ["", "all", "any,coordinator"] {
            assert!(matches!(wrong.parse::<Policy>(), Err(ParseTrustError::Key(_))), "{wrong:?}");
        }
        let many: Vec<String> = (0..=255u8).map(|byte| PeerId::new([byte; 32]).to_string()).collect();
        assert_eq!(parse_keys(&many.join(",")).map(|keys| keys.len()), Ok(256));
        let more = format!(
            "{},{}",
            many.join(","),
            PeerId::new({
                let mut bytes = [0; 32];
                bytes[0] = 1;
                bytes
            })
        );
        assert_eq!(parse_keys(&more), Err(ParseTrustError::TooMany));
    }
}
