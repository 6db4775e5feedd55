-- Releases: where each stands. What was published before this had been active.
ALTER TABLE plugins ADD COLUMN standing TEXT NOT NULL DEFAULT 'inactive';
ALTER TABLE plugins ADD COLUMN wanted TEXT NOT NULL DEFAULT 'active';
ALTER TABLE plugins ADD COLUMN activated_ms INTEGER;
ALTER TABLE plugins ADD COLUMN note TEXT NOT NULL DEFAULT '';
UPDATE plugins SET standing = iif(active = 1, 'active', 'inactive'), activated_ms = published_ms;
DROP INDEX plugins_active;
ALTER TABLE plugins DROP COLUMN active;
CREATE UNIQUE INDEX plugins_active ON plugins (plugin) WHERE standing = 'active';
CREATE INDEX agent_plugins_plugin ON agent_plugins (plugin);

-- Other releases that may serve a command, as a JSON array of digests.
ALTER TABLE commands ADD COLUMN also TEXT NOT NULL DEFAULT '[]';

CREATE TABLE rollouts (
    n           INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    plugin      TEXT NOT NULL,
    digest      TEXT NOT NULL,
    former      TEXT NOT NULL,
    spec        TEXT NOT NULL,
    state       TEXT NOT NULL,
    stage       INTEGER NOT NULL,
    soaking_ms  INTEGER,
    everyone    INTEGER NOT NULL DEFAULT 0,
    reason      TEXT NOT NULL DEFAULT '',
    created_ms  INTEGER NOT NULL,
    created_by  TEXT NOT NULL,
    changed_ms  INTEGER NOT NULL,
    finished_ms INTEGER
);
CREATE UNIQUE INDEX rollouts_open ON rollouts (plugin) WHERE finished_ms IS NULL;
CREATE INDEX rollouts_plugin ON rollouts (plugin, n);

CREATE TABLE rollout_members (
    rollout INTEGER NOT NULL REFERENCES rollouts (n),
    agent   TEXT NOT NULL,
    stage   INTEGER NOT NULL,
    PRIMARY KEY (rollout, agent)
) WITHOUT ROWID;

-- What releases did: by release and `verb:NAME` or `capability:NAME`.
CREATE TABLE tallies (
    digest TEXT NOT NULL,
    name   TEXT NOT NULL,
    tally  TEXT NOT NULL,
    PRIMARY KEY (digest, name)
) WITHOUT ROWID;

-- The release repository's verified metadata, and the client's state.
CREATE TABLE mirror (
    name  TEXT NOT NULL PRIMARY KEY,
    bytes BLOB NOT NULL
);
