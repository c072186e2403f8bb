//! What workers signed about their reports: the newest [`limits::RECEIPTS_KEPT`].
//!
//! A receipt that says what its task became final with is stored as just that, and read from the row of the task. So it
//! has to be written out before that row may go.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, Row, params};
use talka_core::{
    coordinator::{FinalRow, SignedReceipts, TaskVerdict},
    ids::{AttemptId, PeerNo, TaskId},
    limits,
    signing::Receipt,
};

use super::{
    error::InRow,
    key::{block_of, task_key, task_of},
    load::blob,
    read::entry,
};
use crate::store::{
    StoreError,
    packed::{self, Says, StoredReceipt, kept_outcome},
};

/// The number of the next receipt.
pub(super) fn next(conn: &Connection) -> Result<u64, StoreError> {
    let sql = "SELECT first, receipts FROM receipt ORDER BY first DESC LIMIT 1";
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else { return Ok(0) };
    let (first, receipts) = stored(row, 0, 1)?;
    Ok(first + receipts.len() as u64)
}

/// Keeps what workers signed, as receipts from number `next` on, and forgets the oldest; returns the next number.
/// `finals` are the final tasks of the same batch, in order, and written already.
pub(super) fn add(
    conn: &Connection,
    mut next: u64,
    signed: &[SignedReceipts],
    finals: &[&FinalRow],
) -> Result<u64, StoreError> {
    if signed.is_empty() {
        return Ok(next);
    }
    let mut insert = conn.prepare_cached("INSERT INTO receipt VALUES(?1, ?2, ?3, ?4)")?;
    let mut insert_block = conn.prepare_cached("INSERT INTO receipt_block VALUES(?1, ?2)")?;
    let mut bytes = Vec::new();
    for signed in signed.iter().filter(|signed| !signed.receipts.is_empty()) {
        let mut place = 0;
        let receipts = signed.receipts.iter().map(|receipt| to_store(receipt, finals, &mut place));
        let receipts = receipts.collect::<Result<Vec<_>, _>>()?;
        bytes.clear();
        packed::put_receipts(&mut bytes, &receipts);
        insert.execute(params![next, signed.peer.get(), signed.signature, bytes])?;
        for block in blocks_of(&receipts) {
            insert_block.execute([block, next])?;
        }
        next += receipts.len() as u64;
    }
    if let Some(oldest) = next.checked_sub(limits::RECEIPTS_KEPT) {
        forget(conn, oldest)?;
    }
    Ok(next)
}

/// `place` is where the row of the receipt before was found among `finals`: that of the next one mostly follows.
fn to_store(receipt: &Receipt, finals: &[&FinalRow], place: &mut usize) -> Result<StoredReceipt, StoreError> {
    let Receipt { attempt: AttemptId { task, number }, outcome, fuel, resumed } = *receipt;
    if finals.get(*place).is_none_or(|row| row.task != task) {
        *place = finals.binary_search_by_key(&task, |row| row.task).unwrap_or(usize::MAX);
    }
    let is_as_final = finals.get(*place).is_some_and(|row| {
        let agreed = matches!(row.verdict, TaskVerdict::Agreed { fuel: agreed, .. } if agreed == fuel);
        agreed && !resumed && kept_outcome(row) == Some(outcome)
    });
    *place = place.saturating_add(1);
    let says = if is_as_final { Says::AsFinal } else { Says::Own { outcome, fuel, resumed } };
    Ok(StoredReceipt { key: task_key(task)?, number, says })
}

fn blocks_of(receipts: &[StoredReceipt]) -> BTreeSet<u64> {
    receipts.iter().map(|receipt| block_of(receipt.key)).collect()
}

/// Bounded by what a commit adds, once as many are there as are kept.
fn forget(conn: &Connection, oldest: u64) -> Result<(), StoreError> {
    let sql = "SELECT first, receipts FROM receipt WHERE first < ?1 ORDER BY first";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([oldest])?;
    let mut gone = Vec::new();
    while let Some(row) = rows.next()? {
        let (first, receipts) = stored(row, 0, 1)?;
        gone.extend(blocks_of(&receipts).into_iter().map(|block| (block, first)));
    }
    let mut delete = conn.prepare_cached("DELETE FROM receipt_block WHERE block = ?1 AND first = ?2")?;
    for (block, first) in gone {
        delete.execute([block, first])?;
    }
    conn.prepare_cached("DELETE FROM receipt WHERE first < ?1")?.execute([oldest])?;
    Ok(())
}

/// Writes out all receipts of these tasks, because their rows are about to go.
pub(super) fn write_out(conn: &Connection, tasks: &BTreeSet<TaskId>) -> Result<(), StoreError> {
    let keys = tasks.iter().map(|task| task_key(*task)).collect::<Result<BTreeSet<_>, _>>()?;
    let blocks: BTreeSet<u64> = keys.iter().map(|key| block_of(*key)).collect();
    let mut rows_of = conn.prepare_cached("SELECT first FROM receipt_block WHERE block = ?1")?;
    let mut found = BTreeSet::<u64>::new();
    for block in blocks {
        let firsts = rows_of.query_map([block], |row| row.get(0))?;
        for first in firsts {
            found.insert(first?);
        }
    }
    let mut read = conn.prepare_cached("SELECT first, receipts FROM receipt WHERE first = ?1")?;
    let mut write = conn.prepare_cached("UPDATE receipt SET receipts = ?2 WHERE first = ?1")?;
    for first in found {
        let mut rows = read.query([first])?;
        let Some(row) = rows.next()? else { continue };
        let (_, mut receipts) = stored(row, 0, 1)?;
        let mut changed = false;
        for receipt in &mut receipts {
            if receipt.says == Says::AsFinal && keys.contains(&receipt.key) {
                let Receipt { outcome, fuel, resumed, .. } = full(conn, receipt)?;
                receipt.says = Says::Own { outcome, fuel, resumed };
                changed = true;
            }
        }
        drop(rows);
        if changed {
            let mut bytes = Vec::new();
            packed::put_receipts(&mut bytes, &receipts);
            write.execute(params![first, bytes])?;
        }
    }
    Ok(())
}

/// A receipt with what it says.
fn full(conn: &Connection, receipt: &StoredReceipt) -> Result<Receipt, StoreError> {
    let task = task_of(receipt.key);
    let attempt = AttemptId { task, number: receipt.number };
    if let Says::Own { outcome, fuel, resumed } = receipt.says {
        return Ok(Receipt { attempt, outcome, fuel, resumed });
    }
    let sql = "SELECT task_id, digest, entry FROM task_final WHERE task_id = ?1";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([receipt.key])?;
    if let Some(row) = rows.next()? {
        let (_, entry) = entry(row)?;
        if let (Some(outcome), TaskVerdict::Agreed { fuel, .. }) = (entry.outcome, entry.verdict) {
            return Ok(Receipt { attempt, outcome, fuel, resumed: false });
        }
    }
    Err(StoreError::damaged(format!("what a worker signed about {attempt}")))
}

/// See [`Reader::receipts`](crate::store::Reader::receipts).
pub(super) fn of_task(conn: &Connection, task: TaskId) -> Result<Vec<SignedReceipts>, StoreError> {
    let Ok(key) = task_key(task) else { return Ok(vec![]) };
    // One transaction, because a receipt is in two places.
    let transaction = conn.unchecked_transaction()?;
    let sql = "SELECT first, peer, signature, receipts FROM receipt WHERE first IN \
               (SELECT first FROM receipt_block WHERE block = ?1) ORDER BY first";
    let mut statement = transaction.prepare_cached(sql)?;
    let mut rows = statement.query([block_of(key)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (_, receipts) = stored(row, 0, 3)?;
        if receipts.iter().any(|receipt| receipt.key == key) {
            let receipts = receipts.iter().map(|receipt| full(&transaction, receipt));
            let receipts = receipts.collect::<Result<_, _>>()?;
            found.push(SignedReceipts { peer: PeerNo::new(row.get(1)?), signature: row.get(2)?, receipts });
        }
    }
    Ok(found)
}

/// What is wrong between the receipts, the blocks that they are found by, and the final tasks.
pub(super) fn problems(conn: &Connection) -> Result<Vec<String>, StoreError> {
    let mut problems = Vec::new();
    let mut by_block = BTreeMap::<u64, u64>::new();
    let mut statement = conn.prepare("SELECT first, receipts FROM receipt ORDER BY first")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let checked = stored(row, 0, 1).and_then(|(_, receipts)| {
            for block in blocks_of(&receipts) {
                *by_block.entry(block).or_default() += 1;
            }
            receipts.iter().try_for_each(|receipt| full(conn, receipt).map(drop))
        });
        match checked {
            Ok(()) => {}
            Err(StoreError::Damaged { what, .. }) => {
                problems.push(what);
                return Ok(problems);
            }
            Err(error) => return Err(error),
        }
    }
    let mut statement = conn.prepare("SELECT block, count(*) FROM receipt_block GROUP BY 1")?;
    let counted = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if counted.collect::<Result<BTreeMap<u64, u64>, _>>()? != by_block {
        problems.push("receipts are not found by the blocks of their tasks".into());
    }
    Ok(problems)
}

fn stored(row: &Row<'_>, first: usize, receipts: usize) -> Result<(u64, Vec<StoredReceipt>), StoreError> {
    let first: u64 = row.get(first)?;
    Ok((first, packed::receipts(blob(row, receipts)?).in_row(|| format!("receipts {first}"))?))
}
