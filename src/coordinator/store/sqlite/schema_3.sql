-- What tasks left beside their output and this coordinator keeps, one per task and kind; the bytes lie in files. Only
-- those under the task's last lease count.
CREATE TABLE artifacts (
    task INTEGER NOT NULL REFERENCES tasks (id),
    kind TEXT NOT NULL,
    lease INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    stored_us INTEGER NOT NULL,
    PRIMARY KEY (task, kind)
) WITHOUT ROWID, STRICT;
