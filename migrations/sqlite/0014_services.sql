-- Services that are watched, by their names in the configuration: how each stands, who watches it at present and until when
-- that holds. What one of the tables says of a service that is in no configuration any more is of no effect.
CREATE TABLE services (
    name TEXT NOT NULL PRIMARY KEY,
    standing TEXT,
    updated_at INTEGER,
    holder TEXT,
    lease_until INTEGER
) STRICT;

-- Restarts: asked for by somebody, or begun by the policy.
CREATE TABLE service_operations (
    id TEXT NOT NULL PRIMARY KEY,
    service TEXT NOT NULL,
    cause TEXT NOT NULL CHECK (cause IN ('manual', 'policy')),
    state TEXT NOT NULL CHECK (state IN ('requested', 'running', 'succeeded', 'failed')),
    reason TEXT,
    requested_by TEXT NOT NULL,
    requested_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    error TEXT
) STRICT;

-- One at a time.
CREATE UNIQUE INDEX service_operations_open ON service_operations (service) WHERE state IN ('requested', 'running');
CREATE INDEX service_operations_by_age ON service_operations (requested_at);

-- Every change of a service's state.
CREATE TABLE service_history (
    id TEXT NOT NULL PRIMARY KEY,
    service TEXT NOT NULL,
    at INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    operation_id TEXT
) STRICT;

CREATE INDEX service_history_by_service ON service_history (service, at DESC, id DESC);
CREATE INDEX service_history_by_age ON service_history (at);
