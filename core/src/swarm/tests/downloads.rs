//! What is asked of whom.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use super::{START, dice, mib, peer};
use crate::{
    limits,
    swarm::{
        Download, Failure, Kind, PieceNo, PieceSet, Request,
        download::{HEAD_START, SOURCE_SPARED},
    },
};

fn pieces(numbers: impl IntoIterator<Item = u32>) -> Vec<PieceNo> {
    numbers.into_iter().map(PieceNo::new).collect()
}

/// A download of `count` pieces with these providers: number, kind, pieces.
fn download(count: u32, providers: &[(u8, Kind, &[u32])]) -> Download {
    let mut download = Download::new(mib(count.into()), PieceSet::none(count));
    for (number, kind, has) in providers {
        assert!(download.on_provider(peer(*number), *kind));
        download.on_has(peer(*number), pieces(has.iter().copied()));
    }
    download
}

fn all_requests(download: &mut Download, at: crate::quantities::Timestamp) -> Vec<Request> {
    let mut dice = dice(7);
    let requests = std::iter::from_fn(|| download.next(at, &mut dice)).collect();
    download.check_invariants();
    requests
}

#[test]
fn the_rarest_piece_goes_first() {
    let mut download =
        download(3, &[(1, Kind::Peer, &[0, 1, 2]), (2, Kind::Peer, &[0, 2]), (3, Kind::Peer, &[0])]);
    let order: Vec<u32> =
        all_requests(&mut download, START).iter().map(|request| request.piece.get()).collect();
    assert_eq!(order, [1, 2, 0]);
}

#[test]
fn a_wanted_piece_goes_before_a_rarer_one() {
    let mut download = download(3, &[(1, Kind::Peer, &[0, 1, 2]), (2, Kind::Peer, &[1, 2])]);
    download.want(&(2 * limits::SWARM_PIECE_BYTES..2 * limits::SWARM_PIECE_BYTES + 1));
    assert_eq!(download.next(START, &mut dice(1)).expect("one").piece.get(), 2);
    assert_eq!(download.next(START, &mut dice(1)).expect("one").piece.get(), 0);
}

#[test]
fn each_provider_gets_two_requests_and_the_least_busy_one_first() {
    let all = [0, 1, 2, 3, 4, 5];
    let mut download = download(6, &[(1, Kind::Peer, &all), (2, Kind::Peer, &all)]);
    let requests = all_requests(&mut download, START);
    let to = |number| requests.iter().filter(|request| request.peer == peer(number)).count();
    assert_eq!((requests.len(), to(1), to(2)), (4, 2, 2));
    assert_ne!(requests[0].peer, requests[1].peer, "the least busy");
    let distinct: BTreeSet<PieceNo> = requests.iter().map(|request| request.piece).collect();
    assert_eq!(distinct.len(), 4);
}

#[test]
fn the_source_is_asked_for_what_nobody_else_has_and_for_the_rest_when_others_are_slow() {
    let mut download = download(6, &[(0, Kind::Source, &[0, 1, 2, 3, 4]), (1, Kind::Peer, &[1, 2, 3, 4, 5])]);
    download.want(&(5 * limits::SWARM_PIECE_BYTES..6 * limits::SWARM_PIECE_BYTES));
    let first = download.next(START, &mut dice(1)).expect("one");
    assert_eq!((first.peer, first.piece.get()), (peer(1), 5));
    download.on_fetched(START, first.number);
    let requests = all_requests(&mut download, START);
    let of_source: Vec<u32> = requests
        .iter()
        .filter(|request| request.peer == peer(0))
        .map(|request| request.piece.get())
        .collect();
    assert_eq!((requests.len(), of_source), (3, vec![0]));
    assert_eq!(download.next(START + SOURCE_SPARED / 2, &mut dice(1)), None, "it is spared");
    let later = download.next(START + SOURCE_SPARED, &mut dice(1)).expect("others had their time");
    assert_eq!(later.peer, peer(0));
}

/// A blob of one piece would come from the source every time: it is known to have it.
#[test]
fn peers_that_were_there_first_have_a_moment_to_say_what_they_have() {
    let both: [(u8, Kind, &[u32]); 2] = [(0, Kind::Source, &[0]), (1, Kind::Peer, &[])];
    let mut heard = download(1, &both);
    assert_eq!(heard.next(START, &mut dice(1)), None, "the source can wait");
    heard.on_has(peer(1), pieces([0]));
    assert_eq!(heard.next(START, &mut dice(1)).expect("it has it").peer, peer(1));

    let mut silent = download(1, &both);
    assert_eq!(silent.next(START, &mut dice(1)), None);
    assert_eq!(silent.next(START + HEAD_START, &mut dice(1)).expect("long enough").peer, peer(0));

    let mut alone = download(1, &both[..1]);
    assert_eq!(alone.next(START, &mut dice(1)).expect("nobody to wait for").peer, peer(0));
}

#[test]
fn a_request_that_waits_at_the_source_goes_to_who_has_the_piece_meanwhile() {
    let mut download = download(2, &[(0, Kind::Source, &[0]), (1, Kind::Peer, &[1])]);
    let requests = all_requests(&mut download, START);
    let of = |number| requests.iter().find(|request| request.peer == peer(number)).expect("one each");
    let first = of(0);
    download.on_fetched(START, of(1).number);
    let later = START + Duration::from_millis(200);
    assert_eq!(download.expire(later), []);
    download.on_has(peer(1), pieces([0]));
    assert_eq!(download.expire(later), [first.number]);
    assert_eq!(download.next(later, &mut dice(1)).expect("again").peer, peer(1));
    download.check_invariants();
}

#[test]
fn a_liar_is_out_at_once_and_its_piece_comes_from_another() {
    let mut download = download(1, &[(1, Kind::Peer, &[0])]);
    let request = download.next(START, &mut dice(1)).expect("one");
    assert_eq!(download.on_failed(START, request.number, Failure::Lie), Some(peer(1)));
    assert!(!download.on_provider(peer(1), Kind::Peer), "it does not come back");
    download.on_has(peer(1), pieces([0]));
    assert_eq!(download.next(START + Duration::from_mins(10), &mut dice(1)), None);
    assert!(download.on_provider(peer(2), Kind::Peer));
    download.on_has(peer(2), pieces([0]));
    let request = download.next(START, &mut dice(1)).expect("one");
    assert!(download.on_fetched(START, request.number).is_empty());
    assert!(download.is_complete());
    download.check_invariants();
}

#[test]
fn who_stalls_or_crawls_rests_longer_each_time_and_is_dropped_in_the_end() {
    let crawl = limits::PROVIDER_RATE_MIN * limits::PROVIDER_STALL_MAX.as_secs() / 2;
    for bytes in [0, crawl] {
        let mut download = download(2, &[(1, Kind::Peer, &[0])]);
        let first = download.next(START, &mut dice(1)).expect("one");
        download.on_fetched(START, first.number);
        download.on_has(peer(1), pieces([1]));
        let (mut now, mut rests, mut last) = (START, 0, Duration::ZERO);
        while download.providers().next().is_some() {
            let Some(request) = download.next(now, &mut dice(1)) else {
                now = now + Duration::from_millis(100);
                last += Duration::from_millis(100);
                continue;
            };
            rests += 1;
            last = Duration::ZERO;
            let begun = now;
            loop {
                now = now + Duration::from_secs(1);
                download.on_progress(now, request.number, bytes * now.since(begun).as_secs() / 20);
                if download.expire(now).contains(&request.number) {
                    break;
                }
                assert!(now.since(begun) < 2 * limits::PROVIDER_STALL_MAX, "it is not waited for so long");
            }
            download.check_invariants();
        }
        assert!(rests >= 3, "{rests}");
        assert!(last <= Duration::from_secs(31));
        assert_eq!(download.leavers(now), [peer(1)], "it may be named again");
    }
}

#[test]
fn who_begins_with_silence_is_dropped_at_once() {
    let mut download = download(2, &[(1, Kind::Peer, &[0, 1])]);
    assert_eq!(all_requests(&mut download, START).len(), 2);
    let later = START + limits::PROVIDER_STALL_MAX + Duration::from_secs(1);
    assert_eq!(download.expire(later).len(), 2);
    assert_eq!(download.providers().count(), 0);
    assert_eq!(download.leavers(later), [peer(1)]);
    assert!(download.leavers(later).is_empty());
    download.check_invariants();
}

#[test]
fn a_piece_that_takes_long_is_rescued_by_somebody_who_is_known_to_send() {
    let all = [0, 1, 2, 3];
    let drips = [(1, Kind::Peer, &all[..]), (2, Kind::Peer, &all[..])];
    let mut download = download(4, &drips);
    assert_eq!(all_requests(&mut download, START).len(), 4, "all are on their way");
    assert!(download.on_provider(peer(9), Kind::Source));
    download.on_has(peer(9), pieces(all));
    let mut now = START + Duration::from_secs(1);
    for _ in 0..2 {
        let rescues = all_requests(&mut download, now);
        assert_eq!(rescues.iter().map(|request| request.peer).collect::<Vec<_>>(), [peer(9), peer(9)]);
        now = now + Duration::from_secs(1);
        for rescue in rescues {
            // Its first provider is free again, and not the one to rescue another piece.
            assert_eq!(download.on_fetched(now, rescue.number).len(), 1);
        }
    }
    assert!(download.is_complete());
}

#[test]
fn who_claims_what_it_has_not_is_not_asked_for_it_again() {
    let mut download = download(2, &[(1, Kind::Peer, &[0, 1]), (2, Kind::Peer, &[0, 1])]);
    let request = download.next(START, &mut dice(1)).expect("one");
    assert_eq!(download.on_failed(START, request.number, Failure::NotHeld), None);
    let later = START + Duration::from_mins(1);
    let again = all_requests(&mut download, later);
    assert_eq!(again.len(), 2);
    let same = again.iter().find(|again| again.piece == request.piece).expect("it is still missing");
    assert_ne!(same.peer, request.peer);
}

#[test]
fn a_busy_provider_is_asked_again_and_never_dropped() {
    let mut download = download(1, &[(1, Kind::Peer, &[0])]);
    let mut now = START;
    for _ in 0..100 {
        let request = download.next(now, &mut dice(1)).expect("it rested");
        download.on_failed(now, request.number, Failure::Busy);
        assert_eq!(download.next(now, &mut dice(1)), None);
        now = now + Duration::from_secs(5);
    }
}

#[test]
fn in_the_end_a_slow_piece_is_asked_of_two_and_the_first_answer_counts() {
    let mut download = download(1, &[(1, Kind::Peer, &[0]), (2, Kind::Peer, &[0]), (3, Kind::Peer, &[0])]);
    let first = download.next(START, &mut dice(1)).expect("one");
    assert_eq!(download.next(START, &mut dice(1)), None, "it has just been asked");
    let later = START + Duration::from_secs(1);
    let second = download.next(later, &mut dice(1)).expect("a second one");
    assert_ne!(first.peer, second.peer);
    assert_eq!(download.next(later + Duration::from_secs(1), &mut dice(1)), None, "two are enough");
    assert_eq!(download.on_fetched(later, second.number), [first.number]);
    assert!(download.is_complete());
    assert_eq!(download.on_failed(later, first.number, Failure::Failed), None, "it was dropped");
    download.check_invariants();
}

#[test]
fn what_is_on_disk_is_not_fetched_and_what_was_lost_is_again() {
    let mut have = PieceSet::all(4);
    have.remove(PieceNo::new(2));
    let mut download = Download::new(mib(4), have);
    download.on_provider(peer(1), Kind::Peer);
    download.on_has(peer(1), pieces(0..4));
    let requests = all_requests(&mut download, START);
    assert_eq!(requests.iter().map(|request| request.piece.get()).collect::<Vec<_>>(), [2]);
    download.on_fetched(START, requests[0].number);
    assert!(download.is_complete());
    download.lost(PieceNo::new(0));
    assert!(!download.is_complete());
    assert_eq!(all_requests(&mut download, START)[0].piece.get(), 0);
}

#[test]
fn claims_beyond_the_blob_and_a_flood_of_providers_cost_nothing() {
    let mut download = download(2, &[(1, Kind::Peer, &[0, 1, 2, 1000, u32::MAX])]);
    assert_eq!(all_requests(&mut download, START).len(), 2);
    let taken = (2..=255).filter(|number| download.on_provider(peer(*number), Kind::Peer)).count();
    assert_eq!(taken, limits::SWARM_PROVIDERS_MAX - 1);
    assert!(download.on_provider(peer(0), Kind::Source), "there is always room for the source");
}

proptest! {
    #[test]
    fn whatever_happens_the_books_agree_and_an_honest_source_ends_it(
        seed: u64,
        count in 1u32..40,
        steps in prop::collection::vec((0u8..12, 0u8..6, 0u32..45), 0..300),
    ) {
        let mut dice = dice(seed);
        let mut download = Download::new(mib(count.into()), PieceSet::none(count));
        let (mut now, mut running) = (START, Vec::<Request>::new());
        for (what, who, which) in steps {
            now = now + Duration::from_millis(u64::from(which) * 40);
            let chosen = (!running.is_empty()).then(|| which as usize % running.len());
            match (what, chosen) {
                (0, _) => drop(download.on_provider(peer(who), Kind::Peer)),
                (1 | 2, _) => download.on_has(peer(who), pieces(which..which + 8)),
                (3, _) => download.on_gone(peer(who)),
                (4, Some(chosen)) => {
                    let request = running.swap_remove(chosen);
                    for dropped in download.on_fetched(now, request.number) {
                        running.retain(|other| other.number != dropped);
                    }
                    prop_assert!(download.have().contains(request.piece));
                }
                (5..=8, Some(chosen)) => {
                    let failure = [Failure::Lie, Failure::NotHeld, Failure::Busy, Failure::Failed];
                    let request = running.swap_remove(chosen);
                    download.on_failed(now, request.number, failure[usize::from(what) - 5]);
                }
                (9, Some(chosen)) => download.on_progress(now, running[chosen].number, u64::from(which) << 10),
                (10, _) => {
                    let dropped = download.expire(now);
                    running.retain(|request| !dropped.contains(&request.number));
                }
                _ => {
                    if let Some(request) = download.next(now, &mut dice) {
                        prop_assert!(!download.have().contains(request.piece), "it is here already");
                        running.push(request);
                    }
                }
            }
            download.check_invariants();
        }
        // The requests of the others come to nothing; a source is enough.
        for request in running.drain(..) {
            download.on_failed(now, request.number, Failure::Failed);
        }
        download.on_provider(peer(200), Kind::Source);
        download.on_has(peer(200), pieces(0..count));
        let mut rounds = 0;
        while !download.is_complete() {
            rounds += 1;
            prop_assert!(rounds < 10_000, "it never ends");
            now = now + Duration::from_millis(100);
            while let Some(request) = download.next(now, &mut dice) {
                if request.peer == peer(200) {
                    download.on_fetched(now, request.number);
                } else {
                    download.on_failed(now, request.number, Failure::Failed);
                }
            }
            download.check_invariants();
        }
    }
}

#[test]
fn hearsay_takes_some_seats_and_never_those_of_peers_that_were_named_by_who_knows() {
    let mut download = Download::new(mib(4), PieceSet::none(4));
    let heard = (1..=100).filter(|number| download.on_hearsay(peer(*number))).count();
    assert_eq!(heard, limits::SWARM_HEARSAY_MAX);
    let named = (101..=200).filter(|number| download.on_provider(peer(*number), Kind::Peer)).count();
    assert_eq!(named, limits::SWARM_PROVIDERS_MAX - limits::SWARM_HEARSAY_MAX);
    assert!(download.on_provider(peer(250), Kind::Source), "a source has a seat of its own");
}

#[test]
fn whoever_sends_something_keeps_its_seat_and_the_useless_make_room() {
    let mut download = download(4, &[(1, Kind::Peer, &[0, 1])]);
    for number in 2..=200 {
        download.on_hearsay(peer(number));
    }
    assert!(!download.on_hearsay(peer(201)));
    let request = download.next(START, &mut dice(1)).expect("one");
    assert_eq!(request.peer, peer(1));
    download.on_fetched(START, request.number);
    assert!(download.leavers(START).is_empty(), "they get some time");
    let later = START + limits::SWARM_USELESS_AFTER;
    let useless = download.leavers(later);
    assert_eq!(useless.len(), limits::SWARM_HEARSAY_MAX);
    assert!(!useless.contains(&peer(1)));
    assert!(download.on_hearsay(peer(201)), "there is room again");
    assert!(download.leavers(later).is_empty(), "nobody is sent away while there is room");
    download.check_invariants();
}
