-- An index for every filter and order that lists, claims and cancels have, so that no cost grows with the queue.

-- Rows that wait and are marked to be cancelled leave every index that a claim reads at once; their ends follow.
DROP INDEX tasks_ready;
CREATE INDEX tasks_ready ON tasks (demand, priority DESC, id) WHERE state = 1 AND cancel = 0;
CREATE INDEX tasks_queue ON tasks (priority DESC, id, demand, spec_bytes) WHERE state = 1 AND cancel = 0;
CREATE INDEX tasks_unwanted ON tasks (id) WHERE state IN (0, 1) AND cancel > 0;

-- What somebody holds is found by `tasks_held`.
CREATE INDEX tasks_state ON tasks (state) WHERE state NOT IN (2, 3);
CREATE INDEX tasks_suite_state ON tasks (suite, state);

CREATE TABLE labels (
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    task INTEGER NOT NULL REFERENCES tasks (id),
    PRIMARY KEY (key, value, task)
) WITHOUT ROWID, STRICT;
CREATE INDEX labels_key ON labels (key, task);
INSERT INTO labels (key, value, task)
SELECT l.key, l.value, p.task FROM specs p, json_each(p.spec, '$.labels') l;

-- What attempts that failed and were followed by another one wrote, and how they ended; the last one's stands in results.
CREATE TABLE attempt_results (
    task INTEGER NOT NULL REFERENCES tasks (id),
    attempt INTEGER NOT NULL,
    result TEXT NOT NULL,
    tails BLOB,
    PRIMARY KEY (task, attempt)
) WITHOUT ROWID, STRICT;
