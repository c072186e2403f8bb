//! Which tables there are, and how an older store gets them.

use rusqlite::{Connection, TransactionBehavior};

use crate::store::StoreError;

/// What leads from each schema to the next one; the first step makes an empty file schema 1. A step that was
/// published is never changed.
const STEPS: &[&str] = &[include_str!("schema/1.sql")];

/// Brings the store to the newest schema.
pub(super) fn migrate(conn: &mut Connection) -> Result<(), StoreError> {
    run(conn, STEPS)
}

/// Takes the steps that are still to be taken, each in a transaction of its own, so that a crash between
/// leaves a store of a whole number of steps.
fn run(conn: &mut Connection, steps: &[&str]) -> Result<(), StoreError> {
    let found: u32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (to, step) in (1u32..).zip(steps).skip(found as usize) {
        let take = |conn: &mut Connection| {
            let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(step)?;
            transaction.pragma_update(None, "user_version", to)?;
            transaction.commit()
        };
        take(conn).map_err(|source| StoreError::Migrate { to, source: Box::new(source) })?;
    }
    let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    if found > known { Err(StoreError::NewerSchema { found, known }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(conn: &Connection) -> Vec<String> {
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name";
        let mut statement = conn.prepare(sql).expect("valid");
        let names = statement.query_map([], |row| row.get(0)).expect("readable");
        names.collect::<Result<_, _>>().expect("text")
    }

    #[test]
    fn steps_are_taken_once_and_in_order() {
        let mut conn = Connection::open_in_memory().expect("memory");
        run(&mut conn, &["CREATE TABLE a(x)"]).expect("first");
        run(&mut conn, &["CREATE TABLE a(x)"]).expect("nothing to do");
        run(&mut conn, &["CREATE TABLE a(x)", "ALTER TABLE a RENAME TO b"]).expect("second");
        assert_eq!(tables(&conn), ["b"]);
    }

    #[test]
    fn a_step_that_fails_leaves_nothing() {
        let mut conn = Connection::open_in_memory().expect("memory");
        let result = run(&mut conn, &["CREATE TABLE a(x)", "CREATE TABLE b(x); CREATE TABLE a(x)"]);
        assert!(matches!(result, Err(StoreError::Migrate { to: 2, .. })), "{result:?}");
        assert_eq!(tables(&conn), ["a"]);
        run(&mut conn, &["CREATE TABLE a(x)", "CREATE TABLE b(x)"]).expect("the mended step");
        assert_eq!(tables(&conn), ["a", "b"]);
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let mut conn = Connection::open_in_memory().expect("memory");
        conn.pragma_update(None, "user_version", 7).expect("a version");
        let result = run(&mut conn, &["CREATE TABLE a(x)"]);
        assert!(matches!(result, Err(StoreError::NewerSchema { found: 7, known: 1 })), "{result:?}");
        assert!(tables(&conn).is_empty());
    }
}
