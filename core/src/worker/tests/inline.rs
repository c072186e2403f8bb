//! Inputs that come along with their attempts.

use super::*;
use crate::job::{Inputs, JobSpec, tests::raw};

/// A job with packed inputs.
fn packed() -> Arc<JobSpec> {
    let blob = |byte| BlobRef { hash: BlobHash::new([byte; 32]), size: Bytes::mib(1) };
    let mut raw = raw(1000, 1);
    raw.inputs = Inputs::Packed { data: blob(2), index: blob(3), count: 1000 };
    Arc::new(raw.validate().expect("a valid job"))
}

fn worker() -> Worker {
    let mut worker = Worker::new(1);
    worker.on_welcome(&[], &mut Effects::default());
    worker.on_job(JOB, packed(), &mut Effects::default());
    worker
}

fn items(indices: Range<u64>, inline: Option<usize>) -> Vec<Assignment> {
    let input = |index| Assignment {
        attempt: attempt(index),
        input: 100 * index..100 * index + inline.unwrap_or(100) as u64,
        inline: inline.map(|bytes| vec![b'x'; bytes].into()),
    };
    indices.map(input).collect()
}

#[test]
fn inputs_that_came_along_are_not_fetched() {
    let (mut worker, mut fx) = (worker(), Effects::default());
    worker.on_lease(JOB, items(0..2, Some(5)), &mut fx);
    assert_eq!(fx.fetch, [PROGRAM]);
    worker.on_fetched(PROGRAM, &mut fx);
    assert_eq!(fx.start[0].batch[0].inline.as_deref(), Some(&b"xxxxx"[..]));
}

#[test]
fn one_that_did_not_come_along_has_the_rest_fetched() {
    let (mut worker, mut fx) = (worker(), Effects::default());
    worker.on_lease(JOB, items(0..1, Some(5)), &mut fx);
    worker.on_fetched(PROGRAM, &mut fx);
    assert_eq!(fx.start.len(), 1);
    let mut fx = Effects::default();
    worker.on_lease(JOB, items(1..3, None), &mut fx);
    worker.on_lease(JOB, items(3..4, Some(5)), &mut fx);
    assert_eq!(fx.fetch, [all_of(JOB)], "once");
    worker.on_finished(SlotNo::new(0), report(attempt(0), 1, 1000), &mut fx);
    worker.on_fetched(PROGRAM, &mut fx);
    assert!(fx.start.is_empty(), "the fetch that was overtaken is not enough");
    worker.on_fetched(all_of(JOB), &mut fx);
    assert_eq!(fx.start.len(), 1);
    worker.on_fetched(PROGRAM, &mut fx);
    let mut fx = Effects::default();
    worker.on_lease(JOB, items(4..5, None), &mut fx);
    assert_eq!(fx.fetch, [], "everything is here");
}

#[test]
fn a_fetch_that_is_under_way_is_extended() {
    let (mut worker, mut fx) = (worker(), Effects::default());
    worker.on_lease(JOB, items(0..1, Some(5)), &mut fx);
    worker.on_lease(JOB, items(1..2, None), &mut fx);
    assert_eq!(fx.fetch, [PROGRAM, all_of(JOB)]);
}

#[test]
fn inputs_that_wait_are_bounded() {
    let (mut worker, mut fx) = (worker(), Effects::default());
    let bytes = usize::try_from(limits::INLINE_INPUTS_HELD_BYTES_MAX / 4).expect("fits");
    worker.on_lease(JOB, items(0..4, Some(bytes)), &mut fx);
    assert_eq!(fx.fetch, [PROGRAM]);
    worker.on_lease(JOB, items(4..5, Some(1)), &mut fx);
    assert_eq!(fx.fetch, [PROGRAM, all_of(JOB)], "one more is dropped, and fetched when it is needed");
    worker.on_fetched(all_of(JOB), &mut fx);
    assert_eq!(fx.start[0].batch[0].inline.as_ref().map(|input| input.len()), Some(bytes));
}
