-- What attempts that failed and were followed by another one wrote, and how they ended; the last one's stands in results.
CREATE TABLE attempt_results (
    task INTEGER NOT NULL REFERENCES tasks (id),
    attempt INTEGER NOT NULL,
    result TEXT NOT NULL,
    tails BLOB,
    PRIMARY KEY (task, attempt)
) WITHOUT ROWID, STRICT;
