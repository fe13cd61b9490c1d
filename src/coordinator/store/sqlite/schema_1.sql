CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE suites (
    id INTEGER PRIMARY KEY,
    uuid BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    created_us INTEGER NOT NULL
) STRICT;

-- What a claim matches a holder against; `ready` counts the tasks that wait for such a holder.
CREATE TABLE demands (
    id INTEGER PRIMARY KEY,
    tags TEXT NOT NULL,
    milli_cpus INTEGER NOT NULL,
    ready INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tags, milli_cpus)
) STRICT;

-- Managers (kind 0) and independent workers (kind 1). `presence`: 0 left, 1 live, 2 quiet for longer than its term.
-- `expires_us` is serving time: it counts from the start of this life of the coordinator.
CREATE TABLE holders (
    id INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    uuid BLOB NOT NULL,
    boot INTEGER NOT NULL,
    session INTEGER NOT NULL,
    host TEXT NOT NULL,
    slots INTEGER NOT NULL,
    milli_cpus INTEGER,
    tags TEXT NOT NULL,
    labels TEXT NOT NULL,
    mode TEXT NOT NULL,
    status TEXT NOT NULL,
    presence INTEGER NOT NULL,
    expires_us INTEGER NOT NULL,
    last_seen_us INTEGER NOT NULL,
    UNIQUE (kind, uuid)
) STRICT;
CREATE INDEX holders_expiry ON holders (expires_us) WHERE presence = 1;

-- States are numbered in order of life: 0 pending, 1 ready, 2 assigned, 3 running, 4 completed, 5 failed, 6 cancelled.
CREATE TABLE tasks (
    id INTEGER PRIMARY KEY,
    uuid BLOB NOT NULL UNIQUE,
    suite INTEGER NOT NULL REFERENCES suites (id),
    demand INTEGER NOT NULL REFERENCES demands (id),
    state INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    lease INTEGER NOT NULL DEFAULT 0,
    settled INTEGER NOT NULL DEFAULT 0,
    holder INTEGER REFERENCES holders (id),
    last_holder INTEGER REFERENCES holders (id),
    cancel INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL,
    backoff TEXT,
    open_attempt INTEGER NOT NULL DEFAULT 0,
    accepted_us INTEGER NOT NULL,
    queued_us INTEGER NOT NULL,
    claimed_us INTEGER,
    started_us INTEGER,
    finished_us INTEGER,
    reason TEXT,
    exit_code INTEGER,
    requeue_cause TEXT,
    end_seq INTEGER,
    retry_of INTEGER REFERENCES tasks (id),
    spec_bytes INTEGER NOT NULL,
    milli_cpus INTEGER NOT NULL,
    mem_bytes INTEGER NOT NULL,
    gpus INTEGER NOT NULL,
    named TEXT
) STRICT;
CREATE INDEX tasks_ready ON tasks (demand, priority DESC, id) WHERE state = 1;
CREATE INDEX tasks_due ON tasks (queued_us) WHERE state = 0;
CREATE INDEX tasks_held ON tasks (holder) WHERE holder IS NOT NULL;
CREATE INDEX tasks_suite ON tasks (suite, id);
CREATE UNIQUE INDEX tasks_end ON tasks (end_seq) WHERE end_seq IS NOT NULL;
CREATE INDEX tasks_retried ON tasks (retry_of) WHERE retry_of IS NOT NULL;

CREATE TABLE specs (
    task INTEGER PRIMARY KEY REFERENCES tasks (id),
    spec TEXT NOT NULL
) STRICT;

-- `tails` holds both output tails as they were, where one of them is no text.
CREATE TABLE results (
    task INTEGER PRIMARY KEY REFERENCES tasks (id),
    result TEXT NOT NULL,
    tails BLOB
) STRICT;

CREATE TABLE attempts (
    task INTEGER NOT NULL REFERENCES tasks (id),
    attempt INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    try_no INTEGER NOT NULL,
    holder INTEGER REFERENCES holders (id),
    started_us INTEGER NOT NULL,
    ended_us INTEGER,
    end TEXT,
    cause TEXT,
    PRIMARY KEY (task, attempt)
) WITHOUT ROWID, STRICT;

-- Idempotency keys; `scope` is the suite that was named, or 0.
CREATE TABLE task_keys (
    scope INTEGER NOT NULL,
    key TEXT NOT NULL,
    task INTEGER NOT NULL REFERENCES tasks (id),
    PRIMARY KEY (scope, key)
) WITHOUT ROWID, STRICT;
CREATE INDEX task_keys_task ON task_keys (task);

-- Tasks by suite and state, kept with every change; suite 0 is the whole store.
CREATE TABLE counts (
    suite INTEGER NOT NULL,
    state INTEGER NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (suite, state)
) WITHOUT ROWID, STRICT;
