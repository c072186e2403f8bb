//! Giving back what others could begin.

use super::*;

#[test]
fn what_waits_is_given_back_and_what_was_begun_is_not() {
    let mut rig = Rig::ready(1);
    rig.lease(0..6);
    let done = rig.finish(0);
    assert_eq!(rig.batch(0), attempts(1..6), "short ones go to the slot together");
    rig.lease(6..9);
    let asked = [done, attempt(1), attempt(5), attempt(7), attempt(8), attempt(100), attempt_of(OTHER, 7)];
    rig.act(|worker, fx| worker.on_recalled(&asked, fx));
    assert_eq!(rig.fx.give_back, [attempts(7..9)]);
    let held = rig.worker.holding();
    assert!(!held.contains(&attempt(7)) && !held.contains(&attempt(8)), "{held:?}");
    assert!(held.contains(&attempt(6)) && held.contains(&attempt(5)) && held.contains(&done));
    for _ in 1..6 {
        rig.finish(0);
    }
    assert_eq!(rig.running(0), Some(attempt(6)));
    rig.finish(0);
    assert_eq!(rig.running(0), None, "what was given back is not run");
}

#[test]
fn there_is_always_an_answer() {
    let mut rig = Rig::ready(1);
    rig.act(|worker, fx| worker.on_recalled(&attempts(0..3), fx));
    assert_eq!(rig.fx.give_back, [vec![]]);
}

#[test]
fn what_was_given_back_may_come_again() {
    let mut rig = Rig::ready(1);
    rig.lease(0..3);
    rig.act(|worker, fx| worker.on_recalled(&attempts(0..3), fx));
    assert_eq!(rig.fx.give_back, [attempts(1..3)]);
    let again = AttemptId { number: 2, ..attempt(2) };
    let item = Assignment { attempt: again, input: 0..0, inline: None };
    rig.act(|worker, fx| worker.on_lease(JOB, vec![item], fx));
    rig.finish(0);
    assert_eq!(rig.running(0), Some(again));
}

#[test]
fn what_was_begun_before_a_restart_or_a_stop_stays() {
    let mut worker = Worker::new(1);
    let assignment = Assignment { attempt: attempt(3), input: 0..0, inline: None };
    worker.on_restored(&Arc::new(spec(10, 1)), assignment);
    let mut fx = Effects::default();
    worker.on_welcome(&[], &mut fx);
    worker.on_recalled(&[attempt(3)], &mut fx);
    assert_eq!(fx.give_back, [vec![]]);

    let mut rig = Rig::ready(1);
    rig.lease(0..1);
    rig.finish(0);
    rig.lease(1..5);
    rig.cancel(&[attempt(1)]);
    rig.worker.pause();
    rig.stopped(0);
    rig.act(|worker, fx| worker.on_recalled(&attempts(2..5), fx));
    assert_eq!(rig.fx.give_back, [vec![]], "their batch had begun");
}
