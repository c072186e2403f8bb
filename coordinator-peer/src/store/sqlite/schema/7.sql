-- Where a worker came from last: the public network, if others may share it, and whose it said that it is.
ALTER TABLE record ADD COLUMN site  INTEGER;
ALTER TABLE record ADD COLUMN owner INTEGER;
