-- Digests of secrets that were removed for good, whose they were, and since when: nobody gives such a key away a second time.
-- Outlives the key and its project.
CREATE TABLE forgotten_digests (
    hash BLOB NOT NULL PRIMARY KEY,
    project_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
