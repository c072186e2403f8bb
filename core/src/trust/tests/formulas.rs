//! The numbers come from reference models in another language, written from the papers.

use proptest::prelude::*;

use super::super::*;
use crate::{
    ids::{JobId, TaskId},
    quantities::Ppm,
};

fn policy(liars: u32) -> Policy {
    Policy::error_rate(1_000, liars).expect("in range")
}

fn record(checks: u32) -> Record {
    Record { checks, caught: 0 }
}

fn camp(policy: &Policy, checks: &[u32]) -> Camp {
    let mut camp = Camp::default();
    for checks in checks {
        camp.join(policy, &record(*checks), true);
    }
    camp
}

#[track_caller]
fn assert_close(found: f64, expected: f64, digits: i32) {
    let tolerance = expected.abs() * 10_f64.powi(-digits);
    assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
}

#[test]
fn a_worker_is_doubted_by_the_share_of_liars_over_its_checks() {
    for (liars, checks, credibility) in [
        (50_000, 0, 0.95),
        (50_000, 1, 0.95),
        (50_000, 50, 0.999),
        (200_000, 0, 0.8),
        (200_000, 10, 0.98),
        (200_000, 200, 0.999),
    ] {
        assert_close(policy(liars).credibility(&record(checks)), credibility, 12);
    }
}

#[test]
fn agreeing_newcomers_are_as_credible_as_the_model_says() {
    for (liars, voters, expected) in [
        (100_000, 1, 0.9),
        (100_000, 2, 0.987_805),
        (100_000, 3, 0.998_63),
        (200_000, 1, 0.8),
        (200_000, 2, 0.941_176),
        (200_000, 3, 0.984_615),
        (200_000, 4, 0.996_109),
        (200_000, 5, 0.999_024),
        (300_000, 3, 0.927_027),
    ] {
        let policy = policy(liars);
        let error = camp(&policy, &vec![0; voters]).error([]);
        assert_close(1.0 - error, expected, 5);
    }
}

#[test]
fn two_with_some_checks_are_as_credible_as_the_model_says() {
    for (checks, error) in [(5, 1.733_1e-3), (10, 4.163_197e-4), (20, 1.020_2e-4), (50, 1.612_9e-5)] {
        let policy = policy(200_000);
        assert_close(camp(&policy, &[checks; 2]).error([]), error, 3);
    }
}

#[test]
fn competing_answers_lower_a_groups_credibility_as_bayes_says() {
    // P(g) = ΠCr and Q(g) = Π(1 − Cr), worked out by hand: (P₁Q₂) / (P₁Q₂ + Q₁P₂ + Q₁Q₂).
    for (checks, against, expected) in [
        (&[0, 0][..], &[0][..], 0.8 * 0.8 * 0.2 / (0.8 * 0.8 * 0.2 + 0.04 * 0.8 + 0.04 * 0.2)),
        (&[200], &[0], 0.999 * 0.2 / (0.999 * 0.2 + 0.001 * 0.8 + 0.001 * 0.2)),
        (&[0, 10], &[10, 0], 0.784 * 0.004 / (2.0 * 0.784 * 0.004 + 0.004 * 0.004)),
    ] {
        let policy = policy(200_000);
        let error = camp(&policy, checks).error([camp(&policy, against)]);
        assert_close(1.0 - error, expected, 9);
    }
}

#[test]
fn one_word_suffices_after_as_many_checks_as_the_model_says() {
    let scene = Scene { draw: Draw::new(u32::MAX), unchecked: 0, established_elsewhere: false };
    for (liars, error, checks) in [
        (100_000, 10_000, 10),
        (100_000, 1_000, 100),
        (100_000, 100, 1_000),
        (200_000, 10_000, 20),
        (200_000, 1_000, 200),
        (200_000, 100, 2_000),
        (350_000, 1_000, 350),
        (50_000, 1_000, 50),
    ] {
        let policy = Policy::error_rate(error, liars).expect("in range");
        let judge = |checks| policy.judge(&[camp(&policy, &[checks])], scene);
        assert_eq!(judge(checks), Judgement::Accept { camp: 0, provisional: true }, "{liars} {error}");
        assert!(matches!(judge(checks - 1), Judgement::More { .. }), "{liars} {error}");
    }
}

#[test]
fn the_check_rate_falls_to_its_floor_and_no_further() {
    for (checks, rate) in [(0, 1.0), (1, 1.0), (2, 0.5), (10, 0.1), (20, 0.05), (1_000_000, 0.05)] {
        assert_close(Policy::check_rate(&record(checks)), rate, 12);
    }
}

/// Voting alone, against the closed form of Sarmenta 2001, §3.1:
/// error = Σ_{j<m} C(m − 1 + j, j) pᵐ (1 − p)ʲ, where a wrong answer comes with probability p.
#[test]
fn m_first_voting_errs_as_often_as_its_closed_form() {
    let scene = Scene { draw: Draw::new(0), unchecked: 0, established_elsewhere: false };
    for (quorum, p, error) in [(2, 0.1, 2.8e-2), (3, 0.1, 8.56e-3), (2, 0.2, 0.104), (3, 0.2, 5.792e-2)] {
        let policy = Policy::quorum(quorum).expect("in range");
        // All courses of a vote, each with its probability.
        let mut open = vec![(1.0, Camp::default(), Camp::default())];
        let mut wrong = 0.0;
        while let Some((chance, right, lie)) = open.pop() {
            match policy.judge(&[right, lie], scene) {
                Judgement::Accept { camp, .. } => wrong += if camp == 1 { chance } else { 0.0 },
                Judgement::More { .. } => {
                    let (mut more_right, mut more_lie) = (right, lie);
                    more_right.join(&policy, &record(0), true);
                    more_lie.join(&policy, &record(0), true);
                    open.push((chance * (1.0 - p), more_right, lie));
                    open.push((chance * p, right, more_lie));
                }
            }
        }
        assert_close(wrong, error, 6);
    }
}

#[test]
fn draws_are_even_and_differ_by_task_and_key() {
    let task = |index| TaskId { job: JobId::new(1), index };
    let key = AuditKey::new([7; 32]);
    let hits = (0..20_000).filter(|index| key.draw(task(*index)).hits_ppm(Ppm::new(50_000))).count();
    // Six standard deviations of a binomial distribution around 1,000.
    assert!((815..=1185).contains(&hits), "{hits}");
    assert_ne!(key.draw(task(1)), key.draw(task(2)));
    assert_ne!(key.draw(task(1)), AuditKey::new([8; 32]).draw(task(1)));
    assert!(!Draw::new(u32::MAX).hits(0.999_999) && Draw::new(u32::MAX).hits(1.0) && !Draw::new(0).hits(0.0));
}

#[test]
fn names_of_attempts_tell_nothing_of_their_order() {
    let key = AuditKey::new([7; 32]);
    let low_first = (0..4000)
        .filter(|index| {
            let task = TaskId { job: JobId::new(3), index: *index };
            key.attempt_number(task, 1) < key.attempt_number(task, 2)
        })
        .count();
    // Half of them, within six standard deviations.
    assert!((1810..=2190).contains(&low_first), "{low_first}");
}

proptest! {
    #[test]
    fn names_of_attempts_can_be_read_by_who_has_the_key(
        secret: [u8; 32], job: u64, index: u64, a in 1_u32.., b in 1_u32..,
    ) {
        let key = AuditKey::new(secret);
        let task = TaskId { job: JobId::new(job), index };
        let number = key.attempt_number(task, a);
        prop_assert_ne!(number, 0);
        prop_assert_eq!(key.attempt_ordinal(task, number), a);
        prop_assert_eq!(a == b, number == key.attempt_number(task, b));
    }

    /// One more voter never makes its answer less credible, nor a competing one more so.
    #[test]
    fn a_voter_helps_its_own_answer_and_no_other(
        liars in 1_000_u32..450_000,
        ours in prop::collection::vec(0_u32..500, 1..6),
        theirs in prop::collection::vec(0_u32..500, 0..6),
        newcomer in 0_u32..500,
    ) {
        let policy = policy(liars);
        let (before, against) = (camp(&policy, &ours), camp(&policy, &theirs));
        let mut after = before;
        after.join(&policy, &record(newcomer), true);
        prop_assert!(after.error([against]) < before.error([against]));
        prop_assert!(against.error([after]) >= against.error([before]));
        let sum = (1.0 - before.error([against])) + (1.0 - against.error([before]));
        prop_assert!(sum <= 1.0 + 1e-12 || theirs.is_empty(), "two answers can't both be right: {sum}");
    }

    #[test]
    fn a_share_is_read_as_it_is_written(millionths in 0_u32..=1_000_000) {
        let share = Ppm::new(millionths);
        prop_assert_eq!(share.to_string().parse(), Ok(share));
    }
}

#[test]
fn a_share_may_be_written_in_several_ways() {
    for (text, ppm) in [("0.001", 1_000), ("1e-3", 1_000), ("0.1%", 1_000), ("5 %", 50_000), ("1", 1_000_000)]
    {
        assert_eq!(text.parse(), Ok(Ppm::new(ppm)), "{text}");
    }
    for text in ["", "-0.1", "1.1", "101%", "many", "nan", "inf"] {
        assert!(text.parse::<Ppm>().is_err(), "{text}");
    }
}
