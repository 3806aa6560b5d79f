-- SQLite. Times are microseconds since 1970; booleans are 0 and 1; JSON is text.

-- People. `username_folded` is what makes a name unique without regard to case. `keys_made` is written by each creation
-- of a key, so that two creations by one person wait for each other.
CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    username TEXT NOT NULL,
    username_folded TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    is_admin INTEGER NOT NULL CHECK (is_admin IN (0, 1)),
    keys_made INTEGER NOT NULL,
    disabled_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE INDEX users_by_age ON users (created_at DESC, id DESC);

-- Log-ins. Only the hash of a token is kept.
CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    token_hash BLOB NOT NULL UNIQUE,
    ip TEXT,
    user_agent TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE INDEX sessions_by_user ON sessions (user_id, created_at DESC, id DESC);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

-- Failed log-ins by account and address; an empty address is the account as a whole. Accounts are hashes, because people
-- type passwords into the field for the name.
CREATE TABLE login_failures (
    account BLOB NOT NULL,
    address TEXT NOT NULL,
    failures INTEGER NOT NULL,
    blocked_until INTEGER,
    succeeded_at INTEGER,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (account, address)
) STRICT;

CREATE INDEX login_failures_by_age ON login_failures (updated_at);

-- Tenants. `personal_user_id` is set on a person's own project, which is made with the person.
CREATE TABLE projects (
    id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('personal', 'team', 'system')),
    personal_user_id TEXT UNIQUE REFERENCES users (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    description TEXT,
    key_prefix TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX projects_one_system ON projects (kind) WHERE kind = 'system';

CREATE TABLE memberships (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (project_id, user_id)
) STRICT;

CREATE INDEX memberships_by_user ON memberships (user_id);

-- API keys. What makes one refused is a column each; its status is computed from them and the time.
CREATE TABLE api_keys (
    id TEXT NOT NULL PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    user_id TEXT REFERENCES users (id) ON DELETE SET NULL,
    created_by TEXT NOT NULL,
    name TEXT NOT NULL,
    generation INTEGER NOT NULL,
    name_folded TEXT NOT NULL,
    description TEXT,
    owner TEXT,
    scopes TEXT NOT NULL,
    metadata TEXT NOT NULL,
    disabled_at INTEGER,
    revoked_at INTEGER,
    revoked_reason TEXT,
    revoked_note TEXT,
    expires_at INTEGER,
    last_used_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE INDEX api_keys_by_project ON api_keys (project_id, created_at DESC, id DESC);
CREATE INDEX api_keys_by_user ON api_keys (user_id);

-- Secrets of keys: a key has several while it is rotated. Only the hash is kept, and eight characters for people.
CREATE TABLE key_secrets (
    id TEXT NOT NULL PRIMARY KEY,
    key_id TEXT NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    hash BLOB NOT NULL UNIQUE,
    prefix TEXT NOT NULL,
    first_four TEXT NOT NULL,
    last_four TEXT NOT NULL,
    expires_at INTEGER,
    last_used_at INTEGER,
    created_at INTEGER NOT NULL,
    UNIQUE (key_id, generation)
) STRICT;

-- When each person made a key: outlives the key, so that deleting one doesn't allow another.
CREATE TABLE key_creations (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    key_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, created_at, key_id)
) STRICT;

CREATE INDEX key_creations_by_age ON key_creations (created_at);

-- First answers to requests with an Idempotency-Key. `body` is null where the answer held a secret.
CREATE TABLE idempotency (
    caller TEXT NOT NULL,
    operation TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    resource_id TEXT NOT NULL,
    body TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (caller, operation, idempotency_key)
) STRICT;

CREATE INDEX idempotency_by_age ON idempotency (created_at);

-- Who did what: one entry a change, in the change's transaction.
CREATE TABLE audit_entries (
    id TEXT NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL,
    actor_type TEXT NOT NULL CHECK (actor_type IN ('user', 'key', 'system', 'anonymous')),
    actor_id TEXT,
    actor_name TEXT,
    action TEXT NOT NULL,
    resource_type TEXT NOT NULL,
    resource_id TEXT,
    project_id TEXT,
    outcome TEXT NOT NULL CHECK (outcome IN ('success', 'denied', 'failure')),
    request_id TEXT,
    ip TEXT,
    user_agent TEXT,
    changes TEXT
) STRICT;

CREATE INDEX audit_entries_by_age ON audit_entries (at DESC, id DESC);

-- What happened, for whoever must know: written in the change's transaction, read by webhooks and alerts.
CREATE TABLE events (
    id TEXT NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL,
    project_id TEXT NOT NULL,
    type TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    data TEXT NOT NULL
) STRICT;

CREATE INDEX events_by_project ON events (project_id, at DESC, id DESC);
