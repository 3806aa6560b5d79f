-- Requests of keys, by minute, hour and day. `key_usage`, which knew hours and outcomes of verifications alone, isn't written
-- any more; what it holds is carried over.

-- The same as SQLite's function of that name, so that statements that take rows from a list are the same on both.
CREATE FUNCTION json_each(list TEXT) RETURNS TABLE (value JSONB)
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 1000
AS $$ SELECT e.value FROM jsonb_array_elements(CAST($1 AS JSONB)) e $$;

ALTER TABLE api_keys ADD COLUMN first_used_at TIMESTAMPTZ;

-- By endpoint, status and code. `scope` is a key, a project, or `*` for all of them together; `status` is 0 and `code` empty
-- where there was none. `micros` is the sum of the known durations, `latency` their histogram.
CREATE TABLE usage_requests (
    scope TEXT COLLATE "C" NOT NULL,
    grain TEXT COLLATE "C" NOT NULL CHECK (grain IN ('minute', 'hour', 'day')),
    at TIMESTAMPTZ NOT NULL,
    endpoint TEXT COLLATE "C" NOT NULL,
    status BIGINT NOT NULL,
    code TEXT COLLATE "C" NOT NULL,
    allowed BIGINT NOT NULL,
    denied BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    micros BIGINT NOT NULL,
    latency TEXT NOT NULL,
    PRIMARY KEY (scope, grain, at, endpoint, status, code)
);

CREATE INDEX usage_requests_by_age ON usage_requests (grain, at);

-- The same summed up. `project_id` is the project of a key, so that a project's keys are found; null for other scopes.
CREATE TABLE usage_totals (
    scope TEXT COLLATE "C" NOT NULL,
    grain TEXT COLLATE "C" NOT NULL CHECK (grain IN ('minute', 'hour', 'day')),
    at TIMESTAMPTZ NOT NULL,
    project_id TEXT COLLATE "C",
    allowed BIGINT NOT NULL,
    denied BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    micros BIGINT NOT NULL,
    latency TEXT NOT NULL,
    PRIMARY KEY (scope, grain, at)
);

CREATE INDEX usage_totals_by_age ON usage_totals (grain, at);
CREATE INDEX usage_totals_by_project ON usage_totals (project_id, grain, at) WHERE project_id IS NOT NULL;

-- The last batch that each process has written, in the batch's transaction: whoever didn't hear of a commit asks here.
CREATE TABLE usage_writers (
    origin TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    batch BIGINT NOT NULL,
    at TIMESTAMPTZ NOT NULL
);

CREATE INDEX usage_writers_by_age ON usage_writers (at);

-- What was counted so far: verifications, for which nobody noted what they were for or how long they took.
INSERT INTO usage_requests (scope, grain, at, endpoint, status, code, allowed, denied, failed, micros, latency)
SELECT key_id, 'hour', hour, '(other)', 0, outcome, CASE WHEN outcome = 'VALID' THEN count ELSE 0 END,
    CASE WHEN outcome = 'VALID' THEN 0 ELSE count END, 0, 0, ''
FROM key_usage;

INSERT INTO usage_requests (scope, grain, at, endpoint, status, code, allowed, denied, failed, micros, latency)
SELECT k.project_id, 'hour', r.at, '(other)', 0, r.code, sum(r.allowed), sum(r.denied), 0, 0, ''
FROM usage_requests r JOIN api_keys k ON k.id = r.scope
GROUP BY k.project_id, r.at, r.code;

INSERT INTO usage_requests (scope, grain, at, endpoint, status, code, allowed, denied, failed, micros, latency)
SELECT '*', 'hour', hour, '(other)', 0, outcome, sum(CASE WHEN outcome = 'VALID' THEN count ELSE 0 END),
    sum(CASE WHEN outcome = 'VALID' THEN 0 ELSE count END), 0, 0, ''
FROM key_usage GROUP BY hour, outcome;

INSERT INTO usage_requests (scope, grain, at, endpoint, status, code, allowed, denied, failed, micros, latency)
SELECT scope, 'day', date_trunc('day', at, 'UTC'), endpoint, status, code, sum(allowed), sum(denied), 0, 0, ''
FROM usage_requests GROUP BY scope, date_trunc('day', at, 'UTC'), endpoint, status, code;

INSERT INTO usage_totals (scope, grain, at, project_id, allowed, denied, failed, micros, latency)
SELECT r.scope, r.grain, r.at, k.project_id, sum(r.allowed), sum(r.denied), 0, 0, ''
FROM usage_requests r LEFT JOIN api_keys k ON k.id = r.scope
GROUP BY r.scope, r.grain, r.at, k.project_id;
