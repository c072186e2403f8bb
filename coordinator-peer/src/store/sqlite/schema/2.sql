-- Packed columns are written and read by `store/packed`. A task_id is job_id << 32 | position.
-- Credit is two columns: whole credits, and billionths above them (0 to 999,999,999), because a busy peer's
-- billionths alone would overflow 64 bits.

-- Whom the short numbers in all other rows stand for.
CREATE TABLE peer(
    peer INTEGER PRIMARY KEY,
    id   BLOB NOT NULL UNIQUE
) STRICT;

-- The spec is JSON, because it must outlive upgrades of the program: a field that is added later has a
-- default, and one that is gone is skipped. A packed form has no names to tell by.
CREATE TABLE job(
    job_id    INTEGER PRIMARY KEY,
    request   BLOB NOT NULL,
    submitter BLOB NOT NULL,
    spec      TEXT NOT NULL,
    submitted INTEGER NOT NULL, -- ms
    state     INTEGER NOT NULL,
    ended     INTEGER           -- ms
) STRICT;

-- A range of a job's tasks, and who may write about them. Today each job is one shard with its own number.
-- Shard 0 is of no job: it stands for what belongs to the coordinator as a whole, such as peers, so that
-- every commit finds its epoch and leaves its number there.
CREATE TABLE shard(
    shard_id INTEGER PRIMARY KEY,
    job_id   INTEGER NOT NULL,
    first    INTEGER NOT NULL,
    n        INTEGER NOT NULL,
    cursor   INTEGER NOT NULL,
    low      INTEGER NOT NULL,
    done     INTEGER NOT NULL,
    failed   INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    credit   INTEGER NOT NULL,
    nanos    INTEGER NOT NULL,
    owner    BLOB NOT NULL,
    epoch    INTEGER NOT NULL,
    last_seq INTEGER NOT NULL
) STRICT;
INSERT INTO shard VALUES(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, zeroblob(32), 0, 0);

-- Open leases: one row per message to a worker.
CREATE TABLE lease(
    lease_id INTEGER PRIMARY KEY,
    shard_id INTEGER NOT NULL,
    peer     INTEGER NOT NULL,
    deadline INTEGER NOT NULL, -- ms
    items    BLOB NOT NULL
) STRICT;
-- Without it, the end of each small job would read the leases of all big ones.
CREATE INDEX lease_by_shard ON lease(shard_id);

-- Reports on tasks that are not final.
CREATE TABLE pending(
    task_id INTEGER NOT NULL,
    number  INTEGER NOT NULL,
    peer    INTEGER NOT NULL,
    report  BLOB NOT NULL,
    PRIMARY KEY(task_id, number)
) STRICT, WITHOUT ROWID;

-- The ledger: one entry per final task, never changed. The digest is NULL where nobody agreed.
CREATE TABLE task_final(
    task_id INTEGER PRIMARY KEY,
    digest  BLOB,
    entry   BLOB NOT NULL
) STRICT;

-- Outputs of final tasks that are not empty, or the blobs that hold them; the entry says which.
CREATE TABLE output(
    task_id INTEGER PRIMARY KEY,
    data    BLOB NOT NULL
) STRICT;

-- What the entries add up to.
CREATE TABLE credit(
    peer      INTEGER PRIMARY KEY,
    credit    INTEGER NOT NULL,
    nanos     INTEGER NOT NULL,
    validated INTEGER NOT NULL,
    invalid   INTEGER NOT NULL
) STRICT;
