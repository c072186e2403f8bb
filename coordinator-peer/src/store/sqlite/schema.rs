//! Which tables there are, and how an older store gets them.

use std::path::PathBuf;

use rusqlite::{Connection, TransactionBehavior};

use crate::store::StoreError;

/// The schema that the first step makes of an empty file. Those before it are refused: what they say of results
/// can't be compared with what is said today.
const FIRST: u32 = 2;

/// What leads from each schema to the next one. A step that was published is never changed.
const STEPS: &[&str] = &[
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
    include_str!("schema/5.sql"),
    include_str!("schema/6.sql"),
    include_str!("schema/7.sql"),
];

/// Brings the store to the newest schema.
pub(super) fn migrate(conn: &mut Connection) -> Result<(), StoreError> {
    run(conn, STEPS)
}

/// Takes the steps that are still to be taken, each in a transaction of its own, so that a crash between
/// leaves a store of a whole number of steps.
fn run(conn: &mut Connection, steps: &[&str]) -> Result<(), StoreError> {
    let found = found(conn)?;
    if (1..FIRST).contains(&found) {
        return Err(StoreError::OlderSchema { found, first: FIRST });
    }
    for (to, step) in (FIRST..).zip(steps).filter(|(to, _)| *to > found) {
        let take = |conn: &mut Connection| {
            let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(step)?;
            transaction.pragma_update(None, "user_version", to)?;
            transaction.commit()
        };
        take(conn).map_err(|source| StoreError::Migrate { to, source: Box::new(source) })?;
    }
    refuse_newer(conn, found, newest(steps))
}

/// The schema of a store; 0 is an empty file.
pub(super) fn found(conn: &Connection) -> Result<u32, StoreError> {
    Ok(conn.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

/// For those who may not migrate a store, because they only read it.
pub(super) fn must_be_newest(conn: &Connection) -> Result<(), StoreError> {
    let (found, known) = (found(conn)?, newest(STEPS));
    refuse_newer(conn, found, known)?;
    if found < known { Err(StoreError::NotMigrated { file: file(conn), found, known }) } else { Ok(()) }
}

fn newest(steps: &[&str]) -> u32 {
    u32::try_from(steps.len()).unwrap_or(u32::MAX).saturating_add(FIRST - 1)
}

fn refuse_newer(conn: &Connection, found: u32, known: u32) -> Result<(), StoreError> {
    if found > known { Err(StoreError::NewerSchema { file: file(conn), found, known }) } else { Ok(()) }
}

fn file(conn: &Connection) -> PathBuf {
    conn.path().unwrap_or_default().into()
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
        assert!(matches!(result, Err(StoreError::Migrate { to: 3, .. })), "{result:?}");
        assert_eq!(tables(&conn), ["a"]);
        run(&mut conn, &["CREATE TABLE a(x)", "CREATE TABLE b(x)"]).expect("the mended step");
        assert_eq!(tables(&conn), ["a", "b"]);
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let mut conn = Connection::open_in_memory().expect("memory");
        conn.pragma_update(None, "user_version", 7).expect("a version");
        let result = run(&mut conn, &["CREATE TABLE a(x)"]);
        assert!(matches!(result, Err(StoreError::NewerSchema { found: 7, known: FIRST, .. })), "{result:?}");
        assert!(tables(&conn).is_empty());
    }

    #[test]
    fn a_schema_from_before_the_first_is_refused_and_left_alone() {
        let mut conn = Connection::open_in_memory().expect("memory");
        conn.execute_batch("CREATE TABLE old(x); PRAGMA user_version = 1").expect("a store");
        let result = run(&mut conn, STEPS);
        assert!(matches!(result, Err(StoreError::OlderSchema { found: 1, first: FIRST })), "{result:?}");
        assert_eq!(tables(&conn), ["old"]);
    }

    /// The store of the first published schema, with a job of 3,000 tasks of which two thirds are final.
    #[test]
    fn a_store_of_an_older_schema_is_brought_to_the_newest() {
        let mut conn = Connection::open_in_memory().expect("memory");
        run(&mut conn, &STEPS[..1]).expect("the first schema");
        conn.execute_batch(
            "WITH RECURSIVE t(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM t WHERE i < 1999) \
             INSERT INTO task_final SELECT 1 << 32 | i, NULL, x'02' FROM t",
        )
        .expect("rows");
        conn.execute_batch(
            "INSERT INTO job VALUES(1, x'00', x'00', '{}', 0, 1, NULL); \
             INSERT INTO shard VALUES(1, 1, 0, 3000, 2000, 2000, 2000, 0, 0, 0, 0, x'00', 0, 0)",
        )
        .expect("a job");
        migrate(&mut conn).expect("migrated");
        must_be_newest(&conn).expect("the newest");
        let mut statement = conn.prepare("SELECT finals FROM final_block ORDER BY block").expect("valid");
        let counts = statement.query_map([], |row| row.get(0)).expect("readable");
        assert_eq!(counts.collect::<Result<Vec<u64>, _>>().expect("numbers"), [1024, 976]);
        let sql = "SELECT paused, priority, numbers FROM job JOIN shard USING(job_id)";
        let new = conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        assert_eq!(new, Ok((false, 0, 0)), "as jobs were before");
    }

    #[test]
    fn whoever_only_reads_refuses_what_has_to_be_migrated_first() {
        let mut conn = Connection::open_in_memory().expect("memory");
        run(&mut conn, &STEPS[..1]).expect("the first schema");
        let result = must_be_newest(&conn);
        assert!(matches!(result, Err(StoreError::NotMigrated { found: FIRST, .. })), "{result:?}");
    }
}
