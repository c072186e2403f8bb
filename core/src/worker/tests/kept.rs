//! Large outputs, kept over restarts and for so long.

use super::*;

#[test]
fn what_was_finished_before_a_restart_is_reported_again_and_kept() {
    let mut worker = Worker::new(1);
    let spec = Arc::new(spec(10, 1));
    worker.on_kept(&spec, large(attempt(3)));
    worker.on_kept(&spec, large(attempt(3)));
    assert_eq!(worker.holding(), [attempt(3)]);
    assert_eq!(worker.load().unsettled, 1, "once");
    let mut fx = Effects::default();
    worker.on_welcome(&[], &mut fx);
    assert_eq!(fx.reports, [vec![large(attempt(3))]]);
    assert_eq!((fx.fetch, fx.start.len()), (vec![], 0), "it is not run again");
    let mut fx = Effects::default();
    worker.on_settled(&[attempt(3)], &[], &mut fx);
    assert!(worker.keeps_outputs());
    worker.on_settled(&[], &[attempt(3)], &mut fx);
    assert_eq!(fx.release, [attempt(3)]);
    assert!(!worker.keeps_outputs());
}

#[test]
fn what_nobody_wants_after_a_restart_goes() {
    let mut worker = Worker::new(1);
    worker.on_kept(&Arc::new(spec(10, 1)), large(attempt(3)));
    let mut fx = Effects::default();
    worker.on_welcome(&[attempt(3)], &mut fx);
    assert_eq!((fx.release, fx.reports.len()), (vec![attempt(3)], 0));
    assert_eq!(worker.holding(), []);
}

#[test]
fn who_keeps_too_much_starts_nothing_new_until_some_of_it_is_released() {
    let mut rig = Rig::ready(1);
    rig.worker.bound_outputs(2 << 20);
    rig.lease(0..4);
    for index in 0..2 {
        rig.finish_as(0, large(attempt(index)));
        // Short attempts come in batches, which are not taken back.
        rig.stopped(0);
    }
    rig.settle(&attempts(0..2), &[]);
    assert_eq!(rig.running(0), None);
    rig.settle(&[], &[attempt(1)]);
    assert_eq!(rig.running(0), Some(attempt(2)));
}

#[test]
fn what_was_kept_for_too_long_goes_whatever_became_of_its_report() {
    let mut rig = Rig::ready(1);
    rig.lease(0..3);
    for index in 0..2 {
        rig.finish_as(0, large(attempt(index)));
    }
    rig.settle(&[attempt(0)], &[]);
    let all = attempts(0..5);
    rig.act(|worker, fx| worker.on_kept_too_long(&all, fx));
    assert_eq!(rig.fx.release, attempts(0..2));
    assert_eq!(rig.running(0), Some(attempt(2)), "what runs goes on");
}
