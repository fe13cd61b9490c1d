-- What tasks may occupy at a holder besides CPUs; NULL where it names no limit.
ALTER TABLE holders ADD COLUMN mem_bytes INTEGER;
ALTER TABLE holders ADD COLUMN gpus INTEGER;

-- A demand names every amount that a holder has to have at all, so that a claim never brings what can only be handed
-- back. Made anew, because the amounts are part of what is unique.
CREATE TABLE demands_4 (
    id INTEGER PRIMARY KEY,
    tags TEXT NOT NULL,
    milli_cpus INTEGER NOT NULL,
    mem_bytes INTEGER NOT NULL,
    gpus INTEGER NOT NULL,
    ready INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tags, milli_cpus, mem_bytes, gpus)
) STRICT;
INSERT INTO demands_4 (id, tags, milli_cpus, mem_bytes, gpus, ready)
SELECT id, tags, milli_cpus, 0, 0, ready FROM demands;
DROP TABLE demands;
ALTER TABLE demands_4 RENAME TO demands;
