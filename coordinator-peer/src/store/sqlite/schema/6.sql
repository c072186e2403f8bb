-- The ledger: in which order entries joined it. One row per commit that added any. `entries` (packed) holds runs of
-- tasks, whose entries are in task_final, and all other entries as they are. `at` is in seconds.
CREATE TABLE ledger(
    first   INTEGER PRIMARY KEY, -- place of the first entry
    at      INTEGER NOT NULL,
    entries BLOB NOT NULL
) STRICT;
-- Where the entries of tasks are: which rows of `ledger` have tasks of a block (task_id >> 10).
CREATE TABLE ledger_block(
    block INTEGER NOT NULL,
    first INTEGER NOT NULL,
    PRIMARY KEY(block, first)
) STRICT, WITHOUT ROWID;
-- Roots of each 1,024 entries, so that a proof need not read all of them.
CREATE TABLE ledger_tile(
    tile INTEGER PRIMARY KEY,
    hash BLOB NOT NULL
) STRICT;
-- Entries of tasks that are in task_final no more, or in another form, because they were revoked.
CREATE TABLE ledger_old(
    place INTEGER PRIMARY KEY,
    entry BLOB NOT NULL
) STRICT;
-- What it takes to append: the roots of the largest perfect subtrees. NULL as long as the tasks that were final
-- before there was a ledger are not in it.
CREATE TABLE ledger_state(
    size  INTEGER PRIMARY KEY,
    peaks BLOB
) STRICT;
INSERT INTO ledger_state VALUES(0, NULL);

-- Recent average credit, in credits per day at a second; and the credit of the last day with any.
ALTER TABLE credit ADD COLUMN average    REAL    NOT NULL DEFAULT 0;
ALTER TABLE credit ADD COLUMN averaged   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE credit ADD COLUMN day        INTEGER NOT NULL DEFAULT 0;
ALTER TABLE credit ADD COLUMN day_credit INTEGER NOT NULL DEFAULT 0;
ALTER TABLE credit ADD COLUMN day_nanos  INTEGER NOT NULL DEFAULT 0;
-- Credit of the days before that one.
CREATE TABLE credit_day(
    peer   INTEGER NOT NULL,
    day    INTEGER NOT NULL,
    credit INTEGER NOT NULL,
    nanos  INTEGER NOT NULL,
    PRIMARY KEY(peer, day)
) STRICT, WITHOUT ROWID;
-- What peers say that their owners and teams are called.
CREATE TABLE peer_name(
    peer  INTEGER PRIMARY KEY,
    owner TEXT NOT NULL,
    team  TEXT NOT NULL
) STRICT;

-- What workers signed: one row per message, numbered by its first receipt. The oldest ones go.
CREATE TABLE receipt(
    first     INTEGER PRIMARY KEY,
    peer      INTEGER NOT NULL,
    signature BLOB NOT NULL,
    receipts  BLOB NOT NULL
) STRICT;
-- Which rows of `receipt` have tasks of a block.
CREATE TABLE receipt_block(
    block INTEGER NOT NULL,
    first INTEGER NOT NULL,
    PRIMARY KEY(block, first)
) STRICT, WITHOUT ROWID;
-- The submitter's signature; of a job that was submitted before there were any, none.
ALTER TABLE job ADD COLUMN signature BLOB;
