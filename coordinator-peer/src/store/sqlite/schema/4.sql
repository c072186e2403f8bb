-- What people change of a job while it runs.
ALTER TABLE job ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
-- Highest number of an attempt of any task: attempts that were given up are in no table, and numbers must not come
-- again.
ALTER TABLE shard ADD COLUMN numbers INTEGER NOT NULL DEFAULT 0;
-- What submitters weigh, but for those that weigh 1.
CREATE TABLE weight(
    peer   INTEGER PRIMARY KEY,
    weight INTEGER NOT NULL
) STRICT;
