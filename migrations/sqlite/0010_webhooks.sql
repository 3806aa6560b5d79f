-- Webhooks: where events go, what is on its way there, and how each attempt ended.

-- `secret` and `previous_secret` are encrypted, under the key that `secret_key` names; the second signs too until
-- `previous_until`. Events after `from_place` are sent. `failures` are attempts in a row, the first of them at
-- `failing_since`. `webhook.failed` was last told at `failed_told_at`; each replay adds to `replay_until`. A row with `deleted_at` is nobody's any more; it goes when its deliveries are gone.
CREATE TABLE webhooks (
    id TEXT NOT NULL PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    url TEXT NOT NULL,
    description TEXT,
    events TEXT NOT NULL,
    filter TEXT,
    is_active INTEGER NOT NULL CHECK (is_active IN (0, 1)),
    disabled_at INTEGER,
    disabled_reason TEXT,
    secret BLOB NOT NULL,
    secret_key TEXT NOT NULL,
    previous_secret BLOB,
    previous_until INTEGER,
    from_place INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    failing_since INTEGER,
    last_success_at INTEGER,
    last_failure_at INTEGER,
    failed_told_at INTEGER,
    replay_until INTEGER,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER
) STRICT;

CREATE INDEX webhooks_by_project ON webhooks (project_id, created_at DESC, id DESC);
CREATE INDEX webhooks_overlapping ON webhooks (previous_until) WHERE previous_until IS NOT NULL;
CREATE INDEX webhooks_deleted ON webhooks (deleted_at) WHERE deleted_at IS NOT NULL;

-- One event on its way to one webhook. `next_at` is when it may be taken up: in the future while it waits for another
-- attempt, or while a process (`claimed_by`) makes one, whose lease ends then; null where nothing is to be done. `tries` are
-- the attempts since it was last begun anew, `attempts` all of them. `body` stands only where there is no event behind it.
CREATE TABLE webhook_deliveries (
    id TEXT NOT NULL PRIMARY KEY,
    webhook_id TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    project_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    body TEXT,
    state TEXT NOT NULL CHECK (state IN ('pending', 'retrying', 'delivered', 'dead', 'paused')),
    attempts INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    next_at INTEGER,
    claimed_by TEXT,
    last_status INTEGER,
    last_error TEXT,
    delivered_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (webhook_id, event_id)
) STRICT;

-- What is to be done, by endpoint: so that the backlog of one never stands before another.
CREATE INDEX webhook_deliveries_open ON webhook_deliveries (webhook_id, next_at, id) WHERE next_at IS NOT NULL;
CREATE INDEX webhook_deliveries_paused ON webhook_deliveries (webhook_id, id) WHERE state = 'paused';
CREATE INDEX webhook_deliveries_by_webhook ON webhook_deliveries (webhook_id, created_at DESC, id DESC);
CREATE INDEX webhook_deliveries_by_state ON webhook_deliveries (webhook_id, state, created_at DESC, id DESC);
CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries (created_at);

CREATE TABLE webhook_attempts (
    delivery_id TEXT NOT NULL REFERENCES webhook_deliveries (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    status INTEGER,
    duration_ms INTEGER NOT NULL,
    error TEXT,
    message TEXT,
    answer TEXT,
    PRIMARY KEY (delivery_id, number)
) STRICT;
