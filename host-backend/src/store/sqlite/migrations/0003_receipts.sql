-- The keys that sign agents' receipts, and the one that is pinned now.
CREATE TABLE receipt_keys (
    agent    TEXT NOT NULL,
    key_id   TEXT NOT NULL,
    pem      TEXT NOT NULL,
    first_ms INTEGER NOT NULL,
    PRIMARY KEY (agent, key_id)
) WITHOUT ROWID;
ALTER TABLE agents ADD COLUMN receipt_key TEXT;

-- Receipts. A chain is a key, or a key and a boot; '' is for what no key vouches for.
CREATE TABLE receipts (
    agent      TEXT NOT NULL,
    chain      TEXT NOT NULL,
    seq        INTEGER NOT NULL,
    sha256     TEXT NOT NULL,
    prev       TEXT NOT NULL,
    boot       TEXT,
    command    TEXT NOT NULL,
    invocation TEXT NOT NULL,
    at_ms      INTEGER NOT NULL,
    fault      TEXT,
    walked     INTEGER NOT NULL,
    anchored   INTEGER NOT NULL DEFAULT 0,
    envelope   TEXT NOT NULL,
    PRIMARY KEY (agent, chain, seq, sha256)
) WITHOUT ROWID;
CREATE INDEX receipts_command ON receipts (command);
CREATE INDEX receipts_at ON receipts (at_ms);
CREATE INDEX receipts_unwalked ON receipts (agent, chain, seq) WHERE walked = 0;
CREATE INDEX receipts_anchored ON receipts (agent, chain, seq) WHERE anchored = 1;

-- How far each chain was followed, and how many of its receipts are held.
CREATE TABLE receipt_heads (
    agent        TEXT NOT NULL,
    chain        TEXT NOT NULL,
    boot         TEXT,
    seq          INTEGER NOT NULL,
    sha256       TEXT NOT NULL,
    held         INTEGER NOT NULL,
    anchored_seq INTEGER NOT NULL DEFAULT 0,
    changed_ms   INTEGER NOT NULL,
    PRIMARY KEY (agent, chain)
) WITHOUT ROWID;
CREATE INDEX receipt_heads_moved ON receipt_heads (agent) WHERE boot IS NULL AND seq > anchored_seq;
CREATE INDEX receipt_heads_boots ON receipt_heads (changed_ms) WHERE boot IS NOT NULL;

-- Anchors stay: they are what later receipts are checked by.
CREATE TABLE anchors (
    seq      INTEGER PRIMARY KEY,
    sha256   TEXT NOT NULL,
    at_ms    INTEGER NOT NULL,
    heads    INTEGER NOT NULL,
    envelope TEXT NOT NULL
);
