-- Limits, restrictions, leases, usage, and the feed of changes that caches follow.

-- What is set on a key or a project: limits, concurrency, where from, when, and for what. Null is nothing.
ALTER TABLE api_keys ADD COLUMN settings TEXT;
ALTER TABLE projects ADD COLUMN settings TEXT;

-- Windows of an hour and longer as they were counted at most a second ago.
CREATE TABLE key_windows (
    key_id TEXT NOT NULL PRIMARY KEY REFERENCES api_keys (id) ON DELETE CASCADE,
    windows TEXT NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Work done elsewhere that holds one of a key's places until it ends.
CREATE TABLE leases (
    id TEXT NOT NULL PRIMARY KEY,
    key_id TEXT NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    expires_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX leases_by_key ON leases (key_id);
CREATE INDEX leases_by_expiry ON leases (expires_at);

-- Verifications by key, hour and outcome. Outlives the key.
CREATE TABLE key_usage (
    key_id TEXT NOT NULL,
    hour INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (key_id, hour, outcome)
) STRICT, WITHOUT ROWID;

-- What changed, in the transaction that changed it, and which process did it. Numbers may become visible out of order; readers allow for it.
CREATE TABLE changes (
    seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    topic TEXT NOT NULL CHECK (topic IN ('key', 'project', 'limits', 'session')),
    id TEXT NOT NULL,
    origin TEXT NOT NULL
) STRICT;
