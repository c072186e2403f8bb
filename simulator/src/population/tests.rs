//! What policies do with liars of every kind, as figures on fixed seeds.

use super::*;

const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;
const TASKS: u32 = 40_000;

fn group(count: u32, strategy: Strategy) -> RawGroup {
    RawGroup {
        count,
        strategy,
        rate: None,
        honest_for: None,
        lies_for: None,
        together: false,
        one_owner: false,
        speed: 1.0,
        speed_spread: 1.0,
        online_hours: None,
        offline_hours: None,
        checks: 0,
    }
}

/// Five hundred volunteers: those who cheat, and honest ones.
fn setup(cheats: RawGroup, assumed_liars: f64) -> Setup {
    let honest = group(500 - cheats.count, Strategy::Honest);
    let raw = RawSetup {
        seed: 1,
        tasks: TASKS,
        task_secs: 600.0,
        task_spread: 0.5,
        deadline_secs: 86_400.0,
        input_bytes: 1000,
        output_bytes: 100,
        shared_bytes: 1_000_000,
        error_rate: 1e-3,
        assumed_liars,
        replicas: Replicas::OneByOne,
        policies: vec!["error-rate".into()],
        volunteers: vec![honest, cheats],
    };
    raw.try_into().expect("a scenario that makes sense")
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn wrong(outcome: &Outcome) -> f64 {
    outcome.wrong_accepted as f64 / outcome.tasks as f64
}

#[test]
fn the_same_seed_gives_the_same_outcome_and_another_seed_another() {
    let setup = setup(RawGroup { together: true, ..group(25, Strategy::Always) }, 0.05);
    let run = |seed| simulate(&setup, PolicyName::ErrorRate, seed);
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).makespan_secs.to_bits(), run(2).makespan_secs.to_bits());
}

#[test]
fn colluding_liars_stay_below_the_error_rate_at_a_bounded_price() {
    for (cheats, share, most) in [(25, 0.05, 2.5), (100, 0.2, 3.0)] {
        for rate in [1.0, 0.3, 0.1, 0.02] {
            let liars = RawGroup { together: true, rate: Some(rate), ..group(cheats, Strategy::Sometimes) };
            let setup = setup(liars, share);
            for seed in SEEDS {
                let ours = simulate(&setup, PolicyName::ErrorRate, seed);
                assert_eq!(ours.tasks, u64::from(TASKS));
                let (wrong, price) = (wrong(&ours), ours.attempts_per_task());
                assert!(wrong <= 1e-3 && price <= most, "{share} {rate} seed {seed}: {wrong} at {price}");
            }
        }
        // What voting among two gets is known in closed form: 0.00725 and 0.104.
        let setup = setup(RawGroup { together: true, ..group(cheats, Strategy::Always) }, share);
        let voting = wrong(&simulate(&setup, PolicyName::Quorum(2), 1));
        let expected = if cheats == 25 { 0.004..0.011 } else { 0.08..0.13 };
        assert!(expected.contains(&voting), "{share}: {voting}");
    }
}

#[test]
fn who_is_honest_until_trusted_gets_through_with_boinc_and_not_here() {
    // An independent model of BOINC's rule says 0.45, 0.11, 0.036 and 0.017.
    for (honest_for, boinc_at_least) in [(10, 0.35), (20, 0.08), (50, 0.025), (100, 0.01)] {
        let cheats = |count| RawGroup { honest_for: Some(honest_for), ..group(count, Strategy::Oscillate) };
        let many = setup(RawGroup { together: true, ..cheats(25) }, 0.05);
        for seed in SEEDS {
            let ours = simulate(&many, PolicyName::ErrorRate, seed);
            assert!(wrong(&ours) <= 1e-3, "{honest_for} seed {seed}: {}", wrong(&ours));
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            let of_their_own = ours.groups[1].wrong_accepted as f64 / ours.groups[1].attempts as f64;
            // That they know how many checks they passed no real worker can.
            assert!(of_their_own <= 1e-3, "{honest_for} seed {seed}: {of_their_own} of their own");
        }
        // One among few gets enough to do to become trusted again and again.
        let mut alone = setup(cheats(1), 0.05);
        alone.groups[0].count = 4;
        alone.tasks = 100_000;
        let through = |policy| {
            let cheat = simulate(&alone, policy, 1).groups[1];
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            let through = cheat.wrong_accepted as f64 / cheat.attempts as f64;
            through
        };
        let (ours, boinc) = (through(PolicyName::ErrorRate), through(PolicyName::Boinc));
        assert!(ours <= 1e-3 && boinc >= boinc_at_least, "{honest_for}: {ours}, and {boinc} with BOINC");
    }
}

#[test]
fn who_is_honest_and_lies_by_turns_gets_no_more_through_than_is_allowed() {
    for (cheats, share, error_ppm) in
        [(25, 0.05, 1_000), (25, 0.05, 10_000), (100, 0.2, 1_000), (100, 0.2, 10_000)]
    {
        for (honest_for, lies_for) in [(40, 1), (40, 5), (40, 10), (60, 20), (100, 10), (200, 20)] {
            let turns = group(cheats, Strategy::Turns);
            let turns = RawGroup { honest_for: Some(honest_for), lies_for: Some(lies_for), ..turns };
            let mut setup = setup(turns, share);
            // A turn that goes unseen is many wrong results at once, so their mean needs many tasks.
            (setup.tasks, setup.error_ppm) = (200_000, error_ppm);
            for seed in 1..=2 {
                let ours = simulate(&setup, PolicyName::ErrorRate, seed);
                let wrong = wrong(&ours);
                let what =
                    format!("{share} {error_ppm} ppm, {honest_for} and {lies_for}, seed {seed}: {wrong}");
                assert!(wrong <= f64::from(error_ppm) / 1e6, "{what}");
                let [honest, cheat] =
                    [ours.groups[0], ours.groups[1]].map(|group| group.credit_per_attempt());
                assert!(cheat < honest, "{what}: {cheat} for a cheat, {honest} for honesty");
            }
        }
    }
}

#[test]
fn a_grid_of_known_honest_volunteers_costs_little_more_than_one_attempt_for_each_task() {
    let known = RawGroup { checks: 50, ..group(499, Strategy::Honest) };
    let setup = setup(known, 0.05);
    for seed in SEEDS {
        let ours = simulate(&setup, PolicyName::ErrorRate, seed);
        assert!(ours.attempts_per_task() <= 1.10, "seed {seed}: {}", ours.attempts_per_task());
    }
}

#[test]
fn a_burst_of_newcomers_that_lie_decides_nothing_in_a_grid_of_known_volunteers() {
    let mut burst = setup(RawGroup { together: true, ..group(250, Strategy::Always) }, 0.05);
    burst.groups[0].checks = 50;
    for seed in SEEDS {
        let ours = simulate(&burst, PolicyName::ErrorRate, seed);
        assert_eq!((ours.tasks, ours.wrong_accepted), (u64::from(TASKS), 0), "seed {seed}");
        let honest = ours.groups[0].credit_per_attempt();
        assert!(ours.groups[1].credit_per_attempt() < honest / 100.0, "seed {seed}");
    }
    // Without the rule that one of them has to agree who is none, they decide: voting shows it.
    let voting = simulate(&burst, PolicyName::Quorum(2), 1);
    assert!(wrong(&voting) > 0.3, "{}", wrong(&voting));
}

#[test]
fn asking_one_by_one_costs_fewer_attempts_and_little_time() {
    for (cheats, share, most) in [(25, 0.05, 1.9), (100, 0.2, 3.0)] {
        let liars = RawGroup { together: true, ..group(cheats, Strategy::Always) };
        let mut setup = setup(liars, share);
        let mut run = |replicas| {
            setup.replicas = replicas;
            simulate(&setup, PolicyName::ErrorRate, 1)
        };
        let (slow, fast) = (run(Replicas::OneByOne), run(Replicas::AtOnce));
        let (price, at_once) = (slow.attempts_per_task(), fast.attempts_per_task());
        assert!(price < most && price < at_once, "{share}: {price}, {at_once}");
        assert!(slow.makespan_secs < 1.1 * fast.makespan_secs, "{share}");
    }
}

#[test]
fn no_way_of_cheating_pays() {
    let with = |strategy, rate, honest_for| RawGroup { rate, honest_for, ..group(25, strategy) };
    let together = |group| RawGroup { together: true, ..group };
    let ways = [
        with(Strategy::Always, None, None),
        together(with(Strategy::Always, None, None)),
        together(with(Strategy::Sometimes, Some(0.3), None)),
        together(with(Strategy::Sometimes, Some(0.02), None)),
        together(with(Strategy::After, None, Some(50))),
        together(with(Strategy::Oscillate, None, Some(10))),
        RawGroup { one_owner: true, ..with(Strategy::Copy, None, None) },
        together(with(Strategy::Inflate, None, None)),
        with(Strategy::Replay, None, None),
        with(Strategy::Foreign, None, None),
        with(Strategy::Vanish, None, Some(20)),
        RawGroup { online_hours: Some(0.2), offline_hours: Some(0.2), ..with(Strategy::Flap, None, None) },
        with(Strategy::Late, None, None),
    ];
    for way in ways {
        let setup = setup(way.clone(), 0.05);
        for seed in SEEDS {
            let ours = simulate(&setup, PolicyName::ErrorRate, seed);
            let [honest, cheat] = [ours.groups[0], ours.groups[1]].map(|group| group.credit_per_attempt());
            assert_eq!(ours.tasks, u64::from(TASKS), "{way:?} seed {seed}");
            assert!(wrong(&ours) <= 1e-3, "{way:?} seed {seed}: {}", wrong(&ours));
            assert!(cheat < honest, "{way:?} seed {seed}: {cheat} for a cheat, {honest} for honesty");
        }
    }
}

#[test]
fn everything_that_is_wrong_with_a_scenario_is_said_at_once() {
    let raw = RawSetup {
        tasks: 0,
        error_rate: 2.0,
        policies: vec!["quorum-99".into(), "faith".into()],
        volunteers: vec![RawGroup { rate: Some(0.5), speed: f64::NAN, ..group(1, Strategy::Always) }],
        ..RawSetup {
            seed: 1,
            tasks: 1,
            task_secs: 0.0,
            task_spread: 0.0,
            deadline_secs: 1.0,
            input_bytes: 0,
            output_bytes: 0,
            shared_bytes: 0,
            error_rate: 1e-3,
            assumed_liars: 0.05,
            replicas: Replicas::AtOnce,
            policies: vec![],
            volunteers: vec![],
        }
    };
    let problems = Setup::try_from(raw).expect_err("nothing is right").to_string();
    for part in ["tasks must be", "task_secs", "error_rate", "quorum 99", "\"faith\"", "rate is for", "speed"]
    {
        assert!(problems.contains(part), "{part:?} is not in {problems}");
    }
}
