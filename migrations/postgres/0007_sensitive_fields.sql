-- Rules for sensitive fields, and the keys that belong to the installation.

-- Without a project a rule is the server's. `name_key` is the name without its spelling.
CREATE TABLE sensitive_fields (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    project_id TEXT COLLATE "C" REFERENCES projects (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    name_key TEXT COLLATE "C" NOT NULL,
    strategy TEXT NOT NULL,
    replacement TEXT,
    show_start BIGINT NOT NULL,
    show_end BIGINT NOT NULL,
    mask_char TEXT NOT NULL,
    is_active BOOLEAN NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);

CREATE UNIQUE INDEX sensitive_fields_of_projects ON sensitive_fields (project_id, name_key) WHERE project_id IS NOT NULL;
CREATE UNIQUE INDEX sensitive_fields_of_the_server ON sensitive_fields (name_key) WHERE project_id IS NULL;

-- Made once, by whichever process comes first, so that all replicas have the same.
CREATE TABLE installation_keys (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);
