-- Webhooks: where events go, what is on its way there, and how each attempt ended.

-- `secret` and `previous_secret` are encrypted, under the key that `secret_key` names; the second signs too until
-- `previous_until`. Events after `from_place` are sent. `failures` are attempts in a row, the first of them at
-- `failing_since`. `webhook.failed` was last told at `failed_told_at`; each replay adds to `replay_until`. A row with `deleted_at` is nobody's any more; it goes when its deliveries are gone.
CREATE TABLE webhooks (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    project_id TEXT COLLATE "C" NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    url TEXT NOT NULL,
    description TEXT,
    events JSONB NOT NULL,
    filter JSONB,
    is_active BOOLEAN NOT NULL,
    disabled_at TIMESTAMPTZ,
    disabled_reason TEXT,
    secret BYTEA NOT NULL,
    secret_key TEXT COLLATE "C" NOT NULL,
    previous_secret BYTEA,
    previous_until TIMESTAMPTZ,
    from_place BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    failing_since TIMESTAMPTZ,
    last_success_at TIMESTAMPTZ,
    last_failure_at TIMESTAMPTZ,
    failed_told_at TIMESTAMPTZ,
    replay_until TIMESTAMPTZ,
    created_by TEXT COLLATE "C" NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    deleted_at TIMESTAMPTZ
);

CREATE INDEX webhooks_by_project ON webhooks (project_id, created_at DESC, id DESC);
CREATE INDEX webhooks_overlapping ON webhooks (previous_until) WHERE previous_until IS NOT NULL;
CREATE INDEX webhooks_deleted ON webhooks (deleted_at) WHERE deleted_at IS NOT NULL;

-- One event on its way to one webhook. `next_at` is when it may be taken up: in the future while it waits for another
-- attempt, or while a process (`claimed_by`) makes one, whose lease ends then; null where nothing is to be done. `tries` are
-- the attempts since it was last begun anew, `attempts` all of them. `body` stands only where there is no event behind it.
CREATE TABLE webhook_deliveries (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    webhook_id TEXT COLLATE "C" NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    project_id TEXT COLLATE "C" NOT NULL,
    event_id TEXT COLLATE "C" NOT NULL,
    event_type TEXT COLLATE "C" NOT NULL,
    body TEXT,
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('pending', 'retrying', 'delivered', 'dead', 'paused')),
    attempts BIGINT NOT NULL,
    tries BIGINT NOT NULL,
    next_at TIMESTAMPTZ,
    claimed_by TEXT COLLATE "C",
    last_status BIGINT,
    last_error TEXT,
    delivered_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    UNIQUE (webhook_id, event_id)
);

-- What is to be done, by endpoint: so that the backlog of one never stands before another.
CREATE INDEX webhook_deliveries_open ON webhook_deliveries (webhook_id, next_at, id) WHERE next_at IS NOT NULL;
CREATE INDEX webhook_deliveries_paused ON webhook_deliveries (webhook_id, id) WHERE state = 'paused';
CREATE INDEX webhook_deliveries_by_webhook ON webhook_deliveries (webhook_id, created_at DESC, id DESC);
CREATE INDEX webhook_deliveries_by_state ON webhook_deliveries (webhook_id, state, created_at DESC, id DESC);
CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries (created_at);

CREATE TABLE webhook_attempts (
    delivery_id TEXT COLLATE "C" NOT NULL REFERENCES webhook_deliveries (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    at TIMESTAMPTZ NOT NULL,
    status BIGINT,
    duration_ms BIGINT NOT NULL,
    error TEXT,
    message TEXT,
    answer TEXT,
    PRIMARY KEY (delivery_id, number)
);
