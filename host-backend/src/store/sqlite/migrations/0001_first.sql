-- Agents: gateways as they described themselves.
CREATE TABLE agents (
    id              TEXT NOT NULL PRIMARY KEY,
    online          INTEGER NOT NULL DEFAULT 0,
    stale           INTEGER NOT NULL DEFAULT 0,
    site            TEXT,
    labels          TEXT NOT NULL,
    version         TEXT NOT NULL,
    boot            TEXT NOT NULL,
    max_concurrency INTEGER NOT NULL,
    first_seen_ms   INTEGER NOT NULL,
    last_seen_ms    INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX agents_online ON agents (online);
CREATE INDEX agents_site ON agents (site);
CREATE INDEX agents_unseen ON agents (last_seen_ms) WHERE online = 0 AND stale = 0;

CREATE TABLE agent_labels (
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    agent TEXT NOT NULL,
    PRIMARY KEY (key, value, agent)
) WITHOUT ROWID;
CREATE INDEX agent_labels_agent ON agent_labels (agent);

CREATE TABLE agent_plugins (
    agent   TEXT NOT NULL,
    plugin  TEXT NOT NULL,
    version TEXT NOT NULL,
    digest  TEXT NOT NULL,
    state   TEXT NOT NULL,
    detail  TEXT,
    PRIMARY KEY (agent, plugin)
) WITHOUT ROWID;
CREATE INDEX agent_plugins_digest ON agent_plugins (digest, state);

-- Commands: what was asked, and the kept counts of its invocations.
CREATE TABLE commands (
    n                INTEGER PRIMARY KEY,
    id               TEXT NOT NULL UNIQUE,
    verb             TEXT NOT NULL,
    plugin           TEXT NOT NULL,
    digest           TEXT NOT NULL,
    mode             TEXT NOT NULL,
    args             TEXT NOT NULL,
    caller           TEXT NOT NULL,
    idempotency_key  TEXT,
    request_sha256   TEXT,
    state            TEXT NOT NULL,
    created_ms       INTEGER NOT NULL,
    expires_ms       INTEGER NOT NULL,
    -- When expiry has to look at it again.
    due_ms           INTEGER NOT NULL,
    finished_ms      INTEGER,
    timeout_secs     INTEGER NOT NULL,
    batch            INTEGER,
    targets          INTEGER NOT NULL,
    targets_root     TEXT NOT NULL,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    last_seq         INTEGER NOT NULL DEFAULT 0,
    queued           INTEGER NOT NULL DEFAULT 0,
    sent             INTEGER NOT NULL DEFAULT 0,
    running          INTEGER NOT NULL DEFAULT 0,
    succeeded        INTEGER NOT NULL DEFAULT 0,
    failed           INTEGER NOT NULL DEFAULT 0,
    denied           INTEGER NOT NULL DEFAULT 0,
    cancelled        INTEGER NOT NULL DEFAULT 0,
    expired          INTEGER NOT NULL DEFAULT 0,
    unknown          INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX commands_key ON commands (caller, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX commands_state ON commands (state, id);
CREATE INDEX commands_verb ON commands (verb, id);
CREATE INDEX commands_caller ON commands (caller, id);
CREATE INDEX commands_due ON commands (due_ms) WHERE finished_ms IS NULL;

-- Invocations: `seq` is set when one is settled, and never changes.
CREATE TABLE invocations (
    command     INTEGER NOT NULL REFERENCES commands (n),
    ordinal     INTEGER NOT NULL,
    id          TEXT NOT NULL,
    agent       TEXT NOT NULL,
    state       TEXT NOT NULL,
    seq         INTEGER,
    report      TEXT,
    sent_ms     INTEGER,
    started_ms  INTEGER,
    finished_ms INTEGER,
    PRIMARY KEY (command, ordinal)
) WITHOUT ROWID;
CREATE UNIQUE INDEX invocations_id ON invocations (id);
CREATE INDEX invocations_open ON invocations (agent, command) WHERE seq IS NULL;
CREATE INDEX invocations_seq ON invocations (command, seq) WHERE seq IS NOT NULL;
CREATE INDEX invocations_state ON invocations (command, state);

-- Plugins: verified releases and their bytes.
CREATE TABLE plugins (
    digest          TEXT NOT NULL PRIMARY KEY,
    plugin          TEXT NOT NULL,
    version         TEXT NOT NULL,
    epoch           INTEGER NOT NULL,
    sequence        INTEGER NOT NULL,
    release         TEXT NOT NULL,
    component_size  INTEGER NOT NULL,
    statements_size INTEGER NOT NULL,
    published_ms    INTEGER NOT NULL,
    published_by    TEXT NOT NULL,
    active          INTEGER NOT NULL
);
CREATE UNIQUE INDEX plugins_active ON plugins (plugin) WHERE active = 1;
CREATE INDEX plugins_name ON plugins (plugin, epoch, sequence);

CREATE TABLE plugin_parts (
    digest TEXT NOT NULL,
    part   TEXT NOT NULL,
    bytes  BLOB NOT NULL,
    PRIMARY KEY (digest, part)
);

-- Telemetry: raw samples, and their hours as sums.
CREATE TABLE telemetry (
    agent  TEXT NOT NULL,
    at_ms  INTEGER NOT NULL,
    sample TEXT NOT NULL,
    PRIMARY KEY (agent, at_ms)
) WITHOUT ROWID;
CREATE INDEX telemetry_at ON telemetry (at_ms);

CREATE TABLE telemetry_hours (
    agent             TEXT NOT NULL,
    hour_ms           INTEGER NOT NULL,
    samples           INTEGER NOT NULL,
    -- The latest sample; the sums below stand for the rest.
    latest            TEXT NOT NULL,
    cpu_percent       REAL NOT NULL,
    load_one          REAL NOT NULL,
    load_five         REAL NOT NULL,
    load_fifteen      REAL NOT NULL,
    memory_used_mib   REAL NOT NULL,
    swap_used_mib     REAL NOT NULL,
    disk_used_percent REAL NOT NULL,
    PRIMARY KEY (agent, hour_ms)
) WITHOUT ROWID;
CREATE INDEX telemetry_hours_hour ON telemetry_hours (hour_ms);

CREATE TABLE tokens (
    name       TEXT NOT NULL PRIMARY KEY,
    role       TEXT NOT NULL,
    sha256     BLOB NOT NULL UNIQUE,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER
);

CREATE TABLE audit (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms    INTEGER NOT NULL,
    actor    TEXT NOT NULL,
    action   TEXT NOT NULL,
    subject  TEXT NOT NULL,
    decision TEXT NOT NULL,
    detail   TEXT NOT NULL
);
CREATE INDEX audit_at ON audit (at_ms);
CREATE TRIGGER audit_is_append_only BEFORE UPDATE ON audit
BEGIN
    SELECT raise(ABORT, 'the audit record is append-only');
END;

CREATE TABLE probe (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    at_ms INTEGER NOT NULL
);
