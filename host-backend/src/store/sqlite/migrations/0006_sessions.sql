-- Which instance holds whose session, entered before the instance itself has it.
CREATE TABLE agent_sessions (
    agent      TEXT NOT NULL PRIMARY KEY,
    instance   TEXT NOT NULL,
    session    INTEGER NOT NULL,
    challenged INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX agent_sessions_instance ON agent_sessions (instance, agent);
CREATE INDEX agent_sessions_challenged ON agent_sessions (instance) WHERE challenged = 1;

-- The key that each instance signs warrants with: all must use the same.
CREATE TABLE instance_keys (
    instance    TEXT NOT NULL PRIMARY KEY,
    warrant_key TEXT NOT NULL
) WITHOUT ROWID;

-- The name of the group of instances.
CREATE TABLE instance_group (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    name TEXT NOT NULL
);

-- Numbers that grow with what instances keep in memory.
CREATE TABLE stamps (
    name TEXT NOT NULL PRIMARY KEY,
    n    INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
INSERT INTO stamps (name) VALUES ('catalog'), ('repository'), ('tokens'), ('agents');
CREATE TRIGGER plugins_made AFTER INSERT ON plugins BEGIN UPDATE stamps SET n = n + 1 WHERE name = 'catalog'; END;
CREATE TRIGGER plugins_changed AFTER UPDATE ON plugins BEGIN UPDATE stamps SET n = n + 1 WHERE name = 'catalog'; END;
CREATE TRIGGER rollouts_made AFTER INSERT ON rollouts BEGIN UPDATE stamps SET n = n + 1 WHERE name = 'catalog'; END;
CREATE TRIGGER rollouts_changed AFTER UPDATE ON rollouts BEGIN UPDATE stamps SET n = n + 1 WHERE name = 'catalog'; END;
CREATE TRIGGER mirror_made AFTER INSERT ON mirror BEGIN UPDATE stamps SET n = n + 1 WHERE name = 'repository'; END;
CREATE TRIGGER mirror_gone AFTER DELETE ON mirror BEGIN UPDATE stamps SET n = n + 1 WHERE name = 'repository'; END;
CREATE TRIGGER tokens_made AFTER INSERT ON tokens BEGIN UPDATE stamps SET n = n + 1 WHERE name = 'tokens'; END;
CREATE TRIGGER tokens_gone AFTER DELETE ON tokens BEGIN UPDATE stamps SET n = n + 1 WHERE name = 'tokens'; END;
