-- Digests of secrets that were removed for good, whose they were, and since when: nobody gives such a key away a second time.
-- Outlives the key and its project.
CREATE TABLE forgotten_digests (
    hash BYTEA NOT NULL PRIMARY KEY,
    project_id TEXT COLLATE "C" NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL,
    since TIMESTAMPTZ NOT NULL
);

-- How many keys a project has, revoked ones too: kept by whatever adds and removes keys, because counting a million takes a
-- while. Keys that an older replica makes while this one starts aren't counted.
CREATE TABLE key_counts (
    project_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES projects (id) ON DELETE CASCADE,
    keys BIGINT NOT NULL
);

INSERT INTO key_counts (project_id, keys) SELECT project_id, count(*) FROM api_keys GROUP BY project_id;

-- Keys of an import on their way: they are written part by part while others write in between, and become keys all at once. Worth nothing after a crash.
CREATE UNLOGGED TABLE staged_keys (
    import_id TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    name TEXT NOT NULL,
    name_folded TEXT NOT NULL,
    description TEXT,
    owner TEXT,
    scopes JSONB NOT NULL,
    metadata JSONB NOT NULL,
    settings JSONB,
    generation BIGINT NOT NULL,
    disabled_at TIMESTAMPTZ,
    revoked_at TIMESTAMPTZ,
    revoked_reason TEXT,
    revoked_note TEXT,
    expires_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (import_id, id)
);

CREATE UNLOGGED TABLE staged_secrets (
    import_id TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    prefix TEXT NOT NULL,
    first_four TEXT NOT NULL,
    last_four TEXT NOT NULL,
    expires_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (import_id, hash)
);
