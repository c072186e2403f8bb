-- Final tasks that rest on one worker's word until its next check: its vote, packed as in `pending`.
CREATE TABLE provisional(
    task_id INTEGER PRIMARY KEY,
    number  INTEGER NOT NULL,
    peer    INTEGER NOT NULL,
    report  BLOB NOT NULL
) STRICT;
ALTER TABLE shard ADD COLUMN provisional INTEGER NOT NULL DEFAULT 0;
-- Results that were accepted and taken back.
ALTER TABLE shard ADD COLUMN revoked INTEGER NOT NULL DEFAULT 0;

-- What is remembered of workers: checks passed since they were caught last, how often they were, how many attempts they
-- may hold, and what the coordinator's owner said of them.
CREATE TABLE record(
    peer      INTEGER PRIMARY KEY,
    checks    INTEGER NOT NULL,
    caught    INTEGER NOT NULL,
    quota     INTEGER NOT NULL,
    admission INTEGER NOT NULL
) STRICT;

-- Invites that may still be used, by the hash of their tokens.
CREATE TABLE invite(
    hash    BLOB PRIMARY KEY,
    uses    INTEGER NOT NULL, -- left
    expires INTEGER NOT NULL  -- ms
) STRICT, WITHOUT ROWID;
