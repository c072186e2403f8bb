//! What a policy makes of given answers.

use proptest::prelude::*;

use super::super::*;
use crate::limits;

const NEVER: Draw = Draw::new(u32::MAX);
const ALWAYS: Draw = Draw::new(0);

fn scene(draw: Draw) -> Scene {
    Scene { draw, unchecked: 0, established_elsewhere: false }
}

fn camps(policy: &Policy, answers: &[&[u32]]) -> Vec<Camp> {
    let join = |checks: &&[u32]| {
        let mut camp = Camp::default();
        checks.iter().for_each(|checks| camp.join(policy, &Record { checks: *checks, caught: 0 }, true));
        camp
    };
    answers.iter().map(join).collect()
}

const fn accept(camp: usize, provisional: bool) -> Judgement {
    Judgement::Accept { camp, provisional }
}

const fn more(attempts: u32) -> Judgement {
    Judgement::More { attempts, established: false }
}

#[test]
fn each_policy_says_when_answers_suffice() {
    let quorum = |quorum| Policy::quorum(quorum).expect("in range");
    let ours = Policy::error_rate(1_000, 50_000).expect("in range");
    let boinc = Policy::Adaptive { trusted_after: 10 };
    for (policy, draw, answers, expected) in [
        (quorum(1), ALWAYS, &[&[0][..]][..], accept(0, false)),
        (quorum(2), NEVER, &[], more(2)),
        (quorum(2), NEVER, &[&[1000]], more(1)),
        (quorum(2), NEVER, &[&[1000], &[0, 0]], accept(1, false)),
        (quorum(3), NEVER, &[&[0], &[0]], more(2)),
        (ours, NEVER, &[], more(1)),
        (ours, NEVER, &[&[0, 0]], more(1)),
        (ours, NEVER, &[&[0, 0, 0]], accept(0, false)),
        (ours, NEVER, &[&[2, 2]], accept(0, false)),
        (ours, NEVER, &[&[49]], more(1)),
        (ours, NEVER, &[&[50]], accept(0, true)),
        // The draw asks for one voter beyond those that would do.
        (ours, ALWAYS, &[&[5000]], more(1)),
        (ours, ALWAYS, &[&[5000, 0]], accept(0, false)),
        (ours, ALWAYS, &[&[2, 2]], more(1)),
        (ours, ALWAYS, &[&[2, 2, 2]], accept(0, false)),
        // A newcomer contradicts somebody known, a second one agrees with either.
        (ours, NEVER, &[&[50], &[0]], more(1)),
        (ours, NEVER, &[&[50, 0], &[0]], more(1)),
        (ours, NEVER, &[&[50, 2], &[0]], accept(0, false)),
        (ours, NEVER, &[&[50], &[0, 0]], more(1)),
        (ours, NEVER, &[&[0], &[50, 50]], accept(1, false)),
        // Who was right fifty times is outweighed by many newcomers, not by a few.
        (ours, NEVER, &[&[50], &[0; 6]], accept(1, false)),
        (boinc, NEVER, &[&[9]], more(1)),
        (boinc, NEVER, &[&[10]], accept(0, false)),
        (boinc, ALWAYS, &[&[10]], more(1)),
        (boinc, NEVER, &[&[0, 0]], accept(0, false)),
        (boinc, NEVER, &[&[10], &[0]], more(1)),
    ] {
        let found = policy.judge(&camps(&policy, answers), scene(draw));
        assert_eq!(found, expected, "{policy:?} {draw:?} {answers:?}");
    }
}

#[test]
fn who_went_unchecked_for_long_is_checked_whatever_was_drawn() {
    let policy = Policy::error_rate(1_000, 50_000).expect("in range");
    let camps = camps(&policy, &[&[1000]]);
    let judge = |unchecked| policy.judge(&camps, Scene { unchecked, ..scene(NEVER) });
    assert_eq!(judge(limits::UNCHECKED_RESULTS_MAX - 1), accept(0, true));
    assert_eq!(judge(limits::UNCHECKED_RESULTS_MAX), more(1));
}

#[test]
fn newcomers_alone_don_t_decide_while_somebody_established_could_take_part() {
    let established = Judgement::More { attempts: 1, established: true };
    for policy in [Policy::quorum(2), Policy::error_rate(1_000, 50_000)].map(|policy| policy.expect("valid"))
    {
        let judge = |answers: &[&[u32]], established_elsewhere| {
            policy.judge(&camps(&policy, answers), Scene { established_elsewhere, ..scene(NEVER) })
        };
        assert_eq!(judge(&[&[9, 9, 9]], true), established);
        assert_eq!(judge(&[&[9, 9, 9]], false), accept(0, false));
        assert_eq!(judge(&[&[9, 10]], true), accept(0, false));
    }
}

#[test]
fn a_count_that_nobody_vouches_for_is_never_accepted_on_one_word() {
    let policy = Policy::error_rate(1_000, 50_000).expect("in range");
    let mut camp = Camp::default();
    camp.join(&policy, &Record { checks: 1000, caught: 0 }, false);
    assert_eq!(policy.judge(&[camp], scene(NEVER)), more(1));
    camp.join(&policy, &Record { checks: 1000, caught: 0 }, false);
    assert_eq!(policy.judge(&[camp], scene(NEVER)), accept(0, false));
}

#[test]
fn only_a_check_that_nobody_could_expect_is_passed() {
    let ours = Policy::error_rate(1_000, 50_000).expect("in range");
    let boinc = Policy::Adaptive { trusted_after: 10 };
    for (policy, agreed, first, agreeing, lesson) in [
        (ours, true, true, 2, Lesson::Passed),
        (ours, true, false, 2, Lesson::Nothing),
        (ours, true, true, 1, Lesson::Nothing),
        (ours, false, true, 1, Lesson::Caught),
        (ours, false, false, 3, Lesson::Caught),
        (boinc, true, false, 2, Lesson::Passed),
        (boinc, true, true, 1, Lesson::Nothing),
    ] {
        assert_eq!(policy.lesson(agreed, first, agreeing), lesson, "{policy:?} {agreed} {first} {agreeing}");
    }
}

#[test]
fn who_was_caught_begins_again() {
    let mut record = Record::default();
    (0..20).for_each(|_| record.learn(Lesson::Passed));
    record.learn(Lesson::Nothing);
    assert!(record.is_established() && record.checks == 20);
    record.learn(Lesson::Caught);
    assert_eq!(record, Record { checks: 0, caught: 1 });
}

#[test]
fn numbers_out_of_range_are_refused_with_the_range() {
    for (policy, message) in [
        (Policy::quorum(0), "quorum 0 is not between 1 and 15"),
        (Policy::error_rate(0, 1), "error rate 0 is not between 0.000001 and 0.5"),
        (Policy::error_rate(1_000, 500_000), "share of liars 0.5 is not between 0.000001 and 0.499999"),
    ] {
        assert_eq!(policy.expect_err(message).to_string(), message);
    }
}

proptest! {
    /// Whatever is asked, and whoever answers: honest workers who agree are believed in the end.
    #[test]
    fn answers_that_agree_suffice_some_time(
        error in 1_u32..=500_000, liars in 1_u32..=400_000, draw: u32, checks in prop::collection::vec(0_u32..100, 70),
    ) {
        let policy = Policy::error_rate(error, liars).expect("in range");
        let scene = Scene { draw: Draw::new(draw), unchecked: 1000, established_elsewhere: false };
        let mut camp = Camp::default();
        let needed = checks.iter().position(|checks| {
            camp.join(&policy, &Record { checks: *checks, caught: 0 }, true);
            matches!(policy.judge(&[camp], scene), Judgement::Accept { .. })
        });
        prop_assert!(needed.is_some());
    }

    /// What is accepted is never less certain than what was asked for.
    #[test]
    fn no_answer_is_accepted_that_is_less_certain_than_was_asked_for(
        error in 1_u32..=100_000, liars in 1_u32..=400_000, draw: u32,
        answers in prop::collection::vec(prop::collection::vec(0_u32..2000, 1..5), 1..4),
    ) {
        let policy = Policy::error_rate(error, liars).expect("in range");
        let answers: Vec<&[u32]> = answers.iter().map(Vec::as_slice).collect();
        let camps = camps(&policy, &answers);
        if let Judgement::Accept { camp, provisional } = policy.judge(&camps, scene(Draw::new(draw))) {
            let others = camps.iter().enumerate().filter(|(place, _)| *place != camp).map(|(_, camp)| *camp);
            prop_assert!(camps[camp].error(others) <= f64::from(error) / 1e6 * (1.0 + 1e-6));
            prop_assert_eq!(provisional, camps[camp].voters() == 1);
        }
    }
}
