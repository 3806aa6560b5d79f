-- The request log: refused and failed requests, and a sample of the others. Kept for a while only, so nothing refers to it
-- and it refers to nothing: what a key did can be looked up when the key is gone.

-- `source` says who saw the request: `verify` was asked about it, `own` is a call of Keyward's own routes, `recorded` was
-- reported. A row with a `count` above 1 stands for so many requests of one second, of which only what they share is kept.
CREATE TABLE key_requests (
    id TEXT NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL,
    project_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    source TEXT NOT NULL CHECK (source IN ('verify', 'own', 'recorded')),
    method TEXT,
    endpoint TEXT,
    status INTEGER,
    outcome TEXT NOT NULL CHECK (outcome IN ('allowed', 'denied', 'failed')),
    code TEXT,
    duration_us INTEGER,
    ip TEXT,
    user_agent TEXT,
    request_id TEXT,
    count INTEGER NOT NULL
) STRICT;

CREATE INDEX key_requests_by_key ON key_requests (key_id, at DESC, id DESC);
CREATE INDEX key_requests_by_project ON key_requests (project_id, at DESC, id DESC);
CREATE INDEX key_requests_by_age ON key_requests (at);
