//! The encoding, the tree against a naive one, proofs, the replay, and what tampering does to them.

use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::{
    coordinator::{Grant, TaskVerdict},
    ids::{JobId, PeerId, PeerNo, ResultDigest, TaskId},
    outcome::{Exit, NoResult},
    quantities::{Credit, Fuel, Timestamp},
};

/// The definition of RFC 6962, section 2.1, word for word.
fn naive_root(leaves: &[TreeHash]) -> TreeHash {
    match leaves {
        [] => Frontier::default().root(),
        [leaf] => *leaf,
        leaves => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(naive_root(left), naive_root(right))
        }
    }
}

struct Naive(Vec<TreeHash>);

impl Subtrees for Naive {
    type Error = Infallible;

    fn subtree(&mut self, level: u32, index: u64) -> Result<TreeHash, Infallible> {
        let start = usize::try_from(index << level).expect("small");
        Ok(naive_root(&self.0[start..start + (1 << level)]))
    }
}

fn leaves(count: u64) -> Vec<TreeHash> {
    (0..count).map(|number| leaf_hash(&number.to_le_bytes())).collect()
}

fn log(leaves: &[TreeHash]) -> Frontier {
    let mut log = Frontier::default();
    for leaf in leaves {
        log.append(*leaf);
    }
    log
}

#[test]
fn a_leaf_is_never_a_node() {
    let (a, b) = (leaf_hash(b"a"), leaf_hash(b"b"));
    let both = [*a.as_bytes(), *b.as_bytes()].concat();
    assert_ne!(leaf_hash(&both), node_hash(a, b));
    assert_ne!(node_hash(a, b), node_hash(b, a));
    assert_ne!(Frontier::default().root(), leaf_hash(b""));
}

#[test]
fn a_log_is_the_naive_tree_at_every_size() {
    let leaves = leaves(70);
    let mut grown = Frontier::default();
    for (size, leaf) in leaves.iter().enumerate() {
        assert_eq!(grown.root(), naive_root(&leaves[..size]), "{size}");
        let again = Frontier::from_parts(grown.size(), grown.peaks().to_vec());
        assert_eq!(again.as_ref(), Some(&grown));
        grown.append(*leaf);
        assert!(grown.peaks().len() <= 7, "{size}");
    }
    assert_eq!(Frontier::from_parts(3, vec![leaves[0]]), None);
}

#[test]
fn a_tile_is_the_root_of_its_leaves() {
    let size = 1 << crate::limits::LEDGER_TILE_BITS;
    let leaves = leaves(2 * size + 1);
    let mut grown = Frontier::default();
    let tiles: Vec<TreeHash> = leaves.iter().filter_map(|leaf| grown.append(*leaf)).collect();
    let naive: Vec<TreeHash> =
        leaves.chunks_exact(usize::try_from(size).expect("small")).map(naive_root).collect();
    assert_eq!(tiles, naive);
}

#[test]
fn every_entry_of_every_small_log_can_be_shown_and_nothing_else_can() {
    for size in 1..34 {
        let leaves = leaves(size);
        let root = log(&leaves).root();
        let mut tree = Naive(leaves.clone());
        for (index, leaf) in (0..).zip(&leaves) {
            let path = inclusion(&mut tree, index, size).unwrap_or_else(|never| match never {});
            assert_eq!(verify_inclusion(*leaf, index, size, &path, root), Ok(()), "{index} of {size}");
            assert!(path.len() <= 6);
            let mut longer = path.clone();
            longer.push(root);
            let wrong = [
                verify_inclusion(root, index, size, &path, root),
                verify_inclusion(*leaf, index, size, &path, *leaf).and(if size == 1 {
                    Err(BadProof)
                } else {
                    Ok(())
                }),
                verify_inclusion(*leaf, index + 1, size, &path, root),
                verify_inclusion(*leaf, index, size, &longer, root),
            ];
            let wrong = if size == 1 { &wrong[2..] } else { &wrong[..] };
            assert!(wrong.iter().all(Result::is_err), "{index} of {size}: {wrong:?}");
            for cut in 0..path.len() {
                assert!(verify_inclusion(*leaf, index, size, &path[..cut], root).is_err());
                let mut other = path.clone();
                other[cut] = node_hash(other[cut], root);
                assert!(verify_inclusion(*leaf, index, size, &other, root).is_err());
            }
        }
        assert_eq!(verify_inclusion(root, 0, 0, &[], root), Err(BadProof));
        assert_eq!(verify_inclusion(leaves[0], u64::MAX, u64::MAX, &[], root), Err(BadProof));
    }
}

#[test]
fn every_small_log_is_shown_to_begin_with_each_earlier_one_and_with_no_other() {
    for size in 1..34 {
        let all = leaves(size);
        let root = log(&all).root();
        let mut tree = Naive(all.clone());
        for old in 0..=size {
            let old_root = log(&all[..usize::try_from(old).expect("small")]).root();
            let path = consistency(&mut tree, old, size).unwrap_or_else(|never| match never {});
            let check =
                |old_root, root, path: &[TreeHash]| verify_consistency((old, old_root), (size, root), path);
            assert_eq!(check(old_root, root, &path), Ok(()), "{old} of {size}");
            if old == 0 {
                continue;
            }
            let forged = leaf_hash(b"forged");
            assert!(check(forged, root, &path).is_err(), "{old} of {size}");
            assert!(check(old_root, forged, &path).is_err(), "{old} of {size}");
            assert!(check(old_root, root, &[&path[..], &[forged]].concat()).is_err());
            for cut in 0..path.len() {
                assert!(check(old_root, root, &path[..cut]).is_err());
            }
        }
        assert!(verify_consistency((size + 1, root), (size, root), &[]).is_err());
    }
}

fn task(index: u64) -> TaskId {
    TaskId { job: JobId::new(1), index }
}

fn agreed(fuel: u64) -> TaskVerdict {
    TaskVerdict::Agreed { digest: ResultDigest::new([7; 32]), exit: Exit::Ok, fuel: Fuel::new(fuel) }
}

fn grant(peer: u32, agreed: bool, nanos: i128) -> Grant {
    Grant { peer: PeerNo::new(peer), number: 1, agreed, credit: Credit::from_nanos(nanos) }
}

fn final_task(index: u64, verdict: TaskVerdict, grants: Vec<Grant>) -> LedgerEntry {
    LedgerEntry::Task(TaskEntry { at_secs: 100, task: task(index), verdict, attempts: 2, grants })
}

fn peer(no: u32) -> LedgerEntry {
    LedgerEntry::Peer { no: PeerNo::new(no), id: PeerId::new([u8::try_from(no).expect("small"); 32]) }
}

fn revoked(entry: u64, index: u64, grants: Vec<Grant>) -> LedgerEntry {
    LedgerEntry::Revoked { at_secs: 200, entry, task: task(index), grants }
}

#[test]
fn a_usual_entry_of_two_replicas_fits_one_block_of_the_hash() {
    let fuel = 10_000_000_000;
    let grants = vec![grant(1000, true, fuel.into()), grant(2000, true, fuel.into())];
    let entry = LedgerEntry::Task(TaskEntry {
        at_secs: 1_790_000_000,
        task: task(5_000_000),
        verdict: agreed(fuel),
        attempts: 2,
        grants,
    });
    assert_eq!(entry.to_bytes().len(), 56);
}

#[test]
fn an_entry_in_any_other_form_is_refused() {
    let good = final_task(3, agreed(5), vec![grant(1, true, 5)]).to_bytes();
    assert!(LedgerEntry::decode(&good).is_ok());
    assert_eq!(LedgerEntry::decode(&[]), Err(EntryError));
    assert_eq!(LedgerEntry::decode(&[9]), Err(EntryError));
    for length in 0..good.len() {
        // A grant that is missing altogether is another entry, and its hash is another one.
        let cut = LedgerEntry::decode(&good[..length]);
        assert!(cut.as_ref().map_or(true, |entry| entry.to_bytes() == good[..length]), "{length}");
    }
    // A second zero byte after the time makes the number no other one, only longer.
    let mut longer = good.clone();
    longer[1] |= 0x80;
    longer.insert(2, 0);
    assert_eq!(LedgerEntry::decode(&longer), Err(EntryError));
    // The usual credit must not be stated.
    let mut stated = good.clone();
    let mark = stated.len() - 2;
    stated[mark] |= 1;
    stated.push(5);
    assert_eq!(LedgerEntry::decode(&stated), Err(EntryError));
    let mut huge = vec![4, 100, 1];
    crate::packing::put_varint(&mut huge, u64::MAX);
    assert_eq!(LedgerEntry::decode(&huge), Err(EntryError));
}

#[test]
fn names_are_short_plain_text() {
    for (owner, team, is_good) in [
        ("", "", true),
        ("Ada", "Žalgiris", true),
        ("Ada\n", "", false),
        (" Ada", "", false),
        ("", "x\0", false),
        (&"x".repeat(64), "", true),
        (&"x".repeat(65), "", false),
    ] {
        assert_eq!(Names::new(owner, team).is_ok(), is_good, "{owner:?} {team:?}");
    }
}

#[test]
fn a_replay_recomputes_every_total() {
    let mut replay = Replay::default();
    let names = Names::new("Ada", "Talka").expect("plain");
    let entries = [
        peer(1),
        peer(2),
        LedgerEntry::Named { at_secs: 50, peer: PeerNo::new(1), names: names.clone() },
        final_task(0, agreed(5), vec![grant(1, true, 5), grant(2, true, 5)]),
        final_task(1, agreed(7), vec![grant(1, true, 6), grant(2, false, 0)]),
        revoked(3, 0, vec![grant(1, true, 5), grant(2, true, 5)]),
        final_task(0, agreed(9), vec![grant(2, true, 9)]),
        final_task(2, TaskVerdict::NoResult(NoResult::Deadline), vec![]),
    ];
    for entry in &entries {
        assert_eq!(replay.apply(&entry.to_bytes()).as_ref(), Ok(entry));
    }
    let hashes: Vec<TreeHash> = entries.iter().map(|entry| leaf_hash(&entry.to_bytes())).collect();
    assert_eq!((replay.size(), replay.root(), replay.finals()), (8, naive_root(&hashes), 3));
    let totals: Vec<_> = replay
        .peers()
        .values()
        .map(|peer| (peer.credit.nanos(), peer.validated, peer.invalid, peer.days[&0].nanos()))
        .collect();
    assert_eq!(totals, [(6, 1, 0, 6), (9, 1, 1, 9)]);
    assert_eq!(replay.peers()[&PeerNo::new(1)].names, names);
}

#[test]
fn an_entry_that_does_not_fit_says_why_and_changes_nothing() {
    let good = [peer(1), peer(2), final_task(0, agreed(5), vec![grant(1, true, 5)])];
    for (wrong, misfit) in [
        (peer(2), Misfit::Twice(PeerNo::new(2))),
        (LedgerEntry::Peer { no: PeerNo::new(3), id: PeerId::new([1; 32]) }, Misfit::Twice(PeerNo::new(3))),
        (final_task(0, agreed(5), vec![]), Misfit::Final(task(0))),
        (final_task(1, agreed(5), vec![grant(3, true, 5)]), Misfit::Unknown(PeerNo::new(3))),
        (
            final_task(1, agreed(5), vec![grant(1, true, 5), grant(1, true, 5)]),
            Misfit::TwoVotes(PeerNo::new(1)),
        ),
        (final_task(1, agreed(5), vec![grant(1, true, 6)]), Misfit::TooMuch(PeerNo::new(1))),
        (final_task(1, agreed(5), vec![grant(1, false, 1)]), Misfit::TooMuch(PeerNo::new(1))),
        (final_task(1, TaskVerdict::NoAgreement, vec![grant(1, true, 1)]), Misfit::TooMuch(PeerNo::new(1))),
        (revoked(2, 1, vec![]), Misfit::NotGranted(task(1), 2)),
        (revoked(1, 0, vec![grant(1, true, 5)]), Misfit::NotGranted(task(0), 1)),
        (revoked(2, 0, vec![grant(1, true, 4)]), Misfit::NotGranted(task(0), 2)),
        (
            LedgerEntry::Named { at_secs: 1, peer: PeerNo::new(9), names: Names::default() },
            Misfit::Unknown(PeerNo::new(9)),
        ),
    ] {
        let mut replay = Replay::default();
        for entry in &good {
            replay.apply(&entry.to_bytes()).expect("fits");
        }
        let before = (replay.size(), replay.root(), replay.peers().clone());
        assert_eq!(replay.apply(&wrong.to_bytes()), Err(misfit));
        assert_eq!((replay.size(), replay.root(), replay.peers().clone()), before);
        replay.apply(&revoked(2, 0, vec![grant(1, true, 5)]).to_bytes()).expect("goes on");
        assert_eq!(replay.peers()[&PeerNo::new(1)].credit, Credit::ZERO);
    }
}

#[test]
fn a_head_signs_each_of_its_fields() {
    let head = Head {
        coordinator: PeerId::new([1; 32]),
        size: 5,
        root: leaf_hash(b"x"),
        at: Timestamp::from_millis(9),
    };
    let others = [
        Head { coordinator: PeerId::new([2; 32]), ..head },
        Head { size: 6, ..head },
        Head { root: leaf_hash(b"y"), ..head },
        Head { at: Timestamp::from_millis(10), ..head },
    ];
    assert!(others.iter().all(|other| other.statement() != head.statement()));
}

fn grants() -> impl Strategy<Value = Vec<Grant>> {
    let one = (any::<u32>(), any::<u32>(), any::<bool>(), any::<u64>());
    prop::collection::vec(one, 0..4).prop_map(|raw| {
        let grant = |(peer, number, agreed, nanos): (u32, u32, bool, u64)| Grant {
            peer: PeerNo::new(peer >> 1),
            number,
            agreed,
            credit: Credit::from_nanos(nanos.into()),
        };
        raw.into_iter().map(grant).collect()
    })
}

proptest! {
    #[test]
    fn entries_round_trip(
        kind in 0..6, at_secs: u64, index: u64, attempts: u32, fuel: u64, code in 1..=u32::MAX, grants in grants(),
    ) {
        let verdict = match kind {
            0 => agreed(fuel),
            1 => TaskVerdict::Agreed {
                digest: ResultDigest::new([9; 32]), exit: Exit::Code(code), fuel: Fuel::new(fuel),
            },
            2 => TaskVerdict::NoAgreement,
            _ => TaskVerdict::NoResult(NoResult::ALL[code as usize % NoResult::ALL.len()]),
        };
        let entry = match kind {
            4 => LedgerEntry::Revoked { at_secs, entry: fuel, task: task(index), grants },
            5 => LedgerEntry::Named {
                at_secs, peer: PeerNo::new(code), names: Names::new("Ada L.", "").expect("plain"),
            },
            _ => LedgerEntry::Task(TaskEntry { at_secs, task: task(index), verdict, attempts, grants }),
        };
        prop_assert_eq!(LedgerEntry::decode(&entry.to_bytes()), Ok(entry));
    }

    #[test]
    fn hostile_bytes_are_refused_without_panic(kind in 0_u8..6, bytes in prop::collection::vec(any::<u8>(), 0..90)) {
        let hostile = [&[kind][..], &bytes].concat();
        if let Ok(entry) = LedgerEntry::decode(&hostile) {
            prop_assert_eq!(entry.to_bytes(), hostile.clone());
        }
        let mut replay = Replay::default();
        let _ = replay.apply(&hostile);
    }

    #[test]
    fn proofs_of_large_logs_hold(size in 1_u64..3000, a: u64, b: u64) {
        let all = leaves(size);
        let root = log(&all).root();
        let mut tree = Naive(all.clone());
        let (index, old) = (a % size, b % size + 1);
        let leaf = all[usize::try_from(index).expect("small")];
        let path = inclusion(&mut tree, index, size).unwrap_or_else(|never| match never {});
        prop_assert_eq!(verify_inclusion(leaf, index, size, &path, root), Ok(()));
        let old_root = log(&all[..usize::try_from(old).expect("small")]).root();
        let path = consistency(&mut tree, old, size).unwrap_or_else(|never| match never {});
        prop_assert_eq!(verify_consistency((old, old_root), (size, root), &path), Ok(()));
    }

    #[test]
    fn hostile_proofs_are_refused_without_panic(
        index: u64, size: u64, old: u64, raw in prop::collection::vec(any::<[u8; 32]>(), 0..70),
    ) {
        let path: Vec<TreeHash> = raw.into_iter().map(TreeHash::new).collect();
        let root = leaf_hash(b"root");
        prop_assert!(verify_inclusion(leaf_hash(b""), index, size, &path, root).is_err());
        prop_assert!(old == 0 || verify_consistency((old, leaf_hash(b"o")), (size, root), &path).is_err());
    }
}
