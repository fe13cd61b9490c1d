-- Tasks that wait for the ends of others, and tasks that others submitted.

-- `waits`: upstream tasks whose end is still awaited. A pending task with 0 waits for its back-off.
ALTER TABLE tasks ADD COLUMN waits INTEGER NOT NULL DEFAULT 0;
-- The task whose follow-up this one is.
ALTER TABLE tasks ADD COLUMN follow_up_of INTEGER REFERENCES tasks (id);
-- Reasons of failures that are tried again, as JSON; NULL for the default.
ALTER TABLE tasks ADD COLUMN retry_on TEXT;

CREATE INDEX tasks_followed ON tasks (follow_up_of) WHERE follow_up_of IS NOT NULL;
DROP INDEX tasks_due;
CREATE INDEX tasks_due ON tasks (queued_us) WHERE state = 0 AND waits = 0;

-- Who waits for whom. `wanted`: 0 it completed, 1 it ended, 2 it failed. `name` is the `id` it was named by.
CREATE TABLE upstreams (
    task INTEGER NOT NULL REFERENCES tasks (id),
    upstream INTEGER NOT NULL REFERENCES tasks (id),
    wanted INTEGER NOT NULL,
    name TEXT,
    PRIMARY KEY (task, upstream)
) WITHOUT ROWID, STRICT;
CREATE INDEX upstreams_upstream ON upstreams (upstream, task);
