//! The model engine: maps instead of tables. It says in the plainest code what a store does, and the other
//! engines are tested against it. The [`MemoryDisk`] stands for what survives a crash; the store on it does
//! not.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use talka_core::{
    coordinator::{Batch, CreditDelta, FinalOutput, FinalRow, PeerRow, SignedReceipts, Snapshot, Tables},
    ids::{JobId, PeerId, PeerNo, TaskId},
    ledger::{Average, Frontier, LedgerEntry, Names, TaskEntry, TreeHash, day_of, leaf_hash},
    limits,
    quantities::Credit,
};

use super::{Audit, Backup, PeerStanding, Reader, Seq, Store, StoreError, audit::LedgerSum};

/// What survives. Clones are handles to the same disk.
#[derive(Debug, Default, Clone)]
pub struct MemoryDisk(Arc<Mutex<Rows>>);

#[derive(Debug, Default)]
struct Rows {
    epoch: u64,
    last: Seq,
    tables: Tables,
    names: BTreeMap<PeerNo, Names>,
    /// The ledger: entries, and where those of tasks are.
    ledger: Vec<Vec<u8>>,
    places: BTreeMap<TaskId, u64>,
    recent: BTreeMap<PeerNo, (Average, u64)>,
    days: BTreeMap<(PeerNo, u64), Credit>,
    receipts: Vec<SignedReceipts>,
}

/// A store on a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryStore {
    disk: MemoryDisk,
    epoch: u64,
    last: Seq,
    poisoned: bool,
}

impl MemoryDisk {
    /// Claims the disk. Stores that were opened before can't commit from here on.
    pub fn open(&self) -> MemoryStore {
        let mut rows = self.rows();
        rows.epoch += 1;
        MemoryStore { disk: self.clone(), epoch: rows.epoch, last: rows.last, poisoned: false }
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn last_seq(&self) -> Seq {
        self.last
    }

    fn load(&mut self) -> Result<Snapshot, StoreError> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        Ok(self.disk.rows().tables.snapshot())
    }

    fn commit(&mut self, seq: Seq, batch: &Batch) -> Result<(), StoreError> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        let mut rows = self.disk.rows();
        let result = seq.is_new_after(self.last).and_then(|new| {
            if !new {
                return Ok(());
            }
            if rows.epoch != self.epoch {
                return Err(StoreError::Fenced);
            }
            if let Some(why) = rows.tables.contradiction(batch) {
                return Err(StoreError::refused(why));
            }
            rows.apply(batch);
            rows.last = seq;
            self.last = seq;
            Ok(())
        });
        self.poisoned = result.is_err();
        result
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(self.disk.clone())
    }
}

impl Rows {
    fn apply(&mut self, batch: &Batch) {
        // Before the rows that it is about change.
        self.record(batch);
        self.tables.apply(batch);
        for (peer, delta) in batch.credit.iter().filter(|(_, delta)| delta.credit != Credit::ZERO) {
            let at_secs = batch.at.millis() / 1000;
            let (average, day) = self.recent.entry(*peer).or_default();
            average.add(at_secs, delta.credit.as_f64());
            *day = day_of(at_secs);
            *self.days.entry((*peer, *day)).or_default() += delta.credit;
        }
    }

    fn record(&mut self, batch: &Batch) {
        let at_secs = batch.at.millis() / 1000;
        let mut add = |entry: LedgerEntry| {
            self.ledger.push(entry.to_bytes());
            self.ledger.len() as u64 - 1
        };
        for PeerRow { no, id } in &batch.peers {
            add(LedgerEntry::Peer { no: *no, id: *id });
        }
        for (peer, names) in &batch.names {
            if self.names.get(peer) == Some(names) {
                continue;
            }
            add(LedgerEntry::Named { at_secs, peer: *peer, names: names.clone() });
            self.names.insert(*peer, names.clone());
        }
        for task in &batch.revoked {
            if let (Some(row), Some(place)) = (self.tables.finals.get(task), self.places.remove(task)) {
                let (task, grants) = (*task, row.grants.clone());
                add(LedgerEntry::Revoked { at_secs, entry: place, task, grants });
            }
        }
        for FinalRow { task, verdict, attempts, grants, .. } in &batch.finals {
            let (task, verdict, attempts, grants) = (*task, *verdict, *attempts, grants.clone());
            let place = add(LedgerEntry::Task(TaskEntry { at_secs, task, verdict, attempts, grants }));
            self.places.insert(task, place);
        }
        let signed = batch.receipts.iter().filter(|signed| !signed.receipts.is_empty());
        self.receipts.extend(signed.cloned());
    }

    fn log(&self) -> (Frontier, Vec<TreeHash>) {
        let mut log = Frontier::default();
        let tiles = self.ledger.iter().filter_map(|entry| log.append(leaf_hash(entry))).collect();
        (log, tiles)
    }
}

impl Reader for MemoryDisk {
    fn results(
        &self,
        job: JobId,
        from: u64,
        limit: u32,
        with_output: bool,
    ) -> Result<Vec<FinalRow>, StoreError> {
        let rows = self.rows();
        let mut bytes = 0;
        let mut page = Vec::new();
        for row in rows.tables.finals_from(job, from).take(limit.min(limits::PAGE_ROWS_MAX) as usize) {
            let output = if with_output { row.output.clone() } else { FinalOutput::Nothing };
            if let FinalOutput::Inline(output) = &output {
                bytes += output.len();
            }
            page.push(FinalRow { output, ..row.clone() });
            if bytes >= limits::RESULTS_PAGE_BYTES_MAX {
                break;
            }
        }
        Ok(page)
    }

    fn result(&self, task: TaskId) -> Result<Option<FinalRow>, StoreError> {
        Ok(self.rows().tables.finals.get(&task).cloned())
    }

    fn provisional(&self, job: JobId, from: u64, to: u64) -> Result<Vec<u64>, StoreError> {
        let range = TaskId { job, index: from }..TaskId { job, index: to.max(from) };
        Ok(self.rows().tables.provisional.range(range).map(|(task, _)| task.index).collect())
    }

    fn credit(&self) -> Result<Vec<(PeerId, CreditDelta)>, StoreError> {
        let rows = self.rows();
        let known =
            rows.tables.credit.iter().filter_map(|(no, credit)| Some((*rows.tables.peers.get(no)?, *credit)));
        Ok(known.collect())
    }

    fn audit(&self) -> Result<Audit, StoreError> {
        let rows = self.rows();
        let mut sum = LedgerSum::default();
        for row in rows.tables.finals.values() {
            sum.add(&row.grants);
        }
        Ok(sum.compare(&rows.tables.credit))
    }

    fn ledger(&self) -> Result<Frontier, StoreError> {
        Ok(self.rows().log().0)
    }

    fn ledger_entries(&self, from: u64, limit: u32) -> Result<Vec<Vec<u8>>, StoreError> {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let limit = limit.min(limits::PAGE_ROWS_MAX) as usize;
        Ok(self.rows().ledger.iter().skip(from).take(limit).cloned().collect())
    }

    fn ledger_tiles(&self, from: u64, count: u64) -> Result<Vec<TreeHash>, StoreError> {
        let [from, count] = [from, count].map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        Ok(self.rows().log().1.into_iter().skip(from).take(count).collect())
    }

    fn ledger_place(&self, task: TaskId) -> Result<Option<u64>, StoreError> {
        Ok(self.rows().places.get(&task).copied())
    }

    fn receipts(&self, task: TaskId) -> Result<Vec<SignedReceipts>, StoreError> {
        let of_task =
            |signed: &&SignedReceipts| signed.receipts.iter().any(|receipt| receipt.attempt.task == task);
        Ok(self.rows().receipts.iter().filter(of_task).cloned().collect())
    }

    fn standings(&self) -> Result<Vec<PeerStanding>, StoreError> {
        let rows = self.rows();
        let known = rows.tables.credit.iter().filter_map(|(no, total)| {
            let (average, day) = rows.recent.get(no).copied().unwrap_or_default();
            let of_day = rows.days.get(&(*no, day)).copied().unwrap_or_default();
            let names = rows.names.get(no).cloned().unwrap_or_default();
            let (no, id, total, day) = (*no, *rows.tables.peers.get(no)?, *total, (day, of_day));
            Some(PeerStanding { no, id, names, total, average, day })
        });
        Ok(known.collect())
    }

    fn credit_days(&self, from: u64) -> Result<Vec<(PeerNo, u64, Credit)>, StoreError> {
        let rows = self.rows();
        let days = rows.days.iter().filter(|((_, day), credit)| *day >= from && **credit != Credit::ZERO);
        Ok(days.map(|((peer, day), credit)| (*peer, *day, *credit)).collect())
    }

    fn backup(&self, _to: &Path) -> Result<Backup, StoreError> {
        Err(StoreError::Unsupported { what: "backup" })
    }
}
