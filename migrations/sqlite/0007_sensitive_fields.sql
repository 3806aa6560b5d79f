-- Rules for sensitive fields, and the keys that belong to the installation.

-- Without a project a rule is the server's. `name_key` is the name without its spelling.
CREATE TABLE sensitive_fields (
    id TEXT NOT NULL PRIMARY KEY,
    project_id TEXT REFERENCES projects (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,
    strategy TEXT NOT NULL,
    replacement TEXT,
    show_start INTEGER NOT NULL,
    show_end INTEGER NOT NULL,
    mask_char TEXT NOT NULL,
    is_active INTEGER NOT NULL CHECK (is_active IN (0, 1)),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX sensitive_fields_of_projects ON sensitive_fields (project_id, name_key) WHERE project_id IS NOT NULL;
CREATE UNIQUE INDEX sensitive_fields_of_the_server ON sensitive_fields (name_key) WHERE project_id IS NULL;

-- Made once, by whichever process comes first, so that all replicas have the same.
CREATE TABLE installation_keys (
    name TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
