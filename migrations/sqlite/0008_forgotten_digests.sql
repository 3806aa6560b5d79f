-- Digests of secrets that were removed for good, whose they were, and since when: nobody gives such a key away a second time.
-- Outlives the key and its project.
CREATE TABLE forgotten_digests (
    hash BLOB NOT NULL PRIMARY KEY,
    project_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How many keys a project has, revoked ones too: kept by whatever adds and removes keys, because counting a million takes a
-- while. Keys that an older replica makes while this one starts aren't counted.
CREATE TABLE key_counts (
    project_id TEXT NOT NULL PRIMARY KEY REFERENCES projects (id) ON DELETE CASCADE,
    keys INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO key_counts (project_id, keys) SELECT project_id, count(*) FROM api_keys GROUP BY project_id;

-- Keys of an import on their way: they are written part by part while others write in between, and become keys all at once.
CREATE TABLE staged_keys (
    import_id TEXT NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    name_folded TEXT NOT NULL,
    description TEXT,
    owner TEXT,
    scopes TEXT NOT NULL,
    metadata TEXT NOT NULL,
    settings TEXT,
    generation INTEGER NOT NULL,
    disabled_at INTEGER,
    revoked_at INTEGER,
    revoked_reason TEXT,
    revoked_note TEXT,
    expires_at INTEGER,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (import_id, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE staged_secrets (
    import_id TEXT NOT NULL,
    id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    generation INTEGER NOT NULL,
    hash BLOB NOT NULL,
    prefix TEXT NOT NULL,
    first_four TEXT NOT NULL,
    last_four TEXT NOT NULL,
    expires_at INTEGER,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (import_id, hash)
) STRICT, WITHOUT ROWID;
