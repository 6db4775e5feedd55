//! Rows into model types. A row that does not parse is an error, never a default.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use std::str::FromStr;
use viworks_protocol::warrant::Mode;

use crate::store::StoreError;
use crate::store::model::{
    Agent, Approver, AuditEntry, AuditRow, Command, Counts, IdempotencyKey, Invocation, Page, PageOf, Plugin, Token,
};

pub(super) trait RowExt {
    fn text(&self, name: &'static str) -> Result<String, StoreError>;
    fn maybe_text(&self, name: &'static str) -> Result<Option<String>, StoreError>;
    fn number(&self, name: &'static str) -> Result<u64, StoreError>;
    fn maybe_number(&self, name: &'static str) -> Result<Option<u64>, StoreError>;
    fn small(&self, name: &'static str) -> Result<u32, StoreError>;
    fn flag(&self, name: &'static str) -> Result<bool, StoreError>;

    fn parsed<T: FromStr>(&self, name: &'static str) -> Result<T, StoreError> {
        parse(name, self.text(name)?)
    }

    fn maybe_parsed<T: FromStr>(&self, name: &'static str) -> Result<Option<T>, StoreError> {
        self.maybe_text(name)?.map(|text| parse(name, text)).transpose()
    }

    fn json_value<T: serde::de::DeserializeOwned>(&self, name: &'static str) -> Result<T, StoreError> {
        let text = self.text(name)?;
        serde_json::from_str(&text).map_err(|_| StoreError::Corrupt { what: name, text })
    }
}

fn parse<T: FromStr>(what: &'static str, text: String) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt { what, text })
}

fn unsigned(what: &'static str, value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| StoreError::Corrupt { what, text: value.to_string() })
}

impl RowExt for SqliteRow {
    fn text(&self, name: &'static str) -> Result<String, StoreError> {
        self.try_get(name).map_err(StoreError::Statement)
    }

    fn maybe_text(&self, name: &'static str) -> Result<Option<String>, StoreError> {
        self.try_get(name).map_err(StoreError::Statement)
    }

    fn number(&self, name: &'static str) -> Result<u64, StoreError> {
        unsigned(name, self.try_get(name).map_err(StoreError::Statement)?)
    }

    fn maybe_number(&self, name: &'static str) -> Result<Option<u64>, StoreError> {
        let value: Option<i64> = self.try_get(name).map_err(StoreError::Statement)?;
        value.map(|v| unsigned(name, v)).transpose()
    }

    fn small(&self, name: &'static str) -> Result<u32, StoreError> {
        let value = self.number(name)?;
        u32::try_from(value).map_err(|_| StoreError::Corrupt { what: name, text: value.to_string() })
    }

    fn flag(&self, name: &'static str) -> Result<bool, StoreError> {
        Ok(self.number(name)? != 0)
    }
}

pub(super) fn mode(text: String) -> Result<Mode, StoreError> {
    match text.as_str() {
        "apply" => Ok(Mode::Apply),
        "plan" => Ok(Mode::Plan),
        _ => Err(StoreError::Corrupt { what: "mode", text }),
    }
}

/// Columns of `commands` with their own names.
pub(super) fn command(row: &SqliteRow) -> Result<Command, StoreError> {
    Ok(Command {
        id: row.parsed("id")?,
        verb: row.text("verb")?,
        plugin: row.text("plugin")?,
        digest: row.text("digest")?,
        also: row.json_value("also")?,
        mode: mode(row.text("mode")?)?,
        args: row.text("args")?,
        caller: row.text("caller")?,
        state: row.parsed("state")?,
        created_ms: row.number("created_ms")?,
        expires_ms: row.number("expires_ms")?,
        finished_ms: row.maybe_number("finished_ms")?,
        timeout_secs: row.small("timeout_secs")?,
        batch: row.maybe_number("batch")?.map(|b| u32::try_from(b).unwrap_or(u32::MAX)),
        targets: row.small("targets")?,
        targets_root: row.text("targets_root")?,
        idempotency_key: match (row.maybe_text("idempotency_key")?, row.maybe_text("request_sha256")?) {
            (Some(key), Some(request_sha256)) => Some(IdempotencyKey { key, request_sha256 }),
            _ => None,
        },
        plans: row.json_value("plans")?,
        undo_of: row.maybe_parsed("undo_of")?,
        undone_by: row.maybe_parsed("undone_by")?,
        approvals_needed: row.small("approvals_needed")?,
        approvals: row.json_value("approvals")?,
        cancel_requested: row.flag("cancel_requested")?,
        counts: Counts {
            queued: row.small("queued")?,
            sent: row.small("sent")?,
            running: row.small("running")?,
            succeeded: row.small("succeeded")?,
            failed: row.small("failed")?,
            denied: row.small("denied")?,
            cancelled: row.small("cancelled")?,
            expired: row.small("expired")?,
            unknown: row.small("unknown")?,
        },
        last_seq: row.number("last_seq")?,
    })
}

/// Columns of `invocations`, with the command's id as `command_id`.
pub(super) fn invocation(row: &SqliteRow) -> Result<Invocation, StoreError> {
    Ok(Invocation {
        id: row.parsed("id")?,
        command: row.parsed("command_id")?,
        agent: row.parsed("agent")?,
        ordinal: row.small("ordinal")?,
        state: row.parsed("state")?,
        seq: row.maybe_number("seq")?,
        report: row.maybe_text("report")?,
        sent_ms: row.maybe_number("sent_ms")?,
        started_ms: row.maybe_number("started_ms")?,
        finished_ms: row.maybe_number("finished_ms")?,
    })
}

/// Columns of `agents`, with its plugins as a JSON array.
pub(super) fn agent(row: &SqliteRow) -> Result<Agent, StoreError> {
    Ok(Agent {
        id: row.parsed("id")?,
        online: row.flag("online")?,
        stale: row.flag("stale")?,
        site: row.maybe_text("site")?,
        labels: row.json_value("labels")?,
        version: row.text("version")?,
        boot: row.text("boot")?,
        max_concurrency: row.small("max_concurrency")?,
        first_seen_ms: row.number("first_seen_ms")?,
        last_seen_ms: row.number("last_seen_ms")?,
        plugins: row.json_value("plugins")?,
        receipts: match row.maybe_text("receipts")? {
            Some(text) => {
                Some(serde_json::from_str(&text).map_err(|_| StoreError::Corrupt { what: "receipts", text })?)
            }
            None => None,
        },
    })
}

pub(super) fn plugin(row: &SqliteRow) -> Result<Plugin, StoreError> {
    Ok(Plugin {
        plugin: row.text("plugin")?,
        version: row.text("version")?,
        digest: row.text("digest")?,
        epoch: row.small("epoch")?,
        sequence: row.small("sequence")?,
        release: row.text("release")?,
        component_size: row.small("component_size")?,
        statements_size: row.small("statements_size")?,
        published_ms: row.number("published_ms")?,
        published_by: row.text("published_by")?,
        standing: row.parsed("standing")?,
        wanted: row.parsed("wanted")?,
        activated_ms: row.maybe_number("activated_ms")?,
        note: row.text("note")?,
    })
}

pub(super) fn token(row: &SqliteRow) -> Result<Token, StoreError> {
    let sha256: Vec<u8> = row.try_get("sha256").map_err(StoreError::Statement)?;
    Ok(Token {
        name: row.text("name")?,
        role: row.parsed("role")?,
        sha256: sha256
            .try_into()
            .map_err(|b: Vec<u8>| StoreError::Corrupt { what: "sha256", text: format!("{} bytes", b.len()) })?,
        created_ms: row.number("created_ms")?,
        expires_ms: row.maybe_number("expires_ms")?,
    })
}

pub(super) fn approver(row: &SqliteRow) -> Result<Approver, StoreError> {
    Ok(Approver {
        key: row.text("key_id")?,
        operator: row.text("operator")?,
        pem: row.text("pem")?,
        created_ms: row.number("created_ms")?,
        created_by: row.text("created_by")?,
    })
}

pub(super) fn audit(row: &SqliteRow) -> Result<AuditRow, StoreError> {
    Ok(AuditRow {
        seq: row.number("seq")?,
        entry: AuditEntry {
            at_ms: row.number("at_ms")?,
            actor: row.text("actor")?,
            action: row.text("action")?,
            subject: row.text("subject")?,
            decision: row.parsed("decision")?,
            detail: row.text("detail")?,
        },
    })
}

/// A page of the rows that were asked for with one more than the page's limit.
pub(super) fn page<T>(
    rows: &[SqliteRow],
    of: &PageOf,
    read: impl Fn(&SqliteRow) -> Result<T, StoreError>,
    cursor: impl Fn(&T) -> String,
) -> Result<Page<T>, StoreError> {
    let limit = of.limit() as usize;
    let items: Vec<T> = rows.iter().take(limit).map(read).collect::<Result<_, _>>()?;
    let next = if rows.len() > limit { items.last().map(cursor) } else { None };
    Ok(Page { items, next })
}

/// A numeric cursor; `None` without one.
pub(super) fn number_cursor(of: &PageOf) -> Result<Option<i64>, StoreError> {
    of.after.as_deref().map(|c| c.parse().map_err(|_| StoreError::Cursor(c.to_owned()))).transpose()
}

/// How many rows to ask for.
pub(super) fn limit(of: &PageOf) -> i64 {
    i64::from(of.limit()) + 1
}
