-- What traffic has shown and nobody was told of yet: refusals of limits and rules, quotas nearly used, suspicion. One row for
-- what is told together; `count` is everything since the last event, and until `quiet_until` there is none.
CREATE TABLE noticed (
    project_id TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    -- A key, or an address.
    subject TEXT COLLATE "C" NOT NULL,
    -- The name of a window, or the reason of a suspicion; empty where there is neither.
    about TEXT COLLATE "C" NOT NULL,
    quiet_seconds BIGINT NOT NULL,
    count BIGINT NOT NULL,
    first_at TIMESTAMPTZ NOT NULL,
    last_at TIMESTAMPTZ NOT NULL,
    quiet_until TIMESTAMPTZ NOT NULL,
    -- The window, a few addresses, who asked: as of the last that was written.
    detail JSONB NOT NULL,
    PRIMARY KEY (project_id, kind, subject, about)
);

CREATE INDEX noticed_to_tell ON noticed (quiet_until) WHERE count > 0;
CREATE INDEX noticed_by_age ON noticed (last_at) WHERE count = 0;

-- Keys and passwords that were no good, by minute and by the project that they were shown to: there is no key to count them
-- under.
CREATE TABLE security_counts (
    project_id TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('unknown_key', 'malformed_key', 'wrong_credentials', 'failed_login')),
    at TIMESTAMPTZ NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (project_id, kind, at)
);

CREATE INDEX security_counts_by_age ON security_counts (at);

-- The last warning that was given of a key's end, in seconds before it: 0 once that is told, too; greater than any warning
-- where there was none yet. Whoever sets another end sets it back.
ALTER TABLE api_keys ADD COLUMN expiry_stage BIGINT NOT NULL DEFAULT 9999999999;

-- Of what is over already nobody needs to hear.
UPDATE api_keys SET expiry_stage = 0 WHERE expires_at <= now();

CREATE INDEX api_keys_by_end ON api_keys (expiry_stage, expires_at)
WHERE expires_at IS NOT NULL AND revoked_at IS NULL AND expiry_stage > 0;
