-- Alert rules of projects, how each stands, and what became of them.

CREATE TABLE alert_rules (
    id TEXT NOT NULL PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    description TEXT,
    metric TEXT NOT NULL,
    operator TEXT NOT NULL,
    threshold REAL NOT NULL,
    window_seconds INTEGER NOT NULL,
    cooldown_seconds INTEGER NOT NULL,
    -- No reference: a rule whose key is gone has nothing to look at, and says so.
    key_id TEXT,
    emails TEXT NOT NULL,
    reminds INTEGER NOT NULL,
    is_active INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (project_id, name)
) STRICT;

CREATE INDEX alert_rules_by_project ON alert_rules (project_id, created_at DESC, id DESC);

-- Apart from the rules, because it changes several times a minute. `claim` grows whenever somebody takes the rule for
-- evaluation or changes it: what was found out under an older one isn't written. Without `next_at` it isn't evaluated.
CREATE TABLE alert_states (
    alert_id TEXT NOT NULL PRIMARY KEY REFERENCES alert_rules (id) ON DELETE CASCADE,
    state TEXT NOT NULL CHECK (state IN ('ok', 'muted', 'firing', 'no_data')),
    last_value REAL,
    evaluated_at INTEGER,
    next_at INTEGER,
    claim INTEGER NOT NULL,
    fired_at INTEGER,
    resolved_at INTEGER,
    -- When people were told last that it fires: from then on the cooldown runs.
    told_at INTEGER,
    suppressed_at INTEGER,
    tested_at INTEGER
) STRICT;

CREATE INDEX alert_states_due ON alert_states (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX alert_states_firing ON alert_states (fired_at, alert_id) WHERE state = 'firing';

-- Outlives its rule: what the rule said at the time stands here.
CREATE TABLE alert_history (
    id TEXT NOT NULL PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    alert_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    fired_at INTEGER,
    value REAL,
    name TEXT NOT NULL,
    metric TEXT NOT NULL,
    operator TEXT NOT NULL,
    threshold REAL NOT NULL,
    window_seconds INTEGER NOT NULL,
    key_id TEXT
) STRICT;

CREATE INDEX alert_history_by_project ON alert_history (project_id, at DESC, id DESC);
CREATE INDEX alert_history_by_alert ON alert_history (alert_id, at DESC, id DESC);
CREATE INDEX alert_history_by_age ON alert_history (at);

-- Rules read refusals by their code every few seconds: without the many rows of what was let through.
CREATE INDEX usage_requests_refused ON usage_requests (scope, grain, at, code)
WHERE code NOT IN ('', 'VALID') OR status IN (401, 429);

-- The key of a project that ends next.
CREATE INDEX api_keys_ending ON api_keys (project_id, expires_at)
WHERE expires_at IS NOT NULL AND revoked_at IS NULL AND disabled_at IS NULL;
