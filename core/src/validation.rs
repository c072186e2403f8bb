//! Which of the reported results is the canonical one.
//!
//! Today's policy is the fixed quorum of m-first voting (Sarmenta, *Sabotage-tolerance mechanisms for
//! volunteer computing systems*, 2001, §3.1): the first group of `quorum` distinct peers that report the
//! same digest decides.

use std::collections::BTreeMap;

use crate::ids::ResultDigest;

/// What the votes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Enough peers agree on this digest.
    Agreed(ResultDigest),
    /// At least that many more votes are needed.
    Wait {
        /// Votes missing to the largest group.
        more: u32,
    },
}

/// Judges the votes of distinct peers. Ties don't matter: no two groups reach a quorum, because the first
/// that does ends the vote.
pub fn judge(quorum: u32, votes: impl IntoIterator<Item = ResultDigest>) -> Verdict {
    let mut groups = BTreeMap::<ResultDigest, u32>::new();
    for digest in votes {
        let group = groups.entry(digest).or_default();
        *group += 1;
        if *group >= quorum {
            return Verdict::Agreed(digest);
        }
    }
    let largest = groups.values().copied().max().unwrap_or(0);
    Verdict::Wait { more: quorum - largest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_of_equal_digests_decides() {
        let digest = |byte| ResultDigest::new([byte; 32]);
        let check = |quorum, votes: &[u8], expected| {
            assert_eq!(judge(quorum, votes.iter().map(|byte| digest(*byte))), expected, "{votes:?}");
        };
        check(1, &[], Verdict::Wait { more: 1 });
        check(1, &[7], Verdict::Agreed(digest(7)));
        check(2, &[7], Verdict::Wait { more: 1 });
        check(2, &[7, 8], Verdict::Wait { more: 1 });
        check(2, &[7, 8, 7], Verdict::Agreed(digest(7)));
        check(2, &[7, 8, 8], Verdict::Agreed(digest(8)));
        check(3, &[7, 8, 9], Verdict::Wait { more: 2 });
    }
}
