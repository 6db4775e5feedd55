-- Which instance holds whose session, entered before the instance itself has it.
CREATE TABLE agent_sessions (
    agent      TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    instance   TEXT NOT NULL,
    session    BIGINT NOT NULL,
    challenged BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX agent_sessions_instance ON agent_sessions (instance, agent);
CREATE INDEX agent_sessions_challenged ON agent_sessions (instance) WHERE challenged = 1;

-- The key that each instance signs warrants with: all must use the same.
CREATE TABLE instance_keys (
    instance    TEXT NOT NULL PRIMARY KEY,
    warrant_key TEXT NOT NULL
);

-- The name of the group of instances.
CREATE TABLE instance_group (
    one  BIGINT PRIMARY KEY CHECK (one = 1),
    name TEXT NOT NULL
);

-- Numbers that grow with what instances keep in memory.
CREATE TABLE stamps (
    name TEXT NOT NULL PRIMARY KEY,
    n    BIGINT NOT NULL DEFAULT 0
);
INSERT INTO stamps (name) VALUES ('catalog'), ('repository'), ('tokens'), ('agents');
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE stamps SET n = n + 1 WHERE name = TG_ARGV[0];
    RETURN NULL;
END $$;
CREATE TRIGGER plugins_changed AFTER INSERT OR UPDATE OR DELETE ON plugins
    FOR EACH STATEMENT EXECUTE FUNCTION stamp('catalog');
CREATE TRIGGER rollouts_changed AFTER INSERT OR UPDATE OR DELETE ON rollouts
    FOR EACH STATEMENT EXECUTE FUNCTION stamp('catalog');
CREATE TRIGGER mirror_changed AFTER INSERT OR UPDATE OR DELETE ON mirror
    FOR EACH STATEMENT EXECUTE FUNCTION stamp('repository');
CREATE TRIGGER tokens_changed AFTER INSERT OR UPDATE OR DELETE ON tokens
    FOR EACH STATEMENT EXECUTE FUNCTION stamp('tokens');
