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
