//! Questions about the ledger's log.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};
use talka_core::{
    ids::{PeerId, PeerNo, TaskId},
    ledger::{Average, Frontier, Names, TreeHash, leaf_hash},
    limits,
};

use super::{
    error::InRow,
    key::{block_of, task_key, task_of},
    ledger::frontier,
    load::blob,
    read::{credit, entry},
    write::join,
};
use crate::store::{
    PeerStanding, StoreError,
    packed::{self, LedgerItem},
};

/// Entries from a place on.
struct Page<'a> {
    conn: &'a Connection,
    from: u64,
    limit: usize,
    /// Entries that are not those of `task_final`, by place.
    old: BTreeMap<u64, Vec<u8>>,
    entries: Vec<Vec<u8>>,
}

/// See [`Reader::ledger_entries`](crate::store::Reader::ledger_entries).
pub(super) fn entries(conn: &Connection, from: u64, limit: u32) -> Result<Vec<Vec<u8>>, StoreError> {
    // One transaction, so that what is revoked meanwhile is found in one of its two places.
    let transaction = conn.unchecked_transaction()?;
    entries_in(&transaction, from, limit)
}

/// The same within a transaction.
fn entries_in(transaction: &Connection, from: u64, limit: u32) -> Result<Vec<Vec<u8>>, StoreError> {
    let limit = limit.min(limits::PAGE_ROWS_MAX);
    let sql = "SELECT place, entry FROM ledger_old WHERE place BETWEEN ?1 AND ?1 + ?2 - 1";
    let mut statement = transaction.prepare_cached(sql)?;
    let old = statement.query_map(params![from, limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let old = old.collect::<Result<_, _>>()?;
    let mut page = Page { conn: transaction, from, limit: limit as usize, old, entries: vec![] };
    let sql = "SELECT first, at, entries FROM ledger WHERE first >= \
               coalesce((SELECT max(first) FROM ledger WHERE first <= ?1), 0) ORDER BY first";
    let mut statement = transaction.prepare_cached(sql)?;
    let mut rows = statement.query([from])?;
    while page.entries.len() < page.limit
        && let Some(row) = rows.next()?
    {
        page.add(row.get(0)?, row.get(1)?, blob(row, 2)?)?;
    }
    Ok(page.entries)
}

impl Page<'_> {
    fn add(&mut self, first: u64, at_secs: u64, items: &[u8]) -> Result<(), StoreError> {
        let items = packed::ledger_items(items).in_row(|| format!("the ledger from entry {first} on"))?;
        let mut place = first;
        for item in items {
            let count = match item {
                LedgerItem::Own(_) => 1,
                LedgerItem::Tasks { count, .. } => count,
            };
            if place + count > self.from && self.entries.len() < self.limit {
                match item {
                    LedgerItem::Own(bytes) => self.entries.push(bytes.to_vec()),
                    LedgerItem::Tasks { first: key, count } => {
                        let skipped = self.from.saturating_sub(place);
                        self.add_tasks(place + skipped, at_secs, key + skipped, count - skipped)?;
                    }
                }
            }
            place += count;
        }
        Ok(())
    }

    fn add_tasks(&mut self, place: u64, at_secs: u64, key: u64, count: u64) -> Result<(), StoreError> {
        let sql =
            "SELECT task_id, digest, entry FROM task_final WHERE task_id BETWEEN ?1 AND ?2 ORDER BY task_id";
        let mut statement = self.conn.prepare_cached(sql)?;
        let count = count.min((self.limit - self.entries.len()) as u64);
        let mut rows = statement.query(params![key, key + count - 1])?;
        let mut next = rows.next()?.map(entry).transpose()?;
        for step in 0..count {
            let task = task_of(key + step);
            let found = match next.take() {
                Some((known, entry)) if known == task => {
                    next = rows.next()?.map(super::read::entry).transpose()?;
                    Some(entry)
                }
                other => {
                    next = other;
                    None
                }
            };
            let bytes = match (self.old.remove(&(place + step)), found) {
                (Some(bytes), _) => bytes,
                (None, Some(entry)) => entry.in_ledger(at_secs, task).to_bytes(),
                (None, None) => {
                    return Err(StoreError::damaged(format!(
                        "the ledger's entry {}: task {task}",
                        place + step
                    )));
                }
            };
            self.entries.push(bytes);
        }
        Ok(())
    }
}

/// See [`Reader::ledger_place`](crate::store::Reader::ledger_place).
pub(super) fn place(conn: &Connection, task: TaskId) -> Result<Option<u64>, StoreError> {
    // One transaction, so that what is revoked meanwhile is found in one of its two places.
    let transaction = conn.unchecked_transaction()?;
    Ok(place_in(&transaction, task)?.map(|(place, _)| place))
}

/// The same within a transaction, with the entry's time in seconds.
pub(super) fn place_in(conn: &Connection, task: TaskId) -> Result<Option<(u64, u64)>, StoreError> {
    let Ok(key) = task_key(task) else { return Ok(None) };
    let sql = "SELECT first, entries, at FROM ledger WHERE first IN \
               (SELECT first FROM ledger_block WHERE block = ?1) ORDER BY first DESC";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([block_of(key)])?;
    while let Some(row) = rows.next()? {
        let first: u64 = row.get(0)?;
        let mut place = first;
        let items =
            packed::ledger_items(blob(row, 1)?).in_row(|| format!("the ledger from entry {first} on"))?;
        for item in items {
            match item {
                LedgerItem::Own(_) => place += 1,
                LedgerItem::Tasks { first, count } => {
                    if (first..first + count).contains(&key) {
                        let place = place + (key - first);
                        let sql = "SELECT 1 FROM ledger_old WHERE place = ?1";
                        let is_old = conn.query_row(sql, [place], |_| Ok(())).optional()?;
                        // The newest one counts, and if that was revoked none does.
                        let at_secs = row.get(2)?;
                        return Ok(is_old.is_none().then_some((place, at_secs)));
                    }
                    place += count;
                }
            }
        }
    }
    Ok(None)
}

/// See [`Reader::ledger_tiles`](crate::store::Reader::ledger_tiles).
pub(super) fn tiles(conn: &Connection, from: u64, count: u64) -> Result<Vec<TreeHash>, StoreError> {
    let sql = "SELECT hash FROM ledger_tile WHERE tile BETWEEN ?1 AND ?1 + ?2 - 1 ORDER BY tile";
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map(params![from, count], |row| Ok(TreeHash::new(row.get(0)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// See [`Reader::standings`](crate::store::Reader::standings).
pub(super) fn standings(conn: &Connection) -> Result<Vec<PeerStanding>, StoreError> {
    let sql = "SELECT peer, credit, nanos, validated, invalid, id, coalesce(owner, ''), coalesce(team, ''), \
               average, averaged, day, day_credit, day_nanos \
               FROM credit JOIN peer USING(peer) LEFT JOIN peer_name USING(peer) ORDER BY peer";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut standings = Vec::new();
    while let Some(row) = rows.next()? {
        let no = PeerNo::new(row.get(0)?);
        let names =
            Names::new(row.get_ref(6)?.as_str().unwrap_or(""), row.get_ref(7)?.as_str().unwrap_or(""));
        standings.push(PeerStanding {
            no,
            id: PeerId::new(row.get(5)?),
            names: names.map_err(|_| StoreError::damaged(format!("the names of peer {no}")))?,
            total: credit(row)?,
            average: Average { per_day: row.get(8)?, at_secs: row.get(9)? },
            day: (row.get(10)?, join(row.get(11)?, row.get(12)?)),
        });
    }
    Ok(standings)
}

/// See [`Reader::credit_days`](crate::store::Reader::credit_days).
pub(super) fn days(
    conn: &Connection,
    from: u64,
) -> Result<Vec<(PeerNo, u64, talka_core::quantities::Credit)>, StoreError> {
    let sql = "SELECT peer, day, credit, nanos FROM credit_day WHERE day >= ?1 AND (credit <> 0 OR nanos <> 0) \
               UNION ALL SELECT peer, day, day_credit, day_nanos FROM credit \
               WHERE day >= ?1 AND (day_credit <> 0 OR day_nanos <> 0) ORDER BY 1, 2";
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map([from], |row| {
        Ok((PeerNo::new(row.get(0)?), row.get(1)?, join(row.get(2)?, row.get(3)?)))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// What is wrong between the log, its tiles, its state and the final tasks.
pub(super) fn problems(conn: &Connection) -> Result<Vec<String>, StoreError> {
    let Some(stated) = frontier(conn)? else {
        return Ok(vec!["the final tasks are not in the ledger yet: start the coordinator once".into()]);
    };
    let mut computed = Frontier::default();
    let (mut tiles_computed, mut problems) = (Vec::new(), Vec::new());
    let mut tasks = 0u64;
    loop {
        let page = match entries_in(conn, computed.size(), limits::PAGE_ROWS_MAX) {
            Ok(page) => page,
            Err(StoreError::Damaged { what, .. }) => {
                problems.push(what);
                return Ok(problems);
            }
            Err(error) => return Err(error),
        };
        if page.is_empty() {
            break;
        }
        for bytes in page {
            tasks += u64::from(bytes.first() == Some(&TASK_KIND));
            tiles_computed.extend(computed.append(leaf_hash(&bytes)));
        }
    }
    if computed != stated {
        problems.push(format!(
            "the ledger is said to have {} entries and the root {}, but has {} and {}",
            stated.size(),
            stated.root(),
            computed.size(),
            computed.root()
        ));
    }
    let stored = tiles(conn, 0, u64::from(u32::MAX))?;
    if let Some(tile) = (0..stored.len().max(tiles_computed.len()))
        .find(|tile| stored.get(*tile) != tiles_computed.get(*tile))
    {
        problems.push(format!("tile {tile} of the ledger is not the root of its entries"));
    }
    let sql = "SELECT (SELECT count(*) FROM task_final), (SELECT count(*) FROM ledger_old)";
    let (finals, old): (u64, u64) = conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if tasks != finals + old {
        problems.push(format!(
            "{finals} tasks are final, but the ledger has entries of {}",
            tasks - old.min(tasks)
        ));
    }
    Ok(problems)
}

/// First byte of a task's entry.
const TASK_KIND: u8 = 2;
