-- Projects that can be suspended and deleted, their policies, their catalogue of scopes, and keys that were issued elsewhere.

-- `suspended_by` is `project` or `operator`; what an operator suspends only an operator resumes.
ALTER TABLE projects ADD COLUMN suspended_at INTEGER;
ALTER TABLE projects ADD COLUMN suspended_by TEXT;
ALTER TABLE projects ADD COLUMN suspended_reason TEXT;
-- Purged a while after this.
ALTER TABLE projects ADD COLUMN deleted_at INTEGER;
-- Who made it: a person, a key, or `system`.
ALTER TABLE projects ADD COLUMN created_by TEXT;
-- What holds for the project itself rather than for a request with one of its keys. Null is nothing.
ALTER TABLE projects ADD COLUMN policy TEXT;
-- The names of the catalogue's inactive scopes, for verification, which reads them with each key. Null is none.
ALTER TABLE projects ADD COLUMN inactive_scopes TEXT;

CREATE UNIQUE INDEX projects_by_prefix ON projects (key_prefix) WHERE key_prefix IS NOT NULL;
CREATE INDEX projects_by_age ON projects (created_at DESC, id DESC);
CREATE INDEX projects_deleted ON projects (deleted_at) WHERE deleted_at IS NOT NULL;

-- The catalogue of what a project's keys may do. `description_folded` is what a search compares with.
CREATE TABLE scopes (
    id TEXT NOT NULL PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    description_folded TEXT NOT NULL,
    category TEXT,
    is_active INTEGER NOT NULL CHECK (is_active IN (0, 1)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (project_id, name)
) STRICT;

CREATE INDEX scopes_by_project ON scopes (project_id, created_at DESC, id DESC);
CREATE INDEX scopes_inactive ON scopes (project_id, name) WHERE NOT is_active;

-- Secrets that were issued elsewhere needn't have our form.
ALTER TABLE key_secrets ADD COLUMN is_imported INTEGER NOT NULL DEFAULT 0 CHECK (is_imported IN (0, 1));

CREATE INDEX key_secrets_imported ON key_secrets (id) WHERE is_imported;

-- Superseded secrets, which are forgotten a while after their end.
CREATE INDEX key_secrets_by_end ON key_secrets (expires_at) WHERE expires_at IS NOT NULL;
