//! The columns of each kind of row, spelled out: `*` would change its meaning, and break
//! prepared statements, when a newer backend adds a column.

macro_rules! command_columns {
    () => {
        "c.n, c.id, c.verb, c.plugin, c.digest, c.also, c.mode, c.args, c.caller, c.state, c.created_ms, c.expires_ms,
         c.finished_ms, c.timeout_secs, c.batch, c.targets, c.targets_root, c.idempotency_key, c.request_sha256,
         c.plans, c.undo_of, c.undone_by, c.approvals_needed, c.approvals, c.cancel_requested, c.last_seq, c.queued,
         c.sent, c.running, c.succeeded, c.failed, c.denied, c.cancelled, c.expired, c.unknown"
    };
}
pub(super) use command_columns;

macro_rules! invocation_columns {
    () => {
        "i.id, i.agent, i.ordinal, i.state, i.seq, i.report, i.sent_ms, i.started_ms, i.finished_ms"
    };
}
pub(super) use invocation_columns;

macro_rules! plugin_columns {
    () => {
        "plugin, version, digest, epoch, sequence, release, component_size, statements_size, published_ms,
         published_by, standing, wanted, activated_ms, note"
    };
}
pub(super) use plugin_columns;

macro_rules! rollout_columns {
    () => {
        "n, id, plugin, digest, former, spec, state, stage, soaking_ms, everyone, reason, created_ms, created_by,
         changed_ms, finished_ms"
    };
}
pub(super) use rollout_columns;
