//! PostgreSQL's rows as the mapping reads them, and the columns of each kind of row. The
//! lists are spelled out: `*` would change its meaning, and break prepared statements, when
//! a newer backend adds a column.

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::failed;
use crate::store::StoreError;
pub(super) use crate::store::rows::*;

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

impl RowExt for PgRow {
    fn text(&self, name: &'static str) -> Result<String, StoreError> {
        self.try_get(name).map_err(failed)
    }

    fn maybe_text(&self, name: &'static str) -> Result<Option<String>, StoreError> {
        self.try_get(name).map_err(failed)
    }

    fn bytes(&self, name: &'static str) -> Result<Vec<u8>, StoreError> {
        self.try_get(name).map_err(failed)
    }

    fn real(&self, name: &'static str) -> Result<f64, StoreError> {
        self.try_get(name).map_err(failed)
    }

    fn maybe_signed(&self, name: &'static str) -> Result<Option<i64>, StoreError> {
        self.try_get(name).map_err(failed)
    }
}
