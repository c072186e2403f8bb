-- How many tasks of each 1,024 neighbours are final, so that a restart finds the open ones among millions without
-- reading the ledger: only blocks that are not full are looked into. A block is task_id >> 10.
CREATE TABLE final_block(
    block  INTEGER PRIMARY KEY,
    finals INTEGER NOT NULL
) STRICT;
INSERT INTO final_block SELECT task_id >> 10, count(*) FROM task_final GROUP BY 1;
