-- Which instance of the backend has an agent's session.
ALTER TABLE agents ADD COLUMN instance TEXT;
ALTER TABLE agents ADD COLUMN session TEXT;
ALTER TABLE agents ADD COLUMN session_ms INTEGER NOT NULL DEFAULT 0;
CREATE INDEX agents_instance ON agents (instance) WHERE online = 1;

-- Instances that live: each renews its lease.
CREATE TABLE instances (
    id         TEXT NOT NULL PRIMARY KEY,
    started_ms INTEGER NOT NULL,
    lease_ms   INTEGER NOT NULL
) WITHOUT ROWID;

-- Work that one instance does for all.
CREATE TABLE leases (
    name     TEXT NOT NULL PRIMARY KEY,
    holder   TEXT NOT NULL,
    lease_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- When the store was restored, and how old the backup was then.
CREATE TABLE restores (
    at_ms     INTEGER NOT NULL PRIMARY KEY,
    backup_ms INTEGER NOT NULL
);

-- The oldest backend that may work on this: one that knows this migration.
CREATE TABLE schema_floor (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    migration INTEGER NOT NULL
);
INSERT INTO schema_floor (one, migration) VALUES (1, 0);
