-- The outbox: events get a number when they are written, and a place once they are committed.

-- SQLite gives no number to a table that is there already, so this is another one. `seq` is taken under the lock of what the
-- event is about, so it has the order of its commits; a number is never used again. `place` is 1, 2, 3 …, without gaps, in the
-- order in which consumers read.
CREATE TABLE events_new (
    seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    at INTEGER NOT NULL,
    project_id TEXT NOT NULL,
    type TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    data TEXT NOT NULL,
    place INTEGER
) STRICT;

-- What is there has its place at once: an upgrade delivers nothing old.
INSERT INTO events_new (id, at, project_id, type, resource_id, data, place)
SELECT id, at, project_id, type, resource_id, data, row_number() OVER (ORDER BY at, id) FROM events ORDER BY at, id;

DROP TABLE events;
ALTER TABLE events_new RENAME TO events;

CREATE UNIQUE INDEX events_by_place ON events (place) WHERE place IS NOT NULL;
CREATE INDEX events_unplaced ON events (seq) WHERE place IS NULL;

-- A project's stream, and its list: by time, by type, by thing.
CREATE INDEX events_by_project_place ON events (project_id, place) WHERE place IS NOT NULL;
CREATE INDEX events_by_project ON events (project_id, at DESC, seq DESC);
CREATE INDEX events_by_project_type ON events (project_id, type, at DESC, seq DESC);
CREATE INDEX events_by_project_resource ON events (project_id, resource_id, at DESC, seq DESC);

-- The newest place: one row, which whoever gives places holds.
CREATE TABLE event_head (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    place INTEGER NOT NULL
) STRICT;

INSERT INTO event_head (id, place) SELECT 1, coalesce(max(place), 0) FROM events;

-- How far each of those that read all events has come: what they haven't passed is kept.
CREATE TABLE event_consumers (
    name TEXT NOT NULL PRIMARY KEY,
    place INTEGER NOT NULL
) STRICT;
