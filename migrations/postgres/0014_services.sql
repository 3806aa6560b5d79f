-- Services that are watched, by their names in the configuration: how each stands, who watches it at present and until when
-- that holds. What one of the tables says of a service that is in no configuration any more is of no effect.
CREATE TABLE services (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    standing JSONB,
    updated_at TIMESTAMPTZ,
    holder TEXT,
    lease_until TIMESTAMPTZ
);

-- Restarts: asked for by somebody, or begun by the policy.
CREATE TABLE service_operations (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    service TEXT COLLATE "C" NOT NULL,
    cause TEXT NOT NULL CHECK (cause IN ('manual', 'policy')),
    state TEXT NOT NULL CHECK (state IN ('requested', 'running', 'succeeded', 'failed')),
    reason TEXT,
    requested_by TEXT NOT NULL,
    requested_at TIMESTAMPTZ NOT NULL,
    started_at TIMESTAMPTZ,
    ended_at TIMESTAMPTZ,
    error TEXT
);

-- One at a time.
CREATE UNIQUE INDEX service_operations_open ON service_operations (service) WHERE state IN ('requested', 'running');
CREATE INDEX service_operations_by_age ON service_operations (requested_at);

-- Every change of a service's state.
CREATE TABLE service_history (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    service TEXT COLLATE "C" NOT NULL,
    at TIMESTAMPTZ NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    operation_id TEXT COLLATE "C"
);

CREATE INDEX service_history_by_service ON service_history (service, at DESC, id DESC);
CREATE INDEX service_history_by_age ON service_history (at);
