-- The outbox: events get a number when they are written, and a place once they are committed.

-- `seq` is taken under the lock of what the event is about, so it has the order of its commits; a number is never used again.
-- `place` is 1, 2, 3 …, without gaps, in the order in which consumers read.
ALTER TABLE events ADD COLUMN seq BIGINT GENERATED ALWAYS AS IDENTITY;
ALTER TABLE events ADD COLUMN place BIGINT;
ALTER TABLE events DROP CONSTRAINT events_pkey;
ALTER TABLE events ADD PRIMARY KEY (seq);
ALTER TABLE events ADD UNIQUE (id);

-- What is there has its place at once: an upgrade delivers nothing old.
UPDATE events SET place = p.place
FROM (SELECT seq, row_number() OVER (ORDER BY at, id) AS place FROM events) p WHERE events.seq = p.seq;

CREATE UNIQUE INDEX events_by_place ON events (place) WHERE place IS NOT NULL;
CREATE INDEX events_unplaced ON events (seq) WHERE place IS NULL;

-- A project's stream, and its list: by time, by type, by thing.
DROP INDEX events_by_project;
CREATE INDEX events_by_project_place ON events (project_id, place) WHERE place IS NOT NULL;
CREATE INDEX events_by_project ON events (project_id, at DESC, seq DESC);
CREATE INDEX events_by_project_type ON events (project_id, type, at DESC, seq DESC);
CREATE INDEX events_by_project_resource ON events (project_id, resource_id, at DESC, seq DESC);

-- The newest place: one row, which whoever gives places holds.
CREATE TABLE event_head (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    place BIGINT NOT NULL
);

INSERT INTO event_head (id, place) SELECT 1, coalesce(max(place), 0) FROM events;

-- How far each of those that read all events has come: what they haven't passed is kept.
CREATE TABLE event_consumers (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    place BIGINT NOT NULL
);
