//! What every engine has to do: one set of cases, run over each.

pub(super) mod world;

use std::{net::Ipv4Addr, sync::Arc};

use proptest::{prelude::*, test_runner::TestRunner};
use talka_core::{
    coordinator::{
        Batch, CreditDelta, FinalOutput, FinalRow, Grant, InviteRow, PeerRow, PendingOutput, PendingReport,
        PendingRow, RecordRow, ShardRow, SignedReceipts, Snapshot, Standing, TaskVerdict,
    },
    digest::result_digest,
    ids::{AttemptId, InputDigest, JobId, OutcomeDigest, PeerId, PeerNo, ResultDigest, TaskId},
    ledger::{Frontier, Replay, leaf_hash},
    limits,
    outcome::{Exit, Output},
    placement::{Admission, InviteId, OwnerKey, Site},
    precedence::{Priority, Weight},
    quantities::{Credit, Fuel, Timestamp},
    signing::Receipt,
    trust::Record,
};

use self::world::{World, job_row};
use super::{
    Reader, Store, StoreError,
    memory::MemoryDisk,
    sqlite::{SqliteStore, tests::remove_lock},
};

/// Something that survives, and that stores are opened on.
trait Engine {
    fn open(&self) -> Box<dyn Store>;
    /// Opens a store while another one is open.
    fn seize(&self) -> Box<dyn Store>;
}

impl Engine for MemoryDisk {
    fn open(&self) -> Box<dyn Store> {
        Box::new(MemoryDisk::open(self))
    }

    fn seize(&self) -> Box<dyn Store> {
        Engine::open(self)
    }
}

impl Engine for tempfile::TempDir {
    fn open(&self) -> Box<dyn Store> {
        Box::new(SqliteStore::open(self.path(), PeerId::new([1; 32])).expect("a store"))
    }

    fn seize(&self) -> Box<dyn Store> {
        remove_lock(self.path());
        self.open()
    }
}

macro_rules! conformance {
    ($($case:ident)+) => {
        mod memory {
            $(#[test] fn $case() { super::$case(super::MemoryDisk::default) })+
        }
        mod sqlite {
            $(#[test] fn $case() { super::$case(|| tempfile::tempdir().expect("a directory")) })+
        }
    };
}

conformance! {
    a_new_store_is_empty
    any_history_reads_back_as_the_model_does
    a_batch_that_was_committed_is_not_applied_again
    a_gap_between_batches_is_refused
    a_store_that_was_taken_over_is_fenced
    a_refused_batch_leaves_nothing_behind
    a_job_that_ended_leaves_nothing_open
    what_people_change_of_jobs_and_weights_reads_back
    what_rests_on_one_word_reads_back_and_can_be_taken_back
    what_is_remembered_of_workers_reads_back
    a_straggler_in_a_huge_job_is_all_that_is_open
    a_page_of_results_is_bounded_in_rows_and_bytes
    credit_beyond_64_bits_is_exact
    a_reader_outlives_its_store
    a_revoked_task_stays_in_the_log_and_may_be_final_again
    what_workers_signed_outlives_the_revocation_of_their_tasks
}

fn commit(store: &mut dyn Store, batch: &Batch) {
    store.commit(store.last_seq().next(), batch).expect("a commit");
}

fn task(index: u64) -> TaskId {
    TaskId { job: JobId::new(1), index }
}

fn final_row(index: u64, output: FinalOutput) -> FinalRow {
    let verdict =
        TaskVerdict::Agreed { digest: ResultDigest::new([1; 32]), exit: Exit::Ok, fuel: Fuel::new(5) };
    let (task, outcome, grants) = (task(index), None, vec![]);
    FinalRow { task, verdict, outcome, attempts: 0, grants, output, had_pending: false }
}

fn job(tasks: u64) -> Batch {
    Batch { jobs: vec![job_row(JobId::new(1), tasks)], ..Batch::default() }
}

fn finals(rows: Vec<FinalRow>) -> Batch {
    Batch { finals: rows, ..Batch::default() }
}

fn a_new_store_is_empty<E: Engine>(make: impl Fn() -> E) {
    let engine = make();
    let mut store = engine.open();
    assert_eq!(store.last_seq().get(), 0);
    assert_eq!(store.load().expect("readable"), Snapshot::default());
    let reader = store.reader();
    assert!(reader.results(JobId::new(1), 0, 10, true).expect("readable").is_empty());
    assert_eq!(reader.result(task(0)).expect("readable"), None);
    assert!(reader.credit().expect("readable").is_empty());
    assert!(reader.audit().expect("readable").is_clean());
}

fn any_history_reads_back_as_the_model_does<E: Engine>(make: impl Fn() -> E) {
    let batch = (prop::collection::vec(any::<u64>(), 0..60), prop::bool::weighted(0.2));
    let history = prop::collection::vec(batch, 1..10);
    let config = ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() };
    let check = |history: Vec<(Vec<u64>, bool)>| {
        let (engine, disk) = (make(), MemoryDisk::default());
        let (mut store, mut model) = (engine.open(), disk.open());
        let mut world = World::default();
        for (steps, reopen) in history {
            for number in steps {
                world.step(number);
            }
            let batch = world.batch();
            commit(store.as_mut(), &batch);
            commit(&mut model, &batch);
            if reopen {
                drop(store);
                store = engine.open();
            }
            prop_assert_eq!(store.last_seq(), model.last_seq());
            prop_assert_eq!(store.load().expect("readable"), model.load().expect("readable"));
        }
        compare(&*store.reader(), &*model.reader(), world.submitted)
    };
    TestRunner::new(config).run(&history, check).unwrap_or_else(|error| panic!("{error}"));
}

fn compare(reader: &dyn Reader, model: &dyn Reader, jobs: u64) -> Result<(), TestCaseError> {
    for job in (1..=jobs + 1).map(JobId::new) {
        for with_output in [false, true] {
            let mut from = 0;
            loop {
                let page = reader.results(job, from, 7, with_output).expect("readable");
                prop_assert_eq!(&page, &model.results(job, from, 7, with_output).expect("readable"));
                let Some(last) = page.last() else { break };
                from = last.task.index + 1;
                let alone = reader.result(last.task).expect("readable");
                prop_assert_eq!(alone, model.result(last.task).expect("readable"));
            }
        }
    }
    prop_assert_eq!(reader.credit().expect("readable"), model.credit().expect("readable"));
    let audit = reader.audit().expect("readable");
    prop_assert!(audit.is_clean(), "{:?}", audit);
    prop_assert_eq!(audit, model.audit().expect("readable"));
    compare_ledgers(reader, model, jobs)
}

fn compare_ledgers(reader: &dyn Reader, model: &dyn Reader, jobs: u64) -> Result<(), TestCaseError> {
    let log = reader.ledger().expect("readable");
    prop_assert_eq!(&log, &model.ledger().expect("readable"));
    let (mut read, mut tiles) = (Frontier::default(), vec![]);
    while read.size() < log.size() {
        let page = reader.ledger_entries(read.size(), 7).expect("readable");
        prop_assert_eq!(&page, &model.ledger_entries(read.size(), 7).expect("readable"));
        tiles.extend(page.iter().filter_map(|entry| read.append(leaf_hash(entry))));
        prop_assert!(!page.is_empty());
    }
    prop_assert_eq!(read, log);
    prop_assert_eq!(reader.ledger_tiles(0, 100).expect("readable"), tiles);
    for job in (1..=jobs).map(JobId::new) {
        for row in reader.results(job, 0, 1000, false).expect("readable") {
            let place = reader.ledger_place(row.task).expect("readable");
            prop_assert_eq!(place, model.ledger_place(row.task).expect("readable"));
            prop_assert!(place.is_some());
            prop_assert_eq!(
                reader.receipts(row.task).expect("readable"),
                model.receipts(row.task).expect("readable")
            );
        }
    }
    prop_assert_eq!(reader.standings().expect("readable"), model.standings().expect("readable"));
    prop_assert_eq!(reader.credit_days(0).expect("readable"), model.credit_days(0).expect("readable"));
    Ok(())
}

fn a_batch_that_was_committed_is_not_applied_again<E: Engine>(make: impl Fn() -> E) {
    let engine = make();
    let mut store = engine.open();
    commit(store.as_mut(), &job(3));
    let first = store.last_seq();
    let before = store.load().expect("readable");
    store.commit(first, &job(4)).expect("no-op");
    drop(store);
    let mut store = engine.open();
    store.commit(first, &job(5)).expect("no-op after a restart");
    assert_eq!(store.load().expect("readable"), before);
    assert_eq!(store.last_seq(), first);
}

fn a_gap_between_batches_is_refused<E: Engine>(make: impl Fn() -> E) {
    let engine = make();
    let mut store = engine.open();
    let result = store.commit(store.last_seq().next().next(), &job(3));
    assert!(matches!(result, Err(StoreError::Gap { .. })), "{result:?}");
}

fn a_store_that_was_taken_over_is_fenced<E: Engine>(make: impl Fn() -> E) {
    let engine = make();
    let mut old = engine.open();
    commit(old.as_mut(), &job(3));
    let mut new = engine.seize();
    let next = old.last_seq().next();
    let result = old.commit(next, &finals(vec![final_row(0, FinalOutput::Nothing)]));
    assert!(matches!(result, Err(StoreError::Fenced)), "{result:?}");
    assert!(new.reader().result(task(0)).expect("readable").is_none());
    commit(new.as_mut(), &finals(vec![final_row(1, FinalOutput::Nothing)]));
    assert!(new.reader().result(task(1)).expect("readable").is_some());
}

fn a_refused_batch_leaves_nothing_behind<E: Engine>(make: impl Fn() -> E) {
    let engine = make();
    let empty = || FinalOutput::Inline(Arc::default());
    let twice = finals(vec![final_row(1, empty()), final_row(0, empty())]);
    let unknown = Batch { shards: [(JobId::new(9), ShardRow::default())].into(), ..Batch::default() };
    let peer = |no, id| PeerRow { no: PeerNo::new(no), id: PeerId::new([id; 32]) };
    let peers = Batch { peers: vec![peer(1, 1), peer(2, 1)], ..Batch::default() };
    let mut store = engine.open();
    commit(store.as_mut(), &job(3));
    commit(store.as_mut(), &finals(vec![final_row(0, empty())]));
    let before = (store.last_seq(), store.load().expect("readable"));
    let standings = [(JobId::new(9), Standing::default())].into();
    let unsteered = Batch { standings, ..Batch::default() };
    for bad in [twice, unknown, unsteered, peers, job(3)] {
        let next = store.last_seq().next();
        let result = store.commit(next, &bad);
        assert!(matches!(result, Err(StoreError::Refused { .. })), "{result:?}");
        let result = store.commit(next, &Batch::default());
        assert!(matches!(result, Err(StoreError::Poisoned)), "{result:?}");
        assert!(matches!(store.load(), Err(StoreError::Poisoned)));
        drop(store);
        store = engine.open();
        assert_eq!((store.last_seq(), store.load().expect("readable")), before);
        assert_eq!(store.reader().result(task(1)).expect("readable"), None);
    }
    commit(store.as_mut(), &finals(vec![final_row(1, empty())]));
}

fn a_job_that_ended_leaves_nothing_open<E: Engine>(make: impl Fn() -> E) {
    let engine = make();
    let mut store = engine.open();
    let mut world = World::default();
    world::numbers(1).take(400).filter(|number| number % 16 != 15).for_each(|number| world.step(number));
    let batch = world.batch();
    let open = |snapshot: &Snapshot| {
        let open = snapshot.jobs.iter().map(|job| job.leases.len() + job.pending.len() + job.open.len());
        open.collect::<Vec<_>>()
    };
    commit(store.as_mut(), &batch);
    let mut expected = open(&store.load().expect("readable"));
    assert!(expected[0] > 0 && expected[1] > 0, "{expected:?}");
    let ended = (talka_core::job::JobState::Cancelled, Timestamp::from_millis(1));
    commit(store.as_mut(), &Batch { ended: [(JobId::new(1), ended)].into(), ..Batch::default() });
    expected[0] = 0;
    let snapshot = store.load().expect("readable");
    assert_eq!(open(&snapshot), expected);
    assert_eq!((snapshot.jobs[0].row.state, snapshot.jobs[0].row.ended), (ended.0, Some(ended.1)));
}

fn what_people_change_of_jobs_and_weights_reads_back<E: Engine>(make: impl Fn() -> E) {
    let engine = make();
    let mut store = engine.open();
    let peer = |no: u8| PeerRow { no: PeerNo::new(no.into()), id: PeerId::new([no; 32]) };
    let weight = |weight| Weight::new(weight).expect("a weight");
    let standing =
        |paused, priority| Standing { paused, priority: Priority::new(priority).expect("in range") };
    let shard = ShardRow { numbers: 7, ..ShardRow::default() };
    // All in one batch: a job may be paused in the round in which it is taken on.
    let batch = Batch {
        peers: vec![peer(1), peer(2)],
        weights: [(PeerNo::new(1), weight(3)), (PeerNo::new(2), weight(1000))].into(),
        standings: [(JobId::new(1), standing(true, -100))].into(),
        shards: [(JobId::new(1), shard)].into(),
        ..job(3)
    };
    commit(store.as_mut(), &batch);
    let check = |store: &mut dyn Store, paused, priority, weights: &[(u32, u64)]| {
        let snapshot = store.load().expect("readable");
        assert_eq!(snapshot.jobs[0].row.standing, standing(paused, priority));
        assert_eq!(snapshot.jobs[0].shard.numbers, 7);
        let weights = weights.iter().map(|(no, number)| (PeerNo::new(*no), weight(*number)));
        assert_eq!(snapshot.weights, weights.collect());
    };
    drop(store);
    let mut store = engine.open();
    check(store.as_mut(), true, -100, &[(1, 3), (2, 1000)]);

    let batch = Batch {
        weights: [(PeerNo::new(1), weight(1)), (PeerNo::new(2), weight(5))].into(),
        standings: [(JobId::new(1), standing(false, 100))].into(),
        ..Batch::default()
    };
    commit(store.as_mut(), &batch);
    drop(store);
    check(engine.open().as_mut(), false, 100, &[(2, 5)]);
}

fn what_rests_on_one_word_reads_back_and_can_be_taken_back<E: Engine>(make: impl Fn() -> E) {
    let engine = make();
    let mut store = engine.open();
    let peer = PeerRow { no: PeerNo::new(0), id: PeerId::new([5; 32]) };
    let credit = Credit::from_nanos(7);
    let grant = |number| Grant { peer: peer.no, number, agreed: true, credit };
    let row = |index, number| FinalRow { grants: vec![grant(number)], ..final_row(index, inline("out")) };
    let delta = |sign: i64| CreditDelta {
        credit: Credit::from_nanos(i128::from(sign) * 7),
        validated: sign,
        invalid: 0,
    };
    let word = |index, number| {
        let vote = PendingReport::Execution {
            outcome: OutcomeDigest::new([3; 32]),
            input: InputDigest::new([4; 32]),
            exit: Exit::Ok,
            fuel: Fuel::new(7),
            resumed: false,
            output: PendingOutput::Repeated,
        };
        (AttemptId { task: task(index), number }, PendingRow { peer: peer.no, report: vote })
    };
    let shard = |done, provisional, revoked| {
        let shard = ShardRow {
            cursor: 3,
            done,
            provisional,
            revoked,
            credit: Credit::from_nanos(7 * i128::from(done)),
            ..ShardRow::default()
        };
        [(JobId::new(1), shard)].into()
    };
    // A report that was on record before the task became final, and goes when that is taken back in the same batch.
    let before = Batch { peers: vec![peer], pending: [word(2, 5)].into(), ..job(3) };
    commit(store.as_mut(), &before);
    let batch = Batch {
        shards: shard(2, 2, 0),
        provisional: [word(0, 9), word(1, 8)].into(),
        credit: [(peer.no, CreditDelta { validated: 2, credit: credit + credit, invalid: 0 })].into(),
        cleared: [task(2)].into(),
        revoked: [task(2)].into(),
        ..finals(vec![row(0, 9), row(1, 8)])
    };
    commit(store.as_mut(), &batch);
    drop(store);
    let mut store = engine.open();
    let provisional = |store: &mut dyn Store| store.load().expect("readable").jobs[0].provisional.clone();
    assert_eq!(provisional(store.as_mut()), [word(0, 9), word(1, 8)]);
    assert!(store.load().expect("readable").jobs[0].pending.is_empty());
    let reader = store.reader();
    let listed = |from, to| reader.provisional(JobId::new(1), from, to).expect("readable");
    assert_eq!(
        (listed(0, u64::MAX), listed(1, 2), listed(0, 0), listed(2, 9)),
        (vec![0, 1], vec![1], vec![], vec![])
    );

    // One is confirmed, the other taken back, and at once final again with another vote.
    let batch = Batch {
        shards: shard(2, 0, 1),
        confirmed: [task(0)].into(),
        revoked: [task(1)].into(),
        credit: [(peer.no, delta(0))].into(),
        ..finals(vec![row(1, 3)])
    };
    commit(store.as_mut(), &batch);
    assert!(provisional(store.as_mut()).is_empty() && listed(0, u64::MAX).is_empty());
    let again = reader.result(task(1)).expect("readable").expect("final");
    assert_eq!((again.grants, again.output), (vec![grant(3)], inline("out")));
    assert_eq!(store.load().expect("readable").jobs[0].shard.revoked, 1);

    // Taken back for good.
    let batch = Batch {
        shards: shard(1, 0, 2),
        revoked: [task(1)].into(),
        credit: [(peer.no, delta(-1))].into(),
        ..Batch::default()
    };
    commit(store.as_mut(), &batch);
    drop(store);
    let mut store = engine.open();
    assert_eq!(store.load().expect("readable").jobs[0].open, [1, 2], "they are open again");
    assert_eq!(store.reader().result(task(1)).expect("readable"), None);
    assert_eq!(store.reader().credit().expect("readable"), [(peer.id, delta(1))]);
    assert!(store.reader().audit().expect("readable").is_clean());
}

fn inline(stdout: &str) -> FinalOutput {
    FinalOutput::Inline(Arc::new(Output { stdout: stdout.into(), ..Output::default() }))
}

fn what_is_remembered_of_workers_reads_back<E: Engine>(make: impl Fn() -> E) {
    let engine = make();
    let mut store = engine.open();
    let record = |checks, caught, quota, admission| RecordRow {
        record: Record { checks, caught },
        quota,
        admission,
        site: Site::of(Ipv4Addr::new(192, 0, 2, 7).into()).filter(|_| checks > 0),
        owner: OwnerKey::of("ada").filter(|_| checks > 0),
    };
    let row = |no: u8| PeerRow { no: PeerNo::new(no.into()), id: PeerId::new([no; 32]) };
    let invite = |byte, uses| (InviteId([byte; 32]), InviteRow { uses, expires: Timestamp::from_millis(77) });
    let batch = Batch {
        peers: vec![row(1), row(2)],
        records: [
            (PeerNo::new(1), record(7, 1, 64, Admission::Open)),
            (PeerNo::new(2), record(0, 0, 2, Admission::Banned)),
        ]
        .into(),
        invites: [invite(1, 5), invite(2, 1)].into(),
        ..Batch::default()
    };
    commit(store.as_mut(), &batch);
    let batch = Batch {
        records: [(PeerNo::new(1), record(u32::MAX, 2, 8192, Admission::Approved))].into(),
        invites: [invite(1, 4), invite(2, 0)].into(),
        ..Batch::default()
    };
    commit(store.as_mut(), &batch);
    drop(store);
    let snapshot = engine.open().load().expect("readable");
    let records = [
        (PeerNo::new(1), record(u32::MAX, 2, 8192, Admission::Approved)),
        (PeerNo::new(2), record(0, 0, 2, Admission::Banned)),
    ];
    assert_eq!(snapshot.records, records.into());
    assert_eq!(snapshot.invites, [invite(1, 4)].into(), "an invite that is used up is gone");
}

fn a_straggler_in_a_huge_job_is_all_that_is_open<E: Engine>(make: impl Fn() -> E) {
    const TASKS: u64 = 20_000;
    let engine = make();
    let mut store = engine.open();
    commit(store.as_mut(), &job(limits::JOB_TASKS_MAX));
    let open = [3, 1023, 1024, 5000, TASKS - 1];
    let done = (0..TASKS).filter(|index| !open.contains(index));
    let rows = done.map(|index| final_row(index, FinalOutput::Inline(Arc::default()))).collect();
    // Two shares of each block, out of order.
    let (late, early): (Vec<_>, Vec<_>) = Vec::into_iter(rows).partition(|row| row.task.index % 3 == 0);
    let shard = ShardRow { cursor: TASKS, low: 3, done: TASKS - 5, ..ShardRow::default() };
    let shards = || [(JobId::new(1), shard)].into();
    commit(store.as_mut(), &Batch { shards: shards(), ..finals(early) });
    commit(store.as_mut(), &Batch { shards: shards(), ..finals(late) });
    drop(store);
    let mut store = engine.open();
    assert_eq!(store.load().expect("readable").jobs[0].open, open);

    commit(store.as_mut(), &finals(vec![final_row(1024, FinalOutput::Nothing)]));
    assert_eq!(store.load().expect("readable").jobs[0].open, [3, 1023, 5000, TASKS - 1]);
    let ended = (talka_core::job::JobState::Cancelled, Timestamp::from_millis(1));
    commit(store.as_mut(), &Batch { ended: [(JobId::new(1), ended)].into(), ..Batch::default() });
    assert!(store.load().expect("readable").jobs[0].open.is_empty());
}

fn a_page_of_results_is_bounded_in_rows_and_bytes<E: Engine>(make: impl Fn() -> E) {
    let engine = make();
    let mut store = engine.open();
    let half = usize::try_from(limits::RESULTS_PAGE_BYTES_MAX / 2).expect("small");
    let large = Output { stdout: vec![1; half], ..Output::default() };
    let large = FinalOutput::Inline(Arc::new(large));
    commit(store.as_mut(), &job(5));
    commit(store.as_mut(), &finals((0..5).map(|index| final_row(index, large.clone())).collect()));
    let reader = store.reader();
    let page = |from, limit, with_output| {
        let page = reader.results(JobId::new(1), from, limit, with_output).expect("readable");
        page.iter().map(|row| row.task.index).collect::<Vec<_>>()
    };
    assert_eq!(page(0, 100, true), [0, 1]);
    assert_eq!(page(2, 1, true), [2]);
    assert_eq!(page(4, 100, true), [4]);
    assert_eq!(page(5, 100, true), [0u64; 0]);
    assert_eq!(page(0, u32::MAX, false), [0, 1, 2, 3, 4]);
    assert_eq!(page(u64::MAX, 1, false), [0u64; 0]);
}

fn a_revoked_task_stays_in_the_log_and_may_be_final_again<E: Engine>(make: impl Fn() -> E) {
    let engine = make();
    let mut store = engine.open();
    let peer = PeerRow { no: PeerNo::new(0), id: PeerId::new([5; 32]) };
    let grant = |nanos| {
        let credit = Credit::from_nanos(nanos);
        Grant { peer: peer.no, number: 1, agreed: true, credit }
    };
    let row =
        |nanos| FinalRow { grants: vec![grant(nanos)], ..final_row(1, FinalOutput::Inline(Arc::default())) };
    let credit = |nanos| -> std::collections::BTreeMap<_, _> {
        [(peer.no, CreditDelta { credit: Credit::from_nanos(nanos), ..CreditDelta::default() })].into()
    };
    let shards = |done| [(JobId::new(1), ShardRow { cursor: 3, done, ..ShardRow::default() })].into();
    let at = |secs: u64| Timestamp::from_millis(secs * 1000);
    let revoked = || [task(1), task(2)].into();
    commit(store.as_mut(), &Batch { peers: vec![peer], ..job(3) });
    commit(
        store.as_mut(),
        &Batch { credit: credit(5), shards: shards(1), at: at(10), ..finals(vec![row(5)]) },
    );
    let first = store.reader().ledger().expect("readable");
    // Task 2 became final and was revoked within one round, so nothing is known of it.
    let batch =
        Batch { revoked: revoked(), credit: credit(-5), shards: shards(0), at: at(20), ..Batch::default() };
    commit(store.as_mut(), &batch);
    assert_eq!(store.reader().result(task(1)).expect("readable"), None);
    assert_eq!(store.reader().ledger_place(task(1)).expect("readable"), None);
    drop(store);
    let mut store = engine.open();
    assert_eq!(store.load().expect("readable").jobs[0].open, [0, 1, 2]);
    commit(
        store.as_mut(),
        &Batch { credit: credit(4), shards: shards(1), at: at(30), ..finals(vec![row(4)]) },
    );
    // In one batch: final in another way.
    let batch = Batch { revoked: revoked(), credit: credit(-1), at: at(40), ..finals(vec![row(3)]) };
    commit(store.as_mut(), &batch);

    let reader = store.reader();
    let (log, mut replay) = (reader.ledger().expect("readable"), Replay::default());
    for entry in reader.ledger_entries(0, 100).expect("readable") {
        replay.apply(&entry).expect("fits");
    }
    assert_eq!((replay.size(), replay.root(), log.size()), (log.size(), log.root(), 6));
    assert_eq!(replay.peers()[&peer.no].credit.nanos(), 3);
    assert_eq!(reader.credit().expect("readable")[0].1.credit.nanos(), 3);
    assert_eq!(reader.ledger_place(task(1)).expect("readable"), Some(5));
    let mut start = Frontier::default();
    for entry in reader.ledger_entries(0, 2).expect("readable") {
        start.append(leaf_hash(&entry));
    }
    assert_eq!(start, first, "what was there before is unchanged");
}

fn what_workers_signed_outlives_the_revocation_of_their_tasks<E: Engine>(make: impl Fn() -> E) {
    let engine = make();
    let mut store = engine.open();
    let peer = PeerRow { no: PeerNo::new(0), id: PeerId::new([5; 32]) };
    let (outcome, fuel) = (OutcomeDigest::new([3; 32]), Fuel::new(9));
    let verdict = TaskVerdict::Agreed { digest: result_digest(outcome, Some(fuel)), exit: Exit::Ok, fuel };
    let row = |index| FinalRow { verdict, outcome: Some(outcome), ..final_row(index, inline("out")) };
    let receipt = |index, number, outcome| {
        let attempt = AttemptId { task: task(index), number };
        Receipt { attempt, outcome, fuel, resumed: false }
    };
    let signed = |receipts| SignedReceipts { peer: peer.no, signature: [7; 64], receipts };
    let other = OutcomeDigest::new([4; 32]);
    let first = signed(vec![receipt(0, 1, outcome), receipt(1, 1, outcome), receipt(2, 1, other)]);
    let receipts = vec![first.clone()];
    commit(store.as_mut(), &Batch { peers: vec![peer], ..job(3) });
    commit(store.as_mut(), &Batch { receipts, ..finals(vec![row(1), row(0)]) });
    let reader = store.reader();
    let told = |index| reader.receipts(task(index)).expect("readable");
    assert_eq!([told(0), told(1), told(2)], [0, 1, 2].map(|_| vec![first.clone()]));

    // Taken back, and final again with something else that somebody else signed.
    let again = OutcomeDigest::new([8; 32]);
    let verdict = TaskVerdict::Agreed { digest: result_digest(again, Some(fuel)), exit: Exit::Ok, fuel };
    let batch = Batch {
        revoked: [task(1)].into(),
        receipts: vec![signed(vec![receipt(1, 2, again)])],
        ..finals(vec![FinalRow { verdict, outcome: Some(again), ..row(1) }])
    };
    commit(store.as_mut(), &batch);
    commit(store.as_mut(), &Batch { revoked: [task(0)].into(), ..Batch::default() });
    drop(store);
    let mut store = engine.open();
    assert_eq!(told(0), std::slice::from_ref(&first));
    assert_eq!(told(1), [first.clone(), signed(vec![receipt(1, 2, again)])]);
    commit(store.as_mut(), &Batch { receipts: vec![first.clone()], ..finals(vec![row(2)]) });
    assert_eq!(told(2), [first.clone(), first], "the numbers of receipts go on after a restart");
}

fn credit_beyond_64_bits_is_exact<E: Engine>(make: impl Fn() -> E) {
    let engine = make();
    let mut store = engine.open();
    let peer = PeerRow { no: PeerNo::new(0), id: PeerId::new([5; 32]) };
    let large = Credit::from_nanos(i128::from(u64::MAX) - 1);
    let verdict = TaskVerdict::NoAgreement;
    let mut expected = CreditDelta::default();
    for index in 0..4 {
        let grant = Grant { peer: peer.no, number: 1, agreed: true, credit: large };
        let row = FinalRow { grants: vec![grant], verdict, ..final_row(index, FinalOutput::Nothing) };
        let delta = CreditDelta { credit: large, validated: 1, invalid: 0 };
        expected.credit += large;
        expected.validated += 1;
        let peers = if index == 0 { vec![peer] } else { vec![] };
        let batch = Batch { peers, credit: [(peer.no, delta)].into(), ..finals(vec![row]) };
        commit(store.as_mut(), &batch);
    }
    assert_eq!(store.reader().credit().expect("readable"), [(peer.id, expected)]);
    assert!(store.reader().audit().expect("readable").is_clean());

    let revoked = CreditDelta { credit: Credit::from_nanos(-large.nanos() - 1), ..CreditDelta::default() };
    expected.credit += revoked.credit;
    commit(store.as_mut(), &Batch { credit: [(peer.no, revoked)].into(), ..Batch::default() });
    assert_eq!(store.reader().credit().expect("readable"), [(peer.id, expected)]);
    let audit = store.reader().audit().expect("readable");
    assert_eq!(audit.differences.len(), 1, "the revocation is not in the ledger");
    assert_eq!(audit.differences[0].shown, expected);
}

fn a_reader_outlives_its_store<E: Engine>(make: impl Fn() -> E) {
    let engine = make();
    let mut store = engine.open();
    let reader = store.reader();
    commit(store.as_mut(), &job(3));
    commit(store.as_mut(), &finals(vec![final_row(0, FinalOutput::Nothing)]));
    drop(store);
    assert!(reader.result(task(0)).expect("readable").is_some());
    let mut store = engine.open();
    commit(store.as_mut(), &finals(vec![final_row(1, FinalOutput::Nothing)]));
    assert!(reader.result(task(1)).expect("readable").is_some());
}
