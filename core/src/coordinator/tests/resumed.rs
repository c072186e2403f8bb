//! Attempts that were interrupted and went on from a checkpoint: they agree on everything but the fuel.

use super::grid::{A, B, D, FUEL, Grid, Says, counted, job, large, outcome, resumed, said};
use crate::{
    coordinator::TaskVerdict,
    digest::result_digest,
    outcome::Exit,
    quantities::{Credit, Fuel},
};

const MORE: u64 = FUEL.get() + 100;

fn verdict(answer: &str, fuel: Option<u64>, shown: u64) -> TaskVerdict {
    let digest = result_digest(outcome(answer), fuel.map(Fuel::new));
    TaskVerdict::Agreed { digest, exit: Exit::Ok, fuel: Fuel::new(shown) }
}

fn credit(fuel: u64) -> Credit {
    Fuel::new(fuel).credit()
}

/// One task of quorum 2, on which workers report in turn, and who they were.
fn reported(says: impl IntoIterator<Item = Says>) -> (Grid, Vec<u8>) {
    let mut grid = Grid::with_workers(A..=D);
    grid.submit(job(1).quorum(2));
    let mut voters = vec![];
    for says in says {
        let asked = (A..=D).find(|worker| grid.worker(*worker).holds() == [0]);
        let worker = asked.unwrap_or_else(|| panic!("nobody is asked for {says:?}"));
        grid.worker(worker).reports(0, says);
        voters.push(worker);
    }
    (grid, voters)
}

#[test]
fn an_interruption_changes_neither_result_nor_credit() {
    for (first, second) in [
        (Says::from("a"), resumed("a", MORE)),
        (resumed("a", MORE), Says::from("a")),
        (resumed("a", FUEL.get()), Says::from("a")),
        (resumed("a", u64::MAX), Says::from("a")),
    ] {
        let (grid, voters) = reported([first, second]);
        grid.expect_done(0, "a", &voters);
        assert_eq!(grid.result(0).verdict, verdict("a", Some(FUEL.get()), FUEL.get()));
    }
}

#[test]
fn where_all_were_interrupted_the_digest_leaves_fuel_out_and_the_smallest_is_paid() {
    let (grid, voters) = reported([resumed("a", MORE), resumed("a", MORE + 7)]);
    assert_eq!(grid.result(0).verdict, verdict("a", None, MORE));
    assert!(voters.into_iter().all(|worker| grid.credit(worker).credit == credit(MORE)));
}

#[test]
fn uninterrupted_attempts_must_agree_on_fuel() {
    let (grid, voters) = reported([Says::from("a"), counted("a", MORE), "a".into()]);
    grid.expect_done(0, "a", &[voters[0], voters[2]]);
    assert_eq!(grid.credit(voters[1]).invalid, 1);
}

#[test]
fn one_that_was_interrupted_does_not_decide_between_two_counts() {
    let (grid, voters) = reported([Says::from("a"), counted("a", MORE), resumed("a", MORE), "a".into()]);
    grid.expect_done(0, "a", &[voters[0], voters[2], voters[3]]);
    assert_eq!(grid.credit(voters[1]).invalid, 1);
}

#[test]
fn who_always_says_that_it_was_interrupted_gains_nothing() {
    // What the liar says first; what the honest peers get; what the liar gets.
    for (lie, honest, liar) in [
        // The right answer, and a claim of more work than anybody else did.
        (resumed("a", u64::MAX), FUEL.get(), FUEL.get()),
        (resumed("a", MORE), FUEL.get(), FUEL.get()),
        // Less work: then that is what it gets.
        (resumed("a", 1), 1, 1),
        // A wrong answer stays one.
        (resumed("wrong", FUEL.get()), FUEL.get(), 0),
        (resumed("wrong", u64::MAX), FUEL.get(), 0),
    ] {
        let text = format!("{lie:?}");
        let others = if liar == 0 { 2 } else { 1 };
        let says = [lie].into_iter().chain(std::iter::repeat_n(Says::from("a"), others));
        let (grid, voters) = reported(says);
        let earned = |worker: &u8| grid.credit(*worker).credit;
        assert_eq!(earned(&voters[0]), credit(liar), "{text}");
        assert!(voters[1..].iter().all(|worker| earned(worker) == credit(honest)), "{text}");
        assert_eq!(grid.result(0).verdict, verdict("a", Some(FUEL.get()), FUEL.get()), "{text}");
    }
}

#[test]
fn large_outputs_agree_in_the_same_way() {
    let (mut grid, voters) = reported([resumed(large("a"), MORE), large("a")]);
    let [fetch] = grid.fetches.as_slice() else { panic!("one fetch: {:?}", grid.fetches) };
    assert_eq!((fetch.agreed, fetch.sources.len()), (said("a"), 2));
    grid.output_arrives(0, "a", &[]);
    grid.expect_done(0, "a", &voters);

    let (mut grid, _) = reported([resumed(large("a"), MORE), resumed(large("a"), MORE + 1)]);
    grid.output_arrives(0, "a", &[]);
    assert_eq!(grid.result(0).verdict, verdict("a", None, MORE));
}

#[test]
fn what_was_interrupted_is_remembered_by_a_coordinator_that_restarts() {
    for (first, second, expected) in [
        (resumed("a", MORE), Says::from("a"), verdict("a", Some(FUEL.get()), FUEL.get())),
        (resumed("a", MORE), resumed("a", MORE + 1), verdict("a", None, MORE)),
        (Says::from("a"), resumed("a", MORE), verdict("a", Some(FUEL.get()), FUEL.get())),
    ] {
        let mut grid = Grid::with_workers(A..=B);
        grid.submit(job(1).quorum(2));
        grid.worker(A).reports(0, first);
        grid.coordinator_restarts();
        grid.worker(B).connects(1);
        grid.worker(B).reports(0, second);
        assert_eq!(grid.result(0).verdict, expected);
    }
}
