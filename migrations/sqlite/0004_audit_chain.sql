-- The proof behind the audit trail: a chain of hashes, its signed head, and checkpoints.

-- An entry is written without these, and sealed a moment later: it gets its place in the chain, and the hash over all of it.
ALTER TABLE audit_entries ADD COLUMN seq INTEGER;
ALTER TABLE audit_entries ADD COLUMN previous_hash BLOB;
ALTER TABLE audit_entries ADD COLUMN hash BLOB;

-- Without those that wait, so that nobody looks for them here: the next index has them in their order.
CREATE UNIQUE INDEX audit_entries_by_seq ON audit_entries (seq) WHERE seq IS NOT NULL;
CREATE INDEX audit_entries_unsealed ON audit_entries (at, id) WHERE seq IS NULL;

-- Reads: pages newest first, by one filter or by a project and one filter.
CREATE INDEX audit_entries_by_project ON audit_entries (project_id, at DESC, id DESC);
CREATE INDEX audit_entries_by_project_action ON audit_entries (project_id, action, at DESC, id DESC);
CREATE INDEX audit_entries_by_project_outcome ON audit_entries (project_id, outcome, at DESC, id DESC);
CREATE INDEX audit_entries_by_actor ON audit_entries (actor_id, at DESC, id DESC);
CREATE INDEX audit_entries_by_resource ON audit_entries (resource_id, at DESC, id DESC);
CREATE INDEX audit_entries_by_resource_type ON audit_entries (resource_type, at DESC, id DESC);
CREATE INDEX audit_entries_by_request ON audit_entries (request_id, at DESC, id DESC);
CREATE INDEX audit_entries_by_action ON audit_entries (action, at DESC, id DESC);
CREATE INDEX audit_entries_by_outcome ON audit_entries (outcome, at DESC, id DESC);

-- The newest sealed entry: one row, which whoever seals holds. Unsigned where there is no key to sign with.
CREATE TABLE audit_head (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    seq INTEGER NOT NULL,
    hash BLOB NOT NULL,
    at INTEGER,
    key_id TEXT,
    signature BLOB
) STRICT;

INSERT INTO audit_head (id, seq, hash)
VALUES (1, 0, x'0000000000000000000000000000000000000000000000000000000000000000');

-- Earlier heads, and the ends of what was pruned (the first kept entry is the next one).
CREATE TABLE audit_checkpoints (
    id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('head', 'pruned')),
    seq INTEGER NOT NULL,
    hash BLOB NOT NULL,
    at INTEGER NOT NULL,
    key_id TEXT,
    signature BLOB,
    UNIQUE (kind, seq)
) STRICT;

CREATE INDEX audit_checkpoints_by_age ON audit_checkpoints (at DESC, id DESC);

-- Public keys that have signed, for whoever looks one up by its id. Being here makes none trusted.
CREATE TABLE audit_keys (
    id TEXT NOT NULL PRIMARY KEY,
    public_key BLOB NOT NULL,
    since INTEGER NOT NULL
) STRICT;
