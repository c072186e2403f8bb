//! Who is served.

use std::time::Duration;

use proptest::prelude::*;

use super::{START, dice, peer};
use crate::{
    ids::BlobHash,
    limits,
    swarm::{PieceNo, UploadNo, Uploads, Wanted},
};

fn wanted(piece: u32) -> Wanted {
    Wanted { hash: BlobHash::new([1; 32]), piece: PieceNo::new(piece) }
}

/// Fills all slots but the optimistic one with requests of a peer that takes part in nothing else.
fn busy(uploads: &mut Uploads, slots: usize) -> Vec<UploadNo> {
    for piece in 0..slots {
        uploads.on_asked(START, peer(99), wanted(1000 + u32::try_from(piece).expect("few")));
    }
    (0..slots).map(|_| uploads.next(START, &mut dice(1)).expect("a slot")).collect()
}

#[test]
fn slots_are_few_and_the_rest_waits_until_one_is_free() {
    let mut uploads = Uploads::new(3);
    let asked: Vec<_> = (0..5).map(|n| uploads.on_asked(START, peer(n), wanted(0)).expect("room")).collect();
    let started: Vec<_> = std::iter::from_fn(|| uploads.next(START, &mut dice(1))).collect();
    assert_eq!((started.len(), uploads.load()), (3, (3, 2)));
    uploads.on_ended(started[0]);
    assert!(uploads.next(START, &mut dice(1)).is_some());
    for number in asked {
        uploads.on_ended(number);
    }
    assert_eq!(uploads.load(), (0, 0));
}

#[test]
fn who_gave_most_lately_is_served_first() {
    let mut uploads = Uploads::new(3);
    let running = busy(&mut uploads, 3);
    uploads.on_received(START, peer(1), 50 << 20);
    uploads.on_received(START, peer(2), 10 << 20);
    let [third, second, first] =
        [3, 2, 1].map(|n| uploads.on_asked(START, peer(n), wanted(0)).expect("room"));
    let mut order = Vec::new();
    for slot in &running[..2] {
        uploads.on_ended(*slot);
        let next = uploads.next(START, &mut dice(1)).expect("somebody waits");
        order.push(next);
    }
    assert_eq!(order, [first, second]);
    // What was given long ago counts less than what was given now.
    let later = START + limits::RECIPROCITY_HALF_LIFE * 4;
    uploads.on_received(later, peer(3), 20 << 20);
    let late = uploads.on_asked(later, peer(1), wanted(1)).expect("room");
    uploads.on_ended(order[0]);
    assert_eq!(uploads.next(later, &mut dice(1)), Some(third));
    uploads.on_ended(late);
}

#[test]
fn a_new_peer_gets_the_optimistic_slot_however_much_others_gave() {
    let mut uploads = Uploads::new(2);
    uploads.on_received(START, peer(1), 500 << 20);
    let newcomer = uploads.on_asked(START, peer(9), wanted(0)).expect("room");
    for piece in 0..6 {
        uploads.on_asked(START + Duration::from_millis(1), peer(1), wanted(piece));
    }
    let started = [0, 1].map(|_| uploads.next(START, &mut dice(1)).expect("a slot"));
    assert!(started.contains(&newcomer), "one slot is not for merit");
}

#[test]
fn a_source_sends_each_piece_once_before_it_sends_one_twice() {
    let mut uploads = Uploads::of_source(2);
    let first = uploads.on_asked(START, peer(0), wanted(0)).expect("room");
    assert_eq!(uploads.next(START, &mut dice(1)), Some(first));
    uploads.on_ended(first);
    let again = uploads.on_asked(START, peer(1), wanted(0)).expect("room");
    let other = uploads.on_asked(START, peer(2), wanted(1)).expect("room");
    assert_eq!(uploads.next(START, &mut dice(1)), Some(other), "a piece that nobody has yet");
    assert_eq!(uploads.next(START, &mut dice(1)), None, "whoever got it can pass it on");
    let later = START + Duration::from_secs(1);
    assert_eq!(uploads.expire(later), [again], "it is told so soon");
    let once_more = uploads.on_asked(later, peer(1), wanted(0)).expect("room");
    uploads.on_ended(other);
    assert_eq!(uploads.next(later, &mut dice(1)), Some(once_more), "nothing goes out for the first time");
}

#[test]
fn a_flood_of_one_peer_is_refused_and_others_are_served() {
    let mut uploads = Uploads::new(4);
    let taken = (0..1000).filter(|piece| uploads.on_asked(START, peer(1), wanted(*piece)).is_some()).count();
    assert_eq!(taken, limits::UPLOADS_PER_PEER_MAX);
    while uploads.next(START, &mut dice(1)).is_some() {}
    let honest = uploads.on_asked(START, peer(2), wanted(0)).expect("room");
    let mut served = 0;
    let mut running: Vec<UploadNo> = Vec::new();
    while served < 3 && !running.contains(&honest) {
        // The flood's requests end one by one, and it asks again at once.
        let ended = first_of(&uploads);
        uploads.on_ended(ended);
        uploads.on_asked(START, peer(1), wanted(served));
        running.extend(uploads.next(START, &mut dice(1)));
        served += 1;
    }
    assert!(running.contains(&honest), "it waited for {served} others");
}

/// The request that has been served for longest.
fn first_of(uploads: &Uploads) -> UploadNo {
    uploads.serving().next().expect("some are served")
}

#[test]
fn who_waits_too_long_is_told_so() {
    let mut uploads = Uploads::new(2);
    busy(&mut uploads, 2);
    let waits = uploads.on_asked(START, peer(1), wanted(0)).expect("room");
    assert!(uploads.expire(START + limits::UPLOAD_WAIT_MAX / 2).is_empty());
    assert_eq!(uploads.expire(START + limits::UPLOAD_WAIT_MAX), [waits]);
    assert_eq!(uploads.load(), (2, 0));
}

proptest! {
    #[test]
    fn no_more_than_the_slots_are_served_and_every_request_ends_or_waits(
        slots in 2usize..6,
        seed: u64,
        steps in prop::collection::vec((0u8..6, 0u8..8, 0u32..20), 0..300),
    ) {
        let mut dice = dice(seed);
        let mut uploads = Uploads::new(slots);
        let (mut now, mut open) = (START, Vec::new());
        for (what, who, which) in steps {
            now = now + Duration::from_millis(u64::from(which) * 10);
            match what {
                0 | 1 => open.extend(uploads.on_asked(now, peer(who), wanted(which))),
                2 if !open.is_empty() => uploads.on_ended(open.swap_remove(which as usize % open.len())),
                3 => uploads.on_received(now, peer(who), u64::from(which) << 20),
                4 => {
                    let expired = uploads.expire(now);
                    open.retain(|number| !expired.contains(number));
                }
                _ => {
                    let next = uploads.next(now, &mut dice);
                    prop_assert!(next.is_none_or(|number| open.contains(&number)));
                }
            }
            let (serving, waiting) = uploads.load();
            prop_assert!(serving <= slots);
            prop_assert_eq!(serving + waiting, open.len());
        }
    }
}
