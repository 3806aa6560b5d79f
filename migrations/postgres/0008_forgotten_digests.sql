-- Digests of secrets that were removed for good, whose they were, and since when: nobody gives such a key away a second time.
-- Outlives the key and its project.
CREATE TABLE forgotten_digests (
    hash BYTEA NOT NULL PRIMARY KEY,
    project_id TEXT COLLATE "C" NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL,
    since TIMESTAMPTZ NOT NULL
);
