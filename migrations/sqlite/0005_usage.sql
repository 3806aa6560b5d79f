-- Requests of keys, by minute, hour and day. `key_usage`, which knew hours and outcomes of verifications alone, isn't written
-- any more; what it holds is carried over.

ALTER TABLE api_keys ADD COLUMN first_used_at INTEGER;

-- By endpoint, status and code. `scope` is a key, a project, or `*` for all of them together; `status` is 0 and `code` empty
-- where there was none. `micros` is the sum of the known durations, `latency` their histogram.
CREATE TABLE usage_requests (
    scope TEXT NOT NULL,
    grain TEXT NOT NULL CHECK (grain IN ('minute', 'hour', 'day')),
    at INTEGER NOT NULL,
    endpoint TEXT NOT NULL,
    status INTEGER NOT NULL,
    code TEXT NOT NULL,
    allowed INTEGER NOT NULL,
    denied INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    micros INTEGER NOT NULL,
    latency TEXT NOT NULL,
    PRIMARY KEY (scope, grain, at, endpoint, status, code)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_requests_by_age ON usage_requests (grain, at);

-- The same summed up. `project_id` is the project of a key, so that a project's keys are found; null for other scopes.
CREATE TABLE usage_totals (
    scope TEXT NOT NULL,
    grain TEXT NOT NULL CHECK (grain IN ('minute', 'hour', 'day')),
    at INTEGER NOT NULL,
    project_id TEXT,
    allowed INTEGER NOT NULL,
    denied INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    micros INTEGER NOT NULL,
    latency TEXT NOT NULL,
    PRIMARY KEY (scope, grain, at)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_totals_by_age ON usage_totals (grain, at);
CREATE INDEX usage_totals_by_project ON usage_totals (project_id, grain, at) WHERE project_id IS NOT NULL;

-- The last batch that each process has written, in the batch's transaction: whoever didn't hear of a commit asks here.
CREATE TABLE usage_writers (
    origin TEXT NOT NULL PRIMARY KEY,
    batch INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

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
SELECT scope, 'day', at / 86400000000 * 86400000000, endpoint, status, code, sum(allowed), sum(denied), 0, 0, ''
FROM usage_requests GROUP BY scope, at / 86400000000, endpoint, status, code;

INSERT INTO usage_totals (scope, grain, at, project_id, allowed, denied, failed, micros, latency)
SELECT r.scope, r.grain, r.at, k.project_id, sum(r.allowed), sum(r.denied), 0, 0, ''
FROM usage_requests r LEFT JOIN api_keys k ON k.id = r.scope
GROUP BY r.scope, r.grain, r.at, k.project_id;
