//! Which of the reported results is the canonical one.
//!
//! Today's policy is the fixed quorum of m-first voting (Sarmenta, *Sabotage-tolerance mechanisms for
//! volunteer computing systems*, 2001, §3.1): the first group of `quorum` distinct peers that report the
//! same result decides.
//!
//! # Attempts that resumed from a checkpoint
//!
//! Their fuel is not that of an uninterrupted run, so they agree with every vote for the same outcome, whatever
//! its fuel; uninterrupted ones must agree on fuel as well. Where uninterrupted ones differ, the largest of
//! their groups decides, and while two are equally large, one more vote is needed: it is not for those who
//! don't vouch for a number to choose between two. What a group earns is the smallest fuel that any of it
//! states, so that nobody gains by saying that it resumed.

use crate::{
    digest::result_digest,
    ids::{OutcomeDigest, ResultDigest},
    quantities::Fuel,
};

/// What one peer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    /// How the program ended and what it wrote.
    pub outcome: OutcomeDigest,
    /// What it took.
    pub fuel: Fuel,
    /// Whether that is not to be compared.
    pub resumed: bool,
}

/// What a quorum agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// How the program ended and what it wrote.
    pub outcome: OutcomeDigest,
    /// The fuel of the uninterrupted attempts; none if all have resumed.
    pub fuel: Option<Fuel>,
}

impl Agreed {
    /// Whether a vote is one for this. Where no count was agreed on, none is wrong: an uninterrupted vote may come after
    /// a quorum that had all resumed.
    pub fn includes(&self, vote: Vote) -> bool {
        self.outcome == vote.outcome && (vote.resumed || self.fuel.is_none_or(|fuel| fuel == vote.fuel))
    }

    /// The canonical result.
    pub fn digest(&self) -> ResultDigest {
        result_digest(self.outcome, self.fuel)
    }

    /// What each vote for this earns: the smallest fuel that any of them states, and never more than what was agreed,
    /// even if those who stated that are void by now.
    pub fn earned(&self, votes: impl IntoIterator<Item = Vote>) -> Fuel {
        let included = votes.into_iter().filter(|vote| self.includes(*vote));
        included.map(|vote| vote.fuel).chain(self.fuel).min().unwrap_or_default()
    }
}

/// What the votes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Enough peers agree on this.
    Agreed(Agreed),
    /// At least that many more votes are needed.
    Wait {
        /// Votes missing to the largest group.
        more: u32,
    },
}

/// Judges the votes of distinct peers, in their order: the first group that reaches the quorum ends the vote.
pub fn judge(quorum: u32, votes: impl IntoIterator<Item = Vote>) -> Verdict {
    let mut votes = votes.into_iter().peekable();
    // Most tasks are decided by the first vote.
    if quorum <= 1
        && let Some(Vote { outcome, fuel, resumed }) = votes.peek().copied()
    {
        return Verdict::Agreed(Agreed { outcome, fuel: (!resumed).then_some(fuel) });
    }
    let mut groups = Vec::<Group>::new();
    for vote in votes {
        let known = groups.iter().position(|group| group.outcome == vote.outcome);
        let place = known.unwrap_or(groups.len());
        if known.is_none() {
            groups.push(Group { outcome: vote.outcome, resumed: 0, counts: Vec::new() });
        }
        let Some(group) = groups.get_mut(place) else { continue };
        group.add(vote);
        if let Some(agreed) = group.agreed(quorum) {
            return Verdict::Agreed(agreed);
        }
    }
    let support = groups.iter().map(|group| group.resumed + group.largest().0).max().unwrap_or(0);
    // The quorum is there where only its fuel is in dispute.
    Verdict::Wait { more: quorum.saturating_sub(support).max(1) }
}

/// Votes for one outcome.
struct Group {
    outcome: OutcomeDigest,
    resumed: u32,
    /// Votes of uninterrupted attempts for each fuel.
    counts: Vec<(Fuel, u32)>,
}

impl Group {
    fn add(&mut self, vote: Vote) {
        if vote.resumed {
            self.resumed += 1;
            return;
        }
        match self.counts.iter_mut().find(|(fuel, _)| *fuel == vote.fuel) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((vote.fuel, 1)),
        }
    }

    /// Most votes of uninterrupted attempts for one fuel, and that fuel unless another one has as many.
    fn largest(&self) -> (u32, Option<Fuel>) {
        self.counts.iter().fold((0, None), |(most, fuel), (other, count)| match count.cmp(&most) {
            std::cmp::Ordering::Greater => (*count, Some(*other)),
            std::cmp::Ordering::Equal => (most, None),
            std::cmp::Ordering::Less => (most, fuel),
        })
    }

    fn agreed(&self, quorum: u32) -> Option<Agreed> {
        let (count, fuel) = self.largest();
        let disputed = count > 0 && fuel.is_none();
        let enough = self.resumed + count >= quorum && !disputed;
        enough.then_some(Agreed { outcome: self.outcome, fuel })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outcome(byte: u8) -> OutcomeDigest {
        OutcomeDigest::new([byte; 32])
    }

    /// An uninterrupted attempt.
    fn whole(byte: u8, fuel: u64) -> Vote {
        Vote { outcome: outcome(byte), fuel: Fuel::new(fuel), resumed: false }
    }

    fn resumed(byte: u8, fuel: u64) -> Vote {
        Vote { resumed: true, ..whole(byte, fuel) }
    }

    fn agreed(byte: u8, fuel: Option<u64>) -> Verdict {
        Verdict::Agreed(Agreed { outcome: outcome(byte), fuel: fuel.map(Fuel::new) })
    }

    const fn wait(more: u32) -> Verdict {
        Verdict::Wait { more }
    }

    #[test]
    fn a_quorum_of_equal_results_decides() {
        for (quorum, votes, expected) in [
            (1, vec![], wait(1)),
            (1, vec![whole(7, 5)], agreed(7, Some(5))),
            (2, vec![whole(7, 5)], wait(1)),
            (2, vec![whole(7, 5), whole(8, 5)], wait(1)),
            (2, vec![whole(7, 5), whole(7, 6)], wait(1)),
            (2, vec![whole(7, 5), whole(8, 5), whole(7, 5)], agreed(7, Some(5))),
            (2, vec![whole(7, 5), whole(8, 5), whole(8, 5)], agreed(8, Some(5))),
            (2, vec![whole(7, 5), whole(7, 6), whole(7, 6)], agreed(7, Some(6))),
            (3, vec![whole(7, 5), whole(8, 5), whole(9, 5)], wait(2)),
        ] {
            assert_eq!(judge(quorum, votes.iter().copied()), expected, "{quorum} {votes:?}");
        }
    }

    #[test]
    fn a_resumed_attempt_agrees_with_any_fuel_of_the_same_outcome() {
        for (quorum, votes, expected) in [
            (1, vec![resumed(7, 9)], agreed(7, None)),
            (2, vec![resumed(7, 9), whole(7, 5)], agreed(7, Some(5))),
            (2, vec![whole(7, 5), resumed(7, 9)], agreed(7, Some(5))),
            (2, vec![resumed(7, 9), resumed(7, 8)], agreed(7, None)),
            (2, vec![resumed(7, 9), whole(8, 9)], wait(1)),
            (3, vec![resumed(7, 9), whole(7, 5), resumed(7, 8)], agreed(7, Some(5))),
        ] {
            assert_eq!(judge(quorum, votes.iter().copied()), expected, "{quorum} {votes:?}");
        }
    }

    #[test]
    fn a_resumed_attempt_does_not_choose_between_two_fuels() {
        for (quorum, votes, expected) in [
            (2, vec![whole(7, 5), whole(7, 6), resumed(7, 6)], wait(1)),
            (2, vec![whole(7, 5), whole(7, 6), resumed(7, 6), resumed(7, 6)], wait(1)),
            (2, vec![whole(7, 5), whole(7, 6), resumed(7, 6), whole(7, 5)], agreed(7, Some(5))),
            (3, vec![whole(7, 5), whole(7, 6), whole(7, 5), resumed(7, 6)], agreed(7, Some(5))),
            (3, vec![whole(7, 5), whole(7, 6), resumed(7, 6)], wait(1)),
        ] {
            assert_eq!(judge(quorum, votes.iter().copied()), expected, "{quorum} {votes:?}");
        }
    }

    #[test]
    fn where_no_count_was_agreed_on_none_is_wrong() {
        let resumed_ones = Agreed { outcome: outcome(7), fuel: None };
        assert!(resumed_ones.includes(whole(7, 5)) && !resumed_ones.includes(whole(8, 5)));
        assert_eq!(resumed_ones.earned([resumed(7, 9), whole(7, 5)]), Fuel::new(5));
        let counted = Agreed { fuel: Some(Fuel::new(5)), ..resumed_ones };
        assert!(counted.includes(whole(7, 5)) && !counted.includes(whole(7, 6)));
    }

    #[test]
    fn saying_that_one_resumed_earns_no_more_than_the_others_state() {
        let honest = 1000;
        for (liar, earned) in [
            (resumed(7, u64::MAX), honest),
            (resumed(7, honest + 1), honest),
            (resumed(7, honest), honest),
            // Who states less gets less.
            (resumed(7, 1), 1),
            // Another fuel without saying so, or another outcome, is no vote for this at all.
            (whole(7, u64::MAX), honest),
            (resumed(8, u64::MAX), honest),
        ] {
            let votes = [whole(7, honest), liar, whole(7, honest)];
            let Verdict::Agreed(agreed) = judge(2, votes) else { panic!("{liar:?}") };
            assert_eq!(agreed.earned(votes), Fuel::new(earned), "{liar:?}");
            assert_eq!(agreed.digest(), result_digest(outcome(7), Some(Fuel::new(honest))));
        }
    }

    proptest! {
        /// Whoever was interrupted, the result is the one that the attempts would have had without it.
        #[test]
        fn interruptions_change_neither_the_verdict_nor_what_it_earns(
            quorum in 1_u32..4,
            // Outcome; extra fuel of the way back, if the attempt was interrupted.
            history in prop::collection::vec((0_u8..3, prop::option::of(0_u64..1000)), 0..8),
        ) {
            let fuel = |outcome: u8| 5000 + u64::from(outcome);
            let calm: Vec<Vote> = history.iter().map(|(outcome, _)| whole(*outcome, fuel(*outcome))).collect();
            let mixed: Vec<Vote> = history
                .iter()
                .map(|(outcome, detour)| match detour {
                    Some(detour) => resumed(*outcome, fuel(*outcome) + detour),
                    None => whole(*outcome, fuel(*outcome)),
                })
                .collect();
            match (judge(quorum, calm.iter().copied()), judge(quorum, mixed.iter().copied())) {
                (Verdict::Agreed(calm), Verdict::Agreed(found)) => {
                    prop_assert_eq!(calm.outcome, found.outcome);
                    let members = || mixed.iter().copied().filter(|vote| found.includes(*vote));
                    if found.fuel.is_some() {
                        prop_assert_eq!(calm.digest(), found.digest());
                        prop_assert_eq!(Some(found.earned(members())), calm.fuel);
                    }
                    prop_assert_eq!(members().map(|vote| vote.fuel).min(), Some(found.earned(members())));
                }
                (calm, found) => prop_assert_eq!(calm, found),
            }
        }

        /// Nobody can make a group earn more than one of its members that is honest states.
        #[test]
        fn a_group_never_earns_more_than_each_of_its_members_states(
            quorum in 1_u32..4,
            raw in prop::collection::vec((0_u8..2, 0_u64..4, any::<bool>()), 0..8),
        ) {
            let votes: Vec<Vote> = raw
                .into_iter()
                .map(|(outcome, fuel, interrupted)| Vote { resumed: interrupted, ..whole(outcome, fuel) })
                .collect();
            if let Verdict::Agreed(agreed) = judge(quorum, votes.iter().copied()) {
                let members: Vec<&Vote> = votes.iter().filter(|vote| agreed.includes(**vote)).collect();
                prop_assert!(members.len() >= quorum as usize);
                let earned = agreed.earned(votes.iter().copied());
                prop_assert!(members.iter().all(|vote| earned <= vote.fuel));
                // Without a count only a quorum that had resumed decides; whoever came later had no say.
                let resumed = members.iter().filter(|vote| vote.resumed).count();
                match agreed.fuel {
                    Some(fuel) => prop_assert!(members.iter().any(|vote| !vote.resumed && vote.fuel == fuel)),
                    None => prop_assert!(resumed >= quorum as usize),
                }
            }
        }
    }
}
