//! Whether the simulator has teeth: each deliberate defect of the core is caught, by one of the things that must hold.
//!
//! `cargo test --release --locked -p talka-simulator --features mutants`

use std::collections::BTreeMap;

use talka_core::mutants::{Mutant, activate};
use talka_simulator::{Invariant, Scenario, run};

/// Seeds after which a defect counts as not caught.
const SEEDS_MAX: u64 = 1000;

/// The first seed that shows a defect, and what it breaks.
fn first_catch(mutant: Mutant) -> Option<(u64, Invariant, String)> {
    activate(Some(mutant));
    let caught = (1..=SEEDS_MAX).find_map(|seed| {
        // What an outside observer sees is what counts: the core's own checks are off.
        let scenario = Scenario { inspect_every: 0, ..Scenario::rough(seed) };
        let violation = run(seed, &scenario).err()?;
        Some((seed, violation.invariant, violation.what))
    });
    activate(None);
    caught
}

/// What each defect breaks.
fn expected() -> BTreeMap<Mutant, Invariant> {
    use Invariant as I;
    use Mutant as M;
    BTreeMap::from([
        (M::AcknowledgesEarly, I::S1),
        (M::ForgetsReports, I::S1),
        (M::ForgetsVotes, I::S1),
        (M::HurriesQuorum, I::S2),
        (M::ReopensFinals, I::S2),
        (M::PaysTwice, I::S3),
        (M::PaysClaims, I::S3),
        (M::LeasesAttemptAgain, I::S4),
        (M::ReusesNumbers, I::S4),
        (M::CountsGivenUp, I::S5),
        (M::CountsForeign, I::S5),
        (M::AsksTwice, I::S6),
        (M::LeasesWithoutBound, I::S7),
        (M::NeverExpires, I::Alive),
        (M::WaitsForTheLost, I::Alive),
        (M::NeverRelaxes, I::Alive),
        (M::ReportsOnce, I::Alive),
        (M::ForgetsAnew, I::Alive),
    ])
}

#[test]
#[expect(clippy::print_stderr, reason = "which seed caught what")]
fn every_deliberate_defect_is_caught_by_what_it_breaks() {
    let expected = expected();
    assert_eq!(expected.len(), Mutant::ALL.len());
    let mut wrong = vec![];
    for mutant in Mutant::ALL {
        let caught = first_catch(mutant);
        match &caught {
            Some((seed, invariant, what)) => {
                let what = what.lines().next().unwrap_or_default();
                eprintln!("{mutant:?}: caught by {invariant} with seed {seed}: {what}");
            }
            None => eprintln!("{mutant:?}: not caught by {SEEDS_MAX} seeds"),
        }
        if caught.map(|(_, invariant, _)| invariant) != Some(expected[&mutant]) {
            wrong.push(mutant);
        }
    }
    assert_eq!(wrong, [], "these are not caught, or by something else than what they break");
}

#[test]
fn without_a_defect_the_same_seeds_hold() {
    activate(None);
    for seed in 1..=20 {
        let scenario = Scenario { inspect_every: 0, ..Scenario::rough(seed) };
        assert_eq!(run(seed, &scenario).err(), None, "seed {seed}");
    }
}
