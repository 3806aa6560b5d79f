-- E-mail that waits to be sent, and what became of it.
CREATE TABLE mails (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    project_id TEXT COLLATE "C" NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    created_at TIMESTAMPTZ NOT NULL,
    recipient TEXT NOT NULL,
    subject TEXT NOT NULL,
    -- Empty once it is done.
    text TEXT NOT NULL,
    -- How often somebody has begun to send it; names the claim.
    attempts BIGINT NOT NULL,
    -- When it is due; while somebody sends it, when the claim ends.
    next_at TIMESTAMPTZ NOT NULL,
    done_at TIMESTAMPTZ,
    outcome TEXT,
    error TEXT
);

CREATE INDEX mails_waiting ON mails (next_at, id) WHERE done_at IS NULL;
CREATE INDEX mails_by_age ON mails (created_at);
CREATE INDEX mails_by_project ON mails (project_id);

-- How many mails a project has caused on a day (days since 1970-01-01, UTC).
CREATE TABLE mail_days (
    project_id TEXT COLLATE "C" NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    day BIGINT NOT NULL,
    mails BIGINT NOT NULL,
    PRIMARY KEY (project_id, day)
);
