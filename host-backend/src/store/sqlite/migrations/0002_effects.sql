-- What an order is bound to beyond its verb and arguments, and what became of it later.
ALTER TABLE commands ADD COLUMN plans TEXT NOT NULL DEFAULT '[]';
ALTER TABLE commands ADD COLUMN undo_of TEXT;
ALTER TABLE commands ADD COLUMN undone_by TEXT;
ALTER TABLE commands ADD COLUMN approvals_needed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE commands ADD COLUMN approvals TEXT NOT NULL DEFAULT '[]';
CREATE INDEX commands_undo ON commands (undo_of, id) WHERE undo_of IS NOT NULL;

-- Plans: equal ones of a command together, and the command of one.
ALTER TABLE invocations ADD COLUMN plan TEXT;
CREATE INDEX invocations_plan ON invocations (command, plan, ordinal) WHERE plan IS NOT NULL;
CREATE INDEX invocations_plan_digest ON invocations (plan, command) WHERE plan IS NOT NULL;

-- Keys whose signatures are an operator's approvals.
CREATE TABLE approvers (
    key_id     TEXT NOT NULL PRIMARY KEY,
    operator   TEXT NOT NULL,
    pem        TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX approvers_operator ON approvers (operator);
