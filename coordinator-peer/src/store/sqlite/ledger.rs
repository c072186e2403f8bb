//! The ledger's log: appended in the transaction that makes tasks final and grants their credit.
//!
//! The entry of a task is not stored a second time: its leaf is computed from its row in `task_final`. What a
//! commit adds is which rows, in which order, as runs of neighbours; the root of each full tile; and the state that
//! it takes to append again.

use std::collections::{BTreeSet, HashMap};

use rusqlite::{Connection, TransactionBehavior, params};
use talka_core::{
    coordinator::{Batch, CreditDelta, FinalRow, SignedReceipts},
    ids::{PeerId, PeerNo, TaskId},
    ledger::{Average, Frontier, LedgerEntry, LedgerGrant, Names, TaskEntry, TreeHash, day_of, leaf_hash},
    limits,
    quantities::{Credit, Timestamp},
};

use super::{
    key::{block_of, task_key},
    ledger_read,
    read::entry,
    receipts,
    write::{join, split},
};
use crate::store::{StoreError, packed::LedgerItems};

/// What the writer knows of the log without reading it.
#[derive(Debug)]
pub(super) struct Ledger {
    frontier: Frontier,
    recent: HashMap<PeerNo, Recent>,
    /// Number of the next receipt.
    receipts: u64,
}

/// A peer's recent credit.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Recent {
    pub(super) average: Average,
    pub(super) day: u64,
    pub(super) of_day: Credit,
}

/// An entry of a task that counts no more.
#[derive(Debug)]
pub(super) struct Revoked {
    place: u64,
    task: TaskId,
    grants: Vec<LedgerGrant>,
}

/// Keeps the entry of a task whose row is about to go, because the log never changes. `None` when it has none.
pub(super) fn supersede(conn: &Connection, task: TaskId) -> Result<Option<Revoked>, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT task_id, digest, entry FROM task_final WHERE task_id = ?1")?;
    let mut rows = statement.query([task_key(task)?])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (_, entry) = entry(row)?;
    let grants = entry.grants.clone();
    let found = ledger_read::place_in(conn, task)?;
    let (place, at_secs) =
        found.ok_or_else(|| StoreError::damaged(format!("task {task} is not in the ledger")))?;
    let sql = "INSERT INTO ledger_old VALUES(?1, ?2)";
    conn.prepare_cached(sql)?.execute(params![place, entry.in_ledger(at_secs, task).to_bytes()])?;
    Ok(Some(Revoked { place, task, grants }))
}

/// Entries of one commit.
struct Addition<'a> {
    conn: &'a Connection,
    frontier: &'a mut Frontier,
    first: u64,
    items: LedgerItems,
    blocks: BTreeSet<u64>,
    bytes: Vec<u8>,
}

impl<'a> Addition<'a> {
    fn new(conn: &'a Connection, frontier: &'a mut Frontier) -> Self {
        let first = frontier.size();
        let (items, blocks, bytes) = (LedgerItems::default(), BTreeSet::new(), Vec::new());
        Self { conn, frontier, first, items, blocks, bytes }
    }

    fn own(&mut self, entry: &LedgerEntry) -> Result<(), StoreError> {
        self.bytes.clear();
        entry.encode(&mut self.bytes);
        self.items.own(&self.bytes);
        self.append()
    }

    /// The entry of a task, as `encode` writes it.
    fn task(&mut self, key: u64, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), StoreError> {
        self.bytes.clear();
        encode(&mut self.bytes);
        self.items.task(key);
        self.blocks.insert(block_of(key));
        self.append()
    }

    fn append(&mut self) -> Result<(), StoreError> {
        if let Some(tile) = self.frontier.append(leaf_hash(&self.bytes)) {
            let number = (self.frontier.size() >> limits::LEDGER_TILE_BITS) - 1;
            let sql = "INSERT INTO ledger_tile VALUES(?1, ?2)";
            self.conn.prepare_cached(sql)?.execute(params![number, tile.as_bytes()])?;
        }
        Ok(())
    }

    /// Writes what was added, if anything was.
    fn finish(self, at_secs: u64) -> Result<(), StoreError> {
        if self.frontier.size() == self.first {
            return Ok(());
        }
        let (first, items) = (self.first, self.items.into_bytes());
        let sql = "INSERT INTO ledger VALUES(?1, ?2, ?3)";
        self.conn.prepare_cached(sql)?.execute(params![first, at_secs, items])?;
        let mut insert = self.conn.prepare_cached("INSERT INTO ledger_block VALUES(?1, ?2)")?;
        for block in self.blocks {
            insert.execute([block, first])?;
        }
        save(self.conn, self.frontier)
    }
}

fn save(conn: &Connection, frontier: &Frontier) -> Result<(), StoreError> {
    let peaks: Vec<u8> = frontier.peaks().iter().flat_map(|peak| *peak.as_bytes()).collect();
    let sql = "UPDATE ledger_state SET size = ?1, peaks = ?2";
    conn.prepare_cached(sql)?.execute(params![frontier.size(), peaks])?;
    Ok(())
}

/// The state of the log.
pub(super) fn frontier(conn: &Connection) -> Result<Option<Frontier>, StoreError> {
    let sql = "SELECT size, peaks FROM ledger_state";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let damaged = || StoreError::damaged("the state of the ledger");
    let row = rows.next()?.ok_or_else(damaged)?;
    let Some(peaks) = row.get_ref(1)?.as_blob_or_null().map_err(rusqlite::Error::from)? else {
        return Ok(None);
    };
    let (peaks, rest) = peaks.as_chunks::<32>();
    let peaks = peaks.iter().map(|peak| TreeHash::new(*peak)).collect();
    let frontier = Frontier::from_parts(row.get(0)?, peaks).filter(|_| rest.is_empty());
    frontier.map(Some).ok_or_else(damaged)
}

impl Ledger {
    /// Reads what it takes to append. In a store from before there was a ledger, all that is final joins it first.
    pub(super) fn open(conn: &mut Connection) -> Result<Self, StoreError> {
        let known = frontier(conn)?;
        let frontier = if let Some(frontier) = known {
            frontier
        } else {
            let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let frontier = adopt(&transaction)?;
            transaction.commit()?;
            frontier
        };
        Ok(Self { frontier, recent: recent(conn)?, receipts: receipts::next(conn)? })
    }

    /// Adds what a batch brings.
    pub(super) fn append(
        &mut self,
        conn: &Connection,
        batch: &Batch,
        revoked: Vec<Revoked>,
    ) -> Result<(), StoreError> {
        let mut addition = Addition::new(conn, &mut self.frontier);
        let at_secs = batch.at.millis() / 1000;
        for peer in &batch.peers {
            addition.own(&LedgerEntry::Peer { no: peer.no, id: peer.id })?;
        }
        for (peer, names) in &batch.names {
            // They are said again with each session; what is in the ledger already is no news.
            if !set_names(conn, *peer, names)? {
                continue;
            }
            addition.own(&LedgerEntry::Named { at_secs, peer: *peer, names: names.clone() })?;
        }
        for Revoked { place, task, grants } in revoked {
            addition.own(&LedgerEntry::Revoked { at_secs, entry: place, task, grants })?;
        }
        for row in &batch.finals {
            let key = task_key(row.task)?;
            addition.task(key, |bytes| TaskEntry::encode_row(bytes, batch.at, row))?;
        }
        addition.finish(at_secs)
    }

    /// Keeps what workers signed; `finals` are the final tasks of the same batch, in order.
    pub(super) fn add_receipts(
        &mut self,
        conn: &Connection,
        signed: &[SignedReceipts],
        finals: &[&FinalRow],
    ) -> Result<(), StoreError> {
        self.receipts = receipts::add(conn, self.receipts, signed, finals)?;
        Ok(())
    }

    /// A peer's recent credit with what is granted or revoked now. What it had on an earlier day is written down.
    pub(super) fn grant(
        &mut self,
        conn: &Connection,
        at: Timestamp,
        peer: PeerNo,
        delta: &CreditDelta,
    ) -> Result<Recent, StoreError> {
        let recent = self.recent.entry(peer).or_default();
        if delta.credit != Credit::ZERO {
            let at_secs = at.millis() / 1000;
            let day = day_of(at_secs);
            if day != recent.day {
                if recent.of_day != Credit::ZERO {
                    add_day(conn, peer, recent)?;
                }
                (recent.day, recent.of_day) = (day, Credit::ZERO);
            }
            recent.of_day += delta.credit;
            recent.average.add(at_secs, delta.credit.as_f64());
        }
        Ok(*recent)
    }
}

/// Writes down what a peer is called. Returns whether that is news.
fn set_names(conn: &Connection, peer: PeerNo, names: &Names) -> Result<bool, StoreError> {
    let sql = "INSERT INTO peer_name VALUES(?1, ?2, ?3) ON CONFLICT(peer) \
               DO UPDATE SET owner = ?2, team = ?3 WHERE (owner, team) != (?2, ?3)";
    let changed = conn.prepare_cached(sql)?.execute(params![peer.get(), names.owner(), names.team()])?;
    Ok(changed > 0)
}

fn add_day(conn: &Connection, peer: PeerNo, recent: &Recent) -> Result<(), StoreError> {
    let (credit, nanos) = split(recent.of_day)?;
    // A clock that went back comes to the same day again.
    let sql = "INSERT INTO credit_day AS old VALUES(?1, ?2, ?3, ?4) ON CONFLICT(peer, day) DO UPDATE SET \
               credit = old.credit + excluded.credit + (old.nanos + excluded.nanos) / 1000000000, \
               nanos = (old.nanos + excluded.nanos) % 1000000000";
    conn.prepare_cached(sql)?.execute(params![peer.get(), recent.day, credit, nanos])?;
    Ok(())
}

fn recent(conn: &Connection) -> Result<HashMap<PeerNo, Recent>, StoreError> {
    let mut statement =
        conn.prepare("SELECT peer, average, averaged, day, day_credit, day_nanos FROM credit")?;
    let mut rows = statement.query([])?;
    let mut all = HashMap::new();
    while let Some(row) = rows.next()? {
        let average = Average { per_day: row.get(1)?, at_secs: row.get(2)? };
        let recent = Recent { average, day: row.get(3)?, of_day: join(row.get(4)?, row.get(5)?) };
        all.insert(PeerNo::new(row.get(0)?), recent);
    }
    Ok(all)
}

/// Makes the log of what was final before there was one: peers by number, then each job's tasks by position, as of
/// the time when the job ended or began.
fn adopt(conn: &Connection) -> Result<Frontier, StoreError> {
    let mut frontier = Frontier::default();
    let mut addition = Addition::new(conn, &mut frontier);
    let mut statement = conn.prepare("SELECT peer, id FROM peer ORDER BY peer")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (no, id) = (PeerNo::new(row.get(0)?), PeerId::new(row.get(1)?));
        addition.own(&LedgerEntry::Peer { no, id })?;
    }
    addition.finish(0)?;
    let mut jobs = conn.prepare("SELECT job_id, coalesce(ended, submitted) FROM job ORDER BY job_id")?;
    let sql = "SELECT task_id, digest, entry FROM task_final WHERE task_id >> 32 = ?1 ORDER BY task_id";
    let sql = sql.replace("task_id >> 32 = ?1", "task_id BETWEEN ?1 << 32 AND ?1 << 32 | 0xffffffff");
    let mut finals = conn.prepare(&sql)?;
    let mut rows = jobs.query([])?;
    while let Some(row) = rows.next()? {
        let (job, at_millis): (u64, u64) = (row.get(0)?, row.get(1)?);
        let mut addition = Addition::new(conn, &mut frontier);
        let mut rows = finals.query([job])?;
        while let Some(row) = rows.next()? {
            let key = row.get(0)?;
            let (task, entry) = entry(row)?;
            let entry = entry.in_ledger(at_millis / 1000, task);
            addition.task(key, |bytes| entry.encode(bytes))?;
        }
        addition.finish(at_millis / 1000)?;
    }
    save(conn, &frontier)?;
    Ok(frontier)
}
